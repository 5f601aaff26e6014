"""How kernels are compiled, and where their machine code is kept.

Owns the decorators and the cache folder. Imports numba and nothing else of weight; without numba
``IS_COMPILED`` is False and the kernels' own modules must not be imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

ROOMS = ("ingest/kernels", "anomaly/checks", "anomaly/kernels")
"""Where compiled functions stand, below the packages' folder."""


def _digest() -> str:
    """Of every kernel's source. numba looks at the date of the caller's own file alone: a function it calls
    from another file could change, or an upgrade keep an old date, and the old machine code would run."""
    root = Path(__file__).resolve().parents[2]
    found = blake2b(sys.version.encode(), digest_size=6)
    for room in ROOMS:
        for path in sorted((root / room).glob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def cache_folder() -> Path | None:
    """Where machine code is kept, made where it can be; None leaves it to numba (beside the sources, or the
    user's own cache). ``NUMBA_CACHE_DIR`` decides where it is set, else ``cache/`` of the environment that
    runs us (.venv/cache after set-up): it goes when the environment goes, and is no part of anyone's data.
    """
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    folder = Path(sys.prefix) / "cache" / f"numba-{_digest()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def settle() -> None:
    """Tell numba its cache folder. Before numba is first imported; later calls do nothing."""
    if "numba" not in sys.modules and (folder := cache_folder()) is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(folder)


settle()
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
