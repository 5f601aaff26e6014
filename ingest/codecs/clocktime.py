"""Times of the field protocols: digits of a wall clock, in their source's zone.

Owns YYYYMMDDhhmmss to µs since 1970 UTC. Knows no clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from ingest.decode.refused import Refused

if TYPE_CHECKING:
    from ingest.sourcesettings import SourceSettings

FIELD_ZONE: Final = "Asia/Shanghai"
"""Of HJ 212 and SL 651, unless the source says otherwise: the standards know no other."""
MOMENTS_KEPT_MAX: Final = 10_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_US: Final = timedelta(microseconds=1)


def field_zone(settings: SourceSettings, zone: ZoneInfo) -> ZoneInfo:
    """The zone of a source that speaks a field protocol: not the city's but China's where it names none."""
    return zone if settings.time_zone else ZoneInfo(FIELD_ZONE)


class ClockTimes(dict[bytes, int]):
    """YYYYMMDDhhmmss, or that and milliseconds, to µs since 1970 UTC. Devices report the same moments again and again.

    Raises Refused bad_time for what is no time.

    >>> ClockTimes(ZoneInfo("Asia/Shanghai"))[b"20160801085857"]
    1470013137000000
    """

    def __init__(self, zone: ZoneInfo) -> None:
        super().__init__()
        self._zone = zone

    def __missing__(self, digits: bytes) -> int:
        if len(digits) not in (14, 17) or not digits.isdigit():
            raise Refused("bad_time", f"{digits[:40].decode(errors='replace')!r}: expected YYYYMMDDhhmmss")
        parts = [int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, 14, 2))]
        try:
            whole = datetime(*parts, tzinfo=self._zone)  # type: ignore[misc, arg-type]
        except ValueError as wrong:
            raise Refused("bad_time", f"{digits.decode()}: {wrong}") from None
        time_us = (whole - _EPOCH) // _ONE_US + int(digits[14:] or 0) * 1_000
        if len(self) >= MOMENTS_KEPT_MAX:
            self.clear()
        self[digits] = time_us
        return time_us
