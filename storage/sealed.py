"""Sealed tables: hot rows sorted by (point, time), written as Parquet and made part of two Delta tables.

Owns lake/readings, lake/late and their commits. Knows the hot files only by their names and contents; does
not decide when to seal, nor when a hot file may go.

Order of a seal: data files, their folders (on disk); the late commit; the main commit, so that the main
watermark never says more than late rows can follow; the file of last readings. Each table's watermark is
the transaction version of our app id: a crash between any two steps repeats only what is not committed.
The Delta library does not fsync and panics after a fork: everything is synced here, and processes that
hold a Sealer must be started with spawn.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction

from storage.batch import POS_ROW_BITS
from storage.deltalog import checkpoint, last_checkpoint, set_aside_torn, sync_entries
from storage.deltatable import TableHandle
from storage.fsync import fsync_dir, fsync_file
from storage.growth import conform
from storage.hashes import keep_hashes
from storage.hot import HotFile, list_hot
from storage.latest import LatestFiles, load_latest
from storage.schema import (
    LATE,
    META_FOLDED_POS,
    PARTITIONS,
    READINGS,
    ROW_GROUP_SEALED,
    reading_options,
    with_metadata,
)
from storage.seal_plan import (
    COMPACTED_NAME,
    SEALED_NAME,
    FileStats,
    partition_of,
    point_ranges,
    point_time_order,
    split_hours,
)
from storage.sealcopy import copy_of, is_large, rows_of
from storage.settings import SealedSettings

APP_ID: Final = "yuzui"
FILES_PER_COMMIT: Final = 256
"""Hot files open at once: after a long stop of sealing thousands wait, more than a process may open."""
CURSOR_ROWS: Final = 8_192
"""Decoded at once of each hot file, which all stand open: 34 seconds of the city and ranges of one row group made a
seal's peak 254 MB, against 357 MB with whole row groups and ranges of four, for 8 % more instructions."""
READ_BUFFER_BYTES: Final = 1 << 14
"""Of each column of each open file; without it whole column chunks are held."""


@dataclass(slots=True)
class SealReport:
    """What one call of ``seal`` did. main_seq, late_seq are the watermarks afterwards, -1 for none."""

    main_seq: int
    late_seq: int
    main_rows: int = 0
    late_rows: int = 0
    files: int = 0
    commits: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


def table_dir(root: Path, late: bool) -> Path:
    """The folder of the main or of the late Delta table below the data folder."""
    return root / "lake" / ("late" if late else "readings")


def ensure_tables(root: Path) -> None:
    """Make both tables where they are missing, each with a first checkpoint. Raises OSError, DeltaError.

    A checkpoint always stands, so that a reader needs no case for a table without one.
    """
    for late in (False, True):
        folder = table_dir(root, late)
        folder.mkdir(parents=True, exist_ok=True)
        set_aside_torn(folder)
        if not DeltaTable.is_deltatable(str(folder)):
            columns = Schema.from_arrow(pa.schema([*(LATE if late else READINGS), *PARTITIONS]))
            DeltaTable.create(
                str(folder),
                columns,
                partition_by=PARTITIONS.names,
                # Checkpoints and cleanup are ours: the library would do them unsynced, inside a commit.
                configuration={
                    "delta.checkpointInterval": "1000000000",
                    "delta.enableExpiredLogCleanup": "false",
                    "delta.logRetentionDuration": "interval 2 hours",
                    # Names of replaced files: longer than a grace nobody asks for them, and every
                    # checkpoint would carry a week of them.
                    "delta.deletedFileRetentionDuration": "interval 3 hours",
                },
            )
            sync_entries(folder, 0, 0)
            fsync_dir(folder)
            fsync_dir(folder.parent)
        if last_checkpoint(folder) is None:
            checkpoint(DeltaTable(str(folder)), folder, clean=False)


