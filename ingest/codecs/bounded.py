"""A memory that cannot grow without end: what a codec has worked out once, or waits for.

Owns forgetting. Peers choose the keys, so their number is theirs, too.
"""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dict of at most ``entries_max`` entries; when it is full, the older half is forgotten."""

    def __init__(self, entries_max: int) -> None:
        super().__init__()
        self._entries_max = entries_max

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self._entries_max and key not in self:
            for old in [old for old, _ in zip(self, range(max(1, self._entries_max // 2)), strict=False)]:
                del self[old]
        super().__setitem__(key, value)
