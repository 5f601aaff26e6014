"""Flat line: the same value for too long is a stuck sensor.

Owns how long each point has stood still. Time in which nothing was heard does not count: a sensor that
came back after an hour with the same value has not been stuck for an hour.
"""

from __future__ import annotations

import numpy as np

from anomaly.checks.rows import F64, I64, U8, Arrays, Bool, Field, Index, RowCheck, Rows, fill_forward
from storage.fast import compiled, inlined, unsigned
from storage.flags import SUSPECT


def flat_line(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    """1 where the value has not changed for flat_line_us of heard time or longer.

    limits["flat_line_us"]    int64[points] µs; 0 is no limit
    limits["silence_us"]      int64[points] µs; a longer step between two readings counts as 0
    limits["flat_skip_zero"]  bool[points]: a run of zeros is no fault
    state["flat_us"]          int64[points] µs stood still up to the newest reading
    """
    same = rows.value == rows.previous_value
    zero = rows.value == 0
    if zero.any():
        same &= ~(zero & limits["flat_skip_zero"][rows.point])
    still = np.zeros(len(rows), np.int64)
    held = np.flatnonzero(same)
    if len(held):
        passed = rows.time[held] - rows.previous_time[held]
        still[held] = np.where(passed <= limits["silence_us"][rows.point[held]], passed, 0)
    points = rows.point if rows.single else rows.point[rows.first]
    if rows.single:
        still[held] += state["flat_us"][points[held]]
        state["flat_us"][points] = still
        limit = limits["flat_line_us"][points[held]]
        classes = np.zeros(len(rows), np.uint8)
        classes[held] = (still[held] >= limit) & (limit > 0)
        return classes
    # Integer µs: sums are exact, so a run cut into batches sums to the same as a whole one.
    still[rows.first] += np.where(same[rows.first], state["flat_us"][points], 0)
    total = np.cumsum(still)
    run_start = fill_forward(rows.start | ~same)
    still = total - total[run_start] + still[run_start]
    state["flat_us"][points] = still[rows.last]
    limit = limits["flat_line_us"][rows.point]
    return ((still >= limit) & (limit > 0)).view(np.uint8)


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    classes = np.empty(len(rows), np.uint8)
    columns = rows.point, rows.time, rows.value, rows.previous_time, rows.previous_value
    known = limits["flat_line_us"], limits["silence_us"], limits["flat_skip_zero"]
    _each(*columns, *known, state["flat_us"], classes)
    return classes


@inlined
def stands_still(value: float, before: float, skip_zero: bool) -> bool:
    """Whether one reading goes on as the one before did."""
    return value == before and not (value == 0 and skip_zero)


@inlined
def longer(still: int, passed: int, silence_us: int) -> int:
    """How long a point has stood still after ``passed`` more, all in µs."""
    return still + (passed if passed <= silence_us else 0)


@compiled
def _each(
    point: Index,
    time: I64,
    value: F64,
    before_time: I64,
    before: F64,
    limit: I64,
    silence_us: I64,
    skip_zero: Bool,
    flat_us: I64,
    classes: U8,
) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        same = stands_still(value[i], before[i], skip_zero[p])
        still = longer(flat_us[p], time[i] - before_time[i], silence_us[p]) if same else 0
        flat_us[p] = still
        classes[i] = still >= limit[p] and limit[p] > 0


CHECK = RowCheck("flat_line", SUSPECT, flat_line, (Field("flat_us", "i8", 0),), rule="stuck", loop=_loop)
