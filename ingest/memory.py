"""Memory that was freed, given back to the system, and what need not be loaded. Owns the calls; who calls says when.

Allocators keep what is freed for the next who asks. After a start (a registry read and merged), a snapshot or a seal
nobody asks for as much again for a long time: of an engine with 116,200 points that was a fifth of all it held.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

import pyarrow as pa


def give_back() -> None:
    """Return free pages of Arrow's pool and of the C library's heap; takes some milliseconds."""
    pa.default_memory_pool().release_unused()
    # None where the C library has no such call: then it only holds more.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


ABSENT: Final = ("pandas", "scipy")
"""Arrow imports pandas where it is installed, to ask of each list whether it is one of its frames; numba imports
scipy's linear algebra, to find the loops of matrix products. Nothing here is or has either: 30 MB, and a second of a
start."""


class _Absent:
    """A finder that finds these modules not to be there."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name in ABSENT:
            raise ModuleNotFoundError(f"no {name} in a process that lives long", name=name)


def without_absent() -> None:
    """Call this first in a process that lives long, and has no polars (which asks for pandas too)."""
    sys.meta_path.insert(0, _Absent)
