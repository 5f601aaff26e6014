"""Our own clock, and whether it can be believed: what the engine means by "now".

Owns two tests. A jump: the wall clock moved against the monotonic one by more than any correction of a running
clock does; "now" then goes on steadily until the city's own times say which of the two was right. And the sources:
where most of them leave their time window within a minute, it is we who are wrong. Pure: is given every clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

import numpy as np

from storage.batch import I64

JUMP_US: Final = 60 * 1_000_000
"""NTP slews below a tenth of a second and steps seldom by more than seconds; gateways differ by less than this too."""
VOTES_MIN: Final = 200
"""Readings after a jump before it is decided which clock they fit: one strange gateway decides nothing."""
AWAY_US: Final = 366 * 86_400 * 1_000_000
"""An engine is seldom off for longer than a year; a clock without a battery starts in 1970, a broken one anywhere."""
SPAN_S: Final = 60
SOURCES_LEFT: Final = "most sources are outside their time window: our own clock is suspect"
LEFT_MIN: Final = 20
"""Readings outside the window in SPAN_S below which nothing is concluded."""


class OurClock:
    """``now`` once a turn, ``heard`` for what was decoded in it.

    known_us  when the engine last lived, by its own records; at or below 0 where it never did
    why    why the clock is suspect, "" where it is not; readings outside their window are then kept with flag 2
    jumps  how often the wall clock jumped
    """

    def __init__(self, known_us: int = 0) -> None:
        self.jumps = 0
        self._known_us = known_us
        self._offset: int | None = None
        self._jump = 0
        self._for_wall = self._for_steady = 0
        self._inside: Counter[str] = Counter()
        self._outside: Counter[str] = Counter()
        self._seconds: deque[tuple[int, Counter[str], Counter[str]]] = deque()
        self._second = 0
        self._sources_left = False

    @property
    def why(self) -> str:
        """A sentence for people, "" while the clock can be believed."""
        if self._jump:
            return f"our clock jumped by {self._jump / 1e6:+.0f} s; times go on as before it"
        return SOURCES_LEFT if self._sources_left else ""

    def now(self, wall_us: int, steady_s: float) -> int:
        """µs since 1970 UTC; ``steady_s`` is the monotonic clock."""
        ran_us = round(steady_s * 1e6)
        if self._offset is None:
            known = self._known_us
            strange = known > 0 and not known - JUMP_US <= wall_us <= known + AWAY_US
            self._offset = (known if strange else wall_us) - ran_us
        expected = self._offset + ran_us
        jump = wall_us - expected
        if abs(jump) <= JUMP_US:
            self._offset, self._jump = wall_us - ran_us, 0
            return wall_us
        if not self._jump:
            self.jumps += 1
            self._for_wall = self._for_steady = 0
        self._jump = jump
        return expected

    def heard(self, now_us: int, time_us: I64, inside: Mapping[str, int], outside: Mapping[str, int]) -> None:
        """A turn's readings: their times (µs, int64), and how many of each source were in and out of its window."""
        self._inside.update(inside)
        self._outside.update(outside)
        if self._jump and len(time_us):
            nearer = np.abs(time_us - (now_us + self._jump)) < np.abs(time_us - now_us)
            self._for_wall += int(nearer.sum())
            self._for_steady += len(nearer) - int(nearer.sum())
            if self._for_wall + self._for_steady >= VOTES_MIN:
                if self._for_wall > self._for_steady:
                    assert self._offset is not None
                    self._offset, self._jump = self._offset + self._jump, 0
                self._for_wall = self._for_steady = 0

    def look(self, steady_s: float) -> None:
        """Once a second: who left the window in the last minute."""
        second = int(steady_s)
        self._seconds.append((second, self._inside, self._outside))
        self._inside, self._outside = Counter(), Counter()
        while self._seconds[0][0] <= second - SPAN_S:
            self._seconds.popleft()
        inside: Counter[str] = Counter()
        outside: Counter[str] = Counter()
        for _, one_in, one_out in self._seconds:
            inside.update(one_in)
            outside.update(one_out)
        if not outside:
            self._sources_left = False
            return
        spoke = inside.keys() | outside.keys()
        left = [source for source in spoke if outside[source] > inside[source]]
        self._sources_left = 2 * len(left) > len(spoke) and outside.total() >= LEFT_MIN
