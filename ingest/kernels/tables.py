"""Hash tables of texts: all topics, all point ids; and of pairs of numbers.

Owns open addressing with linear probing over slots of 64 bits: the upper half of a text's hash and its
number. Texts stand one behind the other in a pool of bytes. Only the registry decides what stands in
them, never a peer, so no peer can make a chain long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ingest.kernels.compiling import compiled, inlined
from ingest.kernels.words import INT, SLACK, U64, hash_of, i64, same, u64
from storage.batch import I64, U8

U64s = npt.NDArray[np.uint64]

_UPPER = U64(0xFFFFFFFF00000000)
_LOWER = U64(0x00000000FFFFFFFF)
_NONE = U64(0)
_PAIR = U64(0x9E3779B97F4A7C15)
_N32: Final = U64(32)
_N29: Final = U64(29)


class Texts(NamedTuple):
    """n texts by number 0 … n-1: ``pool[at[k]:at[k + 1]]``; ``slots`` leads from a text to its number."""

    slots: U64s
    at: I64
    pool: U8


@compiled
def fill_texts(slots: U64s, at: I64, pool: U8) -> int:
    """Put every text that is not empty into ``slots``; how many stood there already (they are left out)."""
    mask = INT(len(slots) - 1)
    text = INT(pool.ctypes.data)
    twice = 0
    for k in range(len(at) - 1):
        size = at[k + 1] - at[k]
        if size == 0:
            continue
        found = hash_of(text + at[k], size)
        slot = INT(found & U64(mask))
        while slots[slot] != _NONE:
            other = INT(slots[slot] & _LOWER) - 1
            if at[other + 1] - at[other] == size and same(text + at[other], text + at[k], size):
                twice += 1
                break
            slot = (slot + 1) & mask
        if slots[slot] == _NONE:
            slots[slot] = (found & _UPPER) | U64(k + 1)
    return twice


@inlined
def number_of(slots: int, mask: int, ends: int, pool: int, i: int, size: int) -> Any:
    """The number of the text of ``size`` bytes at ``i``; -1 where it is none of them. The columns of a Texts
    by address; ``mask`` is one less than its slots."""
    found = hash_of(i, size)
    upper = found & _UPPER
    slot = INT(found & U64(mask))
    while True:
        there = u64(slots + 8 * slot)
        if there == _NONE:
            return -1
        if there & _UPPER == upper:
            k = INT(there & _LOWER) - 1
            at = i64(ends + 8 * k)
            if i64(ends + 8 * k + 8) - at == size and same(pool + at, i, size):
                return k
        slot = (slot + 1) & mask


@inlined
def maybe_number_of(slots: int, mask: int, found: Any) -> Any:
    """The number of the first text with the upper half of a hash; -1 where there is none. Touches nothing
    but the slots, so that what comes next can be fetched for many texts at once."""
    upper = found & _UPPER
    slot = INT(found & U64(mask))
    while True:
        there = u64(slots + 8 * slot)
        if there == _NONE:
            return -1
        if there & _UPPER == upper:
            return INT(there & _LOWER) - 1
        slot = (slot + 1) & mask


def texts_of(texts: Sequence[bytes]) -> Texts:
    """A table of ``texts``; empty ones keep their number and are never found."""
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    at = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(sizes, out=at[1:])
    pool = np.zeros(int(at[-1]) + SLACK, np.uint8)
    pool[: at[-1]] = np.frombuffer(b"".join(texts), np.uint8)
    slots = np.zeros(1 << max(4, (2 * len(texts)).bit_length()), np.uint64)
    fill_texts(slots, at, pool)
    return Texts(slots, at, pool)


@inlined
def _slot_of(pair: Any, mask: int) -> Any:
    mixed = pair * _PAIR
    return INT((mixed ^ (mixed >> _N29)) & U64(mask))


@inlined
def has_pair(slots: int, mask: int, pair: Any) -> bool:
    """Whether ``pair``, which is not 0, is in the set whose slots stand at an address."""
    slot = _slot_of(pair, mask)
    while True:
        there = u64(slots + 8 * slot)
        if there == _NONE:
            return False
        if there == pair:
            return True
        slot = (slot + 1) & mask


@compiled
def add_pairs(slots: U64s, pairs: U64s) -> int:
    """Put ``pairs`` into the set; how many of them are new. Half of the slots at least must stay free."""
    mask = INT(len(slots) - 1)
    new = 0
    for pair in pairs:
        slot = _slot_of(pair, mask)
        while slots[slot] != _NONE and slots[slot] != pair:
            slot = (slot + 1) & mask
        if slots[slot] == _NONE:
            slots[slot] = pair
            new += 1
    return new


class Pairs:
    """A set of pairs of numbers (each below 2³¹) that grows."""

    def __init__(self) -> None:
        self.slots = np.zeros(1 << 10, np.uint64)
        self._held = 0

    @staticmethod
    def of(first: Sequence[int], second: Sequence[int]) -> U64s:
        """Two columns as one."""
        pairs: U64s = (np.array(first, np.uint64) << _N32) | (np.array(second, np.uint64) + np.uint64(1))
        return pairs

    def add(self, pairs: U64s) -> None:
        """Add those not there yet."""
        while 2 * (self._held + len(pairs)) > len(self.slots):
            held = self.slots[self.slots != 0]
            self.slots = np.zeros(2 * len(self.slots), np.uint64)
            add_pairs(self.slots, held)
        self._held += add_pairs(self.slots, pairs)
