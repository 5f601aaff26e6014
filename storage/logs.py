"""Small Parquet logs: alerts and quarantine, as files that plain DuckDB reads with one glob.

Owns a folder of such files: names, recovery, merging many into few. Knows nothing of what the rows mean;
each schema has a key, and the views of storage/sql/lake.sql show each key once, so a row may stand in two
files: after a replay, and while a merged file and its parts both stand.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.fsync import fsync_dir, fsync_file, replace_durably
from storage.growth import conform
from storage.hashes import keep_hashes, root_of
from storage.hot import DROP_SLACK_S
from storage.log_plan import MERGE_FILES_MIN, MERGED_BYTES_MAX, LogFile, choose
from storage.recovery import Damage, States
from storage.schema import META_REPLACES, with_metadata

log = logging.getLogger(__name__)

HELD_BYTES: Final = 8 << 20
"""Rows a merge holds before it writes them as a row group."""

_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet")


class Unreadable(RuntimeError):  # noqa: N818 - says what happened
    """A file of a log, ``path``, that was on disk once and cannot be read."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


class ParquetLog:
    """An append-only log in ``folder``, rows of ``schema``.

    ``append`` and ``sync`` belong to one thread, ``merge`` and ``drop`` may be called from another. Opening
    removes what a crash left unfinished or torn, and sets aside what was on disk once and is damaged: ``damage``
    says so, ``lost`` has the (first, last) of those files, for whoever has their rows elsewhere. Raises OSError.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = with_metadata(schema)
        # A folder and not a name beside the files: readers glob *.parquet.
        self._tmp = folder / "tmp"
        self._tmp.mkdir(parents=True, exist_ok=True)
        fsync_dir(folder.parent)
        fsync_dir(folder)
        self._lock = threading.Lock()
        self._unsynced: list[Path] = []
        self._replaced: set[Path] = set()
        self._replaced_since: dict[Path, float] = {}
        self._parts: set[Path] = set()
        self._left: set[Path] = set()
        self._last = 0
        self.damage = Damage()
        self.lost: list[tuple[int, int]] = []
        self._recover()

    def _recover(self) -> None:
        for leftover in self._tmp.iterdir():
            leftover.unlink()
        root = root_of(self.folder)
        states = States(root) if root else None
        for file in self._list():
            try:
                with pq.ParquetFile(file.path, page_checksum_verification=True) as opened:
                    opened.read(use_threads=False)
                    replaces = (opened.metadata.metadata or {}).get(META_REPLACES, b"[]")
            except (pa.ArrowException, OSError):
                if states is not None and states.was_synced(file.path):
                    self.damage.put_aside(file.path, "damaged; what it held may stand nowhere else")
                    self.lost.append((file.first, file.last))
                else:
                    # Never synced, so the journal still holds these rows and a replay appends them again.
                    file.path.unlink()
                continue
            names = json.loads(replaces)
            self._replaced |= {self.folder / name for name in names}
            if not names:
                self._parts.add(file.path)
            self._last = max(self._last, file.last)
        self._replaced = {path for path in self._replaced if path.exists()}
        self._parts -= self._replaced
        fsync_dir(self.folder)

    def _list(self) -> list[LogFile]:
        found = []
        for entry in os.scandir(self.folder):
            if name := _NAME.fullmatch(entry.name):
                first, last = (int(part) for part in name.groups())
                found.append(LogFile(Path(entry.path), first, last, entry.stat().st_size))
        return sorted(found, key=lambda f: (f.first, f.last))

    @property
    def last(self) -> int:
        """The highest seq any file covers; 0 where there is none. Known without a look at the folder."""
        return self._last

    def append(self, first: int, last: int, table: pa.Table) -> Path | None:
        """Add the rows of journal records first … last; no file for no row. Durable after ``sync``.

        ``table`` has the log's columns. Appending the same range again replaces it. Raises OSError, and
        pyarrow.ArrowInvalid or ValueError for other columns.
        """
        if table.num_rows == 0:
            return None
        name = f"{first:020d}-{last:020d}.parquet"
        tmp, final = self._tmp / name, self.folder / name
        with self._writing(tmp, self.schema) as writer:
            writer.write_table(table.cast(self.schema).replace_schema_metadata(self.schema.metadata))
        os.replace(tmp, final)
        with self._lock:
            self._unsynced.append(final)
            self._replaced.discard(final)
            self._parts.add(final)
            self._last = max(self._last, last)
        return final

    def take_back(self, path: Path, last: int) -> None:
        """Remove what was appended just now and could not be put on disk; ``last``: how far the log came before."""
        path.unlink(missing_ok=True)
        with self._lock:
            self._parts.discard(path)
            self._last = last

    @contextmanager
    def _writing(self, path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        try:
            with pq.ParquetWriter(
                path, schema, compression="zstd", compression_level=1, write_page_checksum=True
            ) as writer:
                yield writer
        except BaseException:
            # On a full disk what half a file takes is missed elsewhere.
            path.unlink(missing_ok=True)
            raise

    def sync(self) -> None:
        """Put what was appended on disk; call before a snapshot that presumes it. Raises OSError."""
        with self._lock:
            paths, self._unsynced = self._unsynced, []
        for path in paths:
            # Gone if it was merged, which is durable, and dropped since.
            if path.exists():
                fsync_file(path)
        if paths:
            fsync_dir(self.folder)
            self._keep(paths)

    def _keep(self, paths: list[Path]) -> None:
        if root := root_of(self.folder):
            keep_hashes(root, paths)

    @property
    def crowded(self) -> bool:
        """So many small files came that a merge is worth it; costs nothing to ask."""
        return len(self._parts) >= MERGE_FILES_MIN

    def merge(self, files_min: int = MERGE_FILES_MIN) -> Path | None:
        """Write neighbouring small files as one, see storage.log_plan; None if fewer than ``files_min``.

        One bite: ask again while ``crowded``. The parts stay for the grace, see ``drop``; the merged file says in its
        metadata which they are. A part that cannot be read is left as it stands from then on, and said. Raises OSError.
        """
        with self._lock:
            left, parts = self._replaced | self._left, set(self._parts)
        files = self._list()
        live = [f for f in files if f.path not in left]
        small = {f.path for f in live if f.size < MERGED_BYTES_MAX}
        with self._lock:
            # Gone, or too large to be merged.
            self._parts -= parts - small
        marked = [replace(f, part=f.path in parts) for f in live]
        run, name = _named(choose(marked, files_min), {f.path.name for f in files})
        if not name:
            return None
        tmp = self._tmp / f"merge-{name}"
        try:
            self._write_merged(tmp, run)
        except Unreadable as fault:
            tmp.unlink(missing_ok=True)
            log.error("a small log leaves out of its merges what it cannot read: %s", fault)
            with self._lock:
                self._left.add(fault.path)
                self._parts.discard(fault.path)
            return None
        replace_durably(tmp, self.folder / name)
        self._keep([self.folder / name])
        with self._lock:
            taken = {f.path for f in run}
            self._replaced |= taken
            self._parts -= taken
        return self.folder / name

    def _write_merged(self, tmp: Path, run: Sequence[LogFile]) -> None:
        """One file after the other: a single one is open, and HELD_BYTES of rows or one row group are held."""
        names = json.dumps([f.path.name for f in run]).encode()
        schema = self.schema.with_metadata((self.schema.metadata or {}) | {META_REPLACES: names})
        held: list[pa.Table] = []
        with self._writing(tmp, schema) as writer:
            for file in run:
                for group in _groups(file.path):
                    held.append(conform(group, self.schema).cast(schema))
                    if sum(table.nbytes for table in held) >= HELD_BYTES:
                        writer.write_table(pa.concat_tables(held))
                        held = []
            if held:
                writer.write_table(pa.concat_tables(held))

    def retire(self, column: str, before_us: int, kept_ids: Collection[str] = ()) -> int:
        """Retire files all of whose rows are older in ``column`` than ``before_us``; returns their rows.

        They go after the grace, see ``drop``; after a restart they are found again. A file with a row of ``kept_ids``
        stays, and so does the newest file: its name says how far the log came. Raises OSError, pyarrow.ArrowException.
        """
        with self._lock:
            passed = self._replaced | self._left
        rows = 0
        for file in self._list()[:-1]:
            if file.path in passed:
                continue
            table = pq.read_table(file.path, columns=["id", column], use_threads=False)
            if (pc.max(table[column].cast(pa.int64())).as_py() or 0) >= before_us:
                continue
            if kept_ids and pc.any(pc.is_in(table["id"], pa.array(sorted(kept_ids)))).as_py():
                continue
            rows += table.num_rows
            with self._lock:
                self._replaced.add(file.path)
                self._parts.discard(file.path)
        return rows

    def drop(self, grace_s: float, now: float) -> int:
        """Delete merged parts first seen replaced more than ``grace_s`` ago; returns how many.

        ``now`` is in seconds of a clock that does not jump; a restart begins the grace anew.
        """
        since = self._replaced_since
        with self._lock:
            gone = [p for p in self._replaced if now - since.setdefault(p, now) > grace_s + DROP_SLACK_S]
        for path in gone:
            # One at a time: whoever appends waits for a single file at most.
            with self._lock:
                # Appended again meanwhile, it is no longer replaced.
                if path in self._replaced:
                    path.unlink(missing_ok=True)
                    self._replaced.discard(path)
                del since[path]
        return len(gone)


def _named(run: list[LogFile], taken: Collection[str]) -> tuple[list[LogFile], str]:
    """``run`` and the name of its union; "" for nothing to merge.

    After a replay one part can span all others: then it, not the union, has the name, and is left out. The name of a
    file that is no part of the run is not taken either.
    """
    while len(run) > 1:
        name = f"{run[0].first:020d}-{max(f.last for f in run):020d}.parquet"
        if name not in taken:
            return run, name
        rest = [f for f in run if f.path.name != name]
        run = rest if len(rest) < len(run) else run[:-1]
    return [], ""


def _groups(path: Path) -> Iterator[pa.Table]:
    """The row groups of a file. Raises Unreadable."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            for at in range(file.num_row_groups):
                yield file.read_row_group(at, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(path, str(error)) from error
