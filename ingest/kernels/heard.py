"""Texts that are met while running, each with a number: topics of a source's filters, names in its payloads.

Owns a table of texts that grows, the look-up of a name in it, and what a name stands for: a point and how its values
are converted. Other than with the registry's texts a peer may choose what comes here, so chains are bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ingest.kernels.compiling import compiled, inlined, part
from ingest.kernels.tables import Texts, U64s, fill_texts, number_of
from ingest.kernels.words import INT, SLACK, U64, float_of_bits, hash_of, i32, i64, put_i64, same, u64
from storage.batch import I32, I64, U8

PROBES_MAX: Final = 64
"""Slots looked at before a text is not taken in: texts whose hashes were made to meet cost no more than this."""
TEXTS_MAX: Final = 1 << 21
"""Texts of one table: the names of a million points twice over. Whoever holds it then begins anew."""
SPOKEN_BYTES_MAX: Final = 500
"""Of a name with what stands before it; a message with a longer one is left."""
SPOKEN_ROOM: Final = SPOKEN_BYTES_MAX + 2 * SLACK

B_POINT, B_HOW = range(2)
"""What a name stands for, int32: the point, -1 where its readings are not for a kernel; the number of how its values
are converted."""
BOUND_FIELDS: Final = 2
H_PLAIN, H_ON_RECEIPT, H_FACTOR, H_OFFSET, H_MISSINGS, H_MISSING = range(6)
"""How values are converted, int64: 1 where they are stored as sent; 1 where a reading may come without a time; the
bits of factor and offset; how many codes mean "no value"; from H_MISSING on the bits of these."""
CODES_MAX: Final = 8
HOW_FIELDS: Final = H_MISSING + CODES_MAX

_UPPER = U64(0xFFFFFFFF00000000)
_NONE = U64(0)


@compiled
def add_texts(slots: U64s, at: I64, pool: U8, count: int, sizes: I64, numbers: I64) -> int:
    """Take texts in that stand behind the last one of ``pool`` already, one behind the other; how many there are then.

    numbers  of each: the one it has now, whether new or not; -1 where it was not taken in
    """
    mask = INT(len(slots) - 1)
    text = INT(pool.ctypes.data)
    read = INT(at[count])
    for n in range(len(sizes)):
        size = sizes[n]
        found = hash_of(text + read, size)
        slot = INT(found & U64(mask))
        numbers[n] = -1
        for _ in range(PROBES_MAX):
            there = slots[slot]
            if there == _NONE:
                # What was known already left a gap: the new one moves up to the last.
                to = at[count]
                for k in range(size):
                    pool[to + k] = pool[read + k]
                at[count + 1] = to + size
                slots[slot] = (found & _UPPER) | U64(count + 1)
                numbers[n] = count
                count += 1
                break
            k = INT(there & U64(0xFFFFFFFF)) - 1
            if at[k + 1] - at[k] == size and same(text + at[k], text + read, size):
                numbers[n] = k
                break
            slot = (slot + 1) & mask
        read += size
    return count


class Heard:
    """Texts by number, in the order they came. ``texts`` is what kernels look them up in; it changes with ``add``."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all: numbers begin anew."""
        self.count = 0
        self._slots = np.zeros(1 << 10, np.uint64)
        self._at = np.zeros(1 << 9, np.int64)
        self._pool = np.zeros(1 << 14, np.uint8)

    @property
    def texts(self) -> Texts:
        """The table as a kernel wants it."""
        return Texts(self._slots, self._at, self._pool)

    def add(self, texts: Sequence[bytes]) -> list[int]:
        """The number of each text, new or not; -1 for one that is not taken in."""
        joined = b"".join(texts)
        begin = int(self._at[self.count])
        after = begin + len(joined)
        if after + SLACK > len(self._pool):
            self._pool = np.concatenate([self._pool, np.zeros(after + SLACK, np.uint8)])
        if self.count + len(texts) + 1 > len(self._at):
            self._at = np.concatenate([self._at, np.zeros(self.count + len(texts) + 1, np.int64)])
        if 2 * (self.count + len(texts)) > len(self._slots):
            self._slots = np.zeros(1 << (4 * (self.count + len(texts))).bit_length(), np.uint64)
            fill_texts(self._slots, self._at[: self.count + 1], self._pool)
        self._pool[begin:after] = np.frombuffer(joined, np.uint8)
        numbers = np.empty(len(texts), np.int64)
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        self.count = add_texts(self._slots, self._at, self._pool, self.count, sizes, numbers)
        return list(numbers.tolist())


@inlined
def copy(to: int, i: int, size: int) -> None:
    """Bytes from one address to another; up to seven more than asked for are written."""
    for k in range(0, size, 8):
        put_i64(to + k, i64(i + k))


@part
def spoken_number(names: tuple[int, int, int, int, int], i: int, size: int, expected: int) -> int:
    """The number of the name of ``size`` bytes at ``i``; -1 where nobody heard it yet.

    names     address of slots, mask, address of ends and of the pool, how many there are
    expected  looked at first: messages bring the same names in the same order
    """
    slots, mask, ends, pool, count = names
    if 0 <= expected < count:
        at = i64(ends + 8 * expected)
        if i64(ends + 8 * expected + 8) - at == size and same(pool + at, i, size):
            return expected
    found: int = number_of(slots, mask, ends, pool, i, size)
    return found


@inlined
def converted(how: int, value: float) -> tuple[bool, bool, float]:
    """(whether it can be stored, whether it is missing, the value to be stored)."""
    if i64(how + 8 * H_PLAIN) != 0:
        return True, False, value
    for k in range(i64(how + 8 * H_MISSINGS)):
        if float_of_bits(u64(how + 8 * (H_MISSING + k))) == value:
            return True, True, value
    value = value * float_of_bits(u64(how + 8 * H_FACTOR)) + float_of_bits(u64(how + 8 * H_OFFSET))
    return value - value == 0.0, False, value


@inlined
def bound_of(bounds: int, number: int) -> tuple[int, int]:
    """A name's point and how its values are converted."""
    at = bounds + 4 * BOUND_FIELDS * number
    return i32(at + 4 * B_POINT), i32(at + 4 * B_HOW)


def no_bounds() -> tuple[I32, I64]:
    """Room for what names stand for, and how."""
    return np.zeros((1 << 9, BOUND_FIELDS), np.int32), np.zeros((0, HOW_FIELDS), np.int64)
