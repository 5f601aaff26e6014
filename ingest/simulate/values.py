"""Values of all points of a fleet at a step, as arrays: calm course, noise, and what the scenario adds.

Owns the numbers that are published: they are made as whole multiples of the kind's last decimal, so
that the text on the wire and the float64 of the ledger are the same number to the last bit. Knows
nothing of topics, sockets or the wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ingest.simulate.city_kinds import KindSim
from ingest.simulate.fleet import Fleet
from ingest.simulate.scenario import STUCK_FROM, Scenario, Storm
from storage.batch import F64, I32, I64, U8

START_HOUR = 21.0
"""Local hour at which a simulated run begins: the night of a flood."""
NOISE_STARTS = 1 << 16
"""Offsets into the noise table; a step takes the table from one of them."""
OWN_POWER = 3.0
"""A point's own share of a storm's peak is u ** OWN_POWER, u uniform: few places drown, most get wet."""
ALL = slice(None)


@dataclass(slots=True)
class _Wet:
    """The points of one storm form: their rows (ascending), the storm over them, and their own peak."""

    form: str
    rows: I64
    storm: Storm
    peak: F64


class Values:
    """What every point of a fleet says, by step.

    decimals     uint8 [n]  digits after the point; a value is a whole number of 10 ** -decimals
    whole_width  uint8 [n]  digits (and sign) that are enough for every value before the point
    """

    def __init__(
        self,
        fleet: Fleet,
        kinds: Mapping[str, KindSim],
        scenario: Scenario,
        box: tuple[float, float, float, float],
        hz: float = 1.0,
        stuck: I32 | None = None,
    ) -> None:
        """``box`` is the whole city's (Fleet.box before any cut); ``stuck`` numbers of points that stick, instead of
        the scenario's own draw. Raises ValueError naming unknown kinds."""
        if unknown := sorted(set(fleet.kinds) - set(kinds)):
            raise ValueError(f"kinds without values: {', '.join(unknown)}")
        self._scenario = scenario
        self._hz = hz
        sims = [kinds[name] for name in fleet.kinds]

        def column(field: str) -> F64:
            return np.array([float(getattr(sim, field)) for sim in sims])[fleet.kind]

        below = np.array([np.nan if sim.below_level is None else sim.below_level for sim in sims])[fleet.kind]
        own = _draw(scenario.seed, 4, fleet.number)
        base = np.where(np.isnan(fleet.level_blue - below), column("base"), fleet.level_blue - below)
        self._low = np.fmax(column("low"), fleet.range_min)
        self._high = np.fmin(column("high"), fleet.range_max)
        self._calm = base + column("spread") * (2 * own - 1)
        self._daily = column("daily")
        self._daily_peak_h = column("daily_peak_h")
        self._noise = column("noise")
        self._noise_table = np.random.default_rng((scenario.seed, 5)).standard_normal(
            len(fleet) + NOISE_STARTS
        )
        peak = np.where(np.array([sim.storm is not None for sim in sims])[fleet.kind], column("peak"), 0.0)
        self._top = np.fmin(np.maximum(self._high, self._calm + np.abs(self._daily) + peak), fleet.range_max)
        self.decimals: U8 = column("decimals").astype(np.uint8)
        self._scale: F64 = np.power(10.0, self.decimals)
        self.whole_width: U8 = _whole_width(fleet.kind, self._low, self._top)
        self._wet = self._wet_rows(fleet, sims, own, box)
        sticks = scenario.stuck(fleet.number) if stuck is None else np.isin(fleet.number, stuck)
        self._stuck = np.flatnonzero(sticks)
        self._stuck_step = int(np.ceil(STUCK_FROM * scenario.seconds * hz))
        self._stuck_at: I64 = np.empty(0, np.int64)
        if len(self._stuck):
            self._stuck_at = self._moving(self._stuck_step, ALL)[self._stuck]

    def _wet_rows(
        self, fleet: Fleet, sims: list[KindSim], own: F64, box: tuple[float, float, float, float]
    ) -> list[_Wet]:
        if not self._scenario.rains:
            return []
        wet = []
        for form in sorted({sim.storm for sim in sims if sim.storm is not None}):
            of_form = np.array([sim.storm == form for sim in sims])
            rows = np.flatnonzero(of_form[fleet.kind])
            storm = Storm(self._scenario.seed, fleet.lon[rows], fleet.lat[rows], fleet.hops[rows], box)
            peak = np.array([sim.peak - (sim.base if form == "waterlogging" else 0.0) for sim in sims])[
                fleet.kind
            ][rows]
            wet.append(_Wet(form, rows, storm, peak if form == "rain" else peak * own[rows] ** OWN_POWER))
        return wet

    def at(self, step: int, rows: slice = ALL) -> F64:
        """float64 values of the rows at a step: the nearest double of the decimal text that is sent."""
        return np.asarray(self.quantised(step, rows) / self._scale[rows])

    def quantised(self, step: int, rows: slice = ALL) -> I64:
        """int64: the values in units of 10 ** -decimals. The same whatever slice is asked."""
        quantised = self._moving(step, rows)
        if len(self._stuck) and step >= self._stuck_step:
            begin, end, _ = rows.indices(len(self._calm))
            first, last = np.searchsorted(self._stuck, (begin, end))
            quantised[self._stuck[first:last] - begin] = self._stuck_at[first:last]
        return quantised

    def floats(self, quantised: I64, rows: slice = ALL) -> F64:
        """The float64 values of what ``quantised`` gave for the same rows."""
        return np.asarray(quantised / self._scale[rows])

    def _moving(self, step: int, rows: slice) -> I64:
        begin, end, _ = rows.indices(len(self._calm))
        hour = START_HOUR + step / self._hz / 3600
        noise_at = (step * 40_503 + 11) % NOISE_STARTS + begin
        value = self._noise_table[noise_at : noise_at + end - begin] * self._noise[rows]
        value += self._daily[rows] * np.cos((hour - self._daily_peak_h[rows]) * (np.pi / 12))
        value += self._calm[rows]
        np.clip(value, self._low[rows], self._high[rows], out=value)
        for wet in self._wet:
            first, last = np.searchsorted(wet.rows, (begin, end))
            self._rain_on(value, wet, slice(int(first), int(last)), begin, step)
        np.clip(value, self._low[rows], self._top[rows], out=value)
        return np.rint(value * self._scale[rows]).astype(np.int64)

    def _rain_on(self, value: F64, wet: _Wet, part: slice, begin: int, step: int) -> None:
        rows = wet.rows[part] - begin
        share = self._scenario.share(step, self._hz)
        peak = wet.peak[part]
        if wet.form == "rain":
            before = wet.storm.fallen(self._scenario.share(step - 1, self._hz), part)
            value[rows] = self._tips(
                peak, wet.storm.fallen(share, part), before, wet.storm, self._scale[wet.rows[part]]
            )
        elif wet.form == "rain_1h":
            value[rows] += peak * wet.storm.fallen_in_hour(share, part)
        else:
            value[rows] += peak * wet.storm.water(wet.form, share, part)

    def _tips(self, peak: F64, now: F64, before: F64, storm: Storm, scale: F64) -> F64:
        """Rain since the previous reading in mm, as a tipping bucket gives it: whole tips, none lost."""
        whole_mm = peak / 3600 * self._scenario.seconds * storm.pass_share
        return np.asarray((np.floor(whole_mm * now * scale) - np.floor(whole_mm * before * scale)) / scale)


def _draw(seed: int, purpose: int, number: I32) -> F64:
    """One uniform draw a point, by registry number: the same point draws the same in every process."""
    if not len(number):
        return np.empty(0)
    return np.asarray(np.random.default_rng((seed, purpose)).random(int(number.max()) + 1)[number])


def _whole_width(kind: I32, low: F64, top: F64) -> U8:
    """Characters before the decimal point, the same for all points of a kind: fewer shapes of message."""
    width = np.ones(int(kind.max()) + 1 if len(kind) else 0, np.uint8)
    for code in range(len(width)):
        rows = kind == code
        if rows.any():
            digits = len(str(int(max(abs(low[rows].min()), abs(top[rows].max())) + 1)))
            width[code] = digits + (1 if low[rows].min() < 0 else 0)
    return width[kind]
