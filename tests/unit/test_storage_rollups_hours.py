"""Rollups: a minute and an hour of each point, whatever pieces the rows come in."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import rollups
from storage.flags import FAIL, GOOD, NOT_EVALUATED, SUSPECT
from storage.rollups import HourRollup, hour_dir, list_rollups, minute_dir, newest, of_minutes, of_readings
from storage.schema import ROLLUP, to_arrow
from tests.storage_rows import HOUR, T0, Row, S, batch

H = T0 // HOUR
MINUTE = 60 * S


def rolled(
    root: Path, rows: list[Row], cuts: list[int], number: int = 1, committed: int = 0, hour: int = H
) -> None:
    """The rollup files of ``rows``, given in pieces that end at ``cuts``."""
    table = to_arrow(batch(0, sorted(rows)), late=False)
    rollup = HourRollup(root, hour, number, committed)
    begin = 0
    for end in [*sorted(cuts), len(rows)]:
        rollup.add(table.slice(begin, end - begin))
        begin = end
    list(rollup.finish())


def rows_of(path: Path) -> list[tuple[object, ...]]:
    table = pq.ParquetFile(path, page_checksum_verification=True).read()
    assert table.schema.remove_metadata().equals(ROLLUP)
    time = table["time"].cast(pa.int64()).to_pylist()
    return [
        (row["point"], t, *list(row.values())[2:]) for row, t in zip(table.to_pylist(), time, strict=True)
    ]


def test_only_good_readings_are_summed_and_all_are_counted() -> None:
    point = np.zeros(6, np.int32)
    time = T0 + np.arange(6) * S
    value = np.array([1.0, 2.0, 50.0, np.nan, 4.0, 60.0])
    flag = np.array([GOOD, NOT_EVALUATED, FAIL, GOOD, GOOD, SUSPECT], np.int8)
    (row,) = of_readings(point, time, value, flag).table().to_pylist()
    assert {k: v for k, v in row.items() if k not in ("point", "time")} == {
        "count": 6, "good": 3, "sum": 7.0, "min": 1.0, "max": 4.0, "first": 1.0, "last": 4.0,
    }  # fmt: skip


def test_a_span_without_a_good_reading_has_counts_and_no_values() -> None:
    bad = of_readings(
        np.zeros(2, np.int32), T0 + np.arange(2) * S, np.array([np.nan, 9.0]), np.array([1, 4], np.int8)
    )
    for spans in (bad, of_minutes(bad)):
        (row,) = spans.table().to_pylist()
        assert (row["count"], row["good"]) == (2, 0)
        assert [row[n] for n in ("sum", "min", "max", "first", "last")] == [None] * 5


reading = st.tuples(
    st.integers(0, 3), st.integers(0, HOUR - 1), st.one_of(st.just(math.nan), st.floats(-1e6, 1e6, width=32))
)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(
    st.lists(reading, min_size=1, max_size=60, unique_by=lambda r: r[:2]),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_rollups_do_not_depend_on_pieces_and_equal_plain_loops(readings: list[Row], cuts: list[int]) -> None:
    rows = [(p, H * HOUR + t, v) for p, t, v in readings]
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        rolled(Path(one), rows, [])
        rolled(Path(other), rows, [min(cut, len(rows)) for cut in cuts])
        for folder in (minute_dir, hour_dir):
            ((_, _, path),) = list_rollups(folder(Path(one)))
            ((_, _, again),) = list_rollups(folder(Path(other)))
            assert rows_of(path) == rows_of(again), "to the last bit"
            span = MINUTE if folder is minute_dir else HOUR
            want: dict[tuple[int, int], list[float]] = {}
            for p, t, v in sorted(rows):
                want.setdefault((p, t // span * span), []).append(v)
            found = rows_of(path)
            assert [row[:2] for row in found] == sorted(want)
            for point, time, count, good, total, least, most, first, last in found:
                values = want[point, time]  # type: ignore[index]
                real = [v for v in values if not math.isnan(v)]
                assert (count, good) == (len(values), len(real))
                if real:
                    assert total == pytest.approx(math.fsum(real), abs=1e-6)
                    assert (least, most, first, last) == (min(real), max(real), real[0], real[-1])
                else:
                    assert (total, least, most, first, last) == (None,) * 5


def test_the_file_of_a_day_carries_the_other_hours_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "_READ_ROWS", 3)
    rng = np.random.default_rng(5)
    want: dict[tuple[int, int], float] = {}
    for number, hour in enumerate([3, 1, 2, 1, 0, 3, 23, 2], start=1):
        rows = [
            (int(p), (H // 24 * 24 + hour) * HOUR + int(rng.integers(HOUR)), float(number))
            for p in rng.permutation(9)[:6]
        ]
        want = {key: v for key, v in want.items() if key[1] != hour} | {(p, hour): v for p, _, v in rows}
        rolled(tmp_path, rows, [], number, number - 1, H // 24 * 24 + hour)
        path = newest(hour_dir(tmp_path), H // 24, number)
        assert path is not None
        found = rows_of(path)
        assert [(p, int(t) // HOUR % 24) for p, t, *_ in found] == sorted(want)  # type: ignore[call-overload]
        assert {(p, int(t) // HOUR % 24): v for p, t, _, _, v, *_ in found} == want  # type: ignore[call-overload]


def test_a_file_above_the_committed_number_does_not_count(tmp_path: Path) -> None:
    rolled(tmp_path, [(0, T0, 1.0)], [], 1, 0)
    rolled(tmp_path, [(0, T0, 2.0)], [], 2, 1)
    for committed, wanted in ((0, None), (1, 1), (2, 2), (9, 2)):
        path = newest(minute_dir(tmp_path), H, committed)
        assert (path and int(path.stem.rpartition("-")[2])) == wanted


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    rollup = HourRollup(tmp_path, H, 1, 0)
    rollup.add(to_arrow(batch(0, [(0, T0, 1.0)]), late=False))
    list(rollup.finish())
    rollup.discard()
    assert list_rollups(minute_dir(tmp_path)) == list_rollups(hour_dir(tmp_path)) == []
