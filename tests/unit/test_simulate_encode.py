"""Claims about the simulator's bytes: what is decoded from them is what the ledger holds, to the last bit."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.encode import MQTT_5, MQTT_311, Encoder, Form, packet_ids
from ingest.simulate.fleet import Fleet, load_fleet
from ingest.simulate.scenario import Scenario
from ingest.simulate.values import Values
from tests.simulate_ack_server import varint
from tests.simulate_city import write_city


def parse(blob: bytes, version: int) -> list[tuple[str, bytes, int, int]]:
    """(topic, payload, qos, packet id) of each PUBLISH, by a reader written apart from the encoder."""
    found = []
    at = 0
    while at < len(blob):
        assert blob[at] >> 4 == 3
        qos = blob[at] >> 1 & 3
        head = varint(blob, at + 1)
        assert head is not None
        length, begin = head
        body = blob[begin : begin + length]
        assert len(body) == length
        at = begin + length
        size = int.from_bytes(body[:2], "big")
        cut = 2 + size
        packet_id = 0
        if qos:
            packet_id = int.from_bytes(body[cut : cut + 2], "big")
            cut += 2
        if version == MQTT_5:
            assert body[cut] == 0
            cut += 1
        found.append((body[2 : 2 + size].decode(), body[cut:], qos, packet_id))
    return found


def ordered(tmp_path: Path) -> tuple[Fleet, Values]:
    points_file, city = write_city(tmp_path)
    fleet = load_fleet(points_file)
    fleet = fleet.take(np.argsort(fleet.gateway, kind="stable"))
    scenario = Scenario("storm", 3, 60.0)
    kinds = load_kinds(city)
    widths = Values(fleet, kinds, scenario, fleet.box())
    encoder = encoder_of(fleet, widths, Form())
    fleet = fleet.take(encoder.order)
    return fleet, Values(fleet, kinds, scenario, fleet.box())


def encoder_of(fleet: Fleet, values: Values, form: Form) -> Encoder:
    versions = [MQTT_311 if g % 2 else MQTT_5 for g in range(len(fleet.gateways))]
    return Encoder(
        fleet.point_id,
        fleet.topic,
        fleet.gateway,
        values.whole_width,
        values.decimals,
        fleet.gateways,
        versions,
        form,
    )


def of_one_point(decimals: int) -> Encoder:
    """Four characters before the point, QoS 0."""
    whole = np.full(1, 4, np.uint8)
    return Encoder(
        ["p"], ["t"], np.zeros(1, np.int32), whole, np.full(1, decimals, np.uint8), ["g"], [4], Form(0)
    )


@pytest.mark.parametrize("qos", [0, 1])
def test_each_reading_is_one_message_whose_number_is_the_ledgers_number(tmp_path: Path, qos: int) -> None:
    fleet, values = ordered(tmp_path)
    encoder = encoder_of(fleet, values, Form(qos))
    assert encoder.order.tolist() == list(range(len(fleet)))
    for step in range(0, 60, 7):
        quantised = values.quantised(step)
        said = values.floats(quantised)
        blobs = encoder.encode(1_763_876_543_210 + step, quantised, [65_530] * len(fleet.gateways))
        for g, blob in enumerate(blobs):
            rows = range(int(encoder.starts[g]), int(encoder.starts[g + 1]))
            messages = parse(blob, MQTT_311 if g % 2 else MQTT_5)
            assert [m[0] for m in messages] == [fleet.topic[r] for r in rows]
            assert [json.loads(m[1]) for m in messages] == [
                {"ts": 1_763_876_543_210 + step, "v": said[r]} for r in rows
            ]
            assert {m[2] for m in messages} == {qos}
            assert [m[3] for m in messages] == (
                packet_ids(65_530, len(rows)).tolist() if qos else [0] * len(rows)
            )


@pytest.mark.parametrize("batch", [1, 4, 12, 100])
def test_arrays_hold_every_reading_once_under_its_id(tmp_path: Path, batch: int) -> None:
    points_file, city = write_city(tmp_path)
    fleet = load_fleet(points_file)
    fleet = fleet.take(np.argsort(fleet.gateway, kind="stable"))
    kinds = load_kinds(city)
    scenario = Scenario("steady", 3, 60.0)
    encoder = encoder_of(fleet, Values(fleet, kinds, scenario, fleet.box()), Form(1, batch))
    fleet = fleet.take(encoder.order)
    values = Values(fleet, kinds, scenario, fleet.box())
    quantised = values.quantised(5)
    said = values.floats(quantised)
    blobs = encoder.encode(1_763_876_543_210, quantised, [1] * len(fleet.gateways))
    for g, blob in enumerate(blobs):
        rows = list(range(int(encoder.starts[g]), int(encoder.starts[g + 1])))
        messages = parse(blob, MQTT_311 if g % 2 else MQTT_5)
        assert len(messages) == encoder.messages(g) == -(-len(rows) // batch)
        assert {m[0] for m in messages} == {f"cd/{fleet.gateways[g]}/batch"}
        assert [m[3] for m in messages] == list(range(1, len(messages) + 1))
        elements = [element for m in messages for element in json.loads(m[1])]
        assert elements == [{"id": fleet.point_id[r], "ts": 1_763_876_543_210, "v": said[r]} for r in rows]


def test_messages_begin_where_the_offsets_say(tmp_path: Path) -> None:
    fleet, values = ordered(tmp_path)
    encoder = encoder_of(fleet, values, Form())
    blobs = encoder.encode(1, values.quantised(0), [1] * len(fleet.gateways))
    for g, blob in enumerate(blobs):
        cut = [blob[a:b] for a, b in zip(encoder.offsets[g][:-1], encoder.offsets[g][1:], strict=True)]
        assert b"".join(cut) == blob
        assert all(len(parse(one, MQTT_311 if g % 2 else MQTT_5)) == 1 for one in cut)


@pytest.mark.parametrize(
    ("decimals", "quantised", "text"),
    [
        (0, 7, b"   7"),
        (0, -7, b"  -7"),
        (2, -5, b"  -0.05"),
        (2, 0, b"   0.00"),
        (1, 99_999, b"9999.9"),
        (3, -999_999, b"-999.999"),
    ],
)
def test_a_number_keeps_its_width_whatever_it_is(decimals: int, quantised: int, text: bytes) -> None:
    encoder = of_one_point(decimals)
    blob = encoder.encode(1, np.array([quantised]), [1])[0]
    assert blob.endswith(b'"v":' + text + b"}")
    assert json.loads(text) == quantised / 10**decimals


@pytest.mark.parametrize("quantised", [10_000, -1_000, -9_999])
def test_a_number_without_room_is_an_error_and_never_another_number(quantised: int) -> None:
    encoder = of_one_point(0)
    with pytest.raises(ValueError, match=r"room|digits"):
        encoder.encode(1, np.array([quantised]), [1])


def test_packet_ids_go_round_without_zero() -> None:
    ids = packet_ids(65_000, 2_000)
    assert 0 not in ids.tolist()
    counted: dict[int, int] = defaultdict(int)
    for packet_id in ids.tolist():
        counted[packet_id] += 1
    assert set(counted.values()) == {1}
