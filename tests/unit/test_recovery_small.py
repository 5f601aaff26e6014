"""The map of points, logs, snapshots and the outbox after a disk has damaged them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from anomaly.alerts.outbox import Outbox
from anomaly.settings import AlertSettings
from ingest.outboxrecovery import continue_numbers, set_aside_if_damaged
from storage import pointmap, snapshot
from storage.logs import ParquetLog
from storage.pointmap import PointsLost, backup_file, points_file
from storage.query import ensure_empty
from storage.recovery import Damage
from storage.schema import QUARANTINE
from storage.scrub import scrub
from tests.lake_folder import POINTS, flip_at, log_rows
from tests.storage_rows import T0, map_points, registry


def hurt(path: Path) -> None:
    flip_at(path, path.stat().st_size // 2)


@pytest.mark.parametrize("how", [hurt, Path.unlink, lambda p: p.write_bytes(b"")])
def test_a_damaged_map_of_points_comes_back_from_its_second_copy(tmp_path: Path, how: object) -> None:
    map_points(tmp_path, POINTS)
    before = points_file(tmp_path).read_bytes()
    assert callable(how)
    how(points_file(tmp_path))
    damage = Damage()
    pointmap.restore(tmp_path, damage)
    assert points_file(tmp_path).read_bytes() == before
    assert "restored" in damage.said[-1]
    assert len(pointmap.merge(tmp_path, registry(POINTS), T0)) == POINTS
    assert scrub(tmp_path).findings == []


def test_with_both_copies_damaged_nothing_is_guessed(tmp_path: Path) -> None:
    map_points(tmp_path, POINTS)
    hurt(points_file(tmp_path))
    hurt(backup_file(tmp_path))
    with pytest.raises(PointsLost, match="Put back either file"):
        pointmap.restore(tmp_path, Damage())


def test_a_folder_without_a_map_and_one_that_is_whole_need_nothing(tmp_path: Path) -> None:
    damage = Damage()
    pointmap.restore(tmp_path, damage)
    map_points(tmp_path, POINTS)
    pointmap.restore(tmp_path, damage)
    assert damage.said == []


def test_a_second_copy_that_a_crash_left_behind_is_made_new_at_the_next_start(tmp_path: Path) -> None:
    map_points(tmp_path, POINTS)
    old = backup_file(tmp_path).read_bytes()
    map_points(tmp_path, POINTS + 5)
    backup_file(tmp_path).write_bytes(old)
    map_points(tmp_path, POINTS + 5)
    assert backup_file(tmp_path).read_bytes() == points_file(tmp_path).read_bytes() != old


def test_a_log_file_that_was_on_disk_once_is_set_aside_and_named_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "lake" / "quarantine"
    log = ParquetLog(folder, QUARANTINE)
    log.append(1, 5, log_rows(QUARANTINE, 5))
    kept = log.append(6, 9, log_rows(QUARANTINE, 4))
    log.sync()
    torn = log.append(10, 12, log_rows(QUARANTINE, 3))
    assert kept is not None
    assert torn is not None
    hurt(kept)
    torn.write_bytes(b"PAR1")
    again = ParquetLog(folder, QUARANTINE)
    assert again.lost == [(6, 9)]
    assert again.damage.set_aside == [kept.with_name(kept.name + ".bad")]
    assert sorted(p.name for p in folder.glob("*.parquet*")) == [
        "00000000000000000001-00000000000000000005.parquet",
        kept.name + ".bad",
    ]
    assert again.last == 5


def test_the_snapshot_before_a_damaged_one_is_used_then_none(tmp_path: Path) -> None:
    for seq in (10, 20):
        snapshot.save(tmp_path, seq, {"a": np.arange(9)}, {})
    hurt(snapshot.snapshot_path(tmp_path, 20))
    found = snapshot.load_newest(tmp_path)
    assert found is not None
    assert found.seq == 10
    hurt(snapshot.snapshot_path(tmp_path, 10))
    assert snapshot.load_newest(tmp_path) is None
    assert len(list(tmp_path.glob("*.bad"))) == 2


def test_damaged_files_without_rows_are_written_anew(tmp_path: Path) -> None:
    ensure_empty(tmp_path)
    path = tmp_path / "lake" / "empty" / "readings.parquet"
    before = path.read_bytes()
    hurt(path)
    ensure_empty(tmp_path)
    assert path.read_bytes() == before


def outbox(root: Path) -> Outbox:
    return Outbox(root / "outbox.db", [], AlertSettings())


def test_a_whole_outbox_is_left_alone(tmp_path: Path) -> None:
    assert not set_aside_if_damaged(tmp_path / "outbox.db", Damage())
    outbox(tmp_path).mark(7)
    assert not set_aside_if_damaged(tmp_path / "outbox.db", Damage())
    assert outbox(tmp_path).judged_seq() == 7


@pytest.mark.parametrize("rubbish", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_damaged_outbox_is_set_aside_and_a_new_one_counts_on(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "outbox.db").write_bytes(rubbish)
    damage = Damage()
    assert set_aside_if_damaged(tmp_path / "outbox.db", damage)
    assert (tmp_path / "outbox.db.bad").read_bytes() == rubbish
    outbox(tmp_path).mark(1)
    continue_numbers(tmp_path / "outbox.db", {"alert_event": 500, "not_there": 3})
    continue_numbers(tmp_path / "outbox.db", {"alert_event": 400})
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db:
        assert db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'alert_event'").fetchone() == (500,)
