"""River water: what the engine's defaults find of what a technician marked, years apart for tuning and for judging.

Owns the events (runs of rows that a technician of the Logan River Observatory marked or changed), the counting of
alarms against them, and the baselines. How the readings are judged is anomaly.backtest's, with defaults.

An event is found where an alarm lies in it or within EDGE of it. Alarms nearer than QUIET to each other are one; one
is right where it touches an event in the same way. Delay is from the event's begin to the first alarm in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from anomaly.backtest import backtest, unknown_points
from anomaly.settings import CheckSettings

READINGS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "logan-river" / "readings.parquet"
MISSING = -9999.0
MINUTE_US = 60_000_000
EDGE_US = 60 * MINUTE_US
"""A technician marks whole hours; an alarm one hour beside the mark means it."""
QUIET_US = 240 * MINUTE_US
"""Alarms nearer than four hours are one call; events nearer than an hour are one event."""
MONTH_US = 30 * 1440 * MINUTE_US
SPLIT_US = int(datetime(2017, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""Before it: tuning. From it on: judging."""
LINES = tuple(float(x) for x in np.round(np.geomspace(0.3, 12.0, 25), 3))
"""Alarm lines tried on the tuning years; the default is 1."""
SEED = 1

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Water:
    """One quantity of one site. time µs, value NaN where missing, score of the engine, marked: the qualifier or 0."""

    name: str
    time: I64
    value: F64
    marked: I64
    score: F64

    def part(self, rows: Bool) -> Water:
        """Some of its rows."""
        return Water(self.name, self.time[rows], self.value[rows], self.marked[rows], self.score[rows])


