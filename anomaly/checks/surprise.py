"""How surprised a point is by one reading after the other: the formulas of the score, and what they remember.

Owns the baselines' constants, their state and the loop over a point's readings. Knows nothing of batches; the same
loop runs compiled where numba is installed and as plain Python where it is not (anomaly.checks.score says when).

Only + - * / and square roots are used, in 64 bits: those are exact to the last bit compiled, vectorised and in plain
Python, so neither the cut of a stream nor the number of readings of a point in a batch can change a score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableSequence, Sequence
from functools import cache
from types import FunctionType
from typing import Final

from anomaly.checks.rows import Field
from storage.fast import IS_COMPILED, compiled, inlined, unsigned

BEAT_S_MIN: Final = 60.0
"""All memories are counted in beats: the point's own interval, but at least a minute, so that a sensor of 1 Hz has a
baseline of hours and not of minutes."""
BEATS_MAX: Final = 10.0
"""Weight of one reading after a gap, at most: it shall not become the baseline."""
INTERVAL_RATE: Final = 0.05
LEVEL_RATE: Final = 1 / 300.0
STEP_RATE: Final = 1 / 100.0
RATE_MAX: Final = 0.1
DRIFT_RATE: Final = 1 / 15.0
DRIFT_RATE_MAX: Final = 0.5
DRIFT_CLIP: Final = 8.0
HOUR_RATE: Final = 0.04
"""Share of one beat in its hour's mean: two days of five-minute readings."""
HOUR_RATE_MAX: Final = 0.5
HOUR_SEEN_MIN: Final = 3
"""Readings after which an hour has a mean of its own."""
HOUR_SEEN_MAX: Final = 65_535
STEP_WEIGHT: Final = 0.75
"""Of the step in the first distance; the rest is the distance from the hour."""
CLIP: Final = 4.5
"""In deviations: more of a reading is not learned, so an outlier moves no baseline."""
CLIP_FROM: Final = 10.0
VALUE_MAX: Final = 1e100
"""Larger values count as this: their squares must stay finite."""
Z_MAX: Final = 50.0
"""A constant that changes is infinitely surprising; this much is enough."""
SPREAD_FLOOR: Final = 1e-3
"""Of the range seen: finer spread than this is quantisation."""
TINY: Final = 1e-12
TAIL: Final = 0.99
TAIL_NATS: Final = 4.605170185988091
"""-ln(1 - TAIL)."""
TAIL_RATE: Final = 0.03
TAIL_MIN: Final = 0.5
EXCESS_RATE: Final = 1 / 15.0
"""An exceedance, not a span of time: what happens once in a hundred readings cannot be averaged by the clock."""
EXCESS_CLIP: Final = 8.0
EXCESS_FLOOR: Final = 0.05
WARM_READINGS: Final = 24.0
RANGE_READINGS: Final = 50.0
RANGE_NATS: Final = 5.0
RANGE_WEIGHT: Final = 20.0
"""Surprise of a value never seen: RANGE_NATS, and this much for a whole range beyond it."""
GATE_RATE: Final = 1 / 250.0
SURPRISE_MAX: Final = 50.0
"""More is not more surprising, and a gate that stood higher would stay shut for days."""
RESEED_US: Final = 6 * 3600 * 1e6
"""Readings in doubt are not learned from. After this long without a sound one what is in doubt is the new normal, and
the baselines begin again with it."""
HOURS: Final = 24
BLOCK: Final = 64
"""Points whose numbers stand as columns while the formulas run: 10 KB, within the first-level cache."""
SOUND: Final = 0.0
THAWED: Final = -1.0
"""Of FROZEN, else a time: not in doubt; in doubt for longer than RESEED_US, learning again."""

(
    N,  # readings learned from
    INTERVAL,  # s between them
    LEVEL,  # mean
    OFF_VAR,  # of the distance from the hour's mean
    STEP_VAR,  # of the change of that distance
    OFF,  # that distance, last
    DRIFT,  # its slow mean, in deviations
    LOW,  # range seen
    HIGH,
    TAIL_1,  # 99th percentile of the first distance, and mean excess over it
    EXCESS_1,
    TAIL_2,  # the same of the drift
    EXCESS_2,
    GATE,  # what a surprise must exceed
    LAST_T,  # time of the reading learned from last, µs: exact in a float until the year 2255
    FROZEN,  # since when in doubt, µs
    NUMBERS,
) = range(17)
X, NOW, MEAN, VISITS, COLUMNS = range(NUMBERS, NUMBERS + 5)
"""What stands beside them in a block: the reading, its time, its hour's mean and number of readings."""

