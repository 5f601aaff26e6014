"""JSON payloads of one poll straight into columns: the form nearly every message has.

Owns the short way for a flat object, an array of flat objects and a bare number. It adds a message's
readings only where the general decoder (ingest.decode.json_readings) would add just the same; any other
message is named in ``left`` and is the general decoder's, whole.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from ingest.kernels.compiling import compiled, inlined
from ingest.kernels.grammar import (
    BARE,
    DEPTH_MAX,
    MISSING_FLAG,
    NEWEST,
    OLDEST,
    PAYLOAD_MAX,
    READINGS_MAX,
    SCALE,
    SOURCE_FIELDS,
    UNTIMED,
    blank,
    is_code,
    is_null,
    put,
    skip,
    text_end,
    time_of_number,
    time_of_text,
)
from ingest.kernels.numbers import BAD, INTEGER, number, number_apart
from ingest.kernels.scan import LOAD_AT, LOAD_BYTES, MESSAGE_FIELDS, SEGMENT, TOPIC_AT, TOPIC_BYTES
from ingest.kernels.tables import Texts, U64s, has_pair, maybe_number_of, number_of
from ingest.kernels.words import INT, U64, hash_of, i32, i64, prefetch, put_i64, same, u8, u64
from storage.batch import F64, I32, I64, U8

TIME, VALUE, ID, FLAG = range(4)
"""A source's four fields, in the order they are looked for."""
FIELDS: Final = 4
FIELD_BYTES: Final = 64
"""What each takes in a table: its name, and how long it is in the byte behind the longest name."""
NAME_BYTES_MAX: Final = 55
"""Of a field's name; a longer one leaves its source to the general decoder."""

R_POINT, R_GATEWAY, R_SOURCE, R_ON_RECEIPT = range(4)
"""A route's numbers, int32: point or -1; gateway or -1; source, -1 where it has no short way; 1 where the
point is timed on receipt."""
ROUTE_FIELDS: Final = 4
S_CREDENTIAL, S_BROKER = range(2)
"""A segment's, int32: number of the credential, 0 for none; whether a broker sent it."""

AHEAD: Final = 32
"""Messages whose topics are looked up together: enough to hide the memory's latency, few enough that what was
fetched is still near."""
TAKEN: Final = -1
LEFT: Final = 0
"""What became of a message: added; or the general decoder's. Where nobody asked yet whether its credential may
say it: the number of its route and one."""
RETAIN: Final = 1


class Sources(NamedTuple):
    """n sources. names uint8 [n, FIELDS, FIELD_BYTES], numbers int64 [n, SOURCE_FIELDS]."""

    names: U8
    numbers: I64


class Points(NamedTuple):
    """ids by point number; gateway of each, -1 where readings of the point are not taken from an array."""

    ids: Texts
    gateway: I32
    on_receipt: U8


@inlined
def _field_at(i: int, end: int, fields: int) -> int:
    """Which of the source's fields is named by the text at ``i``; -1 for none of them."""
    for k in range(FIELDS):
        field = fields + k * FIELD_BYTES
        size = u8(field + NAME_BYTES_MAX)
        # No name has a quote, so that the first one behind it ends the text.
        if i + size < end and u8(i + size) == 34 and same(field, i, size):
            return k
    return -1


