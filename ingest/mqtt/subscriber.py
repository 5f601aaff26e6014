"""One session of ours at a broker: CONNECT, SUBSCRIBE, messages, pings, 3.1.1 and 5.

Owns the protocol of the subscribing side as a table of states. Holds no socket, clock or task; when to
connect again is ingest.mqtt.links' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from ingest.config import SubscriberSettings
from ingest.frames import Frames
from ingest.mqtt.codec import PINGREQ, decode, encode
from ingest.mqtt.fields import MalformedPacket, Reason, protocol_error
from ingest.mqtt.packets import (
    LEVEL_5,
    LEVEL_311,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Filter,
    Kind,
    Packet,
    Publish,
    Suback,
    Subscribe,
)
from ingest.mqtt.properties import Prop, Properties, number, text
from ingest.mqtt.stream import PacketStream

FILTERS_PER_SUBSCRIBE_MAX = 100
"""Filters in one SUBSCRIBE; more go into further packets, so that none outgrows a broker's packet limit."""
RETAIN_HANDLING_NEVER = 2
RETURN_CODE_VERSION_311 = 1
REFUSED_FROM = 0x80


class State(Enum):
    """Where a session stands."""

    CONNECTING = auto()
    """CONNECT is sent, CONNACK has not come."""
    SUBSCRIBING = auto()
    """A SUBACK is due; messages already come."""
    LIVE = auto()
    """All filters are answered."""
    CLOSED = auto()
    """``ending`` says why."""


_SESSION = {
    Kind.SUBACK: "_on_suback",
    Kind.PUBREL: "_on_pubrel",
    Kind.PINGRESP: "_on_pingresp",
    Kind.DISCONNECT: "_on_disconnect",
}
TABLE: dict[State, dict[Kind, str]] = {
    State.CONNECTING: {Kind.CONNACK: "_on_connack"},
    State.SUBSCRIBING: _SESSION,
    State.LIVE: _SESSION,
    State.CLOSED: {},
}
"""Which packet may come when, and what takes it; any other is a protocol error. PUBLISH behind CONNACK
does not come here: the stream scans it."""


@dataclass(slots=True, frozen=True)
class SessionEvent:
    """What a session has to tell: ``kind`` and words for a person.

    link_up            CONNACK said yes; ``session_present`` as the broker says
    session_lost       the broker forgot a session we had: messages are missing
    subscribed         every filter is answered
    filter_refused     the broker refused the filter named in ``detail``
    filter_downgraded  it granted a lower QoS than asked
    """

    kind: str
    detail: str = ""
    session_present: bool = False


