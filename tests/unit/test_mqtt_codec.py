"""Packets survive the wire, agree with another implementation, and are refused when malformed."""

from __future__ import annotations

from typing import Any

import mqtt5
import pytest

from ingest.mqtt import codec
from ingest.mqtt.codec import decode, encode, frame_at
from ingest.mqtt.fields import MalformedPacket, Reader, Reason, encode_varint, varint_at
from ingest.mqtt.packets import (
    LEVEL_5,
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
    Unsuback,
    Unsubscribe,
    UnsupportedVersion,
    Will,
)
from ingest.mqtt.properties import RULES, In, Prop, encode_properties
from ingest.mqtt.topics import check_filter, check_topic, filter_levels, matches
from tests.mqtt_tools import WORDS, packets_5, packets_311

ALL = [(packet, False) for packet in packets_311()] + [(packet, True) for packet in packets_5()]


def over_the_wire(raw: bytes, v5: bool) -> Packet:
    body, end = frame_at(raw, 0)
    assert end == len(raw)
    return decode(raw[0], raw[body:end], v5)


@pytest.mark.parametrize(
    ("packet", "v5"), ALL, ids=lambda one: type(one).__name__ if one not in (True, False) else ""
)
def test_every_packet_survives_the_wire(packet: Packet, v5: bool) -> None:
    assert over_the_wire(encode(packet, v5), v5) == packet


@pytest.mark.parametrize(
    ("packet", "v5"), ALL, ids=lambda one: type(one).__name__ if one not in (True, False) else ""
)
def test_a_packet_cut_short_is_malformed_or_another_packet_but_never_an_error_of_ours(
    packet: Packet, v5: bool
) -> None:
    raw = encode(packet, v5)
    body, end = frame_at(raw, 0)
    codes: list[int] = []
    for cut in range(body, end):
        try:
            decode(raw[0], raw[body:cut], v5)
        except MalformedPacket as fault:
            codes.append(fault.reason_code)
    assert all(code in list(Reason) and code >= 0x80 for code in codes)


@pytest.mark.parametrize(
    ("packet", "v5"), ALL, ids=lambda one: type(one).__name__ if one not in (True, False) else ""
)
def test_bytes_left_over_are_malformed_except_where_a_payload_or_a_list_of_codes_takes_them(
    packet: Packet, v5: bool
) -> None:
    raw = encode(packet, v5)
    body, end = frame_at(raw, 0)
    longer = raw[body:end] + b"\xff"
    if (
        isinstance(packet, Publish)
        or (isinstance(packet, Suback | Unsuback) and v5)
        or isinstance(packet, Suback)
    ):
        decode(raw[0], longer, v5)
    elif isinstance(packet, Disconnect | Ack) and v5 and not packet.code:
        # MQTT 5 lets a reason code follow there.
        assert decode(raw[0], longer, v5).code == 0xFF  # type: ignore[union-attr]
    else:
        with pytest.raises(MalformedPacket):
            decode(raw[0], longer, v5)


