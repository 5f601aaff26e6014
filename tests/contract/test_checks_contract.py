"""Every check, found by looking, keeps the contract of anomaly.checks.rows: one suite for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anomaly.checks import all_checks
from anomaly.checks.rows import NO_TIME, RowCheck, Rows
from anomaly.limits import Limits, limits_of
from anomaly.state import State
from storage.batch import stable_order
from storage.fast import IS_COMPILED
from storage.flags import CHECK_BITS, GOOD, PRECEDENCE
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table

POINTS = 12
CHECKS = all_checks()
FORMS = [
    form
    for check in CHECKS
    for form in (check, *([replace(check, judge=check.loop)] if check.loop and IS_COMPILED else []))
]
"""Each check as columns, and as the loop that must say the same to the last bit."""
Scalar = Callable[[int, int, float, dict[str, Any], Limits], int]
"""(point, time, value, memory of the point, limits) -> class. Written to be read, one reading at a time."""


def scalar_gross_range(p: int, t: int, v: float, memory: dict[str, Any], limits: Limits) -> int:
    return int(v < limits["range_min"][p] or v > limits["range_max"][p])


def scalar_rate_of_change(p: int, t: int, v: float, memory: dict[str, Any], limits: Limits) -> int:
    before = memory.get("rate")
    memory["rate"] = (t, v)
    if before is None or np.isnan(limits["rate_max_per_s"][p]):
        return 0
    return int(abs(v - before[1]) * S > limits["rate_max_per_s"][p] * (t - before[0]))


def scalar_flat_line(p: int, t: int, v: float, memory: dict[str, Any], limits: Limits) -> int:
    before_t, before_v, still = memory.get("flat", (t, None, 0))
    if v != before_v or (v == 0 and limits["flat_skip_zero"][p]):
        still = 0
    elif t - before_t <= limits["silence_us"][p]:
        still += t - before_t
    memory["flat"] = (t, v, still)
    return int(0 < limits["flat_line_us"][p] <= still)


def scalar_level(p: int, t: int, v: float, memory: dict[str, Any], limits: Limits) -> int:
    entered = memory.setdefault("level", [False] * 4)
    sign = limits["sign"][p]
    for k in range(4):
        if v * sign >= limits["level"][k, p]:
            entered[k] = True
        elif v * sign < limits["level"][k, p] - limits["level_gap"][p]:
            entered[k] = False
    return max((k + 1 for k in range(4) if entered[k]), default=0)


def scalar_spike(p: int, t: int, v: float, memory: dict[str, Any], limits: Limits) -> int:
    """Far from the one before; if that was a spike, also far from the last one believed."""
    most = limits["spike_max"][p]
    newest, believed = memory.get("spike", (v, v))
    is_spike = abs(v - newest) > most and abs(v - believed) > most
    memory["spike"] = (v, believed if is_spike else v)
    return int(is_spike)


SCALAR: dict[str, Scalar] = {
    "spike": scalar_spike,
    "gross_range": scalar_gross_range,
    "rate_of_change": scalar_rate_of_change,
    "flat_line": scalar_flat_line,
    "level": scalar_level,
}

each_check = pytest.mark.parametrize(
    "check", FORMS, ids=lambda check: check.name + ("-loop" if check.judge is check.loop else "")
)


def limits() -> Limits:
    """Points that differ: falling ones, some without levels or range, two kinds."""
    table = point_table(POINTS)
    table.falling[3] = True
    table.level[:, 3] = (30, 25, 20, 10)
    table.level[:, 4] = np.nan
    table.level[:3, 5] = np.nan
    table.level_gap[6] = 0
    table.range_max[7] = np.nan
    table.interval_s[8] = 0
    table.kinds[:] = ["waterlogging"]
    table.kinds.append("rain_gauge")
    table.kind[9:] = 1
    kinds = {
        "waterlogging": kind_settings(rate_max_per_s=8.0, flat_line_s=3.0, spike_max=11.0),
        "rain_gauge": kind_settings(flat_line_s=2.0, flat_line_skip_zero=True),
    }
    return limits_of(table, kinds, check_settings(dead_s_min=4.0, dead_intervals=2.0))


def stream(seed: int, n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Point, time, value: values walk over the levels, stand still, jump and leave the range."""
    rng = np.random.default_rng(seed)
    point = rng.integers(0, POINTS, n).astype(np.int32)
    time = T0 + np.cumsum(rng.choice([0.05, 0.1, 0.4], n) * S).astype(np.int64)
    value = np.zeros(n)
    for p in range(POINTS):
        of = point == p
        steps = rng.choice([0.0, 0.0, 1.0, -1.0, 12.0, -12.0, 0.5], of.sum())
        value[of] = np.abs(20 + np.cumsum(steps))
    value[rng.random(n) < 0.02] = 500.0
    value[rng.random(n) < 0.05] = 0.0
    return point, time, value


