"""By code: look-ups, counts and extremes over groups of points, such as the points of each gateway.

Owns the loops; numpy's own forms of these cost five times as many instructions, and at every TICK they run over all
points of a city. Codes are 0 … groups-1. Where numba is not installed numpy does it; the answers are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import I32, I64, NO_TIME, Bool
from storage.fast import IS_COMPILED, compiled, unsigned

Column = npt.NDArray[Any]


def looked_up(of_groups: Column, code: I32) -> Column:
    """``of_groups[code]``."""
    if not IS_COMPILED:
        found: Column = of_groups[code]
        return found
    found = np.empty(len(code), of_groups.dtype)
    _look_up(of_groups, code, found)
    return found


@compiled
def _look_up(of_groups: Column, code: I32, found: Column) -> None:
    for i in range(len(code)):
        found[i] = of_groups[unsigned(code[i])]


def counted(code: I32, mask: Bool, groups: int) -> I64:
    """How many of ``mask`` each group has, int64[groups]."""
    if not IS_COMPILED:
        return np.bincount(code[mask], minlength=groups).astype(np.int64)
    found = np.zeros(groups, np.int64)
    _count(code, mask, found)
    return found


@compiled
def _count(code: I32, mask: Bool, found: I64) -> None:
    for i in range(len(code)):
        found[unsigned(code[i])] += mask[i]


def newest(code: I32, column: I64, groups: int, mask: Bool | None = None) -> I64:
    """The greatest of ``column`` in each group, of the points of ``mask``; NO_TIME where there is none."""
    found = np.full(groups, NO_TIME, np.int64)
    if mask is not None:
        column = np.where(mask, column, NO_TIME)
    if IS_COMPILED:
        _raise_to(code, column, found)
    else:
        np.maximum.at(found, code, column)
    return found


@compiled
def _raise_to(code: I32, column: I64, found: I64) -> None:
    for i in range(len(code)):
        group = unsigned(code[i])
        if column[i] > found[group]:
            found[group] = column[i]


def least(code: I32, column: I64, groups: int, mask: Bool) -> I64:
    """The least of ``column`` in each group, of the points of ``mask``; the greatest int64 where there is none."""
    found: I64 = np.invert(newest(code, np.invert(column), groups, mask))
    return found
