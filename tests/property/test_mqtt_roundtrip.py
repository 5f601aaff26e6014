"""Any packet survives the wire; any split of any stream gives the same messages; no bytes break the scan."""

from __future__ import annotations

from typing import Any

import mqtt5
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.config import ListenerSettings
from ingest.frames import NO_PID, scan
from ingest.mqtt.codec import decode, encode, frame_at
from ingest.mqtt.fields import MalformedPacket
from ingest.mqtt.listener import ServerSession, State
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
    Unsubscribe,
    Will,
)
from ingest.mqtt.properties import RULES, Form, In, Prop, Properties
from ingest.mqtt.stream import PacketStream
from tests.mqtt_tools import publishes

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
topics = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=30)
pids = st.integers(1, 65_535)
blobs = st.binary(max_size=200)

FORMS: dict[Form, Any] = {
    Form.U8: st.integers(0, 255),
    Form.U16: st.integers(0, 65_535),
    Form.U32: st.integers(0, 0xFFFF_FFFF),
    Form.VARINT: st.integers(0, 268_435_455),
    Form.TEXT: texts,
    Form.BINARY: blobs,
    Form.PAIR: st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
}


def properties(place: In, *without: Prop) -> st.SearchStrategy[Properties]:
    choices: dict[Any, Any] = {}
    for which, rule in RULES.items():
        if place not in rule.places or which in without:
            continue
        value = FORMS[rule.form]
        if rule.form in (Form.U8, Form.U16, Form.U32):
            least = max(rule.smallest, 1 if which == Prop.TOPIC_ALIAS else 0)
            value = st.integers(least, min(rule.largest, 256 ** int(rule.form.value) - 1))
        elif which == Prop.SUBSCRIPTION_ID:
            value = st.lists(
                st.integers(1, 268_435_455), min_size=1, max_size=1 if place is In.SUBSCRIBE else 3
            )
        choices[int(which)] = value
    return st.fixed_dictionaries({}, optional=choices)


def either(v5: bool, place: In, *without: Prop) -> st.SearchStrategy[Properties]:
    return properties(place, *without) if v5 else st.just({})


def messages(v5: bool) -> st.SearchStrategy[Publish]:
    def build(
        topic: str, payload: bytes, qos: int, bits: tuple[bool, bool], pid: int, more: Properties
    ) -> Publish:
        return Publish(topic, payload, qos, bits[0], bits[1] and qos > 0, pid if qos else 0, more)

    return st.builds(
        build, topics, blobs, st.integers(0, 2), st.tuples(st.booleans(), st.booleans()), pids,
        either(v5, In.PUBLISH, Prop.TOPIC_ALIAS),
    )  # fmt: skip


def connects(v5: bool) -> st.SearchStrategy[Connect]:
    will = st.builds(Will, topics, blobs, st.integers(0, 2), st.booleans(), either(v5, In.WILL))
    secret = st.one_of(st.none(), blobs) if v5 else st.none()
    return st.builds(
        Connect, texts, st.booleans(), st.integers(0, 65_535), st.just(LEVEL_5 if v5 else LEVEL_311),
        st.one_of(st.none(), texts), secret, st.one_of(st.none(), will),
        either(v5, In.CONNECT, Prop.AUTHENTICATION_DATA),
    )  # fmt: skip


def packets(v5: bool) -> st.SearchStrategy[Packet]:
    code = st.sampled_from([0, 0x10, 0x80, 0x92]) if v5 else st.just(0)
    kinds = st.sampled_from([Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP])
    option = st.booleans() if v5 else st.just(False)
    handling = st.integers(0, 2) if v5 else st.just(0)
    filters = st.builds(
        Filter, st.sampled_from(["a", "#", "a/+/b", "雨/#"]), st.integers(0, 2), option, option, handling
    )
    return st.one_of(
        messages(v5),
        connects(v5),
        st.builds(Connack, st.just(False), st.integers(0, 5), either(v5, In.CONNACK)),
        st.builds(Ack, kinds, pids, code, either(v5, In.ACK)),
        st.builds(Subscribe, pids, st.lists(filters, min_size=1, max_size=4), either(v5, In.SUBSCRIBE)),
        st.builds(
            Suback, pids, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1), either(v5, In.SUBACK)
        ),
        st.builds(
            Unsubscribe, pids, st.lists(st.sampled_from(["a", "#"]), min_size=1), either(v5, In.UNSUBSCRIBE)
        ),
        st.builds(Disconnect, code, either(v5, In.DISCONNECT)),
    )