FIELDS: Final = (
    Field("score", "f8", 0.0, (NUMBERS,), side_by_side=True),
    Field("score_hour", "f8", 0.0, (HOURS,)),
    Field("score_hour_seen", "u2", 0, (HOURS,)),
)
"""score: the numbers above, two cache lines a point. score_hour, score_hour_seen: mean and readings by hour of the
city's day."""


@inlined
def bounded(value: float) -> float:
    """A value as it is judged. -0.0 becomes 0.0: equal numbers shall have equal bits."""
    return min(max(value, -VALUE_MAX), VALUE_MAX) + 0.0


@inlined
def pace_of(n: float, interval: float, passed_s: float) -> tuple[float, float]:
    """The learned interval after a step of ``passed_s``, and that step in beats."""
    change = INTERVAL_RATE * interval
    after = interval + change if passed_s > interval else interval
    after = interval - change if passed_s < interval else after
    after = passed_s if n == 1.0 else after
    after = 0.0 if n == 0.0 else after
    beats = min(passed_s / max(after, BEAT_S_MIN), BEATS_MAX)
    return after, 1.0 if n == 0.0 else beats


@inlined
def tail_of(distance: float, tail: float, excess: float, rate: float) -> tuple[float, float, float]:
    """-ln of how rare a distance is beyond the point's own tail, 0 within it; tail and mean excess after it."""
    scale = max(tail, TAIL_MIN)
    beyond = distance - tail
    nats = TAIL_NATS + beyond / max(excess, EXCESS_FLOOR * scale)
    nats = nats if beyond > 0.0 else 0.0
    tail = tail + rate * scale * (TAIL if beyond > 0.0 else TAIL - 1.0)
    beyond = distance - tail
    more = excess + (min(beyond, EXCESS_CLIP * excess) - excess) * EXCESS_RATE
    more = beyond if excess == 0.0 else more
    return nats, tail, more if beyond > 0.0 else excess


@inlined
def clipped(distance: float, most: float) -> float:
    """``distance``, at most ``most`` either way."""
    return max(min(distance, most), -most)


