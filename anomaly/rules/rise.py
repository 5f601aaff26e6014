"""Rise: in how many minutes a rising level reaches its next limit.

Owns the slope of each level, which is the lesser of its rises over the last 3 and 10 minutes: one high reading, or
a rise that is over, does not count. Of 14 slopes tried on recorded street floods this one came first at equal
precision (bench/detection_floods.py). Levels already reached are the business of the check "level".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, I64, U8, Arrays, Bool, Field, Index, Rows
from anomaly.rules.base import Assessed, RowRule
from anomaly.rules.parts import I32, LEVELS, latched, nothing, of_kinds, part_of, rule_settings, spread
from anomaly.rules.rings import NO_SPAN, Spans, spans
from anomaly.rules.travel import FIELDS, keep, linked
from storage.fast import compiled, unsigned
from storage.points import PointTable

SPAN_US: Final = 60_000_000
BACK: Final = (3, 10)
"""Minutes. Of each the first reading is kept, so these are at least 3 and 10 minutes old."""
SPANS: Final = 11
STAY: Final = 2.0
"""An expectation is dropped once it lies this many times beyond its horizon: slopes swing from minute to minute."""


def _settings(
    points: PointTable, kinds: Mapping[str, Any], rules: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """rise_point bool[points]; rise_from float64[points]: no level is in sight below it, falling levels negated;
    rise_minutes float64[4]; rise_share float64[1]; rise_sign float64[points]: few minutes are worse than many;
    travel_point bool[points]: joined to another by `upstream`.
    """
    settings = rule_settings(rules).rise
    level = points.level * np.where(points.falling, -1.0, 1.0)
    lowest = np.fmin.reduce(level, axis=0)
    measures = of_kinds(points, settings.kinds) & ~np.isnan(lowest)
    return {
        "rise_point": measures,
        "travel_point": linked(points, measures),
        "rise_from": np.where(lowest > 0, lowest * settings.share, -np.inf),
        "rise_minutes": np.array(settings.minutes),
        "rise_share": np.array([settings.share]),
        "rise_sign": np.full(len(points), -1.0),
    }


def rise(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """The highest level expected within its horizon; the minutes until then; that level.

    In class 0 the minutes are those to the next level; NaN where the level does not rise or nothing is known.
    """
    part = part_of(rows, limits["rise_point"])
    if part is None:
        return nothing(len(rows))
    at = spans(part, part.time // SPAN_US, state["rise_span"], state["rise_point_place"])
    sign = part.each(limits["sign"])
    value = (part.value * sign).astype(np.float32)
    near = np.flatnonzero(value >= part.each(limits["rise_from"]))
    latch = state["rise_latch"][at.place]
    calm = not len(near) and not latch.any()
    found = None
    if not (calm and at.steady):
        second = (part.time // 1_000_000).astype(np.uint32)
        heads = at.heads(state["rise_value"], value), at.heads(state["rise_second"], second)
        if not calm:
            enter, stay = np.zeros(len(value), np.uint8), np.zeros(len(value), np.uint8)
            up, slope = _rising(at, near, (value, second), heads, state)
            points = part.points.take(part.group[up])
            enter[up], stay[up], minutes, limit = _expected(value[up], slope, points, limits)
            classes = latched(enter, stay, latch, part)
            if latch.any() or classes.any():
                state["rise_latch"][at.place] = classes[part.last]
            found = spread(len(rows), part, classes, minutes, limit * sign[up], up)
        at.keep(state["rise_value"], heads[0])
        at.keep(state["rise_second"], heads[1])
        at.advance(state["rise_span"])
    keep(rows, limits, state)
    return nothing(len(rows)) if found is None else found


F32 = npt.NDArray[np.float32]
Seconds = npt.NDArray[np.uint32]


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    n = len(rows)
    found = Assessed(np.zeros(n, np.uint8), np.full(n, np.nan), np.full(n, np.nan))
    of_points = "rise_point", "sign", "rise_from", "level", "rise_minutes"
    kept = "rise_point_place", "rise_value", "rise_second", "rise_span", "rise_latch"
    met = _each(
        rows.point,
        rows.time,
        rows.value,
        *(limits[name] for name in of_points),
        float(limits["rise_share"][0]),
        *(state[name] for name in kept),
        found.classes,
        found.value,
        found.limit,
    )
    keep(rows, limits, state)
    return found if met else nothing(n)


@compiled
def _each(
    point: Index,
    time: I64,
    value: F64,
    mask: Bool,
    sign: F64,
    start: F64,
    levels: F64,
    horizons: F64,
    share: float,
    place: I32,
    ring: F32,
    ring_second: Seconds,
    newest: I64,
    latch: U8,
    classes: U8,
    said: F64,
    said_limit: F64,
) -> int:
    met = 0
    for i in range(len(point)):
        p = unsigned(point[i])
        if not mask[p]:
            continue
        met += 1
        at = unsigned(place[p])
        now, second, span = np.float32(value[i] * sign[p]), time[i] // 1_000_000, time[i] // SPAN_US
        was = newest[at]
        if span != was:
            if was != NO_SPAN:
                # Minutes without a reading take that of the minute before them, as far back as the ring goes.
                kept = unsigned(was % SPANS)
                for b in range(max(was + 1, span - SPANS + 1), span):
                    skipped = unsigned(b % SPANS)
                    ring[skipped, at], ring_second[skipped, at] = ring[kept, at], ring_second[kept, at]
            slot = unsigned(span % SPANS)
            ring[slot, at], ring_second[slot, at] = now, second
            newest[at] = span
        enter, stay = 0, 0
        if now >= start[p]:
            slope = np.inf
            for back in BACK:
                slot = unsigned((span - back) % SPANS)
                older = ring[slot, at]
                if not now > older:
                    slope = np.nan
                    break
                minutes = (second - np.int64(ring_second[slot, at])) / 60.0
                slope = min(slope, (np.float64(now) - np.float64(older)) / minutes)
            if slope == slope:
                for k in range(LEVELS):
                    level = levels[k, p]
                    left = (level - np.float64(now)) / slope
                    if not (left > 0 and (level <= 0 or now >= share * level)):
                        continue
                    within = left <= horizons[k]
                    if within:
                        enter = k + 1
                    if left <= STAY * horizons[k]:
                        stay = k + 1
                    if within or said[i] != said[i]:
                        said[i], said_limit[i] = left, level * sign[p]
        held = max(enter, min(latch[at], stay))
        classes[i] = held
        latch[at] = held
    return met


def _rising(
    at: Spans, near: Index, now: tuple[F32, Seconds], heads: tuple[F32, Seconds], state: Arrays
) -> tuple[Index, F64]:
    """Which of the rows ``near`` rise, and by how much a minute, float64; not those too new to be known.

    now, heads  value and second of every row, and at the first row of its span
    """
    up, slope = near, np.full(len(near), np.inf)
    for back in BACK:
        was = at.before(state["rise_value"], heads[0], back, up)
        # The lesser slope counts, so a row that does not rise over one of them is through; time always passed.
        higher = now[0][up] > was
        up, slope, was = up[higher], slope[higher], was[higher]
        when = at.before(state["rise_second"], heads[1], back, up)
        minutes = (now[1][up].astype(np.int64) - when) / 60.0
        slope = np.minimum(slope, (now[0][up].astype(np.float64) - was) / minutes)
    return up, slope


def _expected(
    value: F32, slope: F64, points: npt.NDArray[np.signedinteger[Any]], limits: Arrays
) -> tuple[U8, U8, F64, F64]:
    """Class entered, class kept, minutes and level, of rows that rise and stand high enough for some level.

    The minutes are those to the highest level within its horizon, else to the next one.
    """
    level = limits["level"][:, points]
    left = (level - value) / slope
    ahead = (left > 0) & (value >= np.where(level > 0, limits["rise_share"][0] * level, -np.inf))
    horizons = limits["rise_minutes"][:, None]
    enter = ((ahead & (left <= horizons)) * _CLASSES).max(axis=0)
    stay = ((ahead & (left <= STAY * horizons)) * _CLASSES).max(axis=0)
    which = np.where(enter > 0, enter - np.uint8(1), ahead.argmax(axis=0)), np.arange(len(points))
    known = ahead[which]
    return enter, stay, np.where(known, left[which], np.nan), np.where(known, level[which], np.nan)


_CLASSES: Final = np.arange(1, LEVELS + 1, dtype=np.uint8)[:, None]
RULES = (
    RowRule(
        "rise",
        _settings,
        rise,
        (
            Field("rise_value", "f4", np.nan, (SPANS,), of="rise_point"),
            Field("rise_second", "u4", 0, (SPANS,), of="rise_point"),
            Field("rise_span", "i8", NO_SPAN, of="rise_point"),
            Field("rise_latch", "u1", 0, of="rise_point"),
            *FIELDS,
        ),
        unit="min",
        title_zh="距下一级水位时间",
        title_en="time to the next level",
        loop=_loop,
        of="rise_point",
    ),
)
