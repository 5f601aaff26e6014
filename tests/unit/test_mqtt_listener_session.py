"""The listening session answers as the specification says, in 3.1.1 and in 5."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.config import ListenerSettings
from ingest.mqtt.codec import PINGREQ, decode, encode, frame_at
from ingest.mqtt.fields import Reason
from ingest.mqtt.listener import RETURN_CODES, TABLE, ServerSession, State
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
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from ingest.mqtt.properties import Prop
from tests.mqtt_tools import packets_5, packets_311, publishes

BOTH = pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])


def connect(v5: bool, **more: Any) -> bytes:
    return encode(
        Connect(**{"client_id": "gw-1", "keepalive_s": 60, "level": LEVEL_5 if v5 else LEVEL_311} | more), v5
    )


def said(session: ServerSession, v5: bool) -> list[Packet]:
    """What the session has to say, decoded and taken."""
    out, packets, at = bytes(session.out), [], 0
    session.out.clear()
    while at < len(out):
        body, end = frame_at(out, at)
        packets.append(decode(out[at], out[body:end], v5))
        at = end
    return packets


def opened(v5: bool, settings: ListenerSettings | None = None, **more: Any) -> ServerSession:
    session = ServerSession(settings or ListenerSettings(), 1 << 20)
    session.receive(connect(v5, **more))
    session.admit("gw-1", False)
    said(session, v5)
    return session


@BOTH
def test_connect_asks_and_waits_and_messages_behind_it_come_with_the_admission(v5: bool) -> None:
    session = ServerSession(ListenerSettings(), 1 << 20)
    frames = session.receive(connect(v5) + publishes(3, v5=v5))
    assert (session.state, len(frames), bytes(session.out)) == (State.ASKING, 0, b"")
    assert session.asking is not None
    assert session.asking.client_id == "gw-1"
    assert session.admit("gw-1", False).payloads == [b"1", b"2", b"3"]
    (connack,) = said(session, v5)
    assert isinstance(connack, Connack)
    assert (connack.code, connack.session_present) == (0, False)


def test_an_mqtt_5_connack_says_what_we_do_not_do() -> None:
    session = ServerSession(ListenerSettings(receive_maximum=100), 5000)
    session.receive(connect(True, keepalive_s=0, properties={Prop.SESSION_EXPIRY: 99}))
    session.admit("made-up", True)
    (connack,) = said(session, True)
    assert isinstance(connack, Connack)
    assert connack.properties == {
        Prop.RECEIVE_MAXIMUM: 100,
        Prop.MAXIMUM_PACKET_SIZE: 5000,
        Prop.TOPIC_ALIAS_MAXIMUM: 0,
        Prop.WILDCARD_AVAILABLE: 0,
        Prop.SUBSCRIPTION_ID_AVAILABLE: 0,
        Prop.SHARED_AVAILABLE: 0,
        Prop.SESSION_EXPIRY: 0,
        Prop.SERVER_KEEP_ALIVE: 300,
        Prop.ASSIGNED_CLIENT_ID: "made-up",
    }


@BOTH
@pytest.mark.parametrize(("asked", "kept"), [(60, 60), (0, 300), (3600, 300), (300, 300)])
def test_long_and_missing_keepalives_are_lowered(v5: bool, asked: int, kept: int) -> None:
    assert opened(v5, keepalive_s=asked).keepalive_s == kept


def test_a_311_client_without_an_id_must_be_clean() -> None:
    session = ServerSession(ListenerSettings(), 1 << 20)
    session.receive(connect(False, client_id="", clean=False))
    assert said(session, False) == [Connack(False, 2)]
    assert (session.state, session.refused) == (State.CLOSED, True)
    session = ServerSession(ListenerSettings(), 1 << 20)
    session.receive(connect(True, client_id="", clean=False))
    assert session.state is State.ASKING


@pytest.mark.parametrize(
    ("raw", "answer", "v5"),
    [
        (b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00", Connack(False, 1), False),
        (b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x00\x00\x00", Connack(False, 0x84), True),
    ],
    ids=["3.1", "6"],
)
def test_other_versions_are_refused_in_words_they_may_know(raw: bytes, answer: Connack, v5: bool) -> None:
    session = ServerSession(ListenerSettings(), 1 << 20)
    session.receive(raw)
    assert said(session, v5) == [answer]
    assert session.ending == "unsupported_version"


def test_enhanced_authentication_is_refused() -> None:
    session = ServerSession(ListenerSettings(), 1 << 20)
    session.receive(connect(True, properties={Prop.AUTHENTICATION_METHOD: "SCRAM"}))
    assert said(session, True) == [Connack(False, 0x8C)]


@pytest.mark.parametrize("reason", list(RETURN_CODES))
def test_a_refusal_is_said_in_the_words_of_the_version(reason: Reason) -> None:
    for v5 in (False, True):
        session = ServerSession(ListenerSettings(), 1 << 20)
        session.receive(connect(v5))
        session.refuse(reason, "why")
        assert said(session, v5) == [Connack(False, reason if v5 else RETURN_CODES[reason])]
        assert session.ending == "why"


@BOTH
def test_pings_and_unwanted_subscriptions_are_answered_politely(v5: bool) -> None:
    session = opened(v5)
    session.receive(
        PINGREQ + encode(Subscribe(5, [Filter("a", 1), Filter("b")]), v5) + encode(Unsubscribe(6, ["a"]), v5)
    )
    refused = 0x87 if v5 else 0x80
    assert said(session, v5) == [Pingresp(), Suback(5, [refused, refused]), Unsuback(6, [0x11] if v5 else [])]
    assert session.state is State.OPEN


@BOTH
def test_pubrel_is_always_answered_whatever_its_form(v5: bool) -> None:
    session = opened(v5)
    stream = encode(Ack(Kind.PUBREL, 9), v5)
    if v5:
        stream += b"\x62\x03\x00\x0a\x92" + b"\x62\x04\x00\x0b\x00\x00"
    session.receive(stream)
    ids = [9, 10, 11] if v5 else [9]
    assert said(session, v5) == [Ack(Kind.PUBCOMP, pid) for pid in ids]


def test_a_publish_is_never_answered_before_its_receipt() -> None:
    for qos in (1, 2):
        session = opened(False)
        session.receive(publishes(10, qos=qos))
        assert not session.out


@BOTH
def test_a_will_stands_until_a_clean_goodbye(v5: bool) -> None:
    will = Will("cd/gw/state", b"gone", 1)
    session = opened(v5, will=will)
    assert session.will == will
    session.receive(encode(Disconnect(), v5) + publishes(1, v5=v5))
    assert (session.will, session.ending) == (None, "disconnect")


def test_mqtt_5_may_say_goodbye_and_keep_its_will() -> None:
    session = opened(True, will=Will("t"))
    session.receive(encode(Disconnect(4), True))
    assert session.will is not None


FORBIDDEN = [
    (state, kind)
    for state in (State.AWAITING, State.OPEN)
    for kind in Kind
    if kind not in TABLE[state] and not (state is State.OPEN and kind is Kind.PUBLISH)
]


@BOTH
@pytest.mark.parametrize(("state", "kind"), FORBIDDEN, ids=lambda one: one.name)
def test_every_packet_out_of_its_place_closes_the_connection(v5: bool, state: State, kind: Kind) -> None:
    if kind is Kind.AUTH and not v5:
        packet: Packet = Auth()
    else:
        packet = next(one for one in (packets_5() if v5 else packets_311()) if kind_of(one) is kind)
    session = opened(v5) if state is State.OPEN else ServerSession(ListenerSettings(), 1 << 20)
    session.receive(encode(packet, v5))
    assert (session.state, session.ending) == (State.CLOSED, "malformed")
    assert session.fault is not None
    if state is State.OPEN and v5:
        assert said(session, v5) == [Disconnect(session.fault.reason_code)]
    else:
        assert said(session, v5) == []


def kind_of(packet: Packet) -> Kind:
    return Kind(encode(packet, True)[0] >> 4)


def test_the_second_connect_is_a_protocol_error() -> None:
    session = opened(True)
    session.receive(connect(True))
    assert said(session, True) == [Disconnect(0x82)]


def test_auth_is_refused_because_no_method_was_agreed() -> None:
    session = opened(True)
    session.receive(encode(Auth(0x18, {Prop.AUTHENTICATION_METHOD: "m"}), True))
    assert said(session, True) == [Disconnect(0x82)]


def test_more_in_flight_than_allowed_ends_an_mqtt_5_connection_but_not_a_311_one() -> None:
    settings = ListenerSettings(receive_maximum=5)
    session = opened(True, settings)
    assert len(session.receive(publishes(5, v5=True))) == 5
    session.acknowledged(3)
    assert len(session.receive(publishes(3, v5=True, start=6))) == 3
    assert session.state is State.OPEN
    # The one too many is handed on all the same: it costs nothing, and it may be the reading that counts.
    assert len(session.receive(publishes(1, v5=True, start=9))) == 1
    assert said(session, True) == [Disconnect(0x93)]
    old = opened(False, settings)
    old.receive(publishes(50))
    assert old.state is State.OPEN


def test_qos_0_is_never_in_flight() -> None:
    session = opened(True, ListenerSettings(receive_maximum=5))
    session.receive(publishes(50, v5=True, qos=0))
    assert session.state is State.OPEN


def test_an_oversized_message_ends_mqtt_5_with_0x95_and_goes_on_in_311() -> None:
    big = Publish("a", b"x" * 2000, 1, pid=4)
    for v5 in (False, True):
        session = ServerSession(ListenerSettings(), 1024)
        session.receive(connect(v5))
        session.admit("x", False)
        said(session, v5)
        frames = session.receive(encode(big, v5) + publishes(1, v5=v5))
        assert frames.oversized == [0]
        assert said(session, v5) == ([Disconnect(0x95)] if v5 else [])
        assert len(frames) == (1 if v5 else 2)


@BOTH
def test_closing_from_our_side_tells_an_mqtt_5_client_why(v5: bool) -> None:
    session = opened(v5)
    session.end(Reason.SESSION_TAKEN_OVER, "taken_over")
    assert said(session, v5) == ([Disconnect(0x8E)] if v5 else [])
    session.end(Reason.KEEP_ALIVE_TIMEOUT, "keepalive")
    assert (session.ending, said(session, v5)) == ("taken_over", [])


def test_every_action_of_the_table_exists() -> None:
    for actions in TABLE.values():
        for name in actions.values():
            assert callable(getattr(ServerSession, name))
