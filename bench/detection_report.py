"""scripts/bench detection: how well the defaults detect, on rivers, streets and made series, with plots.

Owns the report bench/detection.md, its plots below bench/plots/ and the figures in
bench/results/detection.json. What is
counted is detection_river's, detection_floods' and detection_score's. Real data lie beside the repository
(shared/data); a part whose data are absent says so and is left out.
"""

from __future__ import annotations

import json
import math
import textwrap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import numpy as np
from matplotlib import pyplot

from bench import detection_floods as floods
from bench import detection_river as river
from bench import detection_score as made
from bench.detection_nab import judge
from bench.detection_series import FAMILIES, HELD_OUT, TUNE

BENCH = Path(__file__).resolve().parent
REPORT = BENCH / "detection.md"
PLOTS = BENCH / "plots"
RESULTS = BENCH / "results" / "detection.json"
FIXED = (0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares of the depth at which a plain threshold warns; half is what the design measured against."""
SIGMAS = (3.0, 5.0, 8.0, 12.0, 20.0)
DPI = 80
"""Pictures of some 30 kB."""
RULE_MIN = dict(zip(floods.DEPTHS_CM, (10.0, 15.0), strict=True))
"""Minutes ahead of the rule `rise` as it comes, by depth."""

Figures = dict[str, Any]


def table(head: Sequence[str], rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> str:
    """A Markdown table; None and NaN are a dash."""

    def cell(value: object) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        return f"{value:g}" if isinstance(value, float) else str(value)

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def filled(text: str) -> str:
    """Prose in lines of one width; tables, titles and pictures as they are."""
    blocks = [block for block in text.strip().split("\n\n") if block]
    wrap = textwrap.TextWrapper(width=118, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(block if block[0] in "|#!" else wrap.fill(" ".join(block.split())) for block in blocks)


def picture(name: str) -> str:
    """Save the present figure and close it; its place for the report."""
    PLOTS.mkdir(exist_ok=True)
    pyplot.tight_layout()
    pyplot.savefig(PLOTS / f"{name}.png", dpi=DPI, metadata={"Software": None})
    pyplot.close()
    return f"plots/{name}.png"


def rivers() -> tuple[str, Figures]:
    """River water: the text and the figures."""
    tune, test = river.halves(river.waters())
    curve = {line: (river.at_line(tune, line), river.at_line(test, line)) for line in river.LINES}
    best = max(river.LINES, key=lambda line: curve[line][0].f1)
    peer = max(SIGMAS, key=lambda sigmas: river.jumps(tune, sigmas).f1)
    default = river.at_line(test, 1.0)
    rows = {
        "**score at the alarm line 1.0 (as it comes)**": default,
        f"score at {best:g} (best F1 of the tuning years)": curve[best][1],
        f"change above {peer:g} running deviations (best of the tuning years)": river.jumps(test, peer),
        **river.baselines(test, default),
    }
    figures = {name.strip("*"): found.row() for name, found in rows.items()}
    figures["as it comes, tuning years"] = river.at_line(tune, 1.0).row()
    marks = {str(mark): {"found": a, "events": b} for mark, (a, b) in sorted(default.by_mark.items())}
    path = _river_plot(curve, test, default)
    columns = ("precision", "recall", "f1", "delay_min", "false_per_point_month", "alarms", "events")
    head = (
        "detector", "precision", "recall", "F1", "median delay, min", "false alarms a point-month", "calls", "events",
    )  # fmt: skip
    text = f"""## River water

838,000 readings of the Logan River Observatory (24 quantities at four sites, 15 min). An event is a run of
readings that a
technician marked or changed; runs of missing values (-9999) are left out, since a missing value is flagged at
once and
finding it proves nothing. Years before 2017 are for tuning ({default_events(tune)} events), from 2017 on for
judging ({default.events}
events, {default.months:.0f} point-months). The score's constants were chosen on the
made series below, not on rivers. Tried here: {len(river.LINES)} alarm lines and {len(SIGMAS)} settings of the
peer, picked on the tuning years. An alarm within an hour of a mark is right; alarms within four hours of each
other are one
call; nothing is point-adjusted. Judged by `yuzui backtest`'s own function with defaults: no registry, no
limits.

{table(head, [[name, *(found.row()[c] for c in columns)] for name, found in rows.items()])}

By the technician's mark (the observatory's own number), found of events at the alarm line: \
{", ".join(f"{mark}: {one['found']}/{one['events']}" for mark, one in marks.items())}.

