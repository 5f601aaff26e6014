"""One TCP or TLS connection: bytes in to its session, bytes out from it, and its right to acknowledge.

Owns the socket, the bounded output buffer, pausing of reads, and the epoch. Knows nothing of what a
packet means: the session does, and its owner (a door or a link) reacts to what the session says.
"""

from __future__ import annotations

import select
import socket
import ssl
from typing import TYPE_CHECKING, Final, Protocol

from ingest.frames import Frames
from ingest.mqtt.listener import ServerSession
from ingest.mqtt.receipts import Receipt, Received, Segment
from ingest.mqtt.sockets import CHUNK_BYTES, READ_BYTES_MAX, Sockets
from ingest.mqtt.subscriber import ClientSession
from ingest.mqtt.tls import common_name

OUT_GRACE = 3
"""A peer that does not read is paused at the output limit. What was received by then, at most twice the
limit, is still acknowledged into the buffer: at 4 bytes for a message of 7 or more that stays below this
many times the limit. Beyond it the connection is closed."""

if TYPE_CHECKING:
    from ingest.mqtt.arena import Arena

CLOSED = -1
"""Instead of bytes read: the peer closed (ingest.kernels.sockets, which is not there without numba)."""
_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Pause:
    """Why a connection is not read, as bits of a number: an enum's are some thousand instructions each time one is
    asked for, and all connections are asked once a second."""

    OUT: Final = 1
    """It does not take its acknowledgements."""
    UNANSWERED: Final = 2
    """Too much of it waits for the disk."""
    ADMISSION: Final = 4
    """Its password is being verified."""


class Owner(Protocol):
    """Who opened a connection and reacts to it."""

    def handshaken(self, conn: Connection) -> None:
        """TLS is up, or there is none."""

    def after_receive(self, conn: Connection) -> None:
        """The session was fed and may want something."""

    def closed(self, conn: Connection, why: str) -> None:
        """The connection is gone."""

    def sweep(self, conn: Connection, now: float, read_since: float | None) -> None:
        """Timers, about once a second. ``read_since``: when reading last began; None while it is paused."""


