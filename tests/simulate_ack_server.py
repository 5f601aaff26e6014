"""An MQTT server that only acknowledges: the simulator's tests speak to it where no engine is wanted.

Owns a scanner of its own, written apart from the simulator's encoder and the engine's codec, so that
an error in either does not agree with itself. Keeps every PUBLISH it saw; can be told to be silent or
to drop its connections.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
from dataclasses import dataclass, field


@dataclass
class Publish:
    """One PUBLISH as it stood on the wire."""

    client: str
    topic: str
    payload: bytes
    qos: int
    dup: bool
    packet_id: int
    version: int


@dataclass
class _Peer:
    sock: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    version: int = 4
    client: str = ""


def varint(buffer: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Value and the position after it; None where bytes are missing."""
    value = shift = 0
    while at < len(buffer):
        value |= (buffer[at] & 0x7F) << shift
        at += 1
        if not buffer[at - 1] & 0x80:
            return value, at
        shift += 7
    return None


class AckServer:
    """Accepts on a free loopback port and acknowledges QoS 1, in a thread of its own.

    acknowledge       False: reads on but sends no PUBACK
    receive_maximum   put into the CONNACK of MQTT 5
    keep              False: counts only, for long runs
    """

    def __init__(self, port: int = 0, receive_maximum: int | None = None, keep: bool = True) -> None:
        self.acknowledge = True
        self.receive_maximum = receive_maximum
        self.keep = keep
        self.seen: list[Publish] = []
        self.count = 0
        self.connects: list[tuple[str, int, bool]] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, _Peer] = {}
        self._stop = threading.Event()
        self._drop = threading.Event()
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> AckServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        for peer in list(self._peers.values()):
            peer.sock.close()
        self._listener.close()
        self._selector.close()

    def drop_connections(self) -> None:
        """Close every connection without a word, as a dying engine does; returns when it is done."""
        self._dropped.clear()
        self._drop.set()
        assert self._dropped.wait(60)

    def serve_forever(self) -> None:
        self._run()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._drop.is_set():
                for peer in list(self._peers.values()):
                    self._close(peer)
                self._drop.clear()
                self._dropped.set()
            for key, _ in self._selector.select(0.01):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(self._peers[key.fileobj])  # type: ignore[index]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            self._peers[sock] = _Peer(sock)
            self._selector.register(sock, selectors.EVENT_READ)

    def _close(self, peer: _Peer) -> None:
        self._selector.unregister(peer.sock)
        del self._peers[peer.sock]
        peer.sock.close()

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.sock.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._close(peer)
            return
        peer.buffer += data
        answer = bytearray()
        at = 0
        while True:
            head = varint(peer.buffer, at + 1)
            if head is None or head[1] + head[0] > len(peer.buffer):
                break
            body = bytes(peer.buffer[head[1] : head[1] + head[0]])
            self._packet(peer, peer.buffer[at], body, answer)
            at = head[1] + head[0]
        del peer.buffer[:at]
        if answer:
            try:
                peer.sock.sendall(answer)
            except OSError:
                self._close(peer)

    def _packet(self, peer: _Peer, first: int, body: bytes, answer: bytearray) -> None:
        if first >> 4 == 1:
            peer.version = body[6]
            assert peer.version in (4, 5)
            at = 10
            if peer.version == 5:
                length, at = varint(body, at) or (0, at)
                at += length
            size = int.from_bytes(body[at : at + 2], "big")
            peer.client = body[at + 2 : at + 2 + size].decode()
            self.connects.append((peer.client, peer.version, bool(body[7] & 2)))
            if peer.version == 5:
                properties = (
                    b"" if self.receive_maximum is None else b"\x21" + self.receive_maximum.to_bytes(2, "big")
                )
                answer += bytes([0x20, 3 + len(properties), 0, 0, len(properties)]) + properties
            else:
                answer += b"\x20\x02\x00\x00"
        elif first >> 4 == 3:
            self._publish(peer, first, body, answer)
        elif first >> 4 == 12:
            answer += b"\xd0\x00"
        else:
            assert first >> 4 == 14, f"unexpected packet {first:#x}"

    def _publish(self, peer: _Peer, first: int, body: bytes, answer: bytearray) -> None:
        size = int.from_bytes(body[:2], "big")
        at = 2 + size
        qos = first >> 1 & 3
        packet_id = 0
        if qos:
            packet_id = int.from_bytes(body[at : at + 2], "big")
            at += 2
        if peer.version == 5:
            length, at = varint(body, at) or (0, at)
            at += length
        self.count += 1
        if self.keep:
            topic = body[2 : 2 + size].decode()
            self.seen.append(
                Publish(peer.client, topic, body[at:], qos, bool(first & 8), packet_id, peer.version)
            )
        if qos and self.acknowledge:
            answer += b"\x40\x02" + packet_id.to_bytes(2, "big")


if __name__ == "__main__":
    server = AckServer(int(sys.argv[1]), keep=False)
    print(server.port, flush=True)
    server.serve_forever()
