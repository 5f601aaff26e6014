"""One connection of a station: bytes in to frames, answers out.

Owns the socket and both buffers. Knows nothing of what a frame means: the codec finds frames, whoever polls hands them
on.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final

from ingest.decode.refused import Refused

if TYPE_CHECKING:
    from ingest.codecs.base import StreamCodec
    from ingest.tcp.settings import TcpSettings
    from storage.certificates import ServerTls

READ_BYTES_MAX: Final = 64 * 1024
"""Read from one connection in one poll; then it is the others' turn."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A peer that vanished without a word (a modem that lost its cell) is noticed after two minutes."""
_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_NOISE = b"\r\n\0 \x7e"
"""What may stand between frames; a rest of it is nobody's loss."""


class Station:
    """A connected peer.

    source   name of the source whose port it came to
    client   "address:port", for the quarantine
    waiting  groups of its frames that are not on disk yet
    leaving  it will say no more; it is closed once its answers are sent
    """

    __slots__ = (
        "_held", "_limit", "_out", "_sock", "address", "begun_at", "client", "closed", "heard_at", "leaving", "source",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        source: str,
        settings: TcpSettings,
        now: float,
        tls: ServerTls | None = None,
    ) -> None:
        """With ``tls`` the handshake is part of the first reads. Raises OSError where the peer is gone already."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        host, port = sock.getpeername()[:2]
        if tls is not None:
            sock = tls.current.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._sock = sock
        self._held = b""
        self._out = bytearray()
        self._limit = settings.buffer_bytes_max
        self.address: str = host
        self.client = f"{host}:{port}"
        self.source = source
        self.heard_at = now
        self.begun_at = now
        self.waiting = 0
        self.leaving = self.closed = False

    def fileno(self) -> int:
        """Of its socket."""
        return self._sock.fileno()

    @property
    def out_bytes(self) -> int:
        """Answers that wait for the peer to read."""
        return len(self._out)

    @property
    def handshaking(self) -> bool:
        """Whether TLS is not up yet."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.version() is None

    @property
    def unfinished(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._held.strip(_NOISE))

    def read(
        self, buffer: memoryview, codec: StreamCodec, now: float
    ) -> tuple[list[bytes | Refused], int, str]:
        """Frames that are whole now, bytes read, and why no more will come ("" when they may)."""
        pieces, total, why = [self._held], 0, ""
        while total < READ_BYTES_MAX:
            try:
                size = self._sock.recv_into(buffer)
            except _LATER:
                break
            except ssl.SSLError:
                why = "tls"
                break
            except OSError:
                why = "reset"
                break
            if not size:
                why = "closed_by_peer"
                break
            pieces.append(bytes(buffer[:size]))
            total += size
            if size < len(buffer):
                break
        frames: list[bytes | Refused] = []
        if total:
            self.heard_at = now
            if not self.unfinished:
                self.begun_at = now
            held = b"".join(pieces)
            frames, used = codec.split(held)
            self._held = held[used:]
            if used:
                self.begun_at = now
            if len(self._held) > self._limit:
                why = "oversized"
        return frames, total, why

    def give_up(self, why: str) -> Refused | None:
        """What is left of a frame that will not be finished."""
        rest, self._held = self._held, b""
        if not rest.strip(_NOISE):
            return None
        return Refused("bad_frame", f"the connection ended inside a frame: {why}", raw=rest)

    def send(self, answer: bytes) -> int:
        """Send what the kernel takes now, keep the rest. The bytes sent; -1 when the peer is gone or does not read."""
        self._out += answer
        if len(self._out) > self._limit:
            return -1
        return self.flush()

    def flush(self) -> int:
        """Send what waits. The bytes sent; -1 when the peer is gone."""
        try:
            sent = self._sock.send(self._out) if self._out else 0
        except _LATER:
            return 0
        except OSError:
            return -1
        del self._out[:sent]
        return sent

    def close(self) -> None:
        """Close the socket; whoever still holds answers for it finds it closed."""
        self.closed = True
        self._sock.close()
