"""A few gateways and points for tests of the simulator: a registry file and a city folder, written small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

KINDS = """
[kind.rain]
base = 0.0
spread = 0.0
noise = 0.0
daily = 0.0
daily_peak_h = 0.0
decimals = 1
low = 0.0
high = 0.0
storm = "rain_1h"
peak = 90.0

[kind.water]
base = 0.0
spread = 0.0
noise = 0.05
daily = 0.0
daily_peak_h = 0.0
decimals = 1
low = 0.0
high = 2.0
storm = "waterlogging"
peak = 55.0

[kind.river]
base = 0.0
spread = 0.2
noise = 0.01
daily = 0.02
daily_peak_h = 6.0
decimals = 2
low = 350.0
high = 800.0
storm = "level"
peak = 4.0
below_level = 1.8

[kind.frost]
base = -18.0
spread = 2.0
noise = 0.5
daily = 0.5
daily_peak_h = 15.0
decimals = 3
low = -30.0
high = 5.0

[kind.count]
base = 40.0
spread = 20.0
noise = 4.0
daily = 3.0
daily_peak_h = 8.0
decimals = 0
low = 0.0
high = 120.0
"""
KIND_NAMES = ("rain", "water", "river", "frost", "count")


def write_city(folder: Path, points: int = 60, gateways: int = 5, seed: int = 1) -> tuple[Path, Path]:
    """A registry and a city folder; returns (points file, city folder). Point ids differ in length."""
    rng = np.random.default_rng(seed)
    kind = [KIND_NAMES[i % len(KIND_NAMES)] for i in range(points)]
    gateway = [f"gw{i % gateways:03d}" for i in range(points)]
    point_id = [f"p{'x' * (i % 3)}-{i:04d}" for i in range(points)]
    table = pl.DataFrame(
        {
            "point_id": point_id,
            "kind": kind,
            "gateway_id": gateway,
            "topic": [f"cd/{g}/{p}" for g, p in zip(gateway, point_id, strict=True)],
            "lon": rng.uniform(103.0, 105.0, points),
            "lat": rng.uniform(30.0, 31.0, points),
            "level_blue": [500.0 + i % 7 if k == "river" else None for i, k in enumerate(kind)],
            "range_min": [None] * points,
            "range_max": [120.0 if k == "rain" else None for k in kind],
            "upstream": [
                f"p{'x' * ((i - 5) % 3)}-{i - 5:04d}" if k == "river" and i >= 5 else None
                for i, k in enumerate(kind)
            ],
        },
        schema_overrides={"range_min": pl.Float64, "range_max": pl.Float64, "level_blue": pl.Float64},
    )
    folder.mkdir(parents=True, exist_ok=True)
    points_file = folder / "points.csv"
    table.write_csv(points_file)
    (folder / "sensors.toml").write_text(KINDS)
    return points_file, folder
