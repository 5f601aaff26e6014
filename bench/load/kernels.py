"""The generator's inner loops, compiled: digits into ready-made packets, acknowledgements out of bytes.

Owns no memory and no socket: every function works on arrays it is given. Compiled code is kept in numba's
own cache beside this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

try:
    njit: Any = import_module("numba").njit
except ImportError:  # the same functions, a hundred times slower: enough for tests, not for a load

    def njit(**_: Any) -> Any:
        """Leave a function as it is."""
        return lambda function: function


TS_DIGITS = 13
"""Milliseconds since 1970, from 2001 to 2286."""
ISO_CHARS = 23
"""``2026-07-01T08:00:00.123``, in the city's zone; the offset behind it never changes."""
PACKET_IDS = 65_535
DAY_MS = 86_400_000


@njit(cache=True, inline="always")
def _two(wire: Any, at: int, number: int) -> None:
    wire[at] = 48 + number // 10
    wire[at + 1] = 48 + number % 10


@njit(cache=True)
def write_iso(wire: Any, at: int, local_ms: int) -> None:
    """ISO_CHARS bytes of a time in ms since 1970, already moved to its zone (Howard Hinnant's civil days)."""
    days, ms = local_ms // DAY_MS, local_ms % DAY_MS
    z = days + 719_468
    era = z // 146_097
    doe = z - era * 146_097
    yoe = (doe - doe // 1_460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    month = mp + 3 if mp < 10 else mp - 9
    year = yoe + era * 400 + (1 if month <= 2 else 0)
    _two(wire, at, year // 100)
    _two(wire, at + 2, year % 100)
    _two(wire, at + 5, month)
    _two(wire, at + 8, doy - (153 * mp + 2) // 5 + 1)
    _two(wire, at + 11, ms // 3_600_000)
    _two(wire, at + 14, ms // 60_000 % 60)
    _two(wire, at + 17, ms // 1_000 % 60)
    wire[at + 20] = 48 + ms % 1_000 // 100
    _two(wire, at + 21, ms % 100)


@njit(cache=True)
def write_ms(wire: Any, at: int, ms: int) -> None:
    """TS_DIGITS bytes of ms since 1970."""
    for place in range(at + TS_DIGITS - 1, at - 1, -1):
        wire[place] = 48 + ms % 10
        ms //= 10


@njit(cache=True)
def stamp(
    wire: Any,
    first: Any,
    ts_at: Any,
    iso_offset_ms: Any,
    vary_at: Any,
    id_at: Any,
    last_ms: Any,
    count: Any,
    ms_sum: Any,
    digit_sum: Any,
    begin: int,
    end: int,
    now_ms: int,
    since_ms: int,
    next_id: int,
    noise: int,
) -> tuple[int, int]:
    """Make messages ``begin`` … ``end`` say ``now_ms``, a new last digit and the next packet ids, in place.

    A point whose last time was not before ``now_ms`` gets one millisecond more than its last. What is written
    is added up by reading: ``count``, ``ms_sum`` (ms since ``since_ms``) and ``digit_sum``.
    Returns the packet id and the noise to go on with.
    """
    digits = np.empty(TS_DIGITS, np.uint8)
    write_ms(digits, 0, now_ms)
    for message in range(begin, end):
        at = id_at[message]
        if at >= 0:
            wire[at] = next_id >> 8
            wire[at + 1] = next_id & 0xFF
            next_id = next_id % PACKET_IDS + 1
        for reading in range(first[message], first[message + 1]):
            ms = now_ms
            at = ts_at[reading]
            if last_ms[reading] >= now_ms:
                ms = last_ms[reading] + 1
            if iso_offset_ms[reading] >= 0:
                write_iso(wire, at, ms + iso_offset_ms[reading])
            elif ms != now_ms:
                write_ms(wire, at, ms)
            else:
                for place in range(TS_DIGITS):
                    wire[at + place] = digits[place]
            last_ms[reading] = ms
            at = vary_at[reading]
            if at >= 0:
                noise = (noise * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
                digit = (noise >> 16) % 10
                wire[at] = 48 + digit
                digit_sum[reading] += digit
            count[reading] += 1
            ms_sum[reading] += ms - since_ms
    return next_id, noise


@njit(cache=True)
def in_flight_ahead(flying: Any, next_id: int, n: int) -> int:
    """How many of the ``n`` packet ids from ``next_id`` on are free before the first that is still in flight."""
    for free in range(n):
        if flying[next_id >> 3] & (1 << (next_id & 7)):
            return free
        next_id = next_id % PACKET_IDS + 1
    return n


@njit(cache=True)
def fly(flying: Any, next_id: int, n: int) -> None:
    """Mark ``n`` packet ids from ``next_id`` on as sent and not acknowledged. flying: uint8 [8192], a bit an id."""
    for _ in range(n):
        flying[next_id >> 3] |= 1 << (next_id & 7)
        next_id = next_id % PACKET_IDS + 1


@njit(cache=True)
def land(flying: Any, heard: Any, n: int) -> tuple[int, int, int, int, int]:
    """Take the whole packets in the first ``n`` bytes of ``heard``: (taken, acked, refused, strange, other).

    taken    bytes that were whole packets
    acked    PUBACKs of ids in flight; refused: of those, with a reason of 0x80 or above; strange: of ids that
             were not in flight
    other    first byte of the first packet that is neither PUBACK nor PINGRESP; 0 where there was none
    """
    at = acked = refused = strange = other = 0
    while at + 1 < n:
        length, begin = heard[at + 1], at + 2
        if length & 0x80:
            if begin >= n:
                break
            length, begin = (length & 0x7F) | heard[begin] << 7, begin + 1
        if begin + length > n:
            break
        if heard[at] == 0x40 and length >= 2:
            pid = heard[begin] << 8 | heard[begin + 1]
            bit = 1 << (pid & 7)
            if flying[pid >> 3] & bit:
                flying[pid >> 3] ^= bit
                acked += 1
                refused += length > 2 and heard[begin + 2] >= 0x80
            else:
                strange += 1
        elif heard[at] != 0xD0 and other == 0:
            other = heard[at]
        at = begin + length
    return at, acked, refused, strange, other