![precision over recall]({path})

Precision over recall of calls in the judging years as the alarm line moves: the dot is the line as it comes,
crosses are the peer.
{_said(default, river.jumps(test, peer))}
"""
    return text, {
        "judging_years": figures,
        "by_mark": marks,
        "lines_tried": len(river.LINES),
        "line_tuned": best,
    }


def default_events(several: Sequence[river.Water]) -> int:
    """How many events a part holds."""
    return river.at_line(several, 1.0).events


def _said(ours: river.Found, peer: river.Found) -> str:
    better = "finds and errs less than" if ours.f1 > peer.f1 else "is no better than"
    return (
        f"A score made for any series {better} one plain test of the change between two readings here "
        f"(F1 {ours.f1:.2f} against {peer.f1:.2f}). A registry row with `spike_max`, a range or `flat_line_s` brings "
        "such tests into the checks; a series nobody knows has none of them."
    )


def _river_plot(
    curve: Mapping[float, tuple[river.Found, river.Found]], test: Sequence[river.Water], default: river.Found
) -> str:
    pyplot.figure(figsize=(6, 4))
    for half, name in ((0, "tuning years"), (1, "judging years")):
        found = [pair[half] for pair in curve.values() if pair[half].alarms]
        pyplot.plot(
            [f.recall for f in found], [f.precision for f in found], marker=".", label=f"score, {name}"
        )
    pyplot.plot(default.recall, default.precision, "o", markersize=9, label="alarm line 1.0")
    peers = [river.jumps(test, sigmas) for sigmas in SIGMAS]
    pyplot.plot([p.recall for p in peers], [p.precision for p in peers], "x", label="change between readings")
    guess = next(iter(river.baselines(test, default).values()))
    pyplot.plot(guess.recall, guess.precision, "s", label="random, as many calls")
    pyplot.xlabel("recall of events")
    pyplot.ylabel("precision of calls")
    pyplot.grid(alpha=0.3)
    pyplot.legend(fontsize=8)
    return picture("river")


def streets() -> tuple[str, Figures]:
    """Street floods: the text and the figures; all of it is in detection_floods.md."""
    every = floods.floods()
    halves = [zlib.crc32(flood.sensor.encode()) % 2 == 0 for flood in every]
    tune = [flood for flood, own in zip(every, halves, strict=True) if own]
    test = [flood for flood, own in zip(every, halves, strict=True) if not own]
    figures: Figures = {}
    parts = []
    for depth in floods.DEPTHS_CM:
        found = _depth(depth, tune, test)
        figures[f"{depth:g} cm"] = found
        head = (
            "warning",
            "precision among events",
            "median lead, min",
            "lead of `rise` at that precision, min",
        )
        cells = [
            [name, one["precision"], one["lead_min"], one.get("ours_lead_min")] for name, one in found.items()
        ]
        parts.append(f"Before {depth:g} cm:\n\n{table(head, cells)}\n")
    path = _flood_plot(test)
    text = f"""## Street floods

{len(every):,} recorded floods of New York (FloodNet), events only, so precision is among events: of those
warned in, the share that
reached the depth. Sensors are split in two halves by a hash of their name: {len(tune)} events for tuning,
these figures are of
the other {len(test)}. {floods.SETTINGS_TRIED:,} settings were tried in all; the second half is not untouched:
its figures were seen in
every run. Beside each simple warning stands how early `rise` is at the same precision: settings that none
beats on the tuning
half, as they turn out on the other, a straight line between them. Everything else (floods of rain alone,
depths foretold) is in [detection_floods.md](detection_floods.md).

{chr(10).join(parts)}
![lead over precision]({path})

