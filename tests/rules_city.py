"""A city of one point or two of each kind that a rule knows, and streams that make every rule speak."""

from __future__ import annotations

from typing import Any

import numpy as np

from anomaly.checks.rows import Rows
from anomaly.limits import limits_of
from anomaly.rules import row_rules
from anomaly.rules.base import Assessed, RowRule
from anomaly.rules.settings import RuleSettings
from anomaly.state import State
from storage.batch import stable_order
from storage.points import PointTable
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table

KINDS = (
    "rain_gauge", "rain_gauge", "rain_gauge", "rain_total", "rain_total", "noise", "noise", "site_noise",
    "pm25", "co", "o3", "dissolved_oxygen", "ph", "tp", "waterlogging", "waterlogging", "river_level", "lamp",
    "dust_pm10", "dust_pm10", "river_level", "video",
)  # fmt: skip
OFFSET_US = 8 * 3600 * S
"""The city's clock: UTC+8."""

RULES: dict[str, Any] = {
    "flash": [{"name": "hills", "districts": ["都江堰市"], "table": "county-example"}],
    "dust": {"limits": [250.0, 350.0, 420.0, 500.0]},
    "point": {"P00002": {"flash": "hills"}, "P00006": {"noise_zone": "0"}, "P00012": {"water_target": 2}},
}


def rule_dump(**tables: Any) -> dict[str, Any]:
    """The [rules] table as the engine hands it to rules."""
    return RuleSettings.model_validate({**RULES, **tables}).model_dump()


def city(**columns: Any) -> PointTable:
    """One point for each of KINDS, in two districts; one point reports slowly."""
    kinds = sorted(set(KINDS))
    table = point_table(len(KINDS), kind="lamp", **columns)
    table.kinds[:] = kinds
    table.kind[:] = [kinds.index(kind) for kind in KINDS]
    table.districts[:] = ["金牛区", "都江堰市"]
    table.district[1] = 1
    table.interval_s[6] = 900.0
    for river in (16, 20):
        table.level[:, river] = (500.0, 501.0, 502.0, 503.0)
    table.upstream[20] = 16
    return table


def limits(table: PointTable | None = None, **tables: Any) -> dict[str, Any]:
    """Everything of every rule, and of the checks."""
    points = city() if table is None else table
    kinds = {"waterlogging": kind_settings(unit="cm")}
    found = dict(limits_of(points, kinds, check_settings()))
    for rule in row_rules():
        found |= rule.settings(points, kinds, rule_dump(**tables))
    return found


def new_state(known: dict[str, Any], n: int = len(KINDS)) -> State:
    state = State(n)
    state.place(known)
    return state


def stream(seed: int, n: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Point, time, value, over some days; gaps from seconds to hours, values that cross every table."""
    rng = np.random.default_rng(seed)
    point = rng.integers(0, len(KINDS), n).astype(np.int32)
    time = T0 + np.cumsum(rng.choice([1.0, 20.0, 60.0, 300.0, 2000.0], n, p=[0.3, 0.3, 0.3, 0.08, 0.02]) * S)
    value = np.zeros(n)
    for p, kind in enumerate(KINDS):
        of = point == p
        value[of] = _values(kind, int(of.sum()), rng)
    return point, time.astype(np.int64), value


def _values(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    wet = np.repeat(rng.random(n // 20 + 1) < 0.4, 20)[:n]
    if kind == "rain_gauge":
        return np.round(rng.gamma(1.0, 4.0, n) * wet, 1)
    if kind == "rain_total":
        counter = np.cumsum(np.round(rng.gamma(1.0, 4.0, n) * wet, 1)) % 400.0
        counter[rng.random(n) < 0.02] -= 0.3
        counter[rng.random(n) < 0.01] += 5000.0
        return np.maximum(counter, 0.0)
    span: dict[str, tuple[float, float]] = {
        "noise": (45.0, 90.0), "site_noise": (45.0, 95.0), "pm25": (5.0, 600.0), "co": (0.5, 140.0),
        "o3": (20.0, 1300.0), "dissolved_oxygen": (1.0, 9.0), "ph": (5.0, 10.0), "tp": (0.01, 0.6),
        "waterlogging": (0.0, 60.0), "river_level": (495.0, 505.0), "lamp": (0.0, 1.0),
        "dust_pm10": (50.0, 700.0), "video": (-0.5, 2.5),
    }  # fmt: skip
    low, high = span[kind]
    middle = np.repeat(rng.uniform(low, high, n // 25 + 1), 25)[:n]
    if kind in ("waterlogging", "river_level"):
        # Slow enough that a rise can be seen coming.
        middle = np.interp(
            np.arange(n), np.arange(0, n + 25, 25), rng.uniform(low, high, (n + 25 + 24) // 25)
        )
    return np.round(np.clip(middle + rng.normal(0, (high - low) / 100, n), low, high), 2)


def judged(
    rule: RowRule,
    batch: tuple[np.ndarray, np.ndarray, np.ndarray],
    state: State,
    known: dict[str, Any],
    offset: Any = OFFSET_US,
) -> Assessed:
    """What the rule says of the stream, in its order; the state moves on."""
    point, time, value = batch
    order = stable_order(point)
    rows = Rows.grouped(point[order], time[order], value[order], state.arrays())
    rows.utc_offset_us = offset
    found = rule.fastest(rows, known, state.arrays())
    back = Assessed(np.empty(len(point), np.uint8), np.empty(len(point)), np.empty(len(point)))
    back.classes[order], back.value[order], back.limit[order] = found.classes, found.value, found.limit
    rows.believe(state.arrays())
    return back
