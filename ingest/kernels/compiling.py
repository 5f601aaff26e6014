"""How kernels are compiled.

Owns the decorators. Without numba ``IS_COMPILED`` is False and the kernels' own modules must not be imported.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    _numba: Any = import_module("numba")
    IS_COMPILED = True
except ImportError:
    _numba, IS_COMPILED = None, False


def compiled(function: F) -> F:
    """A kernel: without the interpreter's lock, kept on disk, no checks for division by zero."""
    made: F = _numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return made


def inlined(function: F) -> F:
    """A part of kernels, compiled into each."""
    made: F = _numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
    return made


def part(function: F) -> F:
    """A part of kernels, called by them: too large or too rare to stand in each."""
    made: F = _numba.njit(nogil=True, error_model="numpy")(function)
    return made
