"""What scrub says of damage: which rows, hours and points, where they stand once more, and what is no damage."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage.deltatable import TableHandle
from storage.hashes import kept
from storage.hot import HotTier, list_hot
from storage.journal import Journal
from storage.records import Tick, encode
from storage.scrub import Finding, scrub
from storage.scrub_journal import check_segment
from storage.scrub_parquet import bad_rows
from storage.seal_plan import COMPACT_APP
from storage.sealed import Sealer
from storage.segment import RECORD_HEAD, SEGMENT_HEAD, SegmentFile, list_segments
from storage.settings import SealedSettings
from tests.engines import yuzui_here
from tests.lake_folder import JOURNAL, POINTS, RECORDS_A_RANGE, SEALED_RANGES, fill, flip_at, write_range
from tests.storage_rows import T0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "data"
    fill(folder)
    assert scrub(folder).findings == []
    return folder


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def only(root: Path) -> Finding:
    (finding,) = scrub(root).findings
    return finding


def value_page(path: Path) -> int:
    """An offset in the middle of the value column's pages."""
    column = pq.read_metadata(path).row_group(0).column(3)
    assert column.path_in_schema == "value"
    begin = column.dictionary_page_offset or column.data_page_offset
    return int(begin + column.total_compressed_size - 4)


def test_a_damaged_page_is_named_with_its_column_points_times_and_hour(root: Path) -> None:
    path = sorted((root / "lake" / "readings").glob("date=*/hour=05/*.parquet"))[0]
    flip_at(path, value_page(path))
    finding = only(root)
    (bad,) = finding.bad
    assert (bad.row_group, bad.columns, bad.rows) == (0, ("value",), POINTS)
    assert bad.points == (0, POINTS - 1)
    assert bad.times is not None
    assert int(bad.times[0].timestamp() * 1e6) == T0
    assert "2026-01-01 05:00 UTC" in finding.affected
    assert "hot files" in finding.source
    assert "repair" in finding.advice


def test_a_damaged_footer_is_told_from_a_damaged_page(root: Path) -> None:
    path = sorted((root / "lake" / "readings").glob("date=*/hour=05/*.parquet"))[0]
    flip_at(path, path.stat().st_size - 12)
    assert "hash differs" in only(root).what


def test_a_hot_file_above_the_watermark_can_be_derived_from_the_journal_again(root: Path) -> None:
    newest = list_hot(root, late=False)[-1]
    flip_at(newest.path, value_page(newest.path))
    finding = only(root)
    assert (finding.source, finding.advice) == (
        "the journal still holds them",
        "restart the engine: its rows are derived again",
    )


def test_a_hot_file_that_is_sealed_already_costs_nothing(root: Path) -> None:
    oldest = list_hot(root, late=False)[0]
    flip_at(oldest.path, value_page(oldest.path))
    assert only(root).source == "all its rows are sealed"


@pytest.mark.parametrize(
    ("offset", "what"),
    [
        (3, "head"),
        (SEGMENT_HEAD.size + RECORD_HEAD.size + 40, "checksum"),
        (SEGMENT_HEAD.size + 1, "checksum"),
    ],
)
def test_damage_of_a_segment_names_the_records_lost_and_that_they_are_sealed(
    root: Path, offset: int, what: str
) -> None:
    first, path = list_segments(root / "journal")[0]
    flip_at(path, offset)
    finding = only(root)
    assert what in finding.what
    assert f"records {first} to " in finding.affected
    assert "sealed" in finding.source


def test_a_flip_in_room_that_no_record_uses_is_found_and_costs_nothing(root: Path) -> None:
    path = list_segments(root / "journal")[-1][1]
    flip_at(path, path.stat().st_size - 1)
    assert only(root).affected == "nothing"


def test_a_file_the_table_names_and_that_is_gone_is_damage(root: Path) -> None:
    sorted((root / "lake" / "readings").glob("date=*/hour=05/*.parquet"))[0].unlink()
    assert only(root).what == "the table names it and it is not there"


def test_a_missing_entry_in_the_middle_of_a_log_is_damage(root: Path) -> None:
    (root / "lake" / "readings" / "_delta_log" / f"{2:020d}.json").unlink()
    assert [f.what for f in scrub(root).findings] == ["this entry of the log is missing"]


def test_a_file_without_a_hash_is_read_whole_once_and_has_one_then(root: Path) -> None:
    hot = HotTier(root)
    write_range(hot, 20)
    assert scrub(root).hashed == len([f for f in list_hot(root, False) if f.first == 201])
    assert scrub(root).hashed == 0


def test_a_torn_file_without_a_hash_is_damage_but_not_one_that_no_commit_names(root: Path) -> None:
    hot = list_hot(root, late=False)[-1].path
    torn = hot.with_name(f"{900:020d}-{901:020d}-1-0.parquet")
    torn.write_bytes(hot.read_bytes()[:-20])
    partition = next((root / "lake" / "readings").glob("date=*/hour=05"))
    (partition / f"{900:020d}-{901:020d}-0.parquet").write_bytes(b"PAR1")
    assert only(root).path.endswith(torn.name)


