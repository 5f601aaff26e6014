"""Spans in which a time zone's clock stands still against UTC.

Owns what a kernel must know of a zone: one offset, and the local times for which it certainly holds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

DAYS_MAX = 60 * 365
"""Looked at in one direction: as far as recordings go."""
_DAY = timedelta(days=1)
_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def steady_span(zone: ZoneInfo, around_us: int, back_us: int, ahead_us: int) -> tuple[int, int, int]:
    """(offset, from, to) in µs: local times in [from, to) are ``offset`` ahead of UTC, never two and never none.

    Looks day by day at least ``back_us`` and ``ahead_us`` from ``around_us`` (µs since 1970 UTC), but at most
    DAYS_MAX, and keeps a day away from every change of the zone's clock.
    """
    middle = _EPOCH + timedelta(microseconds=around_us)
    offset = middle.astimezone(zone).utcoffset() or timedelta()
    back = _steady_days(zone, middle, offset, -1, min(back_us // _DAY_US + 2, DAYS_MAX))
    ahead = _steady_days(zone, middle, offset, 1, min(ahead_us // _DAY_US + 2, DAYS_MAX))
    offset_us = offset // timedelta(microseconds=1)
    local_us = around_us + offset_us
    return offset_us, local_us - max(0, back - 1) * _DAY_US, local_us + max(0, ahead - 1) * _DAY_US


def _steady_days(zone: ZoneInfo, middle: datetime, offset: timedelta, step: int, most: int) -> int:
    """How many days from ``middle`` on the offset is the same each day."""
    for days in range(1, most + 1):
        if (middle + step * days * _DAY).astimezone(zone).utcoffset() != offset:
            return days - 1
    return most