@inlined
def turn(
    known: MutableSequence[float],
    at: int,
    apart: int,
    x: float,
    passed_s: float,
    mean: float,
    visits: float,
    learns: bool,
) -> tuple[float, float]:
    """One reading: its surprise (0 where the gate holds it), and its hour's mean after it.

    known   the point's numbers stand at ``at``, ``at + apart`` ...; they move on in place if it is learned from
    mean, visits  of its hour before it
    """
    n, level = known[at + N * apart], known[at + LEVEL * apart]
    low, high = known[at + LOW * apart], known[at + HIGH * apart]
    off_var, step_var = known[at + OFF_VAR * apart], known[at + STEP_VAR * apart]
    off_before, drift_before = known[at + OFF * apart], known[at + DRIFT * apart]
    tail_1, excess_1 = known[at + TAIL_1 * apart], known[at + EXCESS_1 * apart]
    tail_2, excess_2 = known[at + TAIL_2 * apart], known[at + EXCESS_2 * apart]
    interval, gate = known[at + INTERVAL * apart], known[at + GATE * apart]
    new, settled, clips = n == 0.0, visits >= HOUR_SEEN_MIN, n >= CLIP_FROM
    level, low, high = x if new else level, x if new else low, x if new else high
    interval, beats = pace_of(n, interval, passed_s)
    burn = 1.0 / (n + 1.0)
    span, over = high - low, max(x - high, low - x)
    low, high = min(low, x), max(high, x)
    floor = SPREAD_FLOOR * (high - low) + TINY

    off = x - (mean if settled else level)
    step = off - off_before
    off_sd, step_sd = max(math.sqrt(off_var), floor), max(math.sqrt(step_var), floor)
    z = clipped(off / off_sd, Z_MAX)
    z_step = min(abs(step) / step_sd, Z_MAX)
    drift = drift_before + min(DRIFT_RATE * beats, DRIFT_RATE_MAX) * (clipped(z, DRIFT_CLIP) - drift_before)

    rate = max(TAIL_RATE * beats, burn)
    distance = (1.0 - STEP_WEIGHT) * abs(z) + STEP_WEIGHT * z_step
    surprise, tail_1, excess_1 = tail_of(distance, tail_1, excess_1, rate)
    other, tail_2, excess_2 = tail_of(abs(drift), tail_2, excess_2, rate)
    surprise = max(surprise, other) if n >= WARM_READINGS else 0.0
    unseen = (over > 0.0) & (span > 0.0) & (n > RANGE_READINGS)
    beyond = RANGE_NATS + RANGE_WEIGHT * over / (span if unseen else 1.0)
    surprise = min(max(surprise, beyond) if unseen else surprise, SURPRISE_MAX)
    gate = gate * (1.0 - GATE_RATE * beats)
    said = surprise if surprise > gate else 0.0

    off_most = CLIP * off_sd if clips else math.inf
    step_in = clipped(step, CLIP * step_sd if clips else math.inf)
    off_in, level_in = clipped(off, off_most), clipped(x - level, off_most)
    hour_in = off_in if clips & settled else x - mean
    slow, fast = max(min(LEVEL_RATE * beats, RATE_MAX), burn), max(min(STEP_RATE * beats, RATE_MAX), burn)
    after = mean + max(min(HOUR_RATE * beats, HOUR_RATE_MAX), 1.0 / (visits + 1.0)) * hour_in
    if not learns:
        return said, mean
    known[at + N * apart], known[at + LEVEL * apart] = n + 1.0, level + slow * level_in
    known[at + LOW * apart], known[at + HIGH * apart] = low, high
    known[at + OFF_VAR * apart] = off_var + slow * (off_in * off_in - off_var)
    known[at + STEP_VAR * apart] = step_var + fast * (step_in * step_in - step_var)
    known[at + OFF * apart], known[at + DRIFT * apart] = off, drift
    known[at + TAIL_1 * apart], known[at + EXCESS_1 * apart] = tail_1, excess_1
    known[at + TAIL_2 * apart], known[at + EXCESS_2 * apart] = tail_2, excess_2
    known[at + INTERVAL * apart], known[at + GATE * apart] = interval, max(gate, surprise)
    return said, after


@compiled
def learns_from(known: MutableSequence[float], at: int, now: float, sound: bool) -> bool:
    """Whether a reading at ``now`` is learned from; a point in doubt for too long begins anew."""
    if sound:
        known[at + FROZEN] = SOUND
        return True
    if known[at + FROZEN] == THAWED:
        return True
    if known[at + FROZEN] == SOUND:
        known[at + FROZEN] = now
    if now - known[at + FROZEN] < RESEED_US:
        return False
    for k in range(NUMBERS):
        known[at + k] = 0.0
    known[at + FROZEN] = THAWED
    return True


