"""Whole hours of the city at one reading a minute a point, sorted already: made fast, not waited for.

Owns the rows of an hour. Each point speaks at its own second of the minute, ±20 ms; so rows laid out point
by point are in the order of a compacted file without any sort, and the same rows minute by minute in order of
arrival are what a naive ingestor writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.storage_city import (
    CITY_DIR,
    DELAY_MS,
    JITTER_MS,
    POLL_MS,
    SCORED_SHARE,
    SEED,
    SUSPECT_SHARE,
    T0,
    S,
)
from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.fleet import load_fleet
from ingest.simulate.scenario import Scenario
from ingest.simulate.values import START_HOUR, Values
from storage.batch import ReadingBatch
from storage.flags import CHECK_BITS, GOOD, SUSPECT

MINUTES: Final = 60
HOUR_US: Final = 3600 * S
AHEAD_H: Final = 8
"""The city's clock is so many hours ahead of UTC."""

_Matrix = npt.NDArray[Any]


@dataclass(slots=True)
class Hour:
    """All readings of one hour: matrices [n points, 60 minutes], times and receipts in µs.

    seq   the journal record, and the compaction, that it stands for
    hour  since 1970 UTC
    """

    seq: int
    hour: int
    point: npt.NDArray[np.int32]
    time: _Matrix
    received_at: _Matrix
    value: _Matrix
    suspect: _Matrix
    score: _Matrix

    def sorted(self, begin: int, end: int) -> ReadingBatch:
        """The rows of points at positions begin … end, by (point, time)."""
        part = np.s_[begin:end]
        return self._batch(np.repeat(self.point[part], MINUTES), *(m[part].ravel() for m in self._matrices()))

    def minute(self, at: int) -> ReadingBatch:
        """The rows of one minute in the order they were received."""
        order = np.argsort(self.received_at[:, at], kind="stable")
        return self._batch(self.point[order], *(m[order, at] for m in self._matrices()))

    def _matrices(self) -> tuple[_Matrix, ...]:
        return self.time, self.received_at, self.value, self.suspect, self.score

    def _batch(
        self,
        point: npt.NDArray[np.int32],
        time: _Matrix,
        received: _Matrix,
        value: _Matrix,
        suspect: _Matrix,
        score: _Matrix,
    ) -> ReadingBatch:
        n = len(point)
        return ReadingBatch(
            point=point,
            time=time,
            received_at=received,
            value=value,
            device_flag=np.zeros(n, np.uint8),
            flag=np.where(suspect, np.uint8(SUSPECT), np.uint8(GOOD)),
            checks=np.where(suspect, np.uint32(1 << CHECK_BITS["gross_range"]), np.uint32(0)),
            score=score,
            pos=np.zeros(n, np.int64),
        )


class CityHours:
    """Every ``every``-th point of the city over ``days``, hour by hour; the same for the same arguments.

    begin_us  the first hour's begin, µs since 1970 UTC; values follow the city's clock
    """

    def __init__(self, map_file: Path, days: float, every: int = 1, begin_us: int = T0) -> None:
        whole = load_fleet(map_file)
        rows = np.arange(0, len(whole), every)
        fleet = whole.take(rows)
        storm = Scenario("storm", SEED, days * 86_400)
        self.point = rows.astype(np.int32)
        self._begin_us = begin_us
        clock = (begin_us // HOUR_US + AHEAD_H) % 24
        self._first_step = int((clock - START_HOUR) % 24) * MINUTES
        self._values = Values(fleet, load_kinds(CITY_DIR), storm, whole.box(), 1 / 60)
        # Its own second of the minute for each device; a second off the borders, so that jitter stays in the hour.
        self._phase_ms = np.random.default_rng(SEED).integers(1_000, 59_000, len(rows))

    def __len__(self) -> int:
        return len(self.point)

    def hour(self, number: int) -> Hour:
        """The hour that begins ``number`` hours after the first."""
        n, first = len(self), self._first_step + number * MINUTES
        rng = np.random.default_rng((SEED, number))
        value = np.stack([self._values.at(first + m) for m in range(MINUTES)], axis=1)
        jitter = rng.integers(-JITTER_MS, JITTER_MS + 1, (n, MINUTES), np.int32)
        time_ms = self._phase_ms[:, None] + 60_000 * np.arange(MINUTES, dtype=np.int64)[None, :] + jitter
        delay_ms = 5 + rng.standard_exponential((n, MINUTES), np.float32) * DELAY_MS
        receipt_ms = (time_ms + delay_ms.astype(np.int32)) // POLL_MS * POLL_MS + POLL_MS
        begin = self._begin_us + number * HOUR_US
        # One draw in 0 … 1 decides both: the lowest are suspect, the next only scored.
        draw = rng.random((n, MINUTES), np.float32)
        suspect = draw < SUSPECT_SHARE
        scored = draw < SUSPECT_SHARE + SCORED_SHARE
        score = np.where(scored, np.float32(0.5) + draw * np.float32(90), np.float32(0))
        return Hour(
            number + 1,
            begin // HOUR_US,
            self.point,
            time_ms * 1000 + begin,
            receipt_ms * 1000 + begin,
            value,
            suspect,
            score,
        )

    def hours(self, count: int) -> Iterator[Hour]:
        """The first ``count`` hours."""
        return map(self.hour, range(count))
