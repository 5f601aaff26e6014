"""What questions cost over a day of the city: the lake by plain DuckDB against its peers, on the same rows.

Owns the cases of the read side.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.storage_figures import Report, took
from bench.storage_hours import CityHours
from bench.storage_lake import Layer, new_lake
from bench.storage_peers import ClickHouse, MinuteFiles
from storage.query import connect

DAY: Final = ("2026-01-01 00:00:00+00", "2026-01-02 00:00:00+00")
TEN: Final = 10
HOUSE_H: Final = 6
"""Hours of the day that ClickHouse gets: it takes a minute to read and merge 40 million rows."""


class Day:
    """A day of one reading a minute a point: as a lake, as minute files, in ClickHouse."""

    def __init__(self, work: Path, map_file: Path, every: int, hours: int) -> None:
        self.root = work / "day"
        self.minutes = MinuteFiles(work / "minutes")
        self.city = CityHours(map_file, 1, every)
        new_lake(self.root, map_file)
        layer = Layer(self.root)
        layer.fill(self.city, hours, self.minutes.add)
        self.rows = layer.rows
        self.hours = hours
        self.whole = every == 1
        self.con = connect(self.root)
        self.con.execute(f"CREATE VIEW arrived AS FROM read_parquet('{self.minutes.pattern}')")

    def target(self, limit: float) -> float | None:
        """The target, where the set is the whole city: against peers that scan, every ratio grows with the set."""
        return limit if self.whole else None

    def said(self) -> str:
        """For the column "how" of the table."""
        return f"{self.rows:,} rows, {len(self.city):,} points × {self.hours} h, 1 a minute"

    def points(self, count: int, seed: int) -> list[tuple[int, str]]:
        """(number, id) of points drawn by seed."""
        chosen = np.random.default_rng(seed).choice(self.city.point, count, replace=False)
        rows = self.con.execute(
            "SELECT point, point_id FROM points WHERE point IN (SELECT unnest($1))", [chosen.tolist()]
        ).fetchall()
        return [(int(point), str(point_id)) for point, point_id in rows]


def measure(report: Report, work: Path, map_file: Path, every: int, hours: int, *, peers: bool) -> None:
    """Every row of the table that is about reading. ``peers``: with ClickHouse too."""
    began = time.perf_counter()
    day = Day(work, map_file, every, hours)
    report.note(f"the day: {day.said()}, made with its minute files in {time.perf_counter() - began:.0f} s")
    _lookups(report, day)
    _districts(report, day)
    if peers:
        _clickhouse(report, day, work)
    day.con.close()
    for left in (day.root, day.minutes.folder):
        shutil.rmtree(left)


def _lookups(report: Report, day: Day) -> None:
    """One point and ten points over the day: the same question to both, points by their numbers.

    Once as lake.sql leaves a session, once in one that remembers the footers of files (docs/sql.md).
    """
    asked = {"one point": (50, day.points(1, 3)), "ten points": (10, day.points(TEN, 4))}
    for name, (limit, points) in asked.items():
        lake, naive = (
            took(_points(day, table, points), repeats, warm=True)
            for table, repeats in (("yuzui_readings", 7), ("arrived", 3))
        )
        alike = np.array_equal(
            *(_points(day, table, points)()["value"] for table in ("yuzui_readings", "arrived"))
        )
        assert alike, f"{name}: the lake and the minute files answer differently"
        day.con.execute("SET parquet_metadata_cache = true")
        known = took(_points(day, "yuzui_readings", points), 7, warm=True)
        day.con.execute("SET parquet_metadata_cache = false")
        for how, cost in (("", lake), (", footers remembered", known)):
            report.add(
                f"{name}, {day.hours} h, against minute files{how}", naive.cpu_s / cost.cpu_s, "× less CPU",
                day.target(limit), at_least=True,
                how=f"{cost.cpu_s * 1e3:.0f} ms against {naive.cpu_s * 1e3:,.0f} ms of CPU; {day.said()}",
            )  # fmt: skip
    name = asked["one point"][1][0][1]
    macro = took(lambda: day.con.execute(f"FROM {history(name)}").fetchnumpy(), 7, warm=True)
    report.add(
        "the same by history('…')",
        macro.cpu_s * 1e3,
        "ms of CPU",
        how="by name, with receipt, flags and score",
    )


def _points(day: Day, table: str, points: list[tuple[int, str]]) -> Callable[[], Any]:
    """The question for some points: a join with a small table, which DuckDB prunes by better than by IN."""
    numbers = ", ".join(f"({point})" for point, _ in points)
    name = f"wanted_{len(points)}"
    day.con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM (VALUES {numbers}) v(point)")
    which = f"JOIN {name} USING (point) WHERE" if len(points) > 1 else f"WHERE point = {points[0][0]} AND"
    sql = f"""SELECT point, time, value FROM {table} {which}
              time >= TIMESTAMPTZ '{DAY[0]}' AND time < TIMESTAMPTZ '{DAY[1]}' ORDER BY point, time"""
    return lambda: day.con.execute(sql).fetchnumpy()


def history(point_id: str) -> str:
    """The macro over the day."""
    return f"history('{point_id}', TIMESTAMPTZ '{DAY[0]}', TIMESTAMPTZ '{DAY[1]}')"


def _districts(report: Report, day: Day) -> None:
    """Mean, least and greatest by district, kind and hour: from the rollup and from every row."""
    rollup = """SELECT district, kind, "time", sum("sum") / sum(good), min("min"), max("max")
                FROM rollup_1h GROUP BY ALL ORDER BY ALL"""
    raw = """SELECT p.district, p.kind, date_trunc('hour', r."time"), avg(r.value), min(r.value), max(r.value)
             FROM yuzui_readings r JOIN points p USING (point) WHERE r.flag IN (1, 2) GROUP BY ALL ORDER BY ALL"""
    quick = took(lambda: day.con.execute(rollup).fetchnumpy(), 5, warm=True)
    slow = took(lambda: day.con.execute(raw).fetchnumpy(), 3)
    report.add(
        f"district by hour over {day.hours} h, rollup against raw", slow.cpu_s / quick.cpu_s, "× less CPU",
        day.target(50), at_least=True, how=f"{quick.cpu_s * 1e3:.0f} ms against {slow.cpu_s * 1e3:,.0f} ms of CPU",
    )  # fmt: skip


def _clickhouse(report: Report, day: Day, work: Path) -> None:
    """The day's first hours in ClickHouse: bytes, single points by the wall's clock, full scans by CPU."""
    house = ClickHouse(work / "clickhouse")
    began = time.perf_counter()
    house.load(day.minutes, HOUSE_H)
    rows = int(house.run("SELECT count(*) FROM readings"))
    assert rows == day.rows * HOUSE_H // day.hours
    report.note(f"ClickHouse took in {rows:,} rows and merged them in {time.perf_counter() - began:.0f} s")
    size = sum(f.stat().st_size for f in (day.root / "lake" / "readings").glob("date=*/hour=*/*.parquet"))
    report.add("bytes a reading, the day, all columns", size / day.rows, "B", how="jitter ±20 ms, 1 a minute")
    report.add("bytes a reading, ClickHouse", house.bytes() / rows, "B", how=f"{HOUSE_H} hours of the same")
    for hours in (HOUSE_H, 1):
        _beside_clickhouse(report, day, house, hours, known=False)
        _beside_clickhouse(report, day, house, hours, known=True)
    scan = "SELECT count(*), avg(value), max(value), min(time) FROM {} WHERE time < {}"
    end = f"2026-01-01 {HOUSE_H:02d}:00:00+00"
    lake_sql = scan.format("yuzui_readings", f"TIMESTAMPTZ '{end}'")
    lake_scan = took(lambda: day.con.execute(lake_sql).fetchall(), 3, warm=True)
    house_scan = took(lambda: house.run(scan.format("readings", _clock(end))), 3, warm=True)
    report.add(
        "full scan against ClickHouse, CPU", lake_scan.cpu_s / house_scan.cpu_s, "×", day.target(1),
        how=f"{lake_scan.cpu_s:.2f} against {house_scan.cpu_s:.2f} s: count, mean, greatest, first time of all rows",
    )  # fmt: skip
    house.close()


def _beside_clickhouse(report: Report, day: Day, house: ClickHouse, hours: int, *, known: bool) -> None:
    """Single points over some hours in both, by the wall's clock; ``known``: in a session that remembers footers."""
    bounds = DAY[0], f"2026-01-01 {hours:02d}:00:00+00"
    day.con.execute(f"SET parquet_metadata_cache = {known}")
    ours, theirs = [], []
    for point, _ in day.points(5, 5):
        sql = "SELECT time, value, flag FROM {} WHERE point = {} AND time >= {} AND time < {} ORDER BY time"
        times = [f"TIMESTAMPTZ '{at}'" for at in bounds]
        between = f"yuzui_between(getvariable('yuzui').plain, {times[0]}, {times[1]})"
        lake_sql = sql.format(between if known else "yuzui_readings", point, *times)
        house_sql = sql.format("readings", point, *(_clock(at) for at in bounds))
        ours.append(took(lambda q=lake_sql: day.con.execute(q).fetchnumpy(), 5, warm=True).wall_s)  # type: ignore[misc]
        theirs.append(took(lambda q=house_sql: house.run(q), 5, warm=True).wall_s)  # type: ignore[misc]
    day.con.execute("SET parquet_metadata_cache = false")
    report.add(
        f"{hours} h of one point against ClickHouse, wall{', files by hour, footers remembered' if known else ''}",
        float(np.median(ours) / np.median(theirs)), "×", day.target(4),
        how=f"{np.median(ours) * 1e3:.1f} against {np.median(theirs) * 1e3:.1f} ms",
    )  # fmt: skip


def _clock(text: str) -> str:
    """A UTC time in ClickHouse's words."""
    return f"toDateTime64('{text.removesuffix('+00')}', 6, 'UTC')"
