"""Which hours to compact now, and which small files to gather. Pure: lists of files in, jobs out.

Owns the rules of when; opens no file and holds no clock. Time is the event time of the data itself: the newest in
the main table is "now", so a replay at any speed compacts as the night itself did.

- *First*: an hour that is over (newest is ``lateness_s`` past its end) is compacted as soon as it has any file.
- *Again*: a compacted hour that got more rows waits ``fold_s`` and then until the new rows are a share of it
  (FOLD_SHARE) or it has waited as long as half of the time that passed since the hour ended. So an hour
  that gets one late row a minute is rewritten at ages that double: ten times in a week, not a thousand.
- *Gather*: more than ``files_per_hour_max`` small files of one hour in one table are merged into one that is still
  not compacted: cheap, whatever the hour holds already, and so also done for the hour that runs.
- *Bites*: no job opens more than MERGE_FILES_MAX files, as long as there are small ones: before an hour of more is
  compacted some are gathered. Files of SMALL_ROWS are not, so of them there may be more: one for every 15.7 M rows.
- Oldest hour first, gathering before compacting.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from storage.batch import US_PER_S
from storage.hot import US_PER_HOUR
from storage.schema import ROW_GROUP_SEALED
from storage.settings import CompactionSettings

FILE_ROWS_MAX: Final = 512 * ROW_GROUP_SEALED
"""A compacted file has at most these rows, 63 M; at 3 to 5 bytes a reading some 250 MB."""
SMALL_ROWS: Final = FILE_ROWS_MAX // 4
"""Gathering a file of this many rows again and again would cost more than it saves a reader."""
MERGE_FILES_MAX: Final = 64
"""Files one job opens: descriptors, a decoder's memory each, and how much work a kill takes away. An hour of more files
goes in bites: small ones are gathered first, the cheapest and only as many as must be. At 116,200 readings/s, 106 files
an hour, that writes two rows of five twice."""
FOLD_SHARE: Final = 0.2
"""New rows by this share of the compacted ones are worth a rewrite: each row is then rewritten six times at most."""
FOLD_AGE: Final = 0.5
"""Waiting this share of the time since the hour ended: rewrites of one hour grow with the logarithm of its age."""

Kind = Literal["compact", "gather"]


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One file of a Delta table.

    path       below the table's folder
    hour       event-time hour since 1970 UTC
    compacted  it is a c file
    last       the newest journal seq of a sealed file, -1 of a compacted one
    """

    path: str
    hour: int
    rows: int
    size: int
    compacted: bool
    last: int


@dataclass(frozen=True, slots=True)
class Job:
    """One commit's work. ``main`` and ``late`` are all files it reads and replaces.

    upto_seq  all late files of the hour up to this journal seq are among them
    """

    kind: Kind
    hour: int
    upto_seq: int
    main: tuple[LiveFile, ...] = ()
    late: tuple[LiveFile, ...] = ()

    @property
    def rows(self) -> int:
        """Rows it reads."""
        return sum(f.rows for f in (*self.main, *self.late))


@dataclass(slots=True)
class _Hour:
    compacted: list[LiveFile]
    sealed: list[LiveFile]
    late: list[LiveFile]

    @property
    def dirty(self) -> bool:
        return bool(self.sealed or self.late)


def plan(
    main: Collection[LiveFile],
    late: Collection[LiveFile],
    main_seq: int,
    newest_us: int,
    noticed: Mapping[int, int],
    settings: CompactionSettings,
    aside: Collection[int] = (),
) -> list[Job]:
    """What to do now, in this order.

    main, late  live files
    main_seq    the main watermark. Late files above it wait: a power cut may bring their rows a second time
    newest_us   newest event time of the main table
    noticed     by hour: newest_us when it was first seen to have files that are not compacted (``notice``)
    aside       hours not to be touched for now
    """
    gathers: list[Job] = []
    compactions: list[Job] = []
    settled = [f for f in late if f.last <= main_seq]
    for hour, files in sorted(_by_hour(main, settled).items()):
        if hour in aside or not files.dirty:
            continue
        found = _gathers(hour, files, main_seq, settings)
        due = not found and _is_due(hour, files, newest_us, noticed.get(hour, newest_us), settings)
        if due:
            found = _bites(hour, files, main_seq)
        gathers += found
        if due and not found:
            compactions.append(
                Job("compact", hour, main_seq, (*files.compacted, *files.sealed), tuple(files.late))
            )
    return [*gathers, *compactions]


def notice(noticed: Mapping[int, int], dirty: Collection[int], newest_us: int) -> dict[int, int]:
    """``noticed`` with the hours that are dirty now: those known keep their time, the others get ``newest_us``."""
    return {hour: noticed.get(hour, newest_us) for hour in dirty}


def dirty_hours(main: Collection[LiveFile], late: Collection[LiveFile]) -> set[int]:
    """Hours with files that are not compacted."""
    return {f.hour for f in main if not f.compacted} | {f.hour for f in late}


def files_per_hour_bound(rows: int, settings: CompactionSettings) -> int:
    """Most live files of both tables in one hour of ``rows`` rows, as long as compaction keeps up.

    Small ones of each table, those too large to gather, and the compacted ones.
    """
    large, parts = rows // SMALL_ROWS, -(-rows // FILE_ROWS_MAX)
    return 2 * settings.files_per_hour_max + large + parts


def _by_hour(main: Collection[LiveFile], late: Collection[LiveFile]) -> dict[int, _Hour]:
    hours: dict[int, _Hour] = {}
    for file in main:
        of = hours.setdefault(file.hour, _Hour([], [], []))
        (of.compacted if file.compacted else of.sealed).append(file)
    for file in late:
        hours.setdefault(file.hour, _Hour([], [], [])).late.append(file)
    return hours


def _bites(hour: int, files: _Hour, main_seq: int) -> list[Job]:
    """What must be gathered before few files are open when the hour is compacted; late ones first: they are smaller."""
    over = len(files.compacted) + len(files.sealed) + len(files.late) - MERGE_FILES_MAX
    for of in (files.late, files.sealed):
        small = _small(of)[: min(over + 1, MERGE_FILES_MAX)]
        if over > 0 and len(small) > 1:
            return [_gather(hour, small, main_seq, late=of is files.late)]
    return []


def _gathers(hour: int, files: _Hour, main_seq: int, settings: CompactionSettings) -> list[Job]:
    return [
        _gather(hour, small[:MERGE_FILES_MAX], main_seq, late=of is files.late)
        for of in (files.sealed, files.late)
        if len(small := _small(of)) > settings.files_per_hour_max
    ]


def _small(files: Collection[LiveFile]) -> list[LiveFile]:
    """Those worth being gathered, oldest first."""
    return sorted((f for f in files if f.rows < SMALL_ROWS), key=lambda f: (f.last, f.path))


def _gather(hour: int, files: Collection[LiveFile], main_seq: int, *, late: bool) -> Job:
    taken = tuple(files)
    return Job("gather", hour, main_seq, () if late else taken, taken if late else ())


def _is_due(hour: int, files: _Hour, newest_us: int, since_us: int, settings: CompactionSettings) -> bool:
    age = newest_us - (hour + 1) * US_PER_HOUR
    if age < settings.lateness_s * US_PER_S:
        return False
    if not files.compacted:
        return True
    waited = newest_us - since_us
    if waited < settings.fold_s * US_PER_S:
        return False
    fresh = sum(f.rows for f in (*files.sealed, *files.late))
    return fresh >= FOLD_SHARE * sum(f.rows for f in files.compacted) or waited >= FOLD_AGE * age
