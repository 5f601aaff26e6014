"""What judgement costs a reading, part by part, beside other libraries.

Caveats first: CPU time of one thread on whatever machine runs it; 116,200 points of five kinds whose state was warmed
by some minutes, so the caches hold what they would in the city. The best of several rounds is the figure (others only
disturb), the median stands beside it; the bounds asserted are loose enough for a shared machine. "checks and rules"
is everything that depends on one point's readings but the episodes that follow them: their order (main, late or repeat,
with the sort by point), the checks, the score and the row rules. With numba all run compiled, without it as columns.
Run: pytest bench/test_bench_checks.py -s
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from anomaly import rules
from anomaly.aftermath import spread_scores, stand
from anomaly.checks import all_checks
from anomaly.checks.rows import Arrays, Rows
from anomaly.checks.score import score
from anomaly.engine import Engine
from anomaly.rules.base import RowRule
from storage.batch import RawBatch
from storage.fast import IS_COMPILED
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table

POINTS = 116_200
BACKLOG = 200_000
CITY = ("waterlogging", "river_level", "rain_gauge", "pm25", "noise")
SHARE = (0.3, 0.2, 0.2, 0.2, 0.1)
NS_MAX = {20_000: 700.0, 2_000: 1_000.0}


def engine(points: int = POINTS) -> Engine:
    table = point_table(points, gateways=1_000)
    rng = np.random.default_rng(7)
    table.kinds[:] = CITY
    table.kind[:] = np.sort(rng.choice(len(CITY), points, p=SHARE))
    table.level[:, np.isin(table.kind, (2, 3, 4))] = np.nan
    table.lon[:], table.lat[:] = 104 + rng.random(points) * 0.3, 30.5 + rng.random(points) * 0.3
    kinds = {name: kind_settings(rate_max_per_s=5.0, flat_line_s=600.0, spike_max=50.0) for name in CITY}
    return Engine(table, kinds, check_settings(), time_zone="Asia/Shanghai")


def batches(rows: int, rounds: int) -> Iterator[RawBatch]:
    """Distinct points in each, in random order of arrival; a round gives every point a reading."""
    rng = np.random.default_rng(1)
    print("seed 1")
    base = np.where(rng.random(POINTS) < 0.01, 20.0, 5.0)
    for second in range(rounds):
        for part in np.array_split(rng.permutation(POINTS), POINTS // rows):
            n = len(part)
            value = base[part] + np.round(rng.normal(0, 0.3, n), 1)
            moment = np.full(n, T0 + second * 60 * S, np.int64)
            yield RawBatch(part.astype(np.int32), moment, moment + 50_000, value, np.zeros(n, np.uint8))


def timed(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def parts_of(judge: Engine, batch: RawBatch) -> dict[str, float]:
    """Seconds of each part over one batch; the state moves on as the engine's would."""
    state, limits, parts = judge.state.arrays(), judge.limits, {}

    def take(name: str, call: Callable[[], Any]) -> Any:
        began = time.thread_time()
        found = call()
        parts[name] = time.thread_time() - began
        return found

    met = take("first look", lambda: judge._meet(batch))
    seen, scores = met.seen, np.zeros(len(batch), np.float32)
    seen.utc_offset_us = 8 * 3_600 * S
    if met.classes is None:
        for check in all_checks():
            take(f"check {check.name}", partial(check.fastest, seen, limits, state))
    sound = np.ones(len(seen), np.bool_)
    found = take("score", partial(score, seen, sound, state))
    take("spread", partial(spread_scores, seen, met.row, found, limits, state, scores, met.checks))
    borders = take("reach", lambda: np.searchsorted(seen.point, judge._reach).tolist())
    for rule, begin, end in zip(rules.row_rules(), borders[::2], borders[1::2], strict=True):
        if begin < end:
            take(f"rule {rule.name}", partial(rule_alone, rule, seen, begin, end, limits, state))
    if met.classes is None:
        take("believe", lambda: seen.believe(state))
    return parts


def rule_alone(rule: RowRule, seen: Rows, begin: int, end: int, limits: Arrays, state: Arrays) -> None:
    rows = seen.between(begin, end)
    stand(rows, rule.fastest(rows, limits, state).classes, state[f"{rule.name}_class"])


