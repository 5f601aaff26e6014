"""Street floods: how early and how rightly the rule "rise" warns before 15 and 30 cm, beside simpler warnings.

Recordings of real floods only (no dry days), so precision is among events: of the events warned in, the share that
reached the depth. Lead is from the first warning to the first reading at the depth, 0 where the warning came later;
its median is over the events that reached it. Sensors are split in two halves by a hash of their name: settings are
chosen on one and reported on the other. Run: python -m bench.detection_floods [--write]
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from anomaly.checks.rows import Rows
from anomaly.limits import limits_of
from anomaly.rules.rise import RULES
from anomaly.rules.settings import RuleSettings
from anomaly.state import State
from tests.anomaly_city import T0, S, check_settings, point_table

ROOT = Path(__file__).resolve().parents[1]
EVENTS = ROOT.parent / "shared" / "data" / "floodnet" / "events.parquet"
REPORT = ROOT / "bench" / "detection_floods.md"
PLOT = ROOT / "bench" / "detection_floods.svg"
DRY_MIN = 20
"""Recordings begin with the first water. A sensor reads zero before: that many minutes of it are put in front."""
STORM_H = 3.0
"""An event that begins this near to one of a sensor no tide reaches is taken to be the same rain."""
DEPTHS_CM = (15.0, 30.0)
SHARES = (0.25, 1 / 3, 0.4, 0.5, 0.6, 0.7)
SETTINGS_TRIED = 2 * (756 + 1_980 + 144)
"""At both depths, in three sweeps: 14 slopes; 20 slopes and other shares; a finer grid around what was picked."""
HORIZONS_MIN = (3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
FIXED = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SEED = 1
HEAD = "| warning | precision | median lead, min | events warned | of those that reached it |\n|---|---|---|---|---|"


@dataclass(slots=True)
class Flood:
    """One recorded event: minutes since its start, depth in cm, slopes by name in cm a minute."""

    sensor: str
    minutes: np.ndarray
    depth: np.ndarray
    rain: bool
    slopes: dict[str, np.ndarray]


Warn = Callable[[Flood, float], np.ndarray]
"""(flood, depth) -> bool of each reading: would warn."""


@dataclass(frozen=True, slots=True)
class Score:
    """warned: events with a warning; right: of those, events that reached the depth; reached: all that did."""

    warned: int
    right: int
    reached: int
    lead_min: float

    @property
    def precision(self) -> float:
        return self.right / self.warned if self.warned else float("nan")

    def cells(self) -> str:
        return f"{self.precision:.2f} | {self.lead_min:.1f} | {self.warned} | {self.right}/{self.reached}"


def end_to_end(minutes: np.ndarray, depth: np.ndarray, window: float) -> np.ndarray:
    """Rise since the newest reading at least ``window`` old, NaN without one."""
    at = np.searchsorted(minutes, minutes - window, side="right") - 1
    span = np.where(at >= 0, minutes - minutes[at], np.nan)
    return (depth - depth[at]) / span


def least_squares(minutes: np.ndarray, depth: np.ndarray, window: float) -> np.ndarray:
    """Slope of the line through the readings of the last ``window``."""
    found = np.full(len(depth), np.nan)
    begin = np.searchsorted(minutes, minutes - window)
    for i in range(len(depth)):
        t = minutes[begin[i] : i + 1] - minutes[begin[i] : i + 1].mean()
        if t.any():
            found[i] = t @ depth[begin[i] : i + 1] / (t @ t)
    return found


def holt(
    minutes: np.ndarray, depth: np.ndarray, level_min: float = 2.0, trend_min: float = 5.0
) -> np.ndarray:
    """Trend of Holt's smoothing with time constants in minutes, for readings at any times."""
    found = np.zeros(len(depth))
    level, trend = depth[0], 0.0
    for i in range(1, len(depth)):
        gap = max(minutes[i] - minutes[i - 1], 1e-3)
        alpha, beta = 1 - np.exp(-gap / level_min), 1 - np.exp(-gap / trend_min)
        after = level + trend * gap + alpha * (depth[i] - level - trend * gap)
        trend += beta * ((after - level) / gap - trend)
        level = after
        found[i] = trend
    return found


