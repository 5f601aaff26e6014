"""Two questions that need more than one process or a month: how soon a reading is visible, how long a refresh takes.

Owns the run of a real engine under the simulated city (ingest.demo) and the log of a table after thirty days.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Final

from deltalake import DeltaTable
from deltalake.transaction import AddAction

from bench.storage_city import CITY_DIR, T0
from bench.storage_figures import Report, took
from bench.storage_hours import HOUR_US
from bench.storage_lake import new_lake
from ingest.demo import DemoOptions, run_demo
from storage.deltalog import CHECKPOINT_EVERY, checkpoint
from storage.deltatable import TableHandle
from storage.hot import hot_dir
from storage.query import REFRESH, connect
from storage.rollups import hour_dir, minute_dir
from storage.seal_plan import COMPACT_APP, partition_of
from storage.sealed import APP_ID, table_dir

DAYS: Final = 30
HOURS: Final = DAYS * 24
FIRST_HOUR: Final = T0 // HOUR_US
HOT_S: Final = 60
"""Hot files not sealed yet: a minute of them, one a second."""


def visible(report: Report, work: Path, points: int, seconds: float) -> None:
    """From a reading's publish to the end of the DuckDB query that shows it, refresh included, 99th percentile."""
    options = DemoOptions(folder=work / "demo", city_dir=CITY_DIR, seconds=seconds, points=points)
    result = run_demo(options, say=lambda _: None, watch=lambda _: None)
    assert result.well, f"the run lost or changed readings: {result.notes}"
    assert result.publish_to_query_p99_s is not None
    report.add(
        "visible to plain DuckDB after publish, p99", result.publish_to_query_p99_s, "s", 2,
        how=f"{points:,} readings/s for {seconds:.0f} s through a real engine; city and probe on the same cores",
    )  # fmt: skip
    report.note(
        f"that run: {result.sent:,} sent, {result.stored:,} stored, {result.lost} lost, {result.duplicates} doubled, "
        f"engine {result.engine_cores:.2f} cores"
    )
    shutil.rmtree(options.folder)


def refresh(report: Report, work: Path, map_file: Path) -> None:
    """The documented refresh line over a lake of thirty days. It reads logs and names, so the files have no row."""
    root = work / "month"
    new_lake(root, map_file)
    readings, rollup = (root / "lake" / "empty" / f"{name}.parquet" for name in ("readings", "rollup"))
    main = table_dir(root, late=False)
    compacted = [
        _action(hour, f"c{i + 1:020d}-{part:04d}") for i, hour in enumerate(_hours()) for part in (0, 1)
    ]
    table = TableHandle(main)
    table.commit(COMPACT_APP, HOURS, compacted)
    table.commit(APP_ID, HOURS, [])
    checkpoint(DeltaTable(str(main)), main, clean=True)
    newest = FIRST_HOUR + HOURS
    for number in range(1, CHECKPOINT_EVERY):
        seq = HOURS + number * 60
        table.commit(APP_ID, seq, [_action(newest, f"{seq - 59:020d}-{seq:020d}-0")])
    for i, hour in enumerate(_hours()):
        _link(rollup, minute_dir(root) / f"{hour}-{i + 1:020d}.parquet")
        if hour % 24 == 23:
            _link(rollup, hour_dir(root) / f"{hour // 24}-{i + 1:020d}.parquet")
    last = HOURS + (CHECKPOINT_EVERY - 1) * 60
    for seq in range(last + 1, last + HOT_S + 1):
        _link(readings, hot_dir(root, late=False) / f"{seq:020d}-{seq:020d}-{newest}-{newest}.parquet")
    for path in table.paths():
        _link(readings, path)
    con = connect(root)
    cost = took(lambda: con.execute(REFRESH), 15, warm=True)
    con.close()
    report.add(
        "refresh of lake.sql after 30 days of commits", cost.wall_s * 1e3, "ms", 50,
        how=f"{cost.cpu_s * 1e3:.0f} ms of CPU; {len(compacted):,} compacted files in the checkpoint, "
        f"{CHECKPOINT_EVERY - 1} commits behind it, "
        f"{HOURS + DAYS} rollups, {HOT_S} hot files; just before the next checkpoint, the worst moment",
    )  # fmt: skip
    shutil.rmtree(root)


def _hours() -> range:
    return range(FIRST_HOUR, FIRST_HOUR + HOURS)


def _link(empty: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(empty, path)


def _action(hour: int, stem: str) -> AddAction:
    date, hour_of_day = partition_of(hour)
    return AddAction(
        path=f"date={date}/hour={hour_of_day:02d}/{stem}.parquet",
        size=1,
        partition_values={"date": date, "hour": str(hour_of_day)},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats='{"numRecords": 1}',
    )