@pytest.mark.parametrize("rows", [20_000, 2_000])
def test_checks_and_rules_over_a_live_batch(rows: int) -> None:
    judge = engine()
    took = [
        {name: seconds / len(batch) * 1e9 for name, seconds in parts_of(judge, batch).items()}
        for batch in batches(rows, 6)
    ]
    took = took[len(took) // 2 :]
    best = {name: min(one[name] for one in took) for name in took[0]}
    median = {name: float(np.median([one[name] for one in took])) for name in took[0]}
    print({name: round(ns) for name, ns in best.items()})
    sums = [sum(one.values()) for one in (best, median)]
    print(
        f"{rows:,} rows: order, checks, score, rules: best {sums[0]:.0f} ns a reading ({1e3 / sums[0]:.1f} million/s), "
        f"median {sums[1]:.0f}; score compiled: {IS_COMPILED}"
    )
    assert sums[0] <= NS_MAX[rows]


@pytest.mark.parametrize("rows", [20_000, 2_000])
def test_the_engine_as_a_whole(rows: int) -> None:
    """Order, checks, score, rules, episodes, and the columns of the result."""
    judge = engine()
    took = [
        timed(partial(judge.judge, batch, np.arange(len(batch)))) / len(batch) * 1e9
        for batch in batches(rows, 6)
    ]
    best, median = np.min(took[len(took) // 2 :]), np.median(took[len(took) // 2 :])
    print(
        f"{rows:,} rows: engine.judge best {best:.0f} ns, median {median:.0f} ns, {1e3 / best:.1f} million/s"
    )
    assert best < 3_000


@pytest.mark.parametrize("points", [1, 400, BACKLOG])
def test_one_points_backlog_costs_a_row_what_many_points_do(points: int) -> None:
    """One point, one gateway, or every point: 200,000 rows in one batch."""
    rng = np.random.default_rng(2)
    each = BACKLOG // points
    point = np.tile(np.arange(points, dtype=np.int32), each)
    moment = T0 + np.repeat(np.arange(each, dtype=np.int64), points) * 300 * S
    value = np.round(rng.normal(5, 0.3, BACKLOG), 1)
    batch = RawBatch(point, moment, moment, value, np.zeros(BACKLOG, np.uint8))
    judge = engine(max(points, 2))
    took = timed(lambda: judge.judge(batch, np.arange(BACKLOG))) / BACKLOG * 1e6
    print(f"{points:,} points, 200,000 rows: {took:.2f} µs a row")
    order = np.argsort(point, kind="stable")
    for compiled in (True, False):
        fresh = engine(max(points, 2))
        rows = Rows.grouped(point[order], moment[order], value[order], fresh.state.arrays())
        sound = np.ones(BACKLOG, np.bool_)
        alone = timed(lambda r=rows, s=sound, f=fresh, c=compiled: score(r, s, f.state.arrays(), c))
        print(
            f"  score alone, {'compiled' if compiled else 'without numba'}: {alone / BACKLOG * 1e6:.2f} µs a row"
        )
        assert alone / BACKLOG * 1e6 < 40
    assert took < 5.0


def test_a_tick_over_the_city() -> None:
    judge = engine()
    for batch in batches(20_000, 1):
        judge.judge(batch, np.arange(len(batch)))
    took = [timed(lambda s=second: judge.tick(T0 + s * S)) for second in range(1, 25)]
    print(f"tick {np.median(took) * 1e3:.1f} ms, every ten seconds {np.max(took) * 1e3:.1f} ms")
    assert np.median(took) < 0.2


def test_river_and_ioos_qc_in_the_same_run() -> None:
    """Their own way of being called: river a reading at a time, ioos_qc a series at a time."""
    river = pytest.importorskip("river.anomaly")
    qartod = pytest.importorskip("ioos_qc.qartod")
    rng = np.random.default_rng(3)
    n = 20_000
    value = np.round(rng.normal(5, 0.3, n), 1)
    scorer = river.GaussianScorer()

    def one_by_one() -> None:
        for x in value.tolist():
            scorer.score_one(None, x)
            scorer.learn_one(None, x)

    moment = T0 + np.arange(n, dtype=np.int64) * 60 * S
    instants = moment.astype("datetime64[us]").astype("datetime64[ns]")

    def three_tests() -> None:
        qartod.gross_range_test(inp=value, fail_span=(0, 200), suspect_span=(0, 100))
        qartod.rate_of_change_test(inp=value, tinp=instants, threshold=5.0)
        qartod.flat_line_test(
            inp=value, tinp=instants, suspect_threshold=3600, fail_threshold=7200, tolerance=0.01
        )

    for name, call in (("river GaussianScorer", one_by_one), ("ioos_qc, three tests", three_tests)):
        ns = min(timed(call) for _ in range(3)) / n * 1e9
        print(f"{name}: {ns:.0f} ns a reading, {1e3 / ns:.3f} million/s")
        assert ns > 0
