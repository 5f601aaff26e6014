"""What the lake must say after any stream of readings: a dictionary, and no cleverness.

Owns the reference: the last received reading of each key, and what each late one was. Writes the same rows as hot
files through the real tiers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from storage.compact import Compactor, CompactReport
from storage.compact_plan import Job
from storage.deltatable import TableHandle
from storage.hot import HotTier
from storage.sealed import APP_ID, Sealer, table_dir
from storage.settings import SealedSettings
from tests.storage_rows import HOUR, T0, Row, S, batch, map_points

Key = tuple[int, int]


class Stream:
    """Readings in the order of receipt, main and late told apart as Judge does, and the truth of them."""

    def __init__(self, root: Path) -> None:
        self.hot = HotTier(root)
        self.seq = 0
        self.truth: dict[Key, float] = {}
        self.late_new = self.revised = self.repeats = 0
        self._last: dict[int, int] = {}

    def write(self, rows: list[Row]) -> None:
        """One hot range of these rows, in this order."""
        mains: list[Row] = []
        lates: list[Row] = []
        for point, time, value in rows:
            if time > self._last.get(point, -(1 << 62)):
                self._last[point] = time
                mains.append((point, time, value))
            else:
                lates.append((point, time, value))
                self._count((point, time), value)
            self.truth[point, time] = value
        first = self.seq
        self.seq += 10
        self.hot.write(first, first + 9, batch(first, mains), batch(first, lates, first_row=len(mains)))

    def _count(self, key: Key, value: float) -> None:
        if key not in self.truth:
            self.late_new += 1
        elif np.float64(self.truth[key]).tobytes() == np.float64(value).tobytes():
            # By bits: 0.0 and -0.0 are two values, a missing one equals a missing one.
            self.repeats += 1
        else:
            self.revised += 1

    def rows(self) -> list[Row]:
        """What every view must show, sorted."""
        return sorted((point, time, value) for (point, time), value in self.truth.items())


def finish(compactor: Compactor, now: float = 0.0) -> list[CompactReport]:
    """Do what is due until nothing is."""
    done = []
    while jobs := compactor.look(now):
        done.append(run(compactor, jobs[0]))
    return done


def run(compactor: Compactor, job: Job) -> CompactReport:
    """One job to its end."""
    steps = compactor.run(job)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            report: CompactReport = stop.value
            return report


def main_files(root: Path) -> list[Path]:
    """Files the main table names."""
    table = TableHandle(table_dir(root, late=False))
    table.version_of(APP_ID)
    return sorted(table.paths())


def late_files(root: Path) -> list[Path]:
    """Files the late table names."""
    table = TableHandle(table_dir(root, late=True))
    table.version_of(APP_ID)
    return sorted(table.paths())


def read_rows(paths: list[Path]) -> list[Row]:
    """(point, time, value) of the rows of some files, sorted; missing values are NaN."""
    rows: list[Row] = []
    for path in paths:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        time = table["time"].cast("int64").to_pylist()
        rows += zip(table["point"].to_pylist(), time, table["value"].to_numpy().tolist(), strict=True)
    return sorted(rows)


def city(root: Path, seed: int = 3, points: int = 40) -> tuple[Stream, Sealer]:
    """Two hours of some points every 20 s, some late, repeated and revised, sealed in a dozen files."""
    rng, stream, sealer = np.random.default_rng(seed), Stream(root), Sealer(root, SealedSettings())
    map_points(root, points)
    for begin in range(0, 7200, 600):
        rows: list[Row] = [
            (int(p), T0 + (begin + s) * S + int(rng.integers(S)), round(float(rng.normal()), 1))
            for s in range(0, 600, 20) for p in range(points)
        ]  # fmt: skip
        old = [rows[int(i)] for i in rng.integers(0, len(rows), 90)]
        rows += [
            (p, max(t - int(rng.integers(3)) * S, T0), v if rng.random() < 0.5 else v + 1) for p, t, v in old
        ]
        stream.write(rows)
        sealer.seal(stream.seq)
    stream.write([(0, T0 + 4 * HOUR, 0.0)])
    sealer.seal(stream.seq)
    return stream, sealer


def view(root: Path) -> list[Row]:
    """What the two tables say together: main, replaced by the last received late row of the same key."""
    main = read_rows(main_files(root))
    found = {(point, time): value for point, time, value in main}
    assert len(found) == len(main), "a key stands in main twice"
    late: list[tuple[int, int, int, float]] = []
    for path in late_files(root):
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        columns = (table[name].to_pylist() for name in ("pos", "point", "value"))
        pos, point, value = columns
        late += zip(pos, point, table["time"].cast("int64").to_pylist(), value, strict=True)
    for _, point, time, value in sorted(late):
        found[point, time] = value
    return sorted((point, time, value) for (point, time), value in found.items())
