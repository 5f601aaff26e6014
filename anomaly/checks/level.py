"""Warning levels: blue, yellow, orange, red, with a gap between entering and leaving.

Owns which levels each point stands in. An objection here is news about the world, not doubt about the
reading, so the flag stays as it is.
"""

from __future__ import annotations

import numpy as np

from anomaly.checks.rows import F64, U8, Arrays, Bool, Field, Index, RowCheck, Rows, fill_forward
from storage.fast import compiled, inlined, unsigned
from storage.flags import GOOD

LEVELS = 4
_HIGHEST = np.array([mask.bit_length() for mask in range(1 << LEVELS)], np.uint8)
"""From the mask of entered levels to the class: the highest of them."""
_BIT = np.uint8(1) << np.arange(LEVELS, dtype=np.uint8)[:, None]


def level(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    """The class of each row: 0 none, 1 blue, 2 yellow, 3 orange, 4 red.

    Level k is entered at value >= level[k] and left at value < level[k] - level_gap; between the two it
    stays as it was. For falling levels all three are mirrored.

    limits["level"]        float64[4, points]; NaN where there is none; negated where falling
    limits["level_first"]  float64[points]: the lowest of them, +inf where there is none
    limits["level_gap"]    float64[points] >= 0
    limits["sign"]         float64[points]: -1 where falling, else 1
    state["level_mask"]    uint8[points]: bit k is level k+1 entered
    """
    classes = np.zeros(len(rows), np.uint8)
    signed = rows.value * limits["sign"][rows.point]
    above = signed >= limits["level_first"][rows.point]
    points = rows.point if rows.single else rows.point[rows.first]
    entered = above if rows.single else np.logical_or.reduceat(above, rows.first)
    # Most points stand below their lowest level and did so before: they are through.
    concerned = entered | (state["level_mask"][points] != 0)
    if not concerned.any():
        return classes
    lengths = None if rows.single else np.diff(rows.first, append=len(rows))
    index = np.flatnonzero(concerned if lengths is None else np.repeat(concerned, lengths))
    mask = _masks(rows.point[index], signed[index], rows.start[index], limits, state)
    classes[index] = highest(mask)
    last = slice(None) if lengths is None else np.cumsum(lengths[concerned]) - 1
    state["level_mask"][points[concerned]] = mask[last]
    return classes


def highest(mask: U8) -> U8:
    """The class of each mask of entered levels: the highest of them, 0 for none. uint8[n] both."""
    found: U8 = _HIGHEST[mask]
    return found


def _masks(point: np.ndarray, signed: np.ndarray, start: Bool, limits: Arrays, state: Arrays) -> U8:
    """The entered levels after each row as a bit mask: one latch a level, held by the last decisive row."""
    mask = np.zeros(len(point), np.uint8)
    before = state["level_mask"][point]
    gap = limits["level_gap"][point]
    if start.all():
        enter = limits["level"][:, point]
        entered = signed >= enter
        known = entered | ~(signed < enter - gap) & ((before & _BIT) != 0)
        found: U8 = (known * _BIT).sum(axis=0, dtype=np.uint8)
        return found
    for k in range(LEVELS):
        enter = limits["level"][k][point]
        entered = signed >= enter
        decisive = entered | (signed < enter - gap)
        latched = np.where(decisive, entered, (before >> k) & 1 == 1)
        mask |= latched[fill_forward(decisive | start)].astype(np.uint8) << k
    return mask


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    classes = np.empty(len(rows), np.uint8)
    known = limits["sign"], limits["level_first"], limits["level"], limits["level_gap"]
    _each(rows.point, rows.value, *known, state["level_mask"], classes)
    return classes


@inlined
def entered(mask: int, k: int, signed: float, level: float, gap: float) -> int:
    """The mask of entered levels after one reading is held against level ``k``."""
    if signed >= level:
        return mask | 1 << k
    return mask & ~(1 << k) if signed < level - gap else mask


@compiled
def _each(
    point: Index, value: F64, sign: F64, first: F64, levels: F64, gap: F64, level_mask: U8, classes: U8
) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        signed, mask = value[i] * sign[p], level_mask[p]
        classes[i] = 0
        # Most points stand below their lowest level and did so before: they are through.
        if mask == 0 and not signed >= first[p]:
            continue
        for k in range(LEVELS):
            mask = entered(mask, k, signed, levels[k, p], gap[p])
            if mask & 1 << k:
                classes[i] = k + 1
        level_mask[p] = mask


CHECK = RowCheck("level", GOOD, level, (Field("level_mask", "u1", 0),), rule="level", loop=_loop)