Median lead over precision as each warning's setting moves; up and to the right is better. {_ahead(figures)}
"""
    return text, figures


def _depth(depth: float, tune: list[floods.Flood], test: list[floods.Flood]) -> Figures:
    rng = np.random.default_rng(floods.SEED)
    heads = {id(flood): rng.random() < 0.5 for flood in test}
    base: dict[str, floods.Warn] = {
        "none (null)": lambda flood, _: np.zeros(len(flood.depth), np.bool_),
        "every event at its start (all positive)": lambda flood, _: flood.minutes >= 0,
        f"half the events at random (seed {floods.SEED})": lambda flood, _: np.full(
            len(flood.depth), heads[id(flood)]
        ),
        f"**rule `rise` as it comes ({RULE_MIN[depth]:g} min)**": floods.by_rule(
            test, depth, RULE_MIN[depth], 1 / 3
        ),
    }
    found: Figures = {name: _figures(floods.scored(test, warn, depth)) for name, warn in base.items()}
    peers: dict[str, floods.Warn] = {
        **{f"fixed at {share:.0%} of the depth": floods.fixed(share) for share in FIXED},
        "line of 10 min reaches it in 10 min": floods.eta("least squares 10 min", 0.25, 10.0),
        "Holt reaches it in 10 min": floods.eta("Holt", 0.25, 10.0),
    }
    grid = {
        (share, horizon): floods.eta(floods.OURS, share, horizon)
        for share in floods.SHARES
        for horizon in floods.HORIZONS_MIN
    }
    known = {key: floods.scored(tune, warn, depth) for key, warn in grid.items()}
    front = [key for key, one in known.items() if not any(_beats(other, one) for other in known.values())]
    ours = sorted((s.precision, s.lead_min) for s in (floods.scored(test, grid[key], depth) for key in front))
    for name, warn in peers.items():
        one = _figures(floods.scored(test, warn, depth))
        if ours[0][0] <= one["precision"] <= ours[-1][0]:
            lead = float(np.interp(one["precision"], [p for p, _ in ours], [lead for _, lead in ours]))
            one |= {"ours_lead_min": round(lead, 1)}
        found[name] = one
    return found


def _beats(one: floods.Score, other: floods.Score) -> bool:
    """At least as right and as early, and better in one of them."""
    here, there = (one.precision, one.lead_min), (other.precision, other.lead_min)
    return here != there and all(a >= b for a, b in zip(here, there, strict=True))


def _figures(score: floods.Score) -> Figures:
    precision = None if math.isnan(score.precision) else round(score.precision, 3)
    return {
        "precision": precision,
        "lead_min": round(score.lead_min, 1),
        "warned": score.warned,
        "reached": score.reached,
    }


def _ahead(figures: Figures) -> str:
    several = [
        (f"{name} ({depth}: {one['ours_lead_min']:g} against {one['lead_min']:g} min)", one)
        for depth, rows in figures.items()
        for name, one in rows.items()
        if "ours_lead_min" in one
    ]
    won = [name for name, one in several if one["ours_lead_min"] > one["lead_min"]]
    lost = [name for name, one in several if one["ours_lead_min"] <= one["lead_min"]]
    earlier = f"At equal precision `rise` is earlier than {', '.join(won) or 'none'}."
    return earlier + (f" It is not earlier than {', '.join(lost)}." if lost else "")


def _flood_plot(test: list[floods.Flood]) -> str:
    lines: dict[str, list[floods.Warn]] = {
        "share of the depth": [floods.fixed(share) for share in floods.FIXED],
        "line of 10 min, from 1/4": [
            floods.eta("least squares 10 min", 0.25, h) for h in floods.HORIZONS_MIN
        ],
        "Holt, from 1/4": [floods.eta("Holt", 0.25, h) for h in floods.HORIZONS_MIN],
        "rise, from 1/3": [floods.eta(floods.OURS, 1 / 3, h) for h in floods.HORIZONS_MIN],
    }
    _, axes = pyplot.subplots(1, len(floods.DEPTHS_CM), figsize=(9, 3.6))
    for axis, depth in zip(axes, floods.DEPTHS_CM, strict=True):
        for name, warns in lines.items():
            scores = [floods.scored(test, warn, depth) for warn in warns]
            axis.plot([s.precision for s in scores], [s.lead_min for s in scores], marker=".", label=name)
        axis.set(title=f"before {depth:g} cm", xlabel="precision among events", ylabel="median lead, min")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    return picture("floods")


def series() -> tuple[str, Figures]:
    """Made series by the NAB standard profile: the text and the figures."""
    best = judge(made.labelled(made.engine_score, made.series_of(TUNE, made.TUNE_SEEDS)))
    figures: Figures = {"tuning families, tuning seeds, best threshold": round(best.points, 1)}
    rows, bars = [], {}
    for name, families in (
        ("all families, other seeds", FAMILIES),
        ("families held out, other seeds", HELD_OUT),
    ):
        several = made.series_of(families, made.TEST_SEEDS)
        ours = made.labelled(made.engine_score, several)
        found = {
            "**score, alarm line 1.0 (as it comes)**": judge(ours, 1.0),
            "score, threshold of the tuning seeds": judge(ours, best.threshold),
            "random": judge(made.labelled(made.at_random, several)),
            "every reading (all positive)": judge(made.labelled(made.everything, several), 0.5),
            "nothing (null)": judge(made.labelled(made.nothing, several)),
        }
        figures[name] = {key.strip("*"): round(one.points, 1) for key, one in found.items()}
        rows += [
            [name, key, round(one.points, 1), f"{one.found}/{one.windows}", one.false_rows]
            for key, one in found.items()
        ]
        bars[name] = found
    path = _series_plot(bars)
    head = ("series", "detector", "points", "windows found", "readings wrongly called")
    text = f"""## Made series, by the NAB rule

