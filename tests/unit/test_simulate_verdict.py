"""Claims about the verdict: each way of going wrong is counted exactly, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.simulate import judge_ledger
from ingest.simulate.judge_ledger import Verdict, verdict
from ingest.simulate.ledger import ACKED, Ledger, write_points

T0 = 1_763_876_543_000_000
POINTS = 50
STEPS = 40


class Lake:
    """A lake.sql over two Parquet files: as much of a lake as plain DuckDB needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.point: list[int] = []
        self.time_us: list[int] = []
        self.value: list[float | None] = []

    def add(self, point: int, time_us: int, value: float | None) -> None:
        self.point.append(point)
        self.time_us.append(time_us)
        self.value.append(value)

    def write(self, numbers: dict[str, int]) -> None:
        self.folder.mkdir(exist_ok=True)
        time = pa.array(self.time_us, pa.timestamp("us", tz="UTC"))
        rows = pa.table(
            {
                "point": pa.array(self.point, pa.int32()),
                "time": time,
                "value": pa.array(self.value, pa.float64()),
            }
        )
        pq.write_table(rows, self.folder / "r.parquet")
        pq.write_table(
            pa.table({"point_id": list(numbers), "point": list(numbers.values())}), self.folder / "p.parquet"
        )
        (self.folder / "lake.sql").write_text(
            f"CREATE VIEW points AS FROM read_parquet('{self.folder}/p.parquet');\n"
            f"CREATE VIEW readings AS SELECT r.*, point_id FROM read_parquet('{self.folder}/r.parquet') r "
            "JOIN points USING (point);\n"
        )


def numbers() -> dict[str, int]:
    """The engine's own dense numbers differ from the ledger's."""
    return {f"p{i:03d}": 1000 - 7 * i for i in range(POINTS)}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Lake, Ledger]:
    """A clean run of POINTS × STEPS readings: all sent, all acknowledged, all stored."""
    write_points(tmp_path / "ledger", np.arange(POINTS, dtype=np.int32), list(numbers()))
    ledger = Ledger(tmp_path / "ledger", "raw")
    lake = Lake(tmp_path / "lake")
    dense = list(numbers().values())
    for step in range(STEPS):
        time_us = T0 + step * 1_000_000
        value = np.arange(POINTS) / 10 + step
        chunk = ledger.open_chunk(np.arange(POINTS, dtype=np.int32), np.full(POINTS, time_us), value)
        chunk.sent(0, POINTS, time_us + 5)
        chunk.settle(0, POINTS, ACKED)
        for i in range(POINTS):
            lake.add(dense[i], time_us, float(value[i]))
    return lake, ledger


