"""Scenarios: what happens to the city while it is simulated, as pure functions of a seed and a step.

Owns the storm's path and shape, which gateways fall silent and which sensors stick. Knows nothing of
kinds, units, decimals, sockets or the wall clock: ``share`` is the part of the run that has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from storage.batch import F64, I32, I64, Bool

ScenarioName = Literal["steady", "storm", "outage", "stuck", "storm-city"]
"""storm-city: a storm, stuck sensors and gateway outages at once, the night people must not be called too often in."""
SCENARIOS: tuple[str, ...] = get_args(ScenarioName)

CROSSING = (0.12, 0.72)
"""The cell enters the city and leaves it again at these shares of the run; the rest lets levels fall."""
CELL_SHARE = 0.12
"""Radius of the cell as a share of the city's longer side: a storm drowns quarters, not the whole city."""
SWATH_SHARE = 0.35
"""How far off its centre the path may pass, as a share of the city's shorter side."""
HOUR_SHARE = 0.5
"""The hour of a one-hour rain sum as a share of the run: a run tells a storm of two hours."""
PEAK_AFTER = {"waterlogging": 0.12, "level": 0.20}
"""From the first water to the highest, as a share of the run: streets before rivers."""
DELAY = {"waterlogging": 0.01, "level": 0.03}
"""From the cell overhead to the first water, as a share of the run."""
HOP_DELAY = 0.01
"""Added for each point upstream: the crest travels."""

OUTAGE_SPAN = (0.40, 0.70)
OUTAGE_GATEWAYS = 0.02
STUCK_FROM = 0.25
STUCK_POINTS = 0.003
"""Shares of the run, of the gateways and of the points: a bad day, not a lost city."""

CITY_OUTAGE_SPAN = (0.25, 0.80)
"""Long enough that a run of half a minute shows an outage and its end, with the engine killed in between."""
CITY_OUTAGES = 3
CITY_OUTAGE_POINTS_MIN = 10
"""Only gateways of some size fall silent: a gateway of two points is judged point by point."""
CITY_STUCK = 400 / 116_200
CITY_STUCK_MIN = 10
CITY_STUCK_KINDS = ("bridge_strain", "bridge_vibration", "dust_pm10", "traffic_flow", "traffic_speed")
"""Kinds that never say the same for seconds on end, so that who does is stuck and nobody else seems to be."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named course of events. ``seconds`` is the run it is stretched over."""

    name: ScenarioName
    seed: int
    seconds: float

    def share(self, step: int, hz: float) -> float:
        """How much of the run has passed at a step; beyond the end it stays 1."""
        return min(1.0, step / hz / self.seconds) if self.seconds > 0 else 1.0

    @property
    def rains(self) -> bool:
        """Whether a storm goes over the city."""
        return self.name in ("storm", "storm-city")

    def silent_gateways(self, gateways: int, sizes: I64 | None = None) -> Bool:
        """Which of the city's gateways (by code) fall silent for a while; at least one of two or more.

        sizes  int64[gateways], points of each: storm-city takes CITY_OUTAGES of those with enough of them
        """
        silent = np.zeros(gateways, bool)
        if self.name == "storm-city" and sizes is not None:
            large = np.flatnonzero(sizes >= CITY_OUTAGE_POINTS_MIN)
            silent[np.random.default_rng((self.seed, 2)).permutation(large)[:CITY_OUTAGES]] = True
        if self.name == "outage" and gateways > 1:
            count = max(1, round(gateways * OUTAGE_GATEWAYS))
            silent[np.random.default_rng((self.seed, 2)).permutation(gateways)[:count]] = True
        return silent

    def silent_now(self, share: float) -> bool:
        """Whether the silent gateways are silent at this share of the run."""
        begin, end = CITY_OUTAGE_SPAN if self.name == "storm-city" else OUTAGE_SPAN
        return self.name in ("outage", "storm-city") and begin <= share < end

    def stuck(self, number: I32) -> Bool:
        """Which points stick from STUCK_FROM on; drawn by registry number: the same in every process."""
        if self.name != "stuck" or not len(number):
            return np.zeros(len(number), bool)
        draw = np.random.default_rng((self.seed, 3)).random(int(number.max()) + 1)
        return np.asarray(draw[number] < STUCK_POINTS)

    def stuck_of(self, number: I32, points: int) -> I32:
        """storm-city: which of the points ``number`` of a city of ``points`` stick, ascending. None in others."""
        count = max(CITY_STUCK_MIN, round(points * CITY_STUCK)) if self.name == "storm-city" else 0
        chosen = np.random.default_rng((self.seed, 3)).permutation(number)[:count]
        return np.sort(chosen).astype(np.int32)


class Storm:
    """A rain cell that crosses the city on a straight line.

    lon, lat  float64 [n] degrees, NaN is far away; hops int32 [n] points upstream of each
    box       (west, south, east, north) of the whole city: the same in every process of a run
    """

    def __init__(
        self, seed: int, lon: F64, lat: F64, hops: I32, box: tuple[float, float, float, float]
    ) -> None:
        rng = np.random.default_rng((seed, 1))
        west, south, east, north = box
        narrowing = np.cos(np.radians((south + north) / 2))
        wide, high = max((east - west) * narrowing, 1e-6), max(north - south, 1e-6)
        x = (lon - (west + east) / 2) * narrowing
        y = lat - (south + north) / 2
        course = rng.uniform(-0.5, 0.5)  # radians off due east: storms here come from the west
        offset = rng.uniform(-0.5, 0.5) * SWATH_SHARE * min(wide, high)
        along = x * np.cos(course) + y * np.sin(course)
        across = y * np.cos(course) - x * np.sin(course) - offset
        self._radius = CELL_SHARE * max(wide, high)
        half = (wide * abs(np.cos(course)) + high * abs(np.sin(course))) / 2
        begin, end = CROSSING
        self._half_pass = self._radius / (2 * half) * (end - begin)
        self.pass_share = 2 * self._half_pass
        """Share of the run in which the core's line would get all its rain at full intensity."""
        far = np.isnan(along) | np.isnan(across)
        self._overhead = np.where(far, 2.0, begin + (along + half) / (2 * half) * (end - begin))
        self.reach: F64 = np.where(far, 0.0, np.exp(-((across / self._radius) ** 2)))
        self._hops = hops * HOP_DELAY

    def intensity(self, share: float, rows: slice) -> F64:
        """How hard it rains, 0 … 1 at the core."""
        phase = (share - self._overhead[rows]) / self._half_pass
        return np.asarray(self.reach[rows] / np.cosh(np.clip(phase, -30, 30)) ** 2)

    def fallen(self, share: float, rows: slice) -> F64:
        """Rain so far as a share of what the core's line gets in the whole storm, 0 … 1, never falling."""
        phase = (share - self._overhead[rows]) / self._half_pass
        return np.asarray(self.reach[rows] * (np.tanh(phase) + 1) / 2)

    def fallen_in_hour(self, share: float, rows: slice) -> F64:
        """Rain of the storm's last hour, as a share: rises with the cell and falls after it."""
        return np.asarray(self.fallen(share, rows) - self.fallen(share - HOUR_SHARE, rows))

    def water(self, form: str, share: float, rows: slice) -> F64:
        """Water standing or running ("waterlogging", "level"), 0 … 1: rises fast, falls slowly."""
        since = share - self._overhead[rows] + self._half_pass - DELAY[form]
        if form == "level":
            since = since - self._hops[rows]
        phase = np.maximum(since, 0.0) / PEAK_AFTER[form]
        return np.asarray(self.reach[rows] * (phase * np.exp(1 - phase)) ** 2)
