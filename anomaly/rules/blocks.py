"""Blocks: sums over fixed spans of the clock, such as the hours of a city, each known once it is over.

Owns the sums of the running block and of the one before it. Amounts are whole numbers, so no sum depends on where
the stream is cut. Knows nothing of what is summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, I64, U8, Arrays, Bool, Field, Index, Rows
from anomaly.rules.base import Assessed
from anomaly.rules.parts import I32, Part, nothing
from storage.fast import compiled, unsigned

PER_UNIT: Final = 1000
"""Means are taken of whole thousandths, so that no sum depends on the order of additions."""
VALUE_MAX: Final = 1e6
DB_MAX: Final = 140.0
"""Louder is no noise of a street; keeps sums of energy of an hour at 1 kHz within 64 bits."""
NO_BLOCK: Final = np.iinfo(np.int64).min // 4
_KEPT: Final = ("block", "sum", "count", "over_block", "over_sum", "over_count")


def block_fields(name: str, of: str) -> tuple[Field, ...]:
    """The state of a rule on blocks: the running one, the newest that is over, and what was said of that."""
    return (
        *(Field(f"{name}_{kept}", "i8", NO_BLOCK if kept.endswith("block") else 0, of=of) for kept in _KEPT),
        Field(f"{name}_latch", "u1", 0, of=of),
        Field(f"{name}_value", "f8", np.nan, of=of),
        Field(f"{name}_limit", "f8", np.nan, of=of),
    )


def said_again(
    part: Part, block: I64, amount: I64, state: Arrays, name: str, place: npt.NDArray[np.int32]
) -> tuple[U8, F64, F64] | None:
    """The class, value and limit of each row where no block ends, as said by the row before it, and the state moved on.

    None, and nothing changed, where some row begins a block or is not the only one of its point. Nearly every tick of
    a city ends no block, and this is several times cheaper than judging all anew.
    """
    if not part.single or not np.array_equal(block, state[f"{name}_block"][place]):
        return None
    state[f"{name}_sum"][place] += amount
    state[f"{name}_count"][place] += 1
    latch: U8 = state[f"{name}_latch"][place]
    return latch, state[f"{name}_value"][place], state[f"{name}_limit"][place]


def goes_on(
    rows: Rows, mask: Bool, span_us: int, state: Arrays, name: str, place: I32, energy: bool = False
) -> Assessed | None:
    """``said_again`` for the rows of the points of ``mask``, as one compiled loop; [n] of the whole batch.

    energy  the amounts are 10 ** (value / 10), else thousandths of the value
    None, and nothing changed, where some row begins a block or is not the only one of its point.
    """
    if not rows.single or not isinstance(rows.utc_offset_us, int):
        return None
    n = len(rows)
    found = Assessed(np.zeros(n, np.uint8), np.full(n, np.nan), np.full(n, np.nan))
    kept = (state[f"{name}_{one}"] for one in ("block", "sum", "count", "latch", "value", "limit"))
    columns = rows.point, rows.time, rows.value, mask, place
    said = found.classes, found.value, found.limit
    met = _goes_on(*columns, rows.utc_offset_us, span_us, energy, *kept, *said)
    if met < 0:
        return None
    return found if met else nothing(n)


@compiled
def _goes_on(
    point: Index,
    time: I64,
    value: F64,
    mask: Bool,
    place: I32,
    offset_us: int,
    span_us: int,
    energy: bool,
    block: I64,
    total: I64,
    count: I64,
    latch: U8,
    said: F64,
    said_limit: F64,
    classes: U8,
    values: F64,
    limits: F64,
) -> int:
    met = 0
    for i in range(len(point)):
        p = unsigned(point[i])
        if mask[p] and block[unsigned(place[p])] != (time[i] + offset_us) // span_us:
            return -1
    for i in range(len(point)):
        p = unsigned(point[i])
        if not mask[p]:
            continue
        at = unsigned(place[p])
        met += 1
        if energy:
            total[at] += np.int64(np.rint(10.0 ** (min(max(value[i], 0.0), DB_MAX) / 10.0)))
        else:
            total[at] += np.int64(np.rint(min(max(value[i], 0.0), VALUE_MAX) * PER_UNIT))
        count[at] += 1
        classes[i], values[i], limits[i] = latch[at], said[at], said_limit[at]
    return met


@dataclass(slots=True)
class Settled:
    """For each of m rows the newest block of its point that was over when the row came.

    block   int64[m]; NO_BLOCK where there is none
    sum     int64[m] of the amounts in it
    count   int64[m] of its rows
    """

    block: I64
    sum: I64
    count: I64
    _after: tuple[I64, ...]
    _place: npt.NDArray[np.int32]
    _last: Index

    def keep(self, state: Arrays, name: str, classes: U8, value: F64, limit: F64) -> None:
        """Write the state after the batch, with what was said of its rows; last of all."""
        for kept, values in zip(_KEPT, self._after, strict=True):
            state[f"{name}_{kept}"][self._place] = values
        for kept, said in (("latch", classes), ("value", value), ("limit", limit)):
            state[f"{name}_{kept}"][self._place] = said[self._last]


def settled(
    part: Part, block: I64, amount: I64, state: Arrays, name: str, place: npt.NDArray[np.int32]
) -> Settled:
    """Sum ``amount`` (int64[m]) by ``block`` (int64[m], never falling within a point).

    place  int32[k]: of the part's points in the arrays of ``block_fields``
    """
    running, total, count, over, over_sum, over_count = (state[f"{name}_{kept}"][place] for kept in _KEPT)
    begins = part.start
    begins[1:] |= block[1:] != block[:-1]
    run = np.flatnonzero(begins)
    of = part.group[run]
    head = np.flatnonzero(np.append(True, of[1:] != of[:-1]))
    sums = np.add.reduceat(amount, run)
    counts = np.diff(run, append=len(block))
    blocks = block[run]
    goes_on = blocks[head] == running
    sums[head] += np.where(goes_on, total, 0)
    counts[head] += np.where(goes_on, count, 0)
    before = []
    for own, carried, older in (
        (blocks, running, over),
        (sums, total, over_sum),
        (counts, count, over_count),
    ):
        shifted = np.empty_like(own)
        shifted[1:] = own[:-1]
        shifted[head] = np.where(goes_on, older, carried)
        before.append(shifted)
    which = np.cumsum(begins) - 1
    tail = np.append(head[1:], len(run)) - 1
    after = tuple(column[tail] for column in (blocks, sums, counts, *before))
    return Settled(before[0][which], before[1][which], before[2][which], after, place, part.last)
