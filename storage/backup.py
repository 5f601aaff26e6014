"""A backup of a data folder while the engine runs: one instant of it, whole or not there at all.

Owns the folder of backups: what is copied, what is linked from the backup before, and the order of fsyncs. A backup
gets its name when all of it is on disk; until then it is ``.part-…``, which the next backup removes. Which files
make an instant is storage.backup_look's; how far the engine is, it is told.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from storage import hashes
from storage.backup_look import OUTBOX, POINTER, Look, Moved, NotWhole, Pinned, end_of_records, look
from storage.backup_manifest import FORMAT, MANIFEST, PART, Entry, Manifest, ManifestBad, backups, read
from storage.fsync import fsync_dir, fsync_file, make_durably
from storage.pointmap import backup_file, points_file
from storage.scrub_parquet import READ_FAULTS
from storage.segment import list_segments

TIME: Final = "%Y%m%dT%H%M%SZ"
COPY_BYTES: Final = 1 << 20
ATTEMPTS: Final = 5
"""Replaced files of a table live for the grace; a copy that takes longer begins anew with what it has."""
README: Final = (
    "Backups of a Yuzui data folder, each whole by itself; equal files are one file with several names (hard links).\n"
    "Look:     yuzui verify THIS_FOLDER\nUse one:  yuzui restore THIS_FOLDER --to EMPTY_FOLDER\n"
)


class BackupBusy(RuntimeError):  # noqa: N818 - says what happened
    """Another backup is being made in this folder."""


Settle = Callable[[], int]
"""Of a running engine: a journal record on disk at the time of the call, returned once what it and all before it
caused is in the outbox. What was acknowledged before is at or below it."""


@dataclass(slots=True)
class Report:
    """What a backup did. copied and linked: files; the bytes are those that were copied."""

    folder: Path
    manifest: Manifest
    copied: int
    linked: int
    copied_bytes: int
    seconds: float
    pruned: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Telling:
    """Whom to tell how it goes: ``total`` bytes of the look, then ``count`` more done, a ``phase`` in words."""

    total: Callable[[int], None] = lambda _: None
    count: Callable[[int], None] = lambda _: None
    phase: Callable[[str], None] = lambda _: None


def back_up(
    root: Path,
    target: Path,
    version: str,
    *,
    settle: Settle | None,
    config: Mapping[str, Path] | None = None,
    keep: int = 3,
    anew: bool = False,
    telling: Telling = Telling(),
) -> Report:
    """Back up the data folder ``root`` into a new folder below ``target``.

    version   of the program, for whoever restores
    settle    of the running engine, None where none runs
    config    files to keep beside the data, by the name they get
    keep      backups left in ``target`` afterwards
    anew      link nothing: what the backup disk damaged would stay damaged in every backup to come

    What is there already from the backup before is linked, not copied. Raises NotWhole, BackupBusy, OSError: then the
    backups before stand as they were.
    """
    began = time.monotonic()
    make_durably(target, 0o700)
    with _alone(target):
        for leftover in target.glob(f"{PART}*"):
            shutil.rmtree(leftover)
        part = target / f"{PART}{os.getpid()}"
        try:
            one = _Backup(root, part, None if anew else _previous(target), telling)
            one.take(settle, config or {})
            final = one.finish(version, target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        pruned = [path.name for path in backups(target)[:-keep]]
        for name in pruned:
            shutil.rmtree(target / name)
        fsync_dir(target)
    return Report(
        final, one.manifest, one.copied, one.linked, one.copied_bytes, time.monotonic() - began, pruned
    )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    readme = target / "README"
    if not readme.exists():
        readme.write_text(README)
    fd = os.open(target / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupBusy(f"another backup into {target} is under way") from None
        yield
    finally:
        os.close(fd)


def _previous(target: Path) -> tuple[Path, dict[str, Entry]] | None:
    """The newest backup that can be read; files in it need not be copied again."""
    for path in reversed(backups(target)):
        try:
            return path, {entry.name: entry for entry in read(path).entries}
        except (ManifestBad, OSError):
            continue
    return None


class _Backup:
    def __init__(
        self, root: Path, part: Path, previous: tuple[Path, dict[str, Entry]] | None, telling: Telling
    ) -> None:
        self._root = root
        self._part = part
        self._previous = previous
        self._telling = telling
        self._entries: dict[str, Entry] = {}
        self._sums = hashes.kept(root).sums
        self._damaged: list[str] = []
        self._tables: dict[str, dict[str, int]] = {}
        self._seq = 0
        self.manifest: Manifest
        self.copied = self.linked = self.copied_bytes = 0

    # -- what, and in which order ----------------------------------------------------------------

    def take(self, settle: Settle | None, config: Mapping[str, Path]) -> None:
        self._part.mkdir(mode=0o700)
        for attempt in range(ATTEMPTS):
            with look(self._root) as seen:
                wanted: set[str] = set()
                try:
                    self._telling.total(_bytes_of(seen))
                    self._instant(seen, settle, wanted)
                    self._table_files(seen, wanted)
                    break
                except (Moved, FileNotFoundError) as gone:
                    if attempt + 1 == ATTEMPTS:
                        raise NotWhole(f"files go faster than they can be copied: {gone}") from None
        for name, path in config.items():
            self._file(f"config/{name}", path, wanted, stamped=False)
        self._hashes(wanted)
        for name in set(self._entries) - wanted:
            (self._part / name).unlink()
            del self._entries[name]

    def _instant(self, seen: Look, settle: Settle | None, wanted: set[str]) -> None:
        """Everything but the files of the tables: seconds, so that nothing goes meanwhile."""
        self._telling.phase("state, logs and hot files")
        for pinned in seen.snapshots:
            self._pinned(pinned, None, wanted)
        for path in (*seen.hot, *seen.rest):
            self._file(f"data/{path.relative_to(self._root).as_posix()}", path, wanted)
        acknowledged = None
        if settle is not None:
            self._telling.phase("waiting until what was acknowledged is judged")
            acknowledged = settle()
        effects = self._outbox(wanted)
        self._telling.phase("the journal's tail")
        self._journal(seen, None if acknowledged is None else max(acknowledged, effects), wanted)
        # Numbers of points are on disk before the first record that uses them: after the journal, so none is missing.
        if points_file(self._root).exists():
            for path in (points_file(self._root), backup_file(self._root)):
                self._file(f"data/lake/{path.name}", points_file(self._root), wanted, stamped=False)

    def _outbox(self, wanted: set[str]) -> int:
        """A copy by SQLite itself; the journal record up to which it knows what was caused."""
        source, name = self._root / OUTBOX, f"data/{OUTBOX}"
        if not source.exists():
            return 0
        final = self._part / name
        final.parent.mkdir(parents=True, exist_ok=True)
        final.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(final)) as copy,
        ):
            try:
                live.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
                found = copy.execute("SELECT value FROM meta WHERE key = 'judged_seq'").fetchone()
            except sqlite3.OperationalError as fault:
                full = fault.sqlite_errorcode == sqlite3.SQLITE_FULL
                raise OSError(
                    errno.ENOSPC if full else errno.EIO, f"SQLite says: {fault}", str(final)
                ) from fault
        fsync_file(final)
        made = hashes.sum_of(final)
        self._add(Entry(name, made.size, made.sha256), wanted)
        return int(found[0]) if found else 0

    def _journal(self, seen: Look, upto: int | None, wanted: set[str]) -> None:
        """Segments up to the group that holds record ``upto``, the last one cut behind it."""
        known = {pinned.first_seq for pinned in seen.segments}
        newer = [(first, path) for first, path in list_segments(self._root / "journal") if first not in known]
        segments = [*seen.segments, *(seen.pin(f"journal/{path.name}", path, first) for first, path in newer)]
        if upto is not None:
            segments = [pinned for pinned in segments if pinned.first_seq <= upto]
        self._seq = upto or 0
        for pinned in segments[:-1]:
            self._pinned(pinned, None, wanted)
        for pinned in segments[-1:]:
            # The last one keeps its name, whatever is cut below it.
            end, last = end_of_records(self._root / pinned.name, pinned.first_seq, upto)
            self._pinned(pinned, end, wanted)
            self._seq = max(self._seq, last)

    def _table_files(self, seen: Look, wanted: set[str]) -> None:
        self._telling.phase("sealed readings")
        for table in seen.tables:
            below, folder = f"data/lake/{table.name}", self._root / "lake" / table.name
            for path in table.log:
                self._file(f"{below}/_delta_log/{path.name}", path, wanted)
            if table.pointer is not None:
                self._bytes(f"{below}/_delta_log/{POINTER}", table.pointer, wanted)
            for name in table.files:
                self._file(f"{below}/{name}", folder / name, wanted)
            rows = sum(self._entries[f"{below}/{name}"].rows or 0 for name in table.files)
            self._tables[table.name] = {
                "version": table.version, "seq": table.seq, "files": len(table.files), "rows": rows,
            }  # fmt: skip

    def _hashes(self, wanted: set[str]) -> None:
        """Last, so that it knows every file copied. A line that is being written is left out."""
        path = hashes.hashes_dir(self._root) / hashes.LIST_NAME
        if path.exists():
            said = path.read_bytes()
            self._bytes(f"data/lake/hashes/{hashes.LIST_NAME}", said[: said.rfind(b"\n") + 1], wanted)

    # -- how ---------------------------------------------------------------------------------------

    def _add(self, entry: Entry, wanted: set[str]) -> None:
        self._entries[entry.name] = entry
        wanted.add(entry.name)
        self.copied += 1
        self.copied_bytes += entry.size

    def _file(self, name: str, path: Path, wanted: set[str], stamped: bool = True) -> None:
        with path.open("rb", buffering=0) as source:
            self._copy(name, source.fileno(), None, wanted, stamped)
        if (sums := self._sums.get(name.removeprefix("data/"))) is not None and name not in self._damaged:
            entry = self._entries[name]
            if entry.sha256 not in {one.sha256 for one in sums} and self._differs(name, entry):
                self._damaged.append(name)

    def _differs(self, name: str, entry: Entry) -> bool:
        self._sums = hashes.kept(self._root).sums
        return entry.sha256 not in {one.sha256 for one in self._sums.get(name.removeprefix("data/"), [])}

    def _pinned(self, pinned: Pinned, size: int | None, wanted: set[str]) -> None:
        self._copy(f"data/{pinned.name}", pinned.fd, size, wanted, stamped=size is None)

    def _copy(self, name: str, fd: int, size: int | None, wanted: set[str], stamped: bool) -> None:
        """``size`` bytes (None: all) of an open file, linked from the backup before where it is the same file."""
        seen = os.fstat(fd)
        stamp = [seen.st_size, seen.st_mtime_ns, seen.st_ino] if stamped else None
        known = self._entries.get(name)
        if stamp is not None and known is not None and known.stamp == stamp:
            wanted.add(name)
            return
        if stamp is not None and self._link(name, stamp, wanted):
            self._telling.count(seen.st_size)
            return
        final = self._part / name
        final.parent.mkdir(parents=True, exist_ok=True)
        final.unlink(missing_ok=True)
        copied = self._write(final, fd, seen.st_size if size is None else size)
        rows = _rows(final) if name.endswith(".parquet") else None
        self._add(Entry(name, copied[0], copied[1], stamp, rows), wanted)

    def _write(self, final: Path, fd: int, left: int) -> tuple[int, str]:
        found, at = hashlib.sha256(), 0
        with final.open("xb", buffering=0) as out:
            while left and (block := os.pread(fd, min(left, COPY_BYTES), at)):
                view = memoryview(block)
                while view:
                    view = view[out.write(view) :]
                found.update(block)
                at, left = at + len(block), left - len(block)
                self._telling.count(len(block))
            os.fsync(out.fileno())
        return at, found.hexdigest()

    def _bytes(self, name: str, said: bytes, wanted: set[str]) -> None:
        final = self._part / name
        final.parent.mkdir(parents=True, exist_ok=True)
        final.write_bytes(said)
        fsync_file(final)
        self._add(Entry(name, len(said), hashlib.sha256(said).hexdigest()), wanted)

    def _link(self, name: str, stamp: list[int], wanted: set[str]) -> bool:
        if self._previous is None:
            return False
        folder, entries = self._previous
        entry = entries.get(name)
        if entry is None or entry.stamp != stamp:
            return False
        final = self._part / name
        final.parent.mkdir(parents=True, exist_ok=True)
        final.unlink(missing_ok=True)
        try:
            if (folder / name).stat().st_size != entry.size:
                return False
            os.link(folder / name, final)
        except OSError:
            return False  # gone, or a file system without hard links: it is copied
        self._entries[name] = entry
        wanted.add(name)
        self.linked += 1
        return True

    def finish(self, version: str, target: Path) -> Path:
        """All on disk, then the manifest, then the name."""
        now = datetime.now(UTC)
        self.manifest = Manifest(
            version, now.isoformat(timespec="seconds"), str(self._root), self._seq, self._tables,
            sorted(self._damaged), FORMAT, sorted(self._entries.values(), key=lambda entry: entry.name),
        )  # fmt: skip
        manifest = self._part / MANIFEST
        manifest.write_bytes(self.manifest.packed())
        fsync_file(manifest)
        for at, _, _ in os.walk(self._part, topdown=False):
            fsync_dir(Path(at))
        # Names keep the order in which backups were made, also within a second and after a clock that was ahead: the
        # last by name is the newest, and the first ones are removed.
        for before in backups(target)[-1:]:
            now = max(now, datetime.strptime(before.name[:16] + "+0000", f"{TIME}%z") + timedelta(seconds=1))
        final = target / f"{now:{TIME}}-{self._seq:020d}"
        os.replace(self._part, final)
        fsync_dir(target)
        return final


def _bytes_of(seen: Look) -> int:
    """About how much there is to copy."""
    sizes = [os.fstat(pinned.fd).st_size for pinned in (*seen.segments, *seen.snapshots)]
    paths = [*seen.hot, *seen.rest]
    paths += [seen.root / "lake" / table.name / name for table in seen.tables for name in table.files]
    return sum(sizes) + sum(path.stat().st_size for path in paths if path.exists())


def _rows(path: Path) -> int | None:
    """None of a file that is damaged at its source: the manifest names it."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except READ_FAULTS:
        return None
