"""The macros and rollup views of lake.sql against brute force, in every state an hour goes through."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake.transaction import RemoveAction

from storage.compact import Compactor
from storage.deltatable import TableHandle
from storage.hot import HotTier
from storage.pointmap import merge
from storage.query import connect, refresh, write_lake_sql
from storage.schema import REGISTRY
from storage.sealed import Sealer, table_dir
from storage.settings import CompactionSettings, SealedSettings
from tests.storage_oracle import finish
from tests.storage_rows import HOUR, T0, S, batch, registry

MINUTE = 60 * S
KINDS = ("rain_gauge", "waterlogging", "pm25")
POINTS = 12
HOURS = 5
AT_ONCE = CompactionSettings(lateness_s=0, fold_s=0)


def kind_of(point: int) -> str:
    """Points are numbered by (kind, district, id), as a registry's first load is."""
    return sorted(KINDS)[point // 4]


def district_of(point: int) -> str:
    return ("Jinniu", "Wuhou")[point % 4 // 2]


def point_id(point: int) -> str:
    return f"{kind_of(point)}-{point:02d}"


def city(root: Path) -> None:
    """Twelve points a kilometre apart to the east, one reading a minute each; one has no interval."""
    table = registry(POINTS)
    columns: dict[str, list[Any]] = {
        "point_id": [point_id(p) for p in range(POINTS)],
        "kind": [kind_of(p) for p in range(POINTS)],
        "district": [district_of(p) for p in range(POINTS)],
        "source": [f"source-{p % 2}" for p in range(POINTS)],
        "interval_s": [60.0] * (POINTS - 1) + [0.0],
        "lon": [104.0 + p / (111.195 * np.cos(np.radians(30.0))) for p in range(POINTS)],
        "lat": [30.0] * POINTS,
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), REGISTRY.field(name), pa.array(values))
    merge(root, table, T0)


class Night:
    """Random readings of five hours and what they must come to: truth[point, time] = (value, flag)."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng, self.seq = root, np.random.default_rng(seed), 0
        self.truth: dict[tuple[int, int], tuple[float, int]] = {}
        city(root)
        self.hot = HotTier(root)
        self.sealer = Sealer(root, SealedSettings())
        write_lake_sql(root, "Asia/Shanghai", 7200)

    def ranges(self, first_hour: int, last_hour: int) -> Iterator[None]:
        """Hot ranges of twenty minutes each of main rows; every second one brings late rows of any hour before."""
        for begin in range(first_hour * 60, last_hour * 60, 20):
            mains = [
                (p, T0 + minute * MINUTE + int(self.rng.integers(60)) * S, self._value(p))
                for minute in range(begin, begin + 20)
                for p in range(POINTS)
                if self.rng.random() < 0.9
            ]
            self.write(mains, self._late(begin) if begin % 40 else [])
            yield

    def _value(self, point: int) -> float:
        if self.rng.random() < 0.03:
            return float("nan")
        scale = {"rain_gauge": 2.0, "waterlogging": 40.0, "pm25": 300.0}[kind_of(point)]
        return round(float(self.rng.random()) * scale, 1)

    def _late(self, begin: int) -> list[tuple[int, int, float]]:
        known = list(self.truth)
        rows = [known[int(self.rng.integers(len(known)))] for _ in range(4)] if known else []
        new = [
            (int(self.rng.integers(POINTS)), T0 + int(self.rng.integers(begin * 60 + 1)) * S + 1)
            for _ in range(2)
        ]
        return [(p, t, self._value(p)) for p, t in dict.fromkeys(rows + new)]

    def write(self, mains: list[tuple[int, int, float]], lates: list[tuple[int, int, float]]) -> None:
        """One hot range; some readings are flagged bad."""
        parts = []
        for rows, offset in ((mains, 0), (lates, len(mains))):
            part = batch(self.seq, rows, first_row=offset)
            part.flag[:] = self.rng.choice([1, 2, 3, 4], len(rows), p=[0.8, 0.1, 0.05, 0.05])
            for (p, t, v), flag in zip(rows, part.flag, strict=True):
                self.truth[p, t] = v, int(flag)
            parts.append(part)
        self.hot.write(self.seq, self.seq, *parts)
        self.seq += 1

    def seal(self) -> None:
        self.sealer.seal(self.seq)

    def compact(self) -> int:
        """Compact what is over; how many hours were."""
        return len(finish(Compactor(self.root, AT_ONCE)))

    @cached_property
    def session(self) -> duckdb.DuckDBPyConnection:
        """Of the night as it was when this was first asked for."""
        return connect(self.root)

    def rolled(self, span: int) -> dict[tuple[int, int], tuple[Any, ...]]:
        """(point, begin) -> count, good, sum, min, max, first, last."""
        groups: dict[tuple[int, int], list[tuple[int, float, int]]] = defaultdict(list)
        for (p, t), (v, flag) in sorted(self.truth.items()):
            groups[p, t // span * span].append((t, v, flag))
        found: dict[tuple[int, int], tuple[Any, ...]] = {}
        for key, rows in groups.items():
            good = [v for _, v, flag in rows if flag in (1, 2) and not np.isnan(v)]
            summary = (sum(good), min(good), max(good), good[0], good[-1]) if good else (None,) * 5
            found[key] = len(rows), len(good), *summary
        return found


@pytest.fixture(
    scope="module", params=["hot", "sealed", "compacted", "compacted, late since", "compacted twice"]
)
def night(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A night whose hours are in the state named; the last hour is always still hot. Tests only read it."""
    seed = 20_260_701
    print("seed", seed)
    found = Night(tmp_path_factory.mktemp("night"), seed)
    state = request.param
    for _ in found.ranges(0, HOURS - 1):
        if state != "hot":
            found.seal()
    if state.startswith("compacted"):
        assert found.compact() >= HOURS - 2
    if state in ("compacted, late since", "compacted twice"):
        found.write([], [(1, T0 + 90 * MINUTE, 7.5), (5, T0 + 91 * MINUTE + 7, 33.0)])
    if state == "compacted twice":
        found.write([(0, T0 + (HOURS - 1) * HOUR, 1.0)], [])
        found.seal()
        assert found.compact() >= 1
    for _ in found.ranges(HOURS - 1, HOURS):
        pass
    return found


def at(us: int) -> str:
    """A constant for a macro."""
    return f"make_timestamptz({us})"


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = con.execute(query).fetchall()
    return found


def close(a: Any, b: Any) -> bool:
    """Equal; sums within what another order of addition may change."""
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.isclose(a, b, rtol=1e-12, atol=1e-9))
    return bool(a == b)


