"""Air: the index of each pollutant's hourly mean, and the air quality index of a station with its primary pollutant.

Owns hourly means and the arithmetic of IAQI. The tables changed on 2026-03-01: which holds is decided by the hour's
day in the city's time. A station alerts as a whole; a point that stands alone alerts by its own index.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, I64, Arrays, Rows
from anomaly.rules.base import Assessed, RowRule
from anomaly.rules.blocks import NO_BLOCK, PER_UNIT, VALUE_MAX, block_fields, goes_on, said_again, settled
from anomaly.rules.parts import latched, local, nothing, of_kinds, part_of, rule_settings, spread, stations
from anomaly.rules.tables import entries
from storage.points import PointTable

HOUR_US: Final = 3_600_000_000
DAY_HOURS: Final = 24
GAP: Final = 5.0
"""A step of the index is left this much below it."""
STALE_HOURS: Final = 2
POLLUTANTS: Final = ("pm25", "pm10", "so2", "no2", "co", "o3")
NAMES: Final = {"pm25": "PM2.5", "pm10": "PM10", "so2": "SO2", "no2": "NO2", "co": "CO", "o3": "O3"}
INDEX: Final = np.array(entries("air", "index")[0]["iaqi"], np.float64)
_EPOCH: Final = date(1970, 1, 1)
_EVER: Final = 1 << 40


@cache
def _knots(hours: int) -> tuple[tuple[int, int, str, tuple[float, ...]], ...]:
    """(first day since 1970, last day, pollutant, concentrations); hours 1 takes the 24 h table of PM."""
    found = []
    for entry in entries("air", "iaqi"):
        wanted = 24 if entry["pollutant"].startswith("pm") else hours
        if entry["hours"] == wanted:
            begin = (entry.effective_from - _EPOCH).days if entry.effective_from else -_EVER
            end = (entry.effective_to - _EPOCH).days if entry.effective_to else _EVER
            found.append((begin, end, entry["pollutant"], tuple(entry["knots"])))
    return tuple(found)


def iaqi(pollutant: str, mean: F64, day: I64, hours: int = 1) -> F64:
    """Individual index of means over ``hours``, rounded up, float64[m]; NaN for NaN.

    mean  µg/m³, CO mg/m³
    day   int64[m]: days since 1970 in the city's time

    >>> iaqi("pm25", np.array([60.0, 60.0]), np.array([20_512, 20_513])).tolist()
    [82.0, 100.0]
    """
    found = np.full(len(mean), np.nan)
    for begin, end, name, knots in _knots(hours):
        if name == pollutant:
            holds = (day >= begin) & (day <= end)
            index = np.interp(mean[holds], knots, INDEX[: len(knots)])
            # Rounded up, but not for the last bit of a division.
            found[holds] = np.ceil(np.round(index, 6))
    return found


def _settings(
    points: PointTable, kinds: Mapping[str, Any], rules: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """air_point bool[points]; air_pollutant int8[points], -1 none; air_levels float64[4]; air_station int32[points], -1
    none; air_alone bool[points]: no other pollutant is measured by its device, so it alerts by itself.
    """
    settings = rule_settings(rules).air
    named = [settings.pollutants.get(name) for name in points.kinds] or [None]
    code = np.array([POLLUTANTS.index(name) if name else -1 for name in named], np.int8)[points.kind]
    measures = of_kinds(points, settings.pollutants)
    station = stations(points, measures)
    return {
        "air_point": measures,
        "air_pollutant": code,
        "air_station": station,
        "air_alone": measures & (station < 0),
        "air_levels": np.array(settings.levels),
    }


def air(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """The step of the newest complete hour's index, for points without a station; the index; the step's bound.

    The index of an hour is known by the first reading after it.
    """
    part = part_of(rows, limits["air_point"])
    if part is None:
        return nothing(len(rows))
    hour = local(rows, part) // HOUR_US
    amount = np.rint(np.clip(part.value, 0.0, VALUE_MAX) * PER_UNIT).astype(np.int64)
    place = state["air_point_place"][part.points]
    said = said_again(part, hour, amount, state, "air", place)
    if said is None:
        mean = settled(part, hour, amount, state, "air", place)
        index = indices(part.each(limits["air_pollutant"]), mean.sum, mean.count, mean.block)
        index[mean.block < hour - STALE_HOURS] = np.nan
        levels = limits["air_levels"]
        enter = (index[:, None] > levels).sum(axis=1).astype(np.uint8)
        stay = (index[:, None] + GAP > levels).sum(axis=1).astype(np.uint8)
        classes = latched(enter, stay, state["air_latch"][place], part)
        said = classes, index, np.where(np.isnan(index), np.nan, levels[np.maximum(classes, 1) - 1])
        mean.keep(state, "air", *said)
    told = np.where(part.each(limits["air_alone"]), said[0], np.uint8(0))
    return spread(len(rows), part, told, *said[1:])


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> Assessed | None:
    said = goes_on(rows, limits["air_point"], HOUR_US, state, "air", state["air_point_place"])
    if said is None or not said.classes.any():
        return said
    told = np.where(limits["air_alone"][rows.point], said.classes, np.uint8(0))
    return Assessed(told, said.value, said.limit)


def indices(pollutant: npt.NDArray[np.int8], total: I64, count: I64, hour: I64) -> F64:
    """The index of each hour's mean, float64[m]; NaN where nothing was read."""
    found = np.full(len(total), np.nan)
    known = (count > 0) & (hour != NO_BLOCK)
    mean = np.where(known, total, 0) / np.maximum(count, 1) / PER_UNIT
    for code, name in enumerate(POLLUTANTS):
        own = np.flatnonzero(known & (pollutant == code))
        if len(own):
            found[own] = iaqi(name, mean[own], hour[own] // DAY_HOURS)
    return found


RULES = (
    RowRule(
        "air",
        _settings,
        air,
        block_fields("air", "air_point"),
        title_zh="空气质量分指数(小时)",
        title_en="air quality index, hourly",
        loop=_loop,
        of="air_point",
    ),
)
