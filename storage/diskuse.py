"""How fast the lake grows and how long the disk lasts.

Owns that estimate. Reads names and sizes of files below the data folder; opens none, changes none.

What grows for ever are sealed hours, rollups and small logs; journal, hot files and what compaction replaced come
and go within bounds. So the estimate looks at hours that have settled: they are what an hour of this city costs.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

HOURS_SETTLED_MAX: Final = 24
"""The newest settled hours that are looked at: a whole day where there is one, so that nights and days both count."""
HOURS_A_DAY: Final = 24
_DAY_ZERO: Final = date(1970, 1, 1).toordinal()
_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_HOUR = re.compile(r"hour=(\d{1,2})")
_ROLLUP = re.compile(r"(-?\d+)-\d{20}\.parquet")


@dataclass(frozen=True, slots=True)
class DiskUse:
    """bytes_a_day and days_left are None until an hour has settled; days_left also while nothing grows."""

    free_bytes: int
    bytes_a_day: float | None
    days_left: float | None


def disk_use(root: Path) -> DiskUse:
    """Of the data folder ``root``. An hour has settled when all its sealed files are compacted. Raises OSError."""
    free = shutil.disk_usage(root).free
    hours = _settled_hours(root / "lake" / "readings")
    if not hours:
        return DiskUse(free, None, None)
    # Hours without readings in between belong to the same days: a city that sleeps costs less.
    span = max(hours) - min(hours) + 1
    rollup_1m = _by_name(root / "lake" / "rollup_1m")
    days = {hour // HOURS_A_DAY for hour in hours}
    rollup_1h = {day: size for day, size in _by_name(root / "lake" / "rollup_1h").items() if day in days}
    used = sum(hours.values()) + sum(rollup_1m.get(hour, 0) for hour in hours)
    a_day = used / span * HOURS_A_DAY
    if rollup_1h:
        a_day += sum(rollup_1h.values()) / len(rollup_1h)
    return DiskUse(free, a_day, free / a_day if a_day > 0 else None)


def _settled_hours(folder: Path) -> dict[int, int]:
    """Bytes of the newest hours whose files are all compacted, by hour since 1970."""
    found: dict[int, int] = {}
    for partition, day in _dated(folder):
        for entry in sorted(os.scandir(partition), key=lambda e: e.name, reverse=True):
            named = _HOUR.fullmatch(entry.name)
            size = _compacted_bytes(Path(entry.path)) if named else None
            if named and size:
                found[day * HOURS_A_DAY + int(named.group(1))] = size
            if len(found) == HOURS_SETTLED_MAX:
                return found
    return found


def _dated(folder: Path) -> list[tuple[Path, int]]:
    """The date partitions, newest first, each with its day since 1970."""
    found = []
    for entry in os.scandir(folder) if folder.exists() else ():
        if named := _DATE.fullmatch(entry.name):
            day = date.fromisoformat(named.group(1)).toordinal() - _DAY_ZERO
            found.append((Path(entry.path), day))
    return sorted(found, key=lambda f: f[1], reverse=True)


def _compacted_bytes(hour: Path) -> int | None:
    """Bytes of the newest compaction in an hour's folder; None where it has files that are not compacted."""
    newest: dict[str, int] = {}
    for entry in os.scandir(hour):
        if not entry.name.startswith("c"):
            return None
        number = entry.name.split("-")[0]
        newest[number] = newest.get(number, 0) + entry.stat().st_size
    return newest[max(newest)] if newest else None


def _by_name(folder: Path) -> dict[int, int]:
    """Bytes of the newest rollup file of each hour or day."""
    found: dict[int, tuple[str, int]] = {}
    for entry in os.scandir(folder) if folder.exists() else ():
        if named := _ROLLUP.fullmatch(entry.name):
            key = int(named.group(1))
            if entry.name > found.get(key, ("", 0))[0]:
                found[key] = entry.name, entry.stat().st_size
    return {key: size for key, (_, size) in found.items()}
