"""Rate of change: a step faster than the quantity can move.

Owns that one comparison with the reading before. Knows nothing of how long a silence may be: the longer
it was, the larger the step that is believed.
"""

from __future__ import annotations

import numpy as np

from anomaly.checks.rows import F64, I64, NO_TIME, U8, Arrays, Index, RowCheck, Rows
from storage.fast import compiled, inlined, unsigned
from storage.flags import SUSPECT

US_PER_S = 1_000_000


def rate_of_change(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    """1 where |value - previous| > rate_max_per_s * seconds between them; 0 for a point's first reading.

    limits["rate_max_per_s"]  float64[points], unit per second; NaN is no limit.
    """
    step = np.abs(rows.value - rows.previous_value)
    believed_before = np.where(rows.previous_time == NO_TIME, rows.time, rows.previous_time)
    passed_us = (rows.time - believed_before).astype(np.float64)
    return (step * US_PER_S > limits["rate_max_per_s"][rows.point] * passed_us).view(np.uint8)


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    classes = np.empty(len(rows), np.uint8)
    before = rows.previous_time, rows.previous_value
    _each(rows.point, rows.time, rows.value, *before, limits["rate_max_per_s"], classes)
    return classes


@inlined
def too_fast(time: int, value: float, before_time: int, before: float, rate_max: float) -> bool:
    """The comparison itself, of one reading with the one before."""
    passed_us = 0 if before_time == NO_TIME else time - before_time
    return abs(value - before) * US_PER_S > rate_max * passed_us


@compiled
def _each(
    point: Index, time: I64, value: F64, before_time: I64, before: F64, rate_max: F64, classes: U8
) -> None:
    for i in range(len(point)):
        classes[i] = too_fast(time[i], value[i], before_time[i], before[i], rate_max[unsigned(point[i])])


CHECK = RowCheck("rate_of_change", SUSPECT, rate_of_change, loop=_loop)
