"""lake.sql in plain DuckDB: each reading once, at one instant, whatever the engine does meanwhile."""

from __future__ import annotations

import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Transaction
from deltalake.transaction import AddAction, CommitProperties

from storage import deltatable
from storage.flags import CHECK_BITS, FLAG_NAMES
from storage.hot import HotTier, list_hot
from storage.logs import ParquetLog
from storage.pointmap import merge
from storage.query import HOUR_0, REFRESH, connect, refresh, write_lake_sql
from storage.schema import ALERTS, QUARANTINE
from storage.sealed import Sealer, table_dir
from storage.settings import SealedSettings
from tests.storage_rows import HOUR, T0, Row, S, batch, map_points, registry

SETTINGS = SealedSettings()
POINTS = 20
VIEWS = (
    "readings",
    "readings_good",
    "latest",
    "points",
    "alerts",
    "quarantine",
    "forecasts",
    "alert_log",
    "folds",
    "events",
    "event_log",
    "appeals_by('2026-01-01', '2026-01-02')",
    "findings_by_project()",
    "projects",
    "sites_by_project()",
    "answers('2026-01-01', '2026-01-02')",
    "online_rate('video', '2026-01-01', '2026-01-02')",
    "service_visits('2026-01-01', '2026-01-02')",
    "late_by_source",
    "rollup_1m",
    "rollup_1h",
    "values_at('2026-01-02')",
    "district_hourly('river_level', '2026-01-01', '2026-01-02')",
    "exceedances('river_level', 1, '2026-01-01', '2026-01-02')",
    "rain_accumulated('2026-01-01', '2026-01-02')",
    "rain_since(8)",
    "history('p-00001', '2026-01-01', now())",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    map_points(tmp_path, POINTS)
    HotTier(tmp_path)
    write_lake_sql(tmp_path, "Asia/Shanghai", 7200)
    return tmp_path


def stored(con: duckdb.DuckDBPyConnection, view: str = "readings") -> list[Row]:
    query = f"SELECT point, epoch_us(time), value FROM {view} ORDER BY ALL"
    return [(int(p), int(t), float(v)) for p, t, v in con.execute(query).fetchall()]


def count(con: duckdb.DuckDBPyConnection, view: str = "readings") -> int:
    return int(con.execute(f"SELECT count(*) FROM {view}").fetchall()[0][0])


def test_every_view_answers_over_an_empty_lake(root: Path) -> None:
    con = connect(root)
    assert {view: count(con, view) for view in VIEWS} == dict.fromkeys(VIEWS, 0) | {"points": POINTS}
    assert count(con, "availability('2026-01-01', '2026-01-02')") == POINTS
    assert count(con, "around(0, 0, 30000)") == POINTS
    assert count(con, "health_by_source('2026-01-01', '2026-01-02')") == 1


def test_without_a_point_map_the_views_still_answer(tmp_path: Path) -> None:
    write_lake_sql(tmp_path, "UTC", 7200)
    con = connect(tmp_path)
    assert count(con) == count(con, "points") == count(con, "latest") == 0


def test_it_works_in_a_session_that_may_load_no_extension(root: Path) -> None:
    con = duckdb.connect(config={"autoload_known_extensions": False, "autoinstall_known_extensions": False})
    con.execute((root / "lake.sql").read_text())
    assert count(con) == 0


def test_columns_are_those_promised_and_values_arrive_unchanged(root: Path) -> None:
    rows = batch(0, [(1, T0, 1.25), (2, T0, float("nan"))])
    rows.flag[:] = [4, 9]
    rows.checks[:] = [2, 0]
    rows.score[:] = [1.0, 0.1]
    HotTier(root).write(0, 0, rows, batch(0, []))
    con = connect(root)
    result = con.execute("SELECT * FROM readings ORDER BY point")
    assert [c[0] for c in result.description][:12] == [
        "point_id", "name", "kind", "unit", "district", "source",
        "time", "received_at", "value", "flag", "checks", "score",
    ]  # fmt: skip
    first, second = result.fetchall()
    at = datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert first[:6] == ("p-00001", "name-1", "river_level", "m", "Jinniu", "water")
    assert (first[6], first[7].timestamp() - at.timestamp(), *first[8:12]) == (at, 0.5, 1.25, 4, 2, 1.0)
    assert second[8:12] == (None, 9, 0, None)


def test_a_day_in_a_session_is_the_citys_day(root: Path) -> None:
    HotTier(root).write(0, 0, batch(0, [(1, T0 + 12 * HOUR, 1.0)]), batch(0, []))
    con = connect(root)
    assert con.execute("SELECT strftime(time, '%Y-%m-%d %H') FROM readings").fetchall() == [
        ("2026-01-02 01",)
    ]


def test_readings_good_holds_flag_good_only(root: Path) -> None:
    rows = batch(0, [(p, T0, 1.0) for p in range(5)])
    rows.flag[:] = [1, 2, 3, 4, 9]
    HotTier(root).write(0, 0, rows, batch(0, []))
    assert stored(connect(root), "readings_good") == [(0, T0, 1.0)]


@pytest.mark.parametrize("seal_upto", [None, 0, 1, 2], ids=["hot only", "main sealed", "late sealed", "all"])
def test_a_late_revision_replaces_the_value_wherever_the_two_stand(root: Path, seal_upto: int | None) -> None:
    hot = HotTier(root)
    hot.write(0, 0, batch(0, [(1, T0, 1.0), (2, T0, 5.0)]), batch(0, []))
    hot.write(1, 1, batch(1, [(1, T0 + S, 2.0)]), batch(1, [(1, T0, 1.5), (1, T0 - S, 0.5)]))
    hot.write(2, 2, batch(2, [(1, T0 + 2 * S, 3.0)]), batch(2, [(1, T0, 1.75)]))
    if seal_upto is not None:
        Sealer(root, SETTINGS).seal(seal_upto)
    con = connect(root)
    expected = [(1, T0 - S, 0.5), (1, T0, 1.75), (1, T0 + S, 2.0), (1, T0 + 2 * S, 3.0), (2, T0, 5.0)]
    assert stored(con) == expected
    assert stored(con, "latest") == [(1, T0 + 2 * S, 3.0), (2, T0, 5.0)]
    history = "SELECT epoch_us(time), value FROM history('p-00001', '2025-12-31', '2026-01-02')"
    assert con.execute(history).fetchall() == [(t, v) for p, t, v in expected if p == 1]


def test_a_snapshot_taken_before_a_seal_answers_the_same_after_it(root: Path) -> None:
    hot = HotTier(root)
    for k in range(4):
        hot.write(k, k, batch(k, [(p, T0 + k * S, 1.0) for p in range(POINTS)]), batch(k, []))
    sealer, con = Sealer(root, SETTINGS), connect(root)
    for upto in (1, 3):
        before = stored(con)
        sealer.seal(upto)
        assert stored(con) == before
        refresh(con, root)
        assert stored(con) == before


def test_readers_see_each_reading_once_while_the_engine_writes_and_seals(root: Path) -> None:
    """Each range adds POINTS rows; a reader sees some number of whole ranges, never fewer than before."""
    hot, sealer, done = HotTier(root), Sealer(root, SETTINGS), threading.Event()

    def engine() -> None:
        try:
            for k in range(40):
                late = batch(k, [(3, T0 + (k - 1) * S, -1.0)] if k else [], first_row=POINTS)
                hot.write(k, k, batch(k, [(p, T0 + k * S, 1.0) for p in range(POINTS)]), late)
                if k % 5 == 4:
                    sealer.seal(k - 1)
        finally:
            done.set()

    con, seen, looks = connect(root), 0, 0
    writer = threading.Thread(target=engine)
    writer.start()
    while True:
        last = done.is_set()
        con.execute(REFRESH)
        total, keys, revised = con.execute(
            "SELECT count(*), count(DISTINCT (point, time)), count(*) FILTER (value < 0) FROM readings"
        ).fetchall()[0]
        assert total == keys
        assert total % POINTS == 0
        assert total >= seen
        assert revised >= total // POINTS - 1
        seen, looks = total, looks + 1
        if last:
            break
    writer.join()
    assert seen == 40 * POINTS
    assert looks > 3


@pytest.mark.parametrize("seed", range(5))
def test_anti_join_of_touched_hours_equals_deduping_everything(root: Path, seed: int) -> None:
    """Random main and late rows over a day, sealed in part: the view equals the plainest definition."""
    rng = np.random.default_rng(seed)
    print("seed", seed)
    hot = HotTier(root)
    last = np.full(POINTS, T0 - HOUR)
    everything: dict[tuple[int, int], float] = {}
    for k in range(12):
        mains: list[Row] = []
        lates: list[Row] = []
        for p in range(POINTS):
            last[p] += int(rng.integers(1, 3 * HOUR // S)) * S
            mains.append((p, int(last[p]), float(k)))
        for _ in range(int(rng.integers(0, 4))):
            p = int(rng.integers(POINTS))
            known = [t for q, t in everything if q == p]
            again = known and rng.random() < 0.7
            t = int(rng.choice(known) if again else last[p] - rng.integers(0, 5) * HOUR)
            lates.append((p, t, 1000.0 + len(lates) + 10 * k))
        hot.write(k, k, batch(k, mains), batch(k, lates, first_row=POINTS))
        everything |= {(p, t): v for p, t, v in mains} | {(p, t): v for p, t, v in lates}
        if rng.random() < 0.3:
            Sealer(root, SETTINGS).seal(int(rng.integers(0, k + 1)))
    con = connect(root)
    assert stored(con) == sorted((p, t, v) for (p, t), v in everything.items())
    begin = int(T0 + rng.integers(0, 12) * HOUR)
    end = begin + 5 * HOUR
    span = f"make_timestamptz({begin}), make_timestamptz({end})"
    got = con.execute(f"SELECT epoch_us(time), value FROM history('p-00003', {span})").fetchall()
    assert got == sorted((t, v) for (p, t), v in everything.items() if p == 3 and begin <= t < end)
    newest = {p: max((t, v) for (q, t), v in everything.items() if q == p) for p in range(POINTS)}
    assert stored(con, "latest") == [(p, *newest[p]) for p in range(POINTS)]


def test_hours_without_late_files_are_not_joined(root: Path) -> None:
    hot = HotTier(root)
    for k in range(3):
        hot.write(k, k, batch(k, [(1, T0 + k * HOUR, 1.0)]), batch(k, [(1, T0, 2.0)] if k == 2 else []))
    Sealer(root, SETTINGS).seal(1)
    lists = (
        connect(root)
        .execute("SELECT yuzui_list(s.plain), yuzui_list(s.touched) FROM (SELECT getvariable('yuzui') s)")
        .fetchall()[0]
    )
    hours = [sorted(int(f[:10]) - HOUR_0 - T0 // HOUR for f in files if "empty" not in f) for files in lists]
    assert hours == [[1, 2], [0]]


def test_what_a_crash_left_behind_is_invisible(root: Path) -> None:
    hot = HotTier(root)
    hot.write(0, 0, batch(0, [(1, T0, 1.0)]), batch(0, []))
    Sealer(root, SETTINGS).seal(0)
    sealed_file = next(table_dir(root, late=False).glob("date=*/*/*.parquet"))
    sealed_file.with_name(f"{1:020d}-{2:020d}-0.parquet").write_bytes(sealed_file.read_bytes())
    (root / "lake/hot/tmp/main-half.parquet").write_bytes(b"half")
    (root / "lake/hot/main/notes.parquet").write_bytes(b"not ours")
    (root / "lake/latest/00000000000000000009.tmp").write_bytes(b"half")
    con = connect(root)
    assert stored(con) == stored(con, "latest") == [(1, T0, 1.0)]


def test_a_crash_between_the_two_commits_shows_nothing_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HotTier(root).write(0, 0, batch(0, [(1, T0, 1.0)]), batch(0, [(1, T0, 2.0), (1, T0 - S, 3.0)]))
    sealer = Sealer(root, SETTINGS)
    real = Sealer._commit

    def only_late(self: Sealer, late: bool, seq: int, actions: list[AddAction]) -> None:
        if not late:
            raise OSError("killed")
        real(self, late, seq, actions)

    monkeypatch.setattr(Sealer, "_commit", only_late)
    with pytest.raises(OSError, match="killed"):
        sealer.seal(0)
    assert stored(connect(root)) == [(1, T0 - S, 3.0), (1, T0, 2.0)]


def test_the_same_late_rows_sealed_and_hot_again_after_a_replay_count_once(root: Path) -> None:
    hot = HotTier(root)
    hot.write(0, 1, batch(0, [(1, T0, 1.0)]), batch(0, [(1, T0 - S, 3.0)]))
    Sealer(root, SETTINGS).seal(1)
    hot.write(2, 3, batch(2, [(1, T0 + S, 1.0)]), batch(0, [(1, T0 - S, 3.0)]))
    assert stored(connect(root)) == [(1, T0 - S, 3.0), (1, T0, 1.0), (1, T0 + S, 1.0)]


def test_a_range_that_is_not_listed_is_not_shown(root: Path) -> None:
    """A kill between the files of a range and the list of hot files: nothing of the range is seen."""
    hot = HotTier(root)
    hot.write(0, 0, batch(0, [(1, T0, 1.0)]), batch(0, [(1, T0 - S, 0.0)]))
    before = (root / "lake/hot/list.json").read_bytes()
    hot.write(1, 1, batch(1, [(1, T0 + S, 1.0)]), batch(1, [(1, T0, 9.0)]))
    (root / "lake/hot/list.json").write_bytes(before)
    con = connect(root)
    assert stored(con) == [(1, T0 - S, 0.0), (1, T0, 1.0)]
    assert stored(con, "latest") == [(1, T0, 1.0)]
    assert HotTier(root).recover(-1, -1) == 1, "a restart lists it"
    assert len(stored(connect(root))) == 3


def test_a_damaged_list_of_hot_files_is_an_error_and_not_fewer_rows(root: Path) -> None:
    HotTier(root).write(0, 0, batch(0, [(1, T0, 1.0)]), batch(0, []))
    con = connect(root)
    for damage in (b"", b"{}", b'{"main": ["'):
        (root / "lake/hot/list.json").write_bytes(damage)
        with pytest.raises(duckdb.Error, match=r"list of hot files|JSON"):
            con.execute(REFRESH)


def test_a_list_newer_than_the_log_is_an_error_and_not_fewer_rows(root: Path) -> None:
    """A reader held up between the log and the list for longer than sealed files stay listed looks again."""
    hot, sealer = HotTier(root), Sealer(root, SETTINGS)
    con = connect(root)
    hot.write(0, 0, batch(0, [(1, T0, 1.0)]), batch(0, []))
    hot_list = root / "lake/hot/list.json"
    said = hot_list.read_text()
    assert '"sealed_main": -1' in said
    hot_list.write_text(said.replace('"sealed_main": -1', '"sealed_main": 0'))
    with pytest.raises(duckdb.Error, match="refresh again"):
        con.execute(REFRESH)
    sealer.seal(0)
    con.execute(REFRESH)
    assert count(con) == 1


def test_a_session_older_than_the_grace_is_told_to_refresh_and_then_works(root: Path) -> None:
    HotTier(root).write(0, 0, batch(0, [(1, T0, 1.0)]), batch(0, []))
    con = connect(root)
    older = "struct_update(getvariable('yuzui'), taken_at := now() - INTERVAL 7201 SECONDS)"
    con.execute(f"SET VARIABLE yuzui = (SELECT {older})")
    for view in VIEWS:
        with pytest.raises(duckdb.Error, match=r"older than 7200 s.*SET VARIABLE yuzui"):
            con.execute(f"SELECT count(*) FROM {view}")
    con.execute(REFRESH)
    assert count(con) == 1


def test_a_session_without_a_snapshot_says_what_to_run(root: Path) -> None:
    cursor = connect(root).cursor()
    with pytest.raises(duckdb.Error, match=r"no snapshot.*SET VARIABLE yuzui"):
        cursor.execute("SELECT count(*) FROM readings")
    refresh(cursor, root)
    assert count(cursor) == 0


def test_refresh_defines_the_views_in_a_session_that_has_none(root: Path) -> None:
    con = duckdb.connect()
    refresh(con, root)
    assert count(con) == 0


def test_a_query_never_reads_half_a_log(root: Path) -> None:
    """With an entry missing between checkpoint and newest the answer is an error, not fewer rows."""
    hot, sealer = HotTier(root), Sealer(root, SETTINGS)
    for k in range(3):
        hot.write(k, k, batch(k, [(1, T0 + k * S, 1.0)]), batch(k, []))
        sealer.seal(k)
    con = connect(root)
    (table_dir(root, late=False) / "_delta_log" / f"{2:020d}.json").unlink()
    with pytest.raises(duckdb.Error, match="log changed"):
        con.execute(REFRESH)


def test_checkpoints_removes_and_other_writers_are_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction replaces files under a transaction of its own; the view follows adds and removes."""
    monkeypatch.setattr(deltatable, "CHECKPOINT_EVERY", 3)
    hot, sealer = HotTier(root), Sealer(root, SETTINGS)
    for k in range(7):
        hot.write(k, k, batch(k, [(p, T0 + k * S, 1.0) for p in range(3)]), batch(k, []))
        sealer.seal(k)
    folder = table_dir(root, late=False)
    table = DeltaTable(str(folder))
    whole = pl.scan_delta(str(folder)).drop("date", "hour").sort("point", "time").collect()
    path = folder / "date=2026-01-01" / "hour=05" / f"{0:020d}-{6:020d}-9.parquet"
    whole.write_parquet(path)
    action = AddAction(
        path=path.relative_to(folder).as_posix(), size=path.stat().st_size,
        partition_values={"date": "2026-01-01", "hour": "5"},
        modification_time=0, data_change=False, stats="{}",
    )  # fmt: skip
    table.create_write_transaction(
        [action], "overwrite", table.schema(), ["date", "hour"],
        partition_filters=[("date", "=", "2026-01-01"), ("hour", "=", "5")],
        commit_properties=CommitProperties(app_transactions=[Transaction("compact", 1)]),
    )  # fmt: skip
    con = connect(root)
    assert count(con) == 21
    files = con.execute(
        "SELECT len(yuzui_files(getvariable('yuzui').plain)) + len(yuzui_files(getvariable('yuzui').touched))"
    ).fetchall()
    assert files == [(3,)], "one compacted file and the two that are always there"
    hot.write(7, 7, batch(7, [(1, T0 + 9 * S, 1.0)]), batch(7, []))
    sealer.seal(7)
    refresh(con, root)
    assert count(con) == 22


def test_polars_counts_what_duckdb_counts(root: Path) -> None:
    hot = HotTier(root)
    for k in range(3):
        hot.write(k, k, batch(k, [(p, T0 + k * HOUR, float(p)) for p in range(POINTS)]), batch(k, []))
    Sealer(root, SETTINGS).seal(2)
    frame = pl.scan_delta(str(table_dir(root, late=False)))
    con = connect(root)
    assert frame.select(pl.len()).collect().item() == count(con) == 3 * POINTS
    assert frame.filter(pl.col("hour") == 6).select(pl.col("value").sum()).collect().item() == 190.0


def test_a_replaced_sensor_keeps_its_old_readings_under_its_old_row(root: Path) -> None:
    hot = HotTier(root)
    hot.write(0, 0, batch(0, [(1, T0, 1.0), (1, T0 + HOUR, 2.0)]), batch(0, []))
    table = registry(POINTS)
    names, devices = table["name"].to_pylist(), table["device_id"].to_pylist()
    names[1], devices[1] = "new name", "new device"
    for column, values in (("name", names), ("device_id", devices)):
        table = table.set_column(table.column_names.index(column), column, pa.array(values))
    merge(root, table, T0 + HOUR)
    con = connect(root)
    assert con.execute("SELECT name FROM readings ORDER BY time").fetchall() == [("name-1",), ("new name",)]
    assert count(con, "points") == POINTS
    assert count(con, "latest") == 1


def test_alerts_show_the_last_revision_and_the_highest_severity(root: Path) -> None:
    def revision(alert: str, number: int, kind: str, severity: int, minute: int) -> dict[str, object]:
        at = datetime(2026, 1, 1, 5, minute, tzinfo=UTC)
        row: dict[str, object] = {f.name: None for f in ALERTS}
        return row | {
            "id": alert, "revision": number, "type": kind, "rule": "level", "class": "event",
            "severity": severity, "onset": datetime(2026, 1, 1, 5, tzinfo=UTC),
            "at": at, "recorded_at": at, "replay": False, "drill": False,
        }  # fmt: skip

    log = ParquetLog(root / "lake" / "alerts", ALERTS)
    updated = revision("a", 2, "updated", 4, 2)
    first = [revision("a", 1, "firing", 2, 0), revision("b", 1, "firing", 1, 1)]
    log.append(1, 1, pa.Table.from_pylist(first, ALERTS))
    log.append(2, 2, pa.Table.from_pylist([updated], ALERTS))
    log.append(3, 3, pa.Table.from_pylist([revision("a", 3, "resolved", 2, 9), updated], ALERTS))
    query = "SELECT id, state, severity, revisions, epoch(ended_at - onset) FROM alerts ORDER BY id"
    assert connect(root).execute(query).fetchall() == [
        ("a", "resolved", 4, 3, 540.0),
        ("b", "firing", 1, 1, None),
    ]


def test_quarantine_shows_each_refusal_once_with_its_raw_bytes(root: Path) -> None:
    row: dict[str, object] = {f.name: None for f in QUARANTINE}
    row |= {"id": 5, "received_at": datetime(2026, 1, 1, tzinfo=UTC), "reason": "bad_json", "raw": b"\x00{"}
    log = ParquetLog(root / "lake" / "quarantine", QUARANTINE)
    log.append(1, 2, pa.Table.from_pylist([row], QUARANTINE))
    log.append(2, 3, pa.Table.from_pylist([row], QUARANTINE))
    query = "SELECT id, reason, raw FROM quarantine"
    assert connect(root).execute(query).fetchall() == [(5, "bad_json", b"\x00{")]
    log.merge(files_min=2)
    assert count(connect(root), "quarantine") == 1


def test_macros_name_every_flag_and_every_check(root: Path) -> None:
    con = connect(root)
    for flag, name in FLAG_NAMES.items():
        assert con.execute("SELECT flag_name(?)", [flag]).fetchall() == [(name,)]
    for name, bit in CHECK_BITS.items():
        assert con.execute("SELECT check_names(?)", [1 << bit]).fetchall() == [([name],)]
    assert con.execute("SELECT check_names(0), len(check_names(-1))").fetchall() == [([], len(CHECK_BITS))]


def test_a_filter_on_a_point_reads_few_row_groups(root: Path) -> None:
    """point_id is filtered in the small table of points; its number reaches the scan of readings."""
    rows = batch(0, [(p, T0, 1.0) for p in range(POINTS)]).take(np.arange(400_000) // 20_000)
    rows.time += (np.arange(400_000) % 20_000) * 1000
    HotTier(root).write(0, 0, rows, batch(0, []))
    con = connect(root)
    query = "EXPLAIN ANALYZE SELECT avg(value) FROM readings WHERE point_id = 'p-00007'"
    plan = con.execute(query).fetchall()[0][1]
    scanned = [tuple(map(int, found)) for found in re.findall(r"Row Groups Scanned: (\d+) / (\d+)", plan)]
    read, of = max(scanned, key=lambda s: s[1])
    assert of >= 400_000 // 32_768
    assert read <= 2


@pytest.mark.parametrize("name", ["it's a lake", "rain [1]*?", "雨 data"])
def test_folders_with_odd_names_work(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    map_points(root, 2)
    hot = HotTier(root)
    hot.write(0, 0, batch(0, [(1, T0, 1.0)]), batch(0, [(0, T0, 1.0)]))
    write_lake_sql(root, "UTC", 7200)
    assert count(connect(root)) == 2
    Sealer(root, SETTINGS).seal(0)
    hot.write(1, 1, batch(1, [(1, T0 + S, 1.0)]), batch(1, []))
    assert count(connect(root)) == 3


def test_files_dropped_after_the_grace_are_missed_by_no_fresh_session(root: Path) -> None:
    hot, sealer = HotTier(root), Sealer(root, SETTINGS)
    for k in range(3):
        hot.write(k, k, batch(k, [(1, T0 + k * S, 1.0)]), batch(k, [(2, T0 + k * S, 1.0)]))
    sealer.seal(1)
    hot.drop(*sealer.watermarks(), grace_s=0, now=0)
    assert hot.drop(*sealer.watermarks(), grace_s=0, now=1000) == 4
    assert [f.first for f in list_hot(root, late=False)] == [2]
    con = connect(root)
    assert count(con) == 6
    assert count(con, "latest") == 2


def test_the_generated_file_is_replaced_whole(root: Path) -> None:
    inode = os.stat(root / "lake.sql").st_ino
    write_lake_sql(root, "UTC", 60)
    assert os.stat(root / "lake.sql").st_ino != inode
    assert "{{" not in (root / "lake.sql").read_text()
    assert not list(root.glob("*.tmp"))
