"""What a reading costs in each format: bytes as MQTT brings them to columns, as the engine does it.

That is: scan of the frames, then the kernel where the format has one, else topic, codec and binding. Beside each stands
its library alone on the same payloads. ``extra_info``: readings, readings a second and core (CPU time, best of the
rounds), and how many times the library's time that is. ``python -m pytest bench/test_bench_formats.py -s`` prints them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import cbor2
import msgpack
import orjson
import pytest
from line_protocol_parser import parse_line

from bench.polls import turn_of
from ingest.codecs.binding import point_id_of
from ingest.codecs.sparkplug_pb2 import Payload
from ingest.config import Config
from ingest.decode.messages import Messages
from ingest.routes import Routes
from ingest.simulate.encoders.base import Sent, encoder_class
from ingest.sourcesettings import SourceSettings
from tests.tables import point_table

ZONE = ZoneInfo("Asia/Shanghai")
NOW_US = time.time_ns() // 60_000_000_000 * 60_000_000
DEVICES = 10
READINGS = 5_000
EACH = (50, 24, 10)
"""Readings a message."""
QUANTITIES = max(EACH)
ROUNDS = 15

LINES = {"device": "{tag:station}"}
MAPPED = {
    "device": "id",
    "time": "ts",
    "value": "m.*",
    "quantities": {f"q{n}": {} for n in range(QUANTITIES)},
}
LIBRARIES: dict[str, tuple[dict[str, Any], Callable[[bytes], object]]] = {
    "senml": ({}, orjson.loads),
    "senml-cbor": ({}, cbor2.loads),
    "csv": (
        {"device": "station", "time": "at"},
        lambda raw: [line.split(",") for line in raw.decode().split("\n")],
    ),
    "influx": ({"influx": LINES}, lambda raw: list(map(parse_line, raw.decode().split("\n")))),
    "msgpack": (MAPPED, msgpack.unpackb),
    "json": (MAPPED, orjson.loads),
    "sparkplug": ({"topics": ["spBv1.0/plant/#"], "sparkplug": {"device": "{device}"}}, Payload.FromString),
}


def best(of: Callable[[], object]) -> float:
    """CPU seconds of the quickest of ``ROUNDS``: others who use the machine only make it slower."""
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        of()
        took.append(time.process_time() - began)
    return min(took)


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_reports_of_some_quantities(benchmark: Any, name: str, each: int) -> None:
    """Ten devices report some quantities of one moment each, again and again."""
    body, library = LIBRARIES[name]
    settings = SourceSettings.model_validate({"name": "field", "codec": name, "topics": ["up"], **body})
    speaker = encoder_class(name)
    assert speaker is not None
    encoder = speaker(settings, ZONE)
    devices = [f"d{n}" for n in range(DEVICES)]
    quantities = [f"q{n}" for n in range(each)]
    reports = READINGS // DEVICES // each
    messages = [
        message
        for report in range(reports)
        for device in devices
        for message in encoder.messages(
            [
                Sent(
                    device,
                    quantity,
                    NOW_US - (reports - report) * 60_000_000,
                    12.34 + number + report,
                    encoder.FLAG,
                )
                for number, quantity in enumerate(quantities)
            ]
        )
    ]
    points = point_table(DEVICES * each, source="field")
    points.point_id = [point_id_of("", "field", d, q) for d in devices for q in quantities]
    routes = Routes(points, Config(source=[settings]))
    decoder = Messages(routes, 1000)
    decoder.set_window(NOW_US)
    turn = turn_of(decoder, routes, messages, NOW_US)
    payloads = [payload for _, payload in messages]
    readings = DEVICES * reports * each
    assert len(turn()) == readings
    whole, alone = best(turn), best(lambda: list(map(library, payloads)))
    benchmark.extra_info["readings"] = readings
    benchmark.extra_info["readings_per_core_s"] = round(readings / whole)
    benchmark.extra_info["times_its_library"] = round(whole / alone, 2)
    print(
        f"\n{name}, {readings / len(messages):.0f} a message: {readings / whole:,.0f} readings/s and core,"
        f" {whole / len(messages) * 1e6:.1f} us a message, {whole / alone:.2f} times its library alone"
    )
    assert len(benchmark.pedantic(turn, rounds=3)) == readings
