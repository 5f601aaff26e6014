"""One look at a broker, for `yuzui doctor`: does it let us in, and how much may be on its way to us at once.

Owns a short blocking conversation under a client id of its own and a clean session: the engine's session at
the broker is not touched. Knows nothing of the engine.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from ingest.config import SubscriberSettings
from ingest.mqtt.codec import decode, encode, frame_at
from ingest.mqtt.fields import MalformedPacket, Reason
from ingest.mqtt.links import broker_of
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
from ingest.mqtt.properties import Prop, Properties, number
from ingest.mqtt.tls import client_tls, common_name

PROBE_S_MAX = 10.0
"""For all of it: a person waits."""
SILENCE_S = 0.5
"""A broker that sends nothing for this long waits for acknowledgements: its window is full."""
MESSAGES = 200
"""Sent to ourselves and not acknowledged; a window of this size carries ten thousand messages a second."""
UNANSWERED_MAX = 20
"""Of our own at once: every broker takes as many."""
TOPIC = "yuzui/doctor/"
_VERSION_REFUSED = (1, Reason.UNSUPPORTED_VERSION)
_RETURN_CODES_311 = {
    1: "protocol version",
    2: "client id",
    3: "unavailable",
    4: "user or password",
    5: "not authorized",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the broker will do, what was found, and what to do if it will not."""

    well: bool
    figure: str
    advice: str = ""


class Refused(Exception):  # noqa: N818 - what the broker said
    """CONNACK with a code."""

    def __init__(self, connack: Connack, v5: bool) -> None:
        names = {int(reason): reason.name.lower().replace("_", " ") for reason in Reason}
        word = (names if v5 else _RETURN_CODES_311).get(connack.code, "unknown code")
        super().__init__(f"{word} (0x{connack.code:02x})")
        self.version = connack.code in _VERSION_REFUSED


def probe_broker(settings: SubscriberSettings, commit_s: float = 0.02) -> Answer:
    """Connect to the broker of ``settings`` and measure the window it grants; at most PROBE_S_MAX.

    commit_s  seconds from receiving a message to its acknowledgement: what the window is divided by
    Never raises for what a network or a broker does.
    """
    levels = {"5": (LEVEL_5,), "3.1.1": (LEVEL_311,)}.get(settings.protocol, (LEVEL_5, LEVEL_311))
    for level in levels:
        try:
            with Talk(settings, level == LEVEL_5) as talk:
                return talk.answer(commit_s)
        except Refused as refused:
            if refused.version and level != levels[-1]:
                continue
            return Answer(False, f"refused: {refused}", "see user, password, client_id and the broker's log")
        except ssl.SSLError as fault:
            return Answer(
                False, f"TLS: {fault}", "see tls_ca_file, tls_cert_file and the broker's certificate"
            )
        except TimeoutError:
            return Answer(False, f"no answer in {PROBE_S_MAX:g} s", "is this an MQTT broker, and is it well?")
        except (OSError, ValueError, MalformedPacket) as fault:
            return Answer(False, str(fault), f"is it running at {settings.url}, and are its files there?")
    raise AssertionError("the last level returns")


