"""A lake grows a column: old files are not written anew, every reader sees them, an older version refuses."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import growth
from storage.deltatable import TableHandle
from storage.growth import LakeNewer, conform, grow, refuse_newer
from storage.pointmap import merge
from storage.query import connect, write_lake_sql
from storage.schema import READINGS, reading_options, with_metadata
from storage.scrub import scrub
from storage.seal_plan import FileStats
from storage.sealed import Sealer, add_action, table_dir
from storage.settings import SealedSettings
from tests.lake_folder import HOT_RANGES, POINTS, RECORDS_A_RANGE, SEALED_RANGES, fill, late_of
from tests.storage_rows import T0, registry

GROWN = READINGS.append(pa.field("quality", pa.float64()))
READ_BY_PLACE = re.compile(r"hive_partitioning = false(?!, union_by_name)")
BY_NAME = "hive_partitioning = false, union_by_name = true"
"""What a version with another column writes into lake.sql: DuckDB then opens each file for its columns, which the
present version pays for alerts alone."""


def add_grown_file(root: Path) -> int:
    """A sealed file as a later version writes it: one more column. Its rows."""
    folder = table_dir(root, late=False)
    old = sorted(folder.glob("date=*/hour=05/*.parquet"))[0]
    rows = pq.ParquetFile(old).read()
    time = pa.array([t.value + 1 for t in rows["time"]], pa.int64()).cast(rows.schema.field("time").type)
    rows = rows.set_column(1, READINGS.field("time"), time).append_column(
        GROWN.field("quality"), pa.array([0.5] * rows.num_rows)
    )
    path = old.with_name(f"{900:020d}-{909:020d}-0.parquet")
    schema = with_metadata(GROWN)
    with pq.ParquetWriter(path, schema, **reading_options(schema)) as writer:
        writer.write_table(rows.cast(schema).replace_schema_metadata(schema.metadata))
    stats = FileStats()
    stats.add(rows)
    TableHandle(folder).commit("later", 1, [add_action(folder, path, T0 // 3_600_000_000, stats)])
    return int(rows.num_rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


def test_old_and_new_files_are_read_together_by_views_macros_and_another_engine(root: Path) -> None:
    before = {p: p.read_bytes() for p in table_dir(root, False).glob("date=*/hour=*/*.parquet")}
    assert grow(table_dir(root, False), GROWN) == ["quality"]
    assert grow(table_dir(root, False), GROWN) == []
    added = add_grown_file(root)
    assert all(path.read_bytes() == was for path, was in before.items())
    write_lake_sql(root, "Asia/Shanghai", 7200)
    con = connect(root)
    sealed, every = SEALED_RANGES * POINTS, (SEALED_RANGES + HOT_RANGES) * POINTS
    late = len({(p, t) for k in range(SEALED_RANGES + HOT_RANGES) for p, t, _ in late_of(k)})
    assert con.execute("SELECT count(*) FROM readings").fetchall() == [(every + late + added,)]
    history = "SELECT count(*) FROM history('p-00000', '2025-12-31', '2026-01-02')"
    (count,) = con.execute(history).fetchall()[0]
    ranges = range(SEALED_RANGES + HOT_RANGES)
    assert count == len(ranges) + 1 + len([k for k in ranges if late_of(k)])
    text, read = READ_BY_PLACE.subn(BY_NAME, (root / "lake.sql").read_text())
    assert read
    con.execute(text)
    assert con.execute("SELECT count(*) FROM readings").fetchall() == [(every + late + added,)]
    assert con.execute(history).fetchall() == [(count,)]
    frame = pl.scan_delta(str(table_dir(root, False))).collect()
    assert frame["quality"].count() == added
    assert (frame.height, frame["quality"].null_count()) == (sealed + added, sealed)


def test_a_column_that_is_not_nullable_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="not nullable"):
        grow(table_dir(root, False), READINGS.append(pa.field("must", pa.int32(), nullable=False)))


def test_rows_of_an_older_file_have_null_where_a_column_came_later() -> None:
    old = READINGS.empty_table()
    assert conform(old, READINGS) is old
    assert conform(old, GROWN).schema.names == GROWN.names
    one = pa.table({"point": pa.array([1], pa.int32())})
    both = pa.schema([pa.field("point", pa.int32()), pa.field("quality", pa.float64())])
    assert conform(one, both).to_pylist() == [{"point": 1, "quality": None}]


def test_an_older_version_refuses_a_table_with_a_column_it_does_not_know(root: Path) -> None:
    refuse_newer(root)
    grow(table_dir(root, False), GROWN)
    with pytest.raises(LakeNewer, match="quality"):
        refuse_newer(root)


def test_an_older_version_refuses_a_newer_format(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "FORMAT_VERSION", 0)
    with pytest.raises(LakeNewer, match="has format 1; this version of Yuzui knows 0"):
        refuse_newer(root)


def test_a_folder_without_a_lake_is_not_refused(tmp_path: Path) -> None:
    refuse_newer(tmp_path)


def test_a_new_kind_of_point_needs_no_change_of_any_file(root: Path) -> None:
    before = [p.read_bytes() for p in sorted(table_dir(root, False).glob("date=*/hour=*/*.parquet"))]
    more = pa.concat_tables([registry(POINTS), registry(POINTS + 3, kind="pm25").slice(POINTS)])
    table = merge(root, more, T0)
    assert (len(table), "pm25" in table.kinds) == (POINTS + 3, True)
    assert [p.read_bytes() for p in sorted(table_dir(root, False).glob("date=*/hour=*/*.parquet"))] == before
    write_lake_sql(root, "UTC", 7200)
    assert connect(root).execute("SELECT count(*) FROM points WHERE kind = 'pm25'").fetchall() == [(3,)]
    assert scrub(root).findings == []
    assert Sealer(root, SealedSettings()).watermarks()[0] == SEALED_RANGES * RECORDS_A_RANGE