def test_a_rollup_that_is_being_written_is_no_damage_and_one_that_is_committed_is(root: Path) -> None:
    """Rollups are written for seconds under their own names and count from the commit of their number on."""
    for number in (0, 7):
        write_log_app(root, COMPACT_APP, number)
        for folder in ("rollup_1m", "rollup_1h"):
            (root / "lake" / folder).mkdir(exist_ok=True)
            (root / "lake" / folder / f"490000-{7:020d}.parquet").write_bytes(b"PAR1 and no more yet")
        found = [finding.path.split("/")[1] for finding in scrub(root).findings]
        assert found == ([] if number == 0 else ["rollup_1h", "rollup_1m"])


def write_log_app(root: Path, app: str, number: int) -> None:
    """A commit that takes and brings nothing."""
    TableHandle(root / "lake" / "readings").commit(app, number, [])


def test_fast_looks_at_lengths_of_table_files_and_at_all_else(root: Path) -> None:
    path = sorted((root / "lake" / "readings").glob("date=*/hour=05/*.parquet"))[0]
    flip_at(path, value_page(path))
    assert scrub(root, fast=True).findings == []
    flip_at(root / "lake.sql", 100)
    assert [f.path for f in scrub(root, fast=True).findings] == ["lake.sql"]
    os.truncate(path, path.stat().st_size - 1)
    assert len(scrub(root, fast=True).findings) == 2


def test_a_scrub_beside_commits_seals_and_files_that_go_finds_nothing(root: Path) -> None:
    (root / "LOCK").write_text(f"{os.getpid()}\n")
    hot, sealer = HotTier(root), Sealer(root, SealedSettings())
    hot.recover(*sealer.watermarks())
    journal = Journal.open(root / "journal", JOURNAL)
    ended = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for k in range(SEALED_RANGES + 3, SEALED_RANGES + 23):
                journal.commit([encode(Tick(T0, True, {"k": k})) for _ in range(RECORDS_A_RANGE)])
                write_range(hot, k)
                hot.sync()
                report = sealer.seal((k - 1) * RECORDS_A_RANGE)
                hot.drop(report.main_seq, report.late_seq, 0.0, k * 1000.0)
                journal.cut(report.main_seq - 30)
        except BaseException as fault:
            failed.append(fault)
        finally:
            ended.set()

    worker = threading.Thread(target=work)
    worker.start()
    looks = 0
    while not ended.is_set():
        assert scrub(root).findings == []
        looks += 1
    worker.join()
    assert failed == []
    assert looks
    journal.close()
    assert scrub(root).findings == []
    assert len(kept(root).sums) > 40


def test_a_group_written_right_behind_a_look_at_the_end_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine writes one a second, and to look through the unused room of a segment takes about as long."""
    journal = Journal.open(tmp_path, JOURNAL)
    used_end = SegmentFile.used_end

    def write_on(segment: SegmentFile, offset: int) -> int:
        end = used_end(segment, offset)
        journal.commit([encode(Tick(T0, True, {}))])
        return end

    journal.commit([encode(Tick(T0, True, {}))])
    monkeypatch.setattr(SegmentFile, "used_end", write_on)
    ((first, path),) = list_segments(tmp_path)
    assert check_segment(path, first, None, True, lambda _: None) == []
    journal.close()


def test_reading_no_faster_than_asked_takes_as_long_as_the_bytes_need(root: Path) -> None:
    size = scrub(root).bytes
    assert scrub(root, bytes_per_s=size / 0.3).seconds >= 0.25


def test_page_by_page_a_whole_file_has_no_bad_rows(root: Path) -> None:
    assert [bad_rows(p) for p in sorted((root / "lake").rglob("hour=*/*.parquet"))[:4]] == [[]] * 4


def test_the_command_says_what_is_damaged_and_ends_with_one(root: Path) -> None:
    well = yuzui_here("scrub", "--data", str(root), "--full-speed")
    assert well.returncode == 0
    assert "all whole" in well.stdout
    flip_at(root / "lake.sql", 50)
    ill = yuzui_here("scrub", "--data", str(root), "--full-speed")
    assert ill.returncode == 1
    assert "DAMAGED  lake.sql" in ill.stdout
    lines = yuzui_here("scrub", "--data", str(root), "--full-speed", "--json").stdout.splitlines()
    assert json.loads(lines[0])["finding"]["path"] == "lake.sql"
    assert json.loads(lines[-1])["findings"] == 1


def test_the_command_refuses_a_folder_without_a_lake(tmp_path: Path) -> None:
    assert yuzui_here("scrub", "--data", str(tmp_path)).returncode == 2
