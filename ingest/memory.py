"""Memory that was freed, given back to the system, and what need not be loaded. Owns the calls; who calls says when.

Allocators keep what is freed for the next who asks. After a start (a registry read and merged), a snapshot or a seal
nobody asks for as much again for a long time: of an engine with 116,200 points that was a fifth of all it held.
"""

from __future__ import annotations

import ctypes
import sys

import pyarrow as pa


def give_back() -> None:
    """Return free pages of Arrow's pool and of the C library's heap; takes some milliseconds."""
    pa.default_memory_pool().release_unused()
    # None where the C library has no such call: then it only holds more.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class _NoPandas:
    """A finder that finds one module not to be there."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("no pandas in a process that lives long", name=name)


def without_pandas() -> None:
    """Arrow imports pandas where it is installed, to ask of each list whether it is one of its frames. Nothing here
    is: call this first in a process that lives long and has no polars (which asks too), and 30 MB stay free."""
    sys.meta_path.insert(0, _NoPandas)