def judged(lake: Lake, ledger: Ledger, **options: object) -> Verdict:
    lake.write(numbers())
    ledger.close()
    return verdict(lake.folder, lake.folder.parent / "ledger", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows_per_window", [2_000_000, 120])
def test_a_clean_run_is_clean_in_one_window_or_many(
    run: tuple[Lake, Ledger], rows_per_window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_ledger, "ROWS_PER_WINDOW", rows_per_window)
    found = judged(*run)
    assert found.clean
    total = POINTS * STEPS
    assert (found.sent, found.acked, found.stored, found.readings) == (total,) * 4
    assert (found.lost, found.missing, found.duplicates, found.wrong, found.invented) == (0,) * 5
    assert found.examples == []


@pytest.mark.parametrize("rows_per_window", [2_000_000, 120])
def test_each_fault_is_counted_as_itself(
    run: tuple[Lake, Ledger], rows_per_window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_ledger, "ROWS_PER_WINDOW", rows_per_window)
    lake, ledger = run
    for row in (3, 700, 1999):  # lost
        lake.point[row] = -1
    lake.value[11] = 99.0  # wrong
    lake.value[12] = None  # wrong
    for row in (20, 20, 1500):  # doubled: three rows too many
        lake.add(lake.point[row], lake.time_us[row], lake.value[row])
    lake.add(1000, T0 + 7, 1.0)  # invented: a time nobody sent
    lake.add(1000, T0 - 10**12, 1.0)  # invented: long before
    lake.add(1000, T0 + 10**12, 1.0)  # invented: long after
    found = judged(lake, ledger)
    assert (found.lost, found.wrong, found.duplicates, found.invented) == (3, 2, 3, 3)
    assert found.missing == 3
    assert found.stored == POINTS * STEPS - 3
    assert not found.clean
    assert any("lost p003" in example for example in found.examples)


def test_a_point_the_engine_never_knew_is_lost_not_overlooked(run: tuple[Lake, Ledger]) -> None:
    lake, ledger = run
    ledger.close()
    lake.write({p: n for p, n in numbers().items() if p != "p007"})
    assert verdict(lake.folder, lake.folder.parent / "ledger").lost == STEPS


def test_what_was_sent_but_not_acknowledged_may_be_missing_and_may_be_stored(
    run: tuple[Lake, Ledger],
) -> None:
    lake, ledger = run
    chunk = ledger.open_chunk(np.arange(3, dtype=np.int32), np.full(3, T0 + 5), np.ones(3))
    chunk.sent(0, 2, T0 + 9)
    lake.add(1000, T0 + 5, 1.0)
    found = judged(lake, ledger)
    assert found.clean
    assert (found.sent, found.acked) == (POINTS * STEPS + 2, POINTS * STEPS)
    assert found.missing == 1


def test_what_never_left_the_gateway_may_not_be_stored(run: tuple[Lake, Ledger]) -> None:
    lake, ledger = run
    ledger.open_chunk(np.zeros(1, np.int32), np.full(1, T0 + 5), np.ones(1))
    lake.add(1000, T0 + 5, 1.0)
    assert judged(lake, ledger).invented == 1


def test_a_code_for_missing_must_stand_as_null(run: tuple[Lake, Ledger]) -> None:
    lake, ledger = run
    chunk = ledger.open_chunk(
        np.arange(3, dtype=np.int32), np.full(3, T0 + 5), np.array([-9999.0, -9999.0, np.nan])
    )
    chunk.sent(0, 3, T0 + 9)
    chunk.settle(0, 3, ACKED)
    lake.add(1000, T0 + 5, None)
    lake.add(993, T0 + 5, -9999.0)
    lake.add(986, T0 + 5, None)
    assert judged(lake, ledger, missing_values=[-9999.0]).wrong == 1


def test_a_key_sent_twice_must_hold_the_last_value(run: tuple[Lake, Ledger]) -> None:
    lake, ledger = run
    for sent_us, value in ((T0 + 9, 2.0), (T0 + 8, 1.0)):
        chunk = ledger.open_chunk(np.arange(2, dtype=np.int32), np.full(2, T0 + 5), np.full(2, value))
        chunk.sent(0, 2, sent_us)
        chunk.settle(0, 2, ACKED)
    lake.add(1000, T0 + 5, 2.0)
    lake.add(993, T0 + 5, 1.0)
    found = judged(lake, ledger)
    assert (found.wrong, found.duplicates, found.lost) == (1, 0, 0)


def test_points_of_others_are_left_alone_where_asked(run: tuple[Lake, Ledger]) -> None:
    lake, ledger = run
    ledger.close()
    lake.add(5, T0, 1.0)
    lake.write({**numbers(), "stranger": 5})
    folder = lake.folder.parent / "ledger"
    assert verdict(lake.folder, folder).invented == 1
    assert verdict(lake.folder, folder, others=True).invented == 0


def test_an_empty_ledger_finds_everything_invented(run: tuple[Lake, Ledger], tmp_path: Path) -> None:
    lake, _ = run
    lake.write(numbers())
    write_points(tmp_path / "none", np.arange(POINTS, dtype=np.int32), list(numbers()))
    found = verdict(lake.folder, tmp_path / "none")
    assert (found.sent, found.invented) == (0, POINTS * STEPS)


def test_the_ledger_file_says_what_became_of_each_reading(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "raw")
    chunk = ledger.open_chunk(np.arange(4, dtype=np.int32), np.full(4, T0), np.arange(4.0))
    chunk.sent(0, 2, 77)
    chunk.settle(0, 1, ACKED)
    ledger.close()
    rows = duckdb.execute(
        "SELECT number, sent_us, state FROM read_parquet($1) ORDER BY number",
        [str(tmp_path / "readings-*.parquet")],
    ).fetchall()
    assert rows == [(0, 77, 2), (1, 77, 1), (2, 0, 0), (3, 0, 0)]
    assert ledger.counts == {"sent": 2, "acked": 1, "refused": 0, "queued": 2}
