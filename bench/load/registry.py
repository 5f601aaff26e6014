"""The registry of a measured city: the demo's points on gateways of exactly 100, and the instruments' own points.

Owns which points exist in a benchmark. Instruments are the pulse's points, each farther from the next than alerts are
grouped over, so that each calls by itself, and one clock, whose reading of the next hour ends this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from ingest.simulate.city import generate

PULSE: Final = "pulse-"
"""Point ids of the pulse begin so."""
CLOCK: Final = "clock-1"
PULSE_KIND: Final = "waterlogging"
PULSE_LEVEL: Final = 10.0
"""Blue level of its points, cm."""
GATEWAY_POINTS: Final = 100
INTERVAL_S: Final = 30.0
APART_DEGREES: Final = 0.1
"""Of the pulse's points: some 10 km."""
SIDE: Final = 40


def bench_registry(city_dir: Path, points: int, pulses: int, seed: int = 1) -> pl.DataFrame:
    """``points`` of the city, ``pulses`` of the pulse and the clock, in the registry's columns."""
    city = generate(city_dir, points, seed, INTERVAL_S).sort("source", maintain_order=True)
    gateway = (
        pl.format("gw{}-{}", pl.col("source").rank("dense"), pl.int_range(pl.len()).over("source") // GATEWAY_POINTS)
    )  # fmt: skip
    city = city.with_columns(gateway_id=gateway)
    city = city.with_columns(
        topic=pl.format("cd/{}/{}", "gateway_id", "point_id"), upstream=pl.lit(None, pl.String)
    )
    return pl.concat([city, _instruments(pulses)], how="diagonal_relaxed").select(city.columns)


def _instruments(pulses: int) -> pl.DataFrame:
    number = pl.Series(range(pulses), dtype=pl.Int64)
    pulse = pl.DataFrame({"n": number}).select(
        point_id=pl.format(PULSE + "{}", "n"),
        name=pl.format("测点 {}", "n"),
        device_id=pl.format(PULSE + "{}", "n"),
        gateway_id=pl.lit("pulse"),
        source=pl.lit("bench-pulse"),
        kind=pl.lit(PULSE_KIND),
        district=pl.lit("bench"),
        lon=80.0 + (pl.col("n") % SIDE) * APART_DEGREES,
        lat=40.0 + (pl.col("n") // SIDE) * APART_DEGREES,
        topic=pl.format("cd/pulse/" + PULSE + "{}", "n"),
        expected_interval_s=pl.lit(INTERVAL_S),
        time_from=pl.lit("device"),
        level_blue=pl.lit(PULSE_LEVEL),
    )
    clock = pulse.head(1).with_columns(
        point_id=pl.lit(CLOCK),
        name=pl.lit("时钟"),
        device_id=pl.lit(CLOCK),
        gateway_id=pl.lit("clock"),
        source=pl.lit("bench-clock"),
        topic=pl.lit("cd/clock/" + CLOCK),
        lon=pl.lit(60.0),
        expected_interval_s=pl.lit(0.0),
        level_blue=pl.lit(None, pl.Float64),
    )
    return pl.concat([pulse, clock])
