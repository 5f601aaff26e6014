"""Numbers and times in text to values, to the last bit as the general decoder reads them.

Owns the grammar of a JSON number, its conversion to the nearest double, and ISO 8601 times. What is not
decided here with certainty is refused: the caller hands the message to the general decoder.

Sources: RFC 8259 section 6; the exact way with one operation is W. D. Clinger, "How to read floating point
numbers accurately" (1990); the rest is D. Lemire, "Number parsing at a gigabyte per second" (2021).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.kernels.compiling import inlined, part
from ingest.kernels.words import INT, U64, float_of_bits, leading_zeros, u8, u64

U64s = npt.NDArray[np.uint64]

BAD: Final = 0
INTEGER: Final = 1
REAL: Final = 2
"""What a number is to JSON parsers: with a fraction or an exponent it is a REAL."""

DIGITS_MAX: Final = 19
"""As many always fit 64 bits."""
EXACT_MAX: Final = U64(1 << 53)
TEN_MIN: Final = -342
TEN_MAX: Final = 308
"""Powers of ten beyond which a number of 19 digits is 0 or infinite, or so nearly that others may decide."""
EPOCH_DAYS: Final = 719_468
US: Final = 1_000_000


def _powers() -> tuple[U64s, U64s]:
    """The first 128 bits of each power of ten from TEN_MIN to TEN_MAX, rounded down: high and low half."""
    high, low = [], []
    for e in range(TEN_MIN, TEN_MAX + 1):
        if e >= 0:
            power = 10**e
            length = power.bit_length()
            bits = power << (128 - length) if length <= 128 else power >> (length - 128)
        else:
            power = 10**-e
            bits = (1 << (127 + power.bit_length())) // power
            bits >>= bits.bit_length() - 128
        high.append(bits >> 64)
        low.append(bits & (1 << 64) - 1)
    return np.array(high, np.uint64), np.array(low, np.uint64)


TEN_HIGH, TEN_LOW = _powers()
TEN = np.array([float(10**n) for n in range(23)])
"""Powers of ten that a double holds exactly."""

_LOW32 = U64(0xFFFFFFFF)
_N32 = U64(32)
_ZEROS = U64(0x3030303030303030)
_NIBBLES = U64(0xF0F0F0F0F0F0F0F0)
_SIXES = U64(0x0606060606060606)


@inlined
def _product(a: Any, b: Any) -> tuple[Any, Any]:
    """128 bits of a product: high and low half."""
    a0, a1, b0, b1 = a & _LOW32, a >> _N32, b & _LOW32, b >> _N32
    low, mid, cross = a0 * b0, a1 * b0, a0 * b1
    carry = (low >> _N32) + (mid & _LOW32) + (cross & _LOW32)
    return a1 * b1 + (mid >> _N32) + (cross >> _N32) + (carry >> _N32), a * b


@part
def nearest(mantissa: Any, ten: int) -> tuple[bool, float]:
    """The double nearest to mantissa · 10^ten, ties to even; (False, 0) where this way cannot tell.

    Subnormal, infinite and undecided results are left to others. ``mantissa`` is not 0.
    """
    if ten < TEN_MIN or ten > TEN_MAX:
        return False, 0.0
    zeros = leading_zeros(mantissa)
    m = mantissa << zeros
    binary = U64(((217_706 * ten) >> 16) + 64 + 1023) - zeros
    high, low = _product(m, TEN_HIGH[ten - TEN_MIN])
    rest = U64(0x1FF)
    if high & rest == rest and low + m < m:
        more, less = _product(m, TEN_LOW[ten - TEN_MIN])
        sum_low = low + more
        sum_high = high + U64(1) if sum_low < low else high
        if sum_high & rest == rest and sum_low + U64(1) == U64(0) and less + m < m:
            return False, 0.0
        high, low = sum_high, sum_low
    top = high >> U64(63)
    bits = high >> (top + U64(9))
    binary -= U64(1) ^ top
    if low == U64(0) and high & rest == U64(0) and bits & U64(3) == U64(1):
        return False, 0.0
    bits = (bits + (bits & U64(1))) >> U64(1)
    if bits >> U64(53) > U64(0):
        bits >>= U64(1)
        binary += U64(1)
    if binary - U64(1) >= U64(0x7FE):
        return False, 0.0
    return True, float_of_bits((binary << U64(52)) | (bits & U64((1 << 52) - 1)))


@inlined
def _are_digits(word: Any) -> bool:
    """Whether eight bytes are eight digits."""
    return bool((word & _NIBBLES == _ZEROS) and ((word + _SIXES) & _NIBBLES == _ZEROS))


@inlined
def _of_digits(word: Any) -> Any:
    """The number that eight digits are: pairs, then fours, then all."""
    word -= _ZEROS
    word = word * U64(10) + (word >> U64(8))
    mask = U64(0x000000FF000000FF)
    return (
        (word & mask) * U64(0x000F424000000064) + ((word >> U64(16)) & mask) * U64(0x0000271000000001)
    ) >> U64(32)


@inlined
def number(i: int, end: int) -> tuple[int, int, float, int, int]:
    """The JSON number at ``i``: (form, where it ends, its value, its integer, 1 where the integer holds).

    The integer holds for INTEGERs inside int64. BAD: no number, or one this way cannot read exactly.
    """
    negative = i < end and u8(i) == 45
    if negative:
        i += 1
    start = i
    m = U64(0)
    while i + 8 <= end:
        word = u64(i)
        if not _are_digits(word):
            break
        m = m * U64(100_000_000) + _of_digits(word)
        i += 8
        if i - start > 16:
            break
    while i < end:
        digit = u8(i) - 48
        if digit < 0 or digit > 9:
            break
        m = m * U64(10) + U64(digit)
        i += 1
        if i - start > DIGITS_MAX:
            return BAD, i, 0.0, 0, 0
    digits = i - start
    if digits == 0 or digits > DIGITS_MAX or (digits > 1 and u8(start) == 48):
        return BAD, i, 0.0, 0, 0
    mark = u8(i) if i < end else 0
    if mark != 46 and mark != 101 and mark != 69:
        if m <= EXACT_MAX:
            whole = INT(m)
            whole = -whole if negative else whole
            return INTEGER, i, float(whole), whole, 1
        ok, value = nearest(m, 0)
        if not ok:
            return BAD, i, 0.0, 0, 0
        if m >= U64(1 << 63):
            return INTEGER, i, -value if negative else value, 0, 0
        whole = INT(m)
        return INTEGER, i, -value if negative else value, -whole if negative else whole, 1
    ten = 0
    if mark == 46:
        i += 1
        point = i
        while i < end:
            digit = u8(i) - 48
            if digit < 0 or digit > 9:
                break
            m = m * U64(10) + U64(digit)
            i += 1
            digits += 1
            if digits > DIGITS_MAX:
                return BAD, i, 0.0, 0, 0
        if i == point:
            return BAD, i, 0.0, 0, 0
        ten = point - i
        mark = u8(i) if i < end else 0
    if mark == 101 or mark == 69:
        i += 1
        sign = u8(i) if i < end else 0
        if sign == 43 or sign == 45:
            i += 1
        first = i
        power = 0
        while i < end:
            digit = u8(i) - 48
            if digit < 0 or digit > 9:
                break
            power = power * 10 + digit
            i += 1
            if i - first > 4:
                return BAD, i, 0.0, 0, 0
        if i == first:
            return BAD, i, 0.0, 0, 0
        ten += -power if sign == 45 else power
    if m == U64(0):
        return REAL, i, -0.0 if negative else 0.0, 0, 0
    if m <= EXACT_MAX and -22 <= ten <= 22:
        value = float(m) * TEN[ten] if ten >= 0 else float(m) / TEN[-ten]
    else:
        ok, value = nearest(m, ten)
        if not ok:
            return BAD, i, 0.0, 0, 0
    return REAL, i, -value if negative else value, 0, 0


@part
def number_apart(i: int, end: int) -> tuple[int, int, float, int, int]:
    """``number``, where it is too rare to stand in place."""
    return number(i, end)


@inlined
def _two(i: int) -> int:
    """The two digits at ``i``; a large negative number where one is no digit."""
    tens, ones = u8(i) - 48, u8(i + 1) - 48
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -10_000


@part
def iso_time(i: int, end: int) -> tuple[int, int]:
    """An ISO 8601 time of exactly the bytes from ``i`` to ``end``: (form, µs since 1970).

    form 1: the time is UTC; 2: it has no offset and is local; 0: none that this way reads, which is
    2026-07-01T08:00:00, a blank for the T, one to six digits of a second, and Z, +08:00 or nothing behind.
    """
    size = end - i
    if size < 19 or size > 32:
        return 0, 0
    year = _two(i) * 100 + _two(i + 2)
    month, day = _two(i + 5), _two(i + 8)
    hour, minute, second = _two(i + 11), _two(i + 14), _two(i + 17)
    between = u8(i + 10)
    if u8(i + 4) != 45 or u8(i + 7) != 45 or u8(i + 13) != 58 or u8(i + 16) != 58:
        return 0, 0
    if between != 84 and between != 32:
        return 0, 0
    if year < 1 or month < 1 or month > 12 or day < 1 or hour < 0 or minute < 0 or second < 0:
        return 0, 0
    if hour > 23 or minute > 59 or second > 59:
        return 0, 0
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = 31
    if month == 2:
        longest = 29 if leap else 28
    elif month == 4 or month == 6 or month == 9 or month == 11:
        longest = 30
    if day > longest:
        return 0, 0
    # Days since 1 March of the year 0, whose leap days stand at the end of a year.
    y = year - 1 if month <= 2 else year
    months = month + 9 if month <= 2 else month - 3
    days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * months + 2) // 5 + day - 1 - EPOCH_DAYS
    us = ((days * 24 + hour) * 60 + minute) * 60 + second
    us *= US
    at = i + 19
    if at < end and u8(at) == 46:
        at += 1
        unit = 100_000
        first = at
        while at < end and unit > 0:
            digit = u8(at) - 48
            if digit < 0 or digit > 9:
                break
            us += digit * unit
            unit //= 10
            at += 1
        if at == first:
            return 0, 0
    if at == end:
        return 2, us
    mark = u8(at)
    if mark == 90 and at + 1 == end:
        return 1, us
    if (mark == 43 or mark == 45) and at + 6 == end and u8(at + 3) == 58:
        hours, minutes = _two(at + 1), _two(at + 4)
        if hours < 0 or minutes < 0 or hours > 23 or minutes > 59:
            return 0, 0
        offset = (hours * 60 + minutes) * 60 * US
        return 1, us - offset if mark == 43 else us + offset
    return 0, 0
