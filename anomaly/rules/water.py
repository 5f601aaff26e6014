"""Water: the class of surface water each indicator stands in, against the class its section must keep.

Owns classes 1-5 (I-V) and 6, worse than V. A section is as good as its worst indicator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, U8, Arrays, Field, Rows
from anomaly.rules.base import Assessed, RowRule
from anomaly.rules.parts import LEVELS, latched, nothing, of_kinds, part_of, rule_settings, spread, stations
from anomaly.rules.tables import entries
from storage.points import PointTable

CLASSES: Final = 5
CLASS_NAMES: Final = ("I", "II", "III", "IV", "V", "劣V")
GAP_SHARE: Final = 0.02
"""A class is left when the value is back by this share of its bound: an analyser's repeatability."""


def bounds(indicator: str) -> tuple[F64, F64]:
    """Least and greatest value of classes I-V, two float64[5]; infinite where a class has none."""
    least, greatest = np.full(CLASSES, -np.inf), np.full(CLASSES, np.inf)
    for entry in entries("water", "indicator"):
        if entry["name"] == indicator:
            if "lower" in entry.numbers:
                least[:] = entry["lower"]
            elif "upper" in entry.numbers:
                greatest[:] = entry["upper"]
            else:
                least[:], greatest[:] = entry["range"]
            return least, greatest
    raise KeyError(indicator)


def water_class(value: F64, least: F64, greatest: F64) -> U8:
    """1-5, or 6 where no class holds; ``least`` and ``greatest`` float64[5, m] or [5, 1].

    >>> water_class(np.array([5.5, 1.0]), *(bound[:, None] for bound in bounds("do"))).tolist()
    [3, 6]
    """
    holds = (value >= least) & (value <= greatest)
    return np.where(holds.any(axis=0), holds.argmax(axis=0) + 1, CLASSES + 1).astype(np.uint8)


def _settings(
    points: PointTable, kinds: Mapping[str, Any], rules: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """water_point bool[points]; water_least, water_greatest float64[5, kinds]; water_low, water_high float64[points]
    of the target class, and all four with _in the same drawn in by the gap; water_kind int32[points]; water_target
    uint8[points]; water_station int32[points], -1 none; water_alone bool[points]: no other indicator is measured by its
    device, so it alerts by itself.
    """
    settings = rule_settings(rules)
    named = [settings.water.indicators.get(name) for name in points.kinds] or [None]
    open_ended = (np.full(CLASSES, -np.inf), np.full(CLASSES, np.inf))
    found = [bounds(name) if name else open_ended for name in named]
    measures = of_kinds(points, settings.water.indicators)
    target = np.full(len(points), settings.water.target, np.uint8)
    number = points.number_of() if settings.point else {}
    for point_id, own in settings.point.items():
        if own.water_target is not None and point_id in number:
            target[number[point_id]] = own.water_target
    least = np.stack([low for low, _ in found], axis=1)
    greatest = np.stack([high for _, high in found], axis=1)
    row = target.astype(np.int64) - 1
    station = stations(points, measures)
    inner_least, inner_greatest = least + _gap(least), greatest - _gap(greatest)
    of_target = {"low": least, "high": greatest, "low_in": inner_least, "high_in": inner_greatest}
    return {
        **{f"water_{name}": bound[row, points.kind] for name, bound in of_target.items()},
        "water_point": measures,
        "water_least": least,
        "water_greatest": greatest,
        "water_least_in": inner_least,
        "water_greatest_in": inner_greatest,
        "water_kind": points.kind,
        "water_target": target,
        "water_station": station,
        "water_alone": measures & (station < 0),
    }


def water(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """How many classes worse than its target, at most 4; the value as read; the bound of the target class."""
    part = part_of(rows, limits["water_point"])
    if part is None:
        return nothing(len(rows))
    value, place = part.value, state["water_point_place"][part.points]
    low, high = part.each(limits["water_low"]), part.each(limits["water_high"])
    limit = np.where((value < low) | np.isinf(high), low, high)
    enter, stay = np.zeros(len(value), np.uint8), np.zeros(len(value), np.uint8)
    # Only a value that is back by the gap may leave; what is, keeps its target, and most water does.
    doubtful = np.flatnonzero(
        (value < part.each(limits["water_low_in"])) | (value > part.each(limits["water_high_in"]))
    )
    if len(doubtful):
        points = part.points[part.group[doubtful]]
        kind, target = limits["water_kind"][points], limits["water_target"][points].astype(np.int64)
        for steps, within in ((enter, ""), (stay, "_in")):
            bounds_of = (limits[f"water_{bound}{within}"][:, kind] for bound in ("least", "greatest"))
            steps[doubtful] = _worse(water_class(value[doubtful], *bounds_of), target)
    classes = latched(enter, stay, state["water_latch"][place], part)
    last = classes[part.last]
    state["water_latch"][place] = last
    told = np.where(part.each(limits["water_alone"]), classes, np.uint8(0))
    return spread(len(rows), part, told, value, limit)


def _worse(found: U8, target: npt.NDArray[np.int64]) -> U8:
    worse: U8 = np.clip(found - target, 0, LEVELS).astype(np.uint8)
    return worse


def _gap(bound: F64) -> F64:
    return np.where(np.isfinite(bound), np.abs(bound) * GAP_SHARE, 0.0)


RULES = (
    RowRule(
        "water",
        _settings,
        water,
        (Field("water_latch", "u1", 0, of="water_point"),),
        title_zh="水质劣于目标类别",
        title_en="water worse than its target class",
        of="water_point",
    ),
)
