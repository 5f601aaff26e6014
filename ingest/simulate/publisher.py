"""One simulated gateway's MQTT publishing, without a socket: handshake, window, packet ids, redelivery.

Owns what a gateway must remember to be an honest at-least-once publisher: encoded messages stay until
they are acknowledged and are sent again, marked DUP, after a reconnect. Written apart from the engine's
codec. Knows nothing of sockets, time or where payloads come from.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.simulate.encode import MQTT_5, PACKET_IDS, remaining_length
from ingest.simulate.ledger import ABSENT, ACKED, REFUSED, Chunk

KEEPALIVE_S = 60
SESSION_EXPIRY_S = 3600
DISCONNECT = b"\xe0\x00"
PINGREQ = b"\xc0\x00"
REFUSAL = 0x80
"""MQTT 5 reason codes from here on say no."""
IDS_IN_USE_MAX = 60_000
"""Messages a gateway may keep, so that a packet id is never in use twice."""
PACKET_BYTES_MAX = 1 << 16
"""A server's answer longer than this is no answer to a publisher."""

# Bytes of each CONNACK property by its id (MQTT 5, 3.2.2.3); -1 and -2 are one and two texts.
_PROPERTY_BYTES: Final = {
    0x11: 4, 0x12: -1, 0x13: 2, 0x15: -1, 0x16: -1, 0x1A: -1, 0x1C: -1, 0x1F: -1,
    0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x26: -2, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_RECEIVE_MAXIMUM = 0x21


class RefusedError(ConnectionError):
    """The server said no to CONNECT, or closed with a reason, or spoke nonsense."""


@dataclass(slots=True)
class Parcel:
    """The messages of one instant. Message m holds rows row0 + m * per_message … of the chunk."""

    blob: bytes
    offsets: list[int]
    first_id: int
    chunk: Chunk
    row0: int
    rows: int
    per_message: int = 1
    sent: int = 0
    again: int = 0
    """Messages before this one were sent on an earlier connection: they carry DUP."""
    acked: int = 0
    """All messages before this one are acknowledged ..."""
    holes: set[int] = field(default_factory=set)
    """... and these beyond it: servers that answer out of order are rare but right."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row_range(self, begin: int, end: int) -> tuple[int, int]:
        """Rows of messages begin … end - 1."""
        return (
            self.row0 + min(begin * self.per_message, self.rows),
            self.row0 + min(end * self.per_message, self.rows),
        )


class Publisher:
    """The state of one gateway. The socket's owner feeds it bytes and takes bytes from it.

    up        CONNACK came, messages may go
    sent      readings handed over at least once; acked: readings acknowledged without a refusal
    not_sent  readings dropped because the backlog was full
    resent    messages sent again with DUP
    kept      messages queued or unacknowledged, at most ``backlog_max``
    """

    def __init__(
        self,
        client_id: str,
        version: int,
        qos: int,
        inflight_max: int,
        backlog_max: int,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        """``inflight_max`` messages unacknowledged at once (MQTT 5: the server's Receive Maximum if less);
        ``backlog_max`` messages kept in all."""
        self.client_id = client_id
        self.version = version
        self.qos = qos
        self.up = False
        self.sent = 0
        self.acked = 0
        self.not_sent = 0
        self.resent = 0
        self._asked_inflight = inflight_max
        self._window = inflight_max
        self.backlog_max = min(backlog_max, IDS_IN_USE_MAX)
        self._user, self._password = user, password
        self._waiting: deque[Parcel] = deque()
        self._inflight: deque[Parcel] = deque()
        self._outstanding = 0
        self.kept = 0
        self._next_id = 1
        self._carry = b""

    @property
    def next_id(self) -> int:
        """Packet id of the next parcel's first message."""
        return self._next_id

    @property
    def idle(self) -> bool:
        """Everything accepted has been sent and, at QoS 1, acknowledged."""
        return not self._waiting and not self._inflight

    def connect(self) -> bytes:
        """The CONNECT packet: a lasting session under the gateway's own name, as a real gateway has."""
        flags = (0x80 if self._user is not None else 0) | (0x40 if self._password is not None else 0)
        name = b"\x00\x04MQTT" + bytes([self.version, flags]) + KEEPALIVE_S.to_bytes(2, "big")
        if self.version == MQTT_5:
            name += b"\x05\x11" + SESSION_EXPIRY_S.to_bytes(4, "big")
        fields = [self.client_id, *(text for text in (self._user, self._password) if text is not None)]
        body = name + b"".join(len(t.encode()).to_bytes(2, "big") + t.encode() for t in fields)
        return b"\x10" + remaining_length(len(body)) + body

    def accept(self, parcel: Parcel) -> bool:
        """Queue a parcel encoded with ``next_id``. False, and its readings counted, where no room is."""
        if self.kept + len(parcel) > self.backlog_max:
            self.not_sent += parcel.rows
            parcel.chunk.settle(*parcel.row_range(0, len(parcel)), ABSENT)
            return False
        self.kept += len(parcel)
        self._next_id = (self._next_id - 1 + len(parcel)) % PACKET_IDS + 1
        self._waiting.append(parcel)
        return True

    def take(self, now_us: int) -> list[bytes | memoryview]:
        """Bytes to send now, within the window; the ledger's rows are marked sent at ``now_us``."""
        out: list[bytes | memoryview] = []
        while self.up and self._waiting and (self.qos == 0 or self._outstanding < self._window):
            parcel = self._waiting[0]
            while parcel.sent in parcel.holes:
                parcel.sent += 1
            begin = parcel.sent
            end = min((h for h in parcel.holes if h >= begin), default=len(parcel))
            if self.qos:
                end = min(end, begin + self._window - self._outstanding)
                self._outstanding += end - begin
                if not self._inflight or self._inflight[-1] is not parcel:
                    self._inflight.append(parcel)
            if end > begin:
                out.append(self._bytes(parcel, begin, end))
                self._note_sent(parcel, max(begin, parcel.again), end, now_us)
            parcel.sent = end
            if parcel.sent >= len(parcel):
                self._waiting.popleft()
                self.kept -= 0 if self.qos else len(parcel)
        return out

    def _note_sent(self, parcel: Parcel, begin: int, end: int, now_us: int) -> None:
        """Messages that go for the first time; a repeat keeps the time of its first sending."""
        if begin < end:
            first, last = parcel.row_range(begin, end)
            parcel.chunk.sent(first, last, now_us, final=not self.qos)
            self.sent += last - first

    def _bytes(self, parcel: Parcel, begin: int, end: int) -> bytes | memoryview:
        view = memoryview(parcel.blob)[parcel.offsets[begin] : parcel.offsets[end]]
        if begin >= parcel.again:
            return view
        marked = bytearray(view)
        for offset in parcel.offsets[begin : min(end, parcel.again)]:
            marked[offset - parcel.offsets[begin]] |= 0x08
        self.resent += min(end, parcel.again) - begin
        return bytes(marked)

    def lost(self) -> None:
        """The connection is gone: what was sent and not acknowledged will be sent again, in order."""
        self.up = False
        self._carry = b""
        self._outstanding = 0
        self._window = self._asked_inflight
        if self.qos == 0:
            return
        flying = self._inflight[-1] if self._inflight else None
        unsent = [parcel for parcel in self._waiting if parcel is not flying]
        for parcel in self._inflight:
            parcel.again = max(parcel.again, parcel.sent)
            parcel.sent = parcel.acked
        self._waiting = deque([*self._inflight, *unsent])
        self._inflight.clear()

    def feed(self, data: bytes) -> None:
        """Bytes from the server. Raises RefusedError where the connection must be closed."""
        if not self._carry and len(data) % 4 == 0:
            words = np.frombuffer(data, ">u4")
            if ((words >> 16) == 0x4002).all():
                self._acknowledge((words & 0xFFFF).astype(np.int64))
                return
        data = self._carry + data
        at = 0
        while (packet := _packet(data, at)) is not None:
            first, begin, at = packet
            self._answer(first >> 4, data[begin:at])
        self._carry = data[at:]

    def _answer(self, kind: int, body: bytes) -> None:
        if kind == 4 and len(body) >= 2:
            refused = len(body) > 2 and body[2] >= REFUSAL
            self._acknowledge(np.array([int.from_bytes(body[:2], "big")]), REFUSED if refused else ACKED)
        elif kind == 2 and len(body) >= 2:
            if body[1] != 0:
                raise RefusedError(f"{self.client_id}: CONNECT refused with code {body[1]}")
            self.up = True
            if self.version == MQTT_5:
                self._window = min(self._asked_inflight, receive_maximum(body[2:]))
        elif kind == 14:
            raise RefusedError(f"{self.client_id}: server closed with reason {body[0] if body else 0}")
        elif kind != 13:
            raise RefusedError(f"{self.client_id}: unexpected packet type {kind}")

    def _acknowledge(self, ids: npt.NDArray[np.int64], state: int = ACKED) -> None:
        """Acknowledgements in any order; those of unknown ids (a session before ours) mean nothing."""
        while len(ids) and self._inflight:
            parcel = self._inflight[0]
            place = (ids - parcel.first_id) % PACKET_IDS
            expected = np.arange(parcel.acked, parcel.acked + len(place))
            in_turn = (place == expected) & (place < parcel.sent)
            run = len(in_turn) if in_turn.all() else int(in_turn.argmin())
            if run and not parcel.holes:
                self._settle(parcel, parcel.acked, parcel.acked + run, state)
                ids = ids[run:]
            else:
                self._acknowledge_one(int(ids[0]), state)
                ids = ids[1:]
            while self._inflight and self._inflight[0].acked >= len(self._inflight[0]):
                self._inflight.popleft()

    def _acknowledge_one(self, packet_id: int, state: int) -> None:
        for parcel in self._inflight:
            place = (packet_id - parcel.first_id) % PACKET_IDS
            if place < parcel.sent:
                if place == parcel.acked:
                    self._settle(parcel, place, place + 1, state)
                elif place > parcel.acked and place not in parcel.holes:
                    parcel.holes.add(place)
                    self._close(parcel, place, place + 1, state)
                return

    def _settle(self, parcel: Parcel, begin: int, end: int, state: int) -> None:
        self._close(parcel, begin, end, state)
        parcel.acked = end
        while parcel.acked in parcel.holes:
            parcel.holes.remove(parcel.acked)
            parcel.acked += 1

    def _close(self, parcel: Parcel, begin: int, end: int, state: int) -> None:
        first, last = parcel.row_range(begin, end)
        parcel.chunk.settle(first, last, state)
        self.acked += last - first if state == ACKED else 0
        self._outstanding -= end - begin
        self.kept -= end - begin


def receive_maximum(properties: bytes) -> int:
    """Receive Maximum of a CONNACK's properties (with their length); 65,535 where it says nothing."""
    head = _varint(properties, 0)
    if head is None:
        return PACKET_IDS
    length, at = head
    end = min(at + length, len(properties))
    while at < end:
        key, at = properties[at], at + 1
        size = _PROPERTY_BYTES.get(key)
        if size is None:
            break
        if key == _RECEIVE_MAXIMUM:
            return int.from_bytes(properties[at : at + 2], "big")
        for _ in range(-size):
            at += 2 + int.from_bytes(properties[at : at + 2], "big")
        at += max(size, 0)
    return PACKET_IDS


def _packet(data: bytes, at: int) -> tuple[int, int, int] | None:
    """First byte, begin of the body and end of the packet at ``at``; None where it is not whole."""
    head = _varint(data, at + 1)
    if head is None:
        return None
    length, begin = head
    if length > PACKET_BYTES_MAX:
        raise RefusedError(f"a packet of {length} bytes from the server")
    return (data[at], begin, begin + length) if begin + length <= len(data) else None


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    value = 0
    for shift in range(0, 28, 7):
        if at >= len(data):
            return None
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise RefusedError("a remaining length of more than four bytes")
