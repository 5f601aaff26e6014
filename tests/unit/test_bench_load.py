"""Claims about the load generator: its bytes are MQTT to three readers, and what it counts is what it sent."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import mqtt5
import numpy as np
import paho.mqtt.client as paho
import pytest

from bench.case import CASES, CaseFault, all_cases, load_cases
from bench.family import Family
from bench.lake_count import expected
from bench.load.kernels import fly, in_flight_ahead, land, write_iso
from bench.load.plan import LoadPlan, LoadReport
from bench.load.streams import FORMS, Shape, Stream, by_gateway, compose, wordings
from ingest.mqtt.codec import PINGRESP, decode
from ingest.mqtt.packets import Publish
from ingest.simulate.child import Child, listen
from ingest.simulate.encode import MQTT_5, MQTT_311
from ingest.simulate.fleet import Fleet, load_fleet
from tests.simulate_ack_server import AckServer, varint
from tests.simulate_city import write_city

NOW_MS = 1_784_512_799_123
"""A moment whose Chengdu date is not its UTC date's."""
Readings = dict[str, list[tuple[int, float]]]


def fleet_of(folder: Path) -> tuple[Fleet, Path]:
    points, city = write_city(folder)
    fleet = load_fleet(points)
    return fleet.take(by_gateway(fleet)), city


def read_payload(topic: str, payload: bytes, into: Readings) -> None:
    body: Any = json.loads(payload)
    for reading in body if isinstance(body, list) else [body]:
        ms = reading["ts"]
        if isinstance(ms, str):
            assert ms.endswith("+08:00")
            ms = round(datetime.fromisoformat(ms).timestamp() * 1000)
        into[reading.get("id", topic.rpartition("/")[2])].append((ms, reading["v"]))


def by_engine(blob: bytes, v5: bool) -> tuple[Readings, list[int]]:
    found: Readings = defaultdict(list)
    ids = []
    at = 0
    while at < len(blob):
        size, begin = varint(blob, at + 1) or (0, 0)
        packet = decode(blob[at], blob[begin : begin + size], v5)
        assert isinstance(packet, Publish)
        read_payload(packet.topic, packet.payload, found)
        ids.append(packet.pid)
        at = begin + size
    return found, ids


def by_mqtt5(blob: bytes) -> tuple[Readings, list[int]]:
    """The independent codec reads MQTT 5 only."""
    found: Readings = defaultdict(list)
    ids = []
    at = 0
    while at < len(blob):
        packet, size = mqtt5.read(blob[at:])
        assert isinstance(packet, mqtt5.PublishPacket)
        read_payload(packet.topic, packet.payload, found)
        ids.append(packet.packet_id or 0)
        at += size
    return found, ids


class Wire:
    """What paho reads from in place of a socket."""

    def __init__(self, blob: bytes) -> None:
        self._blob = io.BytesIO(blob)

    def recv(self, n: int) -> bytes:
        return self._blob.read(n)

    def close(self) -> None:
        pass


def by_paho(blob: bytes, v5: bool) -> Readings:
    """paho-mqtt's own handler of PUBLISH, fed packet by packet until the blob ends."""
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5 if v5 else paho.MQTTv311, manual_ack=True
    )
    found: Readings = defaultdict(list)
    client.on_message = lambda _c, _u, message: read_payload(message.topic, message.payload, found)
    client._sock = Wire(blob)  # type: ignore[assignment]
    while client._packet_read() == paho.MQTT_ERR_SUCCESS:
        pass
    return found


def counted(stream: Stream, fleet: Fleet, folder: Path) -> dict[str, list[float]]:
    stream.save(folder / "counts.npz")
    return expected([(folder / "counts.npz", fleet)])


@pytest.mark.parametrize("form", [*FORMS, "mix"])
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("batch", [1, 5])
def test_three_readers_find_in_the_bytes_what_was_counted(
    tmp_path: Path, form: Any, qos: int, batch: int
) -> None:
    fleet, city = fleet_of(tmp_path)
    stream = compose(
        fleet, wordings(fleet, city), Shape(qos, batch, form), [MQTT_311, MQTT_5, MQTT_5], NOW_MS
    )
    sent: list[tuple[bytes, bool]] = []
    next_id = 65_530
    for now_ms in (NOW_MS, NOW_MS + 1_000, NOW_MS + 1_000):
        for connection, v5 in enumerate((False, True, True)):
            begin, end = stream.borders[connection : connection + 2].tolist()
            first, last, after = stream.stamp(begin, end, now_ms, next_id)
            blob = stream.wire[first:last].tobytes()
            readings, ids = by_engine(blob, v5)
            if qos:
                assert ids == [(next_id - 1 + n) % 65_535 + 1 for n in range(end - begin)]
            assert by_paho(blob, v5) == readings
            if v5:
                assert by_mqtt5(blob) == (readings, ids)
            sent.append((blob, v5))
            next_id = after
    found: Readings = defaultdict(list)
    for blob, v5 in sent:
        for point, more in by_engine(blob, v5)[0].items():
            found[point] += more
    assert sorted(found) == sorted(fleet.point_id)
    for point, (count, ms, value) in counted(stream, fleet, tmp_path).items():
        times = [t for t, _ in found[point]]
        assert times == [NOW_MS, NOW_MS + 1_000, NOW_MS + 1_001], "a point never says the same moment twice"
        assert (len(times), sum(times)) == (count, ms)
        assert sum(v for _, v in found[point]) == pytest.approx(value, abs=1e-6)
    assert len({v for more in found.values() for _, v in more}) > 10, "values move"


