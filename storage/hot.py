"""Hot files: one small Parquet file a second, main and late apart, named by the journal range they hold.

Owns lake/hot: names, the order of the two files of a range, recovery, and when a sealed file may go.
Knows nothing of Delta (storage.sealed) or of why a reading is late.

The main file of a range is its mark of completion: it is renamed into place after the late file, says how
many late rows belong to it, and is written even when it has no row of its own. Readers learn of both from the
list (storage.hotlist), written last.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.batch import I64, US_PER_S, ReadingBatch, stable_order
from storage.fsync import fsync_dir, fsync_file
from storage.hashes import keep_hashes
from storage.hotlist import HotList
from storage.recovery import Damage, States
from storage.schema import (
    LARGE_ROWS,
    LATE,
    META_LATE_ROWS,
    READINGS,
    ROW_GROUP_HOT,
    ROW_GROUP_SEALED,
    reading_options,
    to_arrow,
    with_metadata,
)

US_PER_HOUR = 3600 * US_PER_S
DROP_SLACK_S = 60.0
"""Kept beyond the grace: a query that began in the last instant of its session may still be reading."""
LISTED_S = 60.0
"""How long a sealed file stays in the readers' list: one that read the Delta log just before the seal needs it. A
reader slower than that is told to look again."""

_NAME = re.compile(r"(\d{20})-(\d{20})-(-?\d+)-(-?\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class HotFile:
    """One hot file. Its rows come from journal records first … last (both included).

    hour_min, hour_max  event-time hours since 1970 UTC of its rows; min > max where it has no row
    rows                number of rows; -1 where only the name was read
    """

    path: Path
    first: int
    last: int
    rows: int
    hour_min: int
    hour_max: int
    late: bool


def hot_dir(root: Path, late: bool) -> Path:
    """The folder of main or of late hot files below the data folder."""
    return root / "lake" / "hot" / ("late" if late else "main")


def list_hot(root: Path, late: bool, above_seq: int = -1) -> list[HotFile]:
    """Hot files with rows above ``above_seq``, by first journal seq, from their names alone.

    Files with other names are left out. Thousands of sealed files may wait for the end of their grace.
    """
    found: list[HotFile] = []
    folder = hot_dir(root, late)
    for entry in os.scandir(folder) if folder.exists() else ():
        if (name := _NAME.fullmatch(entry.name)) and int(name.group(2)) > above_seq:
            first, last, hour_min, hour_max = (int(part) for part in name.groups())
            found.append(HotFile(Path(entry.path), first, last, -1, hour_min, hour_max, late))
    return sorted(found, key=lambda f: (f.first, f.last))


def _hours(time: I64) -> tuple[int, int]:
    if len(time) == 0:
        return 1, 0
    return int(time.min()) // US_PER_HOUR, int(time.max()) // US_PER_HOUR


def _sorted(batch: ReadingBatch, late: bool) -> pa.Table:
    """The rows by point, those of a point as they came."""
    order = stable_order(batch.point)
    if late or "numba" not in sys.modules:
        return to_arrow(batch.take(order), late)
    from storage.arrange import arranged

    return arranged(batch, order)


def _readable(path: Path) -> tuple[int, int] | None:
    """(rows, late rows it vouches for) of a whole hot file, None of a torn one.

    Reads every page and its checksum: after a power cut a footer can stand over pages that never
    reached the disk.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group, use_threads=False)
            late_rows = int((file.metadata.metadata or {}).get(META_LATE_ROWS, b"0"))
            return file.metadata.num_rows, late_rows
    except (pa.ArrowException, OSError, ValueError):
        return None


