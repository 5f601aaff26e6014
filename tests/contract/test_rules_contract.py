"""Every row rule, found by looking, keeps the contract of anomaly.rules.base: one suite for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from anomaly.checks.rows import Rows
from anomaly.rules import row_rules, tick_rules
from anomaly.rules.base import RowRule
from anomaly.rules.rain import NO_STEP
from anomaly.rules.tables import entries
from anomaly.rules.water import bounds
from anomaly.state import State
from storage.fast import IS_COMPILED
from tests.anomaly_city import S
from tests.rules_city import KINDS, OFFSET_US, city, judged, limits, new_state, stream

ROW_RULES = row_rules()
Seen = tuple[int, float, float]
Scalar = Callable[[int, int, float, dict[str, Any], dict[str, Any]], Seen]
"""(point, time, value, memory of the point, limits) -> class, value, limit. Written to be read, a reading at a time."""

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
NONE: Seen = (0, math.nan, math.nan)


def held(memory: dict[str, Any], enter: int, stay: int) -> int:
    memory["class"] = max(enter, min(memory.get("class", 0), stay))
    return int(memory["class"])


def scalar_rain(p: int, t: int, v: float, memory: dict[str, Any], known: dict[str, Any]) -> Seen:
    if not known["rain_gauge"][p]:
        return NONE
    told = round(v * 1000)
    fell = told
    if known["rain_counts"][p]:
        before_t, before = memory.get("counter", (None, told))
        fell = told - before
        if fell < -500:
            fell = told
        fell = max(fell, 0)
        if before_t is not None and fell > 40_000 * ((t - before_t) // (60 * S) + 1):
            fell = 0
        memory["counter"] = (t, told)
    elif told > 1_000_000:
        fell = 0
    falls = memory.setdefault("falls", [])
    span = (t - 1) // (300 * S)
    silent = span - memory.get("span", span - 1)
    memory["span"] = span
    if known["rain_counts"][p] and silent > 1:
        # Told of after a silence: the same in each span of it, what does not divide in the oldest that is kept.
        kept = min(silent, 289)
        falls.append((span - kept + 1, fell - fell // silent * (kept - 1)))
        falls.extend((span - ago, fell // silent) for ago in range(kept - 1))
    else:
        falls.append((span, fell))
    steps = known["rain_steps"][known["rain_table"][p]]
    sums = [sum(mm for s, mm in falls if s > span - 12 * hours) for hours in (1, 3, 6, 12, 24)]
    lowest = [int(step.min()) for step in steps]
    enter = [
        max((k for k in range(1, 5) if total >= step[k - 1]), default=0)
        for total, step in zip(sums, steps, strict=True)
    ]
    stay = [
        max((k for k in range(1, 5) if total >= step[k - 1] - 1000), default=0)
        for total, step in zip(sums, steps, strict=True)
    ]
    cls = held(memory, max(enter), max(stay))
    if sums[-1] < min(lowest) - 1000:
        return cls, sums[-1] / 1000, math.nan
    share = [total / low for total, low in zip(sums, lowest, strict=True)]
    window = max(range(5), key=lambda w: (enter[w], share[w]))
    limit = int(steps[window][enter[window] - 1]) if enter[window] else lowest[window]
    return cls, sums[window] / 1000, math.nan if limit == NO_STEP else limit / 1000


def scalar_noise(p: int, t: int, v: float, memory: dict[str, Any], known: dict[str, Any]) -> Seen:
    if not known["noise_point"][p]:
        return NONE
    zone = known["noise_day"][p], known["noise_night"][p]
    clock = t + OFFSET_US
    block = clock // (600 * S)

    def night(at: int) -> bool:
        return not 6 <= at // (3600 * S) % 24 < 22

    if block != memory.get("block"):
        memory["over"] = (memory.get("block"), memory.get("energies", []))
        memory["block"], memory["energies"] = block, []
    memory["energies"].append(round(10 ** (min(v, 140.0) / 10)))
    if known["noise_slow"][p]:
        level, at = v, clock
    else:
        over, energies = memory["over"]
        if not energies or over < block - 2:
            level, at = math.nan, 0
        else:
            level, at = round(10 * math.log10(sum(energies) / len(energies)), 2), over * 600 * S
    limit = zone[night(at)]
    enter = sum(level - limit > above for above in (0, 5, 10, 15))
    stay = sum(level - limit + 1 > above for above in (0, 5, 10, 15))
    cls = held(memory, enter, stay)
    if cls == 0 and night(clock) and v > zone[1] + 15:
        return 1, v, zone[1] + 15
    return cls, level, (limit if not math.isnan(level) else math.nan)


def scalar_rise(p: int, t: int, v: float, memory: dict[str, Any], known: dict[str, Any]) -> Seen:
    if not known["rise_point"][p]:
        return NONE
    value, second, minute = float(np.float32(v)), t // S, t // (60 * S)
    past = memory.setdefault("past", [])
    rises = []
    for back in (3, 10):
        older = [seen for seen in past if seen[0] <= minute - back]
        # A minute without a reading takes that of the minute before it, as far back as the first of all.
        rises.append((value - older[-1][2]) / ((second - older[-1][1]) / 60) if older else math.nan)
    if not past or past[-1][0] != minute:
        past.append((minute, second, value))
    slope = min(rises) if not any(math.isnan(r) for r in rises) else math.nan
    enter, stay, minutes, limit = 0, 0, math.nan, math.nan
    for k in range(4):
        level = float(known["level"][k, p])
        if not slope > 0 or level <= value or (level > 0 and value < level / 3):
            continue
        left = (level - value) / slope
        if left <= known["rise_minutes"][k]:
            enter = k + 1
        if left <= 2 * known["rise_minutes"][k]:
            stay = k + 1
        if left <= known["rise_minutes"][k] or math.isnan(minutes):
            minutes, limit = left, level
    return held(memory, enter, stay), minutes, limit


def scalar_air(p: int, t: int, v: float, memory: dict[str, Any], known: dict[str, Any]) -> Seen:
    if not known["air_point"][p]:
        return NONE
    hour = (t + OFFSET_US) // (3600 * S)
    if hour != memory.get("hour"):
        memory["over"] = (memory.get("hour"), memory.get("values", []))
        memory["hour"], memory["values"] = hour, []
    memory["values"].append(round(v * 1000))
    over, values = memory["over"]
    index = math.nan
    if values and over >= hour - 2:
        mean = sum(values) / len(values) / 1000
        index = scalar_iaqi(
            ["pm25", "pm10", "so2", "no2", "co", "o3"][known["air_pollutant"][p]], mean, over // 24
        )
    steps = (150, 200, 300, 400) if known["air_alone"][p] else ()
    cls = held(memory, sum(index > step for step in steps), sum(index + 5 > step for step in steps))
    return cls, index, math.nan if math.isnan(index) else (150, 200, 300, 400)[max(cls, 1) - 1]


def scalar_iaqi(pollutant: str, mean: float, day: int) -> float:
    """By the formula of the standard, a segment at a time, in exact fractions."""
    hours = 24 if pollutant.startswith("pm") else 1
    on = date(1970, 1, 1) + timedelta(days=day)
    for entry in entries("air", "iaqi"):
        begin, end = entry.effective_from or date.min, entry.effective_to or date.max
        if entry["pollutant"] == pollutant and entry["hours"] == hours and begin <= on <= end:
            knots, index = entry["knots"], entries("air", "index")[0]["iaqi"]
            for k in range(1, len(knots)):
                if mean <= knots[k]:
                    share = (Fraction(mean) - Fraction(knots[k - 1])) / (
                        Fraction(knots[k]) - Fraction(knots[k - 1])
                    )
                    return math.ceil(round(float(index[k - 1] + share * (index[k] - index[k - 1])), 6))
            return float(index[len(knots) - 1])
    return math.nan


def scalar_dust(p: int, t: int, v: float, memory: dict[str, Any], known: dict[str, Any]) -> Seen:
    if not known["dust_point"][p]:
        return NONE
    span = (t + OFFSET_US) // (900 * S)
    if span != memory.get("span"):
        memory["over"] = (memory.get("span"), memory.get("values", []))
        memory["span"], memory["values"] = span, []
    memory["values"].append(round(v * 1000))
    over, values = memory["over"]
    mean = sum(values) / len(values) / 1000 if values and over >= span - 2 else math.nan
    steps = (250, 350, 420, 500)
    cls = held(memory, sum(mean > step for step in steps), sum(mean + 10 > step for step in steps))
    return cls, mean, math.nan if math.isnan(mean) else steps[max(cls, 1) - 1]


def scalar_water(p: int, t: int, v: float, memory: dict[str, Any], known: dict[str, Any]) -> Seen:
    if not known["water_point"][p]:
        return NONE
    least, greatest = bounds({"dissolved_oxygen": "do"}.get(KINDS[p], KINDS[p]))
    target = int(known["water_target"][p])

    def worse(gap: float) -> int:
        inside = [
            k
            for k in range(5)
            if (math.isinf(least[k]) or v >= least[k] + least[k] * gap)
            and (math.isinf(greatest[k]) or v <= greatest[k] - greatest[k] * gap)
        ]
        return min(max((inside[0] + 1 if inside else 6) - target, 0), 4)

    low, high = least[target - 1], greatest[target - 1]
    limit = low if v < low or math.isinf(high) else high
    return held(memory, worse(0.0), worse(0.02)), v, limit


def scalar_video(p: int, t: int, v: float, memory: dict[str, Any], known: dict[str, Any]) -> Seen:
    return (int(0 < v <= 1), v, 1.0) if known["video_point"][p] else NONE


SCALAR: dict[str, Scalar] = {
    "video": scalar_video,
    "rain": scalar_rain,
    "noise": scalar_noise,
    "rise": scalar_rise,
    "air": scalar_air,
    "water": scalar_water,
    "dust": scalar_dust,
}

FORMS = [
    form
    for rule in ROW_RULES
    for form in (replace(rule, loop=None), *([rule] if rule.loop and IS_COMPILED else []))
]
"""Each rule as columns, and as the loop in front of them that must say the same."""
each_rule = pytest.mark.parametrize(
    "rule", FORMS, ids=lambda rule: rule.name + ("-loop" if rule.loop else "")
)


def same(a: State, b: State) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in a.arrays())


def test_the_suite_knows_every_row_rule_and_names_are_unique() -> None:
    assert {rule.name for rule in ROW_RULES} == set(SCALAR)
    names = [rule.name for rule in (*ROW_RULES, *tick_rules())]
    assert len(names) == len(set(names))
    assert all(rule.title_zh and rule.title_en for rule in (*ROW_RULES, *tick_rules()))


@each_rule
@pytest.mark.parametrize("seed", range(3))
def test_equals_its_scalar_reference(rule: RowRule, seed: int) -> None:
    known = limits()
    batch = stream(seed)
    print(f"seed {seed}")
    memory: list[dict[str, Any]] = [{} for _ in KINDS]
    rows = list(zip(*(column.tolist() for column in batch), strict=True))
    expected = [SCALAR[rule.name](p, t, v, memory[p], known) for p, t, v in rows]
    found = judged(rule, batch, new_state(known), known)
    for i, (cls, value, limit) in enumerate(expected):
        said = (int(found.classes[i]), float(found.value[i]), float(found.limit[i]))
        assert said[0] == cls, (i, rows[i], said, expected[i])
        assert said[1] == pytest.approx(value, rel=1e-9, nan_ok=True), (i, rows[i], said, expected[i])
        assert said[2] == pytest.approx(limit, rel=1e-9, nan_ok=True), (i, rows[i], said, expected[i])
    steps = 2 if rule.alert_class == "fault" else 4
    assert len(set(found.classes.tolist())) >= steps, "the stream must make the rule speak"


@each_rule
@pytest.mark.parametrize("seed", range(3))
def test_any_split_gives_the_same_answers_and_state(rule: RowRule, seed: int) -> None:
    known = limits()
    batch = stream(seed)
    whole, parts = new_state(known), new_state(known)
    expected = judged(rule, batch, whole, known)
    rng = np.random.default_rng(seed)
    print(f"seed {seed}")
    cuts = np.unique(rng.integers(1, len(batch[0]), 200))
    pieces = [
        judged(rule, tuple(column[a:b] for column in batch), parts, known)  # type: ignore[arg-type]
        for a, b in zip([0, *cuts], [*cuts, len(batch[0])], strict=True)
    ]
    for name in ("classes", "value", "limit"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        assert joined.tobytes() == getattr(expected, name).tobytes(), name
    assert same(whole, parts)


LOOPS = [rule for rule in ROW_RULES if rule.loop and IS_COMPILED]


def without_repeats(batch: Batch) -> Iterator[Batch]:
    """Cut so that no point comes twice in a piece: what a live tick looks like."""
    seen: set[int] = set()
    begin = 0
    for i, p in enumerate([*batch[0].tolist(), None]):
        if p in seen or p is None:
            yield tuple(column[begin:i] for column in batch)  # type: ignore[misc]
            begin, seen = i, set()
        seen.add(p)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", LOOPS, ids=lambda rule: rule.name)
@pytest.mark.parametrize("seed", range(3))
def test_the_loop_says_what_the_columns_say_and_leaves_the_same_state(rule: RowRule, seed: int) -> None:
    print(f"seed {seed}")
    known = limits()
    point, time, value = stream(seed)
    kept = ~known["rain_counts"][point]  # counters are left to the columns
    columns, loops, taken = new_state(known), new_state(known), 0
    for piece in without_repeats((point[kept], time[kept], value[kept])):
        expected = judged(replace(rule, loop=None), piece, columns, known)
        rows = Rows.grouped(*piece, loops.arrays())
        rows.utc_offset_us = OFFSET_US
        assert rule.loop is not None
        found = rule.loop(rows, known, loops.arrays())
        taken += found is not None
        found = rule.judge(rows, known, loops.arrays()) if found is None else found
        rows.believe(loops.arrays())
        for name in ("classes", "value", "limit"):
            assert np.array_equal(
                getattr(found, name), getattr(expected, name), equal_nan=name != "classes"
            ), name
    assert same(columns, loops)
    assert taken > 100, "the loop must have something to say"


@each_rule
def test_one_row_at_a_time_equals_all_at_once(rule: RowRule) -> None:
    known = limits()
    batch = stream(9, 400)
    whole, single = new_state(known), new_state(known)
    expected = judged(rule, batch, whole, known)
    found = [
        judged(rule, tuple(column[i : i + 1] for column in batch), single, known).classes[0]  # type: ignore[arg-type]
        for i in range(400)
    ]
    assert found == expected.classes.tolist()
    assert same(whole, single)


@each_rule
def test_points_do_not_touch_each_other(rule: RowRule) -> None:
    known = limits()
    point, time, value = stream(5)
    by_point = np.argsort(point, kind="stable")
    mixed, sorted_ = new_state(known), new_state(known)
    expected = judged(rule, (point, time, value), mixed, known)
    found = judged(rule, (point[by_point], time[by_point], value[by_point]), sorted_, known)
    assert found.classes.tolist() == expected.classes[by_point].tolist()
    assert same(mixed, sorted_)


@each_rule
def test_is_pure_and_changes_only_its_own_state(rule: RowRule) -> None:
    known = limits()
    for array in known.values():
        array.setflags(write=False)
    batch = stream(6)
    state = new_state(known)
    before = {name: array.copy() for name, array in state.arrays().items()}
    first = judged(rule, batch, state, known)
    own = {field.name for field in rule.fields} | {"believed_t", "believed_v"}
    assert {name for name in before if before[name].tobytes() != state[name].tobytes()} <= own
    state.restore(before)
    again = judged(rule, batch, state, known)
    assert again.classes.tobytes() == first.classes.tobytes()
    assert again.value.tobytes() == first.value.tobytes()
    assert first.classes.dtype == np.uint8


@each_rule
def test_goes_on_from_a_snapshot_as_if_nothing_had_been(rule: RowRule) -> None:
    known = limits()
    batch = stream(7)
    straight, half = new_state(known), new_state(known)
    expected = judged(rule, batch, straight, known)
    head, tail = (tuple(c[:1500] for c in batch), tuple(c[1500:] for c in batch))
    first = judged(rule, head, half, known)  # type: ignore[arg-type]
    restored = State(len(KINDS))
    restored.restore({name: array.copy() for name, array in half.arrays().items()})
    restored.place(known)
    rest = judged(rule, tail, restored, known)  # type: ignore[arg-type]
    assert [*first.classes, *rest.classes] == expected.classes.tolist()
    assert same(straight, restored)


@each_rule
def test_points_of_other_kinds_cost_nothing_and_are_told_nothing(rule: RowRule) -> None:
    known = limits()
    lamp = KINDS.index("lamp")
    times = np.arange(1, 4, dtype=np.int64) * S
    found = judged(rule, (np.full(3, lamp, np.int32), times, np.full(3, 1e9)), new_state(known), known)
    assert not found.classes.any()
    assert np.isnan(found.value).all()


def test_every_table_names_its_source() -> None:
    assert city().kinds
    assert all(entry.source for entry in entries("rain", "signal"))