def judged(
    check: RowCheck, point: np.ndarray, time: np.ndarray, value: np.ndarray, state: State
) -> np.ndarray:
    """Classes in stream order; the state moves on."""
    order = stable_order(point)
    if check.stateful:
        rows = Rows.grouped(point[order], time[order], value[order], state.arrays())
    else:
        rows = Rows.alone(point[order], time[order], value[order])
    classes = np.empty(len(point), np.uint8)
    classes[order] = check.judge(rows, limits(), state.arrays())
    if check.stateful:
        rows.believe(state.arrays())
    return classes


def same(a: State, b: State) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in a.arrays())


def test_the_suite_knows_every_check_and_every_check_has_its_bit() -> None:
    assert {check.name for check in CHECKS} == set(SCALAR)
    assert all(check.name in CHECK_BITS and check.flag in PRECEDENCE for check in CHECKS)


@each_check
@pytest.mark.parametrize("seed", range(4))
def test_equals_its_scalar_reference(check: RowCheck, seed: int) -> None:
    point, time, value = stream(seed)
    memory: list[dict[str, Any]] = [{} for _ in range(POINTS)]
    known = limits()
    expected = [
        SCALAR[check.name](int(p), int(t), float(v), memory[p], known)
        for p, t, v in zip(point, time, value, strict=True)
    ]
    found = judged(check, point, time, value, State(POINTS))
    assert found.tolist() == expected
    assert found.any(), "the stream must make the check object"
    assert not found.all()


@each_check
@pytest.mark.parametrize("seed", range(4))
def test_any_split_gives_the_same_classes_and_state(check: RowCheck, seed: int) -> None:
    point, time, value = stream(seed)
    whole, parts = State(POINTS), State(POINTS)
    expected = judged(check, point, time, value, whole)
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(point), 40))
    found = [
        judged(check, point[a:b], time[a:b], value[a:b], parts)
        for a, b in zip([0, *cuts], [*cuts, len(point)], strict=True)
        if b > a
    ]
    assert np.concatenate(found).tolist() == expected.tolist()
    assert same(whole, parts)


@each_check
def test_one_row_at_a_time_equals_all_at_once(check: RowCheck) -> None:
    point, time, value = stream(9, 150)
    whole, single = State(POINTS), State(POINTS)
    expected = judged(check, point, time, value, whole)
    found = [
        judged(check, point[i : i + 1], time[i : i + 1], value[i : i + 1], single)[0] for i in range(150)
    ]
    assert found == expected.tolist()
    assert same(whole, single)


@each_check
def test_points_do_not_touch_each_other(check: RowCheck) -> None:
    """Interleaved in another way, every point gets the same."""
    point, time, value = stream(5)
    mixed, sorted_ = State(POINTS), State(POINTS)
    expected = judged(check, point, time, value, mixed)
    by_point = np.argsort(point, kind="stable")
    found = judged(check, point[by_point], time[by_point], value[by_point], sorted_)
    assert found.tolist() == expected[by_point].tolist()
    assert same(mixed, sorted_)


@each_check
def test_is_pure(check: RowCheck) -> None:
    """The same rows and state give the same twice; rows, limits and other checks' state stay as they were."""
    point, time, value = stream(6)
    order = stable_order(point)
    state = State(POINTS)
    state["believed_v"][:] = 20.0
    state["believed_t"][:] = T0 - S
    rows = Rows.grouped(point[order], time[order], value[order], state.arrays())
    known = limits()
    for array in (
        *known.values(),
        rows.point,
        rows.time,
        rows.value,
        rows.previous_time,
        rows.previous_value,
    ):
        array.setflags(write=False)
    own = {field.name for field in check.fields}
    before = {name: array.copy() for name, array in state.arrays().items()}
    first = check.judge(rows, known, state.arrays())
    changed = {name for name in before if before[name].tobytes() != state[name].tobytes()}
    assert changed <= own
    state.restore(before)
    assert check.judge(rows, known, state.arrays()).tolist() == first.tolist()
    assert first.dtype == np.uint8


@each_check
def test_goes_on_from_a_snapshot_as_if_nothing_had_been(check: RowCheck) -> None:
    point, time, value = stream(7)
    straight, restored = State(POINTS), State(POINTS)
    expected = judged(check, point, time, value, straight)
    half = State(POINTS)
    first = judged(check, point[:300], time[:300], value[:300], half)
    restored.restore({name: array.copy() for name, array in half.arrays().items()})
    rest = judged(check, point[300:], time[300:], value[300:], restored)
    assert [*first, *rest] == expected.tolist()
    assert same(straight, restored)


@each_check
def test_stateless_checks_own_no_state_and_news_is_no_doubt(check: RowCheck) -> None:
    assert check.stateful or not check.fields
    assert (check.flag == GOOD) == (check.name == "level")


def test_a_first_reading_has_no_predecessor() -> None:
    rows = Rows.grouped(
        np.array([2, 2, 5], np.int32), np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]), State(POINTS).arrays()
    )
    assert rows.previous_time.tolist() == [NO_TIME, 1, NO_TIME]
    assert np.isnan(rows.previous_value[[0, 2]]).all()
    assert rows.last.tolist() == [1, 2]
