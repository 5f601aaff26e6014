"""Main, late or repeat: the place of each reading in its point's course, in journal order.

Owns ``last_*`` of the state. Knows nothing of checks. A reading is main when its time is greater than
every earlier time of its point in the journal; where a batch was cut plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from anomaly.checks.rows import Bool, Index, last_rows, segments, shifted
from anomaly.state import State
from storage.batch import F64, I32, I64, U8, RawBatch, stable_order
from storage.fast import IS_COMPILED, compiled, unsigned

MAIN: Final = 0
LATE: Final = 1
REPEAT: Final = 2

_KEY_MAX = np.iinfo(np.int64).max


@dataclass(slots=True)
class Grouped:
    """A batch grouped by point, journal order within a point.

    order  intp[n]: position in the batch of each row here
    start, first  as in Rows
    """

    order: Index
    point: I32
    time: I64
    received_at: I64
    value: F64
    device_flag: U8
    start: Bool
    first: Index

    @staticmethod
    def of(raw: RawBatch) -> Grouped:
        """Group ``raw`` (at least one row) without losing the order of a point's rows.

        Sorted even where no point repeats: a city's arrays are met from one end to the other, which costs the checks
        half of what jumping about in them does.
        """
        order = stable_order(raw.point)
        taken = raw.take(order)
        start, first = segments(taken.point)
        return Grouped(
            order, taken.point, taken.time, taken.received_at, taken.value, taken.device_flag, start, first
        )


def split(rows: Grouped, state: State, loop: bool = IS_COMPILED) -> U8:
    """MAIN, LATE or REPEAT for each row, uint8[n], and the state after them.

    loop  go through the rows one by one, compiled; the answer is the same

    A repeat has the time, the value bits (NaN equals NaN) and the device flag last received for the
    point's newest time. The same time with something else is late (a revision), and is from then on what
    a repeat is compared with.
    """
    if loop:
        verdict = np.empty(len(rows.point), np.uint8)
        columns = rows.point, rows.time, rows.received_at, rows.value.view(np.int64), rows.device_flag
        kept = state["last_t"], state["last_v"].view(np.int64), state["last_flag"], state["last_received"]
        _each(*columns, *kept, verdict)
        return verdict
    points = rows.point[rows.first]
    last_t = state["last_t"][points]
    before = shifted(rows.time, rows.first, last_t)
    verdict = np.zeros(len(rows.point), np.uint8)
    newest = rows.time
    if not (rows.time > before).all():
        newest = _running_max(rows, last_t)
        before = shifted(newest, rows.first, last_t)
        verdict[rows.time <= before] = LATE
    top = last_rows(rows.point)
    if newest is not rows.time:
        on_top = np.flatnonzero(rows.time == newest)
        verdict[on_top[_repeats(rows, on_top, before, state)]] = REPEAT
        top = on_top[last_rows(rows.point[on_top])]
    _keep(rows, verdict, top, state)
    return verdict


def _running_max(rows: Grouped, last_t: I64) -> I64:
    """Greatest time of each row's point up to and with the row, int64[n], counting ``last_t`` [groups]."""
    low = int(rows.time.min())
    span = int(rows.time.max()) - low
    lengths = np.diff(rows.first, append=len(rows.point))
    group = np.repeat(np.arange(len(rows.first)), lengths)
    if (span + 3) < _KEY_MAX // len(rows.first):
        key, of_key = rows.time - low + 1, None
    else:
        # Times too far apart to be told from group numbers in 63 bits: their ranks never are.
        of_key, key = np.unique(rows.time, return_inverse=True)
        key = key.astype(np.int64) + 1
        span = len(of_key)
    # A group's keys lie above all keys of the groups before it, so one accumulate serves all segments.
    base = group.astype(np.int64) * (span + 3)
    newest = np.maximum.accumulate(key + base) - base
    found = newest - 1 + low if of_key is None else of_key[newest - 1]
    return np.maximum(found, np.repeat(last_t, lengths))


def _repeats(rows: Grouped, on_top: Index, before: I64, state: State) -> Bool:
    """Which of the rows ``on_top`` say again what was last received for their time, bool[on_top]."""
    point = rows.point[on_top]
    first = segments(point)[1]
    bits = rows.value.view(np.int64)[on_top]
    flag = rows.device_flag[on_top]
    again: Bool = rows.time[on_top] == before[on_top]
    again &= bits == shifted(bits, first, state["last_v"].view(np.int64)[point[first]])
    again &= flag == shifted(flag, first, state["last_flag"][point[first]])
    return again


def _keep(rows: Grouped, verdict: U8, top: Index, state: State) -> None:
    """``top``: each point's last row at its newest time; points whose rows are all older have none."""
    points = rows.point[top]
    state["last_t"][points] = rows.time[top]
    state["last_v"][points] = rows.value[top]
    state["last_flag"][points] = rows.device_flag[top]
    main = top
    if verdict.any():
        index = np.flatnonzero(verdict == MAIN)
        main = index[last_rows(rows.point[index])]
    state["last_received"][rows.point[main]] = rows.received_at[main]


@compiled
def _each(
    point: I32,
    time: I64,
    received_at: I64,
    bits: I64,
    flag: U8,
    last_t: I64,
    last_bits: I64,
    last_flag: U8,
    last_received: I64,
    verdict: U8,
) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        if time[i] > last_t[p]:
            verdict[i] = MAIN
            last_received[p] = received_at[i]
        elif time[i] < last_t[p]:
            verdict[i] = LATE
            continue
        elif bits[i] == last_bits[p] and flag[i] == last_flag[p]:
            verdict[i] = REPEAT
        else:
            verdict[i] = LATE
        last_t[p], last_bits[p], last_flag[p] = time[i], bits[i], flag[i]
