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

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, CommitProperties, PostCommitHookProperties

from storage.deltalog import CHECKPOINT_EVERY, checkpoint, last_checkpoint, set_aside_torn, sync_entries
from storage.fsync import fsync_dir, fsync_file
from storage.hot import HotFile, list_hot
from storage.latest import LatestFiles, load_latest
from storage.schema import (
    LATE,
    PARTITIONS,
    READINGS,
    ROW_GROUP_SEALED,
    reading_options,
    with_metadata,
)
from storage.seal_plan import FileStats, partition_of, point_ranges, point_time_order, split_hours
from storage.settings import SealedSettings

APP_ID: Final = "yuzui"
COMMIT_ATTEMPTS: Final = 5
"""Each begins with a refresh. Another writer (compaction) can win a race or two; five losses are a fault."""
FILES_PER_COMMIT: Final = 256
"""Hot files open at once: after a long stop of sealing thousands wait, more than a process may open."""

_NAME = re.compile(r"(\d{20})-(\d{20})-(\d+)\.parquet")


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
                },
            )
            sync_entries(folder, 0, 0)
            fsync_dir(folder)
            fsync_dir(folder.parent)
        if last_checkpoint(folder) is None:
            checkpoint(DeltaTable(str(folder)), folder, clean=False)


class _HotCursor:
    """One hot file read by ascending point: every row group is decoded once, whatever the ranges."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self._next = 0
        self._rest: pa.Table | None = None

    def take_below(self, point: int) -> Iterator[pa.Table]:
        """The rows not yet taken whose point is below ``point``, in file order."""
        while True:
            if self._rest is None:
                if self._next == self._file.num_row_groups:
                    return
                self._rest = self._file.read_row_group(self._next, use_threads=False)
                self._next += 1
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
        self._open: dict[int, tuple[Path, pq.ParquetWriter, FileStats]] = {}

    def write(self, table: pa.Table) -> None:
        for hour, rows in split_hours(table):
            if hour not in self._open:
                date, hour_of_day = partition_of(hour)
                path = self._folder / f"date={date}" / f"hour={hour_of_day:02d}" / f"{self._stem}-0.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(path, self._schema, **reading_options(self._schema))
                self._open[hour] = path, writer, FileStats()
            _, writer, stats = self._open[hour]
            writer.write_table(
                rows.replace_schema_metadata(self._schema.metadata), row_group_size=ROW_GROUP_SEALED
            )
            stats.add(rows)

    def finish(self) -> list[AddAction]:
        """Close and sync all files and the folders above them; the actions that add them."""
        actions = []
        folders = {self._folder}
        for hour, (path, writer, stats) in sorted(self._open.items()):
            writer.close()
            fsync_file(path)
            folders |= {path.parent, path.parent.parent}
            date, hour_of_day = partition_of(hour)
            stat = path.stat()
            actions.append(
                AddAction(
                    path=path.relative_to(self._folder).as_posix(),
                    size=stat.st_size,
                    partition_values={"date": date, "hour": str(hour_of_day)},
                    modification_time=stat.st_mtime_ns // 1_000_000,
                    data_change=True,
                    stats=stats.json(),
                )
            )
        for folder in sorted(folders, reverse=True):
            fsync_dir(folder)
        return actions

    def discard(self) -> None:
        """Remove what was written: it is not committed and never will be."""
        for path, writer, _ in self._open.values():
            writer.close()
            path.unlink(missing_ok=True)


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
        self._tables = {late: DeltaTable(str(table_dir(root, late))) for late in (False, True)}
        for late in (False, True):
            self._remove_uncommitted(late, opened_at)
        self._latest = load_latest(root)
        self._latest_files = LatestFiles(root)
        self._catch_up_latest()

    def watermarks(self) -> tuple[int, int]:
        """(main, late): rows of journal records up to these are sealed; -1 where none is."""
        return self._watermark(late=False), self._watermark(late=True)

    def _watermark(self, late: bool) -> int:
        table = self._tables[late]
        table.update_incremental()
        version = table.transaction_version(APP_ID)
        return -1 if version is None else int(version)

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
            self._save_latest(last)
        report.wall_s, report.cpu_s = time.perf_counter() - wall, time.thread_time() - cpu
        return report

    def drop_replaced(self, grace_s: float, now: float) -> None:
        """Delete files of last readings that no SQL session may still name; ``now`` as in HotTier.drop."""
        self._latest_files.drop(grace_s, now)

    def _one_commit(self, waiting: list[HotFile]) -> list[HotFile]:
        rows, taken = 0, 0
        for file in waiting[:FILES_PER_COMMIT]:
            rows += pq.read_metadata(file.path).num_rows
            if taken and rows > self.settings.rows_max:
                break
            taken += 1
        return waiting[:taken]

    def _seal_table(self, files: list[HotFile], late: bool, first: int, last: int, report: SealReport) -> int:
        writer = _Writer(table_dir(self.root, late), late, first, last, self.rules_hash)
        rows = 0
        try:
            for table in _sorted_ranges(files, late):
                writer.write(table)
                self._latest.fold(table, late=late)
                rows += table.num_rows
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

    def _commit(self, late: bool, seq: int, actions: list[AddAction]) -> None:
        table, folder = self._tables[late], table_dir(self.root, late)
        lost: DeltaError | None = None
        for _ in range(COMMIT_ATTEMPTS):
            # The check is ours: on a fresh handle the library accepts a repeated or lower version.
            if self._watermark(late) >= seq:
                break
            before = table.version()
            try:
                table.create_write_transaction(
                    actions,
                    "append",
                    table.schema(),
                    PARTITIONS.names,
                    commit_properties=CommitProperties(
                        max_commit_retries=0, app_transactions=[Transaction(APP_ID, seq)]
                    ),
                    post_commithook_properties=PostCommitHookProperties(
                        create_checkpoint=False, cleanup_expired_logs=False
                    ),
                )
            except DeltaError as error:
                lost = error
                continue
            table.update_incremental()
            sync_entries(folder, before + 1, table.version())
            break
        else:
            raise lost or DeltaError("no attempt")
        if table.version() - (last_checkpoint(folder) or 0) >= CHECKPOINT_EVERY:
            checkpoint(table, folder, clean=True)
            # A handle slows down with every commit it takes in; a fresh one starts at the checkpoint.
            self._tables[late] = DeltaTable(str(folder))

    def _save_latest(self, seq: int) -> None:
        self._latest.seq = seq
        self._latest.save(self.root)

    def _catch_up_latest(self) -> None:
        """Fold in what was committed after the newest file of last readings; all, if that is lost."""
        main_seq, _ = self.watermarks()
        if self._latest.seq >= main_seq:
            return
        since = self._latest.seq
        for late in (False, True):
            named = [(_NAME.fullmatch(Path(uri).name), uri) for uri in self._tables[late].file_uris()]
            newer = [uri for name, uri in named if name is None or int(name.group(2)) > since]
            for uri in sorted(newer, key=lambda u: Path(u).name):
                table = pq.ParquetFile(uri.removeprefix("file://")).read(use_threads=False)
                self._latest.fold(table, late=late)
        self._save_latest(main_seq)

    def _remove_uncommitted(self, late: bool, opened_at: float) -> None:
        """Remove files a crash left before their commit: above the watermark, and from before this start.

        By the watermark and not by absence from the table: a file that compaction replaced is absent too
        but may still be read for a grace.
        """
        watermark = self._watermark(late)
        for path in table_dir(self.root, late).glob("date=*/hour=*/*.parquet"):
            name = _NAME.fullmatch(path.name)
            if name and int(name.group(2)) > watermark and path.stat().st_mtime < opened_at:
                path.unlink()


def _sorted_ranges(files: list[HotFile], late: bool) -> Iterator[pa.Table]:
    """All rows of ``files`` sorted by (point, time), one table for each range of points."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(pq.ParquetFile(f.path, page_checksum_verification=True, pre_buffer=False))
            for f in files
        ]
        counts = np.zeros(0, np.intp)
        for file in opened:
            seen = np.bincount(file.read(columns=["point"], use_threads=False)["point"].to_numpy())
            if len(seen) > len(counts):
                seen, counts = counts, seen
            counts[: len(seen)] += seen
        cursors = [_HotCursor(file) for file in opened]
        for below in point_ranges(counts):
            parts = [part for cursor in cursors for part in cursor.take_below(below)]
            if not parts:
                continue
            table = pa.concat_tables(parts).combine_chunks()
            order = point_time_order(
                table["point"].to_numpy(), table["time"].cast(pa.int64()).to_numpy(), late=late
            )
            yield table.take(pa.array(order))
