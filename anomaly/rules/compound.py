"""Compound signs: rain and rising levels and waterlogging in one area at once, as the config spells them out.

Owns the counting of points that bear each sign. What a sign is belongs to the rule it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from anomaly.checks.rows import Bool
from anomaly.rules.areal import MEMBERS_MAX, gauges
from anomaly.rules.base import Condition, TickRule, TickView
from anomaly.rules.outlook import now_rising
from anomaly.rules.parts import of_kinds, rule_settings
from anomaly.rules.rain import sums_at
from anomaly.rules.settings import CompoundSettings, Need

RAIN_SUM: Final = "rain_sum"
RISING: Final = "rising"
KM_PER_DEGREE: Final = 111.195
"""Of a great circle: 6,371 km · π / 180."""
QUIET_US: Final = 900_000_000
"""A point that expects no reading sooner counts with its last one for this long."""
NAMES_ZH: Final = {
    "level": "超限",
    RAIN_SUM: "累计雨量",
    RISING: "水位上涨",
    "rise": "临近水位",
    "rain": "暴雨",
}


def compound(view: TickView) -> list[Condition]:
    """Areas in which all needs of a rule hold; subject "name · area"."""
    found = []
    for rule in rule_settings(view.rules).compound:
        signs = [_sign(view, need) for need in rule.needs]
        for area, inside in _areas(view, rule):
            counts = [int((sign & inside).sum()) for sign in signs]
            if any(count < need.points for count, need in zip(counts, rule.needs, strict=True)):
                continue
            members = np.flatnonzero(np.logical_or.reduce(signs) & inside)
            zh = ",".join(_zh(need, count) for need, count in zip(rule.needs, counts, strict=True))
            en = ", ".join(_en(need, count) for need, count in zip(rule.needs, counts, strict=True))
            found.append(
                Condition(
                    f"{rule.name} · {area}",
                    rule.severity,
                    float(len(members)),
                    float(sum(need.points for need in rule.needs)),
                    tuple(members[:MEMBERS_MAX].tolist()),
                    zh,
                    en,
                )
            )
    return found


def _sign(view: TickView, need: Need) -> Bool:
    """Points that bear a sign now, bool[points]. Raises KeyError for a rule that is none."""
    n = len(view.points)
    sign = np.zeros(n, np.bool_)
    if need.rule == RAIN_SUM:
        points, _ = gauges(view)
        own = view.state["rain_gauge_place"][points]
        total, last, two = sums_at(view.now_us, view.state, (need.hours, 1, 2))[:, own]
        sign[points] = (total >= need.mm) & ((2 * last > two) if need.growing else True)
    elif need.rule == RISING:
        points, _, slope = now_rising(view)
        sign[points] = slope > 0
    else:
        heard = view.state["last_t"][:n] >= view.now_us - np.maximum(view.limits["silence_us"], QUIET_US)
        sign = (view.levels[need.rule][:n] >= need.severity) & heard
    return sign & of_kinds(view.points, need.kinds) if need.kinds else sign


def _areas(view: TickView, rule: CompoundSettings) -> Iterator[tuple[str, Bool]]:
    points = view.points
    if rule.area == "circle":
        lon, lat, km = rule.circle
        east = (points.lon - lon) * np.cos(np.radians(lat)) * KM_PER_DEGREE
        yield f"{lon:.3f},{lat:.3f}", np.hypot(east, (points.lat - lat) * KM_PER_DEGREE) <= km
        return
    named = np.array([not rule.districts or name in rule.districts for name in points.districts], np.bool_)
    if rule.area == "city":
        yield "全市", named[points.district]
        return
    for code in np.flatnonzero(named).tolist():
        yield points.districts[code], points.district == code


def _zh(need: Need, count: int) -> str:
    what = NAMES_ZH.get(need.rule, need.rule)
    if need.rule == RAIN_SUM:
        what = f"{need.hours} 小时雨量 ≥ {need.mm:g} 毫米"
    return f"{count} 处{what}"


def _en(need: Need, count: int) -> str:
    what = need.rule if need.rule != RAIN_SUM else f"at {need.mm:g} mm in {need.hours} h"
    return f"{count} points {what}"


RULES = (TickRule("compound", compound, title_zh="多要素复合", title_en="several signs at once"),)
