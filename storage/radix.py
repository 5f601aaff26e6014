"""A stable radix sort of point numbers, compiled. Owns the loop; storage.batch says when it is worth it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from storage.fast import compiled

Index = npt.NDArray[np.intp]
I32 = npt.NDArray[np.int32]


def order_of(key: I32) -> Index:
    """Positions of non-negative ``key`` in ascending order, those of equal keys as they came."""
    order = np.empty(len(key), np.intp)
    # A copy: views of the journal are read-only, for which the loop would be compiled once more.
    _radix(key.astype(np.int32), order, np.empty(len(key), np.intp))
    return order


DIGIT_BITS: Final = 9
"""A city's 116,200 numbers have two digits of as many bits, and their counts stay in the first-level cache."""


@compiled
def _radix(point: I32, order: Index, room: Index) -> None:
    """Stable ascending order of non-negative numbers, into ``order``."""
    highest = 0
    for i in range(len(point)):
        order[i] = i
        highest = max(highest, point[i])
    shift = 0
    while highest >> shift:
        begin = np.zeros((1 << DIGIT_BITS) + 1, np.int64)
        for i in range(len(point)):
            begin[(point[i] >> shift & (1 << DIGIT_BITS) - 1) + 1] += 1
        for digit in range(1 << DIGIT_BITS):
            begin[digit + 1] += begin[digit]
        for i in range(len(point)):
            digit = point[order[i]] >> shift & (1 << DIGIT_BITS) - 1
            room[begin[digit]] = order[i]
            begin[digit] += 1
        for i in range(len(point)):
            order[i] = room[i]
        shift += DIGIT_BITS
