"""A small city for tests of the anomaly room: points of any number with limits easy to reason about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anomaly.settings import CheckSettings, KindSettings
from storage.batch import RawBatch
from storage.points import PointTable

S = 1_000_000
T0 = 1_767_225_600 * S
"""2026-01-01T00:00:00Z in µs."""


def point_table(n: int, *, gateways: int = 1, kind: str = "waterlogging", **columns: Any) -> PointTable:
    """``n`` points in turn over ``gateways``; levels 15/25/30/40 cm, gap 2, range 0..200, 1 Hz."""
    level = np.repeat(np.array([[15.0], [25.0], [30.0], [40.0]]), n, axis=1)
    defaults: dict[str, Any] = {
        "point_id": [f"P{i:05}" for i in range(n)],
        "name": [f"{i} 号下穿隧道" for i in range(n)],
        "device_id": [f"D{i}" for i in range(n)],
        "topic": [f"city/P{i:05}" for i in range(n)],
        "unit": ["cm"] * n,
        "gateway": np.arange(n, dtype=np.int32) % gateways,
        "source": np.zeros(n, np.int32),
        "kind": np.zeros(n, np.int32),
        "district": np.zeros(n, np.int32),
        "gateways": [f"G{i:03}" for i in range(gateways)],
        "sources": ["flood"],
        "kinds": [kind],
        "districts": ["金牛区"],
        "lon": np.full(n, 104.05),
        "lat": np.full(n, 30.69),
        "interval_s": np.ones(n),
        "time_from": np.zeros(n, np.uint8),
        "range_min": np.zeros(n),
        "range_max": np.full(n, 200.0),
        "level": level,
        "level_gap": np.full(n, 2.0),
        "falling": np.zeros(n, np.bool_),
        "upstream": np.full(n, -1, np.int32),
        "retired": np.zeros(n, np.bool_),
    }
    return PointTable(**{**defaults, **columns})


def kind_settings(**values: Any) -> KindSettings:
    return KindSettings.model_validate(values)


def check_settings(**values: Any) -> CheckSettings:
    return CheckSettings.model_validate(values)


def raw_batch(rows: Sequence[tuple[int, int, float]], *, received: Sequence[int] | None = None) -> RawBatch:
    """Rows of (point, time µs, value); received when measured unless said."""
    point = np.array([r[0] for r in rows], np.int32)
    time = np.array([r[1] for r in rows], np.int64)
    value = np.array([r[2] for r in rows], np.float64)
    came = time.copy() if received is None else np.array(received, np.int64)
    return RawBatch(point, time, came, value, np.zeros(len(rows), np.uint8))


def positions(start: int, n: int) -> np.ndarray:
    return np.arange(start, start + n, dtype=np.int64)
