"""A full disk as the writers behind the journal meet it: what counts as one, and what is said about it.

Owns the test of an error and the two log lines, one when the room ends and one when it is back. Knows
nothing of what is written; whoever writes keeps it, or can make it again, and tries later.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from typing import Final

import pyarrow as pa

log = logging.getLogger("yuzui.disk")

FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
FULL_SQLITE: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""SQLite's word for no room: in its files, and in the memory its connections share, which is a file too."""
FULL_TEXTS: Final = tuple(os.strerror(number) for number in sorted(FULL_ERRNOS))
"""Delta's errors carry the kernel's sentence and no number."""


def is_full(failure: BaseException) -> bool:
    """Whether this failure, or the one it was raised from, says that there is no room (or no quota)."""
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL_ERRNOS:
            return True
        if isinstance(seen, sqlite3.Error):
            code = getattr(seen, "sqlite_errorcode", None)
            if code is not None and (code & 0xFF == sqlite3.SQLITE_FULL or code in FULL_SQLITE):
                return True
        elif any(text in str(seen) for text in FULL_TEXTS):
            return True
        # An OSError speaks for itself: another one met while the room ended is not about room.
        seen = seen.__cause__ or (None if isinstance(seen, OSError) else seen.__context__)
    return False


class FullDisk:
    """What one thread could not write for want of room.

    why  a sentence for people, "" while everything finds room; may be read from any thread
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._failing: dict[str, str] = {}
        self.why = ""

    @property
    def full(self) -> bool:
        """Something waits for room."""
        return bool(self.why)

    def attempt(self, what: str, work: Callable[[], object]) -> bool:
        """Do ``work``; False if there was no room for it. Raises whatever else it raises."""
        try:
            work()
        except (OSError, sqlite3.Error, pa.ArrowException) as failure:
            if not is_full(failure):
                raise
            self.failed(what, str(failure))
            return False
        self.done(what)
        return True

    def failed(self, what: str, why: str) -> None:
        """There was no room for ``what``."""
        if not self._failing:
            log.error(
                "%s finds the disk full, trying again until there is room: %s: %s", self._who, what, why
            )
        self._failing[what] = why
        self._say()

    def done(self, what: str) -> None:
        """``what`` found room, or is not wanted any more."""
        if self._failing.pop(what, None) is not None:
            self._say()
            if not self._failing:
                log.warning("%s has room on the disk again: nothing it held back is missing", self._who)

    def _say(self) -> None:
        self.why = f"no room for {', '.join(sorted(self._failing))}" if self._failing else ""
