"""The smallest pieces of MQTT: integers, strings, variable byte integers, reason codes.

Owns how one field lies on the wire and what is malformed about it. Knows nothing of packets,
sessions or sockets.
"""

from __future__ import annotations

from enum import IntEnum

VARINT_MAX = 268_435_455
"""Largest variable byte integer: four bytes of seven bits."""
TEXT_BYTES_MAX = 65_535
"""Strings and binary fields carry a two-byte length."""


class Reason(IntEnum):
    """MQTT 5 reason codes (specification 2.4), by their names there."""

    SUCCESS = 0x00
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC = 0x83
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_USER_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_FORMAT_INVALID = 0x99
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0


class MalformedPacket(Exception):  # noqa: N818 - it is a packet, not our error
    """A peer broke the protocol: its connection is closed, nothing else.

    ``reason_code`` is what MQTT 5 says in DISCONNECT or CONNACK; ``message`` is for our log.
    """

    def __init__(self, reason_code: int, message: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code
        self.message = message


def malformed(message: str) -> MalformedPacket:
    """The common case: bytes that are no packet at all."""
    return MalformedPacket(Reason.MALFORMED, message)


def protocol_error(message: str) -> MalformedPacket:
    """Well-formed bytes that must not stand where they stand."""
    return MalformedPacket(Reason.PROTOCOL_ERROR, message)


def encode_varint(value: int) -> bytes:
    """``value`` in the fewest bytes. Raises ValueError outside 0 … VARINT_MAX."""
    if not 0 <= value <= VARINT_MAX:
        raise ValueError(f"variable byte integer out of range: {value}")
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def varint_at(buffer: bytes, start: int, end: int) -> tuple[int, int]:
    """The variable byte integer at ``start`` and the position after it; (-1, start) if it is not whole.

    Raises MalformedPacket when the fourth byte says that a fifth follows.
    """
    value = shift = 0
    position = start
    while position < end:
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 21:
            raise malformed("variable byte integer longer than four bytes")
    return -1, start


def encode_binary(value: bytes) -> bytes:
    """Two bytes of length and the bytes. Raises ValueError above 65,535 bytes."""
    if len(value) > TEXT_BYTES_MAX:
        raise ValueError(f"field of {len(value)} bytes, at most {TEXT_BYTES_MAX} fit")
    return len(value).to_bytes(2, "big") + value


def encode_text(value: str) -> bytes:
    """A UTF-8 string with its length. Raises ValueError for U+0000, lone surrogates, above 65,535 bytes."""
    if "\0" in value:
        raise ValueError("U+0000 is not allowed in MQTT strings")
    return encode_binary(value.encode())


def decode_text(raw: bytes) -> str:
    """The string in ``raw``. Raises MalformedPacket for ill-formed UTF-8 (surrogates too) and U+0000."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as fault:
        raise malformed(f"string is not UTF-8 at byte {fault.start}") from None
    if "\0" in text:
        raise malformed("U+0000 in a string")
    return text


class Reader:
    """A cursor over one packet's body; every method raises MalformedPacket past ``end``."""

    __slots__ = ("buffer", "end", "position")

    def __init__(self, buffer: bytes, position: int = 0, end: int | None = None) -> None:
        self.buffer = buffer
        self.position = position
        self.end = len(buffer) if end is None else end

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        start = self.position
        if start + count > self.end:
            raise malformed(f"packet ends inside a field ({self.end - start} of {count} bytes)")
        self.position = start + count
        return self.buffer[start : start + count]

    def integer(self, width: int) -> int:
        """A big-endian unsigned integer of ``width`` bytes."""
        return int.from_bytes(self.take(width), "big")

    def varint(self) -> int:
        """A variable byte integer in its shortest form, which MQTT 5 demands."""
        start = self.position
        value, after = varint_at(self.buffer, start, self.end)
        if value < 0:
            raise malformed("packet ends inside a variable byte integer")
        if after - start > 1 and self.buffer[after - 1] == 0:
            raise malformed("variable byte integer is not in its shortest form")
        self.position = after
        return value

    def binary(self) -> bytes:
        """Two bytes of length and that many bytes."""
        return self.take(self.integer(2))

    def text(self) -> str:
        """A UTF-8 string."""
        return decode_text(self.binary())

    def packet_id(self) -> int:
        """A packet id, which is never 0."""
        pid = self.integer(2)
        if not pid:
            raise malformed("packet id 0")
        return pid

    def rest(self) -> bytes:
        """Everything up to the end."""
        return self.take(self.end - self.position)

    def more(self) -> bool:
        """Whether bytes are left."""
        return self.position < self.end

    def finish(self) -> None:
        """Raise MalformedPacket if bytes are left over."""
        if self.position != self.end:
            raise malformed(f"{self.end - self.position} bytes left over at the end of the packet")
