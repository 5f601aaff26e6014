"""Acknowledgements are in receive order, of the right kind, and carry refusals where they can be told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mqtt5
import pytest

from ingest.frames import scan
from ingest.mqtt.codec import encode, frame_at
from ingest.mqtt.packets import Publish
from ingest.mqtt.receipts import REASON_BYTES_MAX, Received, build_receipt
from tests.mqtt_tools import ack_packets, publishes


def received(stream: bytes, *, v5: bool = False, from_publisher: bool = True, **peer: Any) -> Received:
    facts: dict[str, Any] = {"wants_reasons": True, "peer_packet_bytes_max": 1 << 28} | peer
    conn: Any = SimpleNamespace(v5=v5, from_publisher=from_publisher, **facts)
    frames = scan(stream, 0, v5)
    assert frames.fault is None
    return Received(conn, 5, frames.topics, frames.payloads, frames.heads, frames.pids, 0, len(stream))


def read_all(acks: bytes) -> list[Any]:
    found = []
    while acks:
        packet, size = mqtt5.read(acks)
        found.append(packet)
        acks = acks[size:]
    return found


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize(("qos", "head"), [(1, 0x40), (2, 0x50)])
def test_a_run_of_one_qos_is_acknowledged_in_order(v5: bool, qos: int, head: int) -> None:
    receipt = build_receipt(received(publishes(1000, qos=qos, v5=v5), v5=v5))
    assert ack_packets(receipt.acks) == [(head, pid) for pid in range(1, 1001)]
    assert (receipt.epoch, receipt.messages) == (5, 1000)


def test_mixed_qos_is_acknowledged_in_order_and_qos_0_not_at_all() -> None:
    stream = b"".join(
        encode(Publish("a", b"", qos, dup=bool(qos and pid % 2), pid=pid), False)
        for pid, qos in enumerate([1, 0, 2, 1, 2, 0], 1)
    )
    receipt = build_receipt(received(stream))
    assert ack_packets(receipt.acks) == [(0x40, 1), (0x50, 3), (0x40, 4), (0x50, 5)]
    assert receipt.messages == 4


def test_qos_0_alone_and_a_will_have_an_empty_receipt() -> None:
    assert build_receipt(received(publishes(9, qos=0))).acks == b""
    will = Received(
        SimpleNamespace(v5=True, from_publisher=True), 0, [b"t"], [b""], bytearray([0x32]), [b""], 0
    )  # type: ignore[arg-type]
    assert (build_receipt(will).acks, build_receipt(will).messages) == (b"", 0)


def test_mqtt_5_refusals_stand_in_their_place_with_their_reason() -> None:
    stream = publishes(3, v5=True) + publishes(1, v5=True, qos=2, start=4)
    receipt = build_receipt(received(stream, v5=True), {1: 0x87, 3: 0x97}, {1: "not yours"})
    first, second, third, fourth = read_all(receipt.acks)
    assert [one.packet_id for one in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert (second.reason_code, second.reason_str) == (0x87, "not yours")
    assert isinstance(fourth, mqtt5.PubRecPacket)
    assert fourth.reason_code == 0x97
    assert first.reason_code == third.reason_code == 0
    assert receipt.messages == 4


def test_a_reason_is_cut_to_100_bytes_between_letters() -> None:
    receipt = build_receipt(received(publishes(1, v5=True), v5=True), {0: 0x83}, {0: "值" * 99})
    (ack,) = read_all(receipt.acks)
    assert ack.reason_str == "值" * (REASON_BYTES_MAX // 3)


@pytest.mark.parametrize(
    "peer",
    [{"wants_reasons": False}, {"peer_packet_bytes_max": 20}],
    ids=["does not ask", "takes no such packet"],
)
def test_words_are_left_out_for_who_does_not_want_or_take_them(peer: dict[str, Any]) -> None:
    receipt = build_receipt(
        received(publishes(1, v5=True), v5=True, **peer), {0: 0x83}, {0: "a reason in words"}
    )
    (ack,) = read_all(receipt.acks)
    assert (ack.reason_code, ack.reason_str) == (0x83, None)


@pytest.mark.parametrize(
    "peer", [{"v5": False}, {"v5": True, "from_publisher": False}], ids=["3.1.1", "a broker"]
)
def test_who_cannot_be_told_gets_a_plain_acknowledgement(peer: dict[str, Any]) -> None:
    stream = publishes(2, v5=peer["v5"])
    assert ack_packets(build_receipt(received(stream, **peer), {0: 0x87}).acks) == [(0x40, 1), (0x40, 2)]


def test_every_acknowledgement_is_one_whole_packet() -> None:
    acks = build_receipt(received(publishes(3, v5=True), v5=True), {0: 0x87}, {0: "x"}).acks
    at = packets = 0
    while at < len(acks):
        _, at = frame_at(acks, at)
        packets += 1
    assert packets == 3
