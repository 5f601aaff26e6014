"""QARTOD flags, their precedence, and the bits of the checks, as data.

Owns the meaning of every value that stands in the columns ``flag``, ``checks`` and
``device_flag``. Knows nothing of files, clocks or of how a check works.

Flags are those of QARTOD (US IOOS, Quality Assurance of Real-Time Oceanographic Data).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

GOOD: Final = 1
NOT_EVALUATED: Final = 2
SUSPECT: Final = 3
FAIL: Final = 4
MISSING: Final = 9

PRECEDENCE: Final = (MISSING, NOT_EVALUATED, GOOD, SUSPECT, FAIL)
"""From mildest to worst: where two checks disagree, the later one stands."""

FLAG_NAMES: Final = {
    GOOD: "good",
    NOT_EVALUATED: "not_evaluated",
    SUSPECT: "suspect",
    FAIL: "fail",
    MISSING: "missing",
}

# A bit keeps its meaning for ever: stored readings carry it. New checks take the next free bit.
CHECK_BITS: Final[dict[str, int]] = {
    "device": 0,
    "gross_range": 1,
    "rate_of_change": 2,
    "flat_line": 3,
    "level": 4,
    "dead": 5,
    "not_evaluated": 6,
    "spike": 7,
    "anomaly": 8,
    "neighbours": 9,
    "drift": 10,
    "rule": 11,
}

# device_flag: what the device says of its own reading; 0 where it says nothing. Same code as flag.
DEVICE_SILENT: Final = 0
DEVICE_FLAGS: Final = frozenset({DEVICE_SILENT, GOOD, NOT_EVALUATED, SUSPECT, FAIL, MISSING})

_RANK = np.zeros(256, dtype=np.uint8)
for _rank, _flag in enumerate(PRECEDENCE):
    _RANK[_flag] = _rank
_BY_RANK = np.array(PRECEDENCE, dtype=np.uint8)


def worst(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The worse of two arrays of flags, element by element.

    Both are uint8 of the same shape and hold only the five QARTOD flags.

    >>> worst(np.array([1, 2, 9], np.uint8), np.array([3, 1, 2], np.uint8)).tolist()
    [3, 1, 2]
    """
    return _BY_RANK[np.maximum(_RANK[a], _RANK[b])]


def bit(check: str) -> int:
    """The value of a check's bit in ``checks`` (uint32).

    >>> bit("gross_range")
    2
    """
    return 1 << CHECK_BITS[check]
