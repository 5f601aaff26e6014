"""Snapshots, the data lock and durable renames: whole or absent, one engine, every fsync in its order."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from storage import snapshot
from storage.fsync import fsync_dir, fsync_file, replace_durably
from storage.lock import DataLock, DataLocked
from storage.snapshot import SnapshotNewer, draft, forget_drafts, keep, list_snapshots, load_newest, save

ROOT = Path(__file__).resolve().parents[2]


def state(seed: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {
        "last_t": rng.integers(0, 1 << 60, 1000),
        "level": rng.normal(size=(4, 33)),
        "flag": rng.integers(0, 9, 7).astype(np.uint8),
        "retired": rng.random(5) > 0.5,
        "empty": np.empty((0, 3), np.float32),
        "one": np.array(5, np.int16),
        "strided": np.arange(20)[::3],
        "name": np.array(["温江", "b"]),
        "when": np.array(["2026-07-01T00:00:00"], "M8[us]"),
    }


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return list(found) == list(expected) and all(
        found[k].dtype == a.dtype and found[k].shape == a.shape and found[k].tobytes() == a.tobytes()
        for k, a in expected.items()
    )


def test_a_snapshot_comes_back_as_it_was_and_can_be_written_to(tmp_path: Path) -> None:
    meta = {"rules": "abc", "open": [{"id": 1, "深": 2.5}], "nothing": None}
    path = save(tmp_path, 42, state(), meta)
    assert path.parent == tmp_path
    found = load_newest(tmp_path)
    assert found is not None
    assert (found.seq, found.meta) == (42, meta)
    assert same(found.arrays, state())
    assert all(a.flags.aligned for a in found.arrays.values())
    found.arrays["level"][2, 2] = 7.0
    assert found.arrays["level"][2, 2] == 7.0


def test_without_arrays_and_without_a_folder(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") is None
    save(tmp_path / "new" / "folder", 0, {}, {})
    found = load_newest(tmp_path / "new" / "folder")
    assert found is not None
    assert (found.seq, found.arrays, found.meta) == (0, {}, {})


def test_only_the_newest_two_are_kept_and_the_journal_knows_the_oldest(tmp_path: Path) -> None:
    for seq in (5, 100, 20_000, 7_000_000):
        save(tmp_path, seq, state(seq), {})
    assert [seq for seq, _ in list_snapshots(tmp_path)] == [20_000, 7_000_000]
    assert len(os.listdir(tmp_path)) == 2


def test_a_snapshot_damaged_at_any_byte_is_set_aside_and_the_older_one_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = {"a": np.arange(3)}
    save(tmp_path, 1, old, {})
    path = save(tmp_path, 2, {"a": np.arange(9)}, {"x": 1})
    whole = path.read_bytes()
    for at in range(len(whole)):
        bad = bytearray(whole)
        bad[at] ^= 1
        path.write_bytes(bad)
        with caplog.at_level(logging.ERROR):
            found = load_newest(tmp_path)
        assert found is not None
        assert found.seq == 1, at
        assert same(found.arrays, old)
        assert not path.exists()
        assert path.with_name(path.name + ".bad").exists()
    assert "set aside" in caplog.text


def test_a_snapshot_cut_at_any_byte_is_not_used(tmp_path: Path) -> None:
    path = save(tmp_path, 2, {"a": np.arange(9)}, {"x": 1})
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        assert load_newest(tmp_path) is None, n


def test_a_snapshot_of_a_later_version_is_left_for_that_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, {}, {})
    with monkeypatch.context() as later:
        later.setattr(snapshot, "VERSION", 2)
        path = save(tmp_path, 2, {}, {})
    with pytest.raises(SnapshotNewer, match="format 2"):
        load_newest(tmp_path)
    assert path.exists()


def test_arrays_whose_bytes_mean_nothing_elsewhere_are_refused(tmp_path: Path) -> None:
    for bad in (np.array([object()]), np.zeros(2, ">f8"), np.zeros(2, [("a", "i4")])):
        with pytest.raises(TypeError, match="array x"):
            save(tmp_path, 1, {"x": bad}, {})
    assert os.listdir(tmp_path) == []


def test_what_is_drafted_is_the_state_of_that_moment_and_counts_when_it_is_kept(tmp_path: Path) -> None:
    """Nobody copies the arrays: they may change as soon as the draft is written, in whatever order they lie."""
    arrays = {
        **state(),
        "turned": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "cube": np.zeros((2, 3, 4)).T,
    }
    before = {name: array.copy() for name, array in arrays.items()}
    drafted = draft(tmp_path, 5, arrays, {})
    for array in arrays.values():
        array.flat[:1] = array.flat[-1:]
    assert load_newest(tmp_path) is None
    again = draft(tmp_path, 5, arrays, {})
    keep(tmp_path, drafted)
    found = load_newest(tmp_path)
    assert found is not None
    assert same(found.arrays, before)
    assert again.path.exists()
    forget_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{5:020d}.snapshot"]


def test_where_there_is_no_room_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"a": np.zeros(100_000)}
    with monkeypatch.context() as disk:
        disk.setattr("storage.snapshot.os.statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=4096))
        with pytest.raises(OSError, match="No space left") as full:
            draft(tmp_path, 5, arrays, {})
    assert full.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_older_snapshot_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, state(), {})

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr("storage.snapshot.os.fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            save(tmp_path, 2, state(), {})
    assert [seq for seq, _ in list_snapshots(tmp_path)] == [1]
    assert len(os.listdir(tmp_path)) == 1
    found = load_newest(tmp_path)
    assert found is not None
    assert found.seq == 1


class Calls:
    """The system calls that decide what survives a power cut, in order, as they really happen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str]] = []
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(fd: int) -> None:
            self.seen.append(("fsync", Path(os.readlink(f"/proc/self/fd/{fd}")).name))
            real_fsync(fd)

        def replace(source: Path, target: Path) -> None:
            self.seen.append(("rename", Path(target).name))
            real_replace(source, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)