def _rows_said(path: Path) -> int:
    """Rows a damaged file says it had; 0 where it cannot even say that."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError, ValueError):
        return 0


def _first_of(path: Path) -> int:
    return int(path.name[:20])


class HotTier:
    """Writes, recovers and drops hot files. ``write`` and ``sync`` belong to the judge's thread;
    ``pending`` and ``drop`` may be called from the sealer's.

    root        the data folder
    rules_hash  of the rules in force, kept in each file's metadata
    """

    def __init__(self, root: Path, rules_hash: str = "") -> None:
        self.root = root
        self.rules_hash = rules_hash
        self._main = hot_dir(root, late=False)
        self._late = hot_dir(root, late=True)
        # Inside hot/, so on the same file system, and out of sight of the readers' globs.
        self._tmp = root / "lake" / "hot" / "tmp"
        for folder in (self._main, self._late, self._tmp):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (root / "lake" / "hot", root / "lake", root):
            fsync_dir(folder)
        self._lock = threading.Lock()
        self._files: dict[Path, HotFile] = {}
        self._unsynced: list[Path] = []
        self._sealed_since: dict[Path, float] = {}
        self.damage = Damage()
        self._list = HotList(root / "lake" / "hot")
        if not self._list.load():
            self._list_folders()
            self._list.save()

    def _list_folders(self) -> None:
        for late in (False, True):
            self._list.names(late).update({f.path.name: f.last for f in list_hot(self.root, late)})
        self._list.last = max(self._list.main.values(), default=-1)

    def write(self, first_seq: int, last_seq: int, main: ReadingBatch, late: ReadingBatch) -> None:
        """Make the readings of journal records first_seq … last_seq visible. Nothing is written for no row.

        Not durable until ``sync``: after a power cut the journal brings back what is missing. Raises
        OSError or pyarrow.ArrowException; the range then counts as not written and nothing of it is left:
        the next attempt may be for a longer range, whose late rows would stand beside those of this one.
        """
        if len(main) == 0 and len(late) == 0:
            return
        steps: list[tuple[Path, HotFile]] = []
        try:
            if len(late):
                steps.append(self._write_one(first_seq, last_seq, late, late=True, late_rows=0))
            steps.append(self._write_one(first_seq, last_seq, main, late=False, late_rows=len(late)))
            for tmp, file in steps:
                os.replace(tmp, file.path)
            with self._lock:
                self._show([file for _, file in steps], last_seq)
        except BaseException:
            # The list is replaced last, so no reader was ever shown one of them.
            for tmp, file in steps:
                tmp.unlink(missing_ok=True)
                file.path.unlink(missing_ok=True)
            raise
        with self._lock:
            for _, file in steps:
                self._files[file.path] = file
                self._unsynced.append(file.path)

    def _show(self, files: list[HotFile], last_seq: int) -> None:
        was, self._list.last = self._list.last, max(self._list.last, last_seq)
        for file in files:
            self._list.names(file.late)[file.path.name] = file.last
        try:
            self._list.save()
        except BaseException:
            self._list.last = was
            for file in files:
                del self._list.names(file.late)[file.path.name]
            raise

    def _write_one(
        self, first: int, last: int, batch: ReadingBatch, *, late: bool, late_rows: int
    ) -> tuple[Path, HotFile]:
        """The file under its temporary name, and what it is once it has its own."""
        hour_min, hour_max = _hours(batch.time)
        name = f"{first:020d}-{last:020d}-{hour_min}-{hour_max}.parquet"
        tmp = self._tmp / f"{'late' if late else 'main'}-{name}"
        final = (self._late if late else self._main) / name
        schema = with_metadata(
            LATE if late else READINGS, self.rules_hash, {META_LATE_ROWS: str(late_rows).encode()}
        )
        table = _sorted(batch, late)
        try:
            with pq.ParquetWriter(tmp, schema, **reading_options(schema)) as writer:
                group = ROW_GROUP_SEALED if len(batch) >= LARGE_ROWS else ROW_GROUP_HOT
                writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=group)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        return tmp, HotFile(final, first, last, len(batch), hour_min, hour_max, late)

    def recover(self, sealed_main_seq: int, sealed_late_seq: int) -> int:
        """Adopt what a former run left; returns H, the highest journal seq whose rows stand in the lake.

        Rows of records ≤ H must not be written again; rows above H are nowhere. A range is whole when its
        main file is, and the late file it vouches for is whole too or sealed. The first torn range and
        all after it are removed, so that what is adopted has no hole: Judge derives them again. Where a
        snapshot presumes them, they were on disk once and are damaged since: then Judge goes back to a state
        before them. Only if there is none, the rest stays and what cannot be read is lost; ``damage`` says it.
        Call once, before ``write``.
        """
        for leftover in self._tmp.iterdir():
            leftover.unlink()
        states = States(self.root)
        late = {(f.first, f.last): f for f in list_hot(self.root, late=True)}
        whole_until = sealed_main_seq
        torn: list[Path] = []
        for main in list_hot(self.root, late=False):
            if main.last <= sealed_main_seq:
                self._files[main.path] = main
            elif torn:
                torn.append(main.path)
            elif self._adopt_range(main, late.get((main.first, main.last)), sealed_late_seq, states):
                whole_until = main.last
            elif states.presumed(main.first) and not states.reach(main.first):
                whole_until = main.last
                self._adopt_rest(main, late.get((main.first, main.last)), sealed_late_seq, states)
            else:
                torn.append(main.path)
        for left in late.values():
            if left.last <= sealed_late_seq:
                self._files.setdefault(left.path, left)
            elif left.path not in self._files and left.path.exists():
                torn.append(left.path)
        if torn:
            states.forget_above(min(_first_of(path) for path in torn) - 1)
        self._relist(sealed_main_seq, sealed_late_seq, whole_until)
        self._remove(torn, states)
        return whole_until

    def _relist(self, sealed_main_seq: int, sealed_late_seq: int, whole_until: int) -> None:
        """Readers are shown what was adopted and is not sealed, before anything torn is removed."""
        shown = HotList(self._list.path.parent)
        # A crash between the two commits of a seal leaves the late watermark ahead: their main rows are hot.
        floor = min(sealed_main_seq, sealed_late_seq)
        shown.sealed_main, shown.sealed_late, shown.last = sealed_main_seq, floor, whole_until
        for file in self._files.values():
            if file.last > (floor if file.late else sealed_main_seq):
                shown.names(file.late)[file.path.name] = file.last
        shown.save()
        self._list = shown

    def _adopt_range(self, main: HotFile, late: HotFile | None, sealed_late_seq: int, states: States) -> bool:
        read = _readable(main.path) if states.fits(main.path) else None
        if read is None:
            return False
        rows, late_rows = read
        if late_rows and main.last > sealed_late_seq:
            late_read = _readable(late.path) if late and states.fits(late.path) else None
            if late is None or late_read is None or late_read[0] != late_rows:
                return False
            self._adopt(late, late_rows)
        self._adopt(main, rows)
        return True

    def _adopt_rest(self, main: HotFile, late: HotFile | None, sealed_late_seq: int, states: States) -> None:
        """Keep what is whole of a range that nothing can bring back, and say what is lost."""
        for file in (main, late):
            if file is None or (file.late and file.last <= sealed_late_seq):
                continue
            read = _readable(file.path) if states.fits(file.path) else None
            if read is not None:
                self._adopt(file, read[0])
                continue
            self.damage.lost_rows += _rows_said(file.path)
            hours = f"event hours {file.hour_min} to {file.hour_max} since 1970"
            records = f"of journal records {file.first} to {file.last}, {hours}"
            self.damage.put_aside(
                file.path, f"damaged; the {'late' if file.late else 'main'} rows {records} are lost"
            )

    def _adopt(self, file: HotFile, rows: int) -> None:
        self._files[file.path] = HotFile(
            file.path, file.first, file.last, rows, file.hour_min, file.hour_max, file.late
        )
        self._unsynced.append(file.path)

    def _remove(self, paths: Iterable[Path], states: States) -> None:
        touched = set()
        for path in paths:
            if states.was_synced(path) and not states.fits(path):
                self.damage.put_aside(path, "damaged; its rows are derived again from the journal")
            path.unlink(missing_ok=True)
            self._files.pop(path, None)
            touched.add(path.parent)
        for folder in touched:
            fsync_dir(folder)

    def sync(self) -> None:
        """Put all files written or adopted since the last sync on disk, late before main; keep their hashes.

        Call before a snapshot is saved: the snapshot presumes these rows. Raises OSError; the files then
        count as not written and a restart must decide.
        """
        with self._lock:
            paths, self._unsynced = self._unsynced, []
        for path in paths:
            # A file may be gone: sealed, on disk there, and dropped since.
            if path.exists():
                fsync_file(path)
        for folder in (self._late, self._main):
            fsync_dir(folder)
        keep_hashes(self.root, paths)

    def pending(self, above_seq: int) -> list[HotFile]:
        """Main and late files that hold rows above ``above_seq``, by first seq."""
        with self._lock:
            files = [f for f in self._files.values() if f.last > above_seq]
        return sorted(files, key=lambda f: (f.first, f.late))

    def drop(self, upto_main: int, upto_late: int, grace_s: float, now: float) -> int:
        """Delete files that were first seen sealed (last ≤ upto) more than ``grace_s`` ago; returns how many.

        The age counts from the seal, not from the file: until then every query named the file. ``now`` is
        any clock in seconds that does not jump (time.monotonic()); a restart begins the grace anew.
        """
        with self._lock:
            gone = []
            listed = len(self._list.main) + len(self._list.late)
            for path, file in self._files.items():
                if file.last <= (upto_late if file.late else upto_main):
                    since = self._sealed_since.setdefault(path, now)
                    if now - since > LISTED_S and file.last <= upto_main:
                        self._list.leave_out(path.name, file.late)
                    if now - since > grace_s + DROP_SLACK_S:
                        gone.append(path)
            if len(self._list.main) + len(self._list.late) < listed and not self._list.try_save():
                return 0  # nothing goes that the list may still name
            for path in gone:
                path.unlink(missing_ok=True)
                del self._files[path], self._sealed_since[path]
        return len(gone)


def hours_since_1970(time: I64) -> I64:
    """Event-time hours since 1970 UTC of times in µs; rounds down, also before 1970."""
    return np.floor_divide(time, US_PER_HOUR)
