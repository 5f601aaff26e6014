"""The city's wall clock: how far it stands from UTC at any instant, for whole columns at once.

Owns the table of changes of one time zone. Knows nothing of what an hour of the day is used for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from storage.batch import I64, US_PER_S

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2100
"""Changes are looked for between these; before and after them the nearest offset holds."""
STEP_S: Final = 7 * 86_400
"""No zone changed its clocks twice within a week, and back again: in the zone database of 2026 a look a week finds
what a look a day finds, for all 599 names. (A fortnight misses two of them.)"""


class WallClock:
    """Offsets of one time zone by name. Raises ZoneInfoNotFoundError or ValueError for a name that is none."""

    def __init__(self, time_zone: str) -> None:
        self._changes, self._offsets = _table(time_zone)
        self._steady_from = int(self._changes[-1]) if len(self._changes) else np.iinfo(np.int64).min
        self._steady_us = int(self._offsets[-1])

    def offset_us(self, time: I64) -> int | I64:
        """Local less UTC at ``time`` (int64[n] µs UTC, n >= 1): an int if it is the same for all, else int64[n]."""
        return self.offset_within(time, int(time.min()), int(time.max()))

    def offset_within(self, time: I64, least: int, greatest: int) -> int | I64:
        """The same where the least and greatest time are known."""
        if least >= self._steady_from:
            return self._steady_us
        low, high = np.searchsorted(self._changes, (least, greatest), side="right")
        if low == high:
            return int(self._offsets[low])
        return self._offsets[np.searchsorted(self._changes, time, side="right")]


@cache
def _table(time_zone: str) -> tuple[I64, I64]:
    """Instants of change, int64[k] µs, and the offsets before, between and after them, int64[k + 1] µs."""
    zone = ZoneInfo(time_zone)

    def offset(at_s: int) -> timedelta:
        local = datetime.fromtimestamp(at_s, zone).utcoffset()
        assert local is not None
        return local

    first = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp())
    last = int(datetime(LAST_YEAR, 1, 1, tzinfo=UTC).timestamp())
    changes: list[int] = []
    offsets = [offset(first)]
    for week in range(first + STEP_S, last, STEP_S):
        after = offset(week)
        if after == offsets[-1]:
            continue
        before_s, after_s = week - STEP_S, week
        while after_s - before_s > 1:
            middle = (before_s + after_s) // 2
            if offset(middle) == offsets[-1]:
                before_s = middle
            else:
                after_s = middle
        changes.append(after_s * US_PER_S)
        offsets.append(after)
    return np.array(changes, np.int64), np.array([o // timedelta(microseconds=1) for o in offsets], np.int64)
