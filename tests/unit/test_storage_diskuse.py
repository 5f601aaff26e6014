"""The disk forecast: what an hour of this city costs, from hours that have settled."""

from __future__ import annotations

from pathlib import Path

from storage.diskuse import disk_use


def sized(path: Path, size: int) -> None:
    """A file of ``size`` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def compacted(root: Path, date: str, hour: int, size: int, number: int = 1) -> None:
    """An hour of one compacted file."""
    folder = root / "lake" / "readings" / f"date={date}" / f"hour={hour:02d}"
    sized(folder / f"c{number:020d}-0000.parquet", size)


def test_unknown_until_an_hour_has_settled(tmp_path: Path) -> None:
    """An empty folder, and one whose only hour is not compacted yet."""
    assert disk_use(tmp_path).bytes_a_day is None
    folder = tmp_path / "lake" / "readings" / "date=2026-07-01" / "hour=05"
    sized(folder / f"{1:020d}-{9:020d}-0.parquet", 100)
    assert disk_use(tmp_path).days_left is None


def test_a_day_costs_24_settled_hours_and_their_rollups(tmp_path: Path) -> None:
    """Two settled hours of 1,000 bytes with 100 of minute rollups each, 500 a day of hour rollups."""
    first = 20_635 * 24
    for hour in (0, 1):
        compacted(tmp_path, "2026-07-01", hour, 1_000)
        sized(tmp_path / "lake" / "rollup_1m" / f"{first + hour}-{1:020d}.parquet", 100)
    sized(tmp_path / "lake" / "rollup_1h" / f"20635-{1:020d}.parquet", 400)
    sized(tmp_path / "lake" / "rollup_1h" / f"20635-{2:020d}.parquet", 500)
    use = disk_use(tmp_path)
    assert use.bytes_a_day == 24 * 1_100 + 500
    assert use.days_left == use.free_bytes / use.bytes_a_day


def test_what_a_compaction_replaced_counts_no_more(tmp_path: Path) -> None:
    """It stays a grace for readers and then goes."""
    compacted(tmp_path, "2026-07-01", 3, 9_000, number=1)
    compacted(tmp_path, "2026-07-01", 3, 1_000, number=2)
    assert disk_use(tmp_path).bytes_a_day == 24 * 1_000


def test_only_the_newest_day_counts(tmp_path: Path) -> None:
    """The city grew: what it cost last year says nothing."""
    for hour in range(24):
        compacted(tmp_path, "2025-07-01", hour, 1)
        compacted(tmp_path, "2026-07-01", hour, 1_000)
    assert disk_use(tmp_path).bytes_a_day == 24 * 1_000
