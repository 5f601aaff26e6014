"""Hot files a disk has damaged: derived again where a state and the journal reach, else named and set aside alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage import snapshot
from storage.hot import HotTier, hot_dir, list_hot
from storage.journal import Journal
from storage.records import Tick, encode
from storage.settings import JournalSettings
from tests.lake_folder import RECORDS_A_RANGE, flip_at, write_range

SMALL = JournalSettings(reserve_bytes=0).model_copy(update={"segment_bytes": 4096})
RANGES = 6


def save(root: Path, seq: int, base_seq: int | None = None) -> None:
    snapshot.save(root / "snapshot", seq, {"a": np.arange(3)}, {}, base_seq)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six synced ranges, records 1 to 60, nothing sealed; snapshots at 20, 40 and 55; a journal from record 1."""
    hot = HotTier(tmp_path)
    for k in range(RANGES):
        write_range(hot, k)
    hot.sync()
    save(tmp_path, 20)
    save(tmp_path, 40)
    save(tmp_path, 55, base_seq=25)
    journal = Journal.open(tmp_path / "journal", SMALL)
    for n in range(RANGES * RECORDS_A_RANGE):
        journal.commit([encode(Tick(n, True, {"n" * 200: n}))])
    journal.close()
    return tmp_path


def hurt(root: Path, k: int, late: bool = False) -> Path:
    path = next(f.path for f in list_hot(root, late) if f.first == k * RECORDS_A_RANGE + 1)
    flip_at(path, path.stat().st_size // 3)
    return path


def seqs(root: Path) -> list[int]:
    return [seq for seq, _ in snapshot.list_snapshots(root / "snapshot")]


def cut_journal(root: Path, below: int) -> None:
    journal = Journal.open(root / "journal", SMALL)
    journal.cut(below)
    assert journal.first_seq > 1
    journal.close()


def test_the_fixture_keeps_the_two_newest_snapshots_and_the_one_below_the_base(root: Path) -> None:
    assert seqs(root) == [20, 40, 55]
    assert HotTier(root).recover(-1, -1) == 60


@pytest.mark.parametrize("late", [False, True])
def test_a_rotten_range_goes_with_all_after_it_and_judge_goes_back_before_it(root: Path, late: bool) -> None:
    path = hurt(root, 3, late)
    hot = HotTier(root)
    assert hot.recover(-1, -1) == 30
    assert seqs(root) == [20], "a later state presumes rows that are nowhere now"
    assert [f.last for f in list_hot(root, False)] == [10, 20, 30]
    assert path.with_name(path.name + ".bad").exists()
    assert hot.damage.lost_rows == 0
    assert "derived again" in hot.damage.said[0]


def test_a_second_crash_before_anything_was_written_again_comes_to_the_same_end(root: Path) -> None:
    hurt(root, 3)
    HotTier(root).recover(-1, -1)
    hot = HotTier(root)
    assert hot.recover(-1, -1) == 30
    assert seqs(root) == [20]
    assert hot.damage.said == []


def test_a_flipped_bit_in_a_footer_that_pyarrow_reads_over_is_found_by_the_hash(root: Path) -> None:
    path = list_hot(root, False)[5].path
    created_by = path.read_bytes().rindex(b"parquet-cpp")
    flip_at(path, created_by)
    pq.ParquetFile(path, page_checksum_verification=True).read()
    assert HotTier(root).recover(-1, -1) == 50


def test_where_no_state_reaches_back_only_what_is_damaged_is_lost_and_said(root: Path) -> None:
    cut_journal(root, 50)
    path = hurt(root, 1)
    hot = HotTier(root)
    assert hot.recover(-1, -1) == 60
    assert seqs(root) == [20, 40, 55]
    assert [f.last for f in list_hot(root, False)] == [10, 30, 40, 50, 60]
    assert len(list_hot(root, True)) == 3, "its late rows are whole and stay"
    assert hot.damage.lost_rows == 40
    assert "main rows of journal records 11 to 20" in hot.damage.said[0]
    assert hot.damage.set_aside == [path.with_name(path.name + ".bad")]


def test_a_range_that_no_snapshot_presumes_is_torn_by_a_power_cut_and_no_state_is_given_up(
    root: Path,
) -> None:
    hot = HotTier(root)
    hot.recover(-1, -1)
    write_range(hot, 6)
    path = list_hot(root, False)[-1].path
    path.write_bytes(path.read_bytes()[:100])
    hot = HotTier(root)
    assert hot.recover(-1, -1) == 60
    assert seqs(root) == [20, 40, 55]
    assert hot.damage.said == []
    assert not path.exists()


def test_a_damaged_snapshot_is_not_counted_as_a_state_to_go_back_to(root: Path) -> None:
    cut_journal(root, 21)
    flip_at(snapshot.snapshot_path(root / "snapshot", 20), 50)
    hurt(root, 3)
    hot = HotTier(root)
    assert hot.recover(-1, -1) == 60
    assert hot.damage.lost_rows == 40


def test_files_set_aside_are_no_hot_files(root: Path) -> None:
    hurt(root, 5)
    HotTier(root).recover(-1, -1)
    assert all(p.suffix != ".parquet" or "bad" not in p.name for p in hot_dir(root, False).iterdir())
    assert len(list_hot(root, False)) == 5