class ClientSession:
    """Our side of one connection to a broker. Feed it bytes, send ``out``, close on ``ending``.

    ``subscribe``: send the filters even if the broker still has our session (at the first connection
    of a process: they may have changed). ``expects_session``: we had one, losing it is a gap.
    """

    def __init__(
        self,
        settings: SubscriberSettings,
        client_id: str,
        filters: list[str],
        level: int,
        bytes_max: int,
        password: bytes | None,
        *,
        subscribe: bool,
        expects_session: bool,
    ) -> None:
        self.state = State.CONNECTING
        self.stream = PacketStream(self._on_packet, bytes_max)
        self.stream.v5 = level == LEVEL_5
        self.out = bytearray(
            encode(_connect(settings, client_id, level, bytes_max, password), level == LEVEL_5)
        )
        self.ending = ""
        self.ending_code = 0
        self.fault: MalformedPacket | None = None
        self.events: list[SessionEvent] = []
        self.keepalive_s = settings.keepalive_s
        self.awaits_pingresp = False
        self.connack_code: int | None = None
        self._settings = settings
        self._filters = filters
        self._subscribe = subscribe
        self._expects_session = expects_session
        self._unanswered: dict[int, list[str]] = {}

    @property
    def v5(self) -> bool:
        """Whether this session speaks MQTT 5."""
        return self.stream.v5

    @property
    def version_refused(self) -> bool:
        """The broker does not speak MQTT 5; 3.1.1 may do."""
        return self.v5 and self.connack_code in (RETURN_CODE_VERSION_311, Reason.UNSUPPORTED_VERSION)

    def receive(self, chunk: bytes) -> Frames:
        """The messages in ``chunk``; adds to ``out`` and ``events``, sets ``ending``."""
        frames = self.stream.feed(chunk)
        if self.stream.fault and not self.ending:
            self.fault = self.stream.fault
            self.end(Reason(self.fault.reason_code), "malformed")
        return frames

    def took(self, messages: int) -> None:
        """``messages`` that are to be acknowledged came in; the broker keeps to the window we gave."""

    def acknowledged(self, messages: int) -> None:
        """Acknowledgements were sent; the window is the broker's to keep."""

    def publish(self, topic: str, payload: bytes) -> bool:
        """A message of ours, QoS 0: nobody acknowledges it. False before CONNACK and after the end."""
        if self.state not in (State.SUBSCRIBING, State.LIVE):
            return False
        self.out += encode(Publish(topic, payload, 0), self.v5)
        return True

    def ping(self) -> None:
        """Ask whether the broker is there; ``awaits_pingresp`` until it answers."""
        self.out += PINGREQ
        self.awaits_pingresp = True

    def end(self, reason: Reason, ending: str) -> None:
        """Close from our side. The broker keeps the session, as CONNECT asked it to."""
        if self.state in (State.SUBSCRIBING, State.LIVE):
            self.out += encode(Disconnect(reason), self.v5)
        self._close(ending)

    def _close(self, ending: str) -> None:
        self.state, self.ending = State.CLOSED, self.ending or ending
        self.stream.halted = True

    def _on_packet(self, head: int, body: bytes) -> None:
        if head == 0x62 and len(body) == 2 and body != b"\0\0" and self.state is not State.CONNECTING:
            # A PUBREL as nearly all are; QoS 2 has one for each message.
            self.out += b"\x70\x02" + body
            return
        packet = decode(head, body, self.v5)
        name = TABLE[self.state].get(Kind(head >> 4))
        if name is None:
            raise protocol_error(f"{Kind(head >> 4).name} while {self.state.name}")
        getattr(self, name)(packet)

    def _on_connack(self, packet: Connack) -> None:
        self.connack_code = packet.code
        if packet.code:
            self.ending_code = packet.code
            self._close("version_refused" if self.version_refused else "connect_refused")
            return
        self.keepalive_s = number(packet.properties, Prop.SERVER_KEEP_ALIVE, self.keepalive_s)
        self.events.append(SessionEvent("link_up", session_present=packet.session_present))
        if self._expects_session and not packet.session_present:
            self.events.append(SessionEvent("session_lost"))
        self.state, self.stream.publishing = State.LIVE, True
        if self._subscribe or not packet.session_present:
            self._send_filters()

    def _send_filters(self) -> None:
        self.state = State.SUBSCRIBING
        handling = RETAIN_HANDLING_NEVER if self.v5 else 0
        for start in range(0, len(self._filters), FILTERS_PER_SUBSCRIBE_MAX):
            patterns = self._filters[start : start + FILTERS_PER_SUBSCRIBE_MAX]
            pid = start // FILTERS_PER_SUBSCRIBE_MAX + 1
            asked = [Filter(one, self._settings.qos, retain_handling=handling) for one in patterns]
            self.out += encode(Subscribe(pid, asked), self.v5)
            self._unanswered[pid] = patterns

    def _on_suback(self, packet: Suback) -> None:
        patterns = self._unanswered.pop(packet.pid, None)
        if patterns is None or len(patterns) != len(packet.codes):
            raise protocol_error(f"SUBACK {packet.pid} with {len(packet.codes)} codes answers no SUBSCRIBE")
        for pattern, code in zip(patterns, packet.codes, strict=True):
            if code >= REFUSED_FROM:
                self.events.append(SessionEvent("filter_refused", f"{pattern}: 0x{code:02x}"))
            elif code < self._settings.qos:
                detail = f"{pattern}: QoS {code} granted, {self._settings.qos} asked"
                self.events.append(SessionEvent("filter_downgraded", detail))
        if not self._unanswered:
            self.state = State.LIVE
            self.events.append(SessionEvent("subscribed"))

    def _on_pubrel(self, packet: Ack) -> None:
        # Ids are not kept, so none is unknown: the reading's key already drops a repeat.
        self.out += encode(Ack(Kind.PUBCOMP, packet.pid), self.v5)

    def _on_pingresp(self, _packet: Packet) -> None:
        self.awaits_pingresp = False

    def _on_disconnect(self, packet: Disconnect) -> None:
        if not self.v5:
            raise protocol_error("DISCONNECT from a 3.1.1 broker")
        self.ending_code = packet.code
        words = text(packet.properties, Prop.REASON_STRING)
        self.fault = MalformedPacket(packet.code, words) if words else None
        self._close("disconnected_by_broker")


def _connect(
    settings: SubscriberSettings, client_id: str, level: int, bytes_max: int, password: bytes | None
) -> Connect:
    properties: Properties = {}
    if level == LEVEL_5:
        properties[Prop.RECEIVE_MAXIMUM] = settings.receive_maximum
        properties[Prop.MAXIMUM_PACKET_SIZE] = bytes_max
        if not settings.clean_session and settings.session_expiry_s:
            properties[Prop.SESSION_EXPIRY] = settings.session_expiry_s
    # 3.1.1 has no password without a user.
    secret = password if level != LEVEL_311 or settings.user is not None else None
    return Connect(
        client_id,
        settings.clean_session,
        settings.keepalive_s,
        level,
        settings.user,
        secret,
        None,
        properties,
    )
