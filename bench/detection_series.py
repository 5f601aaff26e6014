"""Made series with known anomalies, for tuning the score and judging it.

Owns the families and where their anomalies lie. All are drawn from a seed: the same name gives the same series.
They stand for kinds of machines and streets, not for any public data set; which of them tune and which judge is
said in TUNE and HELD_OUT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from zlib import crc32

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
MINUTE_US = 60_000_000
START_US = 1_700_000_000_000_000 // (86_400 * 1_000_000) * 86_400 * 1_000_000
DAY_MIN = 1_440


@dataclass
class Series:
    """time int64[n] µs, value float64[n], onsets: rows at which an anomaly begins, ascending."""

    name: str
    time: I64
    value: F64
    onsets: list[int] = field(default_factory=list)


class Draft:
    """A series being made: rows at a fixed step, values to be added to, anomalies to be put in."""

    def __init__(self, rng: np.random.Generator, n: int, step_min: float) -> None:
        self.rng = rng
        self.n = n
        self.step_min = step_min
        self.row = np.arange(n)
        self.minute = self.row * step_min + rng.integers(0, DAY_MIN)
        self.value = np.zeros(n)
        self.onsets: list[int] = []

    def daily(self, sharp: float = 1.0) -> F64:
        """A day's course between 0 and 1; ``sharp`` above 1 makes its peak narrow."""
        wave = 0.5 - 0.5 * np.cos(2 * np.pi * self.minute / DAY_MIN)
        return wave**sharp

    def weekend(self) -> npt.NDArray[np.bool_]:
        """Two days in seven."""
        return self.minute // DAY_MIN % 7 >= 5

    def noise(self, scale: float, heavy: float = 0.0) -> F64:
        """Normal, or with ``heavy`` above 0 Student's t of 2 / heavy degrees."""
        if heavy:
            return scale * self.rng.standard_t(2 / heavy, self.n)
        return self.rng.normal(0, scale, self.n)

    def walk(self, scale: float, back: float = 0.01) -> F64:
        """A walk that is drawn back to 0."""
        steps, out, at = self.rng.normal(0, scale, self.n), np.empty(self.n), 0.0
        for i in range(self.n):
            at += steps[i] - back * at
            out[i] = at
        return out

    def spikes(self, rate: float, low: float, high: float, length: int = 1) -> F64:
        """Ordinary spikes, part of the normal course: heights log-uniform in low … high."""
        out = np.zeros(self.n)
        for at in np.flatnonzero(self.rng.random(self.n) < rate):
            height = np.exp(self.rng.uniform(np.log(low), np.log(high)))
            out[at : at + self.rng.integers(1, length + 1)] += height
        return out

    def places(self, count: int) -> list[int]:
        """``count`` onsets beyond the first fifth, apart from each other."""
        edges = np.linspace(0.2, 0.95, count + 1)
        found = [int(self.n * self.rng.uniform(a, a + 0.7 * (b - a))) for a, b in pairwise(edges)]
        self.onsets += found
        return found

    def length(self, low: float, high: float) -> int:
        """Rows, a share of the series."""
        return max(2, int(self.n * self.rng.uniform(low, high)))

    def done(self, name: str, low: float = -np.inf, digits: int = 3) -> Series:
        value = np.round(np.maximum(self.value, low), digits)
        time = START_US + np.round(self.minute * MINUTE_US).astype(np.int64)
        return Series(name, time, value, sorted(self.onsets))


def _count(rng: np.random.Generator, most: int = 3) -> int:
    return int(rng.integers(1, most + 1))


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def cpu_idle(d: Draft) -> None:
    """A machine with little to do; anomalies: level shifts, bursts of noise, one far spike."""
    scale = d.rng.uniform(0.02, 0.5)
    d.value += d.rng.uniform(1, 40) + d.noise(scale, 0.5) + d.spikes(0.004, 3 * scale, 12 * scale)
    for at in d.places(_count(d.rng)):
        span = d.length(0.01, 0.15)
        what = d.rng.integers(3)
        if what == 0:
            d.value[at : at + span] += scale * d.rng.uniform(6, 30)
        elif what == 1:
            d.value[at : at + span] += d.rng.normal(0, scale * 6, len(d.value[at : at + span]))
        else:
            d.value[at : at + 2] += scale * d.rng.uniform(30, 100)


