"""A small data folder that has everything an engine leaves: for tests that damage it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa

from anomaly.alerts.outbox import Outbox
from anomaly.settings import AlertSettings
from storage import snapshot
from storage.batch import RawBatch
from storage.hot import HotTier
from storage.journal import Journal
from storage.logs import ParquetLog
from storage.query import write_lake_sql
from storage.records import RecordType, Tick, encode, encode_readings
from storage.schema import ALERTS, QUARANTINE
from storage.sealed import Sealer
from storage.settings import JournalSettings, SealedSettings
from tests.storage_rows import HOUR, T0, S, batch, map_points

POINTS = 40
SEALED_RANGES = 4
HOT_RANGES = 3
RECORDS_A_RANGE = 10
JOURNAL = JournalSettings(reserve_bytes=0).model_copy(update={"segment_bytes": 4096})


def rows_of(k: int) -> list[tuple[int, int, float]]:
    """Main rows (point, time, value) of range ``k``."""
    return [(p, T0 + k * HOUR // 2 + p * S, float(100 * k + p)) for p in range(POINTS)]


def late_of(k: int) -> list[tuple[int, int, float]]:
    """Late rows of range ``k``."""
    return [(p, T0 - HOUR + k * S, -float(k)) for p in range(0, POINTS, 9)] if k % 2 else []


def write_range(hot: HotTier, k: int) -> None:
    """The hot files of range ``k``: journal records k × 10 + 1 to k × 10 + 10."""
    first = k * RECORDS_A_RANGE + 1
    late = batch(first, late_of(k), first_row=POINTS)
    hot.write(first, first + RECORDS_A_RANGE - 1, batch(first, rows_of(k)), late)


def fill(root: Path) -> None:
    """Journal, two snapshots, sealed and hot files, logs, points, outbox, lake.sql."""
    map_points(root, POINTS)
    total = SEALED_RANGES + HOT_RANGES
    write_journal(root, total)
    hot = HotTier(root)
    for k in range(total):
        write_range(hot, k)
    hot.sync()
    sealer = Sealer(root, SealedSettings())
    for k in range(SEALED_RANGES):
        sealer.seal((k + 1) * RECORDS_A_RANGE)
    for seq in (30, 60):
        snapshot.save(root / "snapshot", seq, {"last_t": np.arange(POINTS)}, {"seq": seq})
    for name, schema in (("quarantine", QUARANTINE), ("alerts", ALERTS)):
        small = ParquetLog(root / "lake" / name, schema)
        small.append(1, 9, log_rows(schema, 9))
        small.append(10, 12, log_rows(schema, 3))
        small.sync()
    Outbox(root / "outbox.db", [], AlertSettings()).mark(60)
    write_lake_sql(root, "Asia/Shanghai", 7200)


def write_journal(root: Path, ranges: int) -> None:
    """A READINGS record and nine TICKs for each range, in groups of several sizes and small segments."""
    journal = Journal.open(root / "journal", JOURNAL)
    for k in range(ranges):
        rows = rows_of(k) + late_of(k)
        time = np.array([r[1] for r in rows], np.int64)
        raw = RawBatch(
            np.array([r[0] for r in rows], np.int32),
            time,
            time + 500_000,
            np.array([r[2] for r in rows], np.float64),
            np.zeros(len(rows), np.uint8),
        )
        journal.commit([(RecordType.READINGS, encode_readings(raw)), encode(Tick(T0, True, {}))])
        for _ in range(RECORDS_A_RANGE - 2):
            journal.commit([encode(Tick(T0 + k, True, {"received": k}))])
    journal.close()


def log_rows(schema: pa.Schema, count: int) -> pa.Table:
    """Rows of any log's schema: zeros, and "x" for text."""
    columns = {}
    for field in schema:
        if pa.types.is_string(field.type) or pa.types.is_binary(field.type):
            columns[field.name] = pa.array(
                [b"x" if pa.types.is_binary(field.type) else "x"] * count, field.type
            )
        elif pa.types.is_boolean(field.type):
            columns[field.name] = pa.array([False] * count)
        else:
            columns[field.name] = pa.array(range(count), pa.int64()).cast(field.type)
    return pa.table(columns, schema=schema)


def flip(path: Path, rng: random.Random) -> tuple[int, int]:
    """Flip one random bit of a file in place, as a disk would; (byte, bit)."""
    at, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
    flip_at(path, at, bit)
    return at, bit


def flip_at(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit; doing it twice undoes it."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
