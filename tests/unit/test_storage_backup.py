"""Backups one after the other: which is the newest, what is linked, and what heals."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from storage import backup
from storage.backup import Report, back_up
from storage.backup_look import Look, look
from storage.backup_manifest import backups
from storage.backup_verify import verify
from storage.restore import restore
from tests.lake_folder import fill, flip_at


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "data"
    fill(folder)
    return folder


def made(root: Path, target: Path, keep: int = 3, anew: bool = False) -> Report:
    return back_up(root, target, "1", settle=None, keep=keep, anew=anew)


def test_a_clock_that_was_ahead_does_not_make_the_next_backup_the_oldest(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be removed as soon as it was made, and a restore would take one of before."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=3_000)

    with monkeypatch.context() as wrong:
        wrong.setattr(backup, "datetime", Ahead)
        before = [made(root, tmp_path).folder for _ in range(2)]
    new = made(root, tmp_path, keep=2)
    assert backups(tmp_path) == [before[1], new.folder]
    assert new.pruned == [before[0].name]
    told = datetime.fromisoformat(new.manifest.made_at)
    assert abs(told - datetime.now(UTC)) < timedelta(days=1), (
        "the manifest says the time, whatever the name is"
    )


def test_a_file_that_goes_while_its_bytes_are_counted_is_looked_for_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(root, data)
    counted = backup._bytes_of

    def one_goes(seen: Look) -> int:
        monkeypatch.undo()
        raise FileNotFoundError(2, "No such file or directory", str(seen.hot[0]))

    monkeypatch.setattr(backup, "_bytes_of", one_goes)
    report = made(data, tmp_path / "backups")
    assert backup._bytes_of is counted
    assert verify(report.folder).faults == []


def test_what_the_backup_disk_damaged_is_whole_again_only_in_a_backup_made_anew(
    root: Path, tmp_path: Path
) -> None:
    first = made(root, tmp_path)
    with look(root) as seen:
        name = f"data/lake/readings/{seen.tables[0].files[0]}"
    assert verify(first.folder).faults == []
    flip_at(first.folder / name, 100)
    linked = made(root, tmp_path)
    assert [fault.partition(":")[0] for fault in verify(linked.folder).faults] == [name]
    anew = made(root, tmp_path, anew=True)
    assert anew.linked == 0
    assert verify(anew.folder).faults == []
    assert verify(made(root, tmp_path).folder).faults == []


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_the_folders_a_backup_or_a_restore_is_made_in_are_on_disk_before_what_is_put_there(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Without the name of a new folder in its parent a power cut takes all that was synced below it."""
    whole = made(root, tmp_path / "first").folder
    synced: list[Path] = []
    monkeypatch.setattr("storage.fsync.fsync_dir", synced.append)
    target = tmp_path / "mnt" / "backups" / "city"
    if verb == "backup":
        made(root, target)
    else:
        restore(whole, target, finish=lambda _: None)
    assert synced[:3] == [tmp_path, tmp_path / "mnt", tmp_path / "mnt" / "backups"]
    assert target.is_dir()


def test_nobody_else_can_look_into_a_folder_a_restore_made(root: Path, tmp_path: Path) -> None:
    """Who did what, and the bodies of webhooks, are in it."""
    done = restore(made(root, tmp_path).folder, tmp_path / "new" / "data", finish=lambda _: None)
    assert done.faults == []
    assert stat.S_IMODE(done.folder.stat().st_mode) == 0o700
