"""What a reading costs in each format: bytes of messages to columns, through codec and binding, as the engine does it.

Beside each stands its library alone on the same bytes. ``extra_info``: readings, readings a second and core (CPU time,
best of the rounds), and how many times the library's time that is.
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

from ingest.codecs.binding import point_id_of
from ingest.codecs.sparkplug_pb2 import Payload
from ingest.config import Config
from ingest.decode.messages import Chunk, Messages
from ingest.routes import Routes
from ingest.simulate.encoders.base import Sent, encoder_class
from ingest.sourcesettings import SourceSettings
from tests.tables import point_table

ZONE = ZoneInfo("Asia/Shanghai")
NOW_US = time.time_ns() // 60_000_000_000 * 60_000_000
DEVICES = 10
QUANTITIES = 50
REPORTS = 10
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


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_reports_of_fifty_quantities(benchmark: Any, name: str) -> None:
    """Ten devices send ten reports of fifty quantities each."""
    body, library = LIBRARIES[name]
    settings = SourceSettings.model_validate({"name": "field", "codec": name, "topics": ["up"], **body})
    speaker = encoder_class(name)
    assert speaker is not None
    encoder = speaker(settings, ZONE)
    devices = [f"d{n}" for n in range(DEVICES)]
    quantities = [f"q{n}" for n in range(QUANTITIES)]
    messages = [
        message
        for report in range(REPORTS)
        for device in devices
        for message in encoder.messages(
            [
                Sent(
                    device,
                    quantity,
                    NOW_US - (REPORTS - report) * 60_000_000,
                    12.34 + number + report,
                    encoder.FLAG,
                )
                for number, quantity in enumerate(quantities)
            ]
        )
    ]
    points = point_table(DEVICES * QUANTITIES, source="field")
    points.point_id = [point_id_of("", "field", d, q) for d in devices for q in quantities]
    routes = Routes(points, Config(source=[settings]))
    decoder = Messages(routes, 1000)
    decoder.set_window(NOW_US)
    table = routes.table(None, lambda _name, _topic: True)
    payloads = [payload for _, payload in messages]
    chunk = Chunk([topic.encode() for topic, _ in messages], payloads, b"\x32" * len(messages), "bench")

    def turn() -> int:
        decoder.feed(table, chunk, NOW_US)
        batch, refusals = decoder.take(NOW_US)
        assert not refusals
        return len(batch)

    readings = DEVICES * REPORTS * QUANTITIES
    assert turn() == readings
    whole, alone = best(turn), best(lambda: list(map(library, payloads)))
    benchmark.extra_info["readings"] = readings
    benchmark.extra_info["readings_per_core_s"] = round(readings / whole)
    benchmark.extra_info["times_its_library"] = round(whole / alone, 1)
    print(f"{name}: {readings / whole:,.0f} readings/s and core, {whole / alone:.1f} times its library alone")
    assert benchmark.pedantic(turn, rounds=3) == readings