@inlined
def _object(
    i: int,
    end: int,
    fields: int,
    numbers: int,
    ids: tuple[int, int, int, int],
    gateway_of: int,
    on_receipt: int,
    point: int,
    gateway: int,
    retained: bool,
    row: int,
    out: tuple[int, int, int, int],
) -> int:
    """One object, whose brace stands at ``i``, into a row; the byte after it, -1 where it is left."""
    slots, mask, ends, pool = ids
    seen = 0
    time_us = INT(UNTIMED)
    value = 0.0
    missing = False
    flag = 0
    i = blank(i + 1, end)
    while True:
        if i >= end or u8(i) != 34:
            return -1
        i += 1
        field = _field_at(i, end, fields)
        if field >= 0:
            i += u8(fields + field * FIELD_BYTES + NAME_BYTES_MAX)
            if seen >> field & 1:
                return -1
            seen |= 1 << field
        else:
            i = text_end(i, end)
            if i < 0:
                return -1
        i = blank(i + 1, end)
        if i >= end or u8(i) != 58:
            return -1
        i = blank(i + 1, end)
        if i >= end:
            return -1
        c = u8(i)
        if field == TIME:
            if c == 34:
                close = text_end(i + 1, end)
                if close < 0:
                    return -1
                ok, time_us = time_of_text(i + 1, close, numbers)
                i = close + 1
            else:
                form, i, real, whole, holds = number(i, end)
                if form == BAD or (form == INTEGER and holds == 0):
                    return -1
                ok, time_us = time_of_number(form, real, whole, i64(numbers + 8 * SCALE))
            if not ok or time_us < i64(numbers + 8 * OLDEST) or time_us > i64(numbers + 8 * NEWEST):
                return -1
        elif field == VALUE:
            if c == 110:
                if not is_null(i, end):
                    return -1
                missing = True
                i += 4
            else:
                form, i, value, _, _ = number(i, end)
                if form == BAD:
                    return -1
                missing = is_code(numbers, value)
        elif field == ID:
            if c != 34:
                return -1
            close = text_end(i + 1, end)
            if close < 0:
                return -1
            size = close - i - 1
            if gateway < 0:
                at = i64(ends + 8 * point)
                if i64(ends + 8 * point + 8) - at != size or not same(pool + at, i + 1, size):
                    return -1
            else:
                point = number_of(slots, mask, ends, pool, i + 1, size)
                if point < 0 or i32(gateway_of + 4 * point) != gateway:
                    return -1
            i = close + 1
        elif field == FLAG:
            if c == 110:
                if not is_null(i, end):
                    return -1
                i += 4
            else:
                form, i, _, whole, holds = number_apart(i, end)
                if form != INTEGER or holds == 0:
                    return -1
                if not (0 <= whole <= 4 or whole == MISSING_FLAG):
                    return -1
                flag = whole
        else:
            i = skip(i, end)
            if i < 0:
                return -1
        i = blank(i, end)
        if i >= end:
            return -1
        c = u8(i)
        i += 1
        if c == 125:
            break
        if c != 44:
            return -1
        i = blank(i, end)
    if not seen >> VALUE & 1 or point < 0:
        return -1
    if not seen >> TIME & 1 and (retained or u8(on_receipt + point) == 0):
        return -1
    put(out, row, point, time_us, value, missing, flag)
    return i


@inlined
def _look_up(
    messages: int,
    order: int,
    count: int,
    base: int,
    topics: tuple[int, int, int, int],
    routes: int,
    numbers: int,
) -> None:
    """The routes of at most AHEAD messages, into ``numbers``. Step by step for all of them, so that the
    memory one step needs is on its way for many while the step before it runs for others: with 116,200
    topics nothing of a table stands in the nearest caches."""
    slots, mask, ends, pool = topics
    for j in range(count):
        message = messages + 4 * MESSAGE_FIELDS * i32(order + 4 * j)
        found = hash_of(base + i32(message + 4 * TOPIC_AT), i32(message + 4 * TOPIC_BYTES))
        prefetch(slots + 8 * INT(found & U64(mask)))
        put_i64(numbers + 8 * j, INT(found))
    for j in range(count):
        k = maybe_number_of(slots, mask, u64(numbers + 8 * j))
        put_i64(numbers + 8 * j, k)
        if k >= 0:
            prefetch(ends + 8 * k)
            prefetch(routes + 4 * ROUTE_FIELDS * k)
    for j in range(count):
        k = i64(numbers + 8 * j)
        if k >= 0:
            prefetch(pool + i64(ends + 8 * k))
    for j in range(count):
        k = i64(numbers + 8 * j)
        if k >= 0:
            message = messages + 4 * MESSAGE_FIELDS * i32(order + 4 * j)
            topic, size = base + i32(message + 4 * TOPIC_AT), i32(message + 4 * TOPIC_BYTES)
            at = i64(ends + 8 * k)
            if i64(ends + 8 * k + 8) - at != size or not same(pool + at, topic, size):
                put_i64(numbers + 8 * j, number_of(slots, mask, ends, pool, topic, size))


