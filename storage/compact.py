"""Compaction: the sealed and late files of an hour become few sorted files, rollups and counts, in one commit.

Owns the order of its steps, what a crash between two of them leaves, and which files it has replaced. When is
compact_plan's, how rows merge is merge's. Runs in the process that seals, a step between two seals, so the Delta
tables have one writer; each step is short, and what it holds in memory is bounded.

Order, each on disk before the next: the c files; rollups; fold counts; the commit on the main table, which takes
exactly the files that were read and switches all of it at once; the commit that takes the folded late files out of
the late table. A crash before the first commit leaves files whose number is above the committed one: they are
removed before that number is given again. A crash between the two leaves late files that are folded already:
``yuzui.folded_pos`` of the c files says so, and the next start takes them out.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import RemoveAction

from storage.batch import I64, POS_ROW_BITS
from storage.compact_plan import Job, LiveFile, dirty_hours, notice, plan
from storage.deltatable import TableHandle
from storage.folds import FoldCounts, FoldLog, FoldTotal, report_suspicious, sources_of, totals_upto
from storage.fsync import fsync_dir
from storage.hashes import keep_hashes
from storage.merge import Opened, open_sorted, pieces, resolve
from storage.parts import PartFiles
from storage.replaced import ReplacedFiles
from storage.rollups import HOURS_A_DAY, HourRollup, hour_dir, list_rollups, minute_dir
from storage.schema import LATE, META_FOLDED_POS, META_REPLACES, META_RULES, READINGS, with_metadata
from storage.seal_plan import COMPACT_APP, COMPACTED_NAME, SEALED_NAME, partition_of
from storage.sealed import APP_ID, ensure_tables, table_dir
from storage.settings import CompactionSettings

GATHER_APP: Final = "yuzui-gather"
ROOM_SHARE_MAX: Final = 0.5
"""A job writes about what it reads, and the files it replaces stay for the grace. It may take this share of the free
room and no more: the journal, the hot files and the next seals need it before."""
ASIDE_S: Final = 3600.0
"""An hour that could not be compacted (a damaged file) is tried again after this long, or after a restart."""

Steps = Generator[None, None, "CompactReport"]


@dataclass(slots=True)
class CompactReport:
    """What one job did. ``rows`` were read; the three counts are late rows folded; files of both tables."""

    kind: str
    hour: int
    number: int
    rows: int
    files_before: int
    files_after: int = 0
    late_new: int = 0
    revised: int = 0
    repeats: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(slots=True)
class _Unfinished:
    """What a compaction has written and not committed."""

    files: PartFiles
    rollup: HourRollup
    counts: FoldCounts = field(default_factory=FoldCounts)


class Compactor:
    """Compacts the tables of the data folder ``root``, whose sealing lock the caller holds; one thread.

    Raises OSError, DeltaError or pyarrow.ArrowException where the tables cannot be opened.
    """

    def __init__(self, root: Path, settings: CompactionSettings) -> None:
        self.root = root
        self.settings = settings
        ensure_tables(root)
        self._main = TableHandle(table_dir(root, late=False))
        self._late = TableHandle(table_dir(root, late=True))
        self._folds = FoldLog(root)
        self._replaced = ReplacedFiles()
        self._noticed: dict[int, int] = {}
        self._aside: dict[int, float] = {}
        self._told: dict[str, int] = {}
        self._newest_us = 0
        self._unclean = True
        self._owed = True
        self._remove_uncommitted()
        self._take_out_folded()
        self._find_replaced()

    # What is due

    def look(self, now: float) -> list[Job]:
        """What is due, in the order in which it should be done. ``now`` in seconds of a clock without jumps."""
        if self._owed:
            self._take_out_folded()
        main_seq, _ = self._main.version_of(APP_ID), self._late.version_of(APP_ID)
        main, late = self._main.live(), self._late.live()
        newest = pc.max(main["max.time"].cast(pa.int64())).as_py() if main.num_rows else None
        if newest is None:
            return []
        self._newest_us = newest
        main_files, late_files = _live_files(main, late)
        self._noticed = notice(self._noticed, dirty_hours(main_files, late_files), newest)
        self._aside = {hour: until for hour, until in self._aside.items() if until > now}
        return plan(main_files, late_files, main_seq, newest, self._noticed, self.settings, self._aside)

    def set_aside(self, hour: int, now: float) -> None:
        """Leave an hour alone for a while: its last job failed."""
        self._aside[hour] = now + ASIDE_S

    # What is done

    def run(self, job: Job) -> Steps:
        """Do the job in steps of well below a second; its value is the report.

        Between two steps anything may be appended to the tables. Raises InputDamaged, OSError, DeltaError,
        pyarrow.ArrowException: nothing is committed then and nothing is left, or all is committed but the second
        commit, which the next start makes up for. Closing it before its end has the same effect.
        """
        wall, cpu = time.perf_counter(), 0.0
        size = sum(f.size for f in (*job.main, *job.late))
        if size > ROOM_SHARE_MAX * shutil.disk_usage(self.root).free:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size} bytes are to be merged")
        steps = self._compact(job) if job.kind == "compact" else self._gather(job)
        while True:
            began = time.thread_time()
            try:
                next(steps)
            except StopIteration as done:
                report: CompactReport = done.value
                report.cpu_s, report.wall_s = cpu + time.thread_time() - began, time.perf_counter() - wall
                return report
            cpu += time.thread_time() - began
            yield

    def _compact(self, job: Job) -> Steps:
        committed = self._main.version_of(COMPACT_APP)
        number = max(committed, 0) + 1
        report = _report(job, number)
        if self._unclean:
            self._remove_uncommitted()
        upto_pos = ((job.upto_seq + 1) << POS_ROW_BITS) - 1
        opened = self._open(job)
        extra = {META_FOLDED_POS: str(upto_pos).encode(), META_REPLACES: _names(job.main)}
        schema = with_metadata(READINGS, b",".join(opened.words(META_RULES)).decode(), extra)
        moved = not job.late
        made = _Unfinished(
            PartFiles(self._main.folder, job.hour, _compacted_names(number), schema, moved=moved),
            HourRollup(self.root, job.hour, number, committed),
        )
        try:
            yield from self._merge(opened, made, report)
            adds = made.files.finish()
            yield
            yield from made.rollup.finish()
            keep_hashes(self.root, [*made.files.paths, *made.rollup.paths])
            rows = made.counts.table(number, job.hour, sources_of(self.root), self._newest_us)
            self._folds.append(number, rows)
            self._main.commit(COMPACT_APP, number, [*_removals(job.main, moved=moved), *adds])
        except BaseException:
            opened.close()
            self._unclean = True
            if self._main.version_of(COMPACT_APP) < number:
                made.files.discard()
                made.rollup.discard()
                # At once, so that nobody gives this number to something else before it is durable.
                self._remove_uncommitted()
            raise
        opened.close()
        report.files_after = len(adds)
        self._replaced.add(self._main.folder / f.path for f in job.main)
        self._replaced.add(made.rollup.replaced)
        self._noticed.pop(job.hour, None)
        yield
        if job.late:
            self._owed = True
            self._late.commit(COMPACT_APP, number, _removals(job.late, moved=False))
            self._owed = False
            self._replaced.add(self._late.folder / f.path for f in job.late)
        self._told = report_suspicious(totals_upto(self.root, number), self._told)
        return report

    def _merge(self, opened: Opened, made: _Unfinished, report: CompactReport) -> Generator[None]:
        folded_pos = max((int(word) for word in opened.words(META_FOLDED_POS)), default=-1)
        counts = made.counts
        for piece in pieces(opened):
            found = resolve(piece.main, piece.late, folded_pos)
            made.files.write(found.rows)
            made.rollup.add(found.rows)
            counts.add("rows", found.rows["point"].to_numpy())
            counts.add("rows", piece.compacted, -1)
            counts.add("late_new", found.late_new)
            counts.add("revised", found.revised)
            counts.add("repeats", found.repeats)
            yield
        report.late_new, report.revised = counts.total("late_new"), counts.total("revised")
        report.repeats = counts.total("repeats")

    def _gather(self, job: Job) -> Steps:
        late = bool(job.late)
        table, files = (self._late, job.late) if late else (self._main, job.main)
        number = table.version_of(GATHER_APP) + 1
        report = _report(job, number)
        opened = self._open(job)
        extra = {META_REPLACES: _names(files)}
        schema = with_metadata(
            LATE if late else READINGS, b",".join(opened.words(META_RULES)).decode(), extra
        )
        made = PartFiles(
            table.folder, job.hour, _gathered_names(table.folder, files), schema, moved=True, lasting=False
        )
        try:
            for piece in pieces(opened):
                made.write(piece.late if late else piece.main)
                yield
            adds = made.finish()
            keep_hashes(self.root, made.paths)
            table.commit(GATHER_APP, number, [*_removals(files, moved=True), *adds])
        except BaseException:
            opened.close()
            if table.version_of(GATHER_APP) < number:
                made.discard()
            raise
        opened.close()
        self._replaced.add(table.folder / f.path for f in files)
        report.files_after = len(adds)
        return report

    def _open(self, job: Job) -> Opened:
        # Compacted ones first, late ones by receipt.
        main = sorted(job.main, key=lambda f: (not f.compacted, f.path))
        late = sorted(job.late, key=lambda f: f.last)
        return open_sorted(
            [(self._main.folder / f.path, f.rows) for f in main],
            [(self._late.folder / f.path, f.rows) for f in late],
            job.hour,
            self.settings.memory_bytes,
        )

    # What a crash left, and what may go

    def tidy(self, grace_s: float, now: float) -> None:
        """Delete what was replaced a grace ago; between jobs only. Raises OSError."""
        self._replaced.drop(grace_s, now)
        self._folds.tidy(grace_s, now)

    def _remove_uncommitted(self) -> None:
        """Remove everything that carries a number above the committed one, durably: the next compaction has that
        number, and what is left would count with it. Never a file that the table names."""
        committed = self._main.version_of(COMPACT_APP)
        live = set(self._main.paths())
        touched = set()
        for path in self._main.folder.glob("date=*/hour=*/c*.parquet"):
            name = COMPACTED_NAME.fullmatch(path.name)
            if name and int(name.group(1)) > committed and path not in live:
                path.unlink()
                touched.add(path.parent)
        rollups = (minute_dir(self.root), hour_dir(self.root))
        for folder in rollups:
            for _, number, path in list_rollups(folder):
                if number > committed:
                    path.unlink()
        # Also what an unfinished one removed itself.
        for folder in touched | {folder for folder in rollups if folder.exists()}:
            fsync_dir(folder)
        self._folds.remove_above(committed)
        self._unclean = False

    def _take_out_folded(self) -> None:
        """Make up for a second commit that a crash prevented."""
        committed = self._main.version_of(COMPACT_APP)
        if self._late.version_of(COMPACT_APP) >= committed:
            self._owed = False
            return
        main_files, late_files = _live_files(self._main.live(), self._late.live())
        upto: dict[int, int] = {}
        for file in main_files:
            if file.compacted and file.hour not in upto:
                words = pq.read_metadata(self._main.folder / file.path).metadata or {}
                upto[file.hour] = int(words[META_FOLDED_POS]) >> POS_ROW_BITS
        folded = [f for f in late_files if f.last <= upto.get(f.hour, -1)]
        if folded:
            self._late.commit(COMPACT_APP, committed, _removals(folded, moved=False))
            self._replaced.add(self._late.folder / f.path for f in folded)
        self._owed = False

    def _find_replaced(self) -> None:
        """At a start: files that no table names are replaced ones whose grace begins anew."""
        for table in (self._main, self._late):
            watermark = table.version_of(APP_ID)
            unnamed = set(table.folder.glob("date=*/hour=*/*.parquet")) - set(table.paths())
            # One above the watermark was never committed: the seal made again may give its name to a live file.
            self._replaced.add(path for path in unnamed if _last_of(path.name) <= watermark)
        for folder in (minute_dir(self.root), hour_dir(self.root)):
            newest = {of: path for of, _, path in list_rollups(folder)}
            self._replaced.add(path for of, _, path in list_rollups(folder) if newest[of] != path)


def fold_totals(root: Path) -> list[FoldTotal]:
    """Late readings by source, of all hours compacted so far. Raises OSError, DeltaError, ArrowException."""
    return totals_upto(root, TableHandle(table_dir(root, late=False)).version_of(COMPACT_APP))


def _live_files(main: pa.Table, late: pa.Table) -> tuple[list[LiveFile], list[LiveFile]]:
    """Files of hours in which something is not compacted yet."""
    hour_main, hour_late = _hours(main), _hours(late)
    sealed = ~pc.match_substring(main["path"], "/c").to_numpy(zero_copy_only=False)
    dirty = np.union1d(hour_main[sealed], hour_late)
    wanted = np.isin(hour_main, dirty)
    return _files(main.filter(pa.array(wanted)), hour_main[wanted]), _files(late, hour_late)


def _hours(files: pa.Table) -> I64:
    days = files["partition.date"].cast(pa.int32()).to_numpy().astype(np.int64)
    hours: I64 = days * HOURS_A_DAY + files["partition.hour"].to_numpy()
    return hours


def _files(files: pa.Table, hours: I64) -> list[LiveFile]:
    found = []
    columns = (files[name].to_pylist() for name in ("path", "num_records", "size_bytes"))
    for path, rows, size, hour in zip(*columns, hours.tolist(), strict=True):
        last = _last_of(path.rpartition("/")[2])
        found.append(LiveFile(path, hour, rows, size, last < 0, last))
    return found


def _last_of(name: str) -> int:
    """The newest journal seq of a sealed file, -1 of a compacted one."""
    named = SEALED_NAME.fullmatch(name)
    return int(named.group(2)) if named else -1


def _report(job: Job, number: int) -> CompactReport:
    return CompactReport(job.kind, job.hour, number, job.rows, len(job.main) + len(job.late))


def _names(files: Iterable[LiveFile]) -> bytes:
    return json.dumps([f.path for f in files]).encode()


def _removals(files: Iterable[LiveFile], *, moved: bool) -> list[RemoveAction]:
    """Actions that take ``files`` out; ``moved`` as in PartFiles."""
    now_ms = time.time_ns() // 1_000_000
    found = []
    for file in files:
        date, hour_of_day = partition_of(file.hour)
        partition: dict[str, str | None] = {"date": date, "hour": str(hour_of_day)}
        found.append(RemoveAction(file.path, not moved, now_ms, file.size, partition))
    return found


def _compacted_names(number: int) -> Callable[[int], str]:
    return lambda part: f"c{number:020d}-{part:04d}.parquet"


def _gathered_names(folder: Path, files: Sequence[LiveFile]) -> Callable[[int], str]:
    """Names for one file made of ``files``: sealed names of the whole range, with a number that is free.

    A file with that range may stand: replaced and still in its grace, or left by a crash.
    """
    names = [SEALED_NAME.fullmatch(Path(f.path).name) for f in files]
    first = min(int(name.group(1)) for name in names if name)
    last = max(f.last for f in files)
    stem = f"{first:020d}-{last:020d}"
    taken = [
        SEALED_NAME.fullmatch(path.name) for path in (folder / files[0].path).parent.glob(f"{stem}-*.parquet")
    ]
    free = max((int(name.group(3)) for name in taken if name), default=0) + 1
    return lambda part: f"{stem}-{free + part}.parquet"
