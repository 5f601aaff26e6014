"""Rollups of readings by minute and by hour: computed from an hour's sorted rows, kept as two kinds of files.

Owns lake/rollup_1m and lake/rollup_1h: what a rollup row is, the names, which file of an hour or day counts.
Knows nothing of Delta; it is told which compaction is committed.

A file's name ends in the number of the compaction that wrote it and it counts from the commit of that number on,
so rows, rollups and counts switch at one instant. Sums are the same however the rows were cut into pieces: a
minute of a point is always summed whole, an hour is the sum of its minutes in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage.batch import F64, I32, I64, US_PER_S, Bool
from storage.flags import GOOD, NOT_EVALUATED
from storage.fsync import fsync_dir, fsync_file
from storage.hot import US_PER_HOUR
from storage.schema import ROLLUP, ROW_GROUP_SEALED, TIME, with_metadata

US_PER_MINUTE: Final = 60 * US_PER_S
HOURS_A_DAY: Final = 24
_READ_ROWS: Final = 65_536
_HOUR_BITS: Final = 32
_NAME = re.compile(r"(-?\d+)-(\d{20})\.parquet")


@dataclass(slots=True)
class Spans:
    """Rollup rows as columns, by (point, time): schema.ROLLUP with NaN for NULL."""

    point: I32
    time: I64
    count: I64
    good: I64
    sum: F64
    min: F64
    max: F64
    first: F64
    last: F64

    def __len__(self) -> int:
        return len(self.point)

    def cut(self, begin: int | None, end: int | None) -> Self:
        """Rows begin … end."""
        return type(self)(*(getattr(self, n)[begin:end] for n in self.__slots__))

    def __add__(self, other: Self) -> Self:
        return type(self)(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__slots__))

    def table(self) -> pa.Table:
        """As schema.ROLLUP."""
        columns = [
            pa.array(self.point),
            pa.array(self.time, TIME),
            pa.array(self.count.astype(np.int32)),
            pa.array(self.good.astype(np.int32)),
            *(pa.array(getattr(self, n), from_pandas=True) for n in ("sum", "min", "max", "first", "last")),
        ]
        return pa.Table.from_arrays(columns, schema=ROLLUP)


def of_readings(point: I32, time: I64, value: F64, flag: npt.NDArray[np.int8]) -> Spans:
    """Rows sorted by (point, time) as spans of a minute.

    time   µs since 1970 UTC; minutes are whole in every zone of the world and in UTC
    value  NaN where missing; good are those with a value and flag 1 or 2
    """
    minute = time // US_PER_MINUTE
    begin = _begins(point, minute)
    good = ~np.isnan(value) & ((flag == GOOD) | (flag == NOT_EVALUATED))
    ones = np.ones(len(point), np.int64)
    return _spans(begin, point, minute * US_PER_MINUTE, ones, good, value, value, value, value, value)


def of_minutes(minutes: Spans) -> Spans:
    """Spans of a minute, sorted, as spans of an hour."""
    hour = minutes.time // US_PER_HOUR
    begin = _begins(minutes.point, hour)
    hours = _spans(
        begin, minutes.point, hour * US_PER_HOUR, minutes.count, minutes.good > 0,
        minutes.sum, minutes.min, minutes.max, minutes.first, minutes.last,
    )  # fmt: skip
    if len(begin):
        hours.good = np.add.reduceat(minutes.good, begin)
    return hours


def _begins(point: I32, span: I64) -> npt.NDArray[np.intp]:
    if len(point) == 0:
        return np.empty(0, np.intp)
    return np.flatnonzero(np.append(True, (point[1:] != point[:-1]) | (span[1:] != span[:-1])))


def _spans(
    begin: npt.NDArray[np.intp], point: I32, time: I64, count: I64, good: Bool,
    total: F64, least: F64, most: F64, first: F64, last: F64,
) -> Spans:  # fmt: skip
    if len(begin) == 0:
        nothing = np.empty(0)
        none = np.empty(0, np.int64)
        return Spans(point[:0], time[:0], none, none, nothing, nothing, nothing, nothing, nothing)
    end = np.append(begin[1:], len(point)) - 1
    spans = Spans(
        point[begin], time[begin], np.add.reduceat(count, begin), end - begin + 1,
        np.add.reduceat(total, begin), np.minimum.reduceat(least, begin), np.maximum.reduceat(most, begin),
        first[begin], last[end],
    )  # fmt: skip
    if not bool(good.all()):
        _without_bad(spans, begin, end, good, total, least, most, first, last)
    return spans


def _without_bad(
    spans: Spans, begin: npt.NDArray[np.intp], end: npt.NDArray[np.intp], good: Bool,
    total: F64, least: F64, most: F64, first: F64, last: F64,
) -> None:  # fmt: skip
    """Make those spans again that hold a bad row: few, nearly always."""
    number = np.add.reduceat(good.astype(np.int64), begin)
    bad = np.flatnonzero(number <= end - begin)
    spans.good[bad] = number[bad]
    length = (end - begin + 1)[bad]
    starts = np.cumsum(length) - length
    # Positions of all rows of those spans, one span behind the other.
    rows = np.repeat(begin[bad] - starts, length) + np.arange(int(length.sum()))
    is_good, at = good[rows], np.arange(len(rows))
    some = number[bad] > 0

    def known(values: F64) -> F64:
        return np.where(some, values, np.nan)

    # Position of the first and last good row of each span; where none is, any position does.
    head = rows[np.minimum.reduceat(np.where(is_good, at, len(at) - 1), starts)]
    tail = rows[np.maximum.reduceat(np.where(is_good, at, 0), starts)]
    spans.sum[bad] = known(np.add.reduceat(np.where(is_good, total[rows], 0.0), starts))
    spans.min[bad] = known(np.minimum.reduceat(np.where(is_good, least[rows], np.inf), starts))
    spans.max[bad] = known(np.maximum.reduceat(np.where(is_good, most[rows], -np.inf), starts))
    spans.first[bad] = known(first[head])
    spans.last[bad] = known(last[tail])


def minute_dir(root: Path) -> Path:
    """Where rollups by minute stand, a file an hour."""
    return root / "lake" / "rollup_1m"


def hour_dir(root: Path) -> Path:
    """Where rollups by hour stand, a file a day."""
    return root / "lake" / "rollup_1h"


def list_rollups(folder: Path) -> list[tuple[int, int, Path]]:
    """(hour or day since 1970, compaction, path) of each rollup file, sorted, from names alone."""
    entries = os.scandir(folder) if folder.exists() else ()
    named = [(_NAME.fullmatch(entry.name), Path(entry.path)) for entry in entries]
    return sorted((int(name.group(1)), int(name.group(2)), path) for name, path in named if name)


def newest(folder: Path, span: int, committed: int) -> Path | None:
    """The file of an hour or day that counts: the last one whose compaction is committed."""
    found = [path for of, number, path in list_rollups(folder) if of == span and number <= committed]
    return found[-1] if found else None


class HourRollup:
    """Takes the rows of one hour in order, writes its minutes and the day it belongs to.

    number     of the compaction
    committed  the last one committed: the other hours of the day are carried over from its file
    replaced   afterwards: the files that count no more once this compaction is committed
    Nothing counts before the commit. Raises OSError or pyarrow.ArrowException; ``discard`` then.
    """

    def __init__(self, root: Path, hour: int, number: int, committed: int) -> None:
        self._hour = hour
        day = hour // HOURS_A_DAY
        for folder in (minute_dir(root), hour_dir(root)):
            if not folder.exists():
                folder.mkdir(parents=True)
                fsync_dir(folder.parent)
        self._old_day = newest(hour_dir(root), day, committed)
        old_hour = newest(minute_dir(root), hour, committed)
        self.replaced = [path for path in (old_hour, self._old_day) if path is not None]
        self.minute_path = minute_dir(root) / f"{hour}-{number:020d}.parquet"
        self.day_path = hour_dir(root) / f"{day}-{number:020d}.parquet"
        self.paths = [self.minute_path, self.day_path]
        self._minutes = _RollupFile(self.minute_path)
        self._day: _RollupFile | None = None
        self._held: tuple[I32, I64, F64, npt.NDArray[np.int8]] | None = None
        self._point_minutes: Spans | None = None
        self._hours: list[Spans] = []

    def add(self, rows: pa.Table) -> None:
        """The next rows, READINGS sorted by (point, time)."""
        new = (
            rows["point"].to_numpy(), rows["time"].cast(pa.int64()).to_numpy(),
            rows["value"].to_numpy(), rows["flag"].to_numpy(),
        )  # fmt: skip
        point, time, value, flag = self._with_held(new)
        if len(point) == 0:
            return
        # The last minute may go on in the next rows: it is summed when it is whole.
        end = int(np.searchsorted(point, point[-1]))
        end += int(np.searchsorted(time[end:], time[-1] - time[-1] % US_PER_MINUTE))
        self._held = (point[end:], time[end:], value[end:], flag[end:])
        self._take(of_readings(point[:end], time[:end], value[:end], flag[:end]))

    def _with_held(self, new: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._held is None:
            return new
        held: tuple[npt.NDArray[Any], ...] = self._held
        return tuple(np.concatenate([old, more]) for old, more in zip(held, new, strict=True))

    def _take(self, minutes: Spans) -> None:
        if len(minutes) == 0:
            return
        self._minutes.write(minutes.table())
        if self._point_minutes is not None:
            minutes = self._point_minutes + minutes
        end = int(np.searchsorted(minutes.point, minutes.point[-1]))
        self._point_minutes = minutes.cut(end, None)
        self._hours.append(of_minutes(minutes.cut(None, end)))

    def finish(self) -> Iterator[None]:
        """Write the rest and the day, in steps; all of it is on disk at the end."""
        if self._held is not None:
            self._take(of_readings(*self._held))
        if self._point_minutes is not None:
            self._hours.append(of_minutes(self._point_minutes))
        self._minutes.close()
        self._day = _RollupFile(self.day_path)
        own = pa.concat_tables([ROLLUP.empty_table(), *(hours.table() for hours in self._hours)])
        for table in _merged(self._old_day, own.combine_chunks(), self._hour):
            self._day.write(table)
            yield
        self._day.close()
        for path in self.paths:
            fsync_file(path)
            fsync_dir(path.parent)

    def discard(self) -> None:
        """Remove what was written."""
        for file, path in ((self._minutes, self.minute_path), (self._day, self.day_path)):
            if file is not None:
                file.close()
            path.unlink(missing_ok=True)


class _RollupFile:
    """A Parquet file of rollup rows, written in whole row groups."""

    def __init__(self, path: Path) -> None:
        schema = with_metadata(ROLLUP)
        self._metadata = schema.metadata
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, write_page_checksum=True,
            use_dictionary=["count", "good", "sum", "min", "max", "first", "last"],
            column_encoding={"point": "DELTA_BINARY_PACKED", "time": "DELTA_BINARY_PACKED"},
        )  # fmt: skip
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= ROW_GROUP_SEALED:
            whole = self._rows - self._rows % ROW_GROUP_SEALED
            waiting = pa.concat_tables(self._waiting)
            self._put(waiting.slice(0, whole))
            self._waiting, self._rows = [waiting.slice(whole)], self._rows - whole

    def _put(self, table: pa.Table) -> None:
        self._writer.write_table(
            table.replace_schema_metadata(self._metadata), row_group_size=ROW_GROUP_SEALED
        )

    def close(self) -> None:
        if self._rows:
            self._put(pa.concat_tables(self._waiting))
        self._waiting, self._rows = [], 0
        self._writer.close()


def _merged(old: Path | None, own: pa.Table, hour: int) -> Iterator[pa.Table]:
    """The rows of a day's file without those of ``hour``, and ``own``, by (point, time)."""
    if old is not None:
        with pq.ParquetFile(old, page_checksum_verification=True, pre_buffer=False) as file:
            for batch in file.iter_batches(_READ_ROWS, use_threads=False):
                table = pa.Table.from_batches([batch]).cast(ROLLUP)
                key = _keys(table)
                # Up to the last row read: own rows behind it may belong behind rows still to come.
                end = int(np.searchsorted(_keys(own), key[-1]))
                others = table.filter(pa.array(key % _HOUR_BITS != hour % HOURS_A_DAY))
                both = pa.concat_tables([others, own.slice(0, end)]).combine_chunks()
                yield both.take(pa.array(np.argsort(_keys(both), kind="stable")))
                own = own.slice(end)
    yield own


def _keys(table: pa.Table) -> I64:
    """int64: point, then hour of the day, of hourly rows of one day."""
    hour = table["time"].cast(pa.int64()).to_numpy() // US_PER_HOUR
    keys: I64 = table["point"].to_numpy().astype(np.int64) * _HOUR_BITS + hour % HOURS_A_DAY
    return keys