def cpu_daily(d: Draft) -> None:
    """Load that follows the day; anomalies: a day without its peak, a load at night, a lasting shift."""
    height = d.rng.uniform(10, 60)
    d.value += 5 + height * d.daily(d.rng.uniform(1, 4)) * np.where(d.weekend(), d.rng.uniform(0.4, 1), 1)
    d.value += d.noise(height * d.rng.uniform(0.02, 0.1), 0.3)
    day = int(DAY_MIN / d.step_min)
    for at in d.places(_count(d.rng)):
        what = d.rng.integers(3)
        if what == 0:
            d.value[at : at + day] = 5 + (d.value[at : at + day] - 5) * 0.25
        elif what == 1:
            d.value[at : at + day // 6] += height * d.rng.uniform(0.6, 1.5)
        else:
            d.value[at:] += _sign(d.rng) * height * d.rng.uniform(0.3, 0.8)


def jobs(d: Draft) -> None:
    """Square bursts of a regular job; anomalies: jobs missing, jobs denser, one far higher."""
    period, width = int(d.rng.integers(30, 150)), int(d.rng.integers(2, 12))
    height = d.rng.uniform(20, 80)
    on = (d.row % period) < width
    for at in d.places(_count(d.rng)):
        span = max(3 * period, d.length(0.03, 0.1))
        what = d.rng.integers(3)
        if what == 0:
            on[at : at + span] = False
        elif what == 1:
            on[at : at + span] = (d.row[at : at + span] % (period // 3 + width)) < width
        else:
            d.value[at : at + width] += height * d.rng.uniform(1, 2)
    d.value += 2 + on * height * d.rng.uniform(0.9, 1.1, d.n) + d.noise(height * 0.02)


def counts(d: Draft) -> None:
    """Mentions of a name: counts with a daily course and heavy bursts; anomalies: far larger bursts that decay."""
    level = d.rng.uniform(3, 60)
    rate = level * (0.3 + d.daily(1.5)) * np.exp(d.walk(0.05, 0.05))
    rate *= 1 + d.spikes(0.001, 1.0, 5.0, 3)
    for at in d.places(_count(d.rng, 4)):
        span = d.length(0.002, 0.01)
        shape = np.exp(-np.arange(span) / (span / 3)) * d.rng.uniform(6, 30)
        rate[at : at + span] += level * shape[: len(rate[at : at + span])]
    d.value += d.rng.poisson(rate)


def prices(d: Draft) -> None:
    """A price each hour, skewed, with ordinary spikes; anomalies: high spikes and a stretch of them."""
    base = d.rng.uniform(0.05, 2)
    d.value += base * np.exp(d.rng.normal(0, d.rng.uniform(0.15, 0.4), d.n)) * (0.8 + 0.4 * d.daily())
    d.value += base * d.spikes(0.01, 0.5, 1.5)
    for at in d.places(_count(d.rng)):
        for extra in range(d.rng.integers(1, 4)):
            d.value[min(at + extra * 2, d.n - 1)] += base * d.rng.uniform(3, 10)


def road(d: Draft) -> None:
    """Speed or occupancy of a road, uneven in time; anomalies: jams outside the rush."""
    gaps = d.rng.choice([1, 1, 1, 2, 3, 12], d.n, p=[0.5, 0.2, 0.1, 0.1, 0.07, 0.03])
    d.minute = d.minute[0] + np.cumsum(gaps) * d.step_min
    rush = d.daily(3) * ~d.weekend()
    d.value += 70 - 12 * rush + d.noise(3.0, 0.4) - d.spikes(0.01, 5, 20, 2)
    for at in d.places(_count(d.rng)):
        span = d.length(0.004, 0.03)
        d.value[at : at + span] -= d.rng.uniform(25, 50)
    if d.rng.random() < 0.5:
        d.value = 75 - d.value


def machine(d: Draft) -> None:
    """A temperature with its own slow ways; anomalies: sudden falls, a drift to failure, an odd plateau."""
    d.value += 80 + d.walk(0.6, 0.005) + d.noise(0.6)
    for at in d.places(_count(d.rng, 4)):
        span = d.length(0.01, 0.05)
        what = d.rng.integers(3)
        part = d.value[at : at + span]
        if what == 0:
            part -= d.rng.uniform(20, 60) * np.exp(-np.arange(len(part)) / (span / 3))
        elif what == 1:
            part -= np.linspace(0, d.rng.uniform(15, 40), len(part))
        else:
            part += d.rng.uniform(12, 25)


def weather(d: Draft) -> None:
    """An indoor or outdoor temperature by the hour, with seasons; anomalies: swings out of season."""
    season = 8 * np.sin(2 * np.pi * d.minute / DAY_MIN / 365 + d.rng.uniform(0, 6))
    d.value += 20 + season + 3 * d.daily() + d.walk(0.35, 0.03) + d.noise(0.3)
    for at in d.places(_count(d.rng)):
        span = d.length(0.005, 0.03)
        part = d.value[at : at + span]
        part += _sign(d.rng) * d.rng.uniform(6, 12) * np.sin(np.linspace(0.3, np.pi, len(part)))


def passengers(d: Draft) -> None:
    """Trips each half hour with day and week; anomalies: holidays, a storm day, a festival night."""
    week = np.where(d.weekend(), 0.8, 1.0)
    shape = 0.15 + d.daily(1.2) * week + 0.25 * (0.5 - 0.5 * np.cos(4 * np.pi * d.minute / DAY_MIN))
    for at in d.places(_count(d.rng, 5)):
        day = int(DAY_MIN / d.step_min)
        what = d.rng.integers(3)
        if what == 0:
            shape[at : at + day] *= d.rng.uniform(0.3, 0.65)
        elif what == 1:
            shape[at : at + day // 8] *= d.rng.uniform(1.6, 2.2)
        else:
            shape[at : at + day * 3 // 2] *= 0.1
    d.value += 15_000 * shape * np.exp(d.noise(0.05))


def disk(d: Draft) -> None:
    """Writes, mostly none, with bursts; anomalies: a lasting burst, a far higher one."""
    burst = d.rng.uniform(1e5, 1e7)
    d.value += d.spikes(d.rng.uniform(0.005, 0.03), 0.3, 1.5, 4) * burst
    for at in d.places(_count(d.rng)):
        if d.rng.random() < 0.5:
            d.value[at : at + d.length(0.01, 0.06)] += burst * d.rng.uniform(0.7, 2)
        else:
            d.value[at : at + 3] += burst * d.rng.uniform(4, 12)


def latency(d: Draft) -> None:
    """Request times: steady with a heavy tail; anomalies: slow spells, single very slow ones."""
    base = d.rng.uniform(20, 60)
    d.value += base + d.noise(base * 0.05) + d.spikes(0.01, base * 0.3, base * 0.9)
    for at in d.places(_count(d.rng)):
        if d.rng.random() < 0.5:
            d.value[at : at + d.length(0.005, 0.02)] += base * d.rng.uniform(0.4, 1)
        else:
            d.value[at] += base * d.rng.uniform(1.5, 4)


def pattern(d: Draft) -> None:
    """A made day with or without noise; anomalies: no jump, a jump down, a flat middle, a longer day."""
    day = int(DAY_MIN / d.step_min)
    d.minute = d.row * d.step_min
    phase = d.row % day
    busy = (phase > day * 0.35) & (phase < day * 0.75)
    d.value += 20 + 60 * busy + d.rng.uniform(0, 10) * d.daily()
    d.value += d.noise(d.rng.choice([0.0, 0.5, 3.0]))
    d.value += d.rng.uniform(0, 8) * d.rng.random(d.n) * d.rng.choice([0, 1])
    begin = int(d.rng.integers(int(0.5 * d.n / day), int(0.85 * d.n / day))) * day
    middle = slice(begin + int(day * 0.36), begin + int(day * 0.75))
    what = d.rng.integers(4)
    if what == 0:
        d.value[middle] -= 60
    elif what == 1:
        d.value[middle] -= 110
    elif what == 2:
        d.value[middle] += 50
    else:
        d.value[begin + int(day * 0.75) : begin + int(day * 1.35)] += 60
        middle = slice(begin + int(day * 0.75), 0)
    d.onsets.append(middle.start)


def scaling(d: Draft) -> None:
    """Machines come and go: the level steps as a rule; anomalies: pinned at the top, a ramp nobody ordered."""
    steps = np.where(d.rng.random(d.n) < 0.003, d.rng.normal(0, 12, d.n), 0)
    d.value += np.clip(40 + np.cumsum(steps - 0.0), 10, 75) + d.noise(2.0, 0.3)
    for at in d.places(_count(d.rng, 2)):
        span = d.length(0.03, 0.1)
        part = d.value[at : at + span]
        if d.rng.random() < 0.5:
            part[:] = 99 + d.rng.normal(0, 0.3, len(part))
        else:
            part += np.linspace(0, 45, len(part))


def stage(d: Draft) -> None:
    """A river's level: slow, with rises after rain that belong to it; anomalies: jumps, a stuck or noisy sensor."""
    rain = d.spikes(0.003, 0.5, 6.0)
    at = 0.0
    for i in range(d.n):
        at = at * 0.985 + rain[i] * 0.4
        d.value[i] += at
    d.value += 50 + d.walk(0.05, 0.002) + d.noise(0.05)
    for onset in d.places(_count(d.rng)):
        span = d.length(0.01, 0.04)
        part = d.value[onset : onset + span]
        what = d.rng.integers(3)
        if what == 0:
            part += _sign(d.rng) * d.rng.uniform(3, 10)
        elif what == 1:
            part += d.rng.normal(0, d.rng.uniform(0.5, 2), len(part))
        else:
            part[: max(1, len(part) // 20)] += d.rng.uniform(8, 30)


def quiet(d: Draft) -> None:
    """Nothing happens: constants, clean days, noise. Only false alarms can be made here."""
    what = d.rng.integers(4)
    d.value += 45.0
    if what == 1:
        d.value += 30 * d.daily()
    elif what == 2:
        d.value += 30 * d.daily() + d.noise(3.0)
    elif what == 3:
        d.value += d.noise(2.0) + 40 * ((d.row % 288) < 20)


def packets(d: Draft) -> None:
    """Bytes over a line: a floor, ordinary transfers, day and night; anomalies: floods and silence."""
    level = d.rng.uniform(1e4, 1e6)
    d.value += level * (0.5 + d.daily(2)) * np.exp(d.noise(0.25)) + d.spikes(0.01, level, 5 * level, 3)
    for at in d.places(_count(d.rng)):
        span = d.length(0.005, 0.03)
        if d.rng.random() < 0.6:
            d.value[at : at + span] += level * d.rng.uniform(5, 15)
        else:
            d.value[at : at + 2 * span] *= 0.05


def keys(d: Draft) -> None:
    """How long a person holds a key, uneven in time; anomalies: another person."""
    gaps = np.exp(d.rng.normal(0, 1.0, d.n))
    d.minute = d.minute[0] + np.cumsum(gaps) * d.step_min
    d.value += 0.1 * np.exp(d.noise(0.25)) + d.spikes(0.004, 0.2, 0.6)
    for at in d.places(_count(d.rng, 2)):
        span = d.length(0.01, 0.04)
        d.value[at : at + span] *= d.rng.choice([0.5, 1.8])


Family = tuple[Callable[[Draft], None], tuple[int, int], float, float]
"""(maker, rows at least and at most, minutes a step, lowest value)."""

FAMILIES: dict[str, Family] = {
    "cpu_idle": (cpu_idle, (4_032, 4_033), 5, 0),
    "cpu_daily": (cpu_daily, (4_032, 4_033), 5, 0),
    "jobs": (jobs, (4_032, 4_800), 5, 0),
    "counts": (counts, (9_000, 15_900), 5, 0),
    "prices": (prices, (1_500, 1_700), 60, 0),
    "road": (road, (1_100, 2_600), 5, 0),
    "machine": (machine, (9_000, 22_700), 5, -np.inf),
    "weather": (weather, (5_000, 7_300), 60, -np.inf),
    "passengers": (passengers, (6_000, 10_400), 30, 0),
    "disk": (disk, (4_032, 4_800), 5, 0),
    "latency": (latency, (4_032, 4_033), 5, 0),
    "pattern": (pattern, (4_032, 4_033), 5, -np.inf),
    "scaling": (scaling, (4_032, 18_000), 5, 0),
    "stage": (stage, (4_000, 9_000), 15, -np.inf),
    "quiet": (quiet, (4_032, 4_033), 5, -np.inf),
    "packets": (packets, (4_032, 4_800), 5, 0),
    "keys": (keys, (1_800, 5_300), 5, 0),
}
HELD_OUT = ("latency", "stage", "packets", "keys", "weather")
"""Families no choice of the design was made on."""
TUNE = tuple(name for name in FAMILIES if name not in HELD_OUT)


def made(family: str, seed: int) -> Series:
    """One series of a family."""
    maker, (least, most), step_min, low = FAMILIES[family]
    rng = np.random.default_rng([crc32(family.encode()), seed])
    draft = Draft(rng, int(rng.integers(least, most)), step_min)
    maker(draft)
    return draft.done(f"{family}-{seed}", low)
