"""Compiled loops: whether numba is there, and the marks that ask it to compile.

Owns nothing else. Checks and rules have two forms that give the same bits: columns of numpy, and, where numba is
installed, one loop over the rows. Columns cost some microseconds a step however few rows there are, so a live tick of
two thousand rows is several times cheaper as a loop; at a million rows both are bound by memory.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

unsigned: Any = np.uint64
"""Of an index that is never negative: whether it counts from the end is then not looked at, each time it is used."""


def _as_it_stands(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


try:
    # Not a dependency: without it the same functions run as they stand, or the columns do. No divisor can be 0, so
    # that none is looked at ("numpy"), and what is inlined: else a loop over columns would not become vector
    # instructions.
    _njit = import_module("numba").njit
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = _njit(
        cache=True, nogil=True, error_model="numpy"
    )
    inlined: Callable[[Callable[..., Any]], Callable[..., Any]] = _njit(
        nogil=True, error_model="numpy", forceinline=True
    )
    IS_COMPILED = True
except ImportError:
    compiled, inlined, IS_COMPILED = _as_it_stands, _as_it_stands, False
