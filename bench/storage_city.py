"""Rows as a whole city makes them, for measuring storage: the demo's points, its values, jitter and delays.

Owns what the measured rows look like and nothing else: no file is written here, no clock read. Points are
numbered as the engine numbers them (kind, district, id); a sample takes every n-th, so that all kinds are in
it in the city's proportion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ingest.simulate.city import generate
from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.fleet import Fleet, load_fleet
from ingest.simulate.scenario import Scenario
from ingest.simulate.values import Values
from storage.batch import F64, I32, I64, POS_ROW_BITS, ReadingBatch
from storage.flags import CHECK_BITS, GOOD, SUSPECT
from storage.pointmap import merge, points_file

CITY_DIR: Final = Path(__file__).resolve().parent.parent / "configs" / "chengdu"
CITY_POINTS: Final = 116_200
T0: Final = 1_767_225_600_000_000
"""2026-01-01 00:00 UTC in µs: a whole day and hour."""
S: Final = 1_000_000
SEED: Final = 1

JITTER_MS: Final = 20
"""Clocks of devices: each reading is up to this much early or late, in whole milliseconds."""
POLL_MS: Final = 10
"""The engine looks at its sockets this often, so receipts lie on this grid."""
DELAY_MS: Final = 15.0
"""Scale of the network's delay (exponential, on top of 5 ms)."""
SCORED_SHARE: Final = 0.005
"""Readings with a score of at least half the alarm line."""
SUSPECT_SHARE: Final = 0.001
"""Readings a check objects to."""
STORM_S: Final = 6 * 3600.0
"""The simulated storm is stretched over this long: the measured hour is one in the middle of it."""


@dataclass(slots=True)
class City:
    """n points of the city with their values by step of ``every_s`` seconds. ``point``: their numbers, ascending."""

    fleet: Fleet
    point: I32
    values: Values
    every_s: float
    rng: np.random.Generator
    jitter_ms: int

    def __len__(self) -> int:
        return len(self.point)

    def second(self, step: int, seq: int) -> ReadingBatch:
        """One reading of every point at a step, in the order of arrival: main rows of journal record ``seq``."""
        n = len(self)
        ideal = T0 + round(step * self.every_s * S)
        jitter = (
            self.rng.integers(-self.jitter_ms, self.jitter_ms + 1, n)
            if self.jitter_ms
            else np.zeros(n, np.int64)
        )
        time = ideal + jitter * 1000
        delay_ms = 5 + self.rng.exponential(DELAY_MS, n)
        receipt_ms = np.ceil((jitter + delay_ms) / POLL_MS) * POLL_MS
        received = ideal + (receipt_ms * 1000).astype(np.int64)
        order = np.argsort(received, kind="stable")
        suspect = self.rng.random(n) < SUSPECT_SHARE
        score = np.where(self.rng.random(n) < SCORED_SHARE, 0.5 + self.rng.random(n) / 2, 0.0)
        score[suspect] = 1.0 + self.rng.random(int(suspect.sum()))
        batch = ReadingBatch(
            point=self.point,
            time=time,
            received_at=received,
            value=self.values.at(step),
            device_flag=np.zeros(n, np.uint8),
            flag=np.where(suspect, SUSPECT, GOOD).astype(np.uint8),
            checks=np.where(suspect, 1 << min(CHECK_BITS.values()), 0).astype(np.uint32),
            score=score.astype(np.float32),
            pos=(np.int64(seq) << POS_ROW_BITS) + np.argsort(order),
        )
        return batch.take(order)

    def seconds(self, first: int, count: int) -> Iterator[ReadingBatch]:
        """The batches of ``count`` steps, one journal record each, numbered by step from 1."""
        for step in range(first, first + count):
            yield self.second(step, step + 1)


def map_city(root: Path, interval_s: float = 1.0) -> Path:
    """Give the data folder ``root`` the point map of the whole city, once; its path. ``interval_s`` of every point."""
    path = points_file(root)
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        merge(root, generate(CITY_DIR, CITY_POINTS, SEED, interval_s).to_arrow(), T0)
    return path


def city(
    map_file: Path, *, every: int = 1, every_s: float = 1.0, jitter_ms: int = JITTER_MS, hour: int = 2
) -> City:
    """Every ``every``-th point of the city, one reading each ``every_s`` seconds.

    hour  how many hours of a storm of STORM_S have passed before step 0: shifts the values, not the times
    """
    whole = load_fleet(map_file)
    rows = np.arange(0, len(whole), every)
    fleet = whole.take(rows)
    hz = 1 / every_s
    values = Values(fleet, load_kinds(CITY_DIR), Scenario("storm", SEED, STORM_S), whole.box(), hz)
    return City(fleet, rows.astype(np.int32), values, every_s, np.random.default_rng(SEED), jitter_ms)


def sorted_hour(place: City, steps: int, first: int = 0) -> ReadingBatch:
    """``steps`` readings of every point, sorted by (point, time): what a sealed hour holds."""
    whole = ReadingBatch.concat(list(place.seconds(first, steps)))
    return whole.take(np.lexsort((whole.time, whole.point)))


def columns(batch: ReadingBatch) -> tuple[I32, I64, F64]:
    """(point, time µs, value): the three columns every store has."""
    return batch.point, batch.time, batch.value
