"""Plots of bench/README.md, from results. Needs matplotlib (the bench tier); without it nothing is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.case import all_cases

PANELS = (("points", "points"), ("rate", "readings a second"), ("connections", "connections"))


def growth(results: dict[str, Any], out: Path) -> None:
    """CPU a reading and memory over points, rate and connections, one panel each."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for axis, (key, title) in zip(axes, PANELS, strict=True):
        cases = [case for case in all_cases() if case.sweep == key and case.name in results]
        x = [getattr(case, key) for case in cases]
        axis.set_xscale("log")
        axis.set_xlabel(title)
        axis.plot(x, [results[case.name]["cpu_us"] for case in cases], "o-", color="#1f6f8b")
        axis.set_ylim(bottom=0)
        axis.set_ylabel("CPU µs a reading", color="#1f6f8b")
        memory = axis.twinx()
        memory.plot(x, [results[case.name]["peak_mb"] for case in cases], "s--", color="#c0653a")
        memory.set_ylim(bottom=0)
        memory.set_ylabel("memory, MB", color="#c0653a")
    out.parent.mkdir(exist_ok=True)
    figure.savefig(out, dpi=90)
    pyplot.close(figure)
