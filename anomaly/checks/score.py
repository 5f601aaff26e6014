"""The anomaly score: how unusual a reading is for its own point, 1.0 being the alarm line.

Owns how a batch meets the formulas of anomaly.checks.surprise: compiled row by row, or as columns and single rows
where numba is not installed. Knows nothing of kinds, limits or alerts, and has no setting: it learns the point's
interval, its day, its spread and how far its own tails reach.

Three questions are asked of every reading. Is it, together with the step to it, far from what this hour of the day
usually shows? Has it been off for a while? Was anything like it ever seen? The first two distances are compared with
their own tail (the 99th percentile of the point's past, and by how much it is usually exceeded when it is), so a
point that often spikes has to spike higher. What is left is gated: after a surprise only a greater one counts, until
the gate has sunk, so that an anomaly is said once, when it begins.

The calibration follows the idea of peaks over a threshold with an exponential tail (Siffer et al., "Anomaly detection
in streams with extreme value theory", 2017).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from anomaly.checks import surprise as one
from anomaly.checks.rows import F64, I64, Arrays, Bool, Index, Rows
from storage.fast import IS_COMPILED

F32 = npt.NDArray[np.float32]

ALARM: Final = 7.25
"""Surprise at the alarm line, in nats: beyond about one reading in 1,400, before the gate. The best threshold over the
tuning suite lay here."""
HOUR_US: Final = 3_600_000_000
CHUNK: Final = 4_096
"""Points worked on at once without numba: their columns fit the second-level cache."""
VECTOR_MIN: Final = 12
"""Below this many points one after the other is faster than columns, without numba."""
FIELDS: Final = one.FIELDS


def score(rows: Rows, sound: Bool, state: Arrays, compiled: bool = IS_COMPILED) -> F32:
    """The score of each row, float32[n] >= 0: what it says at the onset of something unusual, else 0.

    sound  bool[n]: nobody doubts the row, so it may be learned from; others are only measured
    state  FIELDS
    compiled  whether the formulas run compiled; the bits are the same
    """
    hour = _hours(rows)
    found = np.zeros(len(rows))
    batch = _Batch(rows, hour, sound, state, found)
    length = np.ones(len(rows), np.intp) if rows.single else np.diff(rows.first, append=len(rows))
    at = rows.point if rows.single else rows.point[rows.first]
    if compiled:
        known = batch.numbers.reshape(-1, order="F")
        hours, seen = batch.hours.reshape(-1), batch.seen.reshape(-1)
        room = np.empty(one.BLOCK, np.int64), np.empty(one.COLUMNS * one.BLOCK)
        one.courses(
            at, rows.first, length, known, hours, seen, rows.time, rows.value, sound, hour, found, *room
        )
    else:
        for begin in range(0, len(at), CHUNK):
            of = slice(begin, begin + CHUNK)
            batch.chunk(at[of], rows.first[of], length[of])
    return (found / ALARM).astype(np.float32)


def _hours(rows: Rows) -> I64:
    """The city's hour of each row; one element where all have the same."""
    offset = rows.utc_offset_us
    if isinstance(offset, int):
        low, high = ((of + offset) // HOUR_US for of in rows.span)
        if low == high:
            return np.full(1, low % one.HOURS)
    hour: I64 = rows.local_time // HOUR_US % one.HOURS
    return hour if (hour != hour[0]).any() else hour[:1]


class _Batch:
    """A batch met without numba. ``hour`` has one element where all rows have the same."""

    def __init__(self, rows: Rows, hour: I64, sound: Bool, state: Arrays, found: F64) -> None:
        self._time = rows.time
        self._value = rows.value
        self._hour = hour
        self._sound = sound
        self._found = found
        self.numbers = state["score"]
        self.hours = state["score_hour"]
        self.seen = state["score_hour_seen"]

    def chunk(self, at: Index, first: Index, length: Index) -> None:
        """Some points: the first row of each at once, then the second ..., what is long at last alone."""
        if length.max() > 1:
            longest = np.argsort(-length, kind="stable")
            at, first, length = at[longest], first[longest], length[longest]
        known = np.ascontiguousarray(self.numbers[:, at])
        rank, still = 0, len(first)
        while still >= VECTOR_MIN:
            self._together(known[:, :still], at[:still], first[:still] + rank)
            rank += 1
            still = int(np.searchsorted(-length, -rank, side="left"))
        for group in range(still):
            span = slice(int(first[group]) + rank, int(first[group] + length[group]))
            self._alone(known[:, group], int(at[group]), span)
        self.numbers[:, at] = known

    def _alone(self, known: F64, point: int, span: slice) -> None:
        """Rows of one point in plain Python: a backlog costs microseconds a row, and no more the longer it is."""
        numbers, found = known.tolist(), [0.0] * (span.stop - span.start)
        hours, seen = self.hours[:, point].tolist(), self.seen[:, point].tolist()
        time, value, sound = (column[span].tolist() for column in (self._time, self._value, self._sound))
        hour = self._hour.tolist() if len(self._hour) == 1 else self._hour[span].tolist()
        one.plain_courses()(
            [0], [0], [len(found)], numbers, hours, seen, time, value, sound, hour, found, [], []
        )
        self._found[span], known[:] = found, numbers
        self.hours[:, point], self.seen[:, point] = hours, seen

    def _together(self, known: F64, at: Index, row: Index) -> None:
        """One row of each of several points; ``known`` float64[NUMBERS, k] moves on in place."""
        time, sound = self._time[row].astype(np.float64), self._sound[row]
        learns: Bool | None = None
        if not sound.all() or (known[one.FROZEN] != one.SOUND).any():
            learns = _thaw(known, time, sound)
        new = known[one.N] == 0.0
        if new.any():
            known[one.LAST_T][new] = time[new]
            self.seen[:, at[new]] = 0
        cell = (self._hour[0] if len(self._hour) == 1 else self._hour[row]) * self.hours.shape[1] + at
        hours, seen = self.hours.reshape(-1), self.seen.reshape(-1)
        mean, visits = hours[cell], seen[cell]
        passed_s = (time - known[one.LAST_T]) * 1e-6
        after, mean, said = columns_turn(known, _bounded(self._value[row]), passed_s, mean, visits)
        self._found[row] = said
        visits = np.minimum(visits, one.HOUR_SEEN_MAX - 1) + np.uint16(1)
        if learns is not None:
            cell, mean, visits = cell[learns], mean[learns], visits[learns]
        hours[cell], seen[cell] = mean, visits
        for k, column in enumerate((*after, time)):
            np.copyto(known[k], column, where=True if learns is None else learns)


def _bounded(value: F64) -> F64:
    """``surprise.bounded`` of a column."""
    found: F64 = np.minimum(np.maximum(value, -one.VALUE_MAX), one.VALUE_MAX) + 0.0
    return found


def _thaw(known: F64, time: F64, sound: Bool) -> Bool:
    """``surprise.learns_from`` of one row of each of k points, bool[k]."""
    frozen = known[one.FROZEN]
    frozen[sound] = one.SOUND
    begins = ~sound & (frozen == one.SOUND)
    frozen[begins] = time[begins]
    waits = ~sound & (frozen != one.THAWED)
    reseeds = waits & (time - frozen >= one.RESEED_US)
    known[:, reseeds] = 0.0
    frozen[reseeds] = one.THAWED
    learns: Bool = sound | (frozen == one.THAWED)
    return learns


def columns_turn(
    known: F64, x: F64, passed_s: F64, mean: F64, visits: npt.NDArray[np.uint16]
) -> tuple[tuple[F64, ...], F64, F64]:
    """``surprise.turn`` of one row of each of k points: the numbers after it in their order, hour's means, surprise."""
    n = known[one.N]
    new = n == 0.0
    level, low, high = known[one.LEVEL], known[one.LOW], known[one.HIGH]
    if new.any():
        level, low, high = (np.where(new, x, column) for column in (level, low, high))
    interval, beats = _pace(n, known[one.INTERVAL], passed_s)
    burn = 1.0 / (n + 1.0)
    span, over = high - low, np.maximum(x - high, low - x)
    low, high = np.minimum(low, x), np.maximum(high, x)
    floor = one.SPREAD_FLOOR * (high - low) + one.TINY

    settled = visits >= one.HOUR_SEEN_MIN
    off = x - np.where(settled, mean, level)
    step = off - known[one.OFF]
    off_sd = np.maximum(np.sqrt(known[one.OFF_VAR]), floor)
    step_sd = np.maximum(np.sqrt(known[one.STEP_VAR]), floor)
    z = _clipped(off / off_sd, one.Z_MAX)
    z_step = np.minimum(np.abs(step) / step_sd, one.Z_MAX)
    toward = np.minimum(one.DRIFT_RATE * beats, one.DRIFT_RATE_MAX)
    drift = known[one.DRIFT] + toward * (_clipped(z, one.DRIFT_CLIP) - known[one.DRIFT])

    rate = np.maximum(one.TAIL_RATE * beats, burn)
    apart = (1.0 - one.STEP_WEIGHT) * np.abs(z) + one.STEP_WEIGHT * z_step
    surprise, tail_1, excess_1 = _tail(apart, known[one.TAIL_1], known[one.EXCESS_1], rate)
    other, tail_2, excess_2 = _tail(np.abs(drift), known[one.TAIL_2], known[one.EXCESS_2], rate)
    surprise = np.where(n >= one.WARM_READINGS, np.maximum(surprise, other), 0.0)
    unseen = (over > 0.0) & (span > 0.0) & (n > one.RANGE_READINGS)
    if unseen.any():
        beyond = one.RANGE_NATS + one.RANGE_WEIGHT * over / np.where(unseen, span, 1.0)
        surprise = np.where(unseen, np.maximum(surprise, beyond), surprise)
    surprise = np.minimum(surprise, one.SURPRISE_MAX)
    gate = known[one.GATE] * (1.0 - one.GATE_RATE * beats)
    said = np.where(surprise > gate, surprise, 0.0)

    clips = n >= one.CLIP_FROM
    off_most = np.where(clips, one.CLIP * off_sd, np.inf)
    off_in, level_in = _clipped(off, off_most), _clipped(x - level, off_most)
    step_in = _clipped(step, np.where(clips, one.CLIP * step_sd, np.inf))
    hour_in = np.where(clips & settled, off_in, x - mean)
    slow = np.maximum(np.minimum(one.LEVEL_RATE * beats, one.RATE_MAX), burn)
    fast = np.maximum(np.minimum(one.STEP_RATE * beats, one.RATE_MAX), burn)
    share = np.maximum(np.minimum(one.HOUR_RATE * beats, one.HOUR_RATE_MAX), 1.0 / (visits + 1.0))
    level = level + slow * level_in
    off_var = known[one.OFF_VAR] + slow * (off_in * off_in - known[one.OFF_VAR])
    step_var = known[one.STEP_VAR] + fast * (step_in * step_in - known[one.STEP_VAR])
    gate = np.maximum(gate, surprise)
    course = (n + 1.0, interval, level, off_var, step_var, off, drift, low, high)
    return (*course, tail_1, excess_1, tail_2, excess_2, gate), mean + share * hour_in, said


def _pace(n: F64, interval: F64, passed_s: F64) -> tuple[F64, F64]:
    change = one.INTERVAL_RATE * interval
    after = np.where(passed_s > interval, interval + change, interval)
    after = np.where(passed_s < interval, interval - change, after)
    if n.min() < 2.0:
        after = np.where(n == 1.0, passed_s, after)
    beats = np.minimum(passed_s / np.maximum(after, one.BEAT_S_MIN), one.BEATS_MAX)
    return after, np.where(n == 0.0, 1.0, beats)


def _clipped(distance: F64, most: F64 | float) -> F64:
    clipped: F64 = np.maximum(np.minimum(distance, most), np.negative(most))
    return clipped


def _tail(distance: F64, tail: F64, excess: F64, rate: F64) -> tuple[F64, F64, F64]:
    scale = np.maximum(tail, one.TAIL_MIN)
    beyond = distance - tail
    is_beyond = beyond > 0.0
    nats = np.where(is_beyond, one.TAIL_NATS + beyond / np.maximum(excess, one.EXCESS_FLOOR * scale), 0.0)
    tail = tail + rate * scale * np.where(is_beyond, one.TAIL, one.TAIL - 1.0)
    beyond = distance - tail
    more = excess + (np.minimum(beyond, one.EXCESS_CLIP * excess) - excess) * one.EXCESS_RATE
    more = np.where(excess == 0.0, beyond, more)
    return nats, tail, np.where(beyond > 0.0, more, excess)
