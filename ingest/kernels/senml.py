"""SenML packs (RFC 8428, JSON) straight into columns.

Owns the resolving of base name and base time, and of times relative to them and to the receipt. It takes packs of n, v,
vb, t, u and bn, bt, bu, bver in any order whose names it knows; sums, base values, texts, data, anything nested and
anything wrong leave the pack to ingest.codecs.senml, whole.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest.kernels.compiling import part
from ingest.kernels.grammar import (
    NEWEST,
    OLDEST,
    READINGS_MAX,
    UNTIMED,
    blank_apart,
    put,
    skip,
    text_end_apart,
)
from ingest.kernels.heard import (
    H_ON_RECEIPT,
    HOW_FIELDS,
    SPOKEN_BYTES_MAX,
    bound_of,
    converted,
    copy,
    spoken_number,
)
from ingest.kernels.numbers import BAD, INTEGER, number, number_apart
from ingest.kernels.words import INT, i64, put_i32, u8

PACK_LEFT: Final = -1
PACK_STRANGE: Final = -2
PACK_FULL: Final = -3
"""Instead of rows: a pack for the codec; one for it because of a name or topic not heard yet; no room for its rows."""

RELATIVE_S: Final = 1 << 28
"""RFC 8428, 4.5.3: times below this are seconds from now."""
SECONDS_MAX: Final = 1 << 33
"""Year 2242: up to here µs from whole seconds are the same however they are multiplied."""
TABLE_BYTES: Final = 4
"""Before each name stands the number of the table it is looked up in: what it means may depend on the topic."""

_N, _V, _T, _VB, _BN, _BT, _BVER, _REST, _BU = 1, 2, 4, 8, 16, 32, 64, 128, 256
_ONCE: Final = _N | _V | _T | _VB | _BN | _BT | _BVER


@part
def _label(i: int, end: int) -> tuple[int, int]:
    """Which label begins at ``i``, and its closing quote; -1 where the pack is left."""
    if i + 3 < end:
        c, d, e = u8(i), u8(i + 1), u8(i + 2)
        if d == 34:
            if c == 110:
                return _N, i + 1
            if c == 118:
                return _V, i + 1
            if c == 116:
                return _T, i + 1
            if c == 115:
                return -1, i
        elif e == 34:
            if c == 98:
                if d == 110:
                    return _BN, i + 2
                if d == 116:
                    return _BT, i + 2
                if d == 117:
                    return _BU, i + 2
                if d == 118 or d == 115:
                    return -1, i
            elif c == 118:
                if d == 98:
                    return _VB, i + 2
                if d == 115 or d == 100:
                    return -1, i
    close = text_end_apart(i, end)
    # What ends with _ must be understood.
    if close < 0 or (close > i and u8(close - 1) == 95):
        return -1, i
    if close - i == 4 and u8(i) == 98 and u8(i + 1) == 118 and u8(i + 2) == 101 and u8(i + 3) == 114:
        return _BVER, close
    return _REST, close


@part
def _seconds(i: int, end: int) -> tuple[bool, int, bool, int, float]:
    """The time at ``i``: whether it can be read, where it ends, whether it is whole, and the seconds as both."""
    form, i, value, whole, holds = number_apart(i, end)
    if form == BAD or not -1e12 < value < 1e12 or (form == INTEGER and holds == 0):
        return False, i, False, 0, 0.0
    return True, i, form == INTEGER, whole, value


@part
def _time_of(whole: bool, seconds: int, real: float) -> tuple[bool, bool, int]:
    """(whether it can be told, whether it is absolute, µs) of a resolved time."""
    if whole:
        real = float(seconds)
    if not -SECONDS_MAX < real < SECONDS_MAX or abs(real - RELATIVE_S) < 1.0:
        return False, False, 0
    us = seconds * 1_000_000 if whole else INT(np.rint(real * 1e6))
    return True, real > RELATIVE_S, us


@part
def senml_pack(
    i: int,
    end: int,
    numbers: int,
    names: tuple[int, int, int, int, int],
    bounds: int,
    hows: int,
    spoken: int,
    retained: bool,
    received_at: int,
    message: int,
    rows: int,
    room: int,
    out: tuple[int, int, int, int, int],
) -> tuple[int, int]:
    """Rows there are behind the pack whose bracket stands at ``i``, or PACK_LEFT, PACK_STRANGE or PACK_FULL; and how
    many of its readings are timed by their receipt and not UNTIMED.

    spoken  SPOKEN_ROOM bytes, of which the first TABLE_BYTES say in which table names are looked up
    """
    columns = out[0], out[1], out[2], out[3]
    begin = rows
    named = spoken + TABLE_BYTES
    base_size = 0
    base_whole, base_s, base_real = True, 0, 0.0
    records = 0
    expected = -1
    offsets = 0
    i = blank_apart(i + 1, end)
    while True:
        if i >= end or u8(i) != 123 or records >= i64(numbers + 8 * READINGS_MAX):
            return PACK_LEFT, 0
        records += 1
        seen = 0
        name_at, name_size = 0, 0
        value = 0.0
        own_whole, own_s, own_real = True, 0, 0.0
        i = blank_apart(i + 1, end)
        if i < end and u8(i) == 125:
            return PACK_LEFT, 0
        while True:
            if i >= end or u8(i) != 34:
                return PACK_LEFT, 0
            label, i = _label(i + 1, end)
            if label < 0 or seen & label & _ONCE:
                return PACK_LEFT, 0
            seen |= label
            i = blank_apart(i + 1, end)
            if i >= end or u8(i) != 58:
                return PACK_LEFT, 0
            i = blank_apart(i + 1, end)
            if i >= end:
                return PACK_LEFT, 0
            if label == _V:
                minus = u8(i) == 45
                form, i, value, _, _ = number(i, end)
                # Of a zero with a sign the codec's two ways make two zeros.
                if form == BAD or (minus and value == 0.0):
                    return PACK_LEFT, 0
            elif label in (_N, _BN):
                if u8(i) != 34:
                    return PACK_LEFT, 0
                close = text_end_apart(i + 1, end)
                if close < 0:
                    return PACK_LEFT, 0
                size = close - i - 1
                if label == _N:
                    name_at, name_size = i + 1, size
                else:
                    if size > SPOKEN_BYTES_MAX - TABLE_BYTES:
                        return PACK_LEFT, 0
                    copy(named, i + 1, size)
                    base_size = size
                i = close + 1
            elif label == _T:
                ok, i, own_whole, own_s, own_real = _seconds(i, end)
                if not ok:
                    return PACK_LEFT, 0
            elif label == _BT:
                ok, i, base_whole, base_s, base_real = _seconds(i, end)
                if not ok:
                    return PACK_LEFT, 0
            elif label == _VB:
                c = u8(i)
                if c != 116 and c != 102:
                    return PACK_LEFT, 0
                value = 1.0 if c == 116 else 0.0
                i = skip(i, end)
                if i < 0:
                    return PACK_LEFT, 0
            elif label == _BVER:
                form, i, _, version, holds = number_apart(i, end)
                if form != INTEGER or holds == 0 or version < 1 or version > 10:
                    return PACK_LEFT, 0
            else:
                i = skip(i, end)
                if i < 0:
                    return PACK_LEFT, 0
            i = blank_apart(i, end)
            if i >= end:
                return PACK_LEFT, 0
            c = u8(i)
            i += 1
            if c == 125:
                break
            if c != 44:
                return PACK_LEFT, 0
            i = blank_apart(i, end)
        if seen & (_V | _VB):
            if seen & _V and seen & _VB:
                return PACK_LEFT, 0
            if rows >= room:
                return PACK_FULL, 0
            size = TABLE_BYTES + base_size + name_size
            if size > SPOKEN_BYTES_MAX:
                return PACK_LEFT, 0
            copy(named + base_size, name_at, name_size)
            which = spoken_number(names, spoken, size, expected)
            if which < 0:
                return PACK_STRANGE, 0
            expected = which + 1
            point, how = bound_of(bounds, which)
            if point < 0:
                return PACK_LEFT, 0
            how_at = hows + 8 * HOW_FIELDS * how
            whole = base_whole and own_whole
            real = 0.0 if whole else base_real + own_real
            ok, absolute, time_us = _time_of(whole, base_s + own_s, real)
            if not ok:
                return PACK_LEFT, 0
            if not absolute:
                if retained or i64(how_at + 8 * H_ON_RECEIPT) == 0:
                    return PACK_LEFT, 0
                if time_us == 0:
                    time_us = INT(UNTIMED)
                else:
                    time_us += received_at
                    offsets += 1
            if time_us != UNTIMED and (
                time_us < i64(numbers + 8 * OLDEST) or time_us > i64(numbers + 8 * NEWEST)
            ):
                return PACK_LEFT, 0
            ok, missing, value = converted(how_at, value)
            if not ok:
                return PACK_LEFT, 0
            put(columns, rows, point, time_us, value, missing, 0)
            put_i32(out[4] + 4 * rows, message)
            rows += 1
        elif seen & ~(_BN | _BT | _BU | _BVER):
            return PACK_LEFT, 0
        i = blank_apart(i, end)
        c = u8(i) if i < end else 0
        i += 1
        if c == 93:
            break
        if c != 44:
            return PACK_LEFT, 0
        i = blank_apart(i, end)
    if blank_apart(i, end) != end or rows == begin:
        return PACK_LEFT, 0
    return rows, offsets
