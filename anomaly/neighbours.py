"""Neighbours: points that disagree with those around them that measure the same.

Owns who is whose neighbour, and since when and how far each point has been off. Knows nothing of alerts. Asked at a
TICK on the state as of that TICK: within the stream the answer would depend on where batches are cut.

A point is compared with the mean and the spread of its nearest neighbours of the same kind. Off for a while is a
fault of the point; off by a little, but all day and always to the same side, is a drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from anomaly.checks.rows import NO_TIME, Bool
from anomaly.limits import Limits
from anomaly.state import State
from storage.batch import F64, I32, US_PER_S
from storage.points import PointTable

NEIGHBOURS: Final = 8
NEIGHBOURS_MIN: Final = 3
"""Fewer neighbours with a fresh value convict nobody."""
DISTANCE_M_MAX: Final = 10_000.0
"""Beyond it weather and water are other ones."""
EVERY_US: Final = 10 * US_PER_S
FRESH_US: Final = 15 * 60 * US_PER_S
"""A neighbour's value counts this long; slow kinds as long as it takes them to be dead."""
CALM: Final = 0.8
"""A disagreement ends below this share of its limit, so that it does not flutter."""
DRIFT_US: Final = 86_400 * US_PER_S
DRIFT_CLIP: Final = 4.0
"""Of a day's mean no single hour of disagreement makes a drift."""
BLOCK: Final = 256
EARTH_M_PER_DEGREE: Final = 111_320.0


@dataclass(frozen=True, slots=True)
class Off:
    """Points at one TICK, bool[points]: off long enough, and back; deviation float64[points], NaN for unknown."""

    off: Bool
    back: Bool
    drifts: Bool
    steady: Bool
    deviation: F64


class Neighbours:
    """The comparison, for points of kinds that ask for it."""

    def __init__(self, points: PointTable, limits: Limits, state: State, held_s: float) -> None:
        self._limits = limits
        self._state = state
        self._held_us = round(held_s * US_PER_S)
        asks = ~np.isnan(limits["neighbour_sigmas"]) | ~np.isnan(limits["drift_sigmas"])
        placed = ~np.isnan(points.lon) & ~np.isnan(points.lat) & ~points.retired
        self.of = np.flatnonzero(asks & placed)
        self._near = nearest(points, self.of)
        silence = np.maximum(limits["silence_us"], FRESH_US)
        self._fresh = np.where(silence > DRIFT_US, FRESH_US, silence)
        self.asked_at = NO_TIME

    def tick(self, now: int) -> Off | None:
        """What stands at ``now``, µs of the engine's clock; None while it is not due or nobody asks."""
        asked = self.asked_at != NO_TIME
        if not len(self.of) or (asked and 0 <= now - self.asked_at < EVERY_US):
            return None
        passed = min(max(now - self.asked_at, 0), DRIFT_US) if asked else 0
        self.asked_at = now
        deviation = self._deviations(now)
        known = ~np.isnan(deviation)
        apart = np.abs(np.nan_to_num(deviation))
        sigmas, drift_sigmas = (
            self._limits["neighbour_sigmas"][self.of],
            self._limits["drift_sigmas"][self.of],
        )
        since, mean = self._state["off_since"][self.of], self._state["drift_mean"][self.of]
        begins = known & (apart > sigmas) & (since == NO_TIME)
        since[begins] = now
        back = known & (since != NO_TIME) & ~(apart > CALM * sigmas)
        since[back] = NO_TIME
        off = (since != NO_TIME) & (now - np.where(since == NO_TIME, now, since) >= self._held_us)
        share = passed / (DRIFT_US + passed)
        toward = np.clip(np.nan_to_num(deviation), -DRIFT_CLIP, DRIFT_CLIP)
        mean = np.where(known, mean + share * (toward - mean), mean)
        self._state["off_since"][self.of], self._state["drift_mean"][self.of] = since, mean
        drifts = known & (np.abs(mean) > drift_sigmas)
        steady = known & ~(np.abs(mean) > CALM * drift_sigmas)
        return Off(
            self._spread(off, False),
            self._spread(back, False),
            self._spread(drifts, False),
            self._spread(steady, False),
            self._spread(deviation, np.nan),
        )

    def _deviations(self, now: int) -> F64:
        """(value - mean of the neighbours) / their spread, float64[of]; NaN where too few are fresh."""
        state = self._state
        age = now - np.where(state["believed_t"] == NO_TIME, now, state["believed_t"])
        known = (state["believed_t"] != NO_TIME) & (age <= self._fresh)
        value = np.where(known, state["believed_v"], np.nan)
        around = np.where(self._near < 0, np.nan, value[self._near])
        there = ~np.isnan(around)
        count = there.sum(axis=1)
        enough = count >= NEIGHBOURS_MIN
        held = np.where(there, around, 0.0)
        mean = held.sum(axis=1) / np.maximum(count, 1)
        square = np.where(there, (around - mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(count, 1)
        spread = np.maximum(np.sqrt(square), self._limits["neighbour_floor"][self.of])
        deviation = (value[self.of] - mean) / np.maximum(spread, np.finfo(np.float64).tiny)
        return np.where(enough, deviation, np.nan)

    def _spread(self, column: np.ndarray, fill: float) -> np.ndarray:
        whole = np.full(self._state.n, fill, column.dtype)
        whole[self.of] = column
        return whole


def nearest(points: PointTable, of: np.ndarray) -> I32:
    """Numbers of the NEIGHBOURS nearest points of the same kind, int32[of, NEIGHBOURS]; -1 where there is none.

    ``of`` are the points compared, and their only neighbours. Distances on the plane tangent at each kind's middle.
    """
    near = np.full((len(of), NEIGHBOURS), -1, np.int32)
    for kind in np.unique(points.kind[of]):
        mine = np.flatnonzero(points.kind[of] == kind)
        lon, lat = points.lon[of[mine]], points.lat[of[mine]]
        x = (lon - lon.mean()) * np.cos(np.radians(lat.mean())) * EARTH_M_PER_DEGREE
        y = (lat - lat.mean()) * EARTH_M_PER_DEGREE
        most = min(NEIGHBOURS, len(mine) - 1)
        if most < NEIGHBOURS_MIN:
            continue
        for begin in range(0, len(mine), BLOCK):
            rows = slice(begin, begin + BLOCK)
            square = (x[rows, None] - x[None, :]) ** 2 + (y[rows, None] - y[None, :]) ** 2
            own = np.arange(begin, begin + len(square))
            square[np.arange(len(square)), own] = np.inf
            found = _least(square, most)
            within = np.take_along_axis(square, found, axis=1) <= DISTANCE_M_MAX**2
            near[mine[rows], :most] = np.where(within, of[mine[found]], -1)
    return near


def _least(square: F64, most: int) -> np.ndarray:
    """Columns of the ``most`` smallest of each row, nearest first, lower numbers first where equal."""
    some = np.sort(np.argpartition(square, most - 1, axis=1)[:, :most], axis=1)
    order = np.argsort(np.take_along_axis(square, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
