"""The layout of a report that a device sends again and again, as one pattern.

Owns patterns and their number: a pattern costs milliseconds to make and is shared by all devices whose reports have the
same names in the same order. Knows neither frames nor what a name means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from ingest.codecs.base import Key

LAYOUTS_MAX: Final = 1_000
"""Patterns of a source. Beyond them reports are read as before, only not as fast: about 20 KiB each, and peers choose
the names."""
LAYOUT_BYTES_MAX: Final = 2_048
"""Names of a report that is worth a pattern: making one takes 4 µs a byte, and everything waits meanwhile."""
SEEN_MIN: Final = 4
"""Reports of the same names before a pattern is made of them: names that come once must not cost one."""

FullMatch = Callable[[bytes, int, int], "re.Match[bytes] | None"]


@dataclass(frozen=True, slots=True)
class Layout:
    """One device's report as long as only its time and its numbers change.

    keys       one a reading; the very list of the device's other reports of these names
    flags      one a reading; b"" where the device says nothing of any
    fullmatch  of a frame from ``CP=`` to ``&&``; groups: the time's digits, then one a reading
    """

    keys: list[Key]
    flags: bytes
    fullmatch: FullMatch


class Patterns:
    """Patterns by the text they match."""

    def __init__(self) -> None:
        self._known: dict[bytes, FullMatch] = {}

    def of(
        self, names: Sequence[bytes], separators: bytes, readings: Collection[int], flags: Collection[int]
    ) -> FullMatch | None:
        """What matches a report of ``names``; None where it is not worth it.

        separators  of the report in their order, "=" and "," or ";" in turn
        readings    indices of the names with a number; flags: of those that must be "N"
        """
        texts = [
            b"%b=%b%b" % (re.escape(name), _value(index, readings, flags), separators[2 * index + 1 :][:1])
            for index, name in enumerate(names)
        ]
        pattern = b"CP=&&DataTime=([0-9]{14,17});%b&&" % b"".join(texts)
        known = self._known.get(pattern)
        if known is None and len(self._known) < LAYOUTS_MAX and sum(map(len, names)) <= LAYOUT_BYTES_MAX:
            known = self._known[pattern] = re.compile(pattern).fullmatch
        return known


def _value(index: int, readings: Collection[int], flags: Collection[int]) -> bytes:
    if index in readings:
        return b"([-0-9.]+)"
    return b"N" if index in flags else b"[^=;,&]*"
