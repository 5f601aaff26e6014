"""A server that takes everything and looks at nothing: how fast the generator is by itself.

Owns the other end of the generator's own measurement. QoS 0 only. Run as ``python -m bench.load.sink``; it says its
port, ends with its parent, and reports the bytes it read.
"""

from __future__ import annotations

import select
import socket
import sys

from ingest.openfiles import raise_open_files
from ingest.simulate.speaker import cpu_s, forget_signals, say

READ_BYTES = 1 << 20
CONNACK_311 = b"\x20\x02\x00\x00"
CONNACK_5 = b"\x20\x03\x00\x00\x00"
LEVEL_AT = 8
"""Of the version in a CONNECT whose remaining length takes one byte."""


class Sink:
    """Accepts, welcomes, and throws away what is sent."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._server.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._server.fileno(), select.EPOLLIN)
        self._conns: dict[int, socket.socket] = {}
        self._new: set[int] = set()
        self._buffer = bytearray(READ_BYTES)
        self.bytes_read = 0
        self.port = self._server.getsockname()[1]

    def turn(self, wait_s: float) -> None:
        """Whatever is ready."""
        for fd, _ in self._epoll.poll(wait_s):
            if fd == self._server.fileno():
                self._accept()
            else:
                self._read(fd)

    def _accept(self) -> None:
        try:
            while True:
                conn, _ = self._server.accept()
                conn.setblocking(False)
                self._conns[conn.fileno()] = conn
                self._new.add(conn.fileno())
                self._epoll.register(conn.fileno(), select.EPOLLIN)
        except BlockingIOError:
            pass

    def _read(self, fd: int) -> None:
        conn = self._conns[fd]
        try:
            got = conn.recv_into(self._buffer)
        except OSError:
            got = 0
        if fd in self._new and got:
            self._new.discard(fd)
            conn.send(CONNACK_5 if self._buffer[LEVEL_AT] == 5 else CONNACK_311)
        if not got:
            self._epoll.unregister(fd)
            del self._conns[fd]
            conn.close()
        self.bytes_read += got


def main() -> None:
    """Take everything until SIGTERM; report."""
    raise_open_files()
    sys.stdin.buffer.readline()
    stopped: list[bool] = []
    forget_signals(lambda: stopped.append(True))
    sink = Sink()
    say(ready=True, port=sink.port)
    cpu = cpu_s()
    while not stopped:
        sink.turn(0.1)
    say(report={"bytes_read": sink.bytes_read, "cpu_s": cpu_s() - cpu})


if __name__ == "__main__":
    main()
