"""Main rows of a batch in the order of a file and in the shape of the lake, compiled: one look at each row.

Owns the loop, which does what schema.to_arrow says column by column. Nine gathers and two dozen passes over
millions of rows cost a fourth of a hot file. Only called where numba is loaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.batch import U8, ReadingBatch
from storage.fast import compiled, unsigned
from storage.schema import READINGS, SCORE_MIN, SCORE_STEPS


def arranged(batch: ReadingBatch, order: npt.NDArray[np.intp]) -> pa.Table:
    """The rows of ``batch`` at ``order`` as READINGS, to the last bit as ``to_arrow(batch.take(order), False)``."""
    n = len(order)
    given = (
        batch.point, batch.time, batch.received_at, batch.value,
        batch.device_flag, batch.flag, batch.checks, batch.score,
    )  # fmt: skip
    types = [field.type for field in READINGS]
    made = tuple(np.empty(n, "int64" if pa.types.is_timestamp(t) else t.to_pandas_dtype()) for t in types)
    known = tuple(np.zeros((n + 7) // 8, np.uint8) for _ in range(3))
    # Views of the journal are read-only, for which the loop would be compiled once more.
    columns = tuple(column if column.flags.writeable else column.copy() for column in given)
    nulls = _each(order, columns, made, known, np.float32(SCORE_STEPS), np.float32(SCORE_MIN))
    masks = dict(zip(("lag_ms", "value", "score"), zip(known, nulls, strict=True), strict=True))
    arrays = []
    for field, column in zip(READINGS, made, strict=True):
        bits, missing = masks.get(field.name, (None, 0))
        valid = pa.py_buffer(bits) if missing else None
        arrays.append(pa.Array.from_buffers(field.type, n, [valid, pa.py_buffer(column)], missing))
    return pa.Table.from_arrays(arrays, schema=READINGS)


@compiled
def _each(
    order: npt.NDArray[np.intp],
    given: tuple[Any, ...],
    made: tuple[Any, ...],
    known: tuple[U8, U8, U8],
    steps: np.float32,
    least: np.float32,
) -> tuple[int, int, int]:
    """How many have no lag, no value, no score; ``known`` are bitmaps of zeros, a bit set where there is one."""
    point, time, received_at, value, device_flag, flag, checks, score = given
    to_point, to_time, to_lag, to_value, to_device, to_flag, to_checks, to_score = made
    has_lag, has_value, has_score = known
    lags, values, scores = 0, 0, 0
    for k in range(len(order)):
        i, j = unsigned(order[k]), unsigned(k)
        byte, bit = j >> unsigned(3), j & unsigned(7)
        to_point[j], to_time[j] = point[i], time[i]
        lag = (received_at[i] - time[i]) // 1000
        fits = -0x80000000 <= lag <= 0x7FFFFFFF
        to_lag[j] = lag if fits else 0
        has_lag[byte] |= fits << bit
        lags += fits
        x = value[i]
        there = x == x
        to_value[j] = x
        has_value[byte] |= there << bit
        values += there
        to_device[j], to_flag[j], to_checks[j] = device_flag[i], flag[i], checks[i]
        s = score[i]
        counts = s >= least
        to_score[j] = np.rint(s * steps) / steps
        has_score[byte] |= counts << bit
        scores += counts
    n = len(order)
    return n - lags, n - values, n - scores