class Connection:
    """A peer. Epoch 0 is closed; a receipt of another epoch than the connection's is worth nothing.

    client_id   as the gateway says, or as we say to the broker
    address     IP address of the peer
    credential  who it proved to be (listener); None is anonymous, or a broker
    from_publisher  a gateway at our listener; otherwise a broker
    detail      why TLS failed, in words
    """

    def __init__(
        self,
        sockets: Sockets,
        sock: socket.socket,
        session: ServerSession | ClientSession,
        owner: Owner,
        address: str,
        buffer_bytes_max: int,
    ) -> None:
        self.epoch = sockets.next_epoch()
        self.session = session
        self.from_publisher = isinstance(session, ServerSession)
        self.client_id = ""
        self.address = address
        self.credential: str | None = None
        self.opened_at = self.last_read = self.last_sent = self.last_progress = sockets.now
        self.unanswered_bytes = 0
        self.detail = ""
        self.handshaking = False
        self.paused = 0
        """Bits of Pause; read while it is 0."""
        self.owner = owner
        self._sockets = sockets
        self._sock = sock
        self.fd = sock.fileno()
        """Of its socket; it means nothing once the connection is closed."""
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._segment: Segment | None = None
        self._out = bytearray()
        self._limit = buffer_bytes_max
        self.read_bytes_max = min(READ_BYTES_MAX, buffer_bytes_max)
        """Of one poll."""
        self._chunk = sockets.buffer[: min(CHUNK_BYTES, buffer_bytes_max)]
        sockets.connections[self.epoch] = self

    @property
    def v5(self) -> bool:
        """Whether the peer speaks MQTT 5."""
        return self.session.stream.v5

    @property
    def wants_reasons(self) -> bool:
        """Whether it wants refusals in words."""
        return isinstance(self.session, ServerSession) and self.session.wants_reasons

    @property
    def peer_packet_bytes_max(self) -> int:
        """Largest packet it takes."""
        return self.session.peer_packet_bytes_max if isinstance(self.session, ServerSession) else 0xFFFF_FFFF

    @property
    def out_bytes(self) -> int:
        """Bytes that wait for the peer to read."""
        return len(self._out)

    def certificate_name(self) -> str | None:
        """The common name of the certificate the peer showed and TLS verified."""
        return common_name(self._sock) if isinstance(self._sock, ssl.SSLSocket) else None

    def start(self) -> None:
        """Begin: shake hands where it is TLS, then read and tell the owner."""
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            self.handshaking = True
            self.on_ready(0, self._sockets.now)
        else:
            self._sockets.watch_reads(self.fd, self)
            self.owner.handshaken(self)

    def on_ready(self, _mask: int, _now: float) -> None:
        """Go on with the handshake, or write what waits."""
        if self.handshaking:
            self._shake_hands()
        else:
            self._flush()

    def _shake_hands(self) -> None:
        assert isinstance(self._sock, ssl.SSLSocket)
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._sockets.watch(self.fd, select.EPOLLIN, self)
        except ssl.SSLWantWriteError:
            self._sockets.watch(self.fd, select.EPOLLOUT, self)
        except (OSError, ValueError) as fault:
            self.detail = str(fault)
            self._doom("tls")
        else:
            self.handshaking = False
            self._sockets.unwatch(self.fd)
            self._sockets.watch_reads(self.fd, self)
            self._sockets.unread.add(self)
            self.owner.handshaken(self)

    def read(self) -> int:
        """Read what is there, up to a limit, and feed the session; the bytes read."""
        if self.paused or not self.epoch:
            return 0
        chunk, end = self._recv()
        if chunk:
            self.last_read = self._sockets.now
            self.feed(chunk)
        if end and self.epoch:
            self._doom(end)
        return len(chunk)

    @property
    def plain(self) -> bool:
        """Whether what comes next may be read into an arena."""
        return bool(self.epoch) and not self.paused and self.session.stream.plain

    @property
    def reads_together(self) -> bool:
        """Whether it is ``plain`` and may be read in one call with others: no TLS, nothing held either way."""
        return not (self._tls or self._out or self.paused) and self.epoch > 0 and self.session.stream.idle

    @property
    def writes_together(self) -> bool:
        """Whether it may be written in one call with others: no TLS, nothing waits."""
        return not (self._tls or self._out)

    @property
    def held_bytes(self) -> int:
        """Received of a message that is not whole yet."""
        return self.session.stream.held_bytes

    def got(self) -> Segment:
        """Bytes were read for us; whoever decodes them knows us as this."""
        self.last_read = self._sockets.now
        return self._segment or self._as_segment()

    def ended(self, size: int) -> None:
        """A read for us found no bytes and said why."""
        self._doom("closed_by_peer" if size == CLOSED else "reset")

    def _as_segment(self) -> Segment:
        """Ourselves as whoever decodes knows us. Messages are taken once it is known who speaks, and that stays."""
        if self._segment is None:
            known = self.client_id, self.credential, self.from_publisher, self.session.stream.v5
            self._segment = Segment(self, self.epoch, *known)
        return self._segment

    def read_into(self, arena: Arena[Segment]) -> int:
        """Read what is there, up to a limit, into a segment of the arena; the bytes read."""
        start = at = arena.used
        if self.session.stream.held_bytes:
            rest = self.session.stream.take_rest()
            at += len(rest)
            arena.view[start:at] = rest
        before, stop = at, min(at + self.read_bytes_max, arena.bytes_max)
        end = ""
        while at < stop:
            try:
                size = self._sock.recv_into(arena.view[at : min(at + CHUNK_BYTES, stop)])
            except _LATER:
                break
            except (OSError, ValueError):
                end = "reset"
                break
            if not size:
                end = "closed_by_peer"
                break
            at += size
            if size < CHUNK_BYTES and not self._tls:
                break
        else:
            if self._tls:
                self._sockets.unread.add(self)
        if at > before:
            self.last_read = self._sockets.now
        arena.segment(self._as_segment(), at - start, self.session.stream.v5)
        if end:
            self._doom(end)
        return at - before

    def took(self, acks: int, size: int, comps: bytes, rest: bytes, need: int) -> None:
        """The scan of our segment is done: ``size`` bytes of messages, ``acks`` of them to be acknowledged.

        comps  answers to PUBRELs; rest: what the scan left, the beginning of a PUBLISH of ``need`` bytes or, where
        that is 0, what is for the stream
        """
        if not self.epoch:
            return
        session = self.session
        if comps:
            session.out += comps
        if need:
            session.stream.keep(rest, need)
        session.took(acks)
        if size:
            self.unanswered_bytes += size
            if self.unanswered_bytes > self._limit:
                self.pause(Pause.UNANSWERED)
        if rest and not need:
            self.feed(rest)
            return
        if session.out:
            self.send_session()
        # Messages alone ask nothing of a door; a link notes when it heard from its broker.
        if session.ending or not self.from_publisher:
            self.owner.after_receive(self)

    def _recv(self) -> tuple[bytes, str]:
        """Bytes, and why no more will come ("" when they may)."""
        buffer, pieces, total = self._chunk, [], 0
        end = ""
        while True:
            try:
                size = self._sock.recv_into(buffer)
            except _LATER:
                break
            except (OSError, ValueError):
                end = "reset"
                break
            if not size:
                end = "closed_by_peer"
                break
            pieces.append(bytes(buffer[:size]))
            total += size
            if size < len(buffer) and not self._tls:
                break
            if total >= self.read_bytes_max:
                if self._tls:
                    self._sockets.unread.add(self)
                break
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), end

    def feed(self, chunk: bytes) -> None:
        """Give bytes to the session, hand on its messages, send its answers, tell the owner."""
        stream = self.session.stream
        before = stream.held_bytes + len(chunk)
        self.hand_on(self.session.receive(chunk), before)

    def hand_on(self, frames: Frames, bytes_before: int) -> None:
        """Messages of the session become Received; then answers and the owner."""
        session = self.session
        if frames.topics:
            size = bytes_before - session.stream.held_bytes
            sockets = self._sockets
            sockets.received.append(
                Received(
                    self,
                    self.epoch,
                    frames.topics,
                    frames.payloads,
                    frames.heads,
                    frames.pids,
                    sockets.wall_us,
                    size,
                    self.credential,
                    frames.oversized,
                )
            )
            self.unanswered_bytes += size
            if self.unanswered_bytes > self._limit:
                self.pause(Pause.UNANSWERED)
        if session.out:
            self.send_session()
        self.owner.after_receive(self)

    def publish(self, topic: str, payload: bytes) -> bool:
        """A message to the broker, QoS 0; False where the peer is none, not ready, or slow to read what waits."""
        session = self.session
        if not self.epoch or not isinstance(session, ClientSession) or self.paused & Pause.OUT:
            return False
        if not session.publish(topic, payload):
            return False
        self.send_session()
        return True

    def send_session(self) -> None:
        """Send what the session has to say."""
        out = bytes(self.session.out)
        self.session.out.clear()
        self.send(out)

    def acknowledge(self, epoch: int, receipt: Receipt) -> bool:
        """Account for the acknowledgements of ``receipt``, which are to be sent now; False, and counted, if its
        connection is gone."""
        if not self.epoch or epoch != self.epoch or receipt.epoch != epoch:
            if receipt.messages:
                self._sockets.counters["receipts_stale"] += 1
                self._sockets.counters["acks_stale"] += receipt.messages
            return False
        self.session.acknowledged(receipt.messages)
        self.unanswered_bytes -= receipt.size
        if self.paused & Pause.UNANSWERED and self.unanswered_bytes <= self._limit // 2:
            self.unpause(Pause.UNANSWERED)
        return True

    def send(self, out: bytes) -> None:
        """Send now what the kernel takes, the rest when it takes more. Never blocks, never raises."""
        if not self.epoch:
            return
        if self._out:
            self._out += out
            self._bound()
            return
        self.last_sent = self._sockets.now
        self._rest_of(out, self._send(out))

    def was_sent(self, out: bytes, sent: int) -> None:
        """``sent`` bytes of ``out`` were sent, and counted, for us; below 0: nobody is there to read it."""
        if not self.epoch:
            return
        self.last_sent = self._sockets.now
        if sent < 0:
            self._doom("reset")
        else:
            self._rest_of(out, sent)

    def _rest_of(self, out: bytes, sent: int) -> None:
        if sent < len(out) and self.epoch:
            self.last_progress = self._sockets.now
            self._out += out[sent:]
            self._sockets.watch(self.fd, select.EPOLLOUT, self)
            self._bound()

    def _send(self, out: bytes | bytearray) -> int:
        try:
            sent = self._sock.send(out)
        except _LATER:
            return 0
        except (OSError, ValueError):
            # Nobody is there to read it: nothing of it waits.
            self._doom("reset")
            return len(out)
        self._sockets.counters["bytes_out"] += sent
        return sent

    def _flush(self) -> None:
        sent = self._send(self._out)
        if sent:
            self.last_sent = self.last_progress = self._sockets.now
            del self._out[:sent]
        if not self._out:
            self._sockets.unwatch(self.fd)
        if self.paused & Pause.OUT and len(self._out) <= self._limit // 2:
            self.unpause(Pause.OUT)

    def _bound(self) -> None:
        if len(self._out) > self._limit:
            self.pause(Pause.OUT)
        if len(self._out) > OUT_GRACE * self._limit:
            self._doom("slow_reader")

    def pause(self, why: int) -> None:
        """Do not read until unpaused for this reason."""
        if not self.paused and self.epoch:
            self._sockets.unwatch_reads(self.fd)
            self._sockets.counters["pauses"] += 1
        self.paused |= why

    def unpause(self, why: int) -> None:
        """Read again unless another reason stands. Its keepalive starts anew."""
        was, self.paused = self.paused, self.paused & ~why
        if was and not self.paused and self.epoch:
            self.last_read = self._sockets.now
            self._sockets.watch_reads(self.fd, self)
            if self._tls:
                self._sockets.unread.add(self)

    def _doom(self, why: str) -> None:
        if self.epoch:
            self._sockets.doomed.append((self, why))

    def close(self) -> None:
        """Close the socket after one last try to send. The epoch ends: receipts are worth nothing now."""
        if not self.epoch:
            return
        if self.session.out and not self.handshaking:
            self.send_session()
        self._sockets.connections.pop(self.epoch, None)
        self.epoch = 0
        self._sockets.unwatch_reads(self.fd)
        self._sockets.unwatch(self.fd)
        self._sockets.unread.discard(self)
        self._sock.close()
