"""The scan: PUBLISH frames out of a connection's bytes, many at a time.

Owns the hot loop of the wire and nothing else: no socket, clock or session. What is rare (long
lengths, MQTT 5 properties, topics that are not plain ASCII) leaves the loop for a function below.
No object is made for a message, only its topic, payload and packet id as slices.
"""

from __future__ import annotations

from enum import Enum, auto
from struct import Struct

from ingest.mqtt.fields import (
    VARINT_MAX,
    MalformedPacket,
    Reader,
    Reason,
    malformed,
    protocol_error,
    varint_at,
)
from ingest.mqtt.properties import In, Prop, decode_properties

PUBLISH_HEADS = frozenset([0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D])
"""First bytes a PUBLISH may have: no QoS 3, and DUP only where there is a packet id."""
FRAME_BYTES_MAX = VARINT_MAX + 5
NO_PID = b""
"""Stands for the packet id of a message that is never acknowledged (QoS 0, wills)."""

_start_of = Struct(">BBH").unpack_from
"""First byte, length where it is one byte, length of the topic."""


class Stop(Enum):
    """Why the scan stopped at ``Frames.end`` (which says nothing after a FAULT)."""

    END = auto()
    """The buffer is used up."""
    INCOMPLETE = auto()
    """A packet begins that is not whole; ``Frames.need`` says how long it is, 0 where not known yet."""
    OVERSIZED = auto()
    """A PUBLISH of ``Frames.need`` bytes begins, which is more than the limit."""
    OTHER = auto()
    """Another kind of packet stands here."""
    FAULT = auto()
    """A packet is malformed, ``Frames.fault`` says how. All messages before it are good."""


class Frames:
    """PUBLISH messages in the order received; the four columns have one entry a message.

    topics    bytes, checked: UTF-8, not empty, no wildcard, no U+0000
    payloads  bytes, possibly empty
    heads     first byte of the packet: DUP 0x08, QoS 0x06, RETAIN 0x01
    pids      packet id as its two bytes on the wire; NO_PID where there is nothing to acknowledge
    oversized indexes of messages whose payload is only its first bytes (set by ingest.mqtt.stream)
    """

    __slots__ = ("end", "fault", "heads", "need", "oversized", "payloads", "pids", "stop", "topics")

    def __init__(self) -> None:
        self.topics: list[bytes] = []
        self.payloads: list[bytes] = []
        self.heads = bytearray()
        self.pids: list[bytes] = []
        self.oversized: list[int] = []
        self.end = 0
        self.need = 0
        self.stop = Stop.END
        self.fault: MalformedPacket | None = None

    def __len__(self) -> int:
        return len(self.topics)

    def _cut(self, length: int, fault: MalformedPacket) -> None:
        del self.topics[length:], self.payloads[length:], self.heads[length:], self.pids[length:]
        self.stop, self.fault = Stop.FAULT, fault


def scan(
    buffer: bytes, start: int, v5: bool, bytes_max: int = FRAME_BYTES_MAX, frames: Frames | None = None
) -> Frames:
    """Take complete PUBLISH frames of at most ``bytes_max`` bytes from ``start`` on.

    Appends to ``frames`` (a new one without it) and sets its ``end``, ``stop`` and ``need``. Never
    raises for what a peer sent: a fault ends the scan with ``stop`` FAULT, the messages before it kept.
    """
    if frames is None:
        frames = Frames()
    first = len(frames.topics)
    position, last = start, len(buffer) - 4
    frames.stop, frames.need = Stop.END, 0
    while position <= last:
        head = buffer[position]
        if head not in PUBLISH_HEADS:
            break
        before = len(frames.topics)
        try:
            position = _run(buffer, position, head, v5, bytes_max, frames)
        except MalformedPacket as fault:
            frames.stop, frames.fault = Stop.FAULT, fault
        # One run shares its first byte, so that the loop need not keep it for each message.
        frames.heads += bytes([head]) * (len(frames.topics) - before)
        if frames.stop is not Stop.END:
            break
    frames.end = position
    if frames.stop is Stop.END and position < len(buffer):
        _why(buffer, position, frames)
    if len(frames.topics) > first:
        _check(frames, first)
    return frames


