"""Retention done on a real lake: what goes, what stays, and what the views say then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from storage.compact import Compactor
from storage.deltatable import TableHandle
from storage.pointmap import merge
from storage.query import connect, write_lake_sql
from storage.retire import STATE_NAME, Retirer
from storage.sealed import Sealer
from storage.settings import CompactionSettings, RetentionSettings, SealedSettings
from tests.storage_oracle import Stream, finish, main_files, read_rows
from tests.storage_rows import HOUR, T0, Row, S, registry

DAY = 24 * HOUR
DAYS = 6
POINTS = 8
CAMERA_MIN = POINTS // 2
"""Points are numbered by kind: cameras come last."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six days of two hours each, eight points, the odd ones video; compacted but for the newest hour."""
    root = tmp_path_factory.mktemp("model")
    table = registry(POINTS)
    kinds = ["river_level" if i % 2 == 0 else "video" for i in range(POINTS)]
    at = table.schema.get_field_index("kind")
    merge(root, table.set_column(at, "kind", pa.array(kinds)), T0 - DAY)
    stream = Stream(root)
    sealer = Sealer(root, SealedSettings())
    for day in range(DAYS):
        for hour in (0, 1):
            begin = T0 + day * DAY + hour * HOUR
            stream.write([(p, begin + k * 60 * S, p + k / 8) for p in range(POINTS) for k in range(5)])
            sealer.seal(stream.seq)
    finish(Compactor(root, CompactionSettings()))
    return root


@pytest.fixture
def lake(model: Path, tmp_path: Path) -> Path:
    """A copy of the model of its own."""
    root = tmp_path / "data"
    shutil.copytree(model, root)
    write_lake_sql(root, "UTC", 7200)
    return root


def count(root: Path, view: str, where: str = "true") -> int:
    """Rows of a view, by an analyst."""
    with connect(root) as con:
        found = con.execute(f"SELECT count(*) FROM {view} WHERE {where}").fetchone()
        assert found is not None
        rows: int = found[0]
        return rows


def run_twice(root: Path, settings: RetentionSettings) -> Retirer:
    """The first run believes a day, the second acts."""
    retirer = Retirer(root, settings)
    assert retirer.run().raw_hours == 0
    retirer.run()
    return retirer


def test_raw_goes_two_days_a_run_and_rollups_stay(lake: Path) -> None:
    """Six days, two kept beside today: two go in the first run, the third in the second."""
    before = count(lake, "rollup_1h"), count(lake, "rollup_1m")
    retirer = run_twice(lake, RetentionSettings(raw_days=2))
    assert count(lake, "readings") == (DAYS - 2) * 2 * POINTS * 5
    report = retirer.run()
    assert (report.raw_hours, report.rows) == (2, 2 * POINTS * 5)
    assert count(lake, "readings") == 3 * 2 * POINTS * 5
    assert retirer.run().raw_hours == 0
    assert (count(lake, "rollup_1h"), count(lake, "rollup_1m")) == before


def test_files_stay_for_the_grace_and_then_go(lake: Path) -> None:
    """A session that was opened before the run reads on."""
    with connect(lake) as con:
        retirer = run_twice(lake, RetentionSettings(raw_days=2))
        live = set(main_files(lake))
        old = [p for p in (lake / "lake" / "readings").glob("date=*/hour=*/c*.parquet") if p not in live]
        retirer.tidy(7200, 0.0)
        assert con.execute("SELECT count(*) FROM readings").fetchone() == (DAYS * 2 * POINTS * 5,)
    retirer.tidy(7200, 7300.0)
    assert old
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in live)


