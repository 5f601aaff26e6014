"""What a second of the city costs on its way to the lake, kernel by kernel; all of it: `scripts/bench storage`."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.storage_city import T0, S
from storage.batch import POS_ROW_BITS, RawBatch, ReadingBatch, stable_order
from storage.compact import Compactor
from storage.hot import HotTier
from storage.journal import Journal
from storage.query import REFRESH, connect, write_lake_sql
from storage.records import RecordType, encode_readings
from storage.rollups import of_minutes, of_readings
from storage.schema import to_arrow
from storage.seal_plan import point_time_order
from storage.sealed import Sealer
from storage.settings import CompactionSettings, JournalSettings, SealedSettings
from tests.storage_rows import map_points

CITY = 116_200
GROUP = 1_162
"""Readings of one poll of 10 ms at the city's rate."""
SEALED_POINTS = 4_096
SEALED_S = 120
"""Half a million rows are sealed and compacted: what is sorted at once."""
BEGIN = T0 + 3600 * S - (SEALED_S - 1) * S
"""Their last second begins the next hour, so that the hour before it is over."""


def raw(n: int) -> RawBatch:
    """n readings of n points at one instant."""
    times = np.full(n, T0, np.int64)
    values = np.round(np.random.default_rng(1).normal(20, 5, n), 1)
    return RawBatch(np.arange(n, dtype=np.int32), times, times + 9_000, values, np.zeros(n, np.uint8))


def judged(points: int, second: int) -> ReadingBatch:
    """One reading of each point, in another order each second."""
    rng = np.random.default_rng(second)
    time = BEGIN + second * S + rng.integers(-20, 21, points) * 1000
    return ReadingBatch(
        rng.permutation(points).astype(np.int32), time, time + 9_000, np.round(rng.normal(20, 5, points), 1),
        np.zeros(points, np.uint8), np.ones(points, np.uint8), np.zeros(points, np.uint32),
        np.zeros(points, np.float32), (np.int64(second) << POS_ROW_BITS) + np.arange(points),
    )  # fmt: skip


def hot_lake(root: Path) -> None:
    """SEALED_S hot files of SEALED_POINTS readings each."""
    hot = HotTier(root)
    nothing = judged(1, 0).take(np.empty(0, np.intp))
    for second in range(1, SEALED_S + 1):
        hot.write(second, second, judged(SEALED_POINTS, second), nothing)


def test_group_commit_of_10_ms_of_the_city(benchmark: Any, tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, JournalSettings())
    body = [(RecordType.READINGS, encode_readings(raw(GROUP)))]
    benchmark(lambda: journal.commit(body))
    journal.close()


def test_columns_of_one_second_of_the_city_to_arrow(benchmark: Any) -> None:
    batch = judged(CITY, 1)
    assert benchmark(lambda: to_arrow(batch, late=False)).num_rows == CITY


@pytest.mark.parametrize("late", [False, True], ids=["main", "late"])
def test_order_of_four_seconds_of_the_city(benchmark: Any, late: bool) -> None:
    rows = ReadingBatch.concat([judged(CITY, second) for second in range(4)])
    order = benchmark(lambda: point_time_order(rows.point, rows.time, late=late))
    assert np.all(np.diff(rows.point[order]) >= 0)


def test_stable_order_of_one_second_of_the_city(benchmark: Any) -> None:
    point = judged(CITY, 1).point
    assert np.array_equal(point[benchmark(lambda: stable_order(point))], np.arange(CITY))


def test_hot_file_of_one_second_of_the_city(benchmark: Any, tmp_path: Path) -> None:
    hot = HotTier(tmp_path)
    batch = judged(CITY, 1)
    nothing = batch.take(np.empty(0, np.intp))
    seq = itertools.count(1)

    def write() -> None:
        n = next(seq)
        hot.write(n, n, batch, nothing)

    benchmark(write)


def test_seal_of_half_a_million_rows(benchmark: Any, tmp_path: Path) -> None:
    made = tmp_path / "made"
    hot_lake(made)
    numbers = itertools.count()

    def sealer() -> tuple[tuple[Sealer], dict[str, Any]]:
        root = tmp_path / str(next(numbers))
        shutil.copytree(made, root)
        return (Sealer(root, SealedSettings()),), {}

    report = benchmark.pedantic(lambda s: s.seal(SEALED_S), setup=sealer, rounds=5)
    assert report.main_rows == SEALED_POINTS * SEALED_S


def test_compaction_of_half_a_million_rows(benchmark: Any, tmp_path: Path) -> None:
    made = tmp_path / "made"
    hot_lake(made)
    sealer = Sealer(made, SealedSettings())
    for upto in range(10, SEALED_S + 1, 10):
        sealer.seal(upto)
    numbers = itertools.count()

    def compactor() -> tuple[tuple[Compactor], dict[str, Any]]:
        root = tmp_path / str(next(numbers))
        shutil.copytree(made, root)
        return (Compactor(root, CompactionSettings(lateness_s=0)),), {}

    def compact(of: Compactor) -> int:
        rows = 0
        for job in of.look(0.0):
            rows += job.rows
            for _ in of.run(job):
                pass
        return rows

    assert benchmark.pedantic(compact, setup=compactor, rounds=5) > SEALED_POINTS * (SEALED_S - 3)


def test_rollup_of_half_a_million_rows_to_minutes_and_hours(benchmark: Any) -> None:
    point = np.repeat(np.arange(SEALED_POINTS, dtype=np.int32), SEALED_S)
    time = np.tile(T0 + np.arange(SEALED_S, dtype=np.int64) * S, SEALED_POINTS)
    value = np.round(np.random.default_rng(1).normal(20, 5, len(point)), 1)
    flag = np.where(np.random.default_rng(2).random(len(point)) < 0.001, 3, 1).astype(np.int8)
    minutes = benchmark(lambda: of_readings(point, time, value, flag))
    assert len(of_minutes(minutes)) == SEALED_POINTS


def test_refresh_of_a_minute_of_the_city(benchmark: Any, tmp_path: Path) -> None:
    map_points(tmp_path, 100)
    hot_lake(tmp_path)
    write_lake_sql(tmp_path, "Asia/Shanghai", 7200.0)
    con = connect(tmp_path)
    benchmark(lambda: con.execute(REFRESH))
    con.close()