PEER: list[tuple[Any, Packet]] = [
    (
        mqtt5.ConnectPacket(
            "gw-1",
            username="u",
            password=b"p",
            clean_start=True,
            keep_alive=60,
            session_expiry_interval=9,
            receive_max=5,
            max_packet_size=1000,
            user_properties=WORDS,
            will=mqtt5.Will(
                "t", payload=b"w", qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True, will_delay_interval=3
            ),
        ),
        Connect(
            "gw-1",
            True,
            60,
            LEVEL_5,
            "u",
            b"p",
            Will("t", b"w", 1, True, {Prop.WILL_DELAY: 3}),
            {
                Prop.SESSION_EXPIRY: 9,
                Prop.RECEIVE_MAXIMUM: 5,
                Prop.MAXIMUM_PACKET_SIZE: 1000,
                Prop.USER_PROPERTY: WORDS,
            },
        ),
    ),
    (
        mqtt5.ConnAckPacket(
            session_present=True,
            assigned_client_id="x",
            server_keep_alive=7,
            receive_max=3,
            wildcard_subscription_available=False,
        ),
        Connack(
            True,
            0,
            {
                Prop.ASSIGNED_CLIENT_ID: "x",
                Prop.SERVER_KEEP_ALIVE: 7,
                Prop.RECEIVE_MAXIMUM: 3,
                Prop.WILDCARD_AVAILABLE: 0,
            },
        ),
    ),
    (
        mqtt5.PublishPacket(
            "cd/雨",
            b"1",
            qos=mqtt5.QoS.EXACTLY_ONCE,
            retain=True,
            packet_id=77,
            duplicate=True,
            payload_format_indicator=1,
            message_expiry_interval=5,
            content_type="c",
            response_topic="r",
            correlation_data=b"d",
            subscription_ids=[1, 999],
        ),
        Publish(
            "cd/雨",
            b"1",
            2,
            True,
            True,
            77,
            {
                Prop.PAYLOAD_FORMAT: 1,
                Prop.MESSAGE_EXPIRY: 5,
                Prop.CONTENT_TYPE: "c",
                Prop.RESPONSE_TOPIC: "r",
                Prop.CORRELATION_DATA: b"d",
                Prop.SUBSCRIPTION_ID: [1, 999],
            },
        ),
    ),
    (mqtt5.PubAckPacket(3), Ack(Kind.PUBACK, 3)),
    (
        mqtt5.PubAckPacket(3, reason_code=mqtt5.PubAckReasonCode.QUOTA_EXCEEDED, reason_str="no"),
        Ack(Kind.PUBACK, 3, 0x97, {Prop.REASON_STRING: "no"}),
    ),
    (mqtt5.PubRecPacket(3), Ack(Kind.PUBREC, 3)),
    (mqtt5.PubRelPacket(3), Ack(Kind.PUBREL, 3)),
    (
        mqtt5.PubCompPacket(3, reason_code=mqtt5.PubCompReasonCode.PACKET_ID_NOT_FOUND),
        Ack(Kind.PUBCOMP, 3, 0x92),
    ),
    (
        mqtt5.SubscribePacket(
            9,
            [
                mqtt5.TopicFilter(
                    "a/+",
                    max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                    retain_as_published=False,
                    retain_handling=mqtt5.RetainHandling.SEND_NEVER,
                ),
                mqtt5.TopicFilter("#", no_local=True),
            ],
            subscription_id=4,
        ),
        Subscribe(
            9, [Filter("a/+", 1, False, False, 2), Filter("#", 2, True, True, 0)], {Prop.SUBSCRIPTION_ID: [4]}
        ),
    ),
    (
        mqtt5.SubAckPacket(
            9, [mqtt5.SubAckReasonCode.NOT_AUTHORIZED, mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]
        ),
        Suback(9, [0x87, 1]),
    ),
    (mqtt5.UnsubscribePacket(9, ["a", "b/#"]), Unsubscribe(9, ["a", "b/#"])),
    (mqtt5.UnsubAckPacket(9, [mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED]), Unsuback(9, [0x11])),
    (mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER), Disconnect(0x8E)),
]


@pytest.mark.parametrize(("theirs", "ours"), PEER, ids=lambda one: type(one).__name__)
def test_the_mqtt5_package_reads_what_we_write_and_we_read_what_it_writes(theirs: Any, ours: Packet) -> None:
    assert over_the_wire(theirs.write(), True) == ours
    raw = encode(ours, True)
    read, size = mqtt5.read(raw)
    assert (read, size) == (theirs, len(raw))


