"""Travel: how long a rise takes from a point to the next one downstream, and what it brings there.

Owns the courses of levels over two days, the first reading of every five minutes, of points that the registry joins
by `upstream`, and the lag at which the lower course follows the upper one best. Kept by the rule "rise"; asked at a
TICK only for points whose upstream point rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from anomaly.checks.rows import F64, Arrays, Bool, Field, Rows
from anomaly.rules.parts import part_of
from anomaly.rules.rings import NO_SPAN, spans
from storage.points import PointTable

SPAN_US: Final = 300_000_000
SPANS: Final = 577
LAGS: Final = 145
"""Up to 12 hours: from one station to the next of a river that a city cares for."""
STEP: Final = 6
"""Courses are compared by their changes over half an hour: a slow season joins any two rivers, sensor noise none."""
CORRELATION_MIN: Final = 0.7
GAIN_MAX: Final = 5.0
FIELDS: Final = (
    Field("travel_value", "f4", np.nan, (SPANS,), of="travel_point"),
    Field("travel_span", "i8", NO_SPAN, of="travel_point"),
)


def linked(points: PointTable, rising: Bool) -> Bool:
    """Points of ``rising`` that have an upstream point there or are one, bool[points]."""
    upper = points.upstream >= 0
    upper &= rising & rising[np.maximum(points.upstream, 0)]
    found = upper.copy()
    found[points.upstream[upper]] = True
    return found


def keep(rows: Rows, limits: Arrays, state: Arrays) -> None:
    """Go on with the courses of ``travel_point`` (bool[points])."""
    part = part_of(rows, limits["travel_point"]) if len(state["travel_span"]) else None
    if part is None:
        return
    at = spans(part, part.time // SPAN_US, state["travel_span"], state["travel_point_place"])
    if not at.steady:
        at.keep(state["travel_value"], at.heads(state["travel_value"], part.value.astype(np.float32)))
        at.advance(state["travel_span"])


@dataclass(frozen=True, slots=True)
class Link:
    """The lower course follows the upper one ``lag`` spans later, ``gain`` times as high."""

    lag: int
    gain: float
    correlation: float


def course(state: Arrays, place: int, newest: int) -> F64:
    """The last SPANS - 1 spans up to ``newest``, oldest first; NaN where nothing is known."""
    asked = np.arange(newest - SPANS + 2, newest + 1)
    own = int(state["travel_span"][place])
    found: F64 = state["travel_value"][np.minimum(asked, own) % SPANS, place].astype(np.float64)
    found[asked <= own - SPANS] = np.nan
    return found


def follow(upper: F64, lower: F64) -> Link | None:
    """The lag at which ``lower`` follows ``upper`` best; None where it does not.

    >>> rise = np.clip(np.arange(400.0) - 200, 0, 30)
    >>> follow(rise, 0.5 * np.roll(rise, 12) * (np.arange(400) >= 12)).lag
    12
    """
    x, y = upper[STEP:] - upper[:-STEP], lower[STEP:] - lower[:-STEP]
    best: Link | None = None
    for lag in range(min(LAGS, len(x) // 2)):
        a, b = x[: len(x) - lag], y[lag:]
        known = ~(np.isnan(a) | np.isnan(b))
        if known.sum() < LAGS:
            continue
        a, b = a[known] - a[known].mean(), b[known] - b[known].mean()
        power = float(a @ a), float(b @ b)
        if power[0] <= 0 or power[1] <= 0:
            continue
        r = float(a @ b) / (power[0] * power[1]) ** 0.5
        if r >= CORRELATION_MIN and (best is None or r > best.correlation + 1e-9):
            best = Link(lag, min(float(a @ b) / power[0], GAIN_MAX), r)
    return best
