"""Received messages and the right to acknowledge them.

Owns the acknowledgement bytes: PUBACK for QoS 1, PUBREC for QoS 2, in the order received, each with
its refusal where MQTT 5 can carry one. Does no IO: a receipt only names its connection and the epoch
in which its packet ids mean anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingest.frames import NO_PID
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Ack, Kind
from ingest.mqtt.properties import Prop, Properties

if TYPE_CHECKING:
    from ingest.mqtt.arena import Arena
    from ingest.mqtt.connection import Connection

REASON_BYTES_MAX = 100
"""Longest reason string sent with a refusal: names the field at fault and fits any device's buffer."""

_NONE: Mapping[int, int] = {}
_NO_REASONS: Mapping[int, str] = {}
_PREFIX = {0x02: b"\x40\x02", 0x04: b"\x50\x02"}
"""By the QoS bits of a PUBLISH's first byte: how PUBACK and PUBREC begin. The packet id follows."""
_QOS_BITS = 0x06


@dataclass(slots=True)
class Received:
    """The messages one connection brought in one poll, in the order received.

    topics, payloads, heads, pids  as in ingest.frames.Frames; RETAIN is ``heads[i] & 1``
    received_at_us                 µs since 1970 UTC
    size                           bytes read for them
    credential                     who published (listener); None is anonymous, or a broker
    oversized                      indexes of messages above the size limit: payload is only the beginning
    """

    conn: Connection
    epoch: int
    topics: list[bytes]
    payloads: list[bytes]
    heads: bytearray
    pids: list[bytes]
    received_at_us: int
    size: int = 0
    credential: str | None = None
    oversized: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.topics)


@dataclass(slots=True)
class Segment:
    """Whose bytes a segment of an arena are, as of when they were read."""

    conn: Connection
    epoch: int
    client_id: str
    credential: str | None
    from_publisher: bool
    v5: bool


@dataclass(slots=True)
class Arrivals:
    """What one poll brought: messages in an arena, which the next poll fills anew, and behind them those that
    plain Python took (all of them where there is no arena)."""

    arena: Arena[Segment] | None
    lots: list[Received]
    received_at_us: int

    @property
    def speakers(self) -> frozenset[int]:
        """Epochs of the connections that said something."""
        segments = self.arena.owners if self.arena is not None else []
        return frozenset([segment.epoch for segment in segments] + [lot.epoch for lot in self.lots])

    def __bool__(self) -> bool:
        return bool(self.lots) or (self.arena is not None and self.arena.count > 0)

    def __iter__(self) -> Iterator[Received]:
        """By connection, copied out of the arena: for whoever counts no microseconds."""
        if self.arena is not None:
            for segment, (first, last, _, _, size) in zip(
                self.arena.owners, self.arena.spans().tolist(), strict=True
            ):
                if last > first:
                    yield self._lot(self.arena, segment, first, last, size)
        yield from self.lots

    def _lot(self, arena: Arena[Segment], segment: Segment, first: int, last: int, size: int) -> Received:
        messages = range(first, last)
        return Received(
            segment.conn,
            segment.epoch,
            [arena.topic(m) for m in messages],
            [arena.payload(m) for m in messages],
            bytearray(arena.heads[first:last].tobytes()),
            [arena.pid(m) for m in messages],
            self.received_at_us,
            size,
            segment.credential,
        )


@dataclass(slots=True)
class Receipt:
    """The right to acknowledge on ``conn``, as long as its epoch is ``epoch``.

    acks      PUBACK and PUBREC packets, ready to send, for ``messages`` messages (QoS 0 has none)
    size      bytes read that wait for this
    """

    conn: Connection
    epoch: int
    acks: bytes
    messages: int
    size: int


def build_receipt(
    received: Received, refused: Mapping[int, int] = _NONE, why: Mapping[int, str] = _NO_REASONS
) -> Receipt:
    """The receipt of ``received``, to be used once its messages are on disk.

    ``refused`` gives MQTT 5 reason codes by index; ``why`` a reason in words, cut to 100 bytes. A 3.1.1
    publisher cannot be told and gets a plain acknowledgement, and so does a broker: it could do
    nothing with a refusal.
    """
    conn = received.conn
    if refused and not (conn.v5 and conn.from_publisher):
        refused = _NONE
    heads, pids = received.heads, received.pids
    if refused or heads.count(heads[0]) != len(heads) or NO_PID in pids:
        acks, messages = _one_by_one(received, refused, why), len(pids) - pids.count(NO_PID)
    else:
        prefix = _PREFIX[heads[0] & _QOS_BITS]
        acks, messages = prefix + prefix.join(pids), len(pids)
    return Receipt(conn, received.epoch, acks, messages, received.size)


def build_receipts(
    arena: Arena[Segment], refused: Mapping[int, int] = _NONE, why: Mapping[int, str] = _NO_REASONS
) -> list[Receipt]:
    """The receipts of an arena's messages, one a connection. ``refused`` and ``why`` as in build_receipt,
    by the arena's message numbers."""
    acks = arena.acks[: 4 * arena.acked].tobytes()
    if not refused:
        return [
            Receipt(segment.conn, segment.epoch, acks[begin:end], (end - begin) // 4, size)
            for segment, (first, last, begin, end, size) in zip(
                arena.owners, arena.spans().tolist(), strict=True
            )
            if last > first
        ]
    touched = {arena.segment_of(message) for message in refused}
    made = []
    for s, (segment, (first, last, begin, end, size)) in enumerate(
        zip(arena.owners, arena.spans().tolist(), strict=True)
    ):
        if last == first:
            continue
        conn = segment.conn
        mine = acks[begin:end]
        if s in touched and segment.from_publisher and conn.v5:
            mine = _with_refusals(arena, conn, range(first, last), refused, why)
        made.append(Receipt(conn, segment.epoch, mine, (end - begin) // 4, size))
    return made


def _with_refusals(
    arena: Arena[Segment],
    conn: Connection,
    messages: range,
    refused: Mapping[int, int],
    why: Mapping[int, str],
) -> bytes:
    out = bytearray()
    for m in messages:
        head, pid = int(arena.heads[m]), arena.pid(m)
        if pid and m in refused:
            out += _refusal(conn, head, pid, refused[m], why.get(m, ""))
        elif pid:
            out += _PREFIX[head & _QOS_BITS] + pid
    return bytes(out)


def _one_by_one(received: Received, refused: Mapping[int, int], why: Mapping[int, str]) -> bytes:
    if not refused and all(pid == NO_PID for pid in received.pids):
        return b""
    out = bytearray()
    for index, (head, pid) in enumerate(zip(received.heads, received.pids, strict=True)):
        if pid == NO_PID:
            continue
        if index in refused:
            out += _refusal(received.conn, head, pid, refused[index], why.get(index, ""))
        else:
            out += _PREFIX[head & _QOS_BITS] + pid
    return bytes(out)


def _refusal(conn: Connection, head: int, pid: bytes, code: int, reason: str) -> bytes:
    kind = Kind.PUBACK if head & _QOS_BITS == 0x02 else Kind.PUBREC
    ack = Ack(kind, int.from_bytes(pid, "big"), code)
    plain = encode(ack, True)
    if not reason or not conn.wants_reasons:
        return plain
    cut = reason.replace("\0", " ").encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore")
    properties: Properties = {Prop.REASON_STRING: cut}
    worded = encode(Ack(kind, ack.pid, code, properties), True)
    return worded if len(worded) <= conn.peer_packet_bytes_max else plain
