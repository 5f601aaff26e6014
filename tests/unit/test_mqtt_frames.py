"""The scan takes what is whole, stops where it must, and says why."""

from __future__ import annotations

import pytest

from ingest.frames import NO_PID, Frames, Stop, scan
from ingest.mqtt.codec import PINGREQ, encode
from ingest.mqtt.packets import Packet, Publish
from ingest.mqtt.properties import Prop
from tests.mqtt_tools import packets_5, packets_311, publishes


def rows(frames: Frames) -> list[tuple[bytes, bytes, int, bytes]]:
    return list(zip(frames.topics, frames.payloads, frames.heads, frames.pids, strict=True))


def expected(packets: list[Packet]) -> list[tuple[bytes, bytes, int, bytes]]:
    return [
        (
            one.topic.encode(),
            one.payload,
            0x30 | one.dup << 3 | one.qos << 1 | one.retain,
            one.pid.to_bytes(2, "big") if one.qos else NO_PID,
        )
        for one in packets
        if isinstance(one, Publish)
    ]


def messages(v5: bool) -> list[Packet]:
    every = packets_5() if v5 else packets_311()
    return [one for one in every if isinstance(one, Publish)] * 2


@pytest.mark.parametrize("v5", [False, True])
def test_messages_of_all_shapes_are_taken_whole_and_in_order(v5: bool) -> None:
    stream = b"".join(encode(one, v5) for one in messages(v5))
    frames = scan(stream, 0, v5)
    assert rows(frames) == expected(messages(v5))
    assert (frames.stop, frames.end) == (Stop.END, len(stream))


@pytest.mark.parametrize("v5", [False, True])
def test_cut_at_every_byte_the_whole_ones_are_taken_and_the_rest_waits(v5: bool) -> None:
    parts = [encode(one, v5) for one in messages(v5)]
    stream, ends = b"".join(parts), [0]
    for part in parts:
        ends.append(ends[-1] + len(part))
    for cut in range(len(stream) + 1):
        whole = sum(end <= cut for end in ends) - 1
        frames = scan(stream[:cut], 0, v5)
        assert rows(frames) == expected(messages(v5))[:whole]
        assert frames.end == ends[whole]
        assert frames.stop is (Stop.END if cut == ends[whole] else Stop.INCOMPLETE)
        if frames.need:
            assert frames.need == len(parts[whole])
        rest = scan(stream, frames.end, v5, frames=frames)
        assert rows(rest) == expected(messages(v5))


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("tail", [PINGREQ, b"\xe0\x00", b"\x62\x02\x00\x01", b"\x10", b"\x00"])
def test_it_stops_before_any_other_packet(v5: bool, tail: bytes) -> None:
    stream = publishes(3, v5=v5)
    frames = scan(stream + tail, 0, v5)
    assert (len(frames), frames.stop, frames.end) == (3, Stop.OTHER, len(stream))


@pytest.mark.parametrize(
    "bad",
    [
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x38\x03\x00\x01a",
        b"\x32\x05\x00\x01a\x00\x00",
        b"\x30\x03\x00\x01#",
        b"\x30\x03\x00\x01+",
        b"\x30\x02\x00\x00",
        b"\x30\x00",
        b"\x30\x01\x00",
        b"\x30\x03\x00\x01\x00",
        b"\x30\x03\x00\x01\xff",
        b"\x30\x05\x00\x03\xed\xa0\x80",
        b"\x30\x03\x00\x09a",
        b"\x32\x04\x00\x01a\x00",
        b"\x30\xff\xff\xff\xff",
    ],
)
@pytest.mark.parametrize("good", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 2])
def test_a_bad_message_ends_the_scan_and_takes_no_good_one_with_it(bad: bytes, good: int, after: int) -> None:
    frames = scan(publishes(good) + bad + publishes(after), 0, False)
    assert frames.stop is Stop.FAULT
    assert frames.fault is not None
    assert frames.payloads == [str(n).encode() for n in range(1, good + 1)]
    assert len(frames.heads) == len(frames.pids) == len(frames.topics) == good


def test_the_first_of_two_faults_decides() -> None:
    frames = scan(publishes(2) + b"\x30\x03\x00\x01#" + publishes(1) + b"\x36\x05\x00\x01a\x00\x01", 0, False)
    assert len(frames) == 2
    assert frames.fault is not None
    assert frames.fault.reason_code == 0x90


def test_a_topic_alias_is_refused_because_none_was_offered() -> None:
    frames = scan(encode(Publish("a", properties={Prop.TOPIC_ALIAS: 3}), True), 0, True)
    assert frames.fault is not None
    assert (frames.stop, frames.fault.reason_code) == (Stop.FAULT, 0x94)


def test_properties_are_checked_and_skipped() -> None:
    good = {Prop.PAYLOAD_FORMAT: 1, Prop.USER_PROPERTY: [("a", "b")], Prop.MESSAGE_EXPIRY: 1}
    frames = scan(encode(Publish("a", b"payload", properties=good), True), 0, True)
    assert frames.payloads == [b"payload"]
    assert scan(b"\x30\x06\x00\x01a\x02\x01\x02", 0, True).stop is Stop.FAULT


def test_a_packet_length_not_in_its_shortest_form_is_malformed_only_in_mqtt_5() -> None:
    # Some small 3.1.1 devices always reserve two bytes for the length; 3.1.1 does not forbid it.
    assert scan(b"\x30\x83\x00\x00\x01a", 0, False).topics == [b"a"]
    assert scan(b"\x30\x84\x00\x00\x01a\x00", 0, True).stop is Stop.FAULT


def test_a_packet_above_the_limit_is_reported_with_its_length() -> None:
    big = encode(Publish("a", b"x" * 500), False)
    for here in (len(big), 10):
        frames = scan(publishes(1) + big[:here], 0, False, 400)
        assert (len(frames), frames.stop, frames.need) == (1, Stop.OVERSIZED, len(big))


def test_topics_in_chinese_are_taken() -> None:
    assert scan(encode(Publish("成都/雨量/1"), False), 0, False).topics == ["成都/雨量/1".encode()]
