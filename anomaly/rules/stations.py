"""Stations: what several points of one device say together, once a TICK: air quality index, class of a section.

Owns the choice of the worst of a station's points. Which step each point stands in is the business of air and water.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from anomaly.rules.air import NAMES, POLLUTANTS, STALE_HOURS, indices
from anomaly.rules.base import Condition, TickRule, TickView
from anomaly.rules.parts import rule_settings, worst_of
from anomaly.rules.tables import entries
from anomaly.rules.water import CLASS_NAMES, water_class

PRIMARY_ABOVE: Final = entries("air", "index")[0]["primary_above"]
STALE_INTERVALS: Final = 3
"""A member that missed this many of its intervals takes no part: a dead sensor holds no station in its last state."""
INDICATOR_ZH: Final = {entry["name"]: entry["zh"] for entry in entries("water", "indicator")}


def word_of(aqi: float) -> str:
    """优 … 严重污染.

    >>> word_of(101)
    '轻度污染'
    """
    index = entries("air", "index")[0]
    return str(index["zh"][int(np.searchsorted(index["upper"], min(aqi, index["upper"][-1])))])


def aqi(view: TickView) -> list[Condition]:
    """Stations whose greatest index stands above a step, with the pollutants that are primary."""
    station, place = view.limits["air_station"], view.state["air_point_place"][: len(view.points)]
    members = np.flatnonzero((station >= 0) & (place >= 0))
    if not len(members):
        return []
    at, pollutant = place[members], view.limits["air_pollutant"][members]
    hour, total, count = (view.state[f"air_over_{kept}"][at] for kept in ("block", "sum", "count"))
    index = indices(pollutant, total, count, hour)
    index[hour < hour.max() - STALE_HOURS] = np.nan
    levels = view.limits["air_levels"]
    top = worst_of(station, members, index)
    found = []
    for code in np.flatnonzero(top > levels[0]).tolist():
        own = np.flatnonzero((station[members] == code) & ~np.isnan(index))
        own = own[np.argsort(-index[own], kind="stable")]
        names = [
            NAMES[POLLUTANTS[pollutant[i]]] for i in own.tolist() if index[i] == top[code] > PRIMARY_ABOVE
        ]
        severity = int((top[code] > levels).sum())
        found.append(
            Condition(
                view.points.point_id[int(np.argmax(station == code))],
                severity,
                float(top[code]),
                float(levels[severity - 1]),
                tuple(members[own].tolist()),
                f"{word_of(top[code])},首要污染物 {'、'.join(names)}",
                f"primary pollutant {', '.join(names)}",
            )
        )
    return found


def section(view: TickView) -> list[Condition]:
    """Sections of a river that stand in a worse class than their target, with the indicators that put them there."""
    station, place = view.limits["water_station"], view.state["water_point_place"][: len(view.points)]
    members = np.flatnonzero((station >= 0) & (place >= 0))
    patience = STALE_INTERVALS * view.points.interval_s[members] * 1e6
    steps = view.state["water_latch"][place[members]].astype(np.float64)
    steps[(patience > 0) & (view.state["last_t"][members] < view.now_us - patience)] = 0.0
    top = worst_of(station, members, steps)
    indicators = rule_settings(view.rules).water.indicators
    found = []
    for code in np.flatnonzero(top > 0).tolist():
        worst = members[(station[members] == code) & (steps == top[code])]
        kind = view.limits["water_kind"][worst]
        least, greatest = view.limits["water_least"][:, kind], view.limits["water_greatest"][:, kind]
        stands = int(water_class(view.state["believed_v"][worst], least, greatest).max())
        target = int(view.limits["water_target"][worst[0]])
        names = [view.points.kinds[one] for one in kind.tolist()]
        titles = "、".join(INDICATOR_ZH[indicators[name]] for name in names)
        found.append(
            Condition(
                view.points.point_id[int(np.argmax(station == code))],
                int(top[code]),
                float(stands),
                float(target),
                tuple(worst.tolist()),
                f"{CLASS_NAMES[stands - 1]}类(目标{CLASS_NAMES[target - 1]}类),定类指标 {titles}",
                f"class {CLASS_NAMES[stands - 1]} (target {CLASS_NAMES[target - 1]}), by {', '.join(names)}",
            )
        )
    return found


RULES = (
    TickRule("aqi", aqi, every_s=60, title_zh="空气质量指数(实时)", title_en="air quality index, hourly"),
    TickRule("section", section, every_s=60, title_zh="断面水质类别", title_en="water class of a section"),
)
