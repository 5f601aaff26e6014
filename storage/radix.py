"""A stable radix sort of point numbers, compiled. Owns the loop; storage.batch says when it is worth it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from storage.fast import compiled

Index = npt.NDArray[np.intp]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

DIGIT_BITS_MAX: Final = 10
"""A city's 116,200 numbers have two digits of nine bits, a million two of ten; the counts of both stay in the
first-level cache."""


def order_of(key: I32) -> Index:
    """Positions of non-negative ``key`` in ascending order, those of equal keys as they came."""
    order = np.empty(len(key), np.intp)
    # A copy: views of the journal are read-only, for which the loop would be compiled once more.
    _radix(key.astype(np.uint32), order, np.empty(len(key), np.uint64), np.empty(len(key), np.uint64))
    return order


@compiled
def _radix(point: npt.NDArray[np.uint32], order: Index, room: U64, spare: U64) -> None:
    """Stable ascending order of ``point`` into ``order``. room, spare  as long

    A number travels with its position in one word, so that all but the writes go through memory in their order. No
    index is signed: whether it counts from the end would be looked at each time.
    """
    n, seen = len(point), np.uint32(0)
    for i in range(n):
        seen |= point[i]
    bits = 1
    while np.int64(seen) >> bits:
        bits += 1
    digits = (bits + DIGIT_BITS_MAX - 1) // DIGIT_BITS_MAX
    width = (bits + digits - 1) // digits
    mask, one, low = np.uint64((1 << width) - 1), np.uint64(1), np.uint64(0xFFFFFFFF)
    for i in range(n):
        spare[i] = np.uint64(point[i]) << np.uint64(32) | np.uint64(i)
    for digit in range(digits):
        shift = np.uint64(32 + digit * width)
        begin = np.zeros((1 << width) + 1, np.uint64)
        for i in range(n):
            begin[(spare[i] >> shift & mask) + one] += one
        for value in range(1 << width):
            begin[value + 1] += begin[value]
        if digit + 1 < digits:
            for i in range(n):
                value_of = spare[i] >> shift & mask
                room[begin[value_of]] = spare[i]
                begin[value_of] += one
            room, spare = spare, room
        else:
            for i in range(n):
                value_of = spare[i] >> shift & mask
                order[begin[value_of]] = np.intp(spare[i] & low)
                begin[value_of] += one
