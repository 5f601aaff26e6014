"""The score keeps the contract of the checks: wherever a stream is cut, and whether it runs compiled, as columns or
row by row, it says the same to the last bit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from anomaly.checks import surprise
from anomaly.checks.rows import Rows
from anomaly.checks.score import ALARM, FIELDS, VECTOR_MIN, score
from anomaly.state import State
from storage.batch import stable_order
from storage.fast import IS_COMPILED
from tests.anomaly_city import T0, S

POINTS = 40
HOUR_US = 3600 * S


@dataclass
class Stream:
    point: np.ndarray
    time: np.ndarray
    value: np.ndarray
    sound: np.ndarray

    def __len__(self) -> int:
        return len(self.point)

    def take(self, index: Any) -> Stream:
        return Stream(self.point[index], self.time[index], self.value[index], self.sound[index])


def stream(seed: int, n: int = 3000) -> Stream:
    """Points of every character, some far busier than others, with outliers, gaps, constants, huge numbers, doubt."""
    rng = np.random.default_rng(seed)
    weight = rng.pareto(1.0, POINTS) + 0.05
    point = rng.choice(POINTS, n, p=weight / weight.sum()).astype(np.int32)
    time = T0 + np.cumsum(rng.choice([1, 30, 300, 7200], n, p=[0.4, 0.3, 0.29, 0.01])).astype(np.int64) * S
    value = np.round(rng.normal(20, 3, n) + 10 * np.sin(time / HOUR_US / 24 * 2 * np.pi), 1)
    value[point % 7 == 1] = 5.0
    value[point % 7 == 2] *= -0.0
    outliers = rng.random(n) < 0.01
    value[outliers] += rng.choice([-60.0, 200.0, 1e9, 1e305], outliers.sum())
    value[rng.random(n) < 0.001] = np.inf
    sound = rng.random(n) > 0.05
    sound[(point % 7 == 3) & (np.arange(n) > n // 3) & (np.arange(n) < 2 * n // 3)] = False
    return Stream(point, time, value, sound)


def state() -> State:
    return State(POINTS, FIELDS)


def scored(given: Stream, into: State, compiled: bool = IS_COMPILED) -> np.ndarray:
    """Scores in stream order; the state moves on. Eight hours ahead of UTC, as in the city."""
    order = stable_order(given.point)
    believed = {"believed_t": np.zeros(POINTS, np.int64), "believed_v": np.zeros(POINTS)}
    rows = Rows.grouped(given.point[order], given.time[order], given.value[order], believed)
    rows.utc_offset_us = 8 * HOUR_US
    found = np.empty(len(given), np.float32)
    found[order] = score(rows, given.sound[order], into.arrays(), compiled)
    return found


def same(a: State, b: State) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in a.arrays())


@dataclass
class Memory:
    """What the scalar reference remembers of one point."""

    n: int = 0
    interval: float = 0.0
    level: float = 0.0
    off_var: float = 0.0
    step_var: float = 0.0
    off: float = 0.0
    drift: float = 0.0
    low: float = 0.0
    high: float = 0.0
    tails: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0], [0.0, 0.0]])
    gate: float = 0.0
    last_t: int = 0
    hours: list[list[float]] = field(default_factory=lambda: [[0.0, 0] for _ in range(24)])


def limited(x: float, most: float) -> float:
    return math.copysign(min(abs(x), most), x)


def beyond_tail(tail: list[float], distance: float, rate: float) -> float:
    """Surprise of a distance; [quantile, mean excess] move on."""
    quantile, excess = tail
    unit = max(quantile, 0.5)
    nats = math.log(100) + (distance - quantile) / max(excess, 0.05 * unit) if distance > quantile else 0.0
    tail[0] += rate * unit * (0.99 if distance > quantile else -0.01)
    if distance > tail[0]:
        over = distance - tail[0]
        tail[1] = over if excess == 0 else excess + (min(over, 8 * excess) - excess) / 15
    return nats


def reference(m: Memory, t: int, x: float) -> float:
    """The score of one sound reading, in the order in which one would explain it."""
    x = limited(x, 1e100)
    if m.n == 0:
        m.level = m.low = m.high = x
        m.last_t = t
    passed = (t - m.last_t) / S
    if m.n == 1:
        m.interval = passed
    elif m.n > 1:
        m.interval *= 1 + 0.05 * ((passed > m.interval) - (passed < m.interval))
    beats = min(passed / max(m.interval, 60), 10) if m.n else 1.0
    # Farther out than ever before?
    span, over = m.high - m.low, max(x - m.high, m.low - x)
    m.low, m.high = min(m.low, x), max(m.high, x)
    never_seen = 5 + 20 * over / span if over > 0 and span > 0 and m.n > 50 else 0.0
    # How far from this hour, and how far a step.
    hour = m.hours[(t + 8 * HOUR_US) // HOUR_US % 24]
    settled = hour[1] >= 3
    off = x - (hour[0] if settled else m.level)
    step = off - m.off
    floor = 1e-3 * (m.high - m.low) + 1e-12
    off_sd, step_sd = max(math.sqrt(m.off_var), floor), max(math.sqrt(m.step_var), floor)
    z = limited(off / off_sd, 50)
    m.drift += min(beats / 15, 0.5) * (limited(z, 8) - m.drift)
    # How rare is that for this point?
    newest = 1 / (m.n + 1)
    rate = max(0.03 * beats, newest)
    mixed = 0.25 * abs(z) + 0.75 * min(abs(step) / step_sd, 50)
    rare = max(beyond_tail(m.tails[0], mixed, rate), beyond_tail(m.tails[1], abs(m.drift), rate))
    surprise = min(max(rare if m.n >= 24 else 0.0, never_seen), 50)
    m.gate *= 1 - beats / 250
    said = surprise if surprise > m.gate else 0.0
    m.gate = max(m.gate, surprise)
    # Learn, but no more than a few deviations at once.
    slow, fast = max(min(beats / 300, 0.1), newest), max(min(beats / 100, 0.1), newest)
    off_in, step_in, level_in, hour_in = off, step, x - m.level, x - hour[0]
    if m.n >= 10:
        off_in, step_in = limited(off, 4.5 * off_sd), limited(step, 4.5 * step_sd)
        level_in = limited(level_in, 4.5 * off_sd)
        hour_in = off_in if settled else hour_in
    m.level += slow * level_in
    m.off_var += slow * (off_in**2 - m.off_var)
    m.step_var += fast * (step_in**2 - m.step_var)
    hour[0] += max(min(0.04 * beats, 0.5), 1 / (hour[1] + 1)) * hour_in
    hour[1] += 1
    m.n, m.off, m.last_t = m.n + 1, off, t
    return said / 7.25


@pytest.mark.parametrize("seed", range(4))
def test_equals_its_scalar_reference(seed: int) -> None:
    """Apart from the last digits, for the reference sums in another order."""
    given = stream(seed)
    given.sound[:] = True
    given.value[np.abs(given.value) > 1e200] = 77.0
    memory = [Memory() for _ in range(POINTS)]
    expected = [
        reference(memory[p], int(t), float(v))
        for p, t, v in zip(given.point, given.time, given.value, strict=True)
    ]
    found = scored(given, state())
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (found >= 1).any()
    assert (found == 0).mean() > 0.5


each_way = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "columns and single rows"])


@each_way
@pytest.mark.parametrize("seed", range(4))
def test_every_way_of_running_it_gives_the_same_bits(seed: int, compiled: bool) -> None:
    """One point alone is judged row by row, many at once as columns, with numba compiled."""
    given = stream(seed)
    whole, apart = state(), state()
    expected = scored(given, whole, compiled)
    one_by_one = np.zeros(len(given), np.float32)
    for point in range(POINTS):
        of = given.point == point
        if of.any():
            one_by_one[of] = scored(given.take(of), apart, compiled=False)
    assert expected.tobytes() == one_by_one.tobytes()
    assert same(whole, apart)
    assert np.bincount(given.point, minlength=POINTS).max() > 100
    assert len(np.unique(given.point)) > VECTOR_MIN
    assert (expected > 0).any()


@each_way
@pytest.mark.parametrize("seed", range(4))
def test_any_split_and_any_restore_give_the_same_scores(seed: int, compiled: bool) -> None:
    given = stream(seed)
    whole, parts = state(), state()
    expected = scored(given, whole, compiled)
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(given), 60))
    found = []
    for a, b in zip([0, *cuts], [*cuts, len(given)], strict=True):
        if b > a:
            found.append(scored(given.take(slice(a, b)), parts, compiled))
        if rng.random() < 0.2:
            saved = {name: array.copy() for name, array in parts.arrays().items()}
            parts = state()
            parts.restore(saved)
    assert np.concatenate(found).tobytes() == expected.tobytes()
    assert same(whole, parts)


def test_points_do_not_touch_each_other() -> None:
    given = stream(5)
    mixed, sorted_ = state(), state()
    expected = scored(given, mixed)
    by_point = np.argsort(given.point, kind="stable")
    assert scored(given.take(by_point), sorted_).tobytes() == expected[by_point].tobytes()
    assert same(mixed, sorted_)


def test_is_pure_but_for_its_own_state() -> None:
    given = stream(6)
    for array in (given.point, given.time, given.value, given.sound):
        array.setflags(write=False)
    first, second = scored(given, state()), scored(given, state())
    assert first.tobytes() == second.tobytes()
    assert first.dtype == np.float32
    assert np.isfinite(first).all(), "whatever the values"


def steady(n: int, point: int = 0) -> Stream:
    """A reading every five minutes around 20."""
    rng = np.random.default_rng(1)
    time = T0 + np.arange(n, dtype=np.int64) * 300 * S
    return Stream(np.full(n, point, np.int32), time, 20 + rng.normal(0, 1, n), np.ones(n, np.bool_))


def test_an_outlier_is_said_once_when_it_begins() -> None:
    given = steady(1000)
    given.value[800:] += 12
    found = scored(given, state())
    assert found[800] >= 1
    assert (found[801:] >= 1).sum() <= 3, "a lasting shift is one anomaly, not two hundred"
    assert (found[100:800] >= 1).sum() <= 3


def test_nothing_is_said_before_there_is_a_past() -> None:
    given = steady(24)
    given.value[20] = 1000.0
    assert not scored(given, state()).any()


def test_a_constant_that_changes_is_surprising_and_a_constant_is_not() -> None:
    given = steady(500)
    given.value[:] = 5.0
    given.value[400] = 5.1
    found = scored(given, state())
    assert found[400] > 1
    assert not found[:400].any()


def test_readings_in_doubt_teach_nothing_until_they_are_all_there_is() -> None:
    """Six hours: then what was in doubt is the new normal."""
    given = steady(600)
    given.sound[300:500] = False
    given.value[300:] = 90 + given.value[300:]
    into = state()
    before = scored(given.take(slice(0, 300)), into)
    known = into["score"].copy()
    doubted = scored(given.take(slice(300, 372)), into)
    frozen = into["score"].copy()
    frozen[surprise.FROZEN] = known[surprise.FROZEN]
    assert (frozen == known).all()
    assert (doubted >= 1).all(), "far off, and nothing was learned of it"
    after = scored(given.take(slice(372, 600)), into)
    assert (after >= 1).sum() <= 3, "the baselines began anew"
    assert abs(into["score"][surprise.LEVEL, 0] - 110) < 3
    assert len(before) == 300


def test_the_hour_is_that_of_the_citys_clock() -> None:
    given = steady(1)
    into = state()
    scored(given, into)
    assert np.flatnonzero(into["score_hour_seen"][:, 0]).tolist() == [8]


def test_the_alarm_line_is_where_the_calibration_says() -> None:
    assert pytest.approx(math.log(100)) == surprise.TAIL_NATS
    assert math.exp(-ALARM) == pytest.approx(1 / 1400, rel=0.02)


def test_without_numba_the_same_functions_run() -> None:
    plain = surprise.plain_courses()
    assert isinstance(plain, FunctionType)
    assert isinstance(plain.__globals__["turn"], FunctionType)
