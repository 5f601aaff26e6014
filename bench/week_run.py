"""scripts/bench week: a simulated week of the whole city in the lake, made fast, and every question over it.

Caveats first. The rows do not come through MQTT and are never late: they are laid down hour by hour as compaction
leaves them, by the compactor's own writers. The week ends at the last full hour, so that questions about "since
eight o'clock" have an answer. At one reading a minute a rollup by the minute has a row for each reading.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import duckdb

from bench.storage_city import map_city
from bench.storage_figures import Report, took
from bench.storage_hours import HOUR_US, CityHours
from bench.storage_lake import GRACE_S, TIME_ZONE, Layer, new_lake
from bench.storage_run import SCRATCH
from bench.week_questions import (
    COMPARED,
    answer,
    copy_lake,
    duckdb_says,
    from_us,
    polars_says,
    questions,
    rollup_differences,
    same,
)
from storage.compact_plan import files_per_hour_bound
from storage.query import REFRESH, connect, write_lake_sql
from storage.rollups import hour_dir, minute_dir
from storage.sealed import table_dir
from storage.settings import CompactionSettings

DISK_FREE: Final = 1.5
"""The week needs about seven bytes a reading, rollups included; not begun with less than this many times as much."""
BYTES_A_READING: Final = 7.0
LONG_S: Final = 3.0
"""A question that takes longer is asked once more, not three times."""


@click.command(help=__doc__)
@click.option("--days", type=float, default=7, help="Length of the week; hours are whole.")
@click.option("--every", type=int, default=1, help="Every n-th point of the city only.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=SCRATCH, help="Scratch folder.")
@click.option("--keep", is_flag=True, help="Leave the lake there.")
@click.option("--again", is_flag=True, help="Ask the lake that --keep left, of the same days and points.")
def main(days: float, every: int, folder: Path, keep: bool, again: bool) -> None:
    """Make the week, ask, compare, save; exit 1 where two ways answer differently."""
    hours = round(days * 24)
    root = folder / "week"
    if not again:
        shutil.rmtree(root, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    report = Report("week", {"days": days, "every": every})
    map_file = map_city(folder / "city", 60.0)
    made_file = folder / "week-made.json"
    made: dict[str, Any] = json.loads(made_file.read_text()) if again else {}
    end_us: int = made.get("end_us", time.time_ns() // 1000 // HOUR_US * HOUR_US)
    begin_us = end_us - hours * HOUR_US
    city = CityHours(map_file, days, every, begin_us)
    if not again:
        _check_room(folder, len(city) * hours)
        new_lake(root, map_file)
        made = _generate(root, city, hours) | {"end_us": end_us}
        made_file.write_text(json.dumps(made))
    else:
        write_lake_sql(root, TIME_ZONE, GRACE_S)
    _sizes(report, root, len(city), hours, made)
    con = connect(root)
    begin, end = from_us(begin_us), from_us(begin_us + hours * HOUR_US)
    report.add(
        "refresh of lake.sql",
        took(lambda: con.execute(REFRESH), 9, warm=True).wall_s * 1e3,
        "ms",
        how="the week's lake",
    )
    _ask(report, con, begin, end)
    wrong = _compare(report, con, root, folder / "week-copy", begin, end)
    con.close()
    if not keep:
        shutil.rmtree(root)
    whole = hours >= 7 * 24 and every == 1
    if whole:
        report.publish("week")
    print(report.save("week" if whole else "week-part"))
    if wrong:
        sys.exit("different answers: " + "; ".join(wrong))


def _check_room(folder: Path, point_hours: int) -> None:
    need = point_hours * 60 * BYTES_A_READING * DISK_FREE
    if shutil.disk_usage(folder).free < need:
        raise click.ClickException(f"{folder}: less than {need / 1e9:.1f} GB free")


def _generate(root: Path, city: CityHours, hours: int) -> dict[str, Any]:
    """Rows made, and the wall and CPU seconds that took."""
    began, cpu = time.perf_counter(), time.process_time()
    layer = Layer(root)

    def say(hour: object) -> None:
        done = time.perf_counter() - began
        print(f"\r  {layer.rows:,} rows, {layer.rows / done / 1e6:.2f} Mrow/s ", end="", flush=True)

    layer.fill(city, hours, say)
    print()
    return {
        "rows": layer.rows,
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
    }


def _sizes(report: Report, root: Path, points: int, hours: int, made: dict[str, Any]) -> None:
    rows, wall = made["rows"], made["wall_s"]
    how = f"{rows / wall / 1e6:.2f} Mrow/s, {made['cpu_s'] / rows * 1e6:.2f} µs of CPU a reading"
    report.add("readings", rows, "", how=f"{points:,} points × {hours} h × 60")
    report.add("made in", wall, "s", how=how)
    main = sorted(p for p in table_dir(root, late=False).glob("date=*/hour=*/*.parquet"))
    size = sum(p.stat().st_size for p in main)
    report.add(
        "bytes a reading", size / rows, "B", 4.5, how=f"{size / 1e9:.2f} GB, all columns, ±20 ms jitter"
    )
    for name, folder in (("rollup by the minute", minute_dir(root)), ("rollup by the hour", hour_dir(root))):
        found = list(folder.iterdir())
        took_bytes = sum(p.stat().st_size for p in found)
        report.add(
            f"{name}, bytes a reading",
            took_bytes / rows,
            "B",
            how=f"{len(found)} files, {took_bytes / 1e9:.2f} GB",
        )
    bound = files_per_hour_bound(rows // hours, CompactionSettings()) * hours
    report.add(
        "files of readings",
        len(main),
        "",
        bound,
        how="the bound is what may stand while hours are not compacted",
    )


def _ask(report: Report, con: duckdb.DuckDBPyConnection, begin: datetime, end: datetime) -> None:
    for name, sql in questions(con, begin, end).items():
        began = time.perf_counter()
        columns = con.execute(sql).fetchnumpy()
        repeats = 3 if time.perf_counter() - began < LONG_S else 1
        cost = took(lambda q=sql: con.execute(q).fetchnumpy(), repeats)  # type: ignore[misc]
        rows = len(next(iter(columns.values())))
        report.add(name, cost.wall_s * 1e3, "ms", how=f"{cost.cpu_s * 1e3:,.0f} ms of CPU, {rows:,} rows")


def _compare(
    report: Report, con: duckdb.DuckDBPyConnection, root: Path, copy: Path, begin: datetime, end: datetime
) -> list[str]:
    """Names of what answered differently."""
    wrong: list[str] = []
    rows, differing = 0, 0
    for what, found, off in rollup_differences(con, begin, end):
        rows, differing = rows + found, differing + off
        if off or not found:
            wrong.append(f"{what}: {off} of {found}")
    report.add(
        "rollup rows that differ from raw",
        differing,
        "",
        0,
        how=f"of {rows:,} compared: counts, least, greatest, mean",
    )
    ours, theirs = duckdb_says(con), polars_says(root)
    report.add(
        "Polars against DuckDB",
        0 if same(ours, theirs) else 1,
        "differ",
        0,
        how=f"{theirs['rows']:,} rows by scan_delta",
    )
    if not same(ours, theirs):
        wrong.append(f"DuckDB {ours}, Polars {theirs}")
    shutil.rmtree(copy, ignore_errors=True)
    copy_lake(root, copy, TIME_ZONE, GRACE_S)
    there = connect(copy)
    asked = questions(con, begin, end)
    other = [name for name in COMPARED if answer(con, asked[name]) != answer(there, asked[name])]
    there.close()
    shutil.rmtree(copy)
    report.add(
        "questions the copied folder answers differently", len(other), "", 0, how=f"of {len(COMPARED)}"
    )
    return wrong + other


if __name__ == "__main__":
    main()
