"""Gross range: a value its sensor cannot report or the place cannot have.

Owns that one comparison. Knows nothing of warning levels, which are news rather than doubt.
"""

from __future__ import annotations

import numpy as np

from anomaly.checks.rows import F64, U8, Arrays, Index, RowCheck, Rows
from storage.fast import compiled, inlined, unsigned
from storage.flags import FAIL


def gross_range(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    """1 where the value lies outside [range_min, range_max]; the limits themselves are inside.

    limits["range_min"], limits["range_max"]  float64[points], in the point's unit; NaN is no limit.
    """
    low = rows.value < limits["range_min"][rows.point]
    high = rows.value > limits["range_max"][rows.point]
    return np.logical_or(low, high).view(np.uint8)


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    classes = np.empty(len(rows), np.uint8)
    _each(rows.point, rows.value, limits["range_min"], limits["range_max"], classes)
    return classes


@inlined
def outside(value: float, low: float, high: float) -> bool:
    """The comparison itself, of one reading."""
    return (value < low) | (value > high)


@compiled
def _each(point: Index, value: F64, low: F64, high: F64, classes: U8) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        classes[i] = outside(value[i], low[p], high[p])


CHECK = RowCheck("gross_range", FAIL, gross_range, stateful=False, loop=_loop)
