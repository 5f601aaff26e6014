"""JSON by a source's mapping straight into columns, whatever its shape.

Owns the walk over a body by a tree of the keys a mapping names, and what makes readings of what it finds. Anything not
plainly as the mapping says leaves the body to ingest.codecs.mapping, whole. Trees are made by ingest.decode.trees.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from ingest.kernels.compiling import inlined, part
from ingest.kernels.grammar import (
    DEPTH_MAX,
    MISSING_FLAG,
    NEWEST,
    OLDEST,
    READINGS_MAX,
    SCALE,
    UNTIMED,
    blank_apart,
    is_null,
    put,
    skip,
    text_end_apart,
    time_of_number,
    time_of_text,
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
from ingest.kernels.numbers import BAD, INTEGER, number_apart
from ingest.kernels.senml import PACK_FULL, PACK_LEFT, PACK_STRANGE, TABLE_BYTES
from ingest.kernels.words import INT, float_of_bits, i64, put_f64, put_i32, put_i64, put_u8, same, u8, u64
from storage.batch import I64, U8

DEVICE, QUANTITY, TIME, VALUE, FLAG = range(5)
"""What a place in a body may say; -1 for nothing."""
FIELDS: Final = 5
NOTHING: Final = -1

T_FIELD, T_MANY, T_ELEMENT, T_WANTED, T_FIRST, T_COUNT, T_LEVEL, T_LAST, T_KEY, T_HERE, T_NEEDED = range(11)
"""A place's numbers, int64: the field it says; ONE, ELEMENTS or ENTRIES; the place of each of these; whether only those
named count; its first key among all keys, and how many. Of a place where the element of a level begins, as the body
itself is one: the level, else NOTHING; whether it is the innermost; the field its own key says; the fields said here (a
bit each), and those that must be."""
PLACE_FIELDS: Final = 11
ONE, ELEMENTS, ENTRIES = range(3)
K_AT, K_BYTES, K_PLACE = range(3)
"""A key's: where its bytes stand in the pool, how many; the place it leads to. Below a FLAG: a word, and its flag."""
KEY_FIELDS: Final = 3
O_OBJECT, O_ARRAY, O_DEVICE_AT, O_DEVICE_BYTES, O_QUANTITY_AT, O_QUANTITY_BYTES, O_TEXT_TIMES, O_ENTRIES = (
    range(8)
)
"""A source's: the place of a body that is an object, or an array, NOTHING where it is left; device and quantity where
the config says them, in the pool; whether text may be a time; whether anything is told by the keys of entries."""
ORIGIN_FIELDS: Final = 8

DEPTH_WALKED: Final = 16
"""Levels of nesting; deeper bodies are left."""
F_KIND, F_PLACE, F_SEEN, F_BEGIN, F_GUESS = range(5)
FRAME_FIELDS: Final = 5
OBJECT, ARRAY = range(2)
S_DEVICE_AT, S_DEVICE_BYTES, S_QUANTITY_AT, S_QUANTITY_BYTES, S_ENTRIES = range(5)
"""Of each row until the end of its message: who it is of, and which object it was an entry of."""
STAGE_FIELDS: Final = 5
STAGE_ROWS: Final = 16_384
"""Rows of one message; beyond it, and it is beyond the limit most sources have, the message is left."""


class Trees(NamedTuple):
    """Of all sources: places int64 [n, PLACE_FIELDS], keys int64 [k, KEY_FIELDS], origins int64 [sources,
    ORIGIN_FIELDS], pool uint8."""

    places: I64
    keys: I64
    origins: I64
    pool: U8


@inlined
def _place(places: int, place: int, field: int) -> int:
    found: int = i64(places + 8 * (PLACE_FIELDS * place + field))
    return found


@inlined
def _begun(places: int, place: int, said: int) -> int:
    """What is said so far where a value begins: of a new element nothing but what its key says."""
    if _place(places, place, T_LEVEL) < 0:
        return said
    said &= ~_place(places, place, T_HERE)
    key = _place(places, place, T_KEY)
    return said | 1 << key if key >= 0 else said


@part
def _child(trees: tuple[int, int, int], place: int, i: int, end: int, guess: int) -> int:
    """Which of a place's keys is the text at ``i``, -1 for none; ``guess`` is looked at first."""
    places, keys, pool = trees
    first = _place(places, place, T_FIRST)
    count = _place(places, place, T_COUNT)
    for n in range(-1, count):
        k = guess if n < 0 else n
        if k >= count:
            continue
        key = keys + 8 * KEY_FIELDS * (first + k)
        size = i64(key + 8 * K_BYTES)
        if i + size < end and u8(i + size) == 34 and same(pool + i64(key + 8 * K_AT), i, size):
            return k
    return -1


