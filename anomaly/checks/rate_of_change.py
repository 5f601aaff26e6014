"""Rate of change: a step faster than the quantity can move.

Owns that one comparison with the reading before. Knows nothing of how long a silence may be: the longer
it was, the larger the step that is believed.
"""

from __future__ import annotations

import numpy as np

from anomaly.checks.rows import NO_TIME, U8, Arrays, RowCheck, Rows
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


CHECK = RowCheck("rate_of_change", SUSPECT, rate_of_change)
