"""One gateway's session with us, the server: CONNECT to DISCONNECT, 3.1.1 and 5.

Owns the protocol of the listening side as a table of states. Holds no socket, clock or task, and does
not decide who may come in (ingest.mqtt.door does). Sessions are never kept: every CONNACK says
session present 0, and packet ids are forgotten with the connection, because the key of a reading
already drops repeats.
"""

from __future__ import annotations

from enum import Enum, auto

from ingest.config import ListenerSettings
from ingest.frames import NO_PID, Frames
from ingest.mqtt.codec import PINGRESP, decode, encode
from ingest.mqtt.fields import MalformedPacket, Reason, protocol_error
from ingest.mqtt.packets import (
    LEVEL_5,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedVersion,
    Will,
)
from ingest.mqtt.properties import Prop, Properties, number
from ingest.mqtt.stream import PacketStream

KEEPALIVE_FACTOR = 1.5
"""MQTT 3.1.2.10: a client silent for one and a half keepalives is gone."""
DISCONNECT_WITH_WILL = 0x04
RECEIVE_MAXIMUM_MAX = 65_535
SUBACK_REFUSED_311 = 0x80

RETURN_CODES: dict[int, int] = {
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.CLIENT_ID_NOT_VALID: 2,
    Reason.SERVER_UNAVAILABLE: 3,
    Reason.SERVER_BUSY: 3,
    Reason.QUOTA_EXCEEDED: 3,
    Reason.BAD_USER_OR_PASSWORD: 4,
    Reason.NOT_AUTHORIZED: 5,
    Reason.BANNED: 5,
}
"""What 3.1.1 can say of a refusal; a reason that is not here closes without a CONNACK, as it demands."""


class State(Enum):
    """Where a session stands."""

    AWAITING = auto()
    """Connected; CONNECT has not come."""
    ASKING = auto()
    """CONNECT came; whoever admits is asked, bytes behind it wait."""
    OPEN = auto()
    """Messages are taken."""
    CLOSED = auto()
    """``ending`` says why; what is in ``out`` is still to be sent."""


TABLE: dict[State, dict[Kind, str]] = {
    State.AWAITING: {Kind.CONNECT: "_on_connect"},
    State.ASKING: {},
    State.OPEN: {
        Kind.PUBREL: "_on_pubrel",
        Kind.SUBSCRIBE: "_on_subscribe",
        Kind.UNSUBSCRIBE: "_on_unsubscribe",
        Kind.PINGREQ: "_on_pingreq",
        Kind.DISCONNECT: "_on_disconnect",
        Kind.AUTH: "_on_auth",
    },
    State.CLOSED: {},
}
"""Which packet may come when, and what answers it; any other is a protocol error. PUBLISH in OPEN does
not come here: the stream scans it."""


