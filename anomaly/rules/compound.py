"""Compound signs: rain and rising levels and waterlogging in one area at once, as the config spells them out.

Owns the counting of points that bear each sign, and of events near them. What a sign is belongs to the rule it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from anomaly.checks.rows import F64, Bool, Index
from anomaly.rules.areal import MEMBERS_MAX, gauges
from anomaly.rules.base import Condition, TickRule, TickView
from anomaly.rules.outlook import now_rising
from anomaly.rules.parts import of_kinds, rule_settings
from anomaly.rules.rain import sums_at
from anomaly.rules.settings import CompoundSettings, Need
from storage.batch import US_PER_S

RAIN_SUM: Final = "rain_sum"
RISING: Final = "rising"
KM_PER_DEGREE: Final = 111.195
"""Of a great circle: 6,371 km · π / 180."""
QUIET_US: Final = 900_000_000
"""A point that expects no reading sooner counts with its last one for this long."""
MEMBERS_AT_ONCE: Final = 256
"""Whose distances to all events stand in memory together."""
EVENTS_ZH: Final = {"appeal": "诉求", "video_alarm": "视频告警", "finding": "隐患", "inspection": "检查"}
CATEGORIES_ZH: Final = {"waterlogging": "积水"}
_NOBODY: Final = np.empty(0, np.intp)
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
        signs = [_counted(view, need) if need.event else _sign(view, need) for need in rule.needs]
        for area in _areas(view, rule):
            condition = _stands(view, rule, signs, area)
            if condition is not None:
                found.append(condition)
    return found


def _stands(view: TickView, rule: CompoundSettings, signs: list[Bool], area: _Area) -> Condition | None:
    of_points = [
        (need, sign & area.points) for need, sign in zip(rule.needs, signs, strict=True) if not need.event
    ]
    if any(int(sign.sum()) < need.points for need, sign in of_points):
        return None
    members = np.flatnonzero(np.logical_or.reduce([sign for _, sign in of_points])) if of_points else _NOBODY
    words = {id(need): (_zh(need, n := int(sign.sum())), _en(need, n)) for need, sign in of_points}
    for need, sign in zip(rule.needs, signs, strict=True):
        if not need.event:
            continue
        count = int((sign & area.events).sum())
        if need.km:
            count, members = _near(view, sign, need.km, members)
        if count < need.count:
            return None
        words[id(need)] = _events_zh(need, count), _events_en(need, count)
    said = [words[id(need)] for need in rule.needs]
    return Condition(
        f"{rule.name} · {area.name}",
        rule.severity,
        float(len(members)),
        float(sum(need.points for need, _ in of_points)),
        tuple(members[:MEMBERS_MAX].tolist()),
        ",".join(zh for zh, _ in said),
        ", ".join(en for _, en in said),
    )


def _counted(view: TickView, need: Need) -> Bool:
    """Events that a need may count now, bool[heard]."""
    heard = view.heard
    of_kind = [
        type_ == need.event and (not need.category or category == need.category)
        for type_, category in zip(heard.type, heard.category, strict=True)
    ]
    counted: Bool = np.array(of_kind, np.bool_) & (heard.at > view.now_us - round(need.within_s * US_PER_S))
    return counted


def _near(view: TickView, counted: Bool, km: float, members: Index) -> tuple[int, Index]:
    """(events around the one member that has most of them, members with those first that have many).

    In the area or not: water knows no district.
    """
    at = np.flatnonzero(counted & ~np.isnan(view.heard.lon))
    around = np.zeros(len(members), np.int64)
    for begin in range(0, len(members), MEMBERS_AT_ONCE):
        part = members[begin : begin + MEMBERS_AT_ONCE]
        lon, lat = view.points.lon[part][:, None], view.points.lat[part][:, None]
        near = _km(lon, lat, view.heard.lon[at], view.heard.lat[at]) <= km
        around[begin : begin + MEMBERS_AT_ONCE] = near.sum(axis=1)
    return int(around.max(initial=0)), members[np.argsort(-around, kind="stable")]


def _km(lon: F64 | float, lat: F64 | float, to_lon: F64, to_lat: F64) -> F64:
    """On a piece of the globe the size of a city."""
    east = (to_lon - lon) * np.cos(np.radians(lat)) * KM_PER_DEGREE
    km: F64 = np.hypot(east, (to_lat - lat) * KM_PER_DEGREE)
    return km


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


@dataclass(frozen=True, slots=True)
class _Area:
    """points bool[points], events bool[heard]: what lies in it."""

    name: str
    points: Bool
    events: Bool


def _areas(view: TickView, rule: CompoundSettings) -> Iterator[_Area]:
    points, heard = view.points, view.heard
    if rule.area == "circle":
        lon, lat, km = rule.circle
        inside = _km(lon, lat, points.lon, points.lat) <= km
        yield _Area(f"{lon:.3f},{lat:.3f}", inside, _km(lon, lat, heard.lon, heard.lat) <= km)
        return
    named = np.array([not rule.districts or name in rule.districts for name in points.districts], np.bool_)
    if rule.area == "city":
        counted = [not rule.districts or name in rule.districts for name in heard.district]
        yield _Area("全市", named[points.district], np.array(counted, np.bool_))
        return
    for code in np.flatnonzero(named).tolist():
        name = points.districts[code]
        counted = [one == name for one in heard.district]
        yield _Area(name, points.district == code, np.array(counted, np.bool_))


def _zh(need: Need, count: int) -> str:
    what = NAMES_ZH.get(need.rule, need.rule)
    if need.rule == RAIN_SUM:
        what = f"{need.hours} 小时雨量 ≥ {need.mm:g} 毫米"
    return f"{count} 处{what}"


def _en(need: Need, count: int) -> str:
    what = need.rule if need.rule != RAIN_SUM else f"at {need.mm:g} mm in {need.hours} h"
    return f"{count} points {what}"


def _events_zh(need: Need, count: int) -> str:
    what = CATEGORIES_ZH.get(need.category, need.category) + EVENTS_ZH.get(need.event, need.event)
    where = f"{need.km:g} 公里内" if need.km else ""
    return f"{where}{need.within_s / 60:g} 分钟内 {count} 件{what}"


def _events_en(need: Need, count: int) -> str:
    kind = f"{need.category} {need.event}".strip().replace("_", " ")
    where = f" within {need.km:g} km" if need.km else ""
    return f"{count} {kind}s in {need.within_s / 60:g} min{where}"


RULES = (TickRule("compound", compound, title_zh="多要素复合", title_en="several signs at once"),)
