"""A sealed table whose log or files a disk has damaged opens again, with every row that can still be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from storage.compact import Compactor
from storage.deltalog import checkpoint
from storage.hashes import keep_hashes
from storage.hot import HotTier, list_hot
from storage.query import connect, write_lake_sql
from storage.repair import mend_tables, repair_files
from storage.scrub import scrub
from storage.sealed import Sealer, table_dir
from storage.settings import CompactionSettings, SealedSettings
from tests.lake_folder import (
    HOT_RANGES,
    POINTS,
    RECORDS_A_RANGE,
    SEALED_RANGES,
    fill,
    flip_at,
    late_of,
    rows_of,
    write_range,
)  # fmt: skip
from tests.storage_rows import HOUR, Row

TOTAL = SEALED_RANGES + HOT_RANGES


def expected() -> list[Row]:
    """What the view readings must say: the late rows of one time replace each other and nothing else here."""
    late = {(p, t): v for k in range(TOTAL) for p, t, v in late_of(k)}
    return sorted(
        [row for k in range(TOTAL) for row in rows_of(k)] + [(p, t, v) for (p, t), v in late.items()]
    )


def seen(root: Path) -> list[Row]:
    write_lake_sql(root, "Asia/Shanghai", 7200)
    con = connect(root)
    found = con.execute("SELECT point, epoch_us(time), value FROM readings ORDER BY ALL").fetchall()
    con.close()
    return [(int(p), int(t), float(v)) for p, t, v in found]


def by_polars(root: Path) -> int:
    return pl.scan_delta(str(table_dir(root, late=False))).collect().height


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


def entry(root: Path, version: int, late: bool = False) -> Path:
    return table_dir(root, late) / "_delta_log" / f"{version:020d}.json"


def drop_sealed_hot(root: Path) -> None:
    """As after the grace: the hot files of what is sealed are gone."""
    hot, (main, late) = HotTier(root), Sealer(root, SealedSettings()).watermarks()
    hot.recover(main, late)
    hot.drop(main, late, 0.0, 0.0)
    hot.drop(main, late, 0.0, 1000.0)


def test_nothing_is_done_about_a_folder_that_is_whole(root: Path) -> None:
    assert mend_tables(root).said == []
    assert seen(root) == expected()


def flip_path(path: Path) -> None:
    """One digit in the first path of an entry becomes another: it still parses."""
    flip_at(path, path.read_bytes().index(b"hour=") + 6)


def cut(path: Path) -> None:
    os.truncate(path, 30)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("hurt", [flip_path, cut, Path.unlink])
def test_an_entry_in_the_middle_of_the_log_is_written_anew_from_the_files(
    root: Path, hurt: Callable[[Path], None], version: int, late: bool
) -> None:
    watermarks = Sealer(root, SealedSettings()).watermarks()
    drop_sealed_hot(root)
    if late and version == 2:
        version = len(list(entry(root, 0, late).parent.glob("*.json"))) - 1
        watermarks_last = True
    else:
        watermarks_last = False
    hurt(entry(root, version, late))
    damage = mend_tables(root)
    if hurt is Path.unlink and watermarks_last:
        return  # the newest entry gone without a trace is a commit that never happened
    assert any("written anew" in sentence for sentence in damage.said), damage.said
    assert seen(root) == expected()
    assert Sealer(root, SealedSettings()).watermarks() == watermarks
    assert scrub(root).findings == []
    assert by_polars(root) == SEALED_RANGES * POINTS


def test_two_entries_side_by_side_are_written_anew(root: Path) -> None:
    watermarks = Sealer(root, SealedSettings()).watermarks()
    cut(entry(root, 2))
    cut(entry(root, 3))
    assert len(mend_tables(root).set_aside) == 2
    assert seen(root) == expected()
    assert Sealer(root, SealedSettings()).watermarks() == watermarks


def test_a_torn_newest_entry_that_was_never_synced_is_set_aside_and_its_rows_are_sealed_again(
    root: Path,
) -> None:
    torn = entry(root, SEALED_RANGES + 1)
    torn.write_text('{"commitInfo":{}}\n{"add":{"pa')
    assert mend_tables(root).said == []
    assert not torn.exists()
    assert seen(root) == expected()


def test_a_damaged_checkpoint_is_set_aside_and_the_table_read_from_the_one_before(root: Path) -> None:
    folder = table_dir(root, late=False)
    checkpoint(DeltaTable(str(folder)), folder, clean=False)
    newest = sorted(folder.glob("_delta_log/*.checkpoint.parquet"))[-1]
    flip_at(newest, newest.stat().st_size // 2)
    damage = mend_tables(root)
    assert [path.name for path in damage.set_aside] == [newest.name + ".bad"]
    assert seen(root) == expected()
    assert scrub(root).findings == []


@pytest.mark.parametrize("pointer", [b"", b'{"version":77,"size":1}', b"\0" * 60])
def test_a_damaged_pointer_to_the_checkpoint_is_written_anew(root: Path, pointer: bytes) -> None:
    (table_dir(root, late=False) / "_delta_log" / "_last_checkpoint").write_bytes(pointer)
    mend_tables(root)
    assert seen(root) == expected()
    assert scrub(root).findings == []


@pytest.mark.parametrize("keep_hot", [True, False])
def test_a_log_that_leads_nowhere_is_begun_anew_from_the_files_on_disk(root: Path, keep_hot: bool) -> None:
    watermarks = Sealer(root, SealedSettings()).watermarks()
    if not keep_hot:
        drop_sealed_hot(root)
    for late in (False, True):
        for path in (table_dir(root, late) / "_delta_log").glob("*.checkpoint.parquet"):
            cut(path)
        entry(root, 0, late).unlink()
        entry(root, 1, late).unlink()
    damage = mend_tables(root)
    assert sum("begun anew" in sentence for sentence in damage.said) == 2
    assert seen(root) == expected()
    assert Sealer(root, SealedSettings()).watermarks()[0] == watermarks[0]
    assert by_polars(root) == SEALED_RANGES * POINTS


def compacted(root: Path) -> None:
    """Seal everything and compact what is over, as the engine would."""
    sealer = Sealer(root, SealedSettings())
    write_range(hot := HotTier(root), TOTAL + 20)
    hot.sync()
    sealer.seal((TOTAL + 30) * RECORDS_A_RANGE)
    compactor = Compactor(root, CompactionSettings())
    jobs = compactor.look(0.0)
    assert any(job.kind == "compact" for job in jobs)
    for job in jobs:
        for _ in compactor.run(job):
            pass


@pytest.mark.parametrize("replaced_gone", [True, False])
def test_a_lost_log_of_compacted_hours_shows_each_row_once(root: Path, replaced_gone: bool) -> None:
    compacted(root)
    drop_sealed_hot(root)
    rows = sorted([*expected(), *rows_of(TOTAL + 20), *late_of(TOTAL + 20)])
    assert seen(root) == rows
    if replaced_gone:
        for late in (False, True):
            folder = table_dir(root, late)
            live = {Path(uri.removeprefix("file://")) for uri in DeltaTable(str(folder)).file_uris()}
            for path in folder.glob("date=*/hour=*/*.parquet"):
                if path not in live:
                    path.unlink()
    for late in (False, True):
        for path in (table_dir(root, late) / "_delta_log").glob("*.checkpoint.parquet"):
            cut(path)
        entry(root, 0, late).unlink()
    mend_tables(root)
    assert seen(root) == rows


def test_a_lost_entry_of_a_compaction_takes_out_what_it_replaced(root: Path) -> None:
    compacted(root)
    rows = seen(root)
    entries = sorted((table_dir(root, False) / "_delta_log").glob("*.json"))
    hurt = [
        path for path in entries if '"yuzui-compact"' in (text := path.read_text()) and '"remove"' in text
    ]
    replaced = [line for path in hurt[:1] for line in path.read_text().splitlines() if '"remove"' in line]
    assert replaced
    for path in table_dir(root, False).glob("date=*/hour=*/*.parquet"):
        if f"/{path.name}" in "".join(replaced):
            path.unlink()
    cut(hurt[0])
    mend_tables(root)
    assert seen(root) == rows


def sealed_file(root: Path) -> Path:
    return sorted(table_dir(root, late=False).glob("date=*/hour=05/*.parquet"))[0]


def test_a_rotten_sealed_file_is_restored_whole_from_hot_files_in_their_grace(root: Path) -> None:
    path = sealed_file(root)
    flip_at(path, 200)
    (said,) = repair_files(root, [path])
    assert f"0 of {POINTS} rows" in said
    assert "hot files" in said
    assert path.with_name(path.name + ".bad").exists()
    assert seen(root) == expected()
    assert scrub(root).findings == []


def test_without_hot_files_the_whole_row_groups_stay_and_the_rest_is_said_to_be_lost(root: Path) -> None:
    drop_sealed_hot(root)
    path = sealed_file(root)
    with pq.ParquetFile(path) as file:
        table = file.read()
    pq.write_table(table, path, row_group_size=10, write_page_checksum=True)
    rewritten(root, path)
    column = pq.read_metadata(path).row_group(2).column(3)
    flip_at(path, column.data_page_offset + column.total_compressed_size // 2)
    damage = mend_tables(root)
    assert damage.said == []
    (said,) = repair_files(root, [path])
    assert f"10 of {POINTS} rows" in said
    lost = {(p, t) for p, t, _ in rows_of(0) if 20 <= p < 30}
    assert seen(root) == [row for row in expected() if row[:2] not in lost]


def rewritten(root: Path, path: Path) -> None:
    """Tell the table and the list of hashes of the file's new contents."""
    for log in (table_dir(root, False) / "_delta_log").glob("*.json"):
        text = log.read_text()
        lines = [
            line if path.name not in line else with_size(line, path.stat().st_size)
            for line in text.splitlines()
        ]
        log.write_text("\n".join(lines) + "\n")
        keep_hashes(root, [log])
    keep_hashes(root, [path])


def with_size(line: str, size: int) -> str:
    head, _, rest = line.partition('"size":')
    return f'{head}"size":{size},{rest.partition(",")[2]}'


def test_a_sealed_file_that_is_gone_is_taken_out_at_the_next_start_so_that_queries_go_on(root: Path) -> None:
    drop_sealed_hot(root)
    sealed_file(root).unlink()
    with pytest.raises(duckdb.Error):
        seen(root)
    damage = mend_tables(root)
    assert damage.lost_rows == POINTS
    assert seen(root) == [row for row in expected() if row not in rows_of(0)]
    assert len(list_hot(root, False)) == HOT_RANGES


def test_hours_of_the_fill_are_as_the_tests_believe(root: Path) -> None:
    assert {row[1] // HOUR for row in rows_of(0)} == {490_901}