class ServerSession:
    """The listening side of one connection. Feed it bytes, send ``out``, close on ``ending``."""

    def __init__(self, settings: ListenerSettings, bytes_max: int) -> None:
        self.state = State.AWAITING
        self.stream = PacketStream(self._on_packet, bytes_max)
        self.out = bytearray()
        self.ending = ""
        self.refused = False
        self.fault: MalformedPacket | None = None
        self.asking: Connect | None = None
        self.client_id = ""
        self.will: Will | None = None
        self.keepalive_s = 0
        self.in_flight = 0
        self.wants_reasons = True
        self.peer_packet_bytes_max = 0xFFFF_FFFF
        self._settings = settings
        self._level = 0
        self._counts = False

    @property
    def v5(self) -> bool:
        """Whether the client speaks MQTT 5."""
        return self.stream.v5

    def receive(self, chunk: bytes) -> Frames:
        """The messages in ``chunk``; sets ``asking``, ``out`` and ``ending`` as they become due."""
        frames = self.stream.feed(chunk)
        self.took(len(frames.pids) - frames.pids.count(NO_PID))
        return frames

    def took(self, messages: int) -> None:
        """``messages`` that are to be acknowledged came in; ends the session where they are too many, or where
        the stream found a fault."""
        if self._counts and messages:
            self.in_flight += messages
            if self.in_flight > self._settings.receive_maximum and not self.stream.fault:
                limit = self._settings.receive_maximum
                message = f"{self.in_flight} messages in flight, {limit} allowed"
                self.stream.fault = MalformedPacket(Reason.RECEIVE_MAXIMUM_EXCEEDED, message)
        if self.stream.fault and not self.ending:
            self._fail(self.stream.fault)

    def admit(self, client_id: str, assigned: bool) -> Frames:
        """Answer CONNECT with success and take what already came behind it."""
        connect = self.asking
        assert connect is not None, "admit() answers a CONNECT"
        self.asking, self.state = None, State.OPEN
        self.client_id, self.will = client_id, connect.will
        longest = self._settings.keepalive_s_max
        lowered = not 0 < connect.keepalive_s <= longest
        self.keepalive_s = longest if lowered else connect.keepalive_s
        # There are no more packet ids than this, so the largest window cannot be exceeded.
        self._counts = self.v5 and self._settings.receive_maximum < RECEIVE_MAXIMUM_MAX
        self.wants_reasons = number(connect.properties, Prop.REQUEST_PROBLEM, 1) == 1
        self.peer_packet_bytes_max = number(connect.properties, Prop.MAXIMUM_PACKET_SIZE, 0xFFFF_FFFF)
        properties: Properties = {
            Prop.RECEIVE_MAXIMUM: self._settings.receive_maximum,
            Prop.MAXIMUM_PACKET_SIZE: self.stream.bytes_max,
            Prop.TOPIC_ALIAS_MAXIMUM: 0,
            Prop.WILDCARD_AVAILABLE: 0,
            Prop.SUBSCRIPTION_ID_AVAILABLE: 0,
            Prop.SHARED_AVAILABLE: 0,
        }
        if number(connect.properties, Prop.SESSION_EXPIRY, 0):
            properties[Prop.SESSION_EXPIRY] = 0
        if lowered:
            properties[Prop.SERVER_KEEP_ALIVE] = self.keepalive_s
        if assigned:
            properties[Prop.ASSIGNED_CLIENT_ID] = client_id
        self.out += encode(Connack(False, 0, properties if self.v5 else {}), self.v5)
        self.stream.halted, self.stream.publishing = False, True
        return self.receive(b"")

    def refuse(self, reason: Reason, ending: str) -> None:
        """Answer CONNECT with a refusal, as far as the version can say it."""
        self.refused = True
        if self._level == LEVEL_5:
            self.out += encode(Connack(False, reason), True)
        elif reason in RETURN_CODES:
            self.out += encode(Connack(False, RETURN_CODES[reason]), False)
        self._close(ending)

    def end(self, reason: Reason, ending: str) -> None:
        """Close from our side; an MQTT 5 client is told why."""
        if self.state is State.OPEN and self.v5:
            self.out += encode(Disconnect(reason), True)
        self._close(ending)

    def acknowledged(self, messages: int) -> None:
        """``messages`` acknowledgements were sent."""
        self.in_flight -= messages

    def _close(self, ending: str) -> None:
        self.state, self.ending, self.asking = State.CLOSED, self.ending or ending, None
        self.stream.halted = True

    def _fail(self, fault: MalformedPacket) -> None:
        self.fault = fault
        if self.state is State.AWAITING:
            if isinstance(fault, UnsupportedVersion):
                self._level = LEVEL_5 if fault.level > LEVEL_5 else 0
                self.refuse(Reason.UNSUPPORTED_VERSION, "unsupported_version")
            else:
                self._close("malformed")
            return
        self.end(Reason(fault.reason_code), "malformed")

    def _on_packet(self, head: int, body: bytes) -> None:
        if head == 0x62 and len(body) == 2 and self.state is State.OPEN and body != b"\0\0":
            # A PUBREL as nearly all are; QoS 2 has one for each message.
            self.out += b"\x70\x02" + body
            return
        packet = decode(head, body, self.v5)
        name = TABLE[self.state].get(Kind(head >> 4))
        if name is None:
            raise protocol_error(f"{Kind(head >> 4).name} while {self.state.name}")
        getattr(self, name)(packet)

    def _on_connect(self, packet: Connect) -> None:
        self._level = packet.level
        self.stream.v5 = self.stream.oversized_fault = packet.level == LEVEL_5
        self.state, self.stream.halted = State.ASKING, True
        if Prop.AUTHENTICATION_METHOD in packet.properties:
            self.refuse(Reason.BAD_AUTHENTICATION_METHOD, "authentication_method")
        elif not packet.client_id and not packet.clean and not self.v5:
            # MQTT-3.1.3-8: without an id there is nothing to keep a session under.
            self.refuse(Reason.CLIENT_ID_NOT_VALID, "client_id")
        else:
            self.asking = packet

    def _on_pubrel(self, packet: Ack) -> None:
        # Ids are not kept, so none is unknown: the reading's key already drops a repeat.
        self.out += encode(Ack(Kind.PUBCOMP, packet.pid), self.v5)

    def _on_subscribe(self, packet: Subscribe) -> None:
        # 0x87 Not authorized, for each filter: it is understood by all clients and says "not here".
        code = Reason.NOT_AUTHORIZED if self.v5 else SUBACK_REFUSED_311
        self.out += encode(Suback(packet.pid, [code] * len(packet.filters)), self.v5)

    def _on_unsubscribe(self, packet: Unsubscribe) -> None:
        codes: list[int] = [Reason.NO_SUBSCRIPTION_EXISTED] * len(packet.patterns)
        self.out += encode(Unsuback(packet.pid, codes), self.v5)

    def _on_pingreq(self, _packet: Packet) -> None:
        self.out += PINGRESP

    def _on_disconnect(self, packet: Disconnect) -> None:
        if packet.code != DISCONNECT_WITH_WILL:
            self.will = None
        self._close("disconnect")

    def _on_auth(self, _packet: Auth) -> None:
        raise protocol_error("AUTH without an authentication method in CONNECT")
