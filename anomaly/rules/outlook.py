"""Outlook: where rising levels will stand in 10, 30 and 60 minutes, by their own slope and by what comes from upstream.

Owns the forecasts of levels. They are stored beside the readings and call nobody; the rule "rise" does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, Index
from anomaly.rules.base import Condition, Forecast, TickRule, TickView
from anomaly.rules.rise import BACK, SPANS
from anomaly.rules.travel import SPAN_US as TRAVEL_US
from anomaly.rules.travel import course, follow

AHEAD_MIN: Final = (10, 30, 60)
FADE_MIN: Final = 10.0
"""A slope fades to 1/e in this time: of four tried the best on recorded street floods (bench/detection_floods.py)."""
FRESH_US: Final = 900_000_000
"""Of an older reading nothing is foretold."""
LINKS_MAX: Final = 16
"""Courses compared at one TICK, steepest upstream first; each costs about 3 ms."""
MINUTE_US: Final = 60_000_000


def now_rising(view: TickView) -> tuple[Index, F64, F64]:
    """Points with a fresh level that rises: numbers, values as told (falling ones negated), slopes a minute."""
    place = view.state["rise_point_place"][: len(view.points)]
    points = np.flatnonzero((place >= 0) & view.limits["rise_point"])
    points = points[view.state["last_t"][points] >= view.now_us - FRESH_US]
    at = place[points]
    newest = view.state["rise_span"][at]
    value = view.state["believed_v"][points] * view.limits["sign"][points]
    second = view.state["believed_t"][points] // 1_000_000
    slope = np.full(len(points), np.inf)
    for back in BACK:
        slot = (newest - back) % SPANS
        minutes = (second - view.state["rise_second"][slot, at].astype(np.int64)) / 60.0
        rise = value - view.state["rise_value"][slot, at]
        slope = np.minimum(slope, np.where(minutes > 0, rise / np.where(minutes > 0, minutes, 1.0), np.nan))
    rising = slope > 0
    return points[rising], value[rising], slope[rising]


def by_slope(view: TickView) -> list[Forecast]:
    """Each rising level that is high enough for the rule "rise" to look at it."""
    points, value, slope = now_rising(view)
    high = value >= view.limits["rise_from"][points]
    found: list[Forecast] = []
    for point, now, speed in zip(
        points[high].tolist(), value[high].tolist(), slope[high].tolist(), strict=True
    ):
        sign = float(view.limits["sign"][point])
        limit = _next(view.limits["level"][:, point], now)
        eta_s = (limit - now) / speed * 60.0
        for minutes in AHEAD_MIN:
            ahead = now + speed * FADE_MIN * (1.0 - float(np.exp(-minutes / FADE_MIN)))
            at = view.now_us + minutes * MINUTE_US
            found.append(Forecast(point, view.now_us, at, ahead * sign, "slope", limit * sign, eta_s))
    return found


def by_upstream(view: TickView) -> list[Forecast]:
    """Points whose upstream point rises and has been followed by them before."""
    points, _, slope = now_rising(view)
    place = view.state["travel_point_place"][: len(view.points)]
    steep = dict(zip(points.tolist(), slope.tolist(), strict=True))
    upper = view.points.upstream
    below = np.flatnonzero((place >= 0) & (upper >= 0))
    pairs = [
        (steep[up], down, up)
        for down in below.tolist()
        if (up := int(upper[down])) in steep and place[up] >= 0
    ]
    found: list[Forecast] = []
    for _, down, up in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:LINKS_MAX]:
        newest = int(min(view.state["travel_span"][place[down]], view.state["travel_span"][place[up]]))
        x, y = course(view.state, int(place[up]), newest), course(view.state, int(place[down]), newest)
        link = follow(x, y)
        if link is None or link.lag == 0:
            continue
        # What passed the upper point in the last `lag` spans is still on its way.
        coming = y[-1] + link.gain * (x[len(x) - link.lag :] - x[len(x) - link.lag - 1])
        found += _on_its_way(view, down, coming)
    return found


def _on_its_way(view: TickView, point: int, coming: F64) -> list[Forecast]:
    """``coming`` float64[lag]: the level expected 5, 10, 15 … minutes from now."""
    sign = float(view.limits["sign"][point])
    limit = _next(view.limits["level"][:, point], float(view.state["believed_v"][point]) * sign)
    reached = np.flatnonzero(coming * sign >= limit)
    eta_s = (float(reached[0]) + 1) * TRAVEL_US / 1e6 if len(reached) else float("nan")
    found = []
    for minutes in (*AHEAD_MIN, len(coming) * TRAVEL_US // MINUTE_US):
        step = minutes * MINUTE_US // TRAVEL_US - 1
        if step < len(coming) and not np.isnan(coming[step]):
            at = view.now_us + minutes * MINUTE_US
            found.append(
                Forecast(point, view.now_us, at, float(coming[step]), "upstream", limit * sign, eta_s)
            )
    return found


def _next(levels: npt.NDArray[np.float64], now: float) -> float:
    """The lowest level above ``now``; NaN where there is none."""
    above = levels[levels > now]
    return float(above.min()) if len(above) else float("nan")


def _nothing(view: TickView) -> list[Condition]:
    return []


def forecasts(view: TickView) -> list[Forecast]:
    """Both kinds."""
    return [*by_slope(view), *by_upstream(view)]


RULES = (
    TickRule("outlook", _nothing, forecasts, every_s=60, title_zh="水位预测", title_en="level forecast"),
)
