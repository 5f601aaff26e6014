"""Every byte of a data folder verified: what is damaged, what that costs, and where it can be made again.

Owns the walk over the folder, what verifies each kind of file, and the words of a finding. Changes nothing but
the list of hashes. Runs beside a live engine: a file that vanishes or is replaced meanwhile is no damage.

Verified by hash: all below lake/ and lake.sql. By checksums of their own: journal and snapshots. By what they
must say: ``_last_checkpoint``, the room not used yet. SQLite's outbox has no checksums: its integrity check finds
broken structure, not every flipped bit, and the report says so.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from storage import audit, hashes, snapshot
from storage.deltastate import read_log
from storage.hashes import Sum, hashes_dir, name_of, sum_of
from storage.hotlist import LIST_NAME
from storage.lock import in_use
from storage.rollups import list_rollups
from storage.scrub_cost import Cost, cost_of
from storage.scrub_journal import check_segment, check_zeros
from storage.scrub_parquet import BadRows, bad_rows
from storage.scrub_tables import LOOKS_LIVE, TABLES, check_hot_list, check_pointer, check_tables, named_files
from storage.seal_plan import COMPACT_APP
from storage.segment import SEGMENT_HEAD, JournalNewer, list_segments

PARTS_FAST: Final = frozenset({"readings", "late", "rollup_1m", "rollup_1h"})
"""Folders of the lake whose data files ``fast`` compares by length only: nearly all bytes are there."""
ROLLUPS: Final = frozenset({"rollup_1m", "rollup_1h"})
NOT_LASTING: Final = frozenset({"tmp", "hashes"})
IN_PLACE: Final = {"_last_checkpoint": check_pointer, LIST_NAME: check_hot_list}
"""Replaced too often for a hash: verified by what they must say. Each returns what is wrong, "" for nothing."""
ENDINGS_ASIDE: Final = (".bad", ".torn", ".tmp")
"""Files set aside or unfinished: nobody reads them."""
SYNCED_S_MAX: Final = 3900.0
"""Hot files and logs are synced, and their hashes kept, before each snapshot: at most an hour apart."""
REPLACED_S: Final = 0.2
"""A file that does not fit is looked at once more after this: it may have been replaced while it was read."""
OUTBOX_NOTE: Final = (
    "outbox.db has no checksums: SQLite's integrity check finds broken structure, not every flipped bit"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One damaged file, or one damaged place of the journal.

    path      below the data folder
    what      what is wrong with it, in words
    bad       the rows that cannot be trusted, where they are known
    affected  what that means: hours, points, times, rows
    source    where the contents stand once more, "" for nowhere
    advice    what to do
    """

    path: str
    what: str
    affected: str
    source: str
    advice: str
    bad: tuple[BadRows, ...] = ()

    def json(self) -> dict[str, Any]:
        """For machines: the same, times as ISO 8601."""
        return asdict(self)


@dataclass(slots=True)
class ScrubReport:
    """What one scrub saw. hashed: files that had no hash, were whole and have one now."""

    files: int = 0
    bytes: int = 0
    hashed: int = 0
    vanished: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Pace:
    """Tells how far the scrub is, and sleeps where it is faster than ``bytes_per_s`` (None: as fast as it goes)."""

    def __init__(self, bytes_per_s: float | None, on_bytes: Callable[[int], None]) -> None:
        self._limit = bytes_per_s
        self._tell = on_bytes
        self._began = time.monotonic()
        self.bytes = 0

    def __call__(self, count: int) -> None:
        """``count`` more bytes were read."""
        self.bytes += count
        self._tell(count)
        if self._limit:
            ahead = self.bytes / self._limit - (time.monotonic() - self._began)
            if ahead > 0:
                time.sleep(ahead)


def bytes_to_read(root: Path) -> int:
    """About how many bytes a scrub of ``root`` reads, for a progress bar."""
    return sum(_size(path) for path in [*_lake_files(root), *(root / "journal").glob("*.journal")])


