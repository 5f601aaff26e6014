"""ReadingBatch: the one structure that crosses a module border on the data path.

Owns the columns of readings in memory. Knows nothing of MQTT, files or alerts.
``value`` is never edited after the mapping; a missing value is NaN here and NULL on disk.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.units import US_PER_S as US_PER_S

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]


@dataclass(slots=True)
class RawBatch:
    """What Wire journals: n readings as they were received, not yet judged.

    point        int32    dense point number
    time         int64    µs since 1970 UTC, when measured
    received_at  int64    µs since 1970 UTC, when it reached us
    value        float64  in the unit of the registry; NaN is missing
    device_flag  uint8    storage.flags.DEVICE_FLAGS
    """

    point: I32
    time: I64
    received_at: I64
    value: F64
    device_flag: U8

    def __len__(self) -> int:
        return len(self.point)

    def take(self, index: npt.NDArray[np.intp] | Bool) -> RawBatch:
        """The rows at ``index`` (positions or a mask), in that order."""
        return RawBatch(
            self.point[index],
            self.time[index],
            self.received_at[index],
            self.value[index],
            self.device_flag[index],
        )

    @staticmethod
    def concat(parts: Sequence[RawBatch]) -> RawBatch:
        """All rows of ``parts`` in order; an empty batch for no parts."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return RawBatch.empty()
        return RawBatch(
            np.concatenate([p.point for p in parts]),
            np.concatenate([p.time for p in parts]),
            np.concatenate([p.received_at for p in parts]),
            np.concatenate([p.value for p in parts]),
            np.concatenate([p.device_flag for p in parts]),
        )

    @staticmethod
    def empty() -> RawBatch:
        """No rows."""
        return RawBatch(
            np.empty(0, np.int32),
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            np.empty(0),
            np.empty(0, np.uint8),
        )


@dataclass(slots=True)
class ReadingBatch:
    """Judged readings: the columns of RawBatch and what was found.

    flag    uint8    QARTOD, see storage.flags
    checks  uint32   one bit a check that objected
    score   float32  anomaly score; 1.0 is the alarm line
    pos     int64    journal seq << 24 | row in the record: total receive order (late rows are resolved by it)
    """

    point: I32
    time: I64
    received_at: I64
    value: F64
    device_flag: U8
    flag: U8
    checks: U32
    score: F32
    pos: I64

    def __len__(self) -> int:
        return len(self.point)

    def take(self, index: npt.NDArray[np.intp] | Bool) -> ReadingBatch:
        """The rows at ``index`` (positions or a mask), in that order."""
        return ReadingBatch(
            self.point[index],
            self.time[index],
            self.received_at[index],
            self.value[index],
            self.device_flag[index],
            self.flag[index],
            self.checks[index],
            self.score[index],
            self.pos[index],
        )

    @staticmethod
    def concat(parts: Sequence[ReadingBatch]) -> ReadingBatch:
        """All rows of ``parts`` (at least one) in order."""
        if len(parts) == 1:
            return parts[0]
        return ReadingBatch(
            np.concatenate([p.point for p in parts]),
            np.concatenate([p.time for p in parts]),
            np.concatenate([p.received_at for p in parts]),
            np.concatenate([p.value for p in parts]),
            np.concatenate([p.device_flag for p in parts]),
            np.concatenate([p.flag for p in parts]),
            np.concatenate([p.checks for p in parts]),
            np.concatenate([p.score for p in parts]),
            np.concatenate([p.pos for p in parts]),
        )


POS_ROW_BITS = 24
"""Rows a journal record can hold, as bits of ``pos``: 16.7 M, four hundred times the largest record written."""


def stable_order(key: I32, loop: bool | None = None) -> npt.NDArray[np.intp]:
    """Stable ascending order of non-negative int32 keys, as positions.

    A radix sort: compiled, or as two passes of numpy's own over 16 bits (on 4 M rows about six times faster than its
    stable int32 sort, which is a merge sort; the second pass is left out where all keys fit 16 bits).

    loop  compiled or not; None: where numba is loaded already, for a sort alone it is not worth it
    """
    if loop or (loop is None and "numba" in sys.modules):
        from storage.radix import order_of

        return order_of(key)
    low = np.argsort((key & 0xFFFF).astype(np.uint16), kind="stable")
    if len(key) == 0 or int(key.max()) < 1 << 16:
        return low
    high = (key >> 16).astype(np.uint16)[low]
    return low[np.argsort(high, kind="stable")]
