"""The questions an analyst asks of a week, and whether the answers of different ways agree.

Owns the list of questions and the comparisons: rollups against raw rows, Polars against DuckDB, a copy against the
lake it was made of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl

from storage.pointmap import points_file
from storage.query import write_lake_sql
from storage.sealed import table_dir

MEAN_OFF_MAX: Final = 1e-9
"""Sums of doubles depend on their order; beyond this share two means are different answers."""
PLACE: Final = (104.06, 30.66)
"""The middle of the city, degrees."""


def questions(con: duckdb.DuckDBPyConnection, begin: datetime, end: datetime) -> dict[str, str]:
    """SQL by name. Times are the lake's: the last day of ``begin`` … ``end``, or all of it."""
    day = f"TIMESTAMPTZ '{end - timedelta(days=1)}', TIMESTAMPTZ '{end}'"
    week = f"TIMESTAMPTZ '{begin}', TIMESTAMPTZ '{end}'"
    noon = f"TIMESTAMPTZ '{end - timedelta(hours=12)}'"
    rows = con.execute(
        "SELECT point_id FROM points WHERE kind = 'river_level' ORDER BY point_id LIMIT 10"
    ).fetchall()
    ids = [str(row[0]) for row in rows]
    ten = "[" + ", ".join(f"'{name}'" for name in ids) + "]"
    lon, lat = PLACE
    return {
        "history, one point, a day": f"FROM history('{ids[0]}', {day})",
        "history, one point, a week": f"FROM history('{ids[0]}', {week})",
        "history, ten points, a day": f"FROM history({ten}, {day})",
        "readings of one point, a day, from the view": "SELECT time, value FROM readings"
        f" WHERE point_id = '{ids[0]}' AND time >= TIMESTAMPTZ '{end - timedelta(days=1)}'",
        "values_at, the whole city": f"FROM values_at({noon})",
        "latest, the whole city": "FROM latest",
        "district_hourly, a day": f"FROM district_hourly('temperature', {day})",
        "district_hourly, a week": f"FROM district_hourly('temperature', {week})",
        "around, 1 km": f"FROM around({lon}, {lat}, 1)",
        "availability, a day": f"FROM availability({day})",
        "availability, a week": f"FROM availability({week})",
        "exceedances, waterlogging, a day": f"FROM exceedances('waterlogging', 5, {day})",
        "exceedances, waterlogging, a week": f"FROM exceedances('waterlogging', 5, {week})",
        "rain_accumulated, a day": f"FROM rain_accumulated({day})",
        "rain_accumulated, a week": f"FROM rain_accumulated({week})",
        "rain_since eight o'clock": "FROM rain_since(8)",
        "rollup_1h, mean by kind, a week": 'SELECT kind, sum("sum") / sum(good) FROM rollup_1h'
        " GROUP BY kind ORDER BY kind",
        "bad readings by check, a day": "SELECT check_names(checks) AS name, count(*) FROM yuzui_readings"
        f" WHERE flag > 2 AND time >= TIMESTAMPTZ '{end - timedelta(days=1)}' GROUP BY ALL ORDER BY ALL",
        "count, mean, greatest of every row": "SELECT count(*), avg(value), max(value) FROM yuzui_readings",
    }


COMPARED: Final = (
    "history, one point, a week",
    "history, ten points, a day",
    "values_at, the whole city",
    "district_hourly, a day",
    "exceedances, waterlogging, a day",
    "rain_accumulated, a day",
    "availability, a day",
)
"""Asked of the copy as well."""

