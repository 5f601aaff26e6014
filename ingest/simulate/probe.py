"""The probe: how long after its publish a reading can be queried, seen by an analyst's DuckDB.

Owns one measurement: for a few hundred sentinel points, the time from a reading's own timestamp (taken by
the simulator right before it is sent) to the end of the first query, refresh included, that shows it. It
asks whenever the lake got a new file, and now and then besides: that finds the first moment at which a query
could show a reading, with one query a second instead of many.
Run as ``python -m ingest.simulate.probe`` with ProbeOptions as JSON on the first line of stdin.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import duckdb
import numpy as np

from ingest.simulate.fleet import load_fleet
from ingest.simulate.speaker import cpu_s, forget_signals, say
from storage.hot import hot_dir

WATCH_S = 0.02
"""How often the folder of hot files is looked at: one system call."""
SPAN_S_MAX = 60.0
"""Readings older than this are not waited for any more: a probe must not scan more and more."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """What to watch.

    every_s  asks this often even if no new file came
    points   sentinels, drawn by seed over the whole registry
    """

    data_dir: str
    points_file: str
    every_s: float = 1.0
    points: int = 200
    seed: int = 1


@dataclass(slots=True)
class ProbeReport:
    """Seconds from a reading's timestamp to the end of the query that first showed it; NaN without any.

    unseen_points  sentinels of which nothing was ever seen
    """

    seen: int = 0
    queries: int = 0
    p50_s: float = float("nan")
    p99_s: float = float("nan")
    max_s: float = float("nan")
    query_s_p50: float = float("nan")
    query_s_max: float = float("nan")
    unseen_points: int = 0
    cpu_s: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Probe:
    """Looks at the lake when told to, and keeps what it saw. Needs ``data_dir``/lake.sql."""

    def __init__(self, data_dir: Path, point_id: Sequence[str], since_us: int) -> None:
        """Only readings timed at or after ``since_us`` count. Raises OSError, duckdb.Error."""
        self._con = duckdb.connect()
        # One thread: a probe that takes both cores would measure itself.
        self._con.execute("SET threads = 1")
        self._lake = (data_dir / "lake.sql").read_text(encoding="utf-8")
        self._con.execute(self._lake)
        self._refresh = refresh_line(self._lake)
        self._con.execute("CREATE TEMP TABLE sentinel AS SELECT unnest($1) AS point_id", [list(point_id)])
        self._con.execute("CREATE TEMP TABLE watched (point INTEGER)")
        self._known = 0
        self._since_us = since_us
        self._latest: dict[int, int] = {}
        self._points = len(point_id)
        self.latency_s: list[float] = []
        self.query_s: list[float] = []

    def look(self) -> int:
        """Refresh, ask, note what is new; returns how many readings were."""
        begun = time.time_ns()
        oldest = min(self._latest.values()) if len(self._latest) == self._points else self._since_us
        self._con.execute(self._refresh)
        if self._known < self._points:
            self._find_points()
        rows = self._con.execute(
            """SELECT r.point, epoch_us(r.time) FROM readings r SEMI JOIN watched w ON w.point = r.point
               WHERE r.time >= make_timestamptz($1::BIGINT)""",
            [max(oldest, begun // 1000 - int(SPAN_S_MAX * 1e6))],
        ).fetchall()
        done = time.time_ns()
        self.query_s.append((done - begun) / 1e9)
        news = 0
        latest = dict(self._latest)
        for point, time_us in rows:
            if time_us > self._latest.get(point, self._since_us - 1):
                self.latency_s.append(done / 1e9 - time_us / 1e6)
                latest[point] = max(time_us, latest.get(point, 0))
                news += 1
        self._latest = latest
        return news

    def _find_points(self) -> None:
        """The sentinels' numbers: a point has one from the moment its registry is loaded."""
        self._con.execute("DELETE FROM watched")
        self._con.execute("INSERT INTO watched SELECT point FROM points SEMI JOIN sentinel USING (point_id)")
        row = self._con.execute("SELECT count(*) FROM watched").fetchone()
        self._known = int(row[0]) if row else 0

    def report(self) -> ProbeReport:
        """What was seen so far."""
        found = ProbeReport(seen=len(self.latency_s), queries=len(self.query_s))
        found.unseen_points = self._points - len(self._latest)
        if self.latency_s:
            found.p50_s, found.p99_s = (float(np.quantile(self.latency_s, q)) for q in (0.5, 0.99))
            found.max_s = max(self.latency_s)
        if self.query_s:
            found.query_s_p50, found.query_s_max = float(np.median(self.query_s)), max(self.query_s)
        return found


def refresh_line(lake_sql: str) -> str:
    """The one documented line that moves all views to now. Raises ValueError where lake.sql has none."""
    for line in lake_sql.splitlines():
        if line.startswith("SET VARIABLE yuzui"):
            return line
    raise ValueError("lake.sql names no line that refreshes its views")


def sentinels(points_file: Path, points: int, seed: int) -> list[str]:
    """Point ids drawn by seed over the whole registry."""
    fleet = load_fleet(points_file)
    chosen = np.random.default_rng((seed, 7)).permutation(len(fleet))[:points]
    return [fleet.point_id[row] for row in chosen.tolist()]


class NewFile:
    """Whether a folder got a new Parquet file since it was last asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed_ns = 0
        self._newest = ""

    def seen(self) -> bool:
        """True once for each arrival; several at once count as one."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if changed_ns == self._changed_ns:
            return False
        self._changed_ns = changed_ns
        newest = max((e.name for e in os.scandir(self._folder) if e.name.endswith(".parquet")), default="")
        arrived = newest > self._newest
        self._newest = newest
        return arrived


def _wait(new_file: NewFile, seconds_max: float, stopped: list[bool]) -> bool:
    """Until a file came or ``seconds_max`` passed; True where the parent is gone."""
    limit = time.monotonic() + seconds_max
    while not stopped and time.monotonic() < limit:
        if select.select([sys.stdin], [], [], WATCH_S)[0]:
            return True
        if new_file.seen():
            break
    return False


def main() -> None:
    """Look at each new file and every ``every_s`` until SIGTERM or the parent's end; report."""
    options = ProbeOptions(**json.loads(sys.stdin.buffer.readline()))
    stopped: list[bool] = []
    forget_signals(lambda: stopped.append(True))
    wanted = sentinels(Path(options.points_file), options.points, options.seed)
    probe = Probe(Path(options.data_dir), wanted, time.time_ns() // 1000)
    new_file = NewFile(hot_dir(Path(options.data_dir), late=False))
    say(ready=True)
    begun, cpu = time.monotonic(), cpu_s()
    faults: list[str] = []
    while not stopped:
        try:
            probe.look()
        except duckdb.Error as fault:
            # A file that was replaced between refresh and query: rare, and the next look tells.
            faults.append(str(fault)[:200])
        if _wait(new_file, options.every_s, stopped):
            break
    report = probe.report()
    report.cpu_s, report.seconds, report.faults = cpu_s() - cpu, time.monotonic() - begun, faults[:20]
    say(report=asdict(report))


if __name__ == "__main__":
    main()