versioned = st.booleans().flatmap(lambda v5: st.tuples(st.just(v5), packets(v5)))
streams = st.booleans().flatmap(lambda v5: st.tuples(st.just(v5), st.lists(messages(v5), max_size=6)))


@given(versioned)
def test_any_packet_survives_the_wire(case: tuple[bool, Packet]) -> None:
    v5, packet = case
    raw = encode(packet, v5)
    body, end = frame_at(raw, 0)
    assert end == len(raw)
    again = decode(raw[0], raw[body:end], v5)
    assert again == packet


@given(messages(True))
def test_any_message_reads_the_same_in_the_mqtt5_package(packet: Publish) -> None:
    theirs, size = mqtt5.read(encode(packet, True))
    assert size == len(encode(packet, True))
    assert (theirs.topic, theirs.payload, int(theirs.qos)) == (packet.topic, packet.payload, packet.qos)
    assert (theirs.packet_id or 0, theirs.retain, theirs.duplicate) == (packet.pid, packet.retain, packet.dup)
    body, end = frame_at(theirs.write(), 0)
    raw = theirs.write()
    again = decode(raw[0], raw[body:end], True)
    assert isinstance(again, Publish)
    assert again.payload == packet.payload


@given(streams, st.lists(st.integers(0, 3000), max_size=6))
def test_any_split_gives_the_same_messages(case: tuple[bool, list[Publish]], cuts: list[int]) -> None:
    v5, sent = case
    whole = b"".join(encode(one, v5) for one in sent)
    stream = PacketStream(lambda head, body: None, 1 << 20)
    stream.v5, stream.publishing = v5, True
    got: list[tuple[bytes, bytes, bytes]] = []
    edges = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    for start, end in zip(edges, [*edges[1:], len(whole)], strict=True):
        frames = stream.feed(whole[start:end])
        got += zip(frames.topics, frames.payloads, frames.pids, strict=True)
    assert stream.fault is None
    assert got == [
        (one.topic.encode(), one.payload, one.pid.to_bytes(2, "big") if one.qos else NO_PID) for one in sent
    ]


@given(st.binary(max_size=400), st.booleans(), st.integers(0, 5))
@settings(max_examples=400)
def test_no_bytes_break_the_scan_or_cost_a_good_message(noise: bytes, v5: bool, good: int) -> None:
    frames = scan(publishes(good, v5=v5) + noise, 0, v5)
    assert frames.payloads[:good] == [str(n).encode() for n in range(1, good + 1)]
    assert len(frames.topics) == len(frames.payloads) == len(frames.heads) == len(frames.pids)


@given(st.binary(max_size=300), st.booleans(), st.booleans())
@settings(max_examples=400)
def test_no_bytes_break_a_session_and_what_it_takes_it_can_say_again(
    noise: bytes, v5: bool, admitted: bool
) -> None:
    session = ServerSession(ListenerSettings(), 1 << 20)
    if admitted:
        session.receive(encode(Connect("x", level=LEVEL_5 if v5 else LEVEL_311), v5))
        session.admit("x", False)
    session.receive(noise)
    if session.asking is not None:
        assert encode(session.asking, session.v5)
    assert session.state is not State.CLOSED or session.ending


@given(versioned, st.integers(0, 500), st.integers(0, 255))
@settings(max_examples=400)
def test_a_packet_with_one_byte_wrong_is_read_or_refused_but_never_breaks_us(
    case: tuple[bool, Packet], at: int, byte: int
) -> None:
    v5, packet = case
    raw = bytearray(encode(packet, v5))
    raw[at % len(raw)] = byte
    try:
        body, end = frame_at(bytes(raw), 0)
        decode(raw[0], bytes(raw[body:end]), v5)
    except MalformedPacket as fault:
        refusal = fault
    else:
        return
    assert refusal.message
