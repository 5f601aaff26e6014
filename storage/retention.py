"""Which hours, kinds and files may go. Pure: sets and numbers in, a plan out; opens no file, deletes nothing.

Owns the arithmetic of retention and the one day it counts from. That day comes from the data: the newest day with
readings, believed only if it follows from what was believed before. A clock that jumps to 2100 brings readings of
2100, and everything else would be old; so a jump stops retention until the days after it have filled like days do.
Nothing goes unless configured, and never more than two partition-days a run: a mistake is seen before it is large.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from storage.settings import RetentionSettings

HOURS_A_DAY: Final = 24
PARTITION_DAYS_A_RUN: Final = 2
"""Of raw readings, and of each rollup tier: the most one run takes away."""
JUMP_DAYS_MAX: Final = 2
"""From one run to the next the newest day moves by this much at most; further on is a jump."""
DAYS_AFTER_JUMP: Final = 3
"""Distinct days with readings behind a jump before it is believed: an engine that stood still for a month goes on by
itself after three days; a clock that was wrong for a night changes nothing."""


@dataclass(frozen=True, slots=True)
class Belief:
    """The day retention counts from, days since 1970 UTC; ``doubt`` says why it did not move, empty if all is well."""

    day: int | None
    doubt: str = ""


def believed_day(before: int | None, days: Collection[int]) -> Belief:
    """The day to count from, after the one believed ``before`` (None: never).

    days  the days with readings. The first belief deletes nothing by itself: whoever has none before keeps all.

    >>> believed_day(100, [98, 99, 100, 101])
    Belief(day=101, doubt='')
    >>> believed_day(100, [99, 100, 47_000]).day
    100
    """
    if not days:
        return Belief(before)
    newest = max(days)
    if before is None or newest <= before + JUMP_DAYS_MAX:
        return Belief(newest)
    behind = sum(day > before for day in days)
    if behind >= DAYS_AFTER_JUMP:
        return Belief(newest)
    return Belief(
        before,
        f"the newest readings are {newest - before} days ahead of those before: nothing is deleted until "
        f"{DAYS_AFTER_JUMP} days behind the jump hold readings",
    )


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What one run takes away.

    raw_hours      hours since 1970 whose raw readings go whole
    thin           hours and the kinds whose raw readings go from them
    rollup_1m_hours, rollup_1h_days   whose rollups go
    """

    raw_hours: tuple[int, ...] = ()
    thin: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    rollup_1m_hours: tuple[int, ...] = ()
    rollup_1h_days: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.raw_hours or self.thin or self.rollup_1m_hours or self.rollup_1h_days)


def plan(
    settings: RetentionSettings,
    day: int,
    *,
    raw_hours: Mapping[int, bool],
    thinned_to: Mapping[str, int],
    rollup_1m_hours: Collection[int],
    rollup_1h_days: Collection[int],
    owed: Mapping[str, Collection[int]],
) -> RetentionPlan:
    """What may go now, counted from ``day``.

    raw_hours   hours with raw readings, and whether each is clean: compacted, rolled up, nothing late on its way. An
                hour that is not waits for its compaction.
    thinned_to  by kind, the hour up to which (exclusive) its raw readings were taken away before
    owed        by kind, the hours before that which were passed over, or hold something new
    A tier keeps the day itself and as many full days before it as configured.
    """
    raw = _oldest_days([h for h, clean in raw_hours.items() if clean and _older(h, day, settings.raw_days)])
    gone = set(raw)
    thin: dict[int, list[str]] = {}
    for kind, days in sorted(settings.raw_days_by_kind.items()):
        mark, again = thinned_to.get(kind, 0), owed.get(kind, ())
        due = [
            h
            for h, clean in raw_hours.items()
            if clean and h not in gone and (h >= mark or h in again) and _older(h, day, days)
        ]
        for hour in _oldest_days(due):
            thin.setdefault(hour, []).append(kind)
    return RetentionPlan(
        raw,
        {hour: tuple(kinds) for hour, kinds in sorted(thin.items())},
        _oldest_days([h for h in rollup_1m_hours if _older(h, day, settings.rollup_1m_days)]),
        tuple(sorted(d for d in rollup_1h_days if _older(d * HOURS_A_DAY, day, settings.rollup_1h_days)))[
            :PARTITION_DAYS_A_RUN
        ],
    )


def _older(hour: int, day: int, days: int | None) -> bool:
    return days is not None and hour // HOURS_A_DAY < day - days


def _oldest_days(hours: Collection[int]) -> tuple[int, ...]:
    """Those of ``hours`` that lie in the two oldest days among them."""
    oldest = sorted({hour // HOURS_A_DAY for hour in hours})[:PARTITION_DAYS_A_RUN]
    return tuple(sorted(hour for hour in hours if hour // HOURS_A_DAY in oldest))


def says(settings: RetentionSettings) -> list[str]:
    """What will go and when, a line each, for `yuzui check`; one line where nothing will.

    >>> says(RetentionSettings(raw_days=400))[0]
    'raw readings are deleted 400 days after the newest day with readings'
    """
    after = "{} are deleted {} days after the newest day with readings"
    tiers = (
        ("raw readings", settings.raw_days),
        *((f"raw readings of {kind}", days) for kind, days in sorted(settings.raw_days_by_kind.items())),
        ("minute rollups", settings.rollup_1m_days),
        ("hour rollups", settings.rollup_1h_days),
        ("quarantined messages", settings.quarantine_days),
        ("ended alerts", settings.alerts_days),
        ("forecasts", settings.forecasts_days),
        ("events", settings.events_days),
    )
    lines = [after.format(what, days) for what, days in tiers if days is not None]
    return lines or ["nothing is deleted: retention is not configured"]