def test_a_snapshot_is_synced_before_its_name_and_its_name_before_older_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    calls = Calls(monkeypatch)
    drafted = draft(folder, 9, state(), {})
    assert not calls.seen, "whoever drafts waits for no disk"
    path = keep(folder, drafted)
    assert calls.seen == [
        ("fsync", drafted.path.name),
        ("rename", path.name),
        ("fsync", "snapshots"),
    ]


def test_a_durable_rename_syncs_file_then_name_in_both_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    tmp = tmp_path / "from" / "x.tmp"
    tmp.write_bytes(b"new")
    final = tmp_path / "to" / "x"
    final.write_bytes(b"old")
    calls = Calls(monkeypatch)
    replace_durably(tmp, final)
    assert calls.seen == [("fsync", "x.tmp"), ("rename", "x"), ("fsync", "to"), ("fsync", "from")]
    assert final.read_bytes() == b"new"
    assert not tmp.exists()


def test_syncing_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fsync_file(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        fsync_dir(tmp_path / "file")


def test_a_second_engine_is_told_who_holds_the_data_folder_and_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    program = (
        "import sys, pathlib; from storage.lock import DataLock\n"
        "lock = DataLock(pathlib.Path(sys.argv[1])); lock.acquire()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DataLocked, match=f"kill {holder.pid}") as locked:
        DataLock(folder).acquire()
    assert locked.value.pid == holder.pid
    assert str(folder) in str(locked.value)
    holder.kill()
    holder.communicate()
    with DataLock(folder):
        assert (folder / "LOCK").read_text() == f"{os.getpid()}\n"


def test_the_lock_is_given_back_and_excludes_a_second_one_here_too(tmp_path: Path) -> None:
    with DataLock(tmp_path) as lock:
        with pytest.raises(DataLocked, match=f"process {os.getpid()}"):
            DataLock(tmp_path).acquire()
        lock.release()
        with DataLock(tmp_path) as second:
            assert second is not lock
    assert (tmp_path / "LOCK").exists(), "a removed lock file would let two lock it"