def same(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert all(close(x, y) for x, y in zip(a, b, strict=True)), (a, b)


@pytest.mark.parametrize(("view", "span"), [("rollup_1m", MINUTE), ("rollup_1h", HOUR)])
def test_rollups_equal_brute_force(night: Night, view: str, span: int) -> None:
    con = night.session
    query = f"""SELECT point, epoch_us(time), "count", good, "sum", "min", "max", "first", "last", bad_share, mean
                FROM {view} ORDER BY point, time"""
    expected = [
        (*key, *r, 1 - r[1] / r[0], None if r[2] is None else r[2] / r[1])
        for key, r in sorted(night.rolled(span).items())
    ]
    same(rows(con, query), expected)


def test_rollups_of_clean_hours_come_from_their_files_and_others_from_readings(tmp_path: Path) -> None:
    night = Night(tmp_path, 1)
    for _ in night.ranges(0, 3):
        night.seal()
    night.compact()
    lists = """SELECT len(yuzui_files(y.rollup_1m)) - 1, len(yuzui_files(y.rollup_1h)) - 1,
                      len(yuzui_files(y.dirty)) + len(yuzui_files(y.touched)) - 2, y.dirty_hours
               FROM (SELECT getvariable('yuzui') y)"""
    con = connect(tmp_path)
    minutes, days, files, dirty = rows(con, lists)[0]
    assert (minutes, days) == (2, 1)
    assert files == len(dirty) * 3
    night.write([], [(1, T0, 0.1)])
    refresh(con, tmp_path)
    [(fewer, _, _, more)] = rows(con, lists)
    assert (fewer, len(more)) == (minutes - 1, len(dirty) + 1)


def hour_of(path: str) -> int:
    """Hour since 1970 of a partition's path."""
    day, hour = (part.split("=")[1] for part in path.split("/")[:2])
    return int(datetime.fromisoformat(day + "T00:00+00:00").timestamp()) // 3600 + int(hour)


def test_rollups_stay_when_an_hours_readings_are_gone(tmp_path: Path) -> None:
    """Retention takes the files of an hour out of the table; its rollups are all that is left of it."""
    night = Night(tmp_path, 2)
    for _ in night.ranges(0, 3):
        night.seal()
    night.compact()
    con = connect(tmp_path)
    columns = 'point, time, "count", good, "min", "max", "first", "last", "sum"'
    views = [f"SELECT {columns} FROM {view} ORDER BY point, time" for view in ("rollup_1m", "rollup_1h")]
    before = [rows(con, view) for view in views]
    [(dirty,)] = rows(con, "SELECT getvariable('yuzui').dirty_hours")
    table = TableHandle(table_dir(tmp_path, late=False))
    table.version_of("yuzui")
    [gone] = [p for p in table.live()["path"].to_pylist() if "/c" in p and hour_of(p) not in dirty][:1]
    day, hour = (part.split("=")[1] for part in gone.split("/")[:2])
    table.commit("yuzui-retire", 1, [RemoveAction(gone, True, 0, 1, {"date": day, "hour": str(int(hour))})])
    refresh(con, tmp_path)
    assert rows(con, f"SELECT count(*) FROM readings WHERE epoch_us(time) // {HOUR} = {hour_of(gone)}") == [
        (0,)
    ]
    for view, was in zip(views, before, strict=True):
        same(rows(con, view), was)


@pytest.mark.parametrize("number", [1, 3])
def test_history_equals_brute_force(night: Night, number: int) -> None:
    con = night.session
    wanted = [0, 5, 11][:number]
    ids = repr([point_id(p) for p in wanted]) if number > 1 else repr(point_id(0))
    since, until = T0 + 37 * MINUTE, T0 + 271 * MINUTE + 5 * S
    query = f"SELECT point_id, epoch_us(time), value, flag FROM history({ids}, {at(since)}, {at(until)})"
    expected = [
        (point_id(p), t, None if np.isnan(v) else v, flag)
        for (p, t), (v, flag) in night.truth.items()
        if p in wanted and since <= t < until
    ]
    assert rows(con, query) == sorted(expected)


def test_values_at_is_the_last_value_within_the_look_back(night: Night) -> None:
    con = night.session
    for moment, look_back in ((T0 + 150 * MINUTE + 13 * S, 60), (T0 + 20 * S, 60), (T0 + 290 * MINUTE, 3)):
        newest: dict[int, tuple[int, float, int]] = {}
        for (p, t), (v, flag) in sorted(night.truth.items()):
            if moment - look_back * MINUTE <= t <= moment and not np.isnan(v):
                newest[p] = t, v, flag
        asked = f"values_at({at(moment)}, look_back := INTERVAL {look_back} MINUTE)"
        found = rows(con, f"SELECT point_id, epoch_us(time), value, flag FROM {asked}")
        assert sorted(found) == sorted((point_id(p), *r) for p, r in newest.items())
    assert rows(con, f"SELECT count(*) FROM values_at({at(T0 + 150 * MINUTE)})") == [(POINTS,)]


def test_district_hourly_weighs_all_good_readings_alike(night: Night) -> None:
    con = night.session
    groups: dict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
    for (p, t), r in night.rolled(HOUR).items():
        if kind_of(p) == "pm25" and T0 + HOUR <= t < T0 + 5 * HOUR:
            groups[district_of(p), t].append(r)
    expected = [
        (
            *key, len(g), sum(r[0] for r in g), sum(r[1] for r in g), 1 - sum(r[1] for r in g) / sum(r[0] for r in g),
            sum(r[2] for r in g) / sum(r[1] for r in g), min(r[3] for r in g), max(r[4] for r in g),
        )
        for key, g in sorted(groups.items())
    ]  # fmt: skip
    asked = f"district_hourly('pm25', {at(T0 + HOUR + 59 * MINUTE)}, {at(T0 + 5 * HOUR)})"
    columns = 'district, epoch_us(time), points, readings, good, bad_share, mean, "min", "max"'
    same(rows(con, f"SELECT {columns} FROM {asked}"), expected)


def test_availability_counts_against_the_interval_and_names_the_silent(night: Night) -> None:
    con = night.session
    received = {
        p: sum(1 for q, t in night.truth if q == p and T0 <= t < T0 + 4 * HOUR) for p in range(POINTS)
    }
    asked = f"availability({at(T0 + 30 * MINUTE)}, {at(T0 + 4 * HOUR + MINUTE)})"
    found = {r[0]: r[1:] for r in rows(con, f"SELECT point_id, expected, received, share FROM {asked}")}
    for p in range(POINTS):
        expected = None if p == POINTS - 1 else 240.0
        assert found[point_id(p)] == (
            expected,
            received[p],
            None if expected is None else received[p] / expected,
        )
    empty = rows(
        con, "SELECT sum(received), count(*), max(share) FROM availability('2020-01-01', '2020-01-02')"
    )
    assert empty == [(0, POINTS, 0.0)]


def spans_of(night: Night, points: list[int], limit: float, since: int, until: int) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for p in points:
        course = [
            (t, v) for (q, t), (v, flag) in sorted(night.truth.items())
            if q == p and since <= t < until and flag in (1, 2) and not np.isnan(v)
        ]  # fmt: skip
        run: list[tuple[int, float]] = []
        for t, v in [*course, (0, -1.0)]:
            if v >= limit:
                run.append((t, v))
            elif run:
                found.append((point_id(p), run[0][0], run[-1][0], len(run), max(v for _, v in run)))
                run = []
    return sorted(found, key=lambda r: (r[1], r[0]))


@pytest.mark.parametrize("which", ["'waterlogging'", "'waterlogging-09'", "['waterlogging-09', 'pm25']"])
def test_exceedances_are_the_runs_of_readings_at_or_above_a_limit(night: Night, which: str) -> None:
    con = night.session
    points = [
        p
        for p in range(POINTS)
        if kind_of(p) in which.replace("'", "").strip("[]").split(", ") or point_id(p) in which
    ]
    since, until = T0 + 20 * MINUTE + S, T0 + 280 * MINUTE
    asked = f"exceedances({which}, 30, {at(since)}, {at(until)})"
    columns = "point_id, epoch_us(since_time), epoch_us(until_time), readings, peak"
    assert rows(con, f"SELECT {columns} FROM {asked}") == spans_of(night, points, 30, since, until)


@pytest.mark.parametrize(
    ("first", "last"), [(0, 300), (60, 180), (61, 179), (7, 55), (59, 61), (100, 293), (40, 40)]
)
def test_rain_accumulated_is_the_sum_of_good_readings_to_the_minute(
    night: Night, first: int, last: int
) -> None:
    con = night.session
    since, until = T0 + first * MINUTE, T0 + last * MINUTE
    sums: dict[int, float] = {}
    for (p, t), (v, flag) in night.truth.items():
        if kind_of(p) == "rain_gauge" and since <= t < until:
            sums[p] = sums.get(p, 0.0) + (v if flag in (1, 2) and not np.isnan(v) else 0.0)
    asked = f"rain_accumulated({at(since + 59 * S)}, {at(until)})"
    found = dict(rows(con, f"SELECT point_id, mm FROM {asked}"))
    assert found.keys() == {point_id(p) for p in sums}
    for p, mm in sums.items():
        assert close(found[point_id(p)], mm)


def test_rain_since_begins_at_the_citys_last_full_hour(tmp_path: Path) -> None:
    """Readings of 0.1 mm a minute over the last 30 hours: rain since 08:00 is counted from the right 08:00."""
    night = Night(tmp_path, 3)
    now = datetime.now(UTC)
    last = int(now.timestamp()) // 60 * 60
    night.write([(4, (last - 60 * k) * S, 0.1) for k in range(30 * 60)][::-1], [])
    assert kind_of(4) == "rain_gauge"
    con = connect(tmp_path)
    for hour in (0, 8, 23):
        local = now + timedelta(hours=8)
        begin = local.replace(hour=hour, minute=0, second=0, microsecond=0) - timedelta(hours=8)
        begin -= timedelta(days=1) if begin > now else timedelta()
        good = [t for (_, t), (_, flag) in night.truth.items() if flag in (1, 2)]
        expected = 0.1 * sum(1 for t in good if t >= begin.timestamp() * S)
        [(mm,)] = rows(con, f"SELECT mm FROM rain_since({hour})")
        if (datetime.now(UTC) + timedelta(hours=8)).hour == hour != local.hour:
            continue  # it struck while we asked
        assert abs(mm - expected) < 0.15, "at most the minute that turns while the test runs"
    assert rows(
        con,
        "SELECT hydrological_day(TIMESTAMPTZ '2026-07-02 07:59'), hydrological_day(TIMESTAMPTZ '2026-07-02 08:00')",
    ) == [(date(2026, 7, 1), date(2026, 7, 2))]


def test_around_finds_points_by_distance_with_their_last_reading(night: Night) -> None:
    con = night.session
    found = rows(con, "SELECT point_id, km, epoch_us(time) FROM around(104.0, 30.0, 3.5)")
    assert [f[0] for f in found] == [point_id(p) for p in range(4)]
    assert [round(f[1], 2) for f in found] == [0, 1, 2, 3]
    assert [f[2] for f in found] == [max(t for q, t in night.truth if q == p) for p in range(4)]
    course = f"history((SELECT list(point_id) FROM around(104.0, 30.0, 1.5)), {at(T0)}, {at(T0 + HOUR)})"
    assert rows(con, f"SELECT count(*) FROM {course}") == [
        (sum(1 for p, t in night.truth if p < 2 and T0 <= t < T0 + HOUR),)
    ]


def test_late_by_source_adds_up_what_compactions_counted(tmp_path: Path) -> None:
    night = Night(tmp_path, 4)
    night.write([(p, T0 + k * MINUTE, 1.0) for p in (0, 1) for k in range(60)], [])
    night.write(
        [(p, T0 + 3 * HOUR, 1.0) for p in (0, 1)], [(0, T0, 2.0), (0, T0 + 1, 3.0), (1, T0 + MINUTE, 4.0)]
    )
    night.seal()
    con = connect(tmp_path)
    assert rows(con, "FROM late_by_source") == []
    assert night.compact() >= 1
    refresh(con, tmp_path)
    found = rows(con, "SELECT * FROM late_by_source ORDER BY source")
    assert [(r[0], r[2], r[3]) for r in found] == [("source-0", 1, 1), ("source-1", 0, 1)]
    assert all(r[5] == r[3] / r[1] for r in found)
    folded = rows(con, "SELECT hour, source, revised FROM folds WHERE revised > 0 ORDER BY source")
    assert folded == [(T0 // HOUR, "source-0", 1), (T0 // HOUR, "source-1", 1)]


def scanned(con: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int]:
    """(read, of) row groups of the largest scan in the plan."""
    plan = con.execute("EXPLAIN ANALYZE " + query).fetchall()[0][1]
    found = [tuple(map(int, f)) for f in re.findall(r"Row Groups Scanned: (\d+) / (\d+)", plan)]
    read, of = max(found, key=lambda f: f[1])
    return read, of


def test_history_reads_few_row_groups_of_few_files(tmp_path: Path) -> None:
    """Points scattered over a day: only files of the span are opened, of them only row groups with a point."""
    city(tmp_path)
    hot = HotTier(tmp_path)
    write_lake_sql(tmp_path, "Asia/Shanghai", 7200)
    hours, width = 6, 200_000
    for hour in range(hours):
        part = batch(hour, [(p, T0 + hour * HOUR, 1.0) for p in range(POINTS)])
        part = part.take(np.arange(width) * POINTS // width)
        part.time += np.arange(width) % (width // POINTS) * 1000
        hot.write(hour, hour, part, batch(hour, []))
    con = connect(tmp_path)
    groups = -(-width // 32_768)
    ids = repr([point_id(p) for p in (0, 6, 11)])
    for asked, points in ((f"'{point_id(7)}'", 1), (ids, 3)):
        query = f"SELECT avg(value) FROM history({asked}, {at(T0 + HOUR + 1)}, {at(T0 + 3 * HOUR - 1)})"
        read, of = scanned(con, query)
        assert of <= 3 * groups + 3, "the span's hours and the one it borders on"
        assert read <= 2 * points * (groups // POINTS + 2)
