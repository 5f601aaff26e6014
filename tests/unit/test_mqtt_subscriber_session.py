"""Our session at a broker: what it asks for, what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.config import SubscriberSettings
from ingest.mqtt.codec import decode, encode, frame_at
from ingest.mqtt.fields import Reason
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
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
)
from ingest.mqtt.properties import Prop
from ingest.mqtt.subscriber import FILTERS_PER_SUBSCRIBE_MAX, TABLE, ClientSession, State
from tests.mqtt_tools import publishes

BOTH = pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])


def settings(**more: Any) -> SubscriberSettings:
    return SubscriberSettings(
        **{"name": "city", "url": "mqtt://127.0.0.1:1883", "filters": ["cd/#", "x/+"]} | more
    )


def session_of(v5: bool, *, subscribe: bool = True, expects: bool = False, **more: Any) -> ClientSession:
    chosen = settings(**more)
    password = None if chosen.password is None else chosen.password.encode()
    return ClientSession(
        chosen, "yuzui-1", chosen.filters, LEVEL_5 if v5 else LEVEL_311, 9999, password,
        subscribe=subscribe, expects_session=expects,
    )  # fmt: skip


def said(session: ClientSession) -> list[Packet]:
    out, packets, at = bytes(session.out), [], 0
    session.out.clear()
    while at < len(out):
        body, end = frame_at(out, at)
        packets.append(decode(out[at], out[body:end], session.v5))
        at = end
    return packets


def kinds(session: ClientSession) -> list[str]:
    return [event.kind for event in session.events]


def live(v5: bool, **more: Any) -> ClientSession:
    session = session_of(v5, **more)
    said(session)
    session.receive(encode(Connack(), v5) + encode(Suback(1, [1, 1]), v5))
    said(session)
    session.events.clear()
    assert session.state is State.LIVE
    return session


def test_mqtt_5_asks_for_a_lasting_session_and_says_what_it_takes() -> None:
    (connect,) = said(session_of(True, session_expiry_s=77, receive_maximum=500, user="u", password="p"))
    assert connect == Connect(
        "yuzui-1", False, 30, LEVEL_5, "u", b"p", None,
        {Prop.RECEIVE_MAXIMUM: 500, Prop.MAXIMUM_PACKET_SIZE: 9999, Prop.SESSION_EXPIRY: 77},
    )  # fmt: skip


def test_311_asks_for_a_lasting_session() -> None:
    assert said(session_of(False)) == [Connect("yuzui-1", False, 30, LEVEL_311)]


@BOTH
def test_a_clean_session_is_asked_for_only_when_configured(v5: bool) -> None:
    (connect,) = said(session_of(v5, clean_session=True))
    assert isinstance(connect, Connect)
    assert connect.clean
    assert Prop.SESSION_EXPIRY not in connect.properties


@BOTH
def test_filters_are_subscribed_with_their_qos_and_mqtt_5_without_retained_messages(v5: bool) -> None:
    session = session_of(v5, qos=2)
    said(session)
    session.receive(encode(Connack(), v5))
    handling = 2 if v5 else 0
    assert said(session) == [
        Subscribe(
            1, [Filter("cd/#", 2, retain_handling=handling), Filter("x/+", 2, retain_handling=handling)]
        )
    ]
    assert session.state is State.SUBSCRIBING
    session.receive(encode(Suback(1, [2, 2]), v5))
    assert session.state is State.LIVE
    assert kinds(session) == ["link_up", "subscribed"]


def test_many_filters_go_in_several_packets_and_all_answers_are_awaited() -> None:
    filters = [f"cd/{n}/#" for n in range(FILTERS_PER_SUBSCRIBE_MAX + 1)]
    session = session_of(True, filters=filters)
    said(session)
    session.receive(encode(Connack(), True))
    first, second = said(session)
    assert isinstance(first, Subscribe)
    assert isinstance(second, Subscribe)
    assert [one.pattern for one in first.filters + second.filters] == filters
    session.receive(encode(Suback(2, [1]), True))
    assert session.state is State.SUBSCRIBING
    session.receive(encode(Suback(1, [1] * FILTERS_PER_SUBSCRIBE_MAX), True))
    assert session.state is State.LIVE


@pytest.mark.parametrize(
    ("present", "expects", "subscribe", "events", "subscribes"),
    [
        (False, False, True, ["link_up"], True),
        (True, True, False, ["link_up"], False),
        (True, False, True, ["link_up"], True),
        (False, True, False, ["link_up", "session_lost"], True),
    ],
    ids=["first time", "session kept", "kept, but the filters may be new", "session lost"],
)
def test_a_lost_session_is_told_and_subscribed_again(
    present: bool, expects: bool, subscribe: bool, events: list[str], subscribes: bool
) -> None:
    session = session_of(True, subscribe=subscribe, expects=expects)
    said(session)
    session.receive(encode(Connack(present), True))
    assert kinds(session) == events
    assert bool(said(session)) == subscribes
    assert session.events[0].session_present == present


@BOTH
def test_a_refused_filter_is_named_and_the_others_go_on(v5: bool) -> None:
    session = session_of(v5)
    session.receive(encode(Connack(), v5) + encode(Suback(1, [0x80, 0]), v5))
    assert kinds(session) == ["link_up", "filter_refused", "filter_downgraded", "subscribed"]
    assert session.events[1].detail.startswith("cd/#")
    assert "QoS 0 granted" in session.events[2].detail
    assert session.state is State.LIVE


@pytest.mark.parametrize(
    "raw", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00"], ids=["in 3.1.1's form", "in 5's form"]
)
def test_a_broker_without_mqtt_5_is_understood_in_either_form(raw: bytes) -> None:
    session = session_of(True)
    session.receive(raw)
    assert session.version_refused
    assert (session.state, session.ending, session.fault) == (State.CLOSED, "version_refused", None)


def test_a_refused_connect_is_told_with_its_code() -> None:
    session = session_of(False)
    session.receive(encode(Connack(False, 5), False))
    assert (session.ending, session.ending_code, session.version_refused) == ("connect_refused", 5, False)


def test_messages_right_behind_connack_are_taken() -> None:
    session = session_of(False, expects=True, subscribe=False)
    assert session.receive(encode(Connack(True), False) + publishes(5)).payloads == [
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
    ]


@BOTH
def test_qos_2_is_finished_without_keeping_ids(v5: bool) -> None:
    session = live(v5)
    assert session.receive(publishes(1, v5=v5, qos=2)).payloads == [b"1"]
    assert not session.out
    session.receive(encode(Ack(Kind.PUBREL, 1), v5))
    assert said(session) == [Ack(Kind.PUBCOMP, 1)]


def test_an_oversized_message_is_skipped_so_that_it_cannot_come_for_ever() -> None:
    for v5 in (False, True):
        session = live(v5)
        frames = session.receive(encode(Publish("a", b"x" * 20_000, 1, pid=4), v5) + publishes(1, v5=v5))
        assert (frames.oversized, len(frames), session.ending) == ([0], 2, "")


def test_the_server_keepalive_counts() -> None:
    session = session_of(True)
    session.receive(encode(Connack(properties={Prop.SERVER_KEEP_ALIVE: 7}), True))
    assert session.keepalive_s == 7


@BOTH
def test_pings(v5: bool) -> None:
    session = live(v5)
    session.ping()
    assert said(session) == [Pingreq()]
    assert session.awaits_pingresp
    session.receive(encode(Pingresp(), v5))
    assert not session.awaits_pingresp


def test_a_disconnect_of_an_mqtt_5_broker_is_told_with_its_words() -> None:
    session = live(True)
    session.receive(encode(Disconnect(0x8E, {Prop.REASON_STRING: "someone else"}), True))
    assert (session.ending, session.ending_code) == ("disconnected_by_broker", 0x8E)
    assert session.fault is not None
    assert session.fault.message == "someone else"


@pytest.mark.parametrize(
    "packet",
    [Subscribe(1, [Filter("a")]), Connack(), Connect("x"), Ack(Kind.PUBACK, 1), Suback(9, [0]), Disconnect()],
    ids=lambda one: type(one).__name__,
)
def test_a_broker_that_speaks_out_of_turn_is_left(packet: Packet) -> None:
    session = live(False)
    session.receive(publishes(2) + encode(packet, False))
    assert (session.ending, session.state) == ("malformed", State.CLOSED)
    assert session.fault is not None
    assert session.fault.reason_code == Reason.PROTOCOL_ERROR


@BOTH
def test_a_clean_stop_says_goodbye(v5: bool) -> None:
    session = live(v5)
    session.end(Reason.SUCCESS, "stopped")
    assert said(session) == [Disconnect()]
    before = session_of(v5)
    said(before)
    before.end(Reason.SUCCESS, "stopped")
    assert said(before) == []


def test_every_action_of_the_table_exists() -> None:
    for actions in TABLE.values():
        for name in actions.values():
            assert callable(getattr(ClientSession, name))
