"""What rules share: the rows of the points a rule concerns, steps with a gap, kinds to points.

Owns no rule and no number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, I64, U8, Bool, Index, Rows, fill_forward
from anomaly.rules.base import Assessed
from anomaly.rules.settings import RuleSettings
from storage.points import PointTable

LEVELS = 4
_NO_CLASS = np.uint8(0)
_UNKNOWN = np.float64(np.nan)
I32 = npt.NDArray[np.int32]


@dataclass(slots=True)
class Part:
    """The rows of a batch whose points a rule concerns, in their order: m rows of k points.

    index   intp[m]: their positions in the batch
    first   intp[k]: where each point begins
    group   intp[m]: which of the k points each row belongs to
    points  intp[k]
    """

    index: Index
    time: I64
    value: F64
    first: Index
    group: Index
    points: Index
    single: bool

    @property
    def last(self) -> Index:
        """Positions of each point's last row, intp[k]."""
        if self.single:
            return self.first
        return np.append(self.first[1:], len(self.index)) - 1

    def each(self, of_points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What an array by point number says of each row, [m]."""
        found = of_points[self.points]
        return found if self.single else found[self.group]

    def rows_of(self, of_groups: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What an array [k] says of each row, [m]."""
        return of_groups if self.single else of_groups[self.group]

    @property
    def start(self) -> Bool:
        """First row of its point, bool[m]."""
        start = np.zeros(len(self.index), np.bool_)
        start[self.first] = True
        return start


def part_of(rows: Rows, mask: Bool) -> Part | None:
    """The rows of points in ``mask`` (bool[points]); None where there are none."""
    single = len(rows.first) == len(rows)
    points = rows.point if single else rows.point[rows.first]
    groups = np.flatnonzero(mask[points])
    if not len(groups):
        return None
    if single:
        # One row a point: a live tick.
        n = np.arange(len(groups))
        return Part(groups, rows.time[groups], rows.value[groups], n, n, points[groups], True)
    lengths = np.diff(rows.first, append=len(rows))[groups]
    first = np.cumsum(lengths) - lengths
    group = np.repeat(np.arange(len(groups)), lengths)
    index = np.arange(len(group)) + np.repeat(rows.first[groups] - first, lengths)
    return Part(index, rows.time[index], rows.value[index], first, group, points[groups], False)


def local(rows: Rows, part: Part) -> I64:
    """The city's clock at the rows of ``part``, int64[m] µs."""
    offset = rows.utc_offset_us
    return part.time + (offset if isinstance(offset, int) else offset[part.index])


@lru_cache(maxsize=256)
def nothing(n: int) -> Assessed:
    """No row stands in anything. One value seen n times: not to be written to."""
    unknown = np.broadcast_to(_UNKNOWN, n)
    return Assessed(np.broadcast_to(_NO_CLASS, n), unknown, unknown)


def spread(n: int, part: Part, classes: U8, value: F64, limit: F64, of: Index | None = None) -> Assessed:
    """What was found of ``part`` as an answer for the whole batch of n rows.

    of  rows of the part that ``value`` and ``limit`` speak of; None for all
    """
    whole = Assessed(np.zeros(n, np.uint8), np.full(n, np.nan), np.full(n, np.nan))
    if classes.any():
        whole.classes[part.index] = classes
    index = part.index if of is None else part.index[of]
    whole.value[index] = value
    whole.limit[index] = limit
    return whole


def latched(enter: U8, stay: U8, before: U8, part: Part) -> U8:
    """The class of each row, uint8[m]: entered at ``enter``, kept while ``stay`` is not below it.

    enter, stay  uint8[m]: class by the limits, and by the limits less a gap; stay >= enter
    before       uint8[k]: class of each point before the batch
    """
    if not before.any() and not enter.any():
        return enter
    if part.single:
        return np.maximum(enter, np.minimum(before, stay))
    classes = np.zeros(len(enter), np.uint8)
    carried = before[part.group]
    start = part.start
    for k in range(1, LEVELS + 1):
        entered = enter >= k
        decisive = entered | (stay < k)
        held = np.where(decisive, entered, carried >= k)
        classes += held[fill_forward(decisive | start)]
    return classes


def of_kinds(points: PointTable, kinds: Collection[str]) -> Bool:
    """Points of any of these kinds that are not retired, bool[points]."""
    wanted = np.array([name in kinds for name in points.kinds] or [False])
    found: Bool = wanted[points.kind] & ~points.retired
    return found


def stations(points: PointTable, mask: Bool) -> I32:
    """Which station each point of ``mask`` belongs to, int32[points]: devices with several such points, in order of
    their first; -1 for points that stand alone and for all others.
    """
    found: dict[str, list[int]] = {}
    for number in np.flatnonzero(mask).tolist():
        found.setdefault(points.device_id[number], []).append(number)
    codes = np.full(len(points), -1, np.int32)
    for code, members in enumerate(members for members in found.values() if len(members) > 1):
        codes[members] = code
    return codes


def worst_of(station: I32, members: Index, found: F64) -> F64:
    """The greatest of ``found`` [members] in each station, float64[stations]; NaN counts for nothing, -inf for none."""
    worst = np.full(int(station.max(initial=-1)) + 1, -np.inf)
    known = ~np.isnan(found)
    np.maximum.at(worst, station[members[known]], found[known])
    return worst


def rule_settings(rules: Mapping[str, Any]) -> RuleSettings:
    """The [rules] table as settings; an empty one gives the defaults."""
    return RuleSettings.model_validate(dict(rules))
