"""What each source has sent since the start: readings stored and refused, how fast, how late, by which clock.

Owns these numbers. Fed by Wire once a turn and sampled once a second; asks no clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ingest.kernels.compiling import IS_COMPILED
from storage.batch import F64, I32, I64, Bool, RawBatch
from storage.points import PointTable

WINDOW_S: Final = 60.0
"""Lateness and clock are those of the readings of the last one to two minutes."""
RATE_S: Final = 10.0


def _add_up(batch: RawBatch, source: I32, counted: I64, lateness: F64, least: F64) -> None:
    """Add the readings of ``batch`` to what is known of their sources."""
    if IS_COMPILED:
        from ingest.kernels.lateness import add_up

        # Read-only columns would be another form of the loop to compile.
        point = np.require(batch.point, requirements=["C", "W"])
        time = np.require(batch.time, requirements=["C", "W"])
        received_at = np.require(batch.received_at, requirements=["C", "W"])
        add_up(point, time, received_at, source, counted, lateness, least)
        return
    code = source[batch.point]
    late_s = (batch.received_at - batch.time) / 1e6
    counted += np.bincount(code, minlength=len(counted))
    lateness += np.bincount(code, weights=late_s, minlength=len(counted))
    np.minimum.at(least, code, late_s)


class SourceStats:
    """Arrays by the source's code in the registry; names that come or go with a reload keep their counts.

    lateness  mean of received_at - time, in seconds
    skew      least of received_at - time: what is left of it when nothing was late. A source whose clock is ahead
              shows less than 0; one that is behind, or whose gateway holds readings back, shows that much
    """

    def __init__(self, points: PointTable) -> None:
        self._stored_before: Counter[str] = Counter()
        self._last_before: dict[str, int] = {}
        self._rates: deque[tuple[float, dict[str, int]]] = deque(maxlen=32)
        self._begin(points)

    def _begin(self, points: PointTable) -> None:
        self._points = points
        # One layout whatever it came from (columns of Arrow are read-only): the loop is compiled for each.
        self._source = np.require(points.source, np.int32, ["C", "W"])
        n = len(points.sources)
        self._stored: I64 = np.zeros(n, np.int64)
        self._last_us: I64 = np.zeros(n, np.int64)
        self._windows = [self._window(n), self._window(n)]
        self._window_since = 0.0

    @staticmethod
    def _window(n: int) -> tuple[I64, F64, F64]:
        """Readings, their lateness in all, the least of it."""
        return np.zeros(n, np.int64), np.zeros(n), np.full(n, np.inf)

    def adopt(self, points: PointTable) -> None:
        """Go on under another registry."""
        self._stored_before = Counter(self.stored())
        self._last_before = self._last_heard()
        self._begin(points)

    def took(self, batch: RawBatch) -> I64:
        """Count readings on their way to the journal; how many of each source they are."""
        counted = np.zeros(len(self._points.sources), np.int64)
        if not len(batch):
            return counted
        readings, lateness, least = self._windows[0]
        _add_up(batch, self._source, counted, lateness, least)
        self._stored += counted
        self._last_us[counted > 0] = batch.received_at[-1]
        readings += counted
        return counted

    def sample(self, now_s: float) -> None:
        """Once a second, by a clock that does not jump: the basis of rates and windows."""
        self._rates.append((now_s, self.stored()))
        while len(self._rates) > 2 and now_s - self._rates[1][0] >= RATE_S:
            self._rates.popleft()
        if now_s - self._window_since >= WINDOW_S:
            self._windows = [self._window(len(self._points.sources)), self._windows[0]]
            self._window_since = now_s

    def stored(self) -> dict[str, int]:
        """Readings by source."""
        now = Counter(self._stored_before)
        now.update({name: int(n) for name, n in zip(self._points.sources, self._stored, strict=True) if n})
        return now

    def _last_heard(self) -> dict[str, int]:
        return self._last_before | {
            name: int(us) for name, us in zip(self._points.sources, self._last_us, strict=True) if us
        }

    def take(self, refused: Mapping[tuple[str, str], int], speaks: Bool | None) -> list[dict[str, Any]]:
        """One row a source of the registry or of ``refused`` (source, reason).

        speaks  bool by point: heard, and not silent for too long; None where that is not known
        """
        stored, last = self.stored(), self._last_heard()
        readings = self._windows[0][0] + self._windows[1][0]
        lateness = self._windows[0][1] + self._windows[1][1]
        least = np.minimum(self._windows[0][2], self._windows[1][2])
        live = ~self._points.retired
        points = np.bincount(self._points.source[live], minlength=len(self._points.sources))
        online = self._online(speaks, live, points)
        by_source: dict[str, dict[str, int]] = {}
        for (name, reason), count in refused.items():
            by_source.setdefault(name, {})[reason] = count
        codes = {name: code for code, name in enumerate(self._points.sources)}
        rows = []
        for name in dict.fromkeys([*self._points.sources, *by_source]):
            code = codes.get(name)
            heard = code is not None and readings[code] > 0
            quarantined = by_source.get(name, {})
            rows.append(
                {
                    "source": name,
                    "points": int(points[code]) if code is not None else 0,
                    "online": online[code] if code is not None else None,
                    "received": stored.get(name, 0) + sum(quarantined.values()),
                    "stored": stored.get(name, 0),
                    "quarantined": quarantined,
                    "per_s": self._rate(name),
                    "last_received_us": last.get(name),
                    "lateness_s": float(lateness[code] / readings[code]) if heard else None,
                    "skew_s": float(least[code]) if heard else None,
                }
            )
        return rows

    def _rate(self, name: str) -> float:
        if len(self._rates) < 2:
            return 0.0
        (then, before), (now, after) = self._rates[0], self._rates[-1]
        return (after.get(name, 0) - before.get(name, 0)) / (now - then) if now > then else 0.0

    def _online(self, speaks: Bool | None, live: Bool, points: I64) -> list[float | None]:
        """Share of each source's live points that speak; None where it has none."""
        if speaks is None or len(speaks) != len(live):
            return [None] * len(points)
        here = np.bincount(self._points.source[live & speaks], minlength=len(points))
        return [float(h / p) if p else None for h, p in zip(here, points, strict=True)]
