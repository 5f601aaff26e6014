"""Times in payloads to µs since 1970 UTC.

Owns the reading of numeric and ISO 8601 times. Knows no clock: the window is the caller's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_US = timedelta(microseconds=1)
US_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
_TIME_US_MAX = 1 << 62
"""Beyond any calendar; keeps what follows inside int64."""


class BadTime(ValueError):  # noqa: N818 - says what happened
    """The time cannot be read; the text says why."""


def to_us(value: object, unit: str, zone: ZoneInfo) -> int:
    """µs since 1970 UTC of a payload's time.

    value  int or float in ``unit`` (s, ms, us, ns), or ISO 8601 text; text without an offset is in ``zone``
    Raises BadTime for any other type, text that is no time, a date without a time, or a number beyond int64.

    >>> to_us("2026-07-01T08:00:00", "ms", ZoneInfo("Asia/Shanghai"))
    1782864000000000
    >>> to_us(1782864000.5, "s", ZoneInfo("UTC"))
    1782864000500000
    """
    if isinstance(value, bool) or value is None:
        raise BadTime(f"a time is a number or text, not {type(value).__name__}")
    if isinstance(value, int | float):
        us = value // 1000 if unit == "ns" else value * US_PER_UNIT[unit]
        if not -_TIME_US_MAX < us < _TIME_US_MAX:
            raise BadTime(f"{value} is no time in {unit}")
        return round(us)
    if isinstance(value, str):
        return _from_iso(value, zone)
    raise BadTime(f"a time is a number or text, not {type(value).__name__}")


def from_text(text: str, form: str, zone: ZoneInfo) -> int:
    """µs since 1970 UTC of a time written as ``form`` says (strptime); without an offset it is in ``zone``.

    Raises BadTime for other text and for a time beyond the calendar.

    >>> from_text("20260701080000", "%Y%m%d%H%M%S", ZoneInfo("Asia/Shanghai"))
    1782864000000000
    """
    try:
        return _in_us(datetime.strptime(text, form), zone)  # noqa: DTZ007 - given its zone there
    except (ValueError, OverflowError):
        raise BadTime(f'"{text[:40]}" is not a time as "{form}"') from None


def _in_us(parsed: datetime, zone: ZoneInfo) -> int:
    return ((parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)) - _EPOCH) // _ONE_US


def _from_iso(text: str, zone: ZoneInfo) -> int:
    if len(text) <= len("2026-07-01"):
        raise BadTime(f'"{text[:40]}" has no time of day')
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise BadTime(f'"{text[:40]}" is not an ISO 8601 time') from None
    try:
        return _in_us(parsed, zone)
    except OverflowError:
        raise BadTime(f'"{text[:40]}" is out of range') from None