@compiled
def decode_messages(
    buffer: U8,
    messages: I32,
    heads: U8,
    order: I32,
    begin: int,
    count: int,
    segments: I32,
    topics: Texts,
    routes: I32,
    allowed: U64s,
    sources: Sources,
    points: Points,
    out_point: I32,
    out_time: I64,
    out_value: F64,
    out_flag: U8,
    out_message: I32,
    rows: int,
    left: I32,
    asked: I32,
    lefts: int,
) -> tuple[int, int, int]:
    """Decode the messages ``order[begin:count]``; (next message, rows, messages left).

    Rows go on from ``rows``, one a reading, with the message each came from. ``left`` and ``asked`` (LEFT, or route
    and one) have room for every message. The next message is ``count`` unless the columns are full: make them
    larger, call again. UNTIMED stands where a reading brought no time; who knows the order of all rows gives it one.
    """
    room = len(out_point)
    base = INT(buffer.ctypes.data)
    topic_slots, topic_mask = INT(topics.slots.ctypes.data), len(topics.slots) - 1
    topic_ends, topic_pool = INT(topics.at.ctypes.data), INT(topics.pool.ctypes.data)
    ids = (
        INT(points.ids.slots.ctypes.data),
        len(points.ids.slots) - 1,
        INT(points.ids.at.ctypes.data),
        INT(points.ids.pool.ctypes.data),
    )
    gateway_of, on_receipt = INT(points.gateway.ctypes.data), INT(points.on_receipt.ctypes.data)
    all_names, all_numbers = INT(sources.names.ctypes.data), INT(sources.numbers.ctypes.data)
    out = (
        INT(out_point.ctypes.data),
        INT(out_time.ctypes.data),
        INT(out_value.ctypes.data),
        INT(out_flag.ctypes.data),
    )
    pairs, pairs_mask = INT(allowed.ctypes.data), len(allowed) - 1
    ahead = np.empty(AHEAD, np.int64)
    routes_at = INT(routes.ctypes.data)
    for k in range(begin, count):
        if (k - begin) % AHEAD == 0:
            _look_up(
                INT(messages.ctypes.data),
                INT(order.ctypes.data) + 4 * k,
                min(AHEAD, count - k),
                base,
                (topic_slots, topic_mask, topic_ends, topic_pool),
                routes_at,
                INT(ahead.ctypes.data),
            )
        m = INT(order[k])
        start = base + INT(messages[m, LOAD_AT])
        size = INT(messages[m, LOAD_BYTES])
        end = start + size
        segment = INT(messages[m, SEGMENT])
        broker = segments[segment, S_BROKER] != 0
        route = ahead[(k - begin) % AHEAD]
        reason = LEFT
        after = rows
        source = INT(-1)
        if route >= 0:
            source = INT(routes[route, R_SOURCE])
        numbers = all_numbers + 8 * SOURCE_FIELDS * source
        if source >= 0 and size <= i64(numbers + 8 * PAYLOAD_MAX):
            credential = segments[segment, S_CREDENTIAL]
            pair = U64(credential) << U64(32) | U64(route + 1)
            if credential != 0 and not has_pair(pairs, pairs_mask, pair):
                reason = route + 1
            else:
                fields = all_names + source * FIELDS * FIELD_BYTES
                point = INT(routes[route, R_POINT])
                gateway = INT(routes[route, R_GATEWAY])
                retained = broker and heads[m] & RETAIN != 0
                i = blank(start, end)
                c = u8(i) if i < end else 0
                if c == 123 or c == 91:
                    many = c == 91
                    if rows >= room:
                        return k, rows, lefts
                    if many:
                        i = blank(i + 1, end)
                    longest = i64(numbers + 8 * READINGS_MAX)
                    if many and i64(numbers + 8 * DEPTH_MAX) < 2:
                        longest = 0
                    while True:
                        if i >= end or u8(i) != 123 or (many and after - rows >= longest):
                            i = INT(-1)
                            break
                        if after >= room:
                            return k, rows, lefts
                        i = _object(
                            i,
                            end,
                            fields,
                            numbers,
                            ids,
                            gateway_of,
                            on_receipt,
                            point,
                            gateway,
                            retained,
                            after,
                            out,
                        )
                        if i < 0:
                            break
                        out_message[after] = m
                        after += 1
                        i = blank(i, end)
                        if not many:
                            break
                        c = u8(i) if i < end else 0
                        i += 1
                        if c == 93:
                            i = blank(i, end)
                            break
                        if c != 44:
                            i = INT(-1)
                            break
                        i = blank(i, end)
                    if i == end:
                        reason = TAKEN
                elif point >= 0 and i64(numbers + 8 * BARE) != 0 and not retained:
                    if rows >= room:
                        return k, rows, lefts
                    form, i, value, _, _ = number_apart(i, end)
                    if form != BAD and routes[route, R_ON_RECEIPT] != 0 and blank(i, end) == end:
                        missing = is_code(numbers, value)
                        out_point[rows] = point
                        out_time[rows] = UNTIMED
                        out_value[rows] = np.nan if missing else value
                        out_flag[rows] = MISSING_FLAG if missing else 0
                        out_message[rows] = m
                        after = rows + 1
                        reason = TAKEN
        if reason == TAKEN:
            rows = after
        else:
            left[lefts] = m
            asked[lefts] = reason
            lefts += 1
    return count, rows, lefts
