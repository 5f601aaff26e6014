"""Figures of a benchmark: timing, targets, and where the results go.

Owns the clocks (CPU seconds of this process with all its threads), the verdict against a target, the JSON
under bench/results and the table between two marks of bench/README.md. Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

BENCH: Final = Path(__file__).resolve().parent
RESULTS: Final = BENCH / "results"
README: Final = BENCH / "README.md"


@dataclass(slots=True)
class Took:
    """Medians over the repeats, seconds: CPU of this process with its threads, and the wall's."""

    cpu_s: float
    wall_s: float


def took(what: Callable[[], object], repeats: int = 3, *, warm: bool = False) -> Took:
    """Run ``what`` ``repeats`` times (once more before, unmeasured, with ``warm``)."""
    if warm:
        what()
    cpu, wall = [], []
    for _ in range(repeats):
        began_cpu, began = time.process_time(), time.perf_counter()
        what()
        cpu.append(time.process_time() - began_cpu)
        wall.append(time.perf_counter() - began)
    return Took(statistics.median(cpu), statistics.median(wall))


@dataclass(slots=True)
class Figure:
    """One row of the table.

    limit  the target, None where the row is only told; ``at_least`` says on which side of it is good
    how    what was measured, in a few words
    """

    name: str
    measured: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    how: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        if self.limit is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def row(self) -> str:
        """A row of the Markdown table."""
        target = "–" if self.limit is None else f"{'≥' if self.at_least else '≤'} {_short(self.limit)}"
        verdict = {True: "yes", False: "**no**", None: ""}[self.met]
        return f"| {self.name} | {_short(self.measured)} {self.unit} | {target} | {verdict} | {self.how} |"


@dataclass(slots=True)
class Report:
    """All figures of one run. ``say`` prints each as it comes."""

    title: str
    options: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    def add(
        self,
        name: str,
        measured: float,
        unit: str,
        limit: float | None = None,
        *,
        at_least: bool = False,
        how: str = "",
    ) -> None:
        """Take in one figure and print it."""
        figure = Figure(name, measured, unit, limit, at_least, how)
        self.figures.append(figure)
        verdict = {True: "met", False: "NOT MET", None: ""}[figure.met]
        target = "" if limit is None else f"{'>=' if at_least else '<='} {_short(limit)}"
        print(f"{name:<58} {_short(measured):>9} {unit:<12} {target:<9} {verdict}", flush=True)

    def note(self, text: str) -> None:
        """A sentence that belongs below the table."""
        self.notes.append(text)
        print(f"  {text}", flush=True)

    @property
    def missed(self) -> list[str]:
        """Names of the figures whose target is not met."""
        return [f.name for f in self.figures if f.met is False]

    def save(self, name: str) -> Path:
        """bench/results/{name}.json."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.json"
        content = {
            "title": self.title,
            "at": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.began, 1),
            "machine": machine(),
            "options": self.options,
            "figures": [
                {**asdict(f), "measured": float(f"{f.measured:.5g}"), "met": f.met} for f in self.figures
            ],
            "notes": self.notes,
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def markdown(self) -> str:
        """The table and the notes, as they stand in bench/README.md."""
        on = machine()
        versions = ", ".join(f"{k} {v}" for k, v in on["versions"].items())
        head = f"{datetime.fromtimestamp(self.began, UTC):%Y-%m-%d}, {on['cores']} cores of {on['cpu']}, {versions}."
        rows = [
            "| what | measured | target | met | how |",
            "|---|---|---|---|---|",
            *(f.row() for f in self.figures),
        ]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([head, "", *rows, *([""] if notes else []), *notes])

    def publish(self, mark: str) -> None:
        """Put the table between the two marks of bench/README.md. Raises ValueError where they are missing."""
        text = README.read_text(encoding="utf-8")
        begin, end = f"<!-- {mark}: written by scripts/bench -->", f"<!-- {mark}: end -->"
        if begin not in text or end not in text:
            raise ValueError(f"{README} has no marks for {mark}")
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        README.write_text(pattern.sub(lambda _: f"{begin}\n{self.markdown()}\n{end}", text), encoding="utf-8")


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    import duckdb
    import numpy as np
    import pyarrow as pa

    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "commit": _commit(),
        "versions": {
            "Python": platform.python_version(),
            "pyarrow": pa.__version__,
            "numpy": np.__version__,
            "DuckDB": duckdb.__version__,
        },
    }


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=BENCH, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def _short(number: float) -> str:
    if number == 0:
        return "0"
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"
