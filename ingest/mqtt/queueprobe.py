"""How many messages a broker keeps for us while we are away, for `yuzui doctor`: found out, not read from its manual.

Owns three short connections under client ids of their own: one that subscribes and leaves, one that publishes, and the
first again, which counts what was kept. The engine's session at the broker is not touched.
"""

from __future__ import annotations

import secrets
import ssl
import time
from dataclasses import dataclass
from typing import Final

from ingest.config import SubscriberSettings
from ingest.mqtt.fields import MalformedPacket, Reason
from ingest.mqtt.packets import Ack, Disconnect, Filter, Kind, Publish, Suback, Subscribe
from ingest.mqtt.probe import SILENCE_S, TOPIC, UNANSWERED_MAX, Refused, Talk

QUEUE_S_MAX: Final = 30.0
"""For each of the two: a person waits."""
KEPT_S: Final = 60
"""The broker may forget the session after so long, if we die before we clear it away."""
MESSAGES_MIN: Final = 2_000
"""Twice what mosquitto keeps unless told otherwise."""
MESSAGES_MAX: Final = 20_000
"""A doctor must not be a load."""
COVERED_S: Final = 10.0
"""So long a restart is tried for, where that takes no more than MESSAGES_MAX."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Of ``sent`` messages the broker kept ``kept`` while nobody was connected; ``fault`` why that is not known."""

    sent: int
    kept: int
    fault: str = ""

    @property
    def limited(self) -> bool:
        """Whether it dropped any."""
        return self.kept < self.sent


def probe_queue(settings: SubscriberSettings, per_s: float) -> Kept:
    """``per_s``: messages a second this subscriber has to take. Never raises for what a network or a broker does."""
    count = int(min(MESSAGES_MAX, max(MESSAGES_MIN, per_s * COVERED_S)))
    for v5 in (settings.protocol != "3.1.1", False):
        found = _probe(settings, count, v5)
        if found is not None:
            return found
    raise AssertionError("3.1.1 is always answered")


def _probe(settings: SubscriberSettings, count: int, v5: bool) -> Kept | None:
    """None where the broker refuses MQTT 5 and may be asked again."""
    topic = TOPIC + secrets.token_hex(8)
    try:
        with Talk(settings, v5) as away:
            away.connect("doctor-away", KEPT_S)
            away.send(Subscribe(1, [Filter(topic, 1)]))
            granted = away.hear(away.left())
            if not isinstance(granted, Suback) or granted.codes[0] != 1:
                return Kept(0, 0, f"it refuses {TOPIC}#")
            away.send(Disconnect())
        try:
            with Talk(settings, v5, QUEUE_S_MAX) as speaker:
                speaker.connect("doctor-speaks")
                sent = _speak(speaker, topic, count)
            with Talk(settings, v5, QUEUE_S_MAX) as back:
                back.connect("doctor-away", KEPT_S)
                kept = _count(back, sent)
        finally:
            with Talk(settings, v5) as clear:
                clear.connect("doctor-away")  # a clean session ends the other
                clear.send(Disconnect())
    except Refused as refused:
        return (
            None
            if refused.version and settings.protocol == "auto" and v5
            else Kept(0, 0, f"refused: {refused}")
        )
    except (ssl.SSLError, OSError, ValueError, MalformedPacket) as fault:
        return Kept(0, 0, str(fault) or type(fault).__name__)
    return Kept(sent, kept)


def _speak(speaker: Talk, topic: str, count: int) -> int:
    """Publish as many, a few unacknowledged at once; how many the broker took."""
    sent = taken = answered = 0
    while answered < count:
        burst = []
        while sent < count and sent - answered < UNANSWERED_MAX:
            sent += 1
            burst.append(Publish(topic, b"", 1, pid=(sent - 1) % 65_535 + 1))
        if burst:
            speaker.send(*burst)
        packet = speaker.hear(speaker.left())
        if isinstance(packet, Ack) and packet.kind is Kind.PUBACK:
            answered += 1
            taken += packet.code < Reason.UNSPECIFIED
    return taken


def _count(back: Talk, sent: int) -> int:
    """Acknowledge what was kept until no more comes."""
    kept = 0
    last = time.monotonic()
    while kept < sent:
        try:
            packet = back.hear(min(SILENCE_S * 2, back.left()))
        except TimeoutError:
            if time.monotonic() - last >= SILENCE_S:
                return kept
            raise
        if isinstance(packet, Publish):
            kept += 1
            last = time.monotonic()
            back.send(Ack(Kind.PUBACK, packet.pid))
    return kept
