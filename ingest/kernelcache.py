"""Where the machine code of compiled loops is kept between runs.

Owns the folder's name. Imported before anything that imports numba, which reads its settings then; so it
imports nothing of weight itself.
"""

from __future__ import annotations

import os
import sys
from hashlib import blake2b
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ingest/kernels", "anomaly/checks")
"""Whose functions are compiled into those of other files."""


def digest() -> str:
    """Of every kernel's source and of this Python. numba looks at the date of a function's own file alone: one it
    calls from another file could change, or an upgrade keep an old date, and the old machine code would run."""
    found = blake2b(sys.version.encode(), digest_size=6)
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def folder() -> Path | None:
    """``NUMBA_CACHE_DIR`` where it is set, else ``cache/`` of the environment that runs us (.venv/cache after
    set-up): it goes when the environment goes, and is no part of anyone's data. Made where it is not there;
    None where it cannot be written: numba then looks for a place itself, in the user's own cache."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    ours = Path(sys.prefix) / "cache" / f"numba-{digest()}"
    try:
        ours.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return ours if os.access(ours, os.W_OK) else None


def settle() -> None:
    """Tell numba the folder; once it is imported it listens no more."""
    if "numba" not in sys.modules and (ours := folder()) is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(ours)