@compiled
def abreast(
    here: int,
    groups: Sequence[int],
    points: Sequence[int],
    first: Sequence[int],
    known: MutableSequence[float],
    hours: MutableSequence[float],
    seen: MutableSequence[int],
    time: Sequence[int],
    value: Sequence[float],
    hour: Sequence[int],
    found: MutableSequence[float],
    column: MutableSequence[float],
) -> None:
    """One sound reading of each of the first ``here`` of ``groups``, whose numbers are columns while the formulas run:
    several points in one instruction. column  room for COLUMNS * BLOCK numbers
    """
    width, several = unsigned(len(known) // NUMBERS), len(hour) > 1
    cell = unsigned(hour[0]) * width
    for i in range(here):
        group = unsigned(groups[i])
        point, row = unsigned(points[group]), unsigned(first[group])
        at = point * unsigned(NUMBERS)
        for k in range(NUMBERS):
            column[k * BLOCK + i] = known[at + unsigned(k)]
        if several:
            cell = unsigned(hour[row]) * width
        column[X * BLOCK + i], column[NOW * BLOCK + i] = bounded(value[row]), float(time[row])
        column[MEAN * BLOCK + i], column[VISITS * BLOCK + i] = hours[cell + point], float(seen[cell + point])
    for i in range(here):
        passed_s = (column[NOW * BLOCK + i] - column[LAST_T * BLOCK + i]) * 1e-6
        said, mean = turn(
            column,
            i,
            BLOCK,
            column[X * BLOCK + i],
            passed_s,
            column[MEAN * BLOCK + i],
            column[VISITS * BLOCK + i],
            True,
        )
        column[X * BLOCK + i], column[MEAN * BLOCK + i] = said, mean
    for i in range(here):
        group = unsigned(groups[i])
        point, row = unsigned(points[group]), unsigned(first[group])
        at = point * unsigned(NUMBERS)
        for k in range(LAST_T):
            known[at + unsigned(k)] = column[k * BLOCK + i]
        known[at + unsigned(LAST_T)] = column[NOW * BLOCK + i]
        if several:
            cell = unsigned(hour[row]) * width
        found[row], hours[cell + point] = column[X * BLOCK + i], column[MEAN * BLOCK + i]
        seen[cell + point] = min(seen[cell + point] + 1, HOUR_SEEN_MAX)


@compiled
def courses(
    points: Sequence[int],
    first: Sequence[int],
    length: Sequence[int],
    known: MutableSequence[float],
    hours: MutableSequence[float],
    seen: MutableSequence[int],
    time: Sequence[int],
    value: Sequence[float],
    sound: Sequence[bool],
    hour: Sequence[int],
    found: MutableSequence[float],
    groups: MutableSequence[int],
    column: MutableSequence[float],
) -> float:
    """Groups of rows, one of each of ``points``: their surprise into ``found``; what is remembered moves on.

    known, hours, seen  flat: number k of a point is at point * NUMBERS + k, its hour h at h * width + point
    hour  of each row, or one for all
    groups, column  room for BLOCK groups, and COLUMNS * BLOCK numbers; none, and all rows are met one by one

    No part of an array is handed on: counting its references would cost more than the formulas. What is returned means
    nothing, but keeps the sum from being left out as without effect: it fetches the memory of a block's points ahead,
    for a loop that only adds has many cache lines under way at once, and one long chain of formulas has not.
    """
    width, here, fetched = len(known) // NUMBERS, 0, 0.0
    for group in range(len(points)):
        point = points[group]
        at = point * NUMBERS
        of = unsigned(at)
        calm = length[group] == 1 and sound[unsigned(first[group])] and known[of + unsigned(FROZEN)] == SOUND
        if calm and known[of + unsigned(N)] > 0.0 and len(groups) == BLOCK:
            there = unsigned(hour[0] * width + point)
            fetched += known[of + unsigned(NUMBERS // 2)] + hours[there] + seen[there]
            groups[here] = group
            here += 1
            if here == BLOCK:
                abreast(here, groups, points, first, known, hours, seen, time, value, hour, found, column)
                here = 0
            continue
        for row in range(first[group], first[group] + length[group]):
            now = float(time[row])
            learns = learns_from(known, at, now, sound[row])
            if known[at + N] == 0.0:
                known[at + LAST_T] = now
                for h in range(HOURS):
                    seen[h * width + point] = 0
            cell = (hour[0] if len(hour) == 1 else hour[row]) * width + point
            passed_s = (now - known[at + LAST_T]) * 1e-6
            visits = float(seen[cell])
            said, mean = turn(known, at, 1, bounded(value[row]), passed_s, hours[cell], visits, learns)
            found[row] = said
            if learns:
                known[at + LAST_T], hours[cell], seen[cell] = now, mean, min(seen[cell] + 1, HOUR_SEEN_MAX)
    abreast(here, groups, points, first, known, hours, seen, time, value, hour, found, column)
    return fetched


@cache
def plain_courses() -> Callable[..., float]:
    """``courses`` and all it calls as plain Python, also where numba is installed."""
    if not IS_COMPILED:
        return courses
    names = {**globals(), "unsigned": int}
    for function in (bounded, pace_of, tail_of, clipped, turn, learns_from, abreast, courses):
        source = function.py_func  # type: ignore[attr-defined]
        names[source.__name__] = FunctionType(source.__code__, names)
    found: Callable[..., float] = names["courses"]
    return found
