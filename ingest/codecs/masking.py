"""Telephone numbers, identity numbers and e-mail addresses in text, replaced before anything is written.

Owns what counts as such a number. Knows nothing of sources or events. Two degrees: the plain one replaces what can
hardly be anything else; the strict one, for sources whose messages are about persons, every number of seven digits and
more that is no date, time, amount or coordinate: a number too many is a nuisance, one too few is somebody's.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

MASK: Final = "***"
DIGITS_MIN: Final = 7
"""The shortest local telephone number; house numbers, and 110, 12345 and other services are shorter."""
MOBILE_DIGITS_MAX: Final = 15
"""With 0086 in front."""

_CHINESE: Final = {
    **dict(zip("零一二三四五六七八九", "0123456789", strict=True)),
    **dict(zip("〇壹贰叁肆伍陆柒捌玖", "0123456789", strict=True)),
    **dict(zip("○貳參陸兩两幺", "0236221", strict=True)),
}
_LAST_DIGIT: Final = 0x1FBF9
"""Unicode's digits of all scripts, forms and signs lie below."""
_SEPARATOR: Final = "-"
_BETWEEN: Final = frozenset(" \t\r\n-./·・•()[]【】_,、:\"'~*#")
"""People write these between the digits of a number, in ASCII or full width; and Unicode's dashes, spaces, signs that
cannot be seen, and marks that stand on a digit."""
_SEPARATING: Final = frozenset({"Zs", "Pd", "Cf", "Zl", "Zp", "Mn", "Me"})
_AT: Final = {"\uff20": "@", "\ufe6b": "@", "\uff0e": ".", "\u3002": ".", "\uff0b": "+"}
"""Full-width and small forms of what an address is made of."""

_RUN = re.compile(rf"\+?\d(?:{_SEPARATOR}{{0,4}}\d){{{DIGITS_MIN - 1},}}(?:{_SEPARATOR}?x)?")
_MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_MOBILE = re.compile(r"(?:(?:00)?86)?1[3-9]\d{9}")
_MOBILE_INSIDE = re.compile(r"1[3-9]\d{9}")
_LANDLINE = re.compile(r"(?:(?:00)?86)?0\d{9,11}")
_IDENTITY = re.compile(r"\d{17}[\dx]")
_DATE = re.compile(
    # Together: two digits each, or eleven digits of a telephone could pass for 1953-6-3 6:57:46.
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:(?:[01]\d|2[0-4])[0-5]\d(?:[0-5]\d)?)?"
    r"|(?:19|20)\d\d([-/.])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])"
    r"(?:[ T-]{1,2}(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?)?"
)
_CLOCK = r"(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?"
_CLOCKS = re.compile(rf"{_CLOCK}\s*[~\u2010-\u2015-]\s*{_CLOCK}")
_DEGREE = r"(?:0|[1-9]\d{0,2})\.\d{1,8}"
_DEGREES = re.compile(rf"{_DEGREE}(?:\s*,\s*{_DEGREE})?")
_AMOUNT = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")


def masked(text: str, *, strict: bool) -> str:
    """``text`` with MASK in place of what could be somebody's number or address. Masking again changes nothing.

    >>> masked("请联系 138-0013 8000 或 wang@mail.example", strict=True)
    '请联系 *** 或 ***'
    >>> masked("2026-07-01 08:30 积水 30 cm,12345 已受理", strict=True)
    '2026-07-01 08:30 积水 30 cm,12345 已受理'
    """
    even = text.translate(_table())
    spans = [m.span() for m in _RUN.finditer(even) if _is_somebodys(text, m, strict)]
    mail = text.translate(_at_table())
    if "@" in mail:
        spans += [m.span() for m in _MAIL.finditer(mail)]
    if not spans:
        return text
    parts: list[str] = []
    at = 0
    for begin, end in sorted(spans):
        if begin >= at:
            parts += [text[at:begin], MASK]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def somebodys_number(value: float, *, strict: bool) -> bool:
    """Whether what was sent as a number could be a telephone or identity number; strictly, any whole one of eight
    digits or more.

    >>> somebodys_number(13800138000, strict=False), somebodys_number(87654321, strict=True)
    (True, True)
    >>> somebodys_number(1782864000000, strict=False), somebodys_number(27.5, strict=True)
    (False, False)
    """
    if abs(value) < 10**DIGITS_MIN or not float(value).is_integer():
        return False
    return strict or any(form.fullmatch(str(int(value))) for form in (_MOBILE, _IDENTITY))


def _is_somebodys(text: str, run: re.Match[str], strict: bool) -> bool:
    digits = run.group().replace(_SEPARATOR, "").removeprefix("+")
    if not strict:
        if _IDENTITY.fullmatch(digits):
            return True
        number = run.group().removeprefix("+").rstrip(f"{_SEPARATOR}x")
        return bool(_LANDLINE.fullmatch(number.replace(_SEPARATOR, ""))) or _holds_mobile(number)
    written = _plainly(text[run.start() : run.end()]).removeprefix("+")
    if _MOBILE.fullmatch(digits):
        return True
    if _DATE.fullmatch(written):
        return False
    if _MOBILE_INSIDE.search(digits):
        return True
    return not any(form.fullmatch(written) for form in (_CLOCKS, _DEGREES, _AMOUNT))


def _holds_mobile(run: str) -> bool:
    """Whether a piece between separators, or all from one piece on, is a telephone number: "1501 138 0013 8000"."""
    pieces = [p for p in run.split(_SEPARATOR) if p]
    if any(_MOBILE.fullmatch(p) for p in pieces):
        return True
    end = ""
    for piece in reversed(pieces):
        end = piece + end
        # A run may be as long as a message; only its end can be a number.
        if len(end) > MOBILE_DIGITS_MAX:
            return False
        if _MOBILE.fullmatch(end):
            return True
    return False


def _plainly(written: str) -> str:
    """Digits of any script as 0-9; what stands between them narrowed to ASCII where it is a full-width form."""
    return unicodedata.normalize("NFKC", written.translate(_digits()))


@cache
def _table() -> dict[int, str]:
    """Every character that reads as a digit, or may stand between digits, to one plain character each."""
    table = {ord(c): digit for c, digit in _CHINESE.items()}
    for code in range(_LAST_DIGIT + 1):
        char = chr(code)
        digit = unicodedata.digit(char, None)
        narrow = unicodedata.normalize("NFKC", char)
        if digit is not None:
            table[code] = str(digit)
        elif char in _BETWEEN or narrow in _BETWEEN or unicodedata.category(char) in _SEPARATING:
            table[code] = _SEPARATOR
        elif narrow in ("x", "X"):
            table[code] = "x"
        elif narrow == "+":
            table[code] = "+"
    return table


@cache
def _digits() -> dict[int, str]:
    return {code: to for code, to in _table().items() if to.isdigit()}


@cache
def _at_table() -> dict[int, str]:
    return {ord(char): to for char, to in _AT.items()}
