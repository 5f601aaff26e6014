"""How good the score is on made series with known anomalies: one command, one table.

Owns the comparison: the score as `yuzui backtest` gives it, each series alone, against saying nothing, everything,
and anything at random. Series and the rule of judging are bench.detection_series and bench.detection_nab.
Run: python -m bench.detection_score
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from anomaly.backtest import backtest, unknown_points
from anomaly.settings import CheckSettings
from bench.detection_nab import F64, Labelled, Verdict, judge, windows_of
from bench.detection_series import FAMILIES, HELD_OUT, TUNE, Series, made

TUNE_SEEDS = range(12)
TEST_SEEDS = range(100, 112)
TRIED = 430
"""Configurations looked at on the tuning seeds while the score was designed: streams of evidence, how they are
combined, and constants one at a time. The test seeds were looked at beside them, the families held out were not
chosen by."""

Score = Callable[[Series], F64]


def engine_score(series: Series) -> F64:
    """What the engine says of a series of which it knows nothing."""
    n = len(series.time)
    found = backtest(
        unknown_points([series.name]), np.zeros(n, np.int32), series.time, series.value,
        kinds={}, checks=CheckSettings(), rules={}, time_zone="UTC", alerts=False,
    )  # fmt: skip
    return found.score.astype(np.float64)


def at_random(series: Series) -> F64:
    """Uniform noise; the same for the same series."""
    return np.random.default_rng(len(series.time)).random(len(series.time))


def everything(series: Series) -> F64:
    """Every row is an anomaly."""
    return np.ones(len(series.time))


def nothing(series: Series) -> F64:
    """No row is one."""
    return np.zeros(len(series.time))


def labelled(score: Score, several: Iterable[Series]) -> list[Labelled]:
    """Each series scored alone, with the windows of its anomalies."""
    return [Labelled(score(one), windows_of(len(one.time), one.onsets)) for one in several]


def series_of(families: Iterable[str], seeds: Iterable[int]) -> list[Series]:
    """The series of some families and seeds."""
    return [made(family, seed) for family in families for seed in seeds]


def line(name: str, verdict: Verdict) -> str:
    """One row of the table."""
    found = f"{verdict.found}/{verdict.windows}"
    return f"{name:<44} {verdict.points:5.1f}  {verdict.threshold:9.3g}  {found:>9}  {verdict.false_rows:6}"


def main(argv: Sequence[str]) -> None:
    """Print the table; with a family's name, that family at the alarm line and at its own best threshold."""
    if argv:
        found = labelled(engine_score, series_of(argv, TEST_SEEDS))
        print(line("at the alarm line", judge(found, 1.0)))
        print(line("at its own best threshold", judge(found)))
        return
    print(f"{'':<44} points  threshold    windows   false rows   ({TRIED} configurations were tried)")
    tune = labelled(engine_score, series_of(TUNE, TUNE_SEEDS))
    print(line("tuning families, tuning seeds", best := judge(tune)))
    for name, families in (
        ("all families, other seeds", FAMILIES),
        ("families held out, other seeds", HELD_OUT),
    ):
        several = series_of(families, TEST_SEEDS)
        found = labelled(engine_score, several)
        print(line(f"{name}, tuned threshold", judge(found, best.threshold)))
        print(line(f"{name}, at the alarm line 1.0", judge(found, 1.0)))
        print(line(f"{name}, best threshold", judge(found)))
        for other in (at_random, everything, nothing):
            of = 0.5 if other is everything else None
            print(line(f"  {other.__name__}", judge(labelled(other, several), of)))


if __name__ == "__main__":
    main(sys.argv[1:])