@part
def _bind(
    names: tuple[int, int, int, int, int],
    bounds: int,
    hows: int,
    spoken: int,
    retained: bool,
    message: int,
    begin: int,
    rows: int,
    out: tuple[int, int, int, int, int],
    stage: int,
    stamps: int,
    entries: bool,
) -> int:
    """Whose the rows of one message are, and their values as stored; rows, or PACK_LEFT, PACK_STRANGE."""
    columns = out[0], out[1], out[2], out[3]
    last_at, last_bytes = INT(-1), INT(-1)
    expected = -1
    for row in range(begin, rows):
        at = stage + 8 * STAGE_FIELDS * (row - begin)
        device_at, device_bytes = i64(at + 8 * S_DEVICE_AT), i64(at + 8 * S_DEVICE_BYTES)
        quantity_bytes = i64(at + 8 * S_QUANTITY_BYTES)
        quantity_to = spoken + TABLE_BYTES + device_bytes + 1
        size = quantity_to - spoken + quantity_bytes
        if size > SPOKEN_BYTES_MAX:
            return PACK_LEFT
        if device_at != last_at or device_bytes != last_bytes:
            copy(spoken + TABLE_BYTES, device_at, device_bytes)
            put_u8(quantity_to - 1, 0)
            last_at, last_bytes = device_at, device_bytes
        copy(quantity_to, i64(at + 8 * S_QUANTITY_AT), quantity_bytes)
        which = spoken_number(names, spoken, size, expected)
        if which < 0:
            return PACK_STRANGE
        expected = which + 1
        if entries:
            # A key that comes twice in one object counts once, and which one is not for us to say.
            holder = i64(at + 8 * S_ENTRIES)
            if i64(stamps + 8 * which) == holder:
                return PACK_LEFT
            put_i64(stamps + 8 * which, holder)
        point, how = bound_of(bounds, which)
        how_at = hows + 8 * HOW_FIELDS * how
        time_us = i64(columns[1] + 8 * row)
        if point < 0 or (time_us == UNTIMED and (retained or i64(how_at + 8 * H_ON_RECEIPT) == 0)):
            return PACK_LEFT
        value = float_of_bits(u64(columns[2] + 8 * row))
        missing = value != value
        if not missing:
            ok, missing, value = converted(how_at, value)
            if not ok:
                return PACK_LEFT
        put(columns, row, point, time_us, value, missing, u8(columns[3] + row))
        put_i32(out[4] + 4 * row, message)
    return rows


