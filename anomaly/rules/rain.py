"""Rain: sums of 1, 3, 6, 12 and 24 hours of each gauge, held against the rainstorm steps and flash-flood tables.

Owns the sums. Where an area has a flash-flood table, its steps count beside the rainstorm steps. A gauge that
reaches a step is said to have reached it as measured: warnings are issued by the weather service alone. Sums are
exact: rain is counted in whole thousandths of a millimetre, so no sum depends on the order of additions and nothing
needs to be computed anew from time to time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, I64, NO_TIME, U8, Arrays, Bool, Field, Index, Rows
from anomaly.rules.base import Assessed, RowRule
from anomaly.rules.gauge import COUNTER_MM_MAX, PER_MM, READING_MM_MAX, SPAN_US, SPANS, added, dated
from anomaly.rules.parts import I32, LEVELS, Part, latched, nothing, of_kinds, part_of, rule_settings, spread
from anomaly.rules.rings import ALL, NO_SPAN, Spans, spans
from anomaly.rules.settings import FlashSettings, RuleSettings
from anomaly.rules.tables import entries
from storage.fast import compiled, unsigned
from storage.points import PointTable

HOURS: Final = (1, 3, 6, 12, 24)
"""Sums move in steps of five minutes, and a window never holds more than its hours: an hour is twelve spans."""
NO_STEP: Final = 1 << 60
GRADES_ZH: Final = ("小雨", "中雨", "大雨", "暴雨", "大暴雨", "特大暴雨")


def grade(mm: float, hours: int) -> str:
    """The word for measured rain, "" below the lowest. Raises KeyError for hours without a table.

    >>> grade(50.0, 24)
    '暴雨'
    """
    lower = {entry["hours"]: entry["lower_mm"] for entry in entries("rain", "grade")}[hours]
    reached = sum(mm >= bound for bound in lower)
    return GRADES_ZH[reached - 1] if reached else ""


def _settings(
    points: PointTable, kinds: Mapping[str, Any], rules: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """All amounts in thousandths of a millimetre.

    rain_gauge   bool[points]: measures rain
    rain_counts  bool[points]: its reading is a counter
    rain_jump    int64[1]: more than this a minute no counter grows by
    rain_gap     int64[1]: a step is left this much below it
    rain_steps   int64[1 + tables, windows, 4]: blue to red; the first without a flash-flood table; NO_STEP for none
    rain_table   int16[points]: which of them
    rain_lowest  int64[points]: the least of a point's steps
    """
    settings = rule_settings(rules)
    counts = of_kinds(points, settings.rain.cumulative)
    gauge = of_kinds(points, settings.rain.increment) | counts
    number = points.number_of() if settings.point else {}
    for point_id, own in settings.point.items():
        if own.rain is not None and point_id in number:
            at = number[point_id]
            gauge[at] = own.rain != "none" and not points.retired[at]
            counts[at] = own.rain == "cumulative"
    steps, table = _tables(points, settings, number)
    return {
        "rain_gauge": gauge,
        "rain_counts": counts,
        "rain_jump": np.array([round(settings.rain.mm_per_minute_max * PER_MM)], np.int64),
        "rain_gap": np.array([round(settings.rain.leave_gap_mm * PER_MM)], np.int64),
        "rain_steps": steps,
        "rain_table": table,
        "rain_lowest": steps.min(axis=(1, 2))[table],
    }


def _tables(
    points: PointTable, settings: RuleSettings, number: Mapping[str, int]
) -> tuple[I64, npt.NDArray[np.int16]]:
    signals = np.full((len(HOURS), LEVELS), NO_STEP, np.int64)
    for entry in entries("rain", "signal"):
        signals[HOURS.index(entry["hours"]), entry["severity"] - 1] = round(entry["mm"] * PER_MM)
    steps = [signals, *(np.minimum(signals, _flash(flash)) for flash in settings.flash)]
    table = np.zeros(len(points), np.int16)
    of_name = {flash.name: i for i, flash in enumerate(settings.flash, 1)}
    for flash in settings.flash:
        named = np.array([district in flash.districts for district in points.districts] or [False])
        table[named[points.district]] = of_name[flash.name]
    for point_id, own in settings.point.items():
        if own.flash is not None and point_id in number:
            table[number[point_id]] = of_name[own.flash]
    return np.array(steps), table


def _flash(flash: FlashSettings) -> I64:
    """Steps of a flash-flood table, int64[windows, 4]."""
    found = dict(zip(flash.hours, flash.mm, strict=True))
    for entry in entries("rain", "flash"):
        if entry["name"] == flash.table:
            found = dict(zip(entry["hours"], entry["mm"], strict=True)) | found
    steps = np.full((len(HOURS), LEVELS), NO_STEP, np.int64)
    for window, row in found.items():
        steps[HOURS.index(window)] = [round(amount * PER_MM) for amount in row]
    return steps


def sums(at: Spans, now: I32, ring: I32, hours: int, of: Index | slice = ALL) -> I64:
    """Rain of the last ``hours`` at the rows ``of``, int64; ``now`` int32[m] is all rain ever, up to each row."""
    # In 32 bits on purpose: a difference is right whatever wrapped, and the ring is half as large.
    rain: I64 = (now[of] - at.before(ring, now, hours * 12, of)).astype(np.int64)
    return rain


def sums_at(now_us: int, state: Arrays, windows: tuple[int, ...] = HOURS) -> F64:
    """Rain of the last ``windows`` hours of every gauge as of a moment, mm, float64[windows, places].

    A gauge that has not spoken since has the rain it told of in that time.
    """
    newest = state["rain_span"]
    span = (now_us - 1) // SPAN_US
    place = np.arange(len(newest))
    total = state["rain_total"].astype(np.int32)
    found = np.zeros((len(windows), len(newest)))
    for window, hours in enumerate(windows):
        asked = np.maximum(span - hours * 12, newest - SPANS + 1)
        rained = total - state["rain_ring"][np.minimum(asked, newest) % SPANS, place]
        found[window] = np.where(asked < newest, rained, 0) / PER_MM
    return found


def rain(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """The highest step that any window reached, the sum in that window in mm, and the step.

    In class 0 the value is the sum of the window nearest to a step, or of 24 h where that lies below all steps.
    """
    part = part_of(rows, limits["rain_gauge"])
    if part is None:
        return nothing(len(rows))
    told = part
    more, counter = added(part, limits, state)
    part, span, more, own = dated(told, more, limits, state)
    at = spans(part, span, state["rain_span"], state["rain_gauge_place"])
    total = _running(part, more) + part.rows_of(state["rain_total"][at.place])
    now = total.astype(np.int32)
    day = sums(at, now, state["rain_ring"], HOURS[-1])
    enter, stay = np.zeros(len(day), np.uint8), np.zeros(len(day), np.uint8)
    value, limit = day / PER_MM, np.full(len(day), np.nan)
    gap = limits["rain_gap"][0]
    near = np.flatnonzero(day >= part.each(limits["rain_lowest"]) - gap)
    if len(near):
        windows = [sums(at, now, state["rain_ring"], hours, near) for hours in HOURS[:-1]]
        found = np.stack([*windows, day[near]], axis=1)
        steps = limits["rain_steps"][limits["rain_table"][part.points[part.group[near]]]]
        enter[near], stay[near], value[near], limit[near] = _steps(found, steps, gap)
    last, of = part.last, at.place
    classes = latched(enter, stay, state["rain_latch"][of], part)
    at.keep(state["rain_ring"], now)
    at.advance(state["rain_span"])
    state["rain_total"][of], state["rain_counter"][of] = total[last], counter[told.last]
    state["rain_time"][of], state["rain_latch"][of] = part.time[last], classes[last]
    if own is not None:
        classes, value, limit = classes[own], value[own], limit[own]
    return spread(len(rows), told, classes, value, limit)


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> Assessed | None:
    mask = limits["rain_gauge"]
    met = _gauges(rows.point, mask, limits["rain_counts"])
    if met < 1:
        # Counters are left to the columns: what they tell of after a silence makes rows of its own.
        return nothing(len(rows)) if met == 0 else None
    n = len(rows)
    found = Assessed(np.zeros(n, np.uint8), np.full(n, np.nan), np.full(n, np.nan))
    known = mask, limits["rain_lowest"], limits["rain_table"], limits["rain_steps"], limits["rain_gap"][0]
    kept = (state[f"rain_{name}"] for name in ("ring", "span", "total", "counter", "time", "latch"))
    said = found.classes, found.value, found.limit
    columns = rows.point, rows.time, rows.value
    _each(*columns, *known, state["rain_gauge_place"], *kept, *said)
    return found


@compiled
def _gauges(point: Index, mask: Bool, counts: Bool) -> int:
    """How many rows are of gauges, -1 where one of them is a counter."""
    met = 0
    for i in range(len(point)):
        if mask[unsigned(point[i])]:
            if counts[unsigned(point[i])]:
                return -1
            met += 1
    return met


@compiled
def _each(
    point: Index,
    time: I64,
    value: F64,
    mask: Bool,
    lowest: I64,
    table: npt.NDArray[np.int16],
    steps: I64,
    gap: int,
    place: I32,
    ring: I32,
    newest: I64,
    total: I64,
    counter: I64,
    spoke: I64,
    latch: U8,
    classes: U8,
    said: F64,
    said_limit: F64,
) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        if not mask[p]:
            continue
        at = unsigned(place[p])
        told = np.int64(np.rint(min(max(value[i], 0.0), COUNTER_MM_MAX) * PER_MM))
        total[at] += told if told <= READING_MM_MAX * PER_MM else 0
        counter[at], spoke[at] = told, time[i]
        span, was = (time[i] - 1) // SPAN_US, newest[at]
        if span != was and was != NO_SPAN:
            for b in range(max(was + 1, span - SPANS + 1), span):
                ring[unsigned(b % SPANS), at] = ring[unsigned(was % SPANS), at]
        now = np.int32(total[at])
        ring[unsigned(span % SPANS), at], newest[at] = now, span
        day = np.int64(np.int32(now - ring[unsigned((span - 12 * HOURS[-1]) % SPANS), at]))
        value_mm, limit, enter, stay = day / PER_MM, np.nan, 0, 0
        if day >= lowest[p] - gap:
            best = -np.inf
            share_max = 0.0
            for w in range(len(HOURS)):
                sum_w = np.int64(np.int32(now - ring[unsigned((span - 12 * HOURS[w]) % SPANS), at]))
                share_max = max(share_max, sum_w / steps[table[p], w].min())
            for w in range(len(HOURS)):
                sum_w = np.int64(np.int32(now - ring[unsigned((span - 12 * HOURS[w]) % SPANS), at]))
                step = steps[table[p], w]
                reached, least = 0, step.min()
                for k in range(LEVELS):
                    if sum_w >= step[k]:
                        reached = k + 1
                    if sum_w >= step[k] - gap:
                        stay = max(stay, k + 1)
                enter = max(enter, reached)
                order = reached + sum_w / least / (share_max + 1)
                if order > best:
                    best, value_mm = order, sum_w / PER_MM
                    bound = step[reached - 1] if reached else least
                    limit = np.nan if bound == NO_STEP else bound / PER_MM
        held = max(enter, min(latch[at], stay))
        classes[i], said[i], said_limit[i] = held, value_mm, limit
        latch[at] = held


def _running(part: Part, more: I64) -> I64:
    """The sum of ``more`` along each point up to and with each row, int64[m]."""
    if part.single:
        return more
    running = np.cumsum(more)
    found: I64 = running - (running[part.first] - more[part.first])[part.group]
    return found


def _steps(found: I64, steps: I64, gap: np.int64) -> tuple[U8, U8, F64, F64]:
    """Class entered and class kept by sums ``found`` [j, windows] against ``steps`` [j, windows, 4]; value; limit.

    The window that decides is that of the highest class, then the one nearest to (or furthest above) its lowest step.
    """
    reached = ((found[:, :, None] >= steps) * _CLASSES).max(axis=2)
    kept = ((found[:, :, None] >= steps - gap) * _CLASSES).max(axis=2)
    lowest = steps.min(axis=2)
    share = found / lowest
    window = np.argmax(reached + share / (share.max(axis=1, keepdims=True) + 1), axis=1)
    row = np.arange(len(found))
    top = reached[row, window]
    limit = np.where(top > 0, steps[row, window, np.maximum(top, 1) - 1], lowest[row, window])
    return (
        reached.max(axis=1).astype(np.uint8),
        kept.max(axis=1).astype(np.uint8),
        found[row, window] / PER_MM,
        np.where(limit == NO_STEP, np.nan, limit / PER_MM),
    )


_CLASSES: Final = np.arange(1, LEVELS + 1)
RULES = (
    RowRule(
        "rain",
        _settings,
        rain,
        (
            Field("rain_ring", "i4", 0, (SPANS,), of="rain_gauge"),
            Field("rain_span", "i8", NO_SPAN, of="rain_gauge"),
            Field("rain_total", "i8", 0, of="rain_gauge"),
            Field("rain_counter", "i8", 0, of="rain_gauge"),
            Field("rain_time", "i8", NO_TIME, of="rain_gauge"),
            Field("rain_latch", "u1", 0, of="rain_gauge"),
        ),
        unit="mm",
        title_zh="雨量达到暴雨标准(实测)",
        title_en="rain reached a rainstorm step (measured)",
        loop=_loop,
        of="rain_gauge",
    ),
)