def _run(buffer: bytes, position: int, head: int, v5: bool, bytes_max: int, frames: Frames) -> int:
    """Take frames as long as they begin with ``head``; the position of the first one not taken."""
    size = len(buffer)
    last = size - 4
    add_topic, add_payload, add_pid = frames.topics.append, frames.payloads.append, frames.pids.append
    pid_bytes = 2 if head & 6 else 0
    while position <= last:
        first, length, topic_bytes = _start_of(buffer, position)
        if first != head:
            break
        topic_at = position + 4
        if length < 128:
            end = topic_at - 2 + length
        else:
            length, body = varint_at(buffer, position + 1, size)
            if length < 0:
                frames.stop = Stop.INCOMPLETE
                break
            if v5 and buffer[body - 1] == 0:
                raise malformed("packet length is not in its shortest form")
            end, topic_at = body + length, body + 2
            topic_bytes = int.from_bytes(buffer[body:topic_at], "big")
        if end > size or end - position > bytes_max:
            frames.need = end - position
            frames.stop = Stop.OVERSIZED if frames.need > bytes_max else Stop.INCOMPLETE
            break
        pid_at = topic_at + topic_bytes
        payload_at = pid_at + pid_bytes
        if v5:
            if payload_at >= end:
                raise malformed("PUBLISH ends before its properties")
            # No properties is the common case: one byte that is 0.
            payload_at = (
                payload_at + 1 if not buffer[payload_at] else _after_properties(buffer, payload_at, end)
            )
        elif payload_at > end:
            raise malformed("PUBLISH ends inside its topic or packet id")
        add_topic(buffer[topic_at:pid_at])
        add_pid(buffer[pid_at : pid_at + pid_bytes])
        add_payload(buffer[payload_at:end])
        position = end
    return position


def _after_properties(buffer: bytes, start: int, end: int) -> int:
    """Check the properties at ``start``; where the payload begins."""
    reader = Reader(buffer, start, end)
    properties = decode_properties(reader, In.PUBLISH)
    if Prop.TOPIC_ALIAS in properties:
        raise MalformedPacket(Reason.TOPIC_ALIAS_INVALID, "a topic alias, though none was offered")
    return reader.position


def _why(buffer: bytes, position: int, frames: Frames) -> None:
    """Why the scan stands at ``position``, where a byte is left."""
    head = buffer[position]
    if head in PUBLISH_HEADS:
        # At most three bytes are left; the shortest PUBLISH has five, unless its length says otherwise.
        frames.stop = Stop.INCOMPLETE
        if len(buffer) - position > 1 and buffer[position + 1] < 128:
            frames.need = buffer[position + 1] + 2
            if frames.need < 5:
                frames.stop, frames.fault = Stop.FAULT, malformed("PUBLISH too short for a topic")
    elif head >> 4 == 3:
        frames.stop, frames.fault = Stop.FAULT, malformed(f"PUBLISH flags 0x{head & 15:x}")
    else:
        frames.stop = Stop.OTHER


def _check(frames: Frames, first: int) -> None:
    """Check topics and packet ids from ``first`` on, all at once; cut at the first bad one."""
    topics = frames.topics[first:] if first else frames.topics
    pids = frames.pids[first:] if first else frames.pids
    together = b"/".join(topics)
    if (
        together.isascii()
        and b"+" not in together
        and b"#" not in together
        and b"\0" not in together
        and b"" not in topics
        and b"\0\0" not in pids
    ):
        return
    for index, (topic, pid) in enumerate(zip(topics, pids, strict=True), first):
        fault = _fault_of(topic, pid)
        if fault is not None:
            frames._cut(index, fault)
            return


def _fault_of(topic: bytes, pid: bytes) -> MalformedPacket | None:
    if pid == b"\0\0":
        return malformed("packet id 0")
    if not topic:
        return protocol_error("empty topic")
    if b"+" in topic or b"#" in topic:
        return MalformedPacket(Reason.TOPIC_NAME_INVALID, f"wildcard in a topic name: {topic[:100]!r}")
    try:
        topic.decode()
    except UnicodeDecodeError as error:
        return malformed(f"topic is not UTF-8 at byte {error.start}")
    return malformed("U+0000 in a topic") if b"\0" in topic else None
