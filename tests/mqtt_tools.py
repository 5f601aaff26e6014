"""What the MQTT tests share: one of every packet, and a loop that turns a Poller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ingest.config import WireSettings
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import (
    LEVEL_5,
    LEVEL_311,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Filter,
    Kind,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from ingest.mqtt.poller import Poller
from ingest.mqtt.properties import Prop
from ingest.mqtt.receipts import Received, build_receipt

WORDS = [("城市", "成都"), ("a", ""), ("a", "b")]


def packets_311() -> list[Packet]:
    """One of every packet 3.1.1 has, with every optional part."""
    will = Will("cd/gw/状态", b"gone", 1, True)
    return [
        Connect("gw-1", False, 60, LEVEL_311, "user", b"secret", will),
        Connect("", True, 0, LEVEL_311),
        Connack(True, 0),
        Connack(False, 5),
        Publish("cd/gw/rain/1", b'{"ts":1,"v":2}'),
        Publish("cd/gw/雨量/2", b"", 1, True, True, 65_535),
        Publish("a", b"x" * 300, 2, False, False, 1),
        *(Ack(kind, 513) for kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)),
        Subscribe(7, [Filter("cd/+/rain/#", 1), Filter("$share/g/a", 2)]),
        Suback(7, [1, 0x80]),
        Unsubscribe(8, ["cd/+/rain/#", "#"]),
        Unsuback(8),
        Pingreq(),
        Pingresp(),
        Disconnect(),
    ]


def packets_5() -> list[Packet]:
    """One of every packet MQTT 5 has, with many properties."""
    said = {Prop.REASON_STRING: "because", Prop.USER_PROPERTY: WORDS}
    will = Will("cd/gw/状态", b"gone", 2, False, {Prop.WILL_DELAY: 5, Prop.PAYLOAD_FORMAT: 1})
    asked = {Prop.SESSION_EXPIRY: 60, Prop.RECEIVE_MAXIMUM: 100, Prop.USER_PROPERTY: WORDS}
    offered = {Prop.RECEIVE_MAXIMUM: 9, Prop.ASSIGNED_CLIENT_ID: "id", Prop.SERVER_KEEP_ALIVE: 30}
    about = {
        Prop.MESSAGE_EXPIRY: 9,
        Prop.CONTENT_TYPE: "j",
        Prop.CORRELATION_DATA: b"\0\1",
        Prop.SUBSCRIPTION_ID: [300],
    }
    return [
        Connect("gw-1", False, 60, LEVEL_5, "user", b"secret", will, asked),
        Connect("", True, 0, LEVEL_5, None, b"only a password"),
        Connack(True, 0, offered),
        Connack(False, 0x87, said),
        Publish("cd/gw/rain/1", b'{"ts":1,"v":2}'),
        Publish("cd/gw/雨量/2", b"", 1, True, True, 65_535, about),
        Publish("a", b"x" * 300, 2, False, False, 1),
        *(Ack(kind, 513) for kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)),
        *(Ack(kind, 1, 0x92, said) for kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)),
        Subscribe(
            7, [Filter("cd/+/rain/#", 1, True, True, 2), Filter("$share/g/a", 2)], {Prop.SUBSCRIPTION_ID: [5]}
        ),
        Suback(7, [1, 0x87], said),
        Unsubscribe(8, ["cd/+/rain/#", "#"], {Prop.USER_PROPERTY: WORDS}),
        Unsuback(8, [0, 0x11], said),
        Pingreq(),
        Pingresp(),
        Disconnect(),
        Disconnect(0x8E, said),
        Auth(0x18, {Prop.AUTHENTICATION_METHOD: "m", Prop.AUTHENTICATION_DATA: b"d"}),
    ]


def publishes(
    count: int, *, v5: bool = False, qos: int = 1, start: int = 1, topic: str = "cd/gw0001/rain"
) -> bytes:
    """``count`` PUBLISH packets with payloads "1", "2", … and packet ids from ``start``."""
    return b"".join(
        encode(Publish(topic, str(n).encode(), qos, pid=n if qos else 0), v5)
        for n in range(start, start + count)
    )


def ack_packets(acks: bytes) -> list[tuple[int, int]]:
    """(first byte, packet id) of a run of plain 4-byte acknowledgements."""
    return [(acks[at], int.from_bytes(acks[at + 2 : at + 4], "big")) for at in range(0, len(acks), 4)]


class Turner:
    """Turns a poller as Wire does, without a journal: acknowledges at once, or holds.

    received  every Received, in order; ``payloads`` all their payloads
    """

    def __init__(self, wire: WireSettings | None = None, **more: Any) -> None:
        self.events: list[Any] = []
        self.poller = Poller(wire or WireSettings(), on_event=self.events.append, **more)
        self.received: list[Received] = []
        self.hold = False
        self.held: list[Received] = []
        self.clock = time.monotonic
        self.skipped_s = 0.0

    def turn(self) -> None:
        """One poll; acknowledgements at once unless ``hold``."""
        got = self.poller.poll(self.clock() + self.skipped_s, time.time_ns() // 1000)
        self.received += got
        if self.hold:
            self.held += got
        else:
            self.poller.acknowledge([build_receipt(one) for one in got])

    def until(self, done: Callable[[], object], seconds: float = 60.0) -> None:
        """Turn until ``done``; fails after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, (
                self.kinds(),
                dict(self.poller.counters),
                self.poller.links_down(),
            )
            self.turn()
            time.sleep(0.001)

    def settle(self, turns: int = 30) -> None:
        """Turn long enough for everything on its way over loopback to arrive."""
        for _ in range(turns):
            self.turn()
            time.sleep(0.002)

    @property
    def payloads(self) -> list[bytes]:
        return [payload for one in self.received for payload in one.payloads]

    @property
    def topics(self) -> list[bytes]:
        return [topic for one in self.received for topic in one.topics]

    def kinds(self) -> list[str]:
        """Kinds of link events so far."""
        return [event.kind for event in self.events]

    def release(self) -> None:
        """Acknowledge what was held."""
        self.poller.acknowledge([build_receipt(one) for one in self.held])
        self.held = []

    def __enter__(self) -> Turner:
        return self

    def __exit__(self, *_: object) -> None:
        self.poller.close()


def every_split(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``stream`` in two parts, at every byte."""
    for at in range(len(stream) + 1):
        yield stream[:at], stream[at:]
