"""Areal rain: the mean over a district's gauges against the rainstorm steps, and the city-wide response of many gauges.

Owns the mean, in which each gauge that spoke lately counts the same: fixed weights, so that an area's sum cannot
jump because a gauge fell silent and another's share grew by a guess.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from anomaly.checks.rows import F64, Index
from anomaly.rules.base import Condition, TickRule, TickView
from anomaly.rules.gauge import PER_MM
from anomaly.rules.parts import LEVELS, rule_settings
from anomaly.rules.rain import HOURS, NO_STEP, sums_at

SPOKE_US: Final = 3_600_000_000
"""A gauge that said nothing for this long takes no part."""
MEMBERS_MAX: Final = 20
_CLASSES: Final = np.arange(1, LEVELS + 1)


def gauges(view: TickView) -> tuple[Index, F64]:
    """Points of the gauges that spoke lately, intp[g], and their sums, float64[windows, g]."""
    place = view.state["rain_gauge_place"][: len(view.points)]
    points = np.flatnonzero(place >= 0)
    points = points[
        view.limits["rain_gauge"][points] & (view.state["last_t"][points] >= view.now_us - SPOKE_US)
    ]
    return points, sums_at(view.now_us, view.state)[:, place[points]]


def areal_rain(view: TickView) -> list[Condition]:
    """Districts whose mean reaches a rainstorm step."""
    points, sums = gauges(view)
    found: list[Condition] = []
    if not len(points) or not sums.any():
        return found
    least = rule_settings(view.rules).areal.gauges_min
    district = view.points.district[points]
    count = np.bincount(district, minlength=len(view.points.districts))
    steps = view.limits["rain_steps"][0]
    for code in np.flatnonzero(count >= least).tolist():
        own = np.flatnonzero(district == code)
        mean = sums[:, own].mean(axis=1)
        reached = ((np.rint(mean * PER_MM)[:, None] >= steps) * _CLASSES).max(axis=1)
        severity = int(reached.max())
        if severity == 0:
            continue
        # The shortest window that reaches the step says most.
        window = int(np.argmax(reached == severity))
        limit = steps[window, severity - 1]
        most = own[np.argsort(-sums[window, own], kind="stable")][:MEMBERS_MAX]
        top, told = sums[window, most[0]], f"{HOURS[window]} 小时平均 {mean[window]:.1f} 毫米"
        found.append(
            Condition(
                view.points.districts[code],
                severity,
                round(float(mean[window]), 1),
                float(limit / PER_MM) if limit != NO_STEP else float("nan"),
                tuple(points[most].tolist()),
                f"{count[code]} 个雨量站 {told},最大 {top:.1f} 毫米,达到暴雨标准(实测)",
                f"{count[code]} gauges, mean of {HOURS[window]} h {mean[window]:.1f} mm, most {top:.1f} mm (measured)",
            )
        )
    return found


RULES = (
    TickRule(
        "areal_rain",
        areal_rain,
        every_s=60,
        unit="mm",
        title_zh="面雨量(实测)",
        title_en="areal rain (measured)",
    ),
)
