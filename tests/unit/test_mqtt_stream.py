"""Any split of a stream gives the same messages and packets; what is too large is streamed over."""

from __future__ import annotations

import pytest

from ingest.mqtt.codec import PINGREQ, decode, encode
from ingest.mqtt.packets import Connack, Connect, Packet, Publish
from ingest.mqtt.stream import CONTROL_BYTES_MAX, OVERSIZED_PAYLOAD_BYTES, PacketStream
from tests.mqtt_tools import every_split, packets_5, packets_311, publishes


class Listening:
    """A stream that notes every packet it was given in order, messages by their payload."""

    def __init__(self, v5: bool, bytes_max: int = 1 << 20) -> None:
        self.seen: list[Packet | bytes] = []
        self.stream = PacketStream(lambda head, body: self.seen.append(decode(head, body, v5)), bytes_max)
        self.stream.v5, self.stream.publishing = v5, True

    def feed(self, chunk: bytes) -> list[int]:
        frames = self.stream.feed(chunk)
        self.seen += frames.payloads
        return frames.oversized


def whole(v5: bool) -> tuple[bytes, list[Packet]]:
    packets = [
        one for one in (packets_5() if v5 else packets_311()) if not isinstance(one, Connect | Connack)
    ]
    return b"".join(encode(one, v5) for one in packets), packets


def split_kinds(seen: list[Packet | bytes]) -> tuple[list[bytes], list[Packet]]:
    """Messages and other packets: one feed hands on its messages at once, so only each order is kept."""
    return [one for one in seen if isinstance(one, bytes)], [
        one for one in seen if not isinstance(one, bytes)
    ]


@pytest.mark.parametrize("v5", [False, True])
def test_every_packet_of_a_version_split_at_every_byte(v5: bool) -> None:
    stream, packets = whole(v5)
    payloads = [one.payload for one in packets if isinstance(one, Publish)]
    others = [one for one in packets if not isinstance(one, Publish)]
    for first, second in every_split(stream):
        listening = Listening(v5)
        listening.feed(first)
        listening.feed(second)
        assert split_kinds(listening.seen) == (payloads, others)
        assert listening.stream.held_bytes == 0


@pytest.mark.parametrize("v5", [False, True])
def test_every_packet_of_a_version_byte_by_byte_stands_in_its_order(v5: bool) -> None:
    stream, packets = whole(v5)
    listening = Listening(v5)
    for at in range(len(stream)):
        listening.feed(stream[at : at + 1])
    assert listening.seen == [one.payload if isinstance(one, Publish) else one for one in packets]


@pytest.mark.parametrize("v5", [False, True])
def test_trailing_bytes_wait_for_their_packet(v5: bool) -> None:
    stream, packets = whole(v5)
    for trailing in range(1, len(PINGREQ)):
        listening = Listening(v5)
        listening.feed(stream + PINGREQ[:trailing])
        assert len(listening.seen) == len(packets)
        assert listening.stream.held_bytes == trailing
        listening.feed(PINGREQ[trailing:])
        assert len(listening.seen) == len(packets) + 1


def test_good_messages_before_a_malformed_packet_are_handed_on_whatever_the_split() -> None:
    stream = publishes(3) + b"\x36\x05\x00\x01a\x00\x01" + publishes(2, start=4)
    for first, second in every_split(stream):
        listening = Listening(False)
        listening.feed(first)
        listening.feed(second)
        assert listening.seen == [b"1", b"2", b"3"]
        assert listening.stream.fault is not None
        listening.feed(publishes(1))
        assert len(listening.seen) == 3


@pytest.mark.parametrize("size", [401, 5_000, 300_000])
def test_an_oversized_message_is_skipped_in_its_place_and_its_beginning_kept(size: int) -> None:
    big = encode(Publish("cd/big", b"y" * size, 1, pid=7), False)
    stream = publishes(2) + big + publishes(1, start=8)
    for step in (len(stream), 1000, 97):
        listening = Listening(False, 400)
        pids, oversized = [], 0
        for at in range(0, len(stream), step):
            frames = listening.stream.feed(stream[at : at + step])
            listening.seen += frames.payloads
            pids += frames.pids
            for index in frames.oversized:
                oversized += 1
                assert frames.topics[index] == b"cd/big"
        assert listening.seen == [b"1", b"2", b"y" * min(size, OVERSIZED_PAYLOAD_BYTES), b"8"]
        assert [int.from_bytes(pid, "big") for pid in pids] == [1, 2, 7, 8]
        assert oversized == 1
        assert listening.stream.fault is None


@pytest.mark.parametrize("size", [401, 300_000])
def test_an_oversized_message_of_an_mqtt_5_publisher_is_handed_on_and_ends_the_connection(size: int) -> None:
    stream = (
        publishes(2, v5=True) + encode(Publish("cd/big", b"y" * size, 1, pid=7), True) + publishes(1, v5=True)
    )
    listening = Listening(True, 400)
    listening.stream.oversized_fault = True
    oversized = listening.feed(stream)
    assert oversized == [2]
    assert listening.seen == [b"1", b"2", b"y" * min(size, OVERSIZED_PAYLOAD_BYTES)]
    assert listening.stream.fault is not None
    assert listening.stream.fault.reason_code == 0x95


def test_a_malformed_oversized_message_is_a_fault_not_a_message() -> None:
    listening = Listening(False, 400)
    listening.feed(encode(Publish("cd", b"y" * 999, 1, pid=7), False).replace(b"cd", b"c#"))
    assert listening.seen == []
    assert listening.stream.fault is not None


def test_a_large_message_in_small_pieces_is_scanned_when_it_is_whole_not_at_each_piece() -> None:
    listening = Listening(False)
    big = encode(Publish("cd", b"y" * 100_000), False)
    listening.feed(big[:10])
    joins = 0
    for at in range(10, len(big), 100):
        before = listening.stream._rest
        listening.feed(big[at : at + 100])
        joins += listening.stream._rest is not before or not listening.stream._rest
    assert listening.seen == [b"y" * 100_000]
    assert joins == 1


def test_control_packets_have_a_limit_of_their_own() -> None:
    listening = Listening(False, 1 << 28)
    listening.feed(b"\x10\xff\xff\xff\x7f")
    assert listening.stream.fault is not None
    assert CONTROL_BYTES_MAX < 1 << 20
    assert listening.stream.held_bytes == 0


def test_while_halted_bytes_wait() -> None:
    listening = Listening(False)
    listening.stream.halted = True
    listening.feed(publishes(2))
    assert listening.seen == []
    listening.stream.halted = False
    listening.feed(b"")
    assert listening.seen == [b"1", b"2"]
