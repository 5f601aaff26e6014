"""Events in plain DuckDB: every view and macro against a plain computation, whatever was sent twice or changed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from storage.logs import ParquetLog
from storage.query import connect, refresh, write_lake_sql
from storage.records import STATES, Event
from storage.schema import EVENTS
from tests.events_city import (
    DAY,
    HOUR,
    T0,
    Case,
    cases_of,
    city_date,
    grouped,
    keep,
    log_of,
    mean,
    middle,
    quantile,
    received,
    steps_of,
)

Row = tuple[Any, ...]
SINCE, UNTIL = T0 + 10 * DAY + 5 * HOUR, T0 + 45 * DAY
SPAN = f"(make_timestamptz({SINCE}), make_timestamptz({UNTIL}))"


def hours(a: int, b: int | None) -> float | None:
    return None if b is None else (b - a) / HOUR


def days(cases: Sequence[Case]) -> list[float]:
    return [(c.over - c.opened) / DAY for c in cases if c.outcome == "closed" and c.over is not None]


def opened_within(sent: Sequence[Event], type_: str) -> list[Case]:
    return [c for c in cases_of(sent, type_) if SINCE <= c.opened < UNTIL]


def granted_within(sent: Sequence[Event], type_: str) -> list[Case]:
    cases = cases_of(sent, type_)
    return [c for c in cases if c.outcome == "closed" and c.over is not None and SINCE <= c.over < UNTIL]


def is_late(case: Case) -> bool:
    due = case.last("due_us")
    return case.over is None and due is not None and due < time.time() * 1e6


def place(case: Case) -> tuple[str, str]:
    return case.last("district") or "", case.last("category") or ""


def appeals_by(sent: Sequence[Event]) -> list[Row]:
    found = []
    for key, cases in grouped(opened_within(sent, "appeal"), place).items():
        closed = [hours(c.opened, c.over) for c in cases if c.outcome == "closed"]
        found.append(
            (*key, len(cases), sum(c.over is None for c in cases), sum(map(is_late, cases)), len(closed),
             mean(c.number("solved") for c in cases), mean(c.number("satisfied") for c in cases),
             mean(hours(c.opened, c.assigned) for c in cases), mean(closed),
             quantile([h for h in closed if h is not None], 0.9),
             sum(c.number("solved") is not None for c in cases), sum(c.number("satisfied") is not None for c in cases))
        )  # fmt: skip
    return found


def violation_rate(sent: Sequence[Event]) -> list[Row]:
    def key(case: Case) -> tuple[str, str]:
        return city_date(case.over or 0, "%Y-%m-01"), case.last("category") or ""

    found = []
    for month, cases in grouped(granted_within(sent, "inspection"), key).items():
        counts = [c.number("violations") or 0.0 for c in cases]
        bad = sum(n > 0 for n in counts)
        found.append((*month, len(cases), bad, sum(counts), bad / len(cases)))
    return found


def violations_by(sent: Sequence[Event]) -> list[Row]:
    def key(case: Case) -> tuple[str, str, str]:
        return city_date(case.opened, "%Y-%m-01"), case.last("category") or "", case.text("violation") or ""

    return [
        (*of, len(cases), len(days(cases)), mean(days(cases)))
        for of, cases in grouped(opened_within(sent, "violation"), key).items()
    ]


def banquets_by(sent: Sequence[Event]) -> list[Row]:
    def key(case: Case) -> tuple[str, str]:
        return city_date(case.opened, "%Y-%m-01"), case.last("district") or ""

    return [
        (*of, len(cases), sum(c.assigned is not None or c.handled is not None for c in cases),
         sum(c.outcome == "closed" for c in cases), sum(c.outcome in ("refused", "cancelled") for c in cases),
         sum(c.number("guests") or 0.0 for c in cases))
        for of, cases in grouped(opened_within(sent, "banquet"), key).items()
    ]  # fmt: skip


def approval_days(sent: Sequence[Event]) -> list[Row]:
    def key(case: Case) -> tuple[str, str]:
        return city_date(case.over or 0, "%Y-%m-01"), case.last("category") or ""

    return [
        (
            *of,
            len(cases),
            mean(days(cases)),
            middle(days(cases)),
            quantile(days(cases), 0.9),
            max(days(cases)),
        )
        for of, cases in grouped(granted_within(sent, "approval"), key).items()
    ]


def findings_by_project(sent: Sequence[Event]) -> list[Row]:
    found = [
        (of, len(cases), sum(c.over is None for c in cases), sum(map(is_late, cases)),
         any(c.over is None for c in cases), mean(days(cases)))
        for of, cases in grouped(cases_of(sent, "finding"), lambda c: c.text("project") or "").items()
    ]  # fmt: skip
    return sorted(found, key=lambda row: (-row[3], -row[2], row[0]))


def video_alarms_by(sent: Sequence[Event]) -> list[Row]:
    found = []
    for key, cases in grouped(opened_within(sent, "video_alarm"), place).items():
        looks = [min(t for t in (c.assigned, c.handled, c.over, 1 << 62) if t is not None) for c in cases]
        known = [t < 1 << 62 for t in looks]
        nothing = sum(c.outcome == "cancelled" for c in cases)
        waits = [(t - c.opened) / HOUR * 60 for t, c, k in zip(looks, cases, known, strict=True) if k]
        share = nothing / sum(known) if any(known) else None
        found.append((*key, len(cases), known.count(False), nothing, share, mean(waits)))
    return found


def service_visits(sent: Sequence[Event]) -> list[Row]:
    def key(case: Case) -> tuple[str, str]:
        return city_date(case.opened, "%Y-%m-%d"), case.text("channel") or ""

    def visits(case: Case) -> float:
        number = case.number("visits")
        return 1.0 if number is None else number

    return [
        (*of, sum(map(visits, cases)), len({c.text("service") for c in cases} - {None}))
        for of, cases in grouped(opened_within(sent, "visit"), key).items()
    ]


def events(sent: Sequence[Event]) -> list[Row]:
    names = ("district", "category", "name", "lon", "lat", "point_id", "due_us")
    return sorted(
        (c.source, c.id, c.type, c.state, STATES[c.state] < 4, c.opened, c.time, *map(c.last, names))
        for c in cases_of(sent)
    )


def event_log(sent: Sequence[Event]) -> list[Row]:
    return sorted((*key, e.category or None, e.received_at) for key, (_, e) in log_of(sent).items())


ANSWERS: dict[str, Callable[[Sequence[Event]], list[Row]]] = {
    f"FROM appeals_by{SPAN}": appeals_by,
    f"SELECT month::VARCHAR, * EXCLUDE (month) FROM violation_rate{SPAN}": violation_rate,
    f"SELECT month::VARCHAR, * EXCLUDE (month) FROM violations_by{SPAN}": violations_by,
    f"SELECT month::VARCHAR, * EXCLUDE (month) FROM banquets_by{SPAN}": banquets_by,
    f"SELECT month::VARCHAR, * EXCLUDE (month) FROM approval_days{SPAN}": approval_days,
    "SELECT * REPLACE (oldest_days > 0 AS oldest_days) FROM findings_by_project()": findings_by_project,
    f"FROM video_alarms_by{SPAN}": video_alarms_by,
    f"SELECT day::VARCHAR, * EXCLUDE (day) FROM service_visits{SPAN}": service_visits,
    "SELECT source, id, type, state, is_open, epoch_us(opened), epoch_us(time), district, category, name, lon, lat, "
    "point_id, epoch_us(due) FROM events ORDER BY source, id": events,
    "SELECT source, id, state, epoch_us(time), category, epoch_us(received_at) FROM event_log "
    "ORDER BY source, id, state, time": event_log,
}


def close(found: Any, expected: Any) -> bool:
    if isinstance(found, bool) or isinstance(expected, bool) or expected is None:
        return bool(found) == bool(expected)
    if isinstance(expected, float | int):
        return found is not None and bool(np.isclose(float(found), expected, rtol=1e-9, atol=1e-9))
    return bool(found == expected)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> tuple[duckdb.DuckDBPyConnection, list[Event]]:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    sent = received(rng, steps_of(rng, 3000))
    root = tmp_path_factory.mktemp("lake")
    write_lake_sql(root, "Asia/Shanghai", 7200)
    keep(root, sent)
    return connect(root), sent


@pytest.mark.parametrize(
    "query", ANSWERS, ids=lambda q: q.split(" FROM ")[-1].removeprefix("FROM ").split("(")[0]
)
def test_a_view_or_macro_says_what_a_plain_computation_says(
    city: tuple[duckdb.DuckDBPyConnection, list[Event]], query: str
) -> None:
    con, sent = city
    found, expected = con.execute(query).fetchall(), ANSWERS[query](sent)
    assert len(expected) > 3
    wrong = [(f, e) for f, e in zip(found, expected, strict=True) if not all(map(close, f, e))]
    assert wrong == []


def test_what_is_overdue_is_open_and_past_its_day(
    city: tuple[duckdb.DuckDBPyConnection, list[Event]],
) -> None:
    con, sent = city
    late = con.execute("SELECT source, id FROM events WHERE overdue ORDER BY ALL").fetchall()
    now = time.time() * 1e6
    expected = [c for c in cases_of(sent) if STATES[c.state] < 4 and (c.last("due_us") or 1 << 62) < now]
    assert 0 < len(expected) < len(cases_of(sent))
    assert late == sorted((c.source, c.id) for c in expected)


def test_attributes_of_an_event_are_those_of_its_last_step_whatever_they_hold(tmp_path: Path) -> None:
    write_lake_sql(tmp_path, "UTC", 7200)
    text = '积水 "深" \\ \n \u0000 %s'
    steps = [
        Event("7", "s", "appeal", "accepted", T0, attributes={"text": "no", "km": 1.5}),
        Event("7", "s", "appeal", "assigned", T0, attributes={"text": text, "km": 2.5, "none": None}),
    ]
    keep(tmp_path, steps, files=1)
    query = "SELECT json_extract_string(attributes, '$.text'), yuzui_number(attributes, '$.km') FROM events"
    assert connect(tmp_path).execute(query).fetchall() == [(text, 2.5)]


def test_an_older_data_folder_without_events_opens(tmp_path: Path) -> None:
    write_lake_sql(tmp_path, "UTC", 7200)
    (tmp_path / "lake" / "events").rmdir()
    con = connect(tmp_path)
    assert con.execute("SELECT count(*) FROM events").fetchall() == [(0,)]
    keep(tmp_path, [Event("1", "s", "visit", "closed", T0)], files=1)
    refresh(con, tmp_path)
    assert con.execute("SELECT id, is_open FROM events").fetchall() == [("1", False)]


def test_a_million_steps_are_answered_within_a_second_of_cpu(tmp_path: Path) -> None:
    """Not by the clock of a busy machine: the CPU of both cores, best of three."""
    write_lake_sql(tmp_path, "Asia/Shanghai", 7200)
    n, numbers = 1_000_000, np.arange(1_000_000)
    at = T0 + numbers // 4 * 60_000_000 + numbers % 4 * HOUR
    number = pa.array(numbers // 4).cast(pa.string())
    columns: dict[str, Any] = {
        "pos": numbers, "id": number, "source": pa.repeat("hotline", n), "type": pa.repeat("appeal", n),
        "state": pa.array(list(STATES)).take(pa.array(numbers % 4)), "time": at, "received_at": at, "due": at + DAY,
        "district": pa.array(numbers // 4 % 23).cast(pa.string()), "name": number, "lon": numbers / n,
        "category": pa.array(numbers // 4 % 17).cast(pa.string()), "lat": numbers / n,
        "point_id": pa.nulls(n), "attributes": pa.repeat('{"satisfied":1.0,"text":"积水很深"}', n),
    }  # fmt: skip
    columns = {name: c if isinstance(c, pa.Array) else pa.array(c) for name, c in columns.items()}
    table = pa.table({f.name: columns[f.name].cast(f.type) for f in EVENTS}, schema=EVENTS)
    log = ParquetLog(tmp_path / "lake" / "events", EVENTS)
    for k, begin in zip(count(1), range(0, n, n // 8), strict=False):
        log.append(k, k, table.slice(begin, n // 8))
    con = connect(tmp_path)
    con.execute("SET threads = 2")
    for query in (
        "SELECT state, count(*) FROM events GROUP BY 1",
        "SELECT max(name), max(attributes), count(*) FROM events WHERE district = '7'",
        "SELECT count(*), max(received_at) FROM event_log",
        "FROM appeals_by('2026-01-01', '2027-12-31')",
    ):
        spent = []
        for _ in range(3):
            began = time.process_time()
            assert con.execute(query).fetchall()
            spent.append(time.process_time() - began)
        print(query, [f"{s:.2f}" for s in spent])
        assert min(spent) < 2.0, query
