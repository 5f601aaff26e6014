"""Files that nothing names any more but a session or a running query may still read.

Owns when they go: a grace after they were first seen replaced, and a little more. Knows nothing of what they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from storage.hot import DROP_SLACK_S


class ReplacedFiles:
    """One thread. A restart finds them again and begins the grace anew."""

    def __init__(self) -> None:
        self._waiting: set[Path] = set()
        self._since: dict[Path, float] = {}

    def add(self, paths: Iterable[Path]) -> None:
        """These are replaced from now on; the grace begins with the next ``drop``."""
        self._waiting |= set(paths)

    def drop(self, grace_s: float, now: float) -> int:
        """Delete what was replaced more than ``grace_s`` ago; returns how many. Raises OSError.

        ``now`` is any clock in seconds that does not jump. Not synced: what a power cut brings back is found
        again at the next start.
        """
        gone = [p for p in self._waiting if now - self._since.setdefault(p, now) > grace_s + DROP_SLACK_S]
        for path in gone:
            path.unlink(missing_ok=True)
            self._waiting.discard(path)
            del self._since[path]
        return len(gone)
