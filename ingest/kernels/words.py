"""Bytes as a kernel reads them: by address, one or eight at once.

Owns loads and stores, comparison, hashing and the checks of text. Addresses and not arrays, because an
array is counted by reference at each call, with two locked instructions that cost more than the call. A
buffer must have ``SLACK`` bytes behind the last one that means anything: eight are read where fewer are
asked about. Nothing here checks a bound: callers do, and tests with a guard behind the buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numpy as np

from ingest.kernels.compiling import inlined, part

# By name: neither has types to offer.
ir: Any = import_module("llvmlite.ir")
types: Any = import_module("numba").types
intrinsic: Callable[[Callable[..., Any]], Any] = import_module("numba.extending").intrinsic

SLACK: Final = 16
"""Bytes every buffer has beyond its end."""

U64: Any = np.uint64
INT: Any = np.int64
"""As kernels convert: numba knows both by these names too."""
_ONES = U64(0x0101010101010101)
_HIGH = U64(0x8080808080808080)
_PLUS = U64(0x2B2B2B2B2B2B2B2B)
_HASH = U64(0x2323232323232323)
_LETTERS = U64(0x6161616161616161)
_ALL = U64(0xFFFFFFFFFFFFFFFF)
_MIX = U64(0x9FB21C651E98DF25)
_EIGHT = U64(8)
_HALF = U64(32)


def _load(bits: int, name: str, doc: str) -> Any:
    """An intrinsic that reads an integer of ``bits`` at an address, however it is aligned."""

    @intrinsic
    def load(_typing: Any, _address: Any) -> Any:
        def made(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            at = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            loaded = builder.load(at)
            loaded.align = 1
            if bits == 64:
                return loaded
            wide = builder.zext if name == "u8" else builder.sext
            return wide(loaded, ir.IntType(64))

        return (types.uint64 if name == "u64" else types.int64)(types.int64), made

    load.__doc__ = doc
    return load


def _store(kind: Any, bits: int, doc: str) -> Any:
    """An intrinsic that writes a number of ``bits`` at an address."""

    @intrinsic
    def store(_typing: Any, _address: Any, _value: Any) -> Any:
        def made(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            width = ir.DoubleType() if kind is types.float64 else ir.IntType(bits)
            value = builder.trunc(args[1], width) if bits < 64 else args[1]
            stored = builder.store(value, builder.inttoptr(args[0], width.as_pointer()))
            stored.align = 1
            return context.get_dummy_value()

        return types.void(types.int64, kind), made

    store.__doc__ = doc
    return store


u8 = _load(8, "u8", "The byte at an address, as int64.")
u64 = _load(64, "u64", "The eight bytes at an address, little-endian, as uint64.")
i32 = _load(32, "i32", "The int32 at an address, as int64.")
i64 = _load(64, "i64", "The int64 at an address.")
put_u8 = _store(types.int64, 8, "Write the lowest byte of an int64.")
put_i32 = _store(types.int64, 32, "Write the lower half of an int64.")
put_i64 = _store(types.int64, 64, "Write an int64.")
put_f64 = _store(types.float64, 64, "Write a double.")


@intrinsic
def prefetch(_typing: Any, _address: Any) -> Any:
    """Have the line at an address in the cache soon; nothing happens where there is none."""

    def made(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(ask, [builder.inttoptr(args[0], pointer), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(types.int64), made


@intrinsic
def float_of_bits(_typing: Any, _bits: Any) -> Any:
    """The double whose bits these are."""

    def made(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), made


@intrinsic
def leading_zeros(_typing: Any, _word: Any) -> Any:
    """Of a uint64 that is not 0."""

    def made(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), made


@inlined
def same(i: int, j: int, size: int) -> bool:
    """Whether ``size`` bytes are the same at both addresses."""
    left = size
    while left >= 8:
        if u64(i) != u64(j):
            return False
        i += 8
        j += 8
        left -= 8
    if left == 0:
        return True
    keep = _ALL >> (U64(8 - left) * _EIGHT)
    return bool((u64(i) ^ u64(j)) & keep == U64(0))


@inlined
def hash_of(i: int, size: int) -> Any:
    """64 bits of ``size`` bytes. What it decides is always compared byte by byte afterwards."""
    found = U64(size) * _MIX
    left = size
    while left >= 8:
        found = (found ^ u64(i)) * _MIX
        found ^= found >> _HALF
        i += 8
        left -= 8
    if left > 0:
        found = (found ^ (u64(i) & (_ALL >> (U64(8 - left) * _EIGHT)))) * _MIX
        found ^= found >> _HALF
    found *= _MIX
    return found ^ (found >> _HALF)


@part
def utf8_from(i: int, end: int) -> int:
    """The index after the one character of two to four bytes that stands at ``i``; -1 where none does."""
    first = u8(i)
    if first < 0xC2 or first > 0xF4:
        return -1
    more = 1 if first < 0xE0 else 2 if first < 0xF0 else 3
    if i + more >= end:
        return -1
    second = u8(i + 1)
    low, high = 0x80, 0xBF
    if first == 0xE0:
        low = 0xA0
    elif first == 0xED:
        high = 0x9F
    elif first == 0xF0:
        low = 0x90
    elif first == 0xF4:
        high = 0x8F
    if second < low or second > high:
        return -1
    for k in range(2, more + 1):
        if u8(i + k) & 0xC0 != 0x80:
            return -1
    return i + more + 1


@part
def is_utf8(i: int, end: int) -> bool:
    """Whether the bytes are well-formed UTF-8."""
    while i < end:
        if u8(i) < 0x80:
            i += 1
        else:
            i = utf8_from(i, end)
            if i < 0:
                return False
    return True


@inlined
def is_topic(i: int, size: int) -> bool:
    """Whether these bytes may be the topic of a PUBLISH: UTF-8, not empty, no wildcard, no U+0000."""
    if size == 0:
        return False
    found = U64(0)
    beyond_ascii = U64(0)
    at = i
    left = size
    while left > 0:
        word = u64(at)
        if left < 8:
            keep = _ALL >> (U64(8 - left) * _EIGHT)
            word = (word & keep) | (_LETTERS & ~keep)
        plus, sharp = word ^ _PLUS, word ^ _HASH
        # The usual test for a zero byte; a borrow may make it see one too many, behind a real one only.
        found |= ((word - _ONES) & ~word) | ((plus - _ONES) & ~plus) | ((sharp - _ONES) & ~sharp)
        beyond_ascii |= word
        at += 8
        left -= 8
    if found & _HIGH != U64(0):
        return False
    if beyond_ascii & _HIGH != U64(0):
        return is_utf8(i, i + size)
    return True
