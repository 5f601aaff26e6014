"""Rings: what a number was at the end of each of the last N spans of time, for points that have a place.

Owns the arithmetic of slots. A ring holds one number a span, array [N, places]; span ``b`` stands in slot ``b % N``
and spans newest - N + 1 … newest are valid, filled forward where a span had no row. Answers do not depend on where
the stream is cut. Knows nothing of what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import I64, Bool, Index, fill_forward
from anomaly.rules.parts import I32, Part

NO_SPAN: Final = np.iinfo(np.int64).min // 4
"""The newest span of a point that had no row yet. Far below any real one, and safe to count from."""
ALL: Final = slice(None)


def slots(span: I64, n: int) -> I64:
    """``span % n``; numpy divides by one number several times faster than it takes the rest."""
    return span - span // n * n


@dataclass(slots=True)
class Spans:
    """The rows of a part with the span each falls in; spans never fall within a point.

    span    int64[m]
    newest  int64[k]: newest span of each point before the batch, or that of its first row if it had none
    known   bool[k]: it had one
    place   int32[k]
    """

    part: Part
    span: I64
    newest: I64
    known: Bool
    place: I32
    _key: I64 | None = None
    _low: int = 0
    _width: int = 0

    @property
    def steady(self) -> bool:
        """Every point has one row, and it falls in the point's newest span."""
        return self.part.single and bool(self.known.all()) and np.array_equal(self.span, self.newest)

    def heads(self, ring: npt.NDArray[Any], now: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """For each row the number at the first row of its span, [m]: a ring of these is written once a span."""
        part = self.part
        goes_on = self.known & (self.span[part.first] == self.newest)
        if part.single and not goes_on.any():
            return now
        kept = ring[self.newest % len(ring), self.place]
        if part.single:
            return np.where(goes_on, kept, now)
        begins = part.start
        begins[1:] |= self.span[1:] != self.span[:-1]
        head = fill_forward(begins)
        in_first = (head == part.first[part.group]) & goes_on[part.group]
        return np.where(in_first, kept[part.group], now[head])

    def before(
        self, ring: npt.NDArray[Any], now: npt.NDArray[Any], back: int, of: Index | slice = ALL
    ) -> npt.NDArray[Any]:
        """The number at the end of the span ``back`` spans before each row's own, [m] of the ring's dtype.

        ring  [N, places], back < N; its fill value stands for spans before the first row
        now   [m]: the number at each row, in this batch
        of    the rows that are asked for; [len(of)] then
        """
        asked = self.span[of] - back
        if self.part.single:
            slot = slots(np.minimum(asked, self.newest[of]), len(ring))
            alone: npt.NDArray[Any] = ring.reshape(-1, copy=False)[slot * ring.shape[1] + self.place[of]]
            return alone
        group = self.part.group[of]
        found: npt.NDArray[Any] = ring[
            slots(np.minimum(asked, self.newest[group]), len(ring)), self.place[group]
        ]
        at = self._row_at(asked, group)
        inside = at >= self.part.first[group]
        found[inside] = now[at[inside]]
        return found

    def _row_at(self, asked: I64, group: Index) -> Index:
        """Position of the last row of the batch whose point is the row's and whose span is not after ``asked``."""
        if self._key is None:
            self._low = int(self.span.min())
            self._width = int(self.span.max()) - self._low + 2
            self._key = self.part.group * self._width + (self.span - self._low + 1)
        wanted = group * self._width + np.clip(asked - self._low + 1, 0, self._width - 1)
        found: Index = np.searchsorted(self._key, wanted, side="right") - 1
        return found

    def keep(self, ring: npt.NDArray[Any], now: npt.NDArray[Any]) -> None:
        """Write the batch into the ring. ``now`` [m] as in ``before``; call once a ring, before ``advance``."""
        part, n = self.part, len(ring)
        last = part.last
        end = self.span if part.single else self.span[last]
        moved = end - self.newest
        if part.single or not moved.any():
            # Flat, for numpy looks up one index several times faster than two.
            # One span each, and what was skipped takes the number of the span before it.
            skipped = np.flatnonzero(moved > 1)
            if len(skipped):
                self._fill(ring, skipped, moved)
            ring.reshape(-1, copy=False)[slots(end, n) * ring.shape[1] + self.place] = (
                now if part.single else now[last]
            )
            return
        begin = np.maximum(self.newest, end - n + 1)
        count = end - begin + 1
        group = np.repeat(np.arange(len(count)), count)
        span = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count) + begin[group]
        key_group = group * self._width + np.clip(span - self._low + 1, 0, self._width - 1)
        assert self._key is not None
        at = np.searchsorted(self._key, key_group, side="right") - 1
        inside = at >= part.first[group]
        carried = ring[self.newest % n, self.place][group]
        carried[inside] = now[at[inside]]
        ring[span % n, self.place[group]] = carried

    def _fill(self, ring: npt.NDArray[Any], skipped: Index, moved: I64) -> None:
        """Spans without a row between the newest and the row's own, of the points ``skipped``."""
        n = len(ring)
        count = np.minimum(moved[skipped] - 1, n - 1)
        group = np.repeat(skipped, count)
        step = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count) + 1
        place = self.place[group]
        ring[(self.newest[group] + moved[group] - step) % n, place] = ring[self.newest[group] % n, place]

    def advance(self, newest: I64) -> None:
        """Keep each point's newest span, [places], last of all."""
        newest[self.place] = self.span if self.part.single else self.span[self.part.last]


def spans(part: Part, span: I64, newest: I64, place: I32) -> Spans:
    """The rows of ``part`` in spans; ``newest`` int64[places] is the state, ``place`` int32[points]."""
    at = place[part.points]
    was = newest[at]
    known = was != NO_SPAN
    found = Spans(part, span, was if known.all() else np.where(known, was, span[part.first]), known, at)
    if not part.single:
        found._row_at(span, part.group)
    return found
