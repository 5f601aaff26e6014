"""What grows: memory, descriptors, threads and files of a running engine, sampled, and the verdict "flat or not".

Owns the sampling from /proc and the data folder, and the arithmetic of the verdict. Knows the engine by its process
and its folder only, and nothing of what it is given to do.
"""

from __future__ import annotations

import os
import re
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from bench.family import MB, Family

WARM_SHARE: Final = 0.25
"""Of a run, before anything is compared: caches fill, the first hours are compacted, the allocator finds its size."""
WARM_S: Final = 150.0
"""At least: only then have the first replaced files waited out their grace, and as many go as come."""
LAST: Final = re.compile(r"lake/(rollup_1[mh]|folds)/|/c\d{20}-\d{4}\.parquet$|/_delta_log/")
"""Files that stay: they keep an hour for good, and grow with the hours of data only; and the entries of the Delta logs,
one a seal or compaction, which go after two hours. Counted apart."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. ``working_files``: those that come and go; ``hour_files``: those that stay, see LAST."""

    at_s: float
    memory_mb: float
    descriptors: int
    threads: int
    processes: int
    working_files: int
    hour_files: int


@dataclass(frozen=True, slots=True)
class Slack:
    """What a figure may grow by, from the first to the last third after the warm-up, and still be called flat."""

    absolute: float
    share: float
    why: str


SLACKS: Final = {
    "memory_mb": Slack(48.0, 0.08, "pages the allocator keeps; a leak of a byte a reading is far beyond it"),
    "descriptors": Slack(8, 0.02, "a file of the lake open or not at the moment of a look"),
    "threads": Slack(2, 0.0, "pools that start a thread when they first need it"),
    "processes": Slack(1, 0.0, "a session that is being replaced"),
    "working_files": Slack(
        150,
        0.15,
        "seals wait for the end of their hour, 120 at most; small logs until there are 64 files",
    ),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one figure: medians of the first and the last third after the warm-up, the largest, and whether it is flat."""

    what: str
    early: float
    late: float
    largest: float
    flat: bool


def verdicts(samples: Sequence[Sample]) -> list[Verdict]:
    """Of each figure that must not grow. Raises ValueError for too few samples to tell.

    >>> grown = [Sample(2.0 * i, 300.0 + i, 40, 12, 4, 90, i) for i in range(400)]
    >>> [v.what for v in verdicts(grown) if not v.flat]
    ['memory_mb']
    """
    warm_s = max(WARM_SHARE * samples[-1].at_s, min(WARM_S, 0.5 * samples[-1].at_s)) if samples else 0.0
    settled = [one for one in samples if one.at_s >= warm_s]
    third = len(settled) // 3
    if third < 3:
        raise ValueError(f"{len(samples)} samples are too few for a verdict: run longer, or look more often")
    found = []
    for what, slack in SLACKS.items():
        series = [float(getattr(one, what)) for one in settled]
        early, late = statistics.median(series[:third]), statistics.median(series[-third:])
        flat = late - early <= max(slack.absolute, slack.share * early)
        found.append(Verdict(what, early, late, max(series), flat))
    return found


class Watch(threading.Thread):
    """Looks every ``every_s`` until ``end``; ``samples`` so far."""

    def __init__(self, engine: Family, data: Path, every_s: float) -> None:
        super().__init__(name="soak-watch", daemon=True)
        self.samples: list[Sample] = []
        self._engine, self._data, self._every_s = engine, data, every_s
        self._ended = threading.Event()
        self._begun = time.monotonic()

    def run(self) -> None:
        """Thread body."""
        while not self._ended.wait(self._every_s):
            self.samples.append(self.look())

    def end(self) -> list[Sample]:
        """Stop; all that was seen."""
        self._ended.set()
        self.join()
        return self.samples

    def look(self) -> Sample:
        """Now. A process or file that goes meanwhile is not counted."""
        pids = self._engine.pids()
        working, lasting = count_files(self._data)
        return Sample(
            round(time.monotonic() - self._begun, 1),
            round(sum(_pss_mb(pid) for pid in pids), 1),
            sum(_entries(f"/proc/{pid}/fd") for pid in pids),
            sum(_entries(f"/proc/{pid}/task") for pid in pids),
            len(pids),
            working,
            lasting,
        )


def count_files(folder: Path) -> tuple[int, int]:
    """(files that come and go, files that keep an hour for good) below a data folder."""
    counts = [0, 0]
    for parent, _, names in os.walk(folder):
        for name in names:
            path = f"{os.path.relpath(parent, folder)}/{name}"
            counts[LAST.search(path) is not None] += 1
    return counts[0], counts[1]


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / MB


def _entries(folder: str) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


NAMES: Final = {
    "memory_mb": "memory of all processes, MB",
    "descriptors": "open descriptors",
    "threads": "threads",
    "processes": "processes",
    "working_files": "files that come and go",
}
assert set(NAMES) == set(SLACKS) <= {f.name for f in fields(Sample)}
