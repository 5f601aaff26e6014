"""Which files of a small log become one. Pure: a list of files in, a run of neighbours out.

Owns the rules of a merge; opens no file and holds no clock.

- A file that was never merged (a *part*) is taken as soon as there are enough of them, whatever stands around it.
- An older merged file is taken along while it is at most MERGE_GROWTH times what is newer than it. So merged files more
  than halve from one to the next newer one, there are few of them, and a row is rewritten a dozen times at most.
- Files of MERGED_BYTES_MAX are left as they are; what stands before such a file is settled, two files are enough there.
- A merge is one bite: at most BITE_FILES_MAX files, and little more than MERGED_BYTES_MAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MERGE_FILES_MIN: Final = 64
"""Below this many small files a merge saves a reader less than it costs."""
MERGED_BYTES_MAX: Final = 16 << 20
"""Files this large are left as they are, so that a log of years is not rewritten again and again."""
MERGE_GROWTH: Final = 2
BITE_FILES_MAX: Final = 128
"""Read by one merge, one after the other: a backlog of thousands goes in several, and alerts are exported between."""
MERGED_FILES_MAX: Final = 12
"""Merged files below MERGED_BYTES_MAX that stand at once: each was more than MERGE_GROWTH times what was newer, and 64
parts have at least 16 kB, so 16 MiB is reached within eleven."""
LIVE_FILES_MAX: Final = MERGE_FILES_MIN + MERGED_FILES_MAX
"""Small files of one log that a reader opens, at any rate of rows and at any speed of clock, while merges find room."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log: rows of journal records ``first`` to ``last``. ``part``: it was never merged."""

    path: Path
    first: int
    last: int
    size: int
    part: bool = True


def choose(files: Sequence[LogFile], files_min: int = MERGE_FILES_MIN) -> list[LogFile]:
    """The neighbours to merge now, oldest first; empty for none. ``files``: all that count, by (first, last)."""
    runs: list[list[LogFile]] = [[]]
    for file in files:
        if file.size < MERGED_BYTES_MAX:
            runs[-1].append(file)
        else:
            runs.append([])
    newest = _newest(runs.pop())
    if len(newest) >= max(files_min, 2):
        return _bite(newest)
    settled = next((run for run in runs if len(run) >= 2), [])
    return _bite(settled)


def _newest(run: Sequence[LogFile]) -> list[LogFile]:
    """Every part, what stands between them, and older merged files that are not much larger than all of these."""
    oldest = next((at for at, file in enumerate(run) if file.part), len(run))
    size = sum(file.size for file in run[oldest:])
    while oldest and run[oldest - 1].size <= MERGE_GROWTH * size:
        oldest -= 1
        size += run[oldest].size
    return list(run[oldest:])


def _bite(run: Sequence[LogFile]) -> list[LogFile]:
    taken, size = list(run[:2]), sum(file.size for file in run[:2])
    for file in run[2:BITE_FILES_MAX]:
        size += file.size
        if size > MERGED_BYTES_MAX:
            break
        taken.append(file)
    return taken
