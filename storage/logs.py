"""Small Parquet logs: alerts and quarantine, as files that plain DuckDB reads with one glob.

Owns a folder of such files: names, recovery, merging many into few. Knows nothing of what the rows mean;
each schema has a key, and the views of storage/sql/lake.sql show each key once, so a row may stand in two
files: after a replay, and while a merged file and its parts both stand.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.fsync import fsync_dir, fsync_file, replace_durably
from storage.hashes import keep_hashes, root_of
from storage.hot import DROP_SLACK_S
from storage.recovery import Damage, States
from storage.schema import META_REPLACES, with_metadata

MERGE_FILES_MIN: Final = 64
"""Below this many small files a merge saves a reader less than it costs."""
MERGED_BYTES_MAX: Final = 16 << 20
"""Files this large are left as they are, so that a log of years is not rewritten again and again."""

_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet")


@dataclass(frozen=True, slots=True)
class _LogFile:
    path: Path
    first: int
    last: int
    size: int


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
            self._replaced |= {self.folder / name for name in json.loads(replaces)}
        self._replaced = {path for path in self._replaced if path.exists()}
        fsync_dir(self.folder)

    def _list(self) -> list[_LogFile]:
        found = []
        for entry in os.scandir(self.folder):
            if name := _NAME.fullmatch(entry.name):
                first, last = (int(part) for part in name.groups())
                found.append(_LogFile(Path(entry.path), first, last, entry.stat().st_size))
        return sorted(found, key=lambda f: (f.first, f.last))

    @property
    def last(self) -> int:
        """The highest seq any file covers; 0 where there is none."""
        return max((f.last for f in self._list()), default=0)

    def append(self, first: int, last: int, table: pa.Table) -> Path | None:
        """Add the rows of journal records first … last; no file for no row. Durable after ``sync``.

        ``table`` has the log's columns. Appending the same range again replaces it. Raises OSError, and
        pyarrow.ArrowInvalid or ValueError for other columns.
        """
        if table.num_rows == 0:
            return None
        name = f"{first:020d}-{last:020d}.parquet"
        tmp, final = self._tmp / name, self.folder / name
        self._write(tmp, table.cast(self.schema), self.schema)
        os.replace(tmp, final)
        with self._lock:
            self._unsynced.append(final)
            self._replaced.discard(final)
        return final

    def _write(self, path: Path, table: pa.Table, schema: pa.Schema) -> None:
        try:
            with pq.ParquetWriter(
                path, schema, compression="zstd", compression_level=1, write_page_checksum=True
            ) as writer:
                writer.write_table(table.replace_schema_metadata(schema.metadata))
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

    def merge(self, files_min: int = MERGE_FILES_MIN) -> Path | None:
        """Write the longest run of neighbouring small files as one; None if fewer than ``files_min``.

        The parts stay for the grace, see ``drop``; the merged file says in its metadata which they are.
        Raises OSError.
        """
        with self._lock:
            replaced = set(self._replaced)
        runs: list[list[_LogFile]] = [[]]
        for file in self._list():
            if file.path in replaced:
                continue
            if file.size < MERGED_BYTES_MAX:
                runs[-1].append(file)
            else:
                runs.append([])
        longest = max(runs, key=len)
        if len(longest) < max(files_min, 2):
            return None
        first, last = longest[0].first, max(f.last for f in longest)
        name = f"{first:020d}-{last:020d}.parquet"
        if any(f.path.name == name for f in longest):
            # After a replay one part can span all others: then the parts, not their union, have the name.
            return None
        names = json.dumps([f.path.name for f in longest]).encode()
        schema = self.schema.with_metadata((self.schema.metadata or {}) | {META_REPLACES: names})
        tables = [pq.read_table(f.path, schema=self.schema, use_threads=False) for f in longest]
        tmp = self._tmp / f"merge-{name}"
        self._write(tmp, pa.concat_tables(tables), schema)
        replace_durably(tmp, self.folder / name)
        self._keep([self.folder / name])
        with self._lock:
            self._replaced |= {f.path for f in longest}
        return self.folder / name

    def retire(self, column: str, before_us: int, kept_ids: Collection[str] = ()) -> int:
        """Retire files all of whose rows are older in ``column`` than ``before_us``; returns their rows.

        They go after the grace, see ``drop``; after a restart they are found again. A file with a row of ``kept_ids``
        stays, and so does the newest file: its name says how far the log came. Raises OSError, pyarrow.ArrowException.
        """
        with self._lock:
            replaced = set(self._replaced)
        rows = 0
        for file in self._list()[:-1]:
            if file.path in replaced:
                continue
            table = pq.read_table(file.path, columns=["id", column], use_threads=False)
            if (pc.max(table[column].cast(pa.int64())).as_py() or 0) >= before_us:
                continue
            if kept_ids and pc.any(pc.is_in(table["id"], pa.array(sorted(kept_ids)))).as_py():
                continue
            rows += table.num_rows
            with self._lock:
                self._replaced.add(file.path)
        return rows

    def drop(self, grace_s: float, now: float) -> int:
        """Delete merged parts first seen replaced more than ``grace_s`` ago; returns how many.

        ``now`` is in seconds of a clock that does not jump; a restart begins the grace anew.
        """
        with self._lock:
            since = self._replaced_since
            gone = [p for p in self._replaced if now - since.setdefault(p, now) > grace_s + DROP_SLACK_S]
            for path in gone:
                path.unlink(missing_ok=True)
                self._replaced.discard(path)
                del since[path]
        return len(gone)