def test_iso_times_over_leap_days_and_years() -> None:
    text = np.frombuffer(b"0000-00-00T00:00:00.000", np.uint8).copy()
    for said in (
        "2024-02-29T23:59:59.999",
        "2025-12-31T00:00:00.001",
        "2000-03-01T12:34:56.789",
        "2100-02-28T01:02:03.004",
    ):
        ms = round(datetime.fromisoformat(said + "+00:00").timestamp() * 1000)
        write_iso(text, 0, ms)
        assert text.tobytes().decode() == said


def test_acknowledgements_split_anywhere_refused_and_strange() -> None:
    heard = (
        b"\x40\x02\x00\x01"
        + PINGRESP
        + b"\x40\x03\x00\x02\x87"
        + b"\x40\x04\x00\x03\x00\x00"
        + b"\x40\x02\x00\x09"
    )
    for cut in range(len(heard) + 1):
        flying = np.zeros(8192, np.uint8)
        fly(flying, 1, 4)
        taken, *first = land(flying, np.frombuffer(heard[:cut] + b"\xff" * 9, np.uint8), cut)
        rest = heard[taken:]
        done, *second = land(flying, np.frombuffer(rest, np.uint8), len(rest))
        assert done == len(rest)
        assert [a + b for a, b in zip(first, second, strict=True)] == [3, 1, 1, 0]
        assert in_flight_ahead(flying, 1, 10) == 3, "4 was never acknowledged"


def test_a_packet_id_is_not_used_again_while_in_flight() -> None:
    flying = np.zeros(8192, np.uint8)
    fly(flying, 65_534, 3)
    assert in_flight_ahead(flying, 65_530, 10) == 4
    assert in_flight_ahead(flying, 2, 10) == 10
    assert (
        land(flying, np.frombuffer(b"\x40\x02\xff\xff\x40\x02\x00\x01\x40\x02\xff\xfe", np.uint8), 12)[1] == 3
    )
    assert not flying.any()


@pytest.mark.parametrize(
    ("changes", "window"), [({"qos": 1, "rounds_max": 40}, None), ({"qos": 1, "rounds_max": 5, "batch": 3}, 2),
                            ({"qos": 0, "rate": 2_000.0, "seconds": 0.5}, None)],
)  # fmt: skip
def test_the_process_counts_what_a_server_saw(
    tmp_path: Path, changes: dict[str, Any], window: int | None
) -> None:
    fleet, city = fleet_of(tmp_path)
    with AckServer(receive_maximum=window) as server:
        plan = LoadPlan(
            "127.0.0.1", server.port, str(tmp_path / "points.csv"), str(city), connections=4,
            inflight_max=window or 65_535, counts_file=str(tmp_path / "load.npz"),
            **{"seconds": 30.0} | changes,
        )  # fmt: skip
        with Child("bench.load.generator", plan.to_json()) as child:
            child.until_ready(60)
            child.tell("go")
            listen([child], lambda: child.report is not None, 60)
            assert child.report is not None
            report = LoadReport(**child.report)
        seen = list(server.seen)
    assert not report.faults
    found: Readings = defaultdict(list)
    for publish in seen:
        read_payload(publish.topic, publish.payload, found)
    assert report.messages == len(seen) > 0
    assert report.sent == sum(map(len, found.values()))
    assert report.acked == (report.sent if plan.qos else 0)
    wanted = expected([(tmp_path / "load.npz", load_fleet(tmp_path / "points.csv"))])
    for point, (count, ms, _) in wanted.items():
        assert (count, ms) == (len(found[point]), sum(t for t, _ in found[point])), point
    assert {p.version for p in seen} == {4, 5}
    if plan.rounds_max:
        assert report.sent == plan.rounds_max * len(fleet)


def test_every_case_file_is_right_and_wrong_ones_say_why(tmp_path: Path) -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases) >= 15
    assert {(c.qos, c.batch, c.through) for c in cases} >= {
        (q, b, t) for q in (0, 1) for b in (1, 100) for t in ("listener", "mosquitto")
    }
    assert [c.points for c in cases if c.sweep == "points"] == [1_000, 10_000, 116_200, 1_000_000]
    for text, why in (
        ('title = "x"\nrat = 5', "rat"), ("qos = 1", "title"), ('title = "x"\nthrough = "fog"', "listener, mosquitto"),
        ('title = "x"\n[sweep]\nqos = [0]', "sweep"), ('title = "x"\n[target]\ncpu_us = 1', "_min or _max"),
        ("a =", "a.toml"),
    ):  # fmt: skip
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(CaseFault, match=why):
            load_cases(tmp_path / "a.toml")
    assert CASES.is_dir()


def test_a_family_is_a_process_and_what_it_started(tmp_path: Path) -> None:
    with Child("bench.load.sink", "") as child:
        child.until_ready(30)
        mine = Family(child.pid)
        mine.sample()
        assert [m.name for m in mine.members()] == ["sink"]
        assert mine.peak_pss_mb > 1
        assert mine.cpu_s() > 0
        child.finish(30)