def scrub(
    root: Path,
    *,
    fast: bool = False,
    bytes_per_s: float | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> ScrubReport:
    """Verify the data folder ``root``. Raises OSError where the disk does not answer, JournalNewer.

    fast         data files of tables and rollups by their length only
    bytes_per_s  read no faster than this
    on_bytes     told of each block read
    """
    return _Scrub(root, fast, Pace(bytes_per_s, on_bytes)).run()


class _Scrub:
    def __init__(self, root: Path, fast: bool, pace: Pace) -> None:
        self._root = root
        self._fast = fast
        self._pace = pace
        self._report = ScrubReport()
        self._kept = hashes.kept(root)
        self._new: list[tuple[str, Sum]] = []
        self._cost = Cost(root)
        self._live = in_use(root)

    def run(self) -> ScrubReport:
        began = time.monotonic()
        report = self._report
        self._check_list()
        self._check_journal()
        self._check_snapshots()
        for path in _lake_files(self._root):
            self._unless_gone(path, self._check_file)
        for path, what in check_tables(self._root, LOOKS_LIVE if self._live else 1):
            if name_of(self._root, path) not in {f.path for f in report.findings}:
                self._find(path, what)
        self._check_outbox()
        self._check_audit()
        hashes.keep_sums(self._root, self._new)
        if self._kept.damaged:
            hashes.mend(self._root)
        report.hashed = len(self._new)
        report.bytes = self._pace.bytes
        report.seconds = time.monotonic() - began
        return report

    def _wait(self) -> None:
        if self._live:
            time.sleep(REPLACED_S)

    def _find(self, path: Path, what: str, bad: tuple[BadRows, ...] = ()) -> None:
        affected, source, advice = cost_of(self._cost, path, bad)
        name = name_of(self._root, path)
        self._report.findings.append(Finding(name, what, affected, source, advice, bad))

    def _unless_gone(self, path: Path, check: Callable[[Path], None]) -> None:
        try:
            check(path)
            self._report.files += 1
        except FileNotFoundError:
            self._report.vanished += 1

    # -- by hash ---------------------------------------------------------------------------------

    def _check_list(self) -> None:
        for number in self._kept.damaged:
            self._find(hashes_dir(self._root) / hashes.LIST_NAME, f"line {number} does not fit its checksum")

    def _check_file(self, path: Path) -> None:
        if check := IN_PLACE.get(path.name):
            if check(path):
                self._wait()
                if what := check(path):
                    self._find(path, what)
            return
        sums = self._kept.sums.get(name_of(self._root, path), [])
        if not sums:
            self._first_look(path)
        elif self._fast and path.suffix == ".parquet" and _room(self._root, path) in PARTS_FAST:
            if path.stat().st_size not in {s.size for s in sums}:
                self._damaged(path, f"its length is {_size(path)} and not {sums[-1].size}")
        elif sum_of(path, self._pace) not in sums:
            # Replaced since the list was read? Then its new hash was kept before it got its name.
            self._wait()
            sums = hashes.kept(self._root).sums.get(name_of(self._root, path), sums)
            if sum_of(path) not in sums and not self._just_written_again(path):
                self._damaged(path, "it is not what was written: its hash differs")

    def _just_written_again(self, path: Path) -> bool:
        """Under the same name, by a replay after a restart, and not synced yet, so its new hash is still to come.

        What a disk does to a file leaves its time as it was.
        """
        young = self._live and time.time() - path.stat().st_mtime < SYNCED_S_MAX
        return young and path.suffix == ".parquet" and not bad_rows(path)

    def _first_look(self, path: Path) -> None:
        """No hash yet: its page checksums, or what it must look like, vouch for it once; then it gets one."""
        before = sum_of(path, self._pace)
        if path.suffix == ".parquet" and bad_rows(path):
            # Read again after the look at what is committed: it may have become whole, and then committed, meanwhile.
            if not _uncommitted(self._root, path) and bad_rows(path):
                self._damaged(path, "it cannot be read whole, and has no hash yet")
            return
        if sum_of(path) == before:
            self._new.append((name_of(self._root, path), before))

    def _damaged(self, path: Path, what: str) -> None:
        bad = tuple(bad_rows(path)) if path.suffix == ".parquet" else ()
        if path.suffix == ".parquet" and not bad:
            what += "; every page fits its checksum, so it is in the footer or between pages"
        self._find(path, what, bad)

    # -- by checksums of their own ---------------------------------------------------------------

    def _check_journal(self) -> None:
        folder = self._root / "journal"
        segments = list_segments(folder)
        nexts = [*(first for first, _ in segments[1:]), None]
        for (first, path), after in zip(segments, nexts, strict=False):
            try:
                found = check_segment(path, first, after, self._live, self._pace)
            except FileNotFoundError:
                self._report.vanished += 1
                continue
            except JournalNewer as newer:
                self._report.notes.append(f"{newer}; it was not verified")
                continue
            self._report.files += 1
            for damage in found:
                affected, source, advice = self._cost.of_records(damage.first_seq, damage.last_seq)
                what = f"at byte {damage.offset}: {damage.what}"
                self._report.findings.append(
                    Finding(name_of(self._root, path), what, affected, source, advice)
                )
        for path in (folder / "reserve", folder / "next.prepared"):
            if path.exists():
                self._unless_gone(path, self._check_room)

    def _check_room(self, path: Path) -> None:
        # The prepared room gets its head just before its name.
        skip = SEGMENT_HEAD.size if path.name == "next.prepared" else 0
        at = check_zeros(path, skip, self._pace)
        if at is not None and path.exists():
            self._find(path, f"at byte {at}: its room is not zero")

    def _check_snapshots(self) -> None:
        for _, path in snapshot.list_snapshots(self._root / "snapshot"):
            self._unless_gone(path, self._check_snapshot)

    def _check_snapshot(self, path: Path) -> None:
        try:
            snapshot.load(path)
        except snapshot.SnapshotNewer as newer:
            self._report.notes.append(f"{newer}; it was not verified")
        except snapshot.SnapshotError as bad:
            self._find(path, str(bad).removeprefix(f"{path} "))

    def _check_outbox(self) -> None:
        path = self._root / "outbox.db"
        if not path.exists():
            return
        self._report.files += 1
        self._report.notes.append(OUTBOX_NOTE)
        try:
            with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as db:
                said = [row[0] for row in db.execute("PRAGMA integrity_check")]
            db.close()
        except sqlite3.DatabaseError as bad:
            said = [str(bad)]
        if said != ["ok"]:
            self._find(path, f"SQLite says: {'; '.join(said)[:300]}")

    def _check_audit(self) -> None:
        path = self._root / audit.FILE
        if not path.exists():
            return
        self._report.files += 1
        try:
            for _ in audit.read(self._root, verify=True):
                pass
        except audit.AuditFault as bad:
            self._find(path, str(bad))


def _lake_files(root: Path) -> Iterator[Path]:
    """Files that last, in the order of their names: lake.sql and all below lake/ but what is unfinished."""
    if (root / "lake.sql").exists():
        yield root / "lake.sql"
    for folder, folders, names in os.walk(root / "lake"):
        folders[:] = sorted(name for name in folders if name not in NOT_LASTING)
        for name in sorted(names):
            # Delta's temporary names begin with a dot or "_commit".
            if not name.endswith(ENDINGS_ASIDE) and not name.startswith((".", "_commit")):
                yield Path(folder) / name


def _room(root: Path, path: Path) -> str:
    """The folder below lake/ a file stands in."""
    return path.relative_to(root).parts[1]


def _uncommitted(root: Path, path: Path) -> bool:
    """A file of a table or a rollup that is being written, or was left by a crash: no commit is of it."""
    if _room(root, path) in TABLES:
        return path.parent.name.startswith("hour=") and path not in named_files(root)
    if _room(root, path) not in ROLLUPS:
        return False
    number = next((number for _, number, of in list_rollups(path.parent) if of == path), -1)
    return number > read_log(root / "lake" / "readings").txns.get(COMPACT_APP, -1)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