@part
def mapped_body(
    i: int,
    end: int,
    numbers: int,
    names: tuple[int, int, int, int, int],
    bounds: int,
    hows: int,
    spoken: int,
    retained: bool,
    message: int,
    begin: int,
    room: int,
    out: tuple[int, int, int, int, int],
    trees: tuple[int, int, int],
    origin: int,
    frames: int,
    stage: int,
    stamps: int,
    serial: int,
) -> tuple[int, int]:
    """As ingest.kernels.senml.senml_pack; and the number of the last object whose entries were readings.

    frames  int64 [DEPTH_WALKED, FRAME_FIELDS]
    stage   int64 [STAGE_ROWS, STAGE_FIELDS]; stamps int64, one a name: the last such object a name was met in
    """
    places, keys, pool = trees
    columns = out[0], out[1], out[2], out[3]
    rows = begin
    depth = 0
    deepest = min(i64(numbers + 8 * DEPTH_MAX), DEPTH_WALKED)
    # What was said last by each field, and which were said since their level's element began.
    said = 0
    device_at, device_bytes, quantity_at, quantity_bytes = 0, 0, 0, 0
    time_us = INT(UNTIMED)
    value = 0.0
    missing = False
    flag = 0
    place = i64(origin + 8 * (O_OBJECT if u8(i) == 123 else O_ARRAY))
    if place < 0:
        return PACK_LEFT, serial
    while True:
        # A value of ``place`` (NOTHING: of no interest) stands at i.
        if i >= end:
            return PACK_LEFT, serial
        c = u8(i)
        done = True
        if c == 123 or c == 91:
            if depth >= deepest:
                return PACK_LEFT, serial
            if place >= 0:
                many = _place(places, place, T_MANY)
                if (c == 91) != (many == ELEMENTS) or _place(places, place, T_FIELD) >= 0:
                    return PACK_LEFT, serial
                if many == ENTRIES:
                    serial += 1
                said = _begun(places, place, said)
            frame = frames + 8 * FRAME_FIELDS * depth
            put_i64(frame + 8 * F_KIND, OBJECT if c == 123 else ARRAY)
            put_i64(frame + 8 * F_PLACE, place)
            put_i64(frame + 8 * F_SEEN, 0)
            put_i64(frame + 8 * F_BEGIN, rows)
            put_i64(frame + 8 * F_GUESS, 0)
            depth += 1
            i = blank_apart(i + 1, end)
            if i < end and u8(i) == (125 if c == 123 else 93):
                # Nothing in it: nothing to be found where something was expected.
                if place >= 0:
                    return PACK_LEFT, serial
                i += 1
                depth -= 1
            else:
                done = False
        elif place < 0:
            i = skip(i, end)
            if i < 0:
                return PACK_LEFT, serial
        else:
            field = _place(places, place, T_FIELD)
            if field < 0:
                return PACK_LEFT, serial
            said = _begun(places, place, said) | 1 << field
            if field == VALUE:
                if c == 110:
                    if not is_null(i, end):
                        return PACK_LEFT, serial
                    value, missing = 0.0, True
                    i += 4
                else:
                    missing = False
                    form, i, value, _, _ = number_apart(i, end)
                    # Of a zero with a sign the codec's two ways make two zeros; and no code for "no value" is compared
                    # with a whole number that no double is.
                    if form == BAD or (c == 45 and value == 0.0) or (form == INTEGER and abs(value) > 9e15):
                        return PACK_LEFT, serial
            elif field == TIME:
                if c == 34:
                    close = text_end_apart(i + 1, end)
                    if close < 0 or i64(origin + 8 * O_TEXT_TIMES) == 0:
                        return PACK_LEFT, serial
                    ok, time_us = time_of_text(i + 1, close, numbers)
                    i = close + 1
                else:
                    form, i, real, whole, holds = number_apart(i, end)
                    if form == BAD or (form == INTEGER and holds == 0):
                        return PACK_LEFT, serial
                    ok, time_us = time_of_number(form, real, whole, i64(numbers + 8 * SCALE))
                if not ok or time_us < i64(numbers + 8 * OLDEST) or time_us > i64(numbers + 8 * NEWEST):
                    return PACK_LEFT, serial
            elif field == FLAG:
                if c == 110:
                    if not is_null(i, end):
                        return PACK_LEFT, serial
                    flag = 0
                    i += 4
                elif c == 34:
                    close = text_end_apart(i + 1, end)
                    if close < 0:
                        return PACK_LEFT, serial
                    word = _child(trees, place, i + 1, end, 0)
                    if word < 0:
                        return PACK_LEFT, serial
                    flag = i64(keys + 8 * (KEY_FIELDS * (_place(places, place, T_FIRST) + word) + K_PLACE))
                    i = close + 1
                else:
                    form, i, _, whole, holds = number_apart(i, end)
                    if form != INTEGER or holds == 0 or _place(places, place, T_COUNT) > 0:
                        return PACK_LEFT, serial
                    if not (0 <= whole <= 4 or whole == MISSING_FLAG):
                        return PACK_LEFT, serial
                    flag = whole
            else:
                at = i
                if c == 34:
                    at = i + 1
                    close = text_end_apart(at, end)
                    if close < 0:
                        return PACK_LEFT, serial
                    size = close - at
                    i = close + 1
                else:
                    form, i, _, _, holds = number_apart(i, end)
                    if form != INTEGER or holds == 0 or c == 45:
                        return PACK_LEFT, serial
                    size = i - at
                if field == DEVICE:
                    device_at, device_bytes = at, size
                else:
                    quantity_at, quantity_bytes = at, size
        # Behind a value: what it ends, and what it begins.
        while done:
            if place >= 0 and _place(places, place, T_LEVEL) >= 0:
                # An element ends, and with it all it says of the rows within.
                first = rows
                if _place(places, place, T_LAST) != 0:
                    if rows >= room:
                        return PACK_FULL, serial
                    if rows - begin >= min(i64(numbers + 8 * READINGS_MAX), STAGE_ROWS):
                        return PACK_LEFT, serial
                    at = stage + 8 * STAGE_FIELDS * (rows - begin)
                    put_i64(at + 8 * S_DEVICE_AT, pool + i64(origin + 8 * O_DEVICE_AT))
                    put_i64(at + 8 * S_DEVICE_BYTES, i64(origin + 8 * O_DEVICE_BYTES))
                    put_i64(at + 8 * S_QUANTITY_AT, pool + i64(origin + 8 * O_QUANTITY_AT))
                    put_i64(at + 8 * S_QUANTITY_BYTES, i64(origin + 8 * O_QUANTITY_BYTES))
                    put_i64(at + 8 * S_ENTRIES, serial)
                    put(columns, rows, 0, INT(UNTIMED), 0.0, False, 0)
                    rows += 1
                elif u8(i - 1) == 125 or u8(i - 1) == 93:
                    first = i64(frames + 8 * (FRAME_FIELDS * depth + F_BEGIN))
                if rows == first:
                    return PACK_LEFT, serial
                needed = _place(places, place, T_NEEDED)
                here = _place(places, place, T_HERE) & said
                if needed & ~said:
                    return PACK_LEFT, serial
                for row in range(first, rows):
                    at = stage + 8 * STAGE_FIELDS * (row - begin)
                    if here >> VALUE & 1:
                        put_f64(columns[2] + 8 * row, np.nan if missing else value)
                    if here >> TIME & 1:
                        put_i64(columns[1] + 8 * row, time_us)
                    if here >> FLAG & 1:
                        put_u8(columns[3] + row, flag)
                    if here >> DEVICE & 1:
                        put_i64(at + 8 * S_DEVICE_AT, device_at)
                        put_i64(at + 8 * S_DEVICE_BYTES, device_bytes)
                    if here >> QUANTITY & 1:
                        put_i64(at + 8 * S_QUANTITY_AT, quantity_at)
                        put_i64(at + 8 * S_QUANTITY_BYTES, quantity_bytes)
            i = blank_apart(i, end)
            if depth == 0:
                if i != end:
                    return PACK_LEFT, serial
                entries = i64(origin + 8 * O_ENTRIES) != 0
                found = _bind(
                    names, bounds, hows, spoken, retained, message, begin, rows, out, stage, stamps, entries
                )
                return found, serial
            if i >= end:
                return PACK_LEFT, serial
            c = u8(i)
            i += 1
            frame = frames + 8 * FRAME_FIELDS * (depth - 1)
            if c == 44:
                i = blank_apart(i, end)
                done = False
            elif c == (125 if i64(frame + 8 * F_KIND) == OBJECT else 93):
                depth -= 1
                place = i64(frame + 8 * F_PLACE)
            else:
                return PACK_LEFT, serial
        # Inside a container: the next of its values.
        frame = frames + 8 * FRAME_FIELDS * (depth - 1)
        holder = i64(frame + 8 * F_PLACE)
        if i64(frame + 8 * F_KIND) == ARRAY:
            place = _place(places, holder, T_ELEMENT) if holder >= 0 else NOTHING
            continue
        if i >= end or u8(i) != 34:
            return PACK_LEFT, serial
        i += 1
        close = text_end_apart(i, end)
        if close < 0:
            return PACK_LEFT, serial
        place = NOTHING
        if holder >= 0:
            many = _place(places, holder, T_MANY)
            k = -1
            if many != ENTRIES or _place(places, holder, T_WANTED) != 0:
                k = _child(trees, holder, i, end, i64(frame + 8 * F_GUESS))
                if k >= 0:
                    put_i64(frame + 8 * F_GUESS, k + 1)
            if k >= 0:
                first = _place(places, holder, T_FIRST)
                place = i64(keys + 8 * (KEY_FIELDS * (first + k) + K_PLACE))
            elif many == ENTRIES and _place(places, holder, T_WANTED) == 0:
                place = _place(places, holder, T_ELEMENT)
            if many == ENTRIES and place >= 0 and place == _place(places, holder, T_ELEMENT):
                if _place(places, place, T_KEY) == DEVICE:
                    device_at, device_bytes = i, close - i
                else:
                    quantity_at, quantity_bytes = i, close - i
            elif k >= 0:
                seen = i64(frame + 8 * F_SEEN)
                if seen >> k & 1:
                    return PACK_LEFT, serial
                put_i64(frame + 8 * F_SEEN, seen | 1 << k)
        i = blank_apart(close + 1, end)
        if i >= end or u8(i) != 58:
            return PACK_LEFT, serial
        i = blank_apart(i + 1, end)