@dataclass(frozen=True, slots=True)
class Found:
    """Counts over several series. ``delays_min`` of the events found, ``by_mark`` mark → (found, events)."""

    events: int
    found: int
    alarms: int
    right: int
    months: float
    delays_min: tuple[float, ...]
    by_mark: dict[int, tuple[int, int]]

    @property
    def precision(self) -> float:
        """Of the alarms; NaN without any."""
        return self.right / self.alarms if self.alarms else float("nan")

    @property
    def recall(self) -> float:
        """Of the events."""
        return self.found / self.events if self.events else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of the two. Events and calls count once each: nothing is point-adjusted."""
        return 2 * self.precision * self.recall / (self.precision + self.recall) if self.right else 0.0

    def row(self) -> dict[str, float | None]:
        """Figures for a table; None where there is none."""
        delay = float(np.median(self.delays_min)) if self.delays_min else None
        return {
            "precision": None if not self.alarms else round(self.precision, 3),
            "recall": round(self.recall, 3),
            "f1": round(self.f1, 3),
            "delay_min": delay,
            "false_per_point_month": round((self.alarms - self.right) / self.months, 2),
            "alarms": self.alarms,
            "events": self.events,
        }


def waters() -> list[Water]:
    """Every series with the score of an engine that knows nothing but its name. Raises OSError."""
    table = pl.read_parquet(READINGS).with_columns(name=pl.format("{}-{}", "site", "property"))
    names = sorted(table["name"].unique().to_list())
    number = {name: i for i, name in enumerate(names)}
    point = table["name"].replace_strict(number, return_dtype=pl.Int32).to_numpy()
    time = table["time"].dt.epoch("us").to_numpy()
    value = table["value"].fill_null(np.nan).to_numpy().copy()
    value[value == MISSING] = np.nan
    marked = table["qualifier"].fill_null(0).cast(pl.Int64).to_numpy()
    found = backtest(
        unknown_points(names), point, time, value,
        kinds={}, checks=CheckSettings(), rules={}, time_zone="America/Denver", alerts=False,
    )  # fmt: skip
    several = []
    for name, code in number.items():
        rows = np.flatnonzero(point == code)
        rows = rows[np.argsort(time[rows], kind="stable")]
        score = found.score[rows].astype(np.float64)
        several.append(Water(name, time[rows], value[rows], marked[rows], score))
    return several


def halves(several: Sequence[Water]) -> tuple[list[Water], list[Water]]:
    """The tuning years and the judging years of each."""
    before = [one.part(one.time < SPLIT_US) for one in several]
    after = [one.part(one.time >= SPLIT_US) for one in several]
    return [one for one in before if len(one.time)], [one for one in after if len(one.time)]


def spans(rows: I64, time: I64, apart_us: int) -> list[tuple[int, int]]:
    """First and last row of each run of ``rows`` whose times are not farther apart than that."""
    if not len(rows):
        return []
    cuts = np.flatnonzero(np.diff(time[rows]) > apart_us) + 1
    return [(int(part[0]), int(part[-1])) for part in np.split(rows, cuts)]


def judged(several: Sequence[Water], alarms: Sequence[Bool], quiet_us: int = QUIET_US) -> Found:
    """Alarms (bool by row, one array a series) against the marks."""
    events = found = calls = right = 0
    delays: list[float] = []
    by_mark: dict[int, tuple[int, int]] = {}
    months = sum(float(one.time[-1] - one.time[0]) for one in several) / MONTH_US
    for one, alarm in zip(several, alarms, strict=True):
        known = ~np.isnan(one.value)
        marks = spans(np.flatnonzero((one.marked > 0) & known), one.time, EDGE_US)
        told = np.flatnonzero(alarm & known)
        said = one.time[told]
        near = np.zeros(len(told), np.bool_)
        for first, last in marks:
            begin, end = one.time[first] - EDGE_US, one.time[last] + EDGE_US
            low, high = np.searchsorted(said, (begin, end + 1))
            hit = int(high > low)
            if hit:
                near[low:high] = True
                delays.append(max(float(said[low] - one.time[first]), 0.0) / MINUTE_US)
            mark = int(np.bincount(one.marked[first : last + 1])[1:].argmax()) + 1
            was = by_mark.get(mark, (0, 0))
            by_mark[mark] = (was[0] + hit, was[1] + 1)
            events, found = events + 1, found + hit
        runs = np.split(near, np.flatnonzero(np.diff(said) > quiet_us) + 1) if len(told) else []
        calls += len(runs)
        right += sum(bool(run.any()) for run in runs)
    return Found(events, found, calls, right, months, tuple(delays), by_mark)


def at_line(several: Sequence[Water], line: float) -> Found:
    """The score at an alarm line."""
    return judged(several, [one.score >= line for one in several])


def jumps(several: Sequence[Water], sigmas: float) -> Found:
    """A simple peer: the change from the reading before against its own running deviation (a day's memory)."""
    alarms = []
    for one in several:
        change = np.diff(one.value, prepend=np.nan)
        variance = (
            pl.Series(np.nan_to_num(change) ** 2).ewm_mean(half_life=96, adjust=False).shift(1).to_numpy()
        )
        with np.errstate(invalid="ignore"):
            alarms.append(np.abs(change) > sigmas * np.sqrt(variance))
    return judged(several, alarms)


def baselines(several: Sequence[Water], like: Found) -> dict[str, Found]:
    """Random with as many calls as ``like``, nothing, and every reading a call of its own."""
    rng = np.random.default_rng(SEED)
    total = sum(len(one.time) for one in several)
    at_random = []
    for one in several:
        alarm = np.zeros(len(one.time), np.bool_)
        count = round(like.alarms * len(one.time) / total)
        alarm[rng.choice(len(one.time), min(count, len(one.time)), replace=False)] = True
        at_random.append(alarm)
    return {
        f"random, as many calls (seed {SEED})": judged(several, at_random),
        "nothing (null)": judged(several, [np.zeros(len(one.time), np.bool_) for one in several]),
        "every reading (all positive)": judged(
            several, [np.ones(len(one.time), np.bool_) for one in several], quiet_us=-1
        ),
    }