def test_a_kind_goes_and_the_others_stay(lake: Path) -> None:
    """Video for one day, everything else for ever; its rollups stay too."""
    before = count(lake, "rollup_1h")
    retirer = run_twice(lake, RetentionSettings(raw_days_by_kind={"video": 1}))
    retirer.run()
    video = count(lake, "readings", "kind = 'video'")
    assert video == 2 * 2 * (POINTS // 2) * 5
    assert count(lake, "readings", "kind <> 'video'") == DAYS * 2 * (POINTS // 2) * 5
    assert count(lake, "rollup_1h") == before
    assert Retirer(lake, retirer.settings).run().thinned_hours == 0


LATE = 20


def late_video(root: Path, day: int) -> None:
    """Late readings of a camera in the first hour of a day, sealed; that hour waits for a compaction then."""
    stream = Stream(root)
    stream.seq = 1_000
    camera, newest, begin = POINTS - 1, T0 + (DAYS - 1) * DAY + HOUR + 50 * 60 * S, T0 + day * DAY
    stream.write([(camera, newest, 1.0), *((camera, begin + (600 + k) * S, 1.0) for k in range(LATE))])
    Sealer(root, SealedSettings()).seal(stream.seq)


def fold(root: Path) -> None:
    """Compact what waits."""
    done = finish(Compactor(root, CompactionSettings(fold_s=0)))
    assert sum(report.late_new for report in done) == LATE


def old_video(root: Path) -> list[Row]:
    """Rows of cameras in the main table that are older than one day and today."""
    return [
        row for row in read_rows(main_files(root)) if row[0] >= CAMERA_MIN and row[1] < T0 + (DAYS - 2) * DAY
    ]


@pytest.mark.parametrize("anew", [False, True], ids=["running", "restarted"])
def test_an_hour_that_was_passed_over_is_come_back_to(lake: Path, anew: bool) -> None:
    """It waited for its compaction when its neighbours lost their video; nothing later asks for that hour."""
    late_video(lake, day=1)
    retirer = run_twice(lake, RetentionSettings(raw_days_by_kind={"video": 1}))
    retirer.run()
    assert len(old_video(lake)) == POINTS // 2 * 5
    fold(lake)
    retirer = Retirer(lake, retirer.settings) if anew else retirer
    assert retirer.run().thinned_hours == 1
    assert not old_video(lake)
    assert retirer.run().thinned_hours == 0


def test_what_is_compacted_into_a_thinned_hour_between_two_runs_goes_too(lake: Path) -> None:
    """No run saw the hour wait."""
    retirer = run_twice(lake, RetentionSettings(raw_days_by_kind={"video": 1}))
    retirer.run()
    late_video(lake, day=1)
    fold(lake)
    assert (retirer.run().thinned_hours, retirer.run().thinned_hours) == (1, 0)


def test_a_thinning_that_fails_leaves_nothing_a_later_compaction_would_write_through(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number it did not use is given again: a name of that number must not lead to the day's older rollup."""
    settings = RetentionSettings(raw_days_by_kind={"video": 1})
    retirer = run_twice(lake, settings)
    before = count(lake, "rollup_1h")
    rollups = sorted(lake.glob("lake/rollup_1?/*.parquet"))

    def no_room(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(TableHandle, "commit", no_room)
        with pytest.raises(OSError, match="No space"):
            retirer.run()
    assert sorted(lake.glob("lake/rollup_1?/*.parquet")) == rollups
    assert count(lake, "rollup_1h") == before


def test_a_lost_state_costs_a_look_and_rewrites_nothing(lake: Path) -> None:
    """Hours without that kind any more are left as they are."""
    settings = RetentionSettings(raw_days_by_kind={"video": 1})
    run_twice(lake, settings).run()
    files = main_files(lake)
    (lake / "lake" / STATE_NAME).unlink()
    assert run_twice(lake, settings).run().thinned_hours == 0
    assert main_files(lake) == files


def test_compaction_goes_on_beside_it(lake: Path) -> None:
    """Numbers are shared: an hour compacted after a thinning has its own number, rollups and rows."""
    run_twice(lake, RetentionSettings(raw_days_by_kind={"video": 1}))
    stream = Stream(lake)
    stream.seq = 1_000
    stream.write([(p, T0 + (DAYS + 1) * DAY + k * 60 * S, 1.0) for p in range(POINTS) for k in range(5)])
    stream.write([(p, T0 + (DAYS + 1) * DAY + 3 * HOUR, 1.0) for p in range(POINTS)])
    Sealer(lake, SealedSettings()).seal(stream.seq)
    assert finish(Compactor(lake, CompactionSettings()))
    assert count(lake, "rollup_1h", "count > 0") == count(
        lake, "(SELECT DISTINCT point, time FROM rollup_1h)"
    )
    assert count(lake, "readings", "kind <> 'video'") == (DAYS * 2 * 5 + 6) * (POINTS // 2)


def test_a_jump_of_the_clock_deletes_nothing(lake: Path) -> None:
    """Readings of 2100 among those of 2026."""
    retirer = Retirer(lake, RetentionSettings(raw_days=2))
    retirer.run()
    stream = Stream(lake)
    stream.seq = 1_000
    stream.write([(0, 4_102_444_800_000_000, 1.0)])
    Sealer(lake, SealedSettings()).seal(stream.seq)
    report = retirer.run()
    assert report.raw_hours == 0
    assert "ahead" in report.doubt
