"""The last look at one poll's rows: times for those that brought none, and whether any point goes back.

Owns one pass over the rows with three numbers a point, so that nothing is sorted to find that nothing need
be.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest.kernels.compiling import compiled
from storage.batch import I32, I64

UNTIMED: Final = -(1 << 63)


@compiled
def arrange(
    point: I32, time: I64, received_at: int, poll: int, seen_in: I64, last: I64, untimed: I32
) -> bool:
    """Times rows that are UNTIMED in place; whether a point's times go back.

    seen_in, last, untimed  by point: the last poll with a row of it, that row's time, rows without a time
    """
    goes_back = False
    for row in range(len(point)):
        p = point[row]
        if seen_in[p] != poll:
            seen_in[p] = poll
            untimed[p] = 0
            last[p] = UNTIMED
        if time[row] == UNTIMED:
            time[row] = received_at + untimed[p]
            untimed[p] += 1
        goes_back |= time[row] < last[p]
        last[p] = time[row]
    return goes_back


class Arrange:
    """``arrange`` with its columns for a registry of ``points``."""

    def __init__(self, points: int) -> None:
        self._seen_in = np.zeros(points, np.int64)
        self._last = np.zeros(points, np.int64)
        self._untimed = np.zeros(points, np.int32)
        self._poll = 0

    def __call__(self, point: I32, time: I64, received_at: int) -> bool:
        """See ``arrange``."""
        self._poll += 1
        return bool(arrange(point, time, received_at, self._poll, self._seen_in, self._last, self._untimed))