Series of {len(FAMILIES)} families, drawn from seeds, with known anomalies; no public set was fetched or
tuned on. {made.TRIED} configurations
were tried on {len(TUNE)} of the families; {len(HELD_OUT)} families ({", ".join(HELD_OUT)})
were held out. Points are those of the NAB standard
profile: 100 is perfect, 0 says nothing. They are of these series, not of NAB's. On the tuning seeds the best
threshold gives {best.points:.1f}.

{table(head, rows)}

![points]({path})

Points of the score at the alarm line as it comes, beside the three baselines: what it gains on families
nobody chose it by.
"""
    return text, figures


def _series_plot(bars: Mapping[str, Mapping[str, Any]]) -> str:
    pyplot.figure(figsize=(7, 3.2))
    for place, (name, found) in enumerate(bars.items()):
        labels = [key.strip("*") for key in found]
        pyplot.barh(
            np.arange(len(labels)) + 0.4 * place, [one.points for one in found.values()], 0.38, label=name
        )
        pyplot.yticks(np.arange(len(labels)) + 0.2, labels, fontsize=8)
    pyplot.xlabel("points, NAB standard profile (everything lies far to the left)")
    pyplot.xlim(-20, 100)
    pyplot.legend(fontsize=8)
    pyplot.gca().invert_yaxis()
    return picture("series")


HEAD = """# Detection

How well the defaults detect, on data they were not chosen on, beside random, nothing and everything. One
command:
`scripts/bench detection`. Figures are the same on any machine; they are also in
[results/detection.json](results/detection.json).
"""


def main() -> None:
    """Write the report, its plots and its figures."""
    parts, figures = [HEAD], {}
    for name, made_part, data in (
        ("river", rivers, river.READINGS),
        ("floods", streets, floods.EVENTS),
        ("series", series, None),
    ):
        if data is not None and not data.is_file():
            print(
                f"{name}: left out, {data.parent.name}/{data.name} is not in shared/data beside the repository"
            )
            parts.append(f"## {name}\n\nLeft out: its data were not there.\n")
            continue
        text, found = made_part()
        parts.append(text)
        figures[name] = found
        print(f"{name}: {json.dumps(found, ensure_ascii=False)[:400]}")
    REPORT.write_text("\n\n".join(map(filled, parts)) + "\n", "utf-8")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
