"""Rows: what a check sees. The shape every check has, and what the contract suite holds it to.

Owns the grouping of one batch by point and the predecessor of every row. Knows nothing of files, clocks,
tables, alerts or of what any one check looks for.

All checks are written without a loop over points and without a loop over a point's rows: a value that
depends on the row before is a shift inside the segment, a value that depends on all rows before is an
accumulate inside the segment, and what came before the batch is read from the state arrays. So it never
matters where a stream is cut into batches, and one point's backlog costs per row what a city costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from storage.fast import IS_COMPILED

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays whose last axis is the dense point number."""

NO_TIME: Final = np.iinfo(np.int64).min
"""A time that never was. Compares as older than everything."""


@dataclass(frozen=True, slots=True)
class Field:
    """One state array: ``lead + (points,)`` of ``dtype``, ``fill`` where nothing was seen yet.

    of   name of a bool[points] limit: only its points have a place, and the array is ``lead + (places,)``. Then
         ``state[of + "_place"]`` int32[points] says which, -1 none. For what only some kinds need, a ring of a day.
    side_by_side  the numbers of one point are neighbours in memory: for what is always read and written together
    """

    name: str
    dtype: str
    fill: float | int
    lead: tuple[int, ...] = ()
    of: str | None = None
    side_by_side: bool = False


@dataclass(slots=True)
class Rows:
    """n readings grouped by point; within a point in journal order, times strictly growing.

    point           intp    dense number; as wide as an index, for every check looks up by it
    time            int64   µs since 1970 UTC
    value           float64 never NaN: a missing reading is no row here
    start           bool    first row of its point
    first           intp    positions of those rows, one a group (g of them)
    previous_time   int64   of the row before, in this batch or an earlier one; NO_TIME where there is none
    previous_value  float64 its value; NaN where there is none
    utc_offset_us   of the city's wall clock at ``time``: one number, or int64[n] where it changes within
    """

    point: Index
    time: I64
    value: F64
    start: Bool
    first: Index
    previous_time: I64
    previous_value: F64
    utc_offset_us: int | I64 = 0
    _last: Index | None = None
    _span: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.point)

    @property
    def local_time(self) -> I64:
        """``time`` as the city's clocks show it, int64[n] µs: for hours of the day and calendar days."""
        return self.time + self.utc_offset_us

    @property
    def span(self) -> tuple[int, int]:
        """Least and greatest ``time``; there is at least one row."""
        if self._span is None:
            self._span = int(self.time.min()), int(self.time.max())
        return self._span

    @property
    def single(self) -> bool:
        """Every point has one row, as in most live batches: nothing needs to be followed along a point."""
        return len(self.first) == len(self.point)

    @property
    def last(self) -> Index:
        """Positions of each point's last row, one a group."""
        if self._last is None:
            self._last = self.first if self.single else np.append(self.first[1:], len(self.point)) - 1
        return self._last

    def between(self, begin: int, end: int) -> Rows:
        """Rows ``begin`` … ``end``, which no point's rows lie across; views of these columns."""
        if begin == 0 and end == len(self.point):
            return self
        of, offset = slice(begin, end), self.utc_offset_us
        return Rows(
            self.point[of],
            self.time[of],
            self.value[of],
            self.start[of],
            # Where every point has one row, groups are numbered as rows are.
            self.first[: end - begin]
            if self.single
            else self.first[slice(*np.searchsorted(self.first, (begin, end)))] - begin,
            self.previous_time[of],
            self.previous_value[of],
            offset if isinstance(offset, int) else offset[of],
        )

    @staticmethod
    def grouped(point: I32, time: I64, value: F64, state: Arrays) -> Rows:
        """Rows already grouped by point; predecessors from the row before or from ``state``."""
        start, first = segments(point)
        at = point.astype(np.intp)
        if len(first) == len(at):
            return Rows(at, time, value, start, first, state["believed_t"][at], state["believed_v"][at])
        points = at[first]
        return Rows(
            at,
            time,
            value,
            start,
            first,
            shifted(time, first, state["believed_t"][points]),
            shifted(value, first, state["believed_v"][points]),
        )

    @staticmethod
    def alone(point: I32, time: I64, value: F64) -> Rows:
        """Rows in any order that know no predecessor: for checks without state."""
        n = len(point)
        return Rows(
            point.astype(np.intp),
            time,
            value,
            np.broadcast_to(np.True_, n),
            np.arange(n),
            np.broadcast_to(np.int64(NO_TIME), n),
            np.broadcast_to(np.float64(np.nan), n),
        )

    def believe(self, state: Arrays) -> None:
        """Keep each point's last row as the predecessor of its next one."""
        if self.single:
            state["believed_t"][self.point] = self.time
            state["believed_v"][self.point] = self.value
            return
        last = self.last
        points = self.point[last]
        state["believed_t"][points] = self.time[last]
        state["believed_v"][points] = self.value[last]


BELIEVED: Final = (Field("believed_t", "i8", NO_TIME), Field("believed_v", "f8", np.nan))
"""The predecessor all checks share: the point's newest reading that has a value and that neither its device
nor a stateless check calls bad."""


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A check of readings.

    name    its bit in storage.flags.CHECK_BITS
    flag    QARTOD flag of a row it objects to; GOOD where an objection is news, not a doubt
    judge   (rows, limits, state) -> uint8[n]: 0 no objection, else a class (1; warning levels 1-4).
            Reads ``limits``, changes only its own ``fields`` of ``state``, and those last.
    fields  the state it owns; none: it also judges late rows
    rule    the alert rule that follows its classes, if any
    loop    the same as ``judge`` to the last bit, as one compiled loop over the rows; only called where numba is there
    """

    name: str
    flag: int
    judge: Callable[[Rows, Arrays, Arrays], U8]
    fields: tuple[Field, ...] = ()
    stateful: bool = True
    rule: str | None = None
    loop: Callable[[Rows, Arrays, Arrays], U8] | None = None

    @property
    def fastest(self) -> Callable[[Rows, Arrays, Arrays], U8]:
        """``loop`` where it can run compiled, else ``judge``."""
        return self.loop if self.loop is not None and IS_COMPILED else self.judge


def segments(point: I32) -> tuple[Bool, Index]:
    """Start mask bool[n] and start positions intp[g] of runs of equal ``point`` (int32[n], grouped)."""
    start = np.empty(len(point), np.bool_)
    start[:1] = True
    np.not_equal(point[1:], point[:-1], out=start[1:])
    return start, np.flatnonzero(start)


def last_rows(point: I32) -> Index:
    """Positions of the last row of every run of equal ``point`` (int32[n], grouped); none for no rows."""
    end = np.empty(len(point), np.bool_)
    end[-1:] = True
    np.not_equal(point[1:], point[:-1], out=end[:-1])
    return np.flatnonzero(end)


def shifted(column: npt.NDArray[Any], first: Index, carried: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The row before of each row; ``carried`` [g] where a segment begins. dtype and length as ``column``."""
    before = np.empty_like(column)
    before[1:] = column[:-1]
    before[first] = carried
    return before


def fill_forward(decisive: Bool) -> Index:
    """For every row the position of the newest decisive row up to it, intp[n].

    The first row of every segment must be decisive: then nothing flows across a border.

    >>> fill_forward(np.array([True, False, True, False])).tolist()
    [0, 0, 2, 2]
    """
    return np.maximum.accumulate(np.where(decisive, np.arange(len(decisive)), 0))
