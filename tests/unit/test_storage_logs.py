"""Small Parquet logs: appended, recovered and merged without losing or showing a row twice."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.hot import DROP_SLACK_S
from storage.log_plan import (
    BITE_FILES_MAX,
    LIVE_FILES_MAX,
    MERGE_FILES_MIN,
    MERGED_BYTES_MAX,
    LogFile,
    choose,
)
from storage.logs import ParquetLog
from storage.schema import QUARANTINE


def refusals(*ids: int) -> pa.Table:
    n = len(ids)
    columns = {
        field.name: pa.array(ids)
        if field.name == "id"
        else pa.array([0] * n).cast(field.type)
        if pa.types.is_timestamp(field.type)
        else pa.array([b"\xff{"] * n if field.name == "raw" else ["x"] * n, field.type)
        for field in QUARANTINE
    }
    return pa.table(columns, schema=QUARANTINE)


def ids(folder: Path) -> list[int]:
    """All ids that a glob over the folder finds, with repeats."""
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    return sorted(i for table in tables for i in table["id"].to_pylist())


def test_appended_rows_stand_in_the_folder_and_no_rows_make_no_file(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    log.append(1, 3, refusals(1, 2, 3))
    assert log.append(4, 4, refusals()) is None
    log.sync()
    assert ids(tmp_path / "q") == [1, 2, 3]


def test_appending_a_range_again_replaces_it(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    log.append(1, 3, refusals(1, 2, 3))
    log.append(1, 3, refusals(1, 2, 3))
    assert ids(tmp_path / "q") == [1, 2, 3]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    with pytest.raises((pa.ArrowException, ValueError)):
        log.append(1, 1, pa.table({"id": [1]}))
    assert ids(tmp_path / "q") == []


def test_a_torn_file_and_unfinished_ones_are_removed_at_opening(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    log.append(1, 1, refusals(1))
    torn = log.append(2, 2, refusals(2))
    assert torn is not None
    torn.write_bytes(torn.read_bytes()[:-3])
    (tmp_path / "q" / "tmp" / "half.parquet").write_bytes(b"x")
    ParquetLog(tmp_path / "q", QUARANTINE)
    assert ids(tmp_path / "q") == [1]
    assert list((tmp_path / "q" / "tmp").iterdir()) == []


def test_merging_keeps_every_row_and_the_parts_until_the_grace_is_over(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    for k in range(5):
        log.append(k, k, refusals(k))
    assert log.merge(files_min=6) is None
    assert log.merge(files_min=5) is not None
    assert sorted(set(ids(tmp_path / "q"))) == [0, 1, 2, 3, 4]
    assert log.drop(10, now=0) == 0
    assert log.drop(10, now=10 + DROP_SLACK_S) == 0
    assert log.drop(10, now=11 + DROP_SLACK_S) == 5
    assert ids(tmp_path / "q") == [0, 1, 2, 3, 4]
    log.sync()


def test_after_a_restart_the_merged_file_still_knows_its_parts(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    for k in range(3):
        log.append(k, k, refusals(k))
    log.merge(files_min=2)
    again = ParquetLog(tmp_path / "q", QUARANTINE)
    assert again.merge(files_min=2) is None
    again.drop(0, now=0)
    assert again.drop(0, now=1 + DROP_SLACK_S) == 3
    assert ids(tmp_path / "q") == [0, 1, 2]


def test_a_file_that_was_not_merged_is_never_dropped_though_its_range_lies_inside(tmp_path: Path) -> None:
    """A replay cuts at other borders: a file can appear inside the range of a merge that did not read it."""
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    for k in (0, 9):
        log.append(k, k, refusals(k))
    log.merge(files_min=2)
    log.append(4, 5, refusals(4, 5))
    again = ParquetLog(tmp_path / "q", QUARANTINE)
    again.drop(0, now=0)
    again.drop(0, now=1 + DROP_SLACK_S)
    assert ids(tmp_path / "q") == [0, 4, 5, 9]


def test_large_files_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    for k in range(4):
        log.append(k, k, refusals(*range(k * 100, k * 100 + (1 if k != 1 else 100))))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "q").glob("*.parquet"))]
    for module in ("logs", "log_plan"):
        monkeypatch.setattr(f"storage.{module}.MERGED_BYTES_MAX", sizes[1])
    merged = log.merge(files_min=2)
    assert merged is not None
    assert merged.name == f"{2:020d}-{3:020d}.parquet"


@pytest.mark.parametrize("seed", range(4))
def test_files_that_a_reader_opens_are_bounded_whatever_came_and_rows_are_not_rewritten_for_ever(
    seed: int,
) -> None:
    """A model of years: 20,000 files of 1 kB to 3 kB or to 1 MB, by number only; no clock is in it."""
    draw = random.Random(seed)
    print(f"seed {seed}")
    live: list[LogFile] = []
    written = appended = most = 0
    for at in range(20_000):
        size = round(10 ** draw.uniform(3, 6 if seed % 2 and draw.random() < 0.2 else 3.5))
        appended += size
        live.append(LogFile(Path(str(at)), at, at, size))
        while sum(f.part for f in live) >= MERGE_FILES_MIN and (run := choose(live)):
            assert len(run) <= BITE_FILES_MAX
            begin = live.index(run[0])
            assert live[begin : begin + len(run)] == run
            # Footers and dictionaries of many become one.
            size = round(sum(f.size for f in run) * draw.uniform(0.3, 1.0))
            assert size <= 2 * MERGED_BYTES_MAX
            written += size
            merged = LogFile(Path(f"m{at}"), run[0].first, run[-1].last, size, part=False)
            live[begin : begin + len(run)] = [merged]
        most = max(most, sum(f.size < MERGED_BYTES_MAX for f in live))
    print(f"{most} small files at most, {written / appended:.1f} bytes written for each that came")
    assert most <= LIVE_FILES_MAX
    assert written <= 12 * appended


def test_a_backlog_is_merged_in_bites_and_no_row_is_missing_or_twice(tmp_path: Path) -> None:
    """What a disk that was full for an hour leaves: hundreds of files at once, a large part among small ones."""
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    for k in range(500):
        log.append(k, k, refusals(*range(k * 1000, k * 1000 + (900 if k == 250 else 1))))
    bites = 0
    assert log.crowded
    while log.crowded:
        assert log.merge() is not None
        bites += 1
    assert 500 / BITE_FILES_MAX <= bites <= 8
    assert len(list((tmp_path / "q").glob("*.parquet"))) == 500 + bites
    log.drop(0, now=0)
    log.drop(0, now=1 + DROP_SLACK_S)
    left = list((tmp_path / "q").glob("*.parquet"))
    assert len(left) < LIVE_FILES_MAX
    wanted = [k * 1000 + row for k in range(500) for row in range(900 if k == 250 else 1)]
    assert ids(tmp_path / "q") == wanted
    assert log.last == ParquetLog(tmp_path / "q", QUARANTINE).last == 499


def test_after_a_restart_a_backlog_is_still_known(tmp_path: Path) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    for k in range(MERGE_FILES_MIN):
        log.append(k, k, refusals(k))
    assert ParquetLog(tmp_path / "q", QUARANTINE).crowded
    assert log.merge() is not None
    assert not log.crowded
    assert not ParquetLog(tmp_path / "q", QUARANTINE).crowded


def test_a_part_that_spans_all_others_is_left_out_and_never_overwritten(tmp_path: Path) -> None:
    """A replay cuts at other borders: then the union of all parts would have the name of one of them."""
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    log.append(1, 9, refusals(100))
    for k in (1, 5, 8):
        log.append(k, k, refusals(k))
    log.append(9, 9, refusals(9))
    merged = log.merge(files_min=2)
    assert merged is not None
    log.drop(0, now=0)
    log.drop(0, now=1 + DROP_SLACK_S)
    assert ids(tmp_path / "q") == [1, 5, 8, 9, 100]


def test_a_part_that_cannot_be_read_is_left_as_it_stands_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = ParquetLog(tmp_path / "q", QUARANTINE)
    paths = [log.append(k, k, refusals(k)) for k in range(4)]
    broken = paths[1]
    assert broken is not None
    broken.write_bytes(broken.read_bytes()[:-3])
    assert log.merge(files_min=2) is None
    assert broken.name in caplog.text
    assert log.merge(files_min=2) is not None
    log.drop(0, now=0)
    log.drop(0, now=1 + DROP_SLACK_S)
    broken.unlink()
    assert ids(tmp_path / "q") == [0, 2, 3]
    assert list((tmp_path / "q" / "tmp").iterdir()) == []
