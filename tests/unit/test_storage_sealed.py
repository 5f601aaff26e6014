"""Sealing: rows move from hot files to sorted Delta tables once, whatever happens in between."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, CommitProperties
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import deltalog, deltatable, sealed
from storage.compact import Compactor
from storage.deltatable import TableHandle
from storage.hot import HotTier, list_hot
from storage.latest import latest_dir, load_latest
from storage.schema import READINGS, to_arrow
from storage.seal_plan import partition_of, point_ranges, point_time_order, split_hours
from storage.sealed import Sealer, table_dir
from storage.settings import CompactionSettings, SealedSettings
from tests.storage_rows import HOUR, T0, Row, S, batch

SETTINGS = SealedSettings()


def fill(root: Path, ranges: int = 3, points: int = 50, first: int = 0, seed: int = 7) -> list[Row]:
    """Hot ranges first*10 … of ``points`` rows each in random order, half an hour apart; their main rows."""
    hot, rng, rows = HotTier(root), np.random.default_rng(seed), []
    for k in range(first, first + ranges):
        mains = [(int(p), T0 + k * HOUR // 2, float(p + k)) for p in rng.permutation(points)]
        lates = [(3, T0 + k * HOUR // 2, -1.0), (3, T0 - HOUR, -2.0)] if k % 2 else []
        hot.write(k * 10, k * 10 + 9, batch(k * 10, mains), batch(k * 10, lates, first_row=points))
        rows += mains
    return rows


def stored(root: Path, late: bool = False) -> list[Row]:
    frame = pl.scan_delta(str(table_dir(root, late))).select(
        pl.col("point"), pl.col("time").cast(pl.Int64), pl.col("value")
    )
    return sorted(frame.collect().rows())


def data_files(root: Path, late: bool = False) -> list[Path]:
    return sorted(table_dir(root, late).glob("date=*/hour=*/*.parquet"))


def test_every_hot_row_is_sealed_once_in_the_partition_of_its_hour(tmp_path: Path) -> None:
    rows = fill(tmp_path, ranges=4)
    report = Sealer(tmp_path, SETTINGS).seal(100)
    assert (report.main_rows, report.late_rows, report.main_seq, report.late_seq) == (200, 4, 39, 39)
    assert stored(tmp_path) == sorted(rows)
    for path in data_files(tmp_path):
        hour = np.unique(pq.ParquetFile(path).read()["time"].cast(pa.int64()).to_numpy() // HOUR)
        date, hour_of_day = partition_of(int(hour[0]))
        assert len(hour) == 1
        folder = Path(f"date={date}/hour={hour_of_day:02d}")
        assert path.parent == table_dir(tmp_path, late=False) / folder


def test_rows_of_a_file_are_sorted_by_point_and_time_also_when_cut_into_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "point_ranges", lambda counts: point_ranges(counts, rows=7))
    rows = fill(tmp_path)
    Sealer(tmp_path, SETTINGS).seal(100)
    assert stored(tmp_path) == sorted(rows)
    for path in data_files(tmp_path):
        keys = pq.ParquetFile(path).read(columns=["point", "time"]).to_pylist()
        assert keys == sorted(keys, key=lambda r: (r["point"], r["time"]))


def test_only_ranges_up_to_the_asked_seq_are_sealed_and_none_twice(tmp_path: Path) -> None:
    fill(tmp_path)
    sealer = Sealer(tmp_path, SETTINGS)
    assert sealer.seal(18).main_seq == 9
    assert sealer.seal(29).main_rows == 100
    assert sealer.seal(29).commits == 0
    assert sealer.watermarks() == (29, 29)
    assert len(stored(tmp_path)) == 150


def test_a_table_without_any_seal_has_no_watermark(tmp_path: Path) -> None:
    assert Sealer(tmp_path, SETTINGS).watermarks() == (-1, -1)


def test_a_range_with_only_late_rows_moves_both_watermarks(tmp_path: Path) -> None:
    HotTier(tmp_path).write(0, 9, batch(0, []), batch(0, [(0, T0, 1.0)]))
    sealer = Sealer(tmp_path, SETTINGS)
    sealer.seal(9)
    assert sealer.watermarks() == (9, 9)
    assert stored(tmp_path) == []
    assert len(stored(tmp_path, late=True)) == 1


def test_a_backlog_is_sealed_in_several_commits(tmp_path: Path) -> None:
    rows = fill(tmp_path, ranges=12, points=2_000)
    report = Sealer(tmp_path, SealedSettings(rows_max=10_000)).seal(200)
    assert report.commits == 3 + 3
    assert stored(tmp_path) == sorted(rows)


def test_a_crash_between_the_two_commits_repeats_only_what_is_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = fill(tmp_path)
    sealer = Sealer(tmp_path, SETTINGS)
    real = Sealer._commit

    def main_fails(self: Sealer, late: bool, seq: int, actions: list[AddAction]) -> None:
        if not late:
            raise OSError("power")
        real(self, late, seq, actions)

    with monkeypatch.context() as patch:
        patch.setattr(Sealer, "_commit", main_fails)
        with pytest.raises(OSError, match="power"):
            sealer.seal(100)
    assert sealer.watermarks() == (-1, 29)
    assert data_files(tmp_path) == [], "files of a commit that did not happen are removed"
    again = Sealer(tmp_path, SETTINGS)
    report = again.seal(100)
    assert (report.main_rows, report.late_rows) == (150, 0)
    assert stored(tmp_path) == sorted(rows)
    assert len(stored(tmp_path, late=True)) == 2


def test_files_a_crash_left_uncommitted_go_at_the_next_start_and_committed_ones_stay(tmp_path: Path) -> None:
    fill(tmp_path)
    Sealer(tmp_path, SETTINGS).seal(100)
    kept = data_files(tmp_path)
    orphan = kept[0].with_name(f"{30:020d}-{39:020d}-0.parquet")
    orphan.write_bytes(kept[0].read_bytes())
    os.utime(orphan, (1, 1))
    Sealer(tmp_path, SETTINGS)
    assert data_files(tmp_path) == kept


def test_what_a_crash_left_uncommitted_is_never_taken_for_replaced_once_its_name_is_in_the_table(
    tmp_path: Path,
) -> None:
    """A machine without a battery starts in the past: then the leftover seems newer than this start and stays."""
    fill(tmp_path)
    sealer = Sealer(tmp_path, SETTINGS)
    hour = table_dir(tmp_path, late=False) / "date=2026-01-01" / "hour=05"
    hour.mkdir(parents=True)
    leftover = hour / f"{0:020d}-{29:020d}-0.parquet"
    leftover.write_bytes(b"half a file")
    compactor = Compactor(tmp_path, CompactionSettings())
    compactor.tidy(100, now=0)
    sealer.seal(100)
    assert leftover in data_files(tmp_path)
    compactor.tidy(100, now=200)
    assert len(stored(tmp_path)) == 150


def test_a_lost_race_begins_again_from_a_fresh_look_at_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = fill(tmp_path)
    sealer = Sealer(tmp_path, SETTINGS)
    rivals = [2]
    real = TableHandle.version_of

    def rival_commits_after_the_look(self: TableHandle, app: str) -> int:
        seen = real(self, app)
        if self.folder.name == "readings" and rivals[0] and data_files(tmp_path):
            rivals[0] -= 1
            other = DeltaTable(str(self.folder))
            other.create_write_transaction(
                [], "append", other.schema(), ["date", "hour"],
                commit_properties=CommitProperties(app_transactions=[Transaction("rival", rivals[0])]),
            )  # fmt: skip
        return seen

    monkeypatch.setattr(TableHandle, "version_of", rival_commits_after_the_look)
    sealer.seal(100)
    assert rivals == [0]
    assert stored(tmp_path) == sorted(rows)


def test_a_version_already_committed_by_another_handle_is_not_committed_again(tmp_path: Path) -> None:
    fill(tmp_path)
    stale, first = Sealer(tmp_path, SETTINGS), Sealer(tmp_path, SETTINGS)
    first.seal(100)
    table = DeltaTable(str(table_dir(tmp_path, late=False)))
    stale._commit(False, 29, [])
    table.update_incremental()
    assert table.version() == 1
    assert stale.seal(100).commits == 0


def test_losing_every_race_is_an_error_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, ranges=1)
    sealer = Sealer(tmp_path, SETTINGS)
    monkeypatch.setattr(deltatable, "COMMIT_ATTEMPTS", 0)
    with pytest.raises(DeltaError):
        sealer.seal(100)
    assert data_files(tmp_path) == []
    monkeypatch.setattr(deltatable, "COMMIT_ATTEMPTS", 5)
    assert sealer.seal(100).main_rows == 50


@pytest.mark.parametrize("content", [b"", b'{"add":{"pa'], ids=["empty", "half"])
def test_a_torn_newest_log_entry_is_set_aside_and_its_rows_are_sealed_again(
    tmp_path: Path, content: bytes
) -> None:
    rows = fill(tmp_path)
    Sealer(tmp_path, SETTINGS).seal(19)
    Sealer(tmp_path, SETTINGS).seal(29)
    entry = deltalog.log_dir(table_dir(tmp_path, late=False)) / f"{2:020d}.json"
    entry.write_bytes(content)
    sealer = Sealer(tmp_path, SETTINGS)
    assert sealer.watermarks()[0] == 19
    assert entry.with_name(entry.name + ".torn").exists()
    sealer.seal(29)
    assert stored(tmp_path) == sorted(rows)


def test_a_torn_checkpoint_is_set_aside_and_the_table_read_from_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltatable, "CHECKPOINT_EVERY", 2)
    rows = fill(tmp_path)
    sealer = Sealer(tmp_path, SETTINGS)
    for seq in (9, 19, 29):
        sealer.seal(seq)
    folder = table_dir(tmp_path, late=False)
    assert deltalog.last_checkpoint(folder) == 2
    torn = deltalog.log_dir(folder) / f"{2:020d}.checkpoint.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    assert Sealer(tmp_path, SETTINGS).watermarks()[0] == 29
    assert stored(tmp_path) == sorted(rows)


def test_sealing_runs_in_a_worker_thread_while_the_loop_turns(tmp_path: Path) -> None:
    rows = fill(tmp_path, ranges=3, points=20_000)

    async def main() -> int:
        job = asyncio.create_task(asyncio.to_thread(lambda: Sealer(tmp_path, SETTINGS).seal(100)))
        turns = 0
        while not job.done():
            turns += 1
            await asyncio.sleep(0)
        await job
        return turns

    assert asyncio.run(main()) > 10
    assert stored(tmp_path) == sorted(rows)


def test_log_entries_and_data_are_synced_before_a_seal_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    for module in (sealed, deltalog):
        monkeypatch.setattr(module, "fsync_file", synced.append)
        monkeypatch.setattr(module, "fsync_dir", synced.append)
    fill(tmp_path, ranges=1)
    sealer = Sealer(tmp_path, SETTINGS)
    synced.clear()
    sealer.seal(100)
    (file,) = data_files(tmp_path)
    log = deltalog.log_dir(table_dir(tmp_path, late=False))
    folders = [file.parent, file.parent.parent, log.parent]
    assert synced == [file, *folders, log / f"{1:020d}.json", log]


def test_the_file_of_last_readings_carries_points_that_fell_silent(tmp_path: Path) -> None:
    fill(tmp_path, ranges=1, points=5)
    sealer = Sealer(tmp_path, SETTINGS)
    sealer.seal(9)
    late = batch(10, [(2, T0, 7.5), (2, T0 - S, 1.0)])
    HotTier(tmp_path).write(10, 19, batch(10, [(1, T0 + 90 * S, 8.5)]), late)
    sealer.seal(19)
    state = load_latest(tmp_path)
    assert state.seq == 19
    assert state.table()["value"].to_pylist() == [0.0, 8.5, 7.5, 3.0, 4.0]


@pytest.mark.parametrize("lost", ["newest", "all"])
def test_lost_files_of_last_readings_are_made_again_from_the_tables(tmp_path: Path, lost: str) -> None:
    fill(tmp_path, ranges=2)
    sealer = Sealer(tmp_path, SETTINGS)
    sealer.seal(9)
    sealer.seal(19)
    before = load_latest(tmp_path).table()
    files = sorted(latest_dir(tmp_path).iterdir())
    assert len(files) == 2
    for path in files if lost == "all" else files[1:]:
        path.write_bytes(b"torn")
    Sealer(tmp_path, SETTINGS)
    assert load_latest(tmp_path).table().equals(before)


def test_replaced_files_of_last_readings_stay_for_the_grace(tmp_path: Path) -> None:
    fill(tmp_path, ranges=2)
    sealer = Sealer(tmp_path, SETTINGS)
    sealer.seal(9)
    sealer.seal(19)
    sealer.drop_replaced(100, now=0)
    sealer.drop_replaced(100, now=100)
    assert len(list(latest_dir(tmp_path).iterdir())) == 2
    sealer.drop_replaced(100, now=201)
    assert [p.name for p in latest_dir(tmp_path).iterdir()] == [f"{19:020d}.parquet"]


def test_bit_rot_in_a_hot_file_is_found_and_not_sealed(tmp_path: Path) -> None:
    fill(tmp_path, ranges=1)
    (file,) = list_hot(tmp_path, late=False)
    content = bytearray(file.path.read_bytes())
    content[60] ^= 1
    file.path.write_bytes(bytes(content))
    sealer = Sealer(tmp_path, SETTINGS)
    with pytest.raises((OSError, pa.ArrowException)):
        sealer.seal(100)
    assert sealer.watermarks() == (-1, -1)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_point_ranges_cover_all_points_and_exceed_the_bound_only_with_one_point(
    counts: list[int], rows: int
) -> None:
    cuts = point_ranges(np.array(counts, np.intp), rows)
    begins = [0, *cuts[:-1]]
    assert cuts == sorted(set(cuts))
    assert (cuts[-1] if cuts else 0) == len(counts)
    assert all(sum(counts[a:b]) <= rows or b - a == 1 for a, b in zip(begins, cuts, strict=False))


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(-3 * HOUR, 3 * HOUR)), max_size=40))
def test_late_order_is_by_point_time_and_receipt_and_hours_lose_no_row(keys: list[tuple[int, int]]) -> None:
    point = np.array([k[0] for k in keys], np.int32)
    time = np.array([k[1] for k in keys], np.int64)
    order = point_time_order(point, time, late=True).tolist()
    assert order == sorted(range(len(keys)), key=lambda i: (*keys[i], i))
    rows = batch(0, [(p, t, float(i)) for i, (p, t) in enumerate(keys)])
    parts = split_hours(to_arrow(rows, late=False))
    assert [hour for hour, _ in parts] == sorted({t // HOUR for _, t in keys})
    for hour, part in parts:
        assert part["value"].to_pylist() == [float(i) for i, (_, t) in enumerate(keys) if t // HOUR == hour]


def test_log_entries_carry_bounds_that_hold_for_every_row(tmp_path: Path) -> None:
    fill(tmp_path)
    Sealer(tmp_path, SETTINGS).seal(100)
    actions = pa.table(DeltaTable(str(table_dir(tmp_path, late=False))).get_add_actions(flatten=True))
    for row in actions.to_pylist():
        table = pq.ParquetFile(table_dir(tmp_path, late=False) / row["path"]).read()
        assert table.schema.remove_metadata().equals(READINGS)
        assert row["num_records"] == table.num_rows
        for name in ("point", "time"):
            values = table[name].to_pylist()
            assert (row[f"min.{name}"], row[f"max.{name}"]) == (min(values), max(values))
