"""Retention done: hours leave the table, kinds leave hours, old rollups go. What may go is retention's to say.

Owns these commits and the little file of what was believed and done. Runs where compaction runs, between two jobs, so
the tables keep one writer. A file leaves the table first and the disk a grace later; rollups are only files, so theirs
is the grace alone. Killed anywhere, the next run finds out what is left to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from storage import pointmap
from storage.deltatable import TableHandle
from storage.fsync import fsync_dir
from storage.hashes import keep_hashes, replace_kept
from storage.parts import PartFiles
from storage.replaced import ReplacedFiles
from storage.retention import HOURS_A_DAY, RetentionPlan, believed_day, plan
from storage.rollups import hour_dir, list_rollups, minute_dir
from storage.schema import META_REPLACES
from storage.seal_plan import COMPACT_APP, COMPACTED_NAME, partition_of
from storage.sealed import table_dir
from storage.settings import RetentionSettings

RETIRE_APP: Final = "yuzui-retire"
STATE_NAME: Final = "retention.json"
Points = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(slots=True)
class RetireReport:
    """What one run did. ``day`` is the believed one, days since 1970; ``doubt`` why nothing moved, if so."""

    day: int | None
    doubt: str = ""
    raw_hours: int = 0
    thinned_hours: int = 0
    rows: int = 0
    rollup_files: int = 0


@dataclass(slots=True)
class _State:
    """Believed day, and by kind the hour up to which its raw readings are gone. A lost file costs a look, no more.

    owed  by kind, the hours before that from which it has still to go
    seen  the last compaction before which all hours were looked at: what has a later number holds something new
    """

    day: int | None = None
    thinned_to: dict[str, int] = field(default_factory=dict)
    owed: dict[str, list[int]] = field(default_factory=dict)
    seen: int | None = None


class Retirer:
    """Retention for the data folder ``root``, whose sealing lock the caller holds; one thread.

    Raises OSError or DeltaError where the tables cannot be opened.
    """

    def __init__(self, root: Path, settings: RetentionSettings) -> None:
        self.root = root
        self.settings = settings
        self._main = TableHandle(table_dir(root, late=False))
        self._late = TableHandle(table_dir(root, late=True))
        self._replaced = ReplacedFiles()
        self._state = _load(root)

    def run(self) -> RetireReport:
        """One run: at most two partition-days of each tier. Raises OSError, DeltaError, ArrowException."""
        live = self._live()
        believed = believed_day(self._state.day, {hour // HOURS_A_DAY for hour in live})
        report = RetireReport(believed.day, believed.doubt)
        first = self._state.day is None
        self._state.day = believed.day
        if believed.day is not None and not believed.doubt and not first:
            self._carry_out(self._plan(believed.day, live), live, report)
            self._state.seen = self._main.version_of(COMPACT_APP)
        _save(self.root, self._state)
        return report

    def tidy(self, grace_s: float, now: float) -> None:
        """Delete files that went a grace ago; ``now`` in seconds of a clock without jumps. Raises OSError."""
        self._replaced.drop(grace_s, now)

    def _live(self) -> dict[int, list[str]]:
        """The paths of the main table's files by event-time hour."""
        self._main.version_of(RETIRE_APP)
        return _by_hour(self._main.live())

    def _plan(self, day: int, live: Mapping[int, list[str]]) -> RetentionPlan:
        self._late.version_of(COMPACT_APP)
        late = _by_hour(self._late.live()).keys()
        minutes = {hour for hour, _, _ in list_rollups(minute_dir(self.root))}
        raw_hours = {h: h not in late and all(map(_compaction_of, paths)) for h, paths in live.items()}
        self._look_back(raw_hours, live)
        return plan(
            self.settings,
            day,
            raw_hours=raw_hours,
            thinned_to=self._state.thinned_to,
            owed=self._state.owed,
            rollup_1m_hours=minutes - live.keys(),
            rollup_1h_days={d for d, _, _ in list_rollups(hour_dir(self.root))}
            - {hour // HOURS_A_DAY for hour in live},
        )

    def _look_back(self, raw_hours: Mapping[int, bool], live: Mapping[int, list[str]]) -> None:
        """Note which hours the marks went past while they waited for a compaction, or that had one since."""
        seen = self._state.seen
        new = {hour for hour, clean in raw_hours.items() if not clean}
        if seen is not None:
            new.update(h for h, paths in live.items() if max(map(_compaction_of, paths)) > seen)
        for kind, mark in self._state.thinned_to.items():
            owed = new.union(self._state.owed.get(kind, ()))
            self._state.owed[kind] = sorted(h for h in owed if h < mark and h in live)

    def _carry_out(self, what: RetentionPlan, live: Mapping[int, list[str]], report: RetireReport) -> None:
        if what.raw_hours:
            self._retire_hours(what.raw_hours, live, report)
        for hour, kinds in what.thin.items():
            self._thin(hour, kinds, live[hour], report)
            for kind in kinds:
                self._state.owed[kind] = [h for h in self._state.owed.get(kind, ()) if h != hour]
        for kind in {kind for kinds in what.thin.values() for kind in kinds}:
            done = max(hour for hour, kinds in what.thin.items() if kind in kinds)
            self._state.thinned_to[kind] = max(self._state.thinned_to.get(kind, done + 1), done + 1)
        hours, days = set(what.rollup_1m_hours), set(what.rollup_1h_days)
        gone = [path for hour, _, path in list_rollups(minute_dir(self.root)) if hour in hours]
        gone += [path for day, _, path in list_rollups(hour_dir(self.root)) if day in days]
        self._replaced.add(gone)
        report.rollup_files = len(gone)

    def _retire_hours(
        self, hours: Collection[int], live: Mapping[int, list[str]], report: RetireReport
    ) -> None:
        removals = [self._removal(path, hour) for hour in hours for path in live[hour]]
        report.rows += sum(pq.read_metadata(self._main.folder / r.path).num_rows for r in removals)
        self._main.commit(RETIRE_APP, self._main.version_of(RETIRE_APP) + 1, removals)
        self._replaced.add(self._main.folder / removal.path for removal in removals)
        report.raw_hours = len(hours)

    def _removal(self, path: str, hour: int) -> RemoveAction:
        date, hour_of_day = partition_of(hour)
        file = (self._main.folder / path).stat()
        partition: dict[str, str | None] = {"date": date, "hour": str(hour_of_day)}
        return RemoveAction(path, True, file.st_mtime_ns // 1_000_000, file.st_size, partition)

    def _thin(self, hour: int, kinds: Collection[str], paths: list[str], report: RetireReport) -> None:
        """Write an hour again without the points of ``kinds``. Its rollups stay as they are, under the new number."""
        gone = _points_of(self.root, kinds)
        before = sum(pq.read_metadata(self._main.folder / path).num_rows for path in paths)
        number = max(self._main.version_of(COMPACT_APP), 0) + 1
        with pq.ParquetFile(self._main.folder / sorted(paths)[0]) as file:
            schema = file.schema_arrow
            words = file.metadata.metadata or {}
        ours = {key: word for key, word in words.items() if key.startswith(b"yuzui.")}
        schema = schema.with_metadata(ours | {META_REPLACES: json.dumps(sorted(paths)).encode()})
        made = PartFiles(
            self._main.folder, hour, lambda part: f"c{number:020d}-{part:04d}.parquet", schema, moved=False
        )
        rollups: dict[Path, Path] = {}
        try:
            for path in sorted(paths):
                self._copy_others(path, gone, made)
            adds: list[AddAction] = made.finish()
            if made.rows == before:
                made.discard()
                return
            self._renumber_rollups(hour, number, rollups)
            keep_hashes(self.root, [*made.paths, *rollups])
            removals = [self._removal(path, hour) for path in paths]
            self._main.commit(COMPACT_APP, number, [*removals, *adds])
        except BaseException:
            if self._main.version_of(COMPACT_APP) < number:
                made.discard()
                # The number is given again: whoever writes under it must not write into the older rollup.
                for link in rollups:
                    link.unlink(missing_ok=True)
            raise
        self._replaced.add(self._main.folder / path for path in paths)
        self._replaced.add(rollups.values())
        report.thinned_hours += 1
        report.rows += before - made.rows

    def _renumber_rollups(self, hour: int, number: int, made: dict[Path, Path]) -> None:
        """The hour's and its day's rollups also as of compaction ``number``, on disk; ``made``: new to old path."""
        for folder, of in ((minute_dir(self.root), hour), (hour_dir(self.root), hour // HOURS_A_DAY)):
            old = max((found for found in list_rollups(folder) if found[0] == of), key=lambda f: f[1])[2]
            new = folder / f"{of}-{number:020d}.parquet"
            new.unlink(missing_ok=True)
            os.link(old, new)
            made[new] = old
            fsync_dir(folder)

    def _copy_others(self, path: str, gone: Points, made: PartFiles) -> None:
        file = pq.ParquetFile(
            self._main.folder / path, page_checksum_verification=True, pre_buffer=False, memory_map=True
        )
        with file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, use_threads=False)
                point = rows["point"].to_numpy()
                # A point that came after the map was read is of no kind that goes.
                goes = (point < len(gone)) & gone[np.minimum(point, len(gone) - 1)]
                made.write(rows.filter(pa.array(~goes)))


def _compaction_of(path: str) -> int:
    """Number of the compaction that made a file, from 1; 0 where none did."""
    name = COMPACTED_NAME.fullmatch(path.rpartition("/")[2])
    return int(name[1]) if name else 0


def _by_hour(files: pa.Table) -> dict[int, list[str]]:
    days = files["partition.date"].cast(pa.int32()).to_pylist()
    found: dict[int, list[str]] = {}
    columns = (files["path"].to_pylist(), days, files["partition.hour"].to_pylist())
    for path, day, hour in zip(*columns, strict=True):
        found.setdefault(day * HOURS_A_DAY + hour, []).append(path)
    return found


def _points_of(root: Path, kinds: Collection[str]) -> Points:
    """By number whether a point is, or was, of one of ``kinds``, bool[points], at least one long."""
    table = pointmap.load(root)
    if table is None or table.num_rows == 0:
        return np.zeros(1, np.bool_)
    mask = np.zeros(pc.max(table["point"]).as_py() + 1, np.bool_)
    of_kinds = table.filter(pc.is_in(table["kind"], pa.array(sorted(kinds))))
    mask[of_kinds["point"].to_numpy()] = True
    return mask


def _load(root: Path) -> _State:
    try:
        kept = json.loads((root / "lake" / STATE_NAME).read_bytes())
        owed = {kind: list(hours) for kind, hours in kept.get("owed", {}).items()}
        return _State(kept["day"], dict(kept["thinned_to"]), owed, kept.get("seen"))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return _State()


def _save(root: Path, state: _State) -> None:
    final = root / "lake" / STATE_NAME
    tmp = final.with_name(STATE_NAME + ".tmp")
    tmp.write_text(json.dumps(asdict(state)))
    replace_kept(root, tmp, final)
