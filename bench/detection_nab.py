"""The published NAB rule for judging a score on labelled series: windows, a sigmoid over them, one threshold.

Owns that arithmetic, written from Lavin and Ahmad, "Evaluating real-time anomaly detection algorithms: the Numenta
anomaly benchmark" (2015), standard profile. Knows nothing of how a score or a series was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

A_TP, A_FP, A_FN = 1.0, 0.11, 1.0
WINDOW_SHARE = 0.10
PROBATION_SHARE = 0.15
PROBATION_ROWS_MAX = 750

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """A score and the windows (first row, last row) it is judged by."""

    score: F64
    windows: list[tuple[int, int]]


@dataclass(frozen=True)
class Verdict:
    """``points``: 100 is perfect, 0 is saying nothing. At ``threshold``: windows found, rows wrongly called."""

    points: float
    threshold: float
    found: int
    windows: int
    false_rows: int


def windows_of(n: int, onsets: Sequence[int]) -> list[tuple[int, int]]:
    """A tenth of the series shared over its anomalies, a window centred on each; overlapping ones become one."""
    if not onsets:
        return []
    half = int(n * WINDOW_SHARE / len(onsets)) // 2
    found: list[tuple[int, int]] = []
    for onset in sorted(onsets):
        begin, end = max(0, onset - half), min(n - 1, onset + half)
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def sigmoid(y: F64) -> F64:
    """1 at the begin of a window (y = -1), 0 at its end, -1 far behind it."""
    return 2 / (1 + np.exp(5 * np.minimum(y, 3.0))) - 1


def gains(n: int, windows: Sequence[tuple[int, int]]) -> tuple[F64, npt.NDArray[np.int64]]:
    """What calling each row is worth, float64[n], and the window it lies in, -1 for none."""
    gain = np.full(n, -A_FP)
    inside = np.full(n, -1)
    for number, (begin, end) in enumerate(windows):
        width = end - begin + 1
        behind = np.arange(end + 1, n)
        gain[behind] = A_FP * sigmoid((behind - end) / max(width - 1, 1))
        rows = np.arange(begin, end + 1)
        gain[rows] = A_TP * sigmoid(-(end - rows + 1) / width) / sigmoid(np.array([-1.0]))[0]
        inside[rows] = number
    for number, (begin, end) in enumerate(windows[1:], 1):
        inside[begin : end + 1] = number
    return gain, inside


def judge(corpus: Sequence[Labelled], threshold: float | None = None) -> Verdict:
    """The best threshold over all series together, or the points at a given one."""
    scores, worth, places, offset = [], [], [], 0
    for one in corpus:
        n = len(one.score)
        gain, inside = gains(n, one.windows)
        begin = min(int(n * PROBATION_SHARE), PROBATION_ROWS_MAX)
        scores.append(one.score[begin:])
        worth.append(gain[begin:])
        places.append(np.where(inside >= 0, inside + offset, -1)[begin:])
        offset += len(one.windows)
    score, gain, place = np.concatenate(scores), np.concatenate(worth), np.concatenate(places)
    order = np.argsort(-score, kind="stable")
    total, found, false_rows = _running(gain[order], place[order], offset)
    sorted_score = score[order]
    last = np.append(sorted_score[1:] != sorted_score[:-1], True)
    last &= sorted_score > 0
    if threshold is not None:
        last &= sorted_score >= threshold
        at = int(np.flatnonzero(last)[-1]) if last.any() else -1
    else:
        at = int(np.argmax(np.where(last, total, -np.inf))) if last.any() else -1
    if at < 0 or (threshold is None and total[at] < -A_FN * offset):
        return Verdict(0.0, np.inf, 0, offset, 0)
    points = 100 * (total[at] + A_FN * offset) / ((A_TP + A_FN) * offset)
    return Verdict(float(points), float(sorted_score[at]), int(found[at]), offset, int(false_rows[at]))


def _running(gain: F64, place: npt.NDArray[np.int64], windows: int) -> tuple[F64, F64, F64]:
    """Sum of points after each called row, in falling order of score; windows found; rows outside."""
    outside = place < 0
    change = np.where(outside, gain, 0.0)
    index = np.flatnonzero(~outside)
    best: dict[int, float] = {}
    new = np.zeros(len(gain))
    for i, (number, worth) in zip(
        index.tolist(), zip(place[index].tolist(), gain[index].tolist(), strict=True), strict=True
    ):
        had = best.get(number)
        if had is None:
            change[i] = worth + A_FN
            new[i] = 1
            best[number] = worth
        elif worth > had:
            change[i] = worth - had
            best[number] = worth
    return np.cumsum(change) - A_FN * windows, np.cumsum(new), np.cumsum(outside)
