"""What the city's rules cost a reading.

Caveats first: CPU time of one thread on whatever machine runs it, warm state, 116,200 points. Two cities: one mixed
like the demo's, one in which every point is of one kind that a rule concerns. The median of several rounds is
printed; the bounds asserted are loose enough for a shared machine. Run: pytest bench/test_bench_rules.py -s
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from anomaly.checks.rows import Rows
from anomaly.limits import limits_of
from anomaly.rules import row_rules
from anomaly.rules.settings import RuleSettings
from anomaly.state import State
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table

POINTS = 116_200
ROUNDS = 12
# Shares of the demo city, roughly: most points are none of a rule's business.
MIXED = {
    "rain_gauge": 0.02, "waterlogging": 0.05, "river_level": 0.01, "noise": 0.08, "site_noise": 0.02, "pm25": 0.02,
    "pm10": 0.02, "o3": 0.02, "dust_pm10": 0.02, "ph": 0.005, "lamp_power": 0.735,
}  # fmt: skip


def seconds_a_row(shares: dict[str, float], rows_max: int, interval_us: int) -> dict[str, float]:
    """Median CPU seconds a row of each rule, and of all together; every point speaks once an interval."""
    kinds = list(shares)
    table = point_table(POINTS, kind=kinds[0])
    table.kinds[:] = kinds
    table.kind[:] = np.repeat(np.arange(len(kinds)), np.diff([0, *_ends(list(shares.values()))]))
    rules = RuleSettings.model_validate({}).model_dump()
    limits = dict(limits_of(table, {"waterlogging": kind_settings(unit="cm")}, check_settings()))
    for rule in row_rules():
        limits |= rule.settings(table, {}, rules)
    state = State(POINTS)
    state.place(limits)
    rng = np.random.default_rng(1)
    calm = rng.uniform(1.0, 4.0, POINTS)
    took: dict[str, list[float]] = {rule.name: [] for rule in row_rules()}
    order = rng.permutation(POINTS)
    for turn in range(ROUNDS):
        # The first turn hears every point: from then on the city is warm.
        size = rows_max if turn else POINTS
        heard = max(turn - 1, 0) * rows_max
        point = np.sort(order.take(np.arange(heard, heard + size), mode="wrap")).astype(np.int32)
        moment = np.full(size, T0 + (POINTS * (turn > 0) + heard) * interval_us // POINTS, np.int64)
        value = np.round(calm[point] + rng.normal(0, 0.1, size), 1)
        rows = Rows.grouped(point, moment, value, state.arrays())
        rows.utc_offset_us = 8 * 3600 * S
        for rule in row_rules():
            began = time.thread_time()
            rule.judge(rows, limits, state.arrays())
            took[rule.name].append(time.thread_time() - began)
    cost = {name: float(np.median(times[2:])) / rows_max for name, times in took.items()}
    return {**cost, "all": sum(cost.values())}


def _ends(shares: Sequence[float]) -> list[int]:
    ends = np.round(np.cumsum(shares) * POINTS).astype(int)
    ends[-1] = POINTS
    return ends.tolist()


@pytest.mark.parametrize(("rows_max", "ns_max"), [(20_000, 200), (2_000, 1000)])
def test_all_rules_over_a_city_like_the_demo(rows_max: int, ns_max: float) -> None:
    cost = seconds_a_row(MIXED, rows_max, S)
    print(f"{rows_max} rows:", {name: f"{s * 1e9:.0f} ns" for name, s in cost.items()})
    assert cost["all"] * 1e9 <= ns_max


@pytest.mark.parametrize("step_s", [1, 60])
@pytest.mark.parametrize("kind", ["rain_gauge", "waterlogging", "noise", "pm25", "ph"])
def test_a_city_of_one_kind_only(kind: str, step_s: int) -> None:
    """Every second, and every minute: rings and blocks move on in every batch then."""
    cost = seconds_a_row({kind: 1.0}, 20_000, step_s * S)
    print(f"{kind} every {step_s} s:", {name: f"{s * 1e9:.0f} ns" for name, s in cost.items()})
    assert cost["all"] * 1e9 <= 1500
