"""What a reading costs in each format: bytes of messages to columns, through codec and binding, as the engine does it.

Readings a second and core are the count in a benchmark's ``extra_info`` over its time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from ingest.codecs.binding import point_id_of
from ingest.config import Config
from ingest.decode.messages import Messages
from ingest.routes import Routes
from ingest.simulate.encoders.base import Sent, encoder_class
from ingest.sourcesettings import SourceSettings
from tests.tables import point_table

ZONE = ZoneInfo("Asia/Shanghai")
NOW_US = time.time_ns() // 60_000_000_000 * 60_000_000
DEVICES = 20
REPORTS = 10


def test_hj212_air_stations_in_real_time(benchmark: Any) -> None:
    """Ten factors, each with its flag: a frame of 430 bytes."""
    _frames_to_columns(benchmark, "hj212", [f"a{n:05d}-Rtd" for n in range(10)])


def test_hj212_stacks_by_the_minute(benchmark: Any) -> None:
    """Six factors, each with least, mean, greatest, amount and flag: 24 readings in 650 bytes."""
    names = [f"a{n:05d}-{suffix}-minute" for n in range(6) for suffix in ("Min", "Avg", "Max", "Cou")]
    _frames_to_columns(benchmark, "hj212", names)


def test_sl651_timed_reports(benchmark: Any) -> None:
    """Level, rain, rain of the period, voltage: four readings in 60 bytes."""
    _frames_to_columns(benchmark, "sl651", ["39", "26", "20", "38"])


def _frames_to_columns(benchmark: Any, codec: str, quantities: Sequence[str]) -> None:
    """``REPORTS`` reports of each device, every quantity in each, framed and unframed as its port would do it."""
    devices = [f"{5_101_000_000 + n}" for n in range(DEVICES)]
    settings = SourceSettings.model_validate({"name": "field", "codec": codec, "time_zone": "Asia/Shanghai"})
    speaker = encoder_class(codec)
    assert speaker is not None
    encoder = speaker(settings, ZONE)
    frames = [
        frame
        for report in range(REPORTS)
        for device in devices
        for _, frame in encoder.messages(
            [
                Sent(device, quantity, NOW_US - report * 60_000_000, 12.34 + number + report, encoder.FLAG)
                for number, quantity in enumerate(quantities)
            ]
        )
    ]
    points = point_table(DEVICES * len(quantities), source="field")
    points.point_id = [
        point_id_of("", "field", device, quantity) for device in devices for quantity in quantities
    ]
    routes = Routes(points, Config(source=[settings]))
    decoder = Messages(routes, 1000)
    decoder.set_window(NOW_US)
    route = routes.of_source("field")

    def turn() -> int:
        decoder.feed_frames(route, frames, "bench", NOW_US)
        batch, refusals = decoder.take(NOW_US)
        assert not refusals
        return len(batch)

    readings = DEVICES * REPORTS * len(quantities)
    assert benchmark(turn) == readings
    benchmark.extra_info["readings"] = readings