MALFORMED: list[tuple[str, bytes, bool, int]] = [
    ("QoS 3", b"\x36\x05\x00\x01a\x00\x01", False, 0x81),
    ("DUP at QoS 0", b"\x38\x03\x00\x01a", False, 0x81),
    ("packet id 0", b"\x32\x05\x00\x01a\x00\x00", False, 0x81),
    ("wildcard in a topic", b"\x30\x03\x00\x01#", False, 0x90),
    ("empty topic", b"\x30\x02\x00\x00", False, 0x90),
    ("U+0000 in a topic", b"\x30\x03\x00\x01\x00", False, 0x81),
    ("topic is not UTF-8", b"\x30\x03\x00\x01\xff", False, 0x81),
    ("a surrogate is not UTF-8", b"\x30\x05\x00\x03\xed\xa0\x80", False, 0x81),
    ("topic longer than the packet", b"\x30\x03\x00\x09a", False, 0x81),
    ("reserved bits of SUBSCRIBE", b"\x80\x06\x00\x01\x00\x01a\x00", False, 0x81),
    ("reserved bits of PUBREL", b"\x60\x02\x00\x01", False, 0x81),
    ("reserved bits of PINGREQ", b"\xc1\x00", False, 0x81),
    ("PINGREQ with a body", b"\xc0\x01\x00", False, 0x81),
    ("packet type 0", b"\x00\x00", False, 0x81),
    ("AUTH in 3.1.1", b"\xf0\x00", False, 0x81),
    ("SUBSCRIBE without a filter", b"\x82\x02\x00\x01", False, 0x82),
    ("SUBSCRIBE at QoS 3", b"\x82\x06\x00\x01\x00\x01a\x03", False, 0x81),
    ("a misplaced #", b"\x82\x08\x00\x01\x00\x03#/a\x00", False, 0x8F),
    ("retain handling 3", b"\x82\x07\x00\x01\x00\x00\x01a\x30", True, 0x81),
    ("No Local on a share", b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04", True, 0x82),
    ("UNSUBSCRIBE without a filter", b"\xa2\x02\x00\x01", False, 0x82),
    ("unknown property", b"\x30\x05\x00\x01a\x01\x7f", True, 0x81),
    ("misplaced property", b"\x30\x09\x00\x01a\x05\x11\x00\x00\x00\x01", True, 0x81),
    ("property twice", b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00", True, 0x82),
    ("payload format 2", b"\x30\x06\x00\x01a\x02\x01\x02", True, 0x82),
    ("topic alias 0", b"\x30\x07\x00\x01a\x03\x23\x00\x00", True, 0x94),
    ("subscription id 0", b"\x30\x06\x00\x01a\x02\x0b\x00", True, 0x82),
    ("properties longer than the packet", b"\x30\x04\x00\x01a\x05", True, 0x81),
    ("no properties at all", b"\x30\x03\x00\x01a", True, 0x81),
    ("property length not in its shortest form", b"\x30\x05\x00\x01a\x80\x00", True, 0x81),
    ("CONNECT reserved flag", b"\x10\x0c\x00\x04MQTT\x04\x01\x00\x00\x00\x00", False, 0x81),
    ("will QoS without a will", b"\x10\x0c\x00\x04MQTT\x04\x0a\x00\x00\x00\x00", False, 0x81),
    (
        "password without a user in 3.1.1",
        b"\x10\x0e\x00\x04MQTT\x04\x42\x00\x00\x00\x00\x00\x00",
        False,
        0x81,
    ),
    ("another protocol", b"\x10\x0c\x00\x04AMQP\x04\x02\x00\x00\x00\x00", False, 0x81),
    ("CONNACK flags", b"\x20\x02\x02\x00", False, 0x81),
    ("session present in a refusal", b"\x20\x02\x01\x05", False, 0x82),
    ("SUBACK code 3", b"\x90\x03\x00\x01\x03", False, 0x81),
]


@pytest.mark.parametrize(
    ("raw", "v5", "code"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_malformed_packets_are_refused_with_their_reason(raw: bytes, v5: bool, code: int) -> None:
    with pytest.raises(MalformedPacket) as caught:
        over_the_wire(raw, v5)
    assert caught.value.reason_code == code
    assert caught.value.message


@pytest.mark.parametrize(
    ("name", "level"), [(b"\x00\x06MQIsdp", 3), (b"\x00\x04MQTT", 3), (b"\x00\x04MQTT", 6)]
)
def test_other_protocol_levels_are_refused_by_name(name: bytes, level: int) -> None:
    with pytest.raises(UnsupportedVersion) as caught:
        decode(0x10, name + bytes([level, 2, 0, 0, 0, 0]), False)
    assert caught.value.level == level


def test_authentication_data_needs_a_method() -> None:
    raw = encode(Connect("x", level=LEVEL_5, properties={Prop.AUTHENTICATION_DATA: b"d"}), True)
    with pytest.raises(MalformedPacket):
        over_the_wire(raw, True)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_variable_byte_integers_take_the_fewest_bytes(value: int) -> None:
    raw = encode_varint(value)
    assert varint_at(raw, 0, len(raw)) == (value, len(raw))
    assert len(raw) == 1 + (value > 127) + (value > 16_383) + (value > 2_097_151)
    for cut in range(len(raw)):
        assert varint_at(raw, 0, cut) == (-1, 0)


def test_a_fifth_length_byte_is_refused() -> None:
    with pytest.raises(MalformedPacket):
        frame_at(b"\x30\xff\xff\xff\xff\x01", 0)
    with pytest.raises(ValueError):
        encode_varint(268_435_456)


def test_a_packet_above_the_limit_is_refused_before_it_is_here() -> None:
    with pytest.raises(MalformedPacket) as caught:
        frame_at(b"\x30\xff\xff\x03", 0, 1000)
    assert caught.value.reason_code == Reason.PACKET_TOO_LARGE


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: encode(Publish("a", qos=1), False), "packet id"),
        (lambda: encode(Publish("a\0b"), False), "U+0000"),
        (lambda: encode(Publish("a" * 65_536), False), "65536"),
        (lambda: encode_properties({Prop.TOPIC_ALIAS: 1}, In.CONNECT), "TOPIC_ALIAS"),
        (lambda: encode_properties({Prop.RECEIVE_MAXIMUM: 0}, In.CONNECT), "range"),
    ],
)
def test_what_cannot_be_said_is_a_value_error_on_our_side(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        build()


def test_the_property_table_knows_every_property_and_no_other() -> None:
    assert set(RULES) == set(Prop)
    assert all(rule.places for rule in RULES.values())


def test_every_packet_type_but_publish_has_a_decoder() -> None:
    assert set(codec._DECODERS) == set(Kind) - {Kind.PUBLISH}


@pytest.mark.parametrize(
    ("pattern", "takes", "leaves"),
    [
        ("a/b", ["a/b"], ["a", "a/b/c", "a/B", "/a/b"]),
        ("a/+", ["a/b", "a/"], ["a", "a/b/c"]),
        ("a/#", ["a", "a/b", "a/b/c", "a/"], ["ab", "b"]),
        ("#", ["a", "/", "a/b"], ["$SYS/x"]),
        ("+/+", ["/finance", "a/b"], ["$SYS/x", "a"]),
        ("$SYS/#", ["$SYS/x", "$SYS"], ["SYS/x"]),
        ("$share/g/a/+", ["a/b"], ["$share/g/a/b", "a"]),
    ],
)
def test_filters_take_the_topics_of_the_specification(
    pattern: str, takes: list[str], leaves: list[str]
) -> None:
    levels = filter_levels(check_filter(pattern))
    assert [topic for topic in [*takes, *leaves] if matches(levels, topic)] == takes


@pytest.mark.parametrize(
    "pattern", ["", "a#", "#/a", "a+", "a/+b", "$share/", "$share/g", "$share//a", "$share/+/a", "a\0"]
)
def test_ill_formed_filters_are_refused(pattern: str) -> None:
    with pytest.raises(MalformedPacket):
        check_filter(pattern)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "雨" * 30_000])
def test_ill_formed_topics_are_refused(topic: str) -> None:
    with pytest.raises(MalformedPacket):
        check_topic(topic)


def test_a_reader_never_reads_past_its_end() -> None:
    reader = Reader(b"\x00\x05abc")
    with pytest.raises(MalformedPacket):
        reader.binary()