_DIFFERENCES: Final = """
WITH raw AS (
    SELECT point, {begin} AS "time", count(*) AS n,
           count(value) FILTER (flag IN (1, 2)) AS good, min(value) FILTER (flag IN (1, 2)) AS least,
           max(value) FILTER (flag IN (1, 2)) AS most, avg(value) FILTER (flag IN (1, 2)) AS mean
    FROM yuzui_readings WHERE "time" >= TIMESTAMPTZ '{since}' AND "time" < TIMESTAMPTZ '{until}' GROUP BY ALL
), rolled AS (
    SELECT point, "time", "count" AS n, good, "min" AS least, "max" AS most, "sum" / nullif(good, 0) AS mean
    FROM {rollup} WHERE "time" >= TIMESTAMPTZ '{since}' AND "time" < TIMESTAMPTZ '{until}'
)
SELECT count(*), count(*) FILTER (
    a.n IS DISTINCT FROM b.n OR a.good IS DISTINCT FROM b.good OR a.least IS DISTINCT FROM b.least
    OR a.most IS DISTINCT FROM b.most OR (a.mean IS NULL) <> (b.mean IS NULL)
    OR abs(a.mean - b.mean) > {off} * greatest(abs(a.mean), 1))
FROM raw a FULL JOIN rolled b ON a.point = b.point AND a."time" = b."time"
"""


def rollup_differences(
    con: duckdb.DuckDBPyConnection, begin: datetime, end: datetime
) -> Iterator[tuple[str, int, int]]:
    """(which rollup and when, its rows, rows that differ from what the raw readings say).

    Counts, least and greatest must be equal, means to MEAN_OFF_MAX. Every hour of the week day by day, and the
    minutes of the last hour of each day: by the minute a week has as many rows as readings.
    """
    at = begin
    while at < end:
        until = min(at + timedelta(days=1), end)
        minute = until - timedelta(hours=1)
        for rollup, since, span in (("rollup_1h", at, "hour"), ("rollup_1m", minute, "minute")):
            row = con.execute(
                _DIFFERENCES.format(
                    begin=f"date_trunc('{span}', \"time\")",
                    since=since,
                    until=until,
                    rollup=rollup,
                    off=MEAN_OFF_MAX,
                )
            ).fetchone()
            assert row is not None
            yield f"{rollup} {since:%Y-%m-%d %H:%M}", int(row[0]), int(row[1])
        at = until


def polars_says(root: Path) -> dict[str, float]:
    """Counts and sums of the main table, by Polars through Delta."""
    lazy = pl.scan_delta(str(table_dir(root, late=False)))
    asked = lazy.select(
        rows=pl.len(), points=pl.col("point").cast(pl.Int64).sum(), values=pl.col("value").sum(),
        least=pl.col("value").min(), most=pl.col("value").max(), last=pl.col("time").max().dt.epoch("us"),
        flags=pl.col("flag").cast(pl.Int64).sum(),
    )  # fmt: skip
    answer: dict[str, float] = asked.collect(engine="streaming").row(0, named=True)
    return answer


def duckdb_says(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """The same by DuckDB through lake.sql."""
    row = con.execute(
        """SELECT count(*), sum(point), sum(value), min(value), max(value), epoch_us(max("time")), sum(flag)
           FROM yuzui_readings"""
    ).fetchone()
    assert row is not None
    return dict(zip(("rows", "points", "values", "least", "most", "last", "flags"), row, strict=True))


def same(a: dict[str, float], b: dict[str, float]) -> bool:
    """Equal, the sum of values to MEAN_OFF_MAX of it."""
    exact = all(a[name] == b[name] for name in a if name != "values")
    return exact and abs(a["values"] - b["values"]) <= MEAN_OFF_MAX * abs(a["values"])


def copy_lake(root: Path, to: Path, time_zone: str, grace_s: float) -> None:
    """What is copied to another desk: the sealed folder and the table of points. Linked here, to save the bytes."""
    for path in (table_dir(root, late=False), points_file(root)):
        for source in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            target = to / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    write_lake_sql(to, time_zone, grace_s)


def answer(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    """All rows in a fixed order; doubles to twelve digits, since sums over the copy may run in another order."""
    rows: list[tuple[Any, ...]] = con.execute(sql).fetchall()
    short = [tuple(float(f"{v:.12g}") if isinstance(v, float) else v for v in row) for row in rows]
    return sorted(short, key=repr)


def from_us(time_us: int) -> datetime:
    """µs since 1970 UTC as a time."""
    return datetime.fromtimestamp(time_us / 1e6, UTC)