def floods() -> list[Flood]:
    found = []
    table = pl.read_parquet(EVENTS)
    start = table["start"].dt.epoch("s").to_numpy()
    inland = start[(table["tidally_influenced"] == "No").to_numpy()]
    for begin, row in zip(start.tolist(), table.iter_rows(named=True), strict=True):
        minutes = np.concatenate((np.arange(-DRY_MIN, 0.0), np.array(row["seconds"]) / 60.0))
        depth = np.concatenate((np.zeros(DRY_MIN), np.array(row["depth_cm"])))
        ends = {w: end_to_end(minutes, depth, w) for w in (1, 2, 3, 5, 10, 15)}
        slopes = {f"rise over {w} min": slope for w, slope in ends.items()}
        slopes |= {f"least squares {w} min": least_squares(minutes, depth, w) for w in (5, 10)}
        slopes |= {f"lesser of {a} and {b} min": np.minimum(ends[a], ends[b]) for a, b in PAIRS}
        slopes["greater of 3 and 10 min"] = np.fmax(ends[3], ends[10])
        slopes["Holt"] = holt(minutes, depth)
        rain = bool((np.abs(inland - begin) <= STORM_H * 3600).any())
        found.append(Flood(row["sensor_id"], minutes, depth, rain, slopes))
    return found


PAIRS = ((1, 3), (2, 5), (3, 10), (5, 15))
OURS = "lesser of 3 and 10 min"


def fixed(share: float) -> Warn:
    return lambda flood, depth: flood.depth >= share * depth


def eta(slope: str, share: float, horizon: float) -> Warn:
    def warn(flood: Flood, depth: float) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            near = flood.slopes[slope] * horizon >= np.maximum(depth - flood.depth, 0.0)
        return (flood.depth >= share * depth) & (near | (flood.depth >= depth))

    return warn


def scored(events: Iterable[Flood], warn: Warn, depth: float) -> Score:
    warned = right = reached = 0
    leads = []
    for flood in events:
        at = np.flatnonzero(flood.depth >= depth)
        reached += bool(len(at))
        told = np.flatnonzero(warn(flood, depth))
        if len(told):
            warned += 1
            if len(at):
                right += 1
                leads.append(max(flood.minutes[at[0]] - flood.minutes[told[0]], 0.0))
        elif len(at):
            leads.append(0.0)
    return Score(warned, right, reached, float(np.median(leads)) if leads else 0.0)


def by_rule(events: list[Flood], depth: float, horizon: float, share: float) -> Warn:
    """The rule itself, fed reading by reading as the engine would: the warnings of "rise" for one level."""
    level = np.full((4, len(events)), np.nan)
    level[0] = depth
    points = point_table(len(events), level=level)
    rules = RuleSettings.model_validate({"rise": {"minutes": [horizon] * 4, "share": share}}).model_dump()
    limits = dict(limits_of(points, {}, check_settings())) | RULES[0].settings(points, {}, rules)
    state = State(len(events))
    state.place(limits)
    point = np.repeat(np.arange(len(events), dtype=np.int32), [len(f.depth) for f in events])
    time = np.concatenate([T0 + np.round(f.minutes * 60 * S).astype(np.int64) for f in events])
    rows = Rows.grouped(point, time, np.concatenate([f.depth for f in events]), state.arrays())
    classes = RULES[0].judge(rows, limits, state.arrays()).classes
    told = dict(zip(map(id, events), np.split(classes > 0, rows.first[1:]), strict=True))
    return lambda flood, _: told[id(flood)] | (flood.depth >= depth)


