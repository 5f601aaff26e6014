"""Spike: a reading far from the one before that the next one does not follow.

Owns what each point is held to while it stands apart. The verdict falls when the reading arrives, so it cannot wait
for the next one as the textbook's does: a far step is suspect at once, and the first reading that stays where the
step led, or comes back, is believed again. A lasting step is thus suspect for one reading.
"""

from __future__ import annotations

import numpy as np

from anomaly.checks.rows import F64, U8, Arrays, Field, Index, RowCheck, Rows
from storage.fast import compiled, inlined, unsigned
from storage.flags import SUSPECT


def spike(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    """1 where a value is more than spike_max from the one before, and from the last believed one if that was a spike.

    limits["spike_max"]  float64[points], in the point's unit; NaN is no limit
    state["spike_base"]  float64[points]: the last believed value while the newest is a spike, else NaN
    """
    classes = np.zeros(len(rows), np.uint8)
    limit = limits["spike_max"]
    far = np.abs(rows.value - rows.previous_value) > limit[rows.point]
    points = rows.point if rows.single else rows.point[rows.first]
    held = state["spike_base"][points]
    standing = ~np.isnan(held)
    if not (standing.any() or far.any()):
        return classes
    # Only rows that step far, or stand behind one that did, have anything to say.
    after_far = np.append(False, far[:-1]) & ~rows.start
    after_far[rows.first[standing]] = True
    row = np.flatnonzero(far | after_far)
    group = np.searchsorted(rows.first, row, side="right") - 1
    bases = _walk(rows, row, far, held[group], limit, classes)
    last = rows.last[group]
    state["spike_base"][points[standing]] = np.nan
    at_end = row == last
    state["spike_base"][rows.point[row[at_end]]] = bases[at_end]
    return classes


def _walk(
    rows: Rows, row: Index, far: np.ndarray, held: np.ndarray, limit: np.ndarray, classes: U8
) -> np.ndarray:
    """What each of ``row`` leaves as base, NaN where it is believed; far rows that are not are marked."""
    bases = np.full(len(row), np.nan)
    columns = (row, far[row], rows.start[row], rows.value[row], rows.previous_value[row], held)
    most = limit[rows.point[row]].tolist()
    base, before = np.nan, -2
    for k, (i, is_far, starts, value, previous, kept) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        if starts:
            base = kept
        elif i != before + 1:
            base = np.nan
        before = i
        # NaN compares as not near: without a base the step alone decides.
        if is_far and not abs(value - base) <= most[k]:
            classes[i] = 1
            base = previous if base != base else base
        else:
            base = np.nan
        bases[k] = base
    return bases


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> U8:
    classes = np.empty(len(rows), np.uint8)
    _each(rows.point, rows.value, rows.previous_value, limits["spike_max"], state["spike_base"], classes)
    return classes


@inlined
def stands_apart(value: float, before: float, base: float, most: float) -> bool:
    """Whether one reading is a spike; ``base`` as in the state."""
    # NaN compares as not near: without a base the step alone decides.
    return abs(value - before) > most and not abs(value - base) <= most


@compiled
def _each(point: Index, value: F64, before: F64, most: F64, spike_base: F64, classes: U8) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        base = spike_base[p]
        classes[i] = stands_apart(value[i], before[i], base, most[p])
        if classes[i]:
            spike_base[p] = before[i] if np.isnan(base) else base
        elif not np.isnan(base):
            spike_base[p] = np.nan


CHECK = RowCheck("spike", SUSPECT, spike, (Field("spike_base", "f8", np.nan),), loop=_loop)