class Talk:
    """The conversation. Every wait is bounded by the one deadline, ``seconds_max`` from now."""

    def __init__(self, settings: SubscriberSettings, v5: bool, seconds_max: float | None = None) -> None:
        self._settings = settings
        self._v5 = v5
        self._deadline = time.monotonic() + (PROBE_S_MAX if seconds_max is None else seconds_max)
        self._rest = b""
        host, port, tls = broker_of(settings.url)
        self._sock = socket.create_connection((host, port), timeout=PROBE_S_MAX)
        self._peer = ""
        if tls:
            try:
                wrapped = client_tls(settings).current.wrap_socket(self._sock, server_hostname=host)
            except BaseException:
                self._sock.close()
                raise
            self._peer = f" over {wrapped.version()} with {common_name(wrapped) or 'an unverified peer'}"
            self._sock = wrapped

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def answer(self, commit_s: float) -> Answer:
        """Connect, measure, leave."""
        connack = self.connect()
        known = f"MQTT {'5' if self._v5 else '3.1.1'}{self._peer}"
        window = self._window(connack)
        self.send(Disconnect())
        if window is None:
            return Answer(True, f"{known}; it refuses {TOPIC}#, so its window was not measured")
        if not window:
            return Answer(
                False, f"{known}; it took our messages and delivered none", f"see its ACL for {TOPIC}#"
            )
        ceiling = window / commit_s
        if window >= MESSAGES:
            return Answer(
                True, f"{known}; window {MESSAGES} or more: over {ceiling:,.0f} messages/s a connection"
            )
        advice = "more connections or slices; MQTT 5; max_inflight_messages at the broker"
        return Answer(
            True, f"{known}; window {window}: at most about {ceiling:,.0f} messages/s a connection ({advice})"
        )

    def connect(self, name: str = "doctor", expiry_s: int = 0) -> Connack:
        """Say CONNECT as ``name``; with ``expiry_s`` the broker keeps the session. Raises Refused, MalformedPacket."""
        settings = self._settings
        password = settings.password
        if settings.password_file is not None:
            password = Path(settings.password_file).read_text("utf-8").rstrip("\r\n")
        if settings.user is None and not self._v5:
            password = None  # 3.1.1 has no password without a user
        properties: Properties = {Prop.RECEIVE_MAXIMUM: settings.receive_maximum}
        if expiry_s:
            properties[Prop.SESSION_EXPIRY] = expiry_s
        connect = Connect(
            f"{settings.client_id}-{name}-{os.getpid()}",
            not expiry_s,
            settings.keepalive_s,
            LEVEL_5 if self._v5 else LEVEL_311,
            settings.user,
            None if password is None else password.encode(),
            properties=properties if self._v5 else {},
        )
        self.send(connect)
        connack = self.hear(self.left())
        if not isinstance(connack, Connack):
            raise MalformedPacket(Reason.PROTOCOL_ERROR, f"{type(connack).__name__} instead of CONNACK")
        if connack.code:
            raise Refused(connack, self._v5)
        return connack

    def _window(self, connack: Connack) -> int | None:
        """How many messages the broker sends us unacknowledged, at most MESSAGES; None where it will not."""
        topic = TOPIC + secrets.token_hex(8)
        self.send(Subscribe(1, [Filter(topic, 1)]))
        unanswered_max = min(UNANSWERED_MAX, number(connack.properties, Prop.RECEIVE_MAXIMUM, UNANSWERED_MAX))
        arrived = sent = answered = 0
        granted = False
        while arrived < MESSAGES:
            while granted and sent < MESSAGES and sent - answered < unanswered_max:
                sent += 1
                self.send(Publish(topic, b"", 1, pid=sent))
            waits = SILENCE_S if sent == MESSAGES == answered else self.left()
            try:
                packet = self.hear(min(waits, self.left()))
            except TimeoutError:
                if sent == MESSAGES == answered:
                    return arrived
                raise
            if isinstance(packet, Suback):
                if packet.codes[0] != 1:
                    return None
                granted = True
            elif isinstance(packet, Ack) and packet.kind is Kind.PUBACK:
                if packet.code >= Reason.UNSPECIFIED:
                    return None
                answered += 1
            elif isinstance(packet, Publish):
                arrived += 1
            elif isinstance(packet, Disconnect):
                return None
        return arrived

    def left(self) -> float:
        """Seconds until the deadline. Raises TimeoutError."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def send(self, *packets: Packet) -> None:
        """Say them in one go."""
        self._sock.settimeout(self.left())
        self._sock.sendall(b"".join(encode(packet, self._v5) for packet in packets))

    def hear(self, timeout_s: float) -> Packet:
        """The next packet. Raises TimeoutError, ConnectionError where the broker hung up."""
        end = time.monotonic() + timeout_s
        while True:
            if self._rest:
                body, after = frame_at(self._rest, 0)
                if after and after <= len(self._rest):
                    packet = decode(self._rest[0], self._rest[body:after], self._v5)
                    self._rest = self._rest[after:]
                    return packet
            self._sock.settimeout(max(0.001, end - time.monotonic()))
            heard = self._sock.recv(65_536)
            if not heard:
                raise ConnectionError("it hung up")
            self._rest += heard