def add_action(folder: Path, path: Path, hour: int, stats: FileStats, *, moved: bool = False) -> AddAction:
    """The log action that adds the closed file ``path`` of one event-time hour to the table in ``folder``.

    moved  its rows stood in the table before: who follows the table's changes need not read them again
    """
    date, hour_of_day = partition_of(hour)
    stat = path.stat()
    return AddAction(
        path=path.relative_to(folder).as_posix(),
        size=stat.st_size,
        partition_values={"date": date, "hour": str(hour_of_day)},
        modification_time=stat.st_mtime_ns // 1_000_000,
        data_change=not moved,
        stats=stats.json(),
    )


def sync_folders(folder: Path, paths: Iterable[Path]) -> None:
    """Put the names of files of the table in ``folder`` on disk, with the folders up to it. Raises OSError."""
    folders = {folder} | {above for path in paths for above in (path.parent, path.parent.parent)}
    for above in sorted(folders, reverse=True):
        fsync_dir(above)


class _HotCursor:
    """One hot file read by ascending point: every row is decoded once, whatever the ranges."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._pieces = file.iter_batches(CURSOR_ROWS, use_threads=False)
        self._rest: pa.Table | None = None

    def take_below(self, point: int) -> Iterator[pa.Table]:
        """The rows not yet taken whose point is below ``point``, in file order."""
        while True:
            if self._rest is None:
                piece = next(self._pieces, None)
                if piece is None:
                    return
                self._rest = pa.Table.from_batches([piece])
            end = int(np.searchsorted(self._rest["point"].to_numpy(), point))
            if end:
                yield self._rest.slice(0, end)
            if end < self._rest.num_rows:
                self._rest = self._rest.slice(end)
                return
            self._rest = None


class _Writer:
    """The sorted files of one commit of one table: one for each partition, filled range by range."""

    def __init__(self, folder: Path, late: bool, first: int, last: int, rules_hash: str) -> None:
        self._folder = folder
        self._stem = f"{first:020d}-{last:020d}"
        self._schema = with_metadata(LATE if late else READINGS, rules_hash)
        # No writer: the file is a copy, and whole.
        self._open: dict[int, tuple[Path, pq.ParquetWriter | None, FileStats]] = {}

    def _path(self, hour: int) -> Path:
        date, hour_of_day = partition_of(hour)
        return self._folder / f"date={date}" / f"hour={hour_of_day:02d}" / f"{self._stem}-0.parquet"

    def copy(self, file: HotFile) -> Iterator[pa.Table] | None:
        """Take ``file`` as the whole of the commit: its rows, all of which must be looked at; None: merge it."""
        path, stats = self._path(file.hour_min), FileStats()
        self._open[file.hour_min] = path, None, stats
        if copy_of(file, path):
            return map(stats.added, rows_of(path))
        self.discard()
        return None

    @property
    def rows(self) -> int:
        """Written so far."""
        return sum(stats.rows for _, _, stats in self._open.values())

    def write(self, table: pa.Table) -> None:
        for hour, rows in split_hours(table):
            if hour not in self._open:
                path = self._path(hour)
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(path, self._schema, **reading_options(self._schema))
                self._open[hour] = path, writer, FileStats()
            _, writer, stats = self._open[hour]
            assert writer is not None
            writer.write_table(
                rows.replace_schema_metadata(self._schema.metadata), row_group_size=ROW_GROUP_SEALED
            )
            stats.add(rows)

    def finish(self) -> list[AddAction]:
        """Close and sync all files and the folders above them; the actions that add them."""
        actions = []
        for hour, (path, writer, stats) in sorted(self._open.items()):
            if writer is not None:
                writer.close()
            fsync_file(path)
            actions.append(add_action(self._folder, path, hour, stats))
        paths = [path for path, _, _ in self._open.values()]
        sync_folders(self._folder, paths)
        keep_hashes(self._folder.parent.parent, paths)
        return actions

    def discard(self) -> None:
        """Remove what was written: it is not committed and never will be."""
        for path, writer, _ in self._open.values():
            if writer is not None:
                writer.close()
            path.unlink(missing_ok=True)
        self._open.clear()


class Sealer:
    """Seals hot files. Use from one thread at a time, which need not be the main one.

    root        the data folder, whose lock the caller holds
    rules_hash  of the rules in force, kept in each file's metadata
    Raises OSError or DeltaError where a table cannot be opened.
    """

    def __init__(self, root: Path, settings: SealedSettings, rules_hash: str = "") -> None:
        self.root = root
        self.settings = settings
        self.rules_hash = rules_hash
        opened_at = time.time()
        ensure_tables(root)
        self._tables = {late: TableHandle(table_dir(root, late)) for late in (False, True)}
        for late in (False, True):
            self._remove_uncommitted(late, opened_at)
        self._latest = load_latest(root)
        self._latest_files = LatestFiles(root)
        self._catch_up_latest()

    def watermarks(self) -> tuple[int, int]:
        """(main, late): rows of journal records up to these are sealed; -1 where none is."""
        return self._watermark(late=False), self._watermark(late=True)

    def _watermark(self, late: bool) -> int:
        return self._tables[late].version_of(APP_ID)

    def seal(self, upto_seq: int) -> SealReport:
        """Seal all hot ranges that end at or below ``upto_seq`` and are not sealed yet.

        Bounded in memory and in open files: a backlog is sealed in several commits. Raises OSError,
        pyarrow.ArrowException or DeltaError; what was committed before stays, the rest stays hot, and the
        next call takes it up.
        """
        wall, cpu = time.perf_counter(), time.thread_time()
        main_seq, late_seq = self.watermarks()
        report = SealReport(main_seq, late_seq)
        waiting = [f for f in list_hot(self.root, False, main_seq) if f.last <= upto_seq]
        late_files = [f for f in list_hot(self.root, True, late_seq) if f.last <= upto_seq]
        while waiting:
            mains = self._one_commit(waiting)
            waiting = waiting[len(mains) :]
            first, last = mains[0].first, mains[-1].last
            lates = [f for f in late_files if f.last <= last]
            late_files = late_files[len(lates) :]
            if lates:
                report.late_rows += self._seal_table(lates, True, lates[0].first, last, report)
                report.late_seq = last
            report.main_rows += self._seal_table(mains, False, first, last, report)
            report.main_seq = last
        if report.main_seq > main_seq:
            self._save_latest(report.main_seq)
        report.wall_s, report.cpu_s = time.perf_counter() - wall, time.thread_time() - cpu
        return report

    def drop_replaced(self, grace_s: float, now: float) -> None:
        """Delete files of last readings that no SQL session may still name; ``now`` as in HotTier.drop."""
        self._latest_files.drop(grace_s, now)

    def _one_commit(self, waiting: list[HotFile]) -> list[HotFile]:
        """The next files to seal together: a large one alone, others up to the bounds of a commit."""
        total, taken = 0, 0
        for file in waiting[:FILES_PER_COMMIT]:
            rows = pq.read_metadata(file.path).num_rows
            total += rows
            large = is_large(file, rows, self.settings.rows_max)
            if taken and (large or total > self.settings.rows_max):
                break
            taken += 1
            if large:
                break
        return waiting[:taken]

    def _seal_table(self, files: list[HotFile], late: bool, first: int, last: int, report: SealReport) -> int:
        writer = _Writer(table_dir(self.root, late), late, first, last, self.rules_hash)
        try:
            for table in self._written(writer, files, late):
                self._latest.fold(table, late=late)
            rows = writer.rows
            actions = writer.finish()
            self._commit(late, last, actions)
        except BaseException:
            # Not if the commit may have happened: then the table names these files.
            if self._watermark(late) < last:
                writer.discard()
            raise
        report.files += len(actions)
        report.commits += 1
        return rows

    def _written(self, writer: _Writer, files: list[HotFile], late: bool) -> Iterator[pa.Table]:
        """The rows of ``files``, sorted, as ``writer`` got them."""
        if len(files) == 1 and not late:
            rows = pq.read_metadata(files[0].path).num_rows
            if is_large(files[0], rows, self.settings.rows_max):
                copied = writer.copy(files[0])
                if copied is not None:
                    yield from copied
                    return
        for table in _sorted_ranges(files, late):
            writer.write(table)
            yield table

    def _commit(self, late: bool, seq: int, actions: list[AddAction]) -> None:
        self._tables[late].commit(APP_ID, seq, actions)

    def _save_latest(self, seq: int) -> None:
        self._latest.seq = seq
        self._latest.save(self.root)

    def _catch_up_latest(self) -> None:
        """Fold in what was committed after the newest file of last readings; all, if that is lost."""
        main_seq, _ = self.watermarks()
        if self._latest.seq >= main_seq:
            return
        since = self._latest.seq
        for path in self._compacted_since(since):
            self._fold_latest(path, late=False)
        for late in (False, True):
            named = [(SEALED_NAME.fullmatch(path.name), path) for path in self._tables[late].paths()]
            newer = [path for name, path in named if name and int(name.group(2)) > since]
            for path in sorted(newer, key=lambda p: p.name):
                self._fold_latest(path, late=late)
        self._save_latest(main_seq)

    def _fold_latest(self, path: Path, *, late: bool) -> None:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                self._latest.fold(file.read_row_group(group, use_threads=False), late=late)

    def _compacted_since(self, seq: int) -> list[Path]:
        """Compacted files that may hold rows of records above ``seq``, oldest first.

        Files of a later compaction hold rows up to a later record: looked at from the newest backwards.
        """
        found: list[Path] = []
        compacted = [path for path in self._tables[False].paths() if COMPACTED_NAME.fullmatch(path.name)]
        for path in sorted(compacted, key=lambda p: p.name, reverse=True):
            words = pq.read_metadata(path).metadata or {}
            if int(words[META_FOLDED_POS]) >> POS_ROW_BITS <= seq:
                break
            found.append(path)
        return found[::-1]

    def _remove_uncommitted(self, late: bool, opened_at: float) -> None:
        """Remove files a crash left before their commit: above the watermark, and from before this start.

        By the watermark and not by absence from the table: a file that compaction replaced is absent too
        but may still be read for a grace.
        """
        watermark = self._watermark(late)
        for path in table_dir(self.root, late).glob("date=*/hour=*/*.parquet"):
            name = SEALED_NAME.fullmatch(path.name)
            if name and int(name.group(2)) > watermark and path.stat().st_mtime < opened_at:
                path.unlink()


def _sorted_ranges(files: list[HotFile], late: bool) -> Iterator[pa.Table]:
    """All rows of ``files`` sorted by (point, time), one table for each range of points."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(
                pq.ParquetFile(
                    f.path, page_checksum_verification=True, pre_buffer=False, buffer_size=READ_BUFFER_BYTES
                )
            )
            for f in files
        ]
        counts = np.zeros(0, np.intp)
        for file in opened:
            seen = np.bincount(file.read(columns=["point"], use_threads=False)["point"].to_numpy())
            if len(seen) > len(counts):
                seen, counts = counts, seen
            counts[: len(seen)] += seen
        cursors = [_HotCursor(file) for file in opened]
        shape = LATE if late else READINGS
        for below in point_ranges(counts):
            parts = [conform(part, shape) for cursor in cursors for part in cursor.take_below(below)]
            if not parts:
                continue
            table = pa.concat_tables(parts).combine_chunks()
            order = point_time_order(
                table["point"].to_numpy(), table["time"].cast(pa.int64()).to_numpy(), late=late
            )
            table = pc.take(table, pa.array(order), boundscheck=False)
            # While it is being encoded nothing else of the range is held: half of what a seal takes.
            del parts, order
            yield table
            del table
