"""Claims about the probe: each reading counts once, when it is first seen, and the wait is for real news."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.simulate.probe import NewFile, Probe, refresh_line


class Lake:
    """A lake.sql whose refresh is real: rows added later are seen only after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[tuple[int, int]] = []
        pq.write_table(
            pa.table({"point_id": ["a", "b", "c"], "point": pa.array([7, 8, 9], pa.int32())}),
            folder / "p.parquet",
        )
        (folder / "lake.sql").write_text(
            "SET VARIABLE yuzui = 0;\n"
            f"CREATE VIEW points AS FROM read_parquet('{folder}/p.parquet');\n"
            f"CREATE VIEW readings AS FROM read_parquet('{folder}/r.parquet');\n"
        )
        self.write()

    def write(self, *rows: tuple[int, int]) -> None:
        self.rows += rows
        points = pa.array([p for p, _ in self.rows], pa.int32())
        times = pa.array([t for _, t in self.rows], pa.timestamp("us", tz="UTC"))
        pq.write_table(pa.table({"point": points, "time": times}), self.folder / "r.parquet")


def test_each_reading_of_a_sentinel_counts_once_when_it_is_first_seen(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    now = time.time_ns() // 1000
    probe = Probe(tmp_path, ["a", "c"], now - 5_000_000)
    assert probe.look() == 0
    lake.write((7, now - 3_000_000), (8, now - 3_000_000), (7, now - 9_000_000))
    assert probe.look() == 1, "b is no sentinel, and what is older than the start does not count"
    assert probe.look() == 0
    lake.write((7, now - 2_000_000), (7, now - 1_000_000), (9, now - 4_000_000))
    assert probe.look() == 3, "none is skipped, though two came at once and one point was late"
    report = probe.report()
    assert (report.seen, report.queries, report.unseen_points) == (4, 4, 0)
    assert report.max_s >= 4.0
    assert 1.0 <= report.p50_s < report.max_s


def test_a_folder_tells_of_each_new_file_once(tmp_path: Path) -> None:
    news = NewFile(tmp_path / "hot")
    assert not news.seen()
    (tmp_path / "hot").mkdir()
    (tmp_path / "hot" / "1.tmp").touch()
    assert not news.seen()
    (tmp_path / "hot" / "1.tmp").rename(tmp_path / "hot" / "1.parquet")
    assert news.seen()
    assert not news.seen()
    (tmp_path / "hot" / "2.parquet").touch()
    assert news.seen()


def test_lake_sql_names_its_refresh() -> None:
    assert refresh_line("-- x\nSET VARIABLE yuzui = (SELECT 1);\n") == "SET VARIABLE yuzui = (SELECT 1);"
    with pytest.raises(ValueError, match="refresh"):
        refresh_line("SELECT 1;")
