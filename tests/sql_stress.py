"""A writer that seals, compacts and brings late readings, and readers that check every answer: for the stress test.

Range k has a reading of every point at T0 + k * STEP with value k; from k = 1 on it also brings, late, the reading of
one point in range k - 1 again with the value -(k - 1), and one new reading of that point a second later, value 0. So
after n ranges count and sum are known, whatever is hot, sealed, late or compacted: a reader needs no word with the
writer.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

from storage.compact import Compactor
from storage.hot import HotTier
from storage.query import connect, refresh
from storage.sealed import Sealer
from storage.settings import CompactionSettings, SealedSettings
from tests.storage_oracle import finish
from tests.storage_rows import T0, S, batch

POINTS = 20
STEP = 600 * S
SEAL_EVERY = 7
COMPACT_EVERY = 11
LEAST = 4
CLOCK = 30.0
"""The writer's clock runs this much faster: sealed files leave the list of hot files after two seconds."""


def expected(ranges: int) -> tuple[int, float]:
    """(readings, sum of their values) after so many ranges."""
    revised = sum(k - 1 for k in range(1, ranges))
    return ranges * POINTS + max(ranges - 1, 0), POINTS * sum(range(ranges)) - 2.0 * revised


def write(root: Path, until: float) -> None:
    """Ranges as fast as they go, sealed and compacted on the way; prints how many of each as JSON.

    On past the end on a machine that has not come to LEAST of each by then; a reader likewise.
    """
    hot, sealer = HotTier(root), Sealer(root, SealedSettings())
    compactor = Compactor(root, CompactionSettings(lateness_s=0, fold_s=0, files_per_hour_max=4))
    done = {"ranges": 0, "seals": 0, "compactions": 0}
    while time.monotonic() < until or min(done.values()) < LEAST:
        k = done["ranges"]
        point, before = k % POINTS, T0 + (k - 1) * STEP
        late = [(point, before, -float(k - 1)), (point, before + S, 0.0)] if k else []
        mains = [(p, T0 + k * STEP, float(k)) for p in range(POINTS)]
        hot.write(k, k, batch(k, mains), batch(k, late, first_row=POINTS))
        done["ranges"] += 1
        if k % SEAL_EVERY == 0:
            report = sealer.seal(k - 1)
            hot.drop(report.main_seq, report.late_seq, 600, time.monotonic() * CLOCK)
            done["seals"] += 1
        if k % COMPACT_EVERY == 0:
            done["compactions"] += len(finish(compactor))
    print(json.dumps(done))


def _look(con: duckdb.DuckDBPyConnection, seen: int) -> tuple[int, list[str]]:
    """(ranges seen, what is wrong) of one snapshot: every view and macro must tell of the same ranges."""

    def ask(sql: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = con.execute(sql).fetchall()[0]
        return row

    wrong = []
    count, total, keys = ask(
        "SELECT count(*), coalesce(sum(value), 0), count(DISTINCT (point, time)) FROM readings"
    )
    ranges = (count + 1) // (POINTS + 1)
    if (count, total) != expected(ranges) or keys != count or ranges < seen:
        wrong.append(f"readings: {count} rows of {keys} keys, sum {total}, after {seen} ranges")
    for view in ("rollup_1m", "rollup_1h"):
        found = ask(f'SELECT coalesce(sum("count"), 0), coalesce(sum("sum"), 0) FROM {view}')
        if found != (count, total):
            wrong.append(f"{view}: {found} and not {(count, total)}")
    span = f"make_timestamptz({T0}), make_timestamptz({T0 + ranges * STEP})"
    history = ask(f"SELECT count(*) FROM history(['p-00003', 'p-00004'], {span})")[0]
    late = sum(1 for k in range(1, ranges) if k % POINTS in (3, 4))
    if history != 2 * ranges + late:
        wrong.append(f"history: {history} and not {2 * ranges + late}")
    points, newest = ask("SELECT count(*), coalesce(min(epoch_us(time)), 0) FROM latest")
    if ranges and (points, newest) != (POINTS, T0 + (ranges - 1) * STEP):
        wrong.append(f"latest: {points} points, the oldest at {newest}")
    return ranges, wrong


def read(root: Path, until: float) -> None:
    """Look after look until the end; prints {"looks", "ranges", "wrong", "errors"} as JSON."""
    con, looks, ranges = connect(root), 0, 0
    wrong: list[str] = []
    errors: list[str] = []
    while time.monotonic() < until or looks < LEAST:
        try:
            refresh(con, root)
            ranges, found = _look(con, ranges)
            wrong += found
        except duckdb.Error as fault:
            errors.append(str(fault)[:300])
        looks += 1
    print(json.dumps({"looks": looks, "ranges": ranges, "wrong": wrong[:5], "errors": errors[:5]}))


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](Path(sys.argv[2]), time.monotonic() + float(sys.argv[3]))
