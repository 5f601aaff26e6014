"""What every JSON kernel reads: whitespace, text, scalars, times; and where a reading is written.

Owns these parts and what a source's numbers are. What they do not decide is refused: the caller leaves the message to
the general decoder.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest.kernels.compiling import inlined, part
from ingest.kernels.numbers import BAD, INTEGER, iso_time, number_apart
from ingest.kernels.words import (
    INT,
    float_of_bits,
    i64,
    put_f64,
    put_i32,
    put_i64,
    put_u8,
    u8,
    u64,
    utf8_from,
)

SCALE, BARE, PAYLOAD_MAX, READINGS_MAX, DEPTH_MAX, OLDEST, NEWEST = range(7)
ZONE_US, ZONE_FROM, ZONE_TO, MISSINGS, MISSING = range(7, 12)
"""A source's numbers, int64: µs a unit of time (0: nanoseconds); whether bare numbers are readings; bytes,
readings and levels a message may have; the time window in µs; what local times
in [ZONE_FROM, ZONE_TO) are ahead of UTC, µs; how many codes for "no value" it has; from MISSING on the bits
of these doubles."""
MISSING_MAX: Final = 8
SOURCE_FIELDS: Final = MISSING + MISSING_MAX

UNTIMED: Final = -(1 << 63)
"""Stands for the time of a reading that brought none."""
MISSING_FLAG: Final = 9


@inlined
def blank(i: int, end: int) -> int:
    """The next byte that is no whitespace."""
    while i < end:
        c = u8(i)
        if c > 32 or (c != 32 and c != 10 and c != 13 and c != 9):
            break
        i += 1
    return i


@inlined
def text_end(i: int, end: int) -> int:
    """The closing quote of a text that begins at ``i``; -1 for escapes, control characters and bad UTF-8."""
    while i < end:
        c = u8(i)
        if c == 34:
            return i
        if c == 92 or c < 32:
            return -1
        if c < 128:
            i += 1
        else:
            i = utf8_from(i, end)
            if i < 0:
                return -1
    return -1


@part
def blank_apart(i: int, end: int) -> int:
    """``blank``, where it is asked too often to stand in each place."""
    return blank(i, end)


@part
def text_end_apart(i: int, end: int) -> int:
    """``text_end``, likewise."""
    return text_end(i, end)


@part
def skip(i: int, end: int) -> int:
    """The byte after a scalar nobody asked for; -1 where it is none, or not plain."""
    c = u8(i) if i < end else 0
    if c == 34:
        i = text_end(i + 1, end)
        return i + 1 if i >= 0 else -1
    if c == 116:
        ok = i + 4 <= end and u8(i + 1) == 114 and u8(i + 2) == 117 and u8(i + 3) == 101
        return i + 4 if ok else -1
    if c == 110:
        ok = i + 4 <= end and u8(i + 1) == 117 and u8(i + 2) == 108 and u8(i + 3) == 108
        return i + 4 if ok else -1
    if c == 102:
        ok = i + 5 <= end and u8(i + 1) == 97 and u8(i + 2) == 108
        ok = ok and u8(i + 3) == 115 and u8(i + 4) == 101
        return i + 5 if ok else -1
    form, i, _, _, _ = number_apart(i, end)
    return i if form != BAD else -1


@inlined
def is_null(i: int, end: int) -> bool:
    return i + 4 <= end and u8(i) == 110 and u8(i + 1) == 117 and u8(i + 2) == 108 and u8(i + 3) == 108


@part
def time_of_text(i: int, end: int, numbers: int) -> tuple[bool, int]:
    """µs of an ISO time between two quotes."""
    form, us = iso_time(i, end)
    if form == 2:
        if us < i64(numbers + 8 * ZONE_FROM) or us >= i64(numbers + 8 * ZONE_TO):
            return False, 0
        us -= i64(numbers + 8 * ZONE_US)
    return form != 0, us


@inlined
def time_of_number(form: int, value: float, whole: int, scale: int) -> tuple[bool, int]:
    """µs of a number in a source's unit, rounded as Python rounds."""
    if form == INTEGER:
        if scale == 0:
            return True, whole // 1000
        # No calendar goes so far; and what goes on stays inside int64.
        if whole > 1 << 40 and scale > 1000:
            return False, 0
        if whole > 1 << 53 or whole < -(1 << 40):
            return False, 0
        return True, whole * scale
    if scale == 0:
        return False, 0
    us = value * float(scale)
    if not -9e15 < us < 9e15:
        return False, 0
    return True, INT(np.rint(us))


@inlined
def is_code(numbers: int, value: float) -> bool:
    """Whether a value means "no value"."""
    for k in range(i64(numbers + 8 * MISSINGS)):  # noqa: SIM110 - numba knows no generators
        if float_of_bits(u64(numbers + 8 * (MISSING + k))) == value:
            return True
    return False


@inlined
def put(
    out: tuple[int, int, int, int], row: int, point: int, time_us: int, value: float, missing: bool, flag: int
) -> None:
    """One reading into the columns."""
    points, times, values, flags = out
    put_i32(points + 4 * row, point)
    put_i64(times + 8 * row, time_us)
    put_f64(values + 8 * row, np.nan if missing else value)
    put_u8(flags + row, MISSING_FLAG if missing and flag == 0 else flag)