def report() -> Iterator[str]:
    every = floods()
    half = [zlib.crc32(flood.sensor.encode()) % 2 == 0 for flood in every]
    tune = [flood for flood, own in zip(every, half, strict=True) if own]
    test = [flood for flood, own in zip(every, half, strict=True) if not own]
    slopes = list(every[0].slopes)
    tried = len(slopes) * len(SHARES) * len(HORIZONS_MIN)
    yield "# Street floods: warned before 15 and 30 cm\n"
    sensors = len({flood.sensor for flood in every})
    yield f"{len(every)} recorded floods of {sensors} sensors in New York (FloodNet), events only: there are no dry"
    yield "days in it, so precision is among events. Sensors are split in two halves by a hash of their name;"
    yield f"one half has {len(tune)} events, the other {len(test)}; settings were picked on the first, figures are of"
    yield f"the second. This run tries {tried} settings a depth; the whole work tried {SETTINGS_TRIED:,}"
    yield "in three sweeps. The second half is not untouched: its figures were seen in every run, and two changes to"
    yield f"how events are prepared ({DRY_MIN} dry minutes in front, which floods count as inland) were made after a"
    yield "look at them; slopes, shares and horizons were not. Made by `python -m bench.detection_floods --write`.\n"
    for depth in DEPTHS_CM:
        yield from _depth(depth, tune, test)
    yield from _ahead(tune, test)
    yield f"\n![lead over precision]({PLOT.name})"


def _depth(depth: float, tune: list[Flood], test: list[Flood]) -> Iterator[str]:
    rng = np.random.default_rng(SEED)
    heads = {id(flood): rng.random() < 0.5 for flood in test}
    yield f"## Before {depth:g} cm\n"
    yield HEAD
    base = {
        "none (null)": lambda flood, _: np.zeros(len(flood.depth), np.bool_),
        "in every event at its start (all positive)": lambda flood, _: flood.minutes >= 0,
        f"in half the events at random (seed {SEED})": lambda flood, _: np.full(
            len(flood.depth), heads[id(flood)]
        ),
    }
    for name, warn in base.items():
        yield f"| {name} | {scored(test, warn, depth).cells()} |"
    peers: dict[str, Warn] = {f"at {share:.0%} of the depth": fixed(share) for share in FIXED}
    peers["line of 10 min reaches it in 10 min"] = eta("least squares 10 min", 0.25, 10.0)
    peers["Holt reaches it in 10 min"] = eta("Holt", 0.25, 10.0)
    for name, warn in peers.items():
        yield f"| {name} | {scored(test, warn, depth).cells()} |"
    horizon = dict(zip(DEPTHS_CM, (10.0, 15.0), strict=True))[depth]
    standard = by_rule(test, depth, horizon, 1 / 3)
    yield f"| **rule `rise` as it comes ({horizon:g} min)** | {scored(test, standard, depth).cells()} |\n"
    yield from _against(depth, peers, tune, test)
    rain = [flood for flood in test if flood.rain]
    yield f"Of these, the {len(rain)} floods of the same hours as floods of sensors that no tide reaches, so of rain:\n"
    yield HEAD
    for name in ("at 50% of the depth", "line of 10 min reaches it in 10 min", "Holt reaches it in 10 min"):
        yield f"| {name} | {scored(rain, peers[name], depth).cells()} |"
    yield f"| **rule `rise` as it comes** | {scored(rain, by_rule(rain, depth, horizon, 1 / 3), depth).cells()} |\n"


