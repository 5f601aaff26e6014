"""Aftermath: what the scores and classes of a batch leave behind, in columns or in one compiled loop each.

Owns who gets which score, bit and standing; anomaly.checks.unusual says how long an alarm lasts. Knows no rule.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from anomaly.checks.rows import NO_TIME, Arrays, Index, Rows
from anomaly.checks.unusual import ALARM_LINE, still_unusual, unusual
from storage.batch import F32, I64, U8, U32, Bool
from storage.fast import IS_COMPILED, compiled, unsigned
from storage.flags import bit

ANOMALY: Final = bit("anomaly")


def spread_scores(
    rows: Rows, row: Index, score: F32, limits: Arrays, state: Arrays, scores: F32, checks: U32
) -> tuple[U8, bool]:
    """The classes of ``unusual``, and whether any is above 0; the scores, and bits of alarms, where they belong.

    row     intp[m]: where in the batch each of ``rows`` is
    score   float32[m] of them
    scores  float32[n], checks uint32[n] of the batch: written
    """
    if IS_COMPILED:
        classes = np.empty(len(rows), np.uint8)
        known = limits["anomaly_alert"], state["unusual_t"]
        return classes, _spread(rows.point, rows.time, row, score, *known, scores, checks, classes)
    scores[row] = score
    checks[row[score >= ALARM_LINE]] |= np.uint32(ANOMALY)
    classes = unusual(rows, score, limits, state)
    return classes, bool(classes.any())


@compiled
def _spread(
    point: Index,
    time: I64,
    row: Index,
    score: F32,
    wanted: Bool,
    newest: I64,
    scores: F32,
    checks: U32,
    classes: U8,
) -> bool:
    some = False
    for k in range(len(point)):
        p, i = unsigned(point[k]), unsigned(row[k])
        scores[i] = score[k]
        if score[k] >= ALARM_LINE:
            checks[i] |= ANOMALY
            if wanted[p]:
                newest[p] = time[k]
        classes[k] = still_unusual(time[k], newest[p])
        if classes[k]:
            some = True
        else:
            newest[p] = NO_TIME
    return some


def stand(rows: Rows, classes: U8, standing: U8) -> bool:
    """Keep the class of each point's last row in ``standing`` (uint8[points]); whether any row is in one."""
    if IS_COMPILED:
        return bool(_stand(rows.point, np.require(classes, requirements=["C", "W"]), standing))
    standing[rows.point[rows.last]] = classes[rows.last]
    return bool(classes.any())


@compiled
def _stand(point: Index, classes: U8, standing: U8) -> bool:
    some = 0
    for i in range(len(point)):
        standing[unsigned(point[i])] = classes[i]
        some |= classes[i]
    return some != 0
