"""The shapes of MQTT control packets, 3.1.1 and 5.

Owns names and fields. Knows nothing of bytes (ingest.mqtt.codec) or of who sends what when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from ingest.mqtt.fields import MalformedPacket, Reason
from ingest.mqtt.properties import Properties

LEVEL_31 = 3
LEVEL_311 = 4
LEVEL_5 = 5


class Kind(IntEnum):
    """Control packet types: the upper four bits of a packet's first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


FLAGS: dict[Kind, int] = {
    kind: 2 if kind in (Kind.PUBREL, Kind.SUBSCRIBE, Kind.UNSUBSCRIBE) else 0 for kind in Kind
}
"""The reserved lower four bits of the first byte; PUBLISH uses its own."""


class UnsupportedVersion(MalformedPacket):
    """A CONNECT of a protocol level we do not speak."""

    def __init__(self, level: int) -> None:
        super().__init__(Reason.UNSUPPORTED_VERSION, f"protocol level {level} is not 4 (3.1.1) or 5")
        self.level = level


@dataclass(slots=True)
class Will:
    """What a server says for a client that vanished."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Connect:
    """``level`` 4 is 3.1.1, 5 is 5. ``clean`` is Clean Session or Clean Start; keepalive in seconds."""

    client_id: str
    clean: bool = True
    keepalive_s: int = 0
    level: int = LEVEL_311
    user: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Connack:
    """``code`` is a return code 0 … 5 in 3.1.1 and a reason code in 5."""

    session_present: bool = False
    code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Publish:
    """``pid`` is 0 at QoS 0."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    pid: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP; ``code`` and properties are MQTT 5."""

    kind: Kind
    pid: int
    code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Filter:
    """One subscription asked for; all but ``pattern`` and ``qos`` are MQTT 5."""

    pattern: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(slots=True)
class Subscribe:
    """At least one filter."""

    pid: int
    filters: list[Filter]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Suback:
    """A granted QoS 0 … 2 or a refusal ≥ 0x80 for each filter, in order."""

    pid: int
    codes: list[int]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Unsubscribe:
    """At least one filter."""

    pid: int
    patterns: list[str]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Unsuback:
    """``codes`` is empty in 3.1.1."""

    pid: int
    codes: list[int] = field(default_factory=list)
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Pingreq:
    """Still there?"""


@dataclass(slots=True)
class Pingresp:
    """Still here."""


@dataclass(slots=True)
class Disconnect:
    """``code`` and properties are MQTT 5."""

    code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Auth:
    """MQTT 5 only. Decoded so that it can be refused by name."""

    code: int = 0
    properties: Properties = field(default_factory=dict)


Packet = (
    Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Unsuback
    | Pingreq | Pingresp | Disconnect | Auth
)  # fmt: skip
