"""How hot rows become sorted rows: ranges of points, order, event-time hours, names of files. Pure.

Owns the sort and the cutting of rows into partitions. Opens no file, holds no clock, knows no Delta.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.batch import I32, I64, stable_order
from storage.hot import hours_since_1970
from storage.schema import ROW_GROUP_SEALED

RANGE_ROWS: Final = ROW_GROUP_SEALED
"""Rows sorted at once: bounds the memory of a seal however much is sealed. Fresh pages
cost more than the sort does: twice as many rows at once took three times the CPU in a new process.
A multiple of the row group, so that full groups are written."""

SEALED_NAME: Final = re.compile(r"(\d{20})-(\d{20})-(\d+)\.parquet")
"""First and last journal seq of a sealed file, and a number: above 0 it was gathered from several."""
COMPACTED_NAME: Final = re.compile(r"c(\d{20})-(\d{4})\.parquet")
"""Number of the compaction that made the file, and its part."""
COMPACT_APP: Final = "yuzui-compact"
"""App id under which a table's transactions carry the number of the last compaction."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def point_ranges(counts: npt.NDArray[np.intp], rows: int = RANGE_ROWS) -> list[int]:
    """Exclusive upper points of consecutive ranges from 0, each of about ``rows`` rows.

    counts  rows by point number. A single point is never cut, however many rows it has.

    >>> point_ranges(np.array([3, 3, 9, 1, 1]), rows=6)
    [2, 3, 5]
    """
    if len(counts) == 0:
        return []
    running = np.cumsum(counts)
    cuts: list[int] = []
    begin, taken = 0, 0
    while begin < len(counts):
        end = int(np.searchsorted(running, taken + rows, side="right"))
        end = max(end, begin + 1)
        cuts.append(end)
        taken, begin = int(running[end - 1]), end
    return cuts


def point_time_order(point: I32, time: I64, *, late: bool) -> npt.NDArray[np.intp]:
    """Positions that sort rows, given in journal order, by (point, time); equal keys stay in journal order.

    Main rows of one point are in time order already, so one counting sort by point does. Late rows are few
    and in any order.
    """
    if not late:
        return stable_order(point)
    by_time = np.argsort(time, kind="stable")
    return by_time[stable_order(point[by_time])]


def split_hours(table: pa.Table) -> list[tuple[int, pa.Table]]:
    """``table`` as (event-time hour since 1970 UTC, its rows), by hour; rows keep their order."""
    if table.num_rows == 0:
        return []
    hour = hours_since_1970(table["time"].cast(pa.int64()).to_numpy())
    first, last = int(hour.min()), int(hour.max())
    if first == last:
        return [(first, table)]
    key = (hour - first).astype(np.int32)
    order = stable_order(key)
    sorted_key = key[order]
    cuts = np.flatnonzero(np.diff(sorted_key)) + 1
    table = table.take(pa.array(order))
    begins = [0, *cuts.tolist()]
    ends = [*cuts.tolist(), len(order)]
    return [
        (first + int(sorted_key[begin]), table.slice(begin, end - begin))
        for begin, end in zip(begins, ends, strict=True)
    ]


def partition_of(hour: int) -> tuple[str, int]:
    """(date as YYYY-MM-DD, hour of day), both UTC, of an hour since 1970.

    >>> partition_of(25)
    ('1970-01-02', 1)
    """
    when = _EPOCH + timedelta(hours=hour)
    return when.strftime("%Y-%m-%d"), when.hour


@dataclass(slots=True)
class FileStats:
    """What a Delta log entry says of a file, so that engines can skip it: rows, least and greatest keys."""

    rows: int = 0
    point: tuple[int, int] | None = None
    time: tuple[int, int] | None = None

    def add(self, table: pa.Table) -> None:
        """Count in rows that are written to the file."""
        self.rows += table.num_rows
        point = table["point"].to_numpy()
        time = table["time"].cast(pa.int64()).to_numpy()
        self.point = _widen(self.point, int(point.min()), int(point.max()))
        self.time = _widen(self.time, int(time.min()), int(time.max()))

    def added(self, table: pa.Table) -> pa.Table:
        """``table``, counted in."""
        self.add(table)
        return table

    def json(self) -> str:
        """The ``stats`` string of a Delta add action."""
        least: dict[str, Any] = {}
        greatest: dict[str, Any] = {}
        if self.point and self.time:
            least = {"point": self.point[0], "time": _iso(self.time[0])}
            greatest = {"point": self.point[1], "time": _iso(self.time[1])}
        nulls = {"point": 0, "time": 0}
        return json.dumps(
            {"numRecords": self.rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}
        )


def _widen(old: tuple[int, int] | None, least: int, greatest: int) -> tuple[int, int]:
    return (least, greatest) if old is None else (min(old[0], least), max(old[1], greatest))


def _iso(time_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
