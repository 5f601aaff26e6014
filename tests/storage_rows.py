"""Readings and registries for tests of the lake, in a few words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.batch import POS_ROW_BITS, ReadingBatch
from storage.pointmap import merge
from storage.schema import REGISTRY

T0 = 1_767_243_600_000_000
"""2026-01-01 05:00:00 UTC in µs."""
S = 1_000_000
HOUR = 3600 * S

Row = tuple[int, int, float]


def batch(seq: int, rows: list[Row], first_row: int = 0) -> ReadingBatch:
    """Rows (point, time µs, value) of journal record ``seq``, received half a second after their time."""
    n = len(rows)
    time = np.array([r[1] for r in rows], np.int64)
    return ReadingBatch(
        point=np.array([r[0] for r in rows], np.int32),
        time=time,
        received_at=time + 500_000,
        value=np.array([r[2] for r in rows], np.float64),
        device_flag=np.zeros(n, np.uint8),
        flag=np.ones(n, np.uint8),
        checks=np.zeros(n, np.uint32),
        score=np.zeros(n, np.float32),
        pos=(np.int64(seq) << POS_ROW_BITS) + first_row + np.arange(n, dtype=np.int64),
    )


def registry(count: int, kind: str = "river_level") -> pa.Table:
    """A registry of ``count`` points p-00000 …"""
    ids = [f"p-{i:05d}" for i in range(count)]
    columns = {
        field.name: pa.array([f"{field.name}-{i}" for i in range(count)])
        if pa.types.is_string(field.type)
        else pa.array(np.arange(count, dtype=np.float64))
        for field in REGISTRY
    }
    same = {"kind": kind, "district": "Jinniu", "source": "water", "unit": "m", "time_from": "device"}
    columns |= {name: pa.array([value] * count, pa.string()) for name, value in same.items()}
    return pa.table(columns | {"point_id": pa.array(ids), "upstream": pa.nulls(count, pa.string())}).select(
        REGISTRY.names
    )


def map_points(root: Path, count: int) -> None:
    """Give ``root`` a point map of ``count`` points."""
    merge(root, registry(count), T0)
