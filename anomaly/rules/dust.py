"""Dust: a construction site's mean over 15 minutes, by itself and less its district's mean.

Owns both comparisons. The limits of 15 minutes are local standards': none unless the config says them. What a site
adds to its district is judged once a TICK, on the newest complete means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, Arrays, Rows
from anomaly.rules.base import Assessed, Condition, RowRule, TickRule, TickView
from anomaly.rules.blocks import PER_UNIT, VALUE_MAX, block_fields, goes_on, said_again, settled
from anomaly.rules.parts import LEVELS, latched, local, nothing, of_kinds, part_of, rule_settings, spread
from storage.points import PointTable

SPAN_US: Final = 900_000_000
HOUR_US: Final = 3_600_000_000
GAP: Final = 10.0
STALE_SPANS: Final = 2
STALE_HOURS: Final = 2
BACKGROUND_MIN: Final = 2
"""A mean over fewer points is a neighbour, not a district."""


def _settings(
    points: PointTable, kinds: Mapping[str, Any], rules: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """dust_point and dust_background bool[points]; dust_limits float64[4], infinite where none is said."""
    settings = rule_settings(rules).dust
    limits = np.full(LEVELS, np.inf)
    limits[: len(settings.limits)] = settings.limits
    return {
        "dust_point": of_kinds(points, settings.kinds),
        "dust_background": of_kinds(points, settings.background),
        "dust_limits": limits,
    }


def dust(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """The step of the newest complete 15 minutes' mean; that mean in µg/m³; the step's limit."""
    part = part_of(rows, limits["dust_point"])
    if part is None:
        return nothing(len(rows))
    span = local(rows, part) // SPAN_US
    amount = np.rint(np.clip(part.value, 0.0, VALUE_MAX) * PER_UNIT).astype(np.int64)
    place = state["dust_point_place"][part.points]
    said = said_again(part, span, amount, state, "dust", place)
    if said is None:
        over = settled(part, span, amount, state, "dust", place)
        known = (over.count > 0) & (over.block >= span - STALE_SPANS)
        mean = np.where(known, over.sum / np.maximum(over.count, 1) / PER_UNIT, np.nan)
        steps = limits["dust_limits"]
        enter = (mean[:, None] > steps).sum(axis=1).astype(np.uint8)
        stay = (mean[:, None] + GAP > steps).sum(axis=1).astype(np.uint8)
        classes = latched(enter, stay, state["dust_latch"][place], part)
        stands = np.where(known & np.isfinite(steps[0]), steps[np.maximum(classes, 1) - 1], np.nan)
        said = classes, mean, stands
        over.keep(state, "dust", *said)
    return spread(len(rows), part, *said)


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> Assessed | None:
    return goes_on(rows, limits["dust_point"], SPAN_US, state, "dust", state["dust_point_place"])


def _means(view: TickView, name: str, mask: str, block_us: int, stale: int) -> F64:
    """Mean of the newest complete block of each point, float64[points]; NaN where unknown or stale.

    Times are local in the state and UTC at the TICK: a block is stale by its distance from the newest of all points.
    """
    found = np.full(len(view.points), np.nan)
    place = view.state[f"{mask}_place"][: len(view.points)]
    points = np.flatnonzero(place >= 0)
    if not len(points):
        return found
    block, total, count = (
        view.state[f"{name}_{kept}"][place[points]] for kept in ("over_block", "over_sum", "over_count")
    )
    known = (count > 0) & (block >= view.state[f"{name}_block"].max() - stale)
    known &= view.state["last_t"][points] >= view.now_us - stale * block_us
    found[points[known]] = (total / np.maximum(count, 1) / PER_UNIT)[known]
    return found


def excess(view: TickView) -> list[Condition]:
    """Sites that stand above the mean of their district by a step."""
    sites = _means(view, "dust", "dust_point", SPAN_US, STALE_SPANS)
    around = _means(view, "air", "air_point", HOUR_US, STALE_HOURS)
    around[~view.limits["dust_background"]] = np.nan
    known = ~np.isnan(around)
    districts = len(view.points.districts)
    count = np.bincount(view.points.district[known], minlength=districts)
    total = np.bincount(view.points.district[known], around[known], minlength=districts)
    mean = np.where(count >= BACKGROUND_MIN, total / np.maximum(count, 1), np.nan)[view.points.district]
    above = np.array(rule_settings(view.rules).dust.above)
    over = sites - mean
    found = []
    for point in np.flatnonzero(over > above[0]).tolist():
        severity = int((over[point] > above).sum())
        words = f"{sites[point]:.0f}", f"{mean[point]:.0f}"
        found.append(
            Condition(
                view.points.point_id[point],
                severity,
                round(float(over[point]), 1),
                float(above[severity - 1]),
                (point,),
                f"15分钟均值 {words[0]} µg/m³,区均值 {words[1]} µg/m³",
                f"15 min mean {words[0]} µg/m³, district mean {words[1]} µg/m³",
            )
        )
    return found


RULES = (
    RowRule(
        "dust",
        _settings,
        dust,
        block_fields("dust", "dust_point"),
        unit="µg/m³",
        title_zh="工地扬尘15分钟均值",
        title_en="site dust, mean of 15 min",
        loop=_loop,
        of="dust_point",
    ),
    TickRule(
        "dust_excess",
        excess,
        every_s=60,
        unit="µg/m³",
        title_zh="工地扬尘高于区均值",
        title_en="site dust above the district",
    ),
)