def _against(depth: float, peers: dict[str, Warn], tune: list[Flood], test: list[Flood]) -> Iterator[str]:
    """Each peer against the setting of our slope that, on the tuning half, is at least as right and warns earliest."""
    grid = {(share, horizon): eta(OURS, share, horizon) for share in SHARES for horizon in HORIZONS_MIN}
    known = {key: scored(tune, warn, depth) for key, warn in grid.items()}
    yield f"The slope of `rise` ({OURS}). Ours there, at its precision: from a third of the depth as it comes, only the"
    yield "horizon moved until it is as right on the reporting half. As right, as early: share and horizon chosen on"
    yield "the tuning half.\n"
    yield "| against | precision, lead | ours there | as right | precision, lead | as early | precision, lead |"
    yield "|---|---|---|---|---|---|---|"
    course = [scored(test, grid[SHARES[1], horizon], depth) for horizon in HORIZONS_MIN]
    course.sort(key=lambda score: score.precision)
    for name, warn in peers.items():
        own, theirs = scored(tune, warn, depth), scored(test, warn, depth)
        right = [key for key, score in known.items() if score.precision >= own.precision]
        early = [key for key, score in known.items() if score.lead_min >= own.lead_min]
        lead = np.interp(
            theirs.precision,
            [one.precision for one in course],
            [one.lead_min for one in course],
            np.nan,
            np.nan,
        )
        cells = [
            f"{theirs.precision:.2f}, {theirs.lead_min:.1f}",
            "" if np.isnan(lead) else f"{lead:.1f} min",
        ]
        for keys, best in ((right, "lead_min"), (early, "precision")):
            if not keys:
                cells += ["none", ""]
                continue
            key = max(
                keys,
                key=lambda one, best=best: (
                    getattr(known[one], best),
                    known[one].precision,
                    known[one].lead_min,
                ),
            )
            score = scored(test, grid[key], depth)
            cells += [f"{key[0]:.2f}, {key[1]:g} min", f"{score.precision:.2f}, {score.lead_min:.1f}"]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _ahead(tune: list[Flood], test: list[Flood]) -> Iterator[str]:
    """Mean absolute error of the depth foretold at readings from 5 cm on that rise."""
    yield "## Depth foretold while it rises\n"
    yield "Mean absolute error in cm at readings of 5 cm and more with a rising slope.\n"
    yield "| ahead, min | stays as it is | line | " + " | ".join(f"fades in {f:g} min" for f in FADES) + " |"
    yield "|---|---|---|" + "---|" * len(FADES)
    for ahead in (10.0, 30.0, 60.0):
        cells = [_error(test, ahead, None)]
        cells += [_error(test, ahead, fade) for fade in (1e9, *FADES)]
        yield f"| {ahead:g} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"
    chosen = {
        ahead: min(FADES, key=lambda fade, ahead=ahead: _error(tune, ahead, fade))
        for ahead in (10.0, 30.0, 60.0)
    }
    yield f"\nBest on the tuning half: {', '.join(f'{fade:g} min at {ahead:g}' for ahead, fade in chosen.items())}."


FADES = (5.0, 10.0, 20.0, 40.0)


def _error(events: list[Flood], ahead: float, fade: float | None) -> float:
    wrong = []
    for flood in events:
        slope = np.nan_to_num(flood.slopes[OURS])
        now = np.flatnonzero(
            (flood.depth >= 5.0) & (slope > 0) & (flood.minutes + ahead <= flood.minutes[-1])
        )
        truth = np.interp(flood.minutes[now] + ahead, flood.minutes, flood.depth)
        gone = 0.0 if fade is None else fade * (1 - np.exp(-ahead / fade))
        wrong.append(np.abs(flood.depth[now] + slope[now] * gone - truth))
    return float(np.concatenate(wrong).mean())


def plot() -> None:
    """Lead over precision on the reporting half: each kind of warning as a line over its settings."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "yuzui"  # the same picture from the same figures
    from matplotlib import pyplot

    test = [flood for flood in floods() if zlib.crc32(flood.sensor.encode()) % 2]
    figure, axes = pyplot.subplots(1, len(DEPTHS_CM), figsize=(10, 4))
    lines: dict[str, list[Warn]] = {
        "share of the depth": [fixed(share) for share in FIXED],
        "line of 10 min, from 1/4": [eta("least squares 10 min", 0.25, horizon) for horizon in HORIZONS_MIN],
        "Holt, from 1/4": [eta("Holt", 0.25, horizon) for horizon in HORIZONS_MIN],
        "rise, from 1/3": [eta(OURS, 1 / 3, horizon) for horizon in HORIZONS_MIN],
        "rise, from 0.7": [eta(OURS, 0.7, horizon) for horizon in HORIZONS_MIN],
    }
    for axis, depth in zip(axes, DEPTHS_CM, strict=True):
        for name, warns in lines.items():
            scores = [scored(test, warn, depth) for warn in warns]
            axis.plot([s.precision for s in scores], [s.lead_min for s in scores], marker=".", label=name)
        axis.set(title=f"before {depth:g} cm", xlabel="precision among events", ylabel="median lead, min")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--write", action="store_true", help=f"write {REPORT.name} and {PLOT.name} beside this file"
    )
    text = "\n".join(report()) + "\n"
    print(text)
    if options.parse_args().write:
        REPORT.write_text(text)
        plot()


if __name__ == "__main__":
    main()
