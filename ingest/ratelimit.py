"""How many readings a second a source may send.

Owns the count. Knows no clock: the time is the caller's.
"""

from __future__ import annotations

from typing import Final

BURST_S: Final = 10.0
"""What a source may send at once after silence: gateways that send ten seconds' worth in one message are right."""


class RateLimit:
    """A bucket of readings that fills by ``per_s``. A message is taken whole while anything is in it."""

    def __init__(self, per_s: float) -> None:
        self._per_us = per_s / 1e6
        self._full = max(1.0, per_s * BURST_S)
        self._left = self._full
        self._at = 0

    def admits(self, now_us: int) -> bool:
        """Whether a message may come in now. Time that went backwards fills nothing."""
        passed = now_us - self._at
        if passed > 0:
            self._left = min(self._full, self._left + passed * self._per_us)
        self._at = now_us
        return self._left > 0

    def took(self, readings: int) -> None:
        """Count what a message held; it may overdraw."""
        self._left -= readings
