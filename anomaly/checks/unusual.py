"""Unusual: a score over the alarm line, as a condition that lasts.

Owns how long. The score speaks at an onset and is then silent while the same thing goes on, so what follows it is
counted to it for a while. Only kinds that ask for alerts of anomalies are looked at.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import I64, NO_TIME, U8, Arrays, Bool, Field, Index, Rows, fill_forward
from storage.fast import IS_COMPILED, compiled, inlined, unsigned

ALARM_LINE: Final = 1.0
HOLD_US: Final = 30 * 60 * 1_000_000
"""Half an hour after the last alarm the point is taken as calm."""
FIELDS: Final = (Field("unusual_t", "i8", NO_TIME),)


def unusual(
    rows: Rows, score: npt.NDArray[np.float32], limits: Arrays, state: Arrays, loop: bool = IS_COMPILED
) -> U8:
    """1 from a row over the alarm line until HOLD_US later, uint8[n].

    limits["anomaly_alert"]  bool[points]
    state["unusual_t"]       int64[points] µs: newest alarm; NO_TIME for none
    loop  go through the rows one by one, compiled; the answer is the same
    """
    if loop:
        said = np.empty(len(rows), np.uint8)
        _each(rows.point, rows.time, score, limits["anomaly_alert"], state["unusual_t"], said)
        return said
    points = rows.point[rows.first]
    over = (score >= ALARM_LINE) & limits["anomaly_alert"][rows.point]
    before = state["unusual_t"][points]
    if not over.any() and (before == NO_TIME).all():
        return np.zeros(len(rows), np.uint8)
    newest = np.where(over, rows.time, NO_TIME)
    newest[rows.first] = np.where(over[rows.first], newest[rows.first], before)
    newest = newest[fill_forward(over | rows.start)]
    stands = newest != NO_TIME
    # NO_TIME in the subtraction would overflow; where it stands its place is taken by the row's own time.
    classes = stands & (rows.time - np.where(stands, newest, rows.time) < HOLD_US)
    last = rows.last
    state["unusual_t"][points] = np.where(classes[last], newest[last], NO_TIME)
    found: U8 = classes.view(np.uint8)
    return found


@inlined
def still_unusual(time: int, newest: int) -> bool:
    """Whether a row is counted to the newest alarm, NO_TIME for none."""
    return newest != NO_TIME and time - newest < HOLD_US


@compiled
def _each(
    point: Index, time: I64, score: npt.NDArray[np.float32], wanted: Bool, newest: I64, classes: U8
) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        if score[i] >= ALARM_LINE and wanted[p]:
            newest[p] = time[i]
        classes[i] = still_unusual(time[i], newest[p])
        if not classes[i]:
            newest[p] = NO_TIME
