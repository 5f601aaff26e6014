"""Memory that was freed, given back to the system. Owns the two calls; who calls says when.

Allocators keep what is freed for the next who asks. After a start (a registry read and merged), a snapshot or a seal
nobody asks for as much again for a long time: of an engine with 116,200 points that was a fifth of all it held.
"""

from __future__ import annotations

import ctypes

import pyarrow as pa


def give_back() -> None:
    """Return free pages of Arrow's pool and of the C library's heap; takes some milliseconds."""
    pa.default_memory_pool().release_unused()
    # None where the C library has no such call: then it only holds more.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
