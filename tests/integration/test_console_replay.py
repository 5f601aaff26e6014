"""Replay: a day out of the lake is what DuckDB counts at the same moment, whatever a day can be like."""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pytest

from console import pastasked
from console.display import Display
from console.frames import head_of, planes_of
from console.pastday import DAY_BYTES_MAX, states_of
from console.server import Console
from console.shown import FAULT, OFFLINE, SEVERITY, TAKEN
from storage.query import connect
from tests.console_city import ZONE, MadeUp, made_up
from tests.console_client import Page, page
from tests.console_past import HOSTILE, Past, us
from tests.integration.test_console_server import answer_schema, valid

POINTS = 600
SEED = 20260702
CITY = ZoneInfo(ZONE)
TODAY = DAY = datetime.fromtimestamp(0, CITY)
"""Of when the tests of this page begin, not of when all were collected: a midnight may lie between. DAY is the one
that most is looked at on; the day before it and the day after have something too."""


@pytest.fixture(scope="module", autouse=True)
def _calendar() -> None:
    global TODAY, DAY
    TODAY = datetime.fromtimestamp(time.time(), CITY).replace(hour=0, minute=0, second=0, microsecond=0)
    DAY = TODAY - timedelta(days=3)


Served = tuple[Console, MadeUp, Past]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A console whose lake holds three days of storm, and a quiet day without anything before them."""
    console, city = made_up(tmp_path, POINTS)
    past = Past(console.root, city.engine.points)
    print("seed", SEED)
    dice = random.Random(SEED)
    for day in (-1, 0, 1):
        begin = us(DAY + timedelta(days=day))
        past.storm(dice, begin, begin + 86_400_000_000, 150)
    city.tick(now_us=time.time_ns() // 1000)
    past.write(files=7)
    async with console:
        yield console, city, past


async def day_of(ours: Page, date: str) -> tuple[dict[str, Any], bytes]:
    status, body, answer = await ours.ask("GET", f"/api/replay/{date}")
    assert status == 200, body
    assert int(answer.headers["Content-Length"]) <= DAY_BYTES_MAX
    return states_of(body, 0)[0], body


def asked(root: Path, at: float) -> Counter[tuple[str, int]]:
    with connect(root) as con:
        return counted_by(con, at)


def counted_by(con: duckdb.DuckDBPyConnection, at: float) -> Counter[tuple[str, int]]:
    rows = con.execute(f"FROM map_counts_at(make_timestamptz({round(at * 1e6)}))").fetchall()
    return Counter({(district, severity): n for district, severity, n in rows})


def shown(state: np.ndarray, display: Display) -> Counter[tuple[str, int]]:
    names = [display.districts[d] for d in display.district.tolist()]
    return Counter(zip(names, (state & SEVERITY).tolist(), strict=True))


async def test_ten_moments_of_a_day_are_what_a_query_counts_while_the_log_is_merged(served: Served) -> None:
    console, _, past = served
    display = console.display
    assert display is not None
    dice = random.Random(SEED)
    async with page(console.address) as ours:
        listed = await ours.get("/api/replay")
        valid(answer_schema("/api/replay", "get", 200), listed)
        date = DAY.date().isoformat()
        assert date in {day["date"] for day in listed["days"]}
        about, body = await day_of(ours, date)
        assert (about["begin"], about["steps"], about["step_s"], about["grows"]) == (
            DAY.timestamp(),
            1440,
            60,
            False,
        )
        minutes = [0, 1, 1439, *(dice.randrange(1440) for _ in range(10))]
        merging = asyncio.create_task(asyncio.to_thread(past.alerts.merge, 2))
        kinds = set()
        analyst = connect(console.root)  # of before the merge, and good for all ten minutes of its grace
        for minute in minutes:
            at = DAY.timestamp() + 60 * minute
            want = await asyncio.to_thread(counted_by, analyst, at)
            assert shown(states_of(body, minute)[1], display) == want, minute
            kinds |= {severity for _, severity in want}
            counted = await ours.get(f"/api/replay/{date}/counts?minute={minute}")
            valid(answer_schema("/api/replay/{date}/counts", "get", 200), counted)
            found = {(d["id"], s): n for d in counted["districts"] for s, n in enumerate(d["severity"]) if n}
            assert found == dict(want)
            assert counted["time"] == at
        assert await merging is not None, "the log was merged while it was read"
        assert kinds == {0, 1, 2, 3, 4}
        standing = [[about["standing"][c][m] for c in ("blue", "yellow", "orange", "red")] for m in minutes]
        for minute, told in zip(minutes, standing, strict=True):
            state = states_of(body, minute)[1]
            assert told == np.bincount(state & SEVERITY, minlength=5)[1:].tolist()
        again, _ = await day_of(ours, date)
        assert again == about
        assert sum(map(sum, about["histogram"].values())) > 150
        assert all(g["says"][0]["en"] == HOSTILE for g in about["alerts"]), "names are data"
        etag = (await ours.ask("GET", f"/api/replay/{date}"))[2].headers["ETag"]
        assert (await ours.ask("GET", f"/api/replay/{date}", **{"If-None-Match": etag}))[0] == 304
        status, frame, _ = await ours.ask("GET", f"/api/replay/{date}/levels?minute=700")
        head, (_, state) = head_of(frame), planes_of(frame)
        assert (status, head.n, head.time_us) == (200, POINTS, us(DAY + timedelta(minutes=700)))
        np.testing.assert_array_equal(state, states_of(body, 700)[1])


async def test_days_that_are_wrong_not_begun_or_empty_say_so(served: Served) -> None:
    console, _, _ = served
    empty = (DAY - timedelta(days=400)).date().isoformat()
    future = (TODAY + timedelta(days=2)).date().isoformat()
    wrong = {
        empty: 404, future: 404, "2026-02-30": 400, "20260701": 400, "2026-7-1": 400, "x": 400, "%2e%2e": 404,
        "9999-12-31": 400, "0001-01-01": 404, "'; DROP": 400, "２０２６-07-01": 400,
    }  # fmt: skip
    async with page(console.address) as ours:
        for date, status in wrong.items():
            found = await ours.ask("GET", f"/api/replay/{date}")
            assert found[0] == status, (date, found[1])
            assert found[1]["error"], date
        date = DAY.date().isoformat()
        for minute in ("", "-1", "1440", "1e3", "٣", "9" * 400, "0x10"):
            for route in ("counts", "levels"):
                status, found, _ = await ours.ask("GET", f"/api/replay/{date}/{route}?minute={minute}")
                assert (status, found["error"]) == (400, "minute is 0 to 1439"), minute
        assert (await ours.ask("GET", f"/api/replay/{date}/counts"))[0] == 400


async def test_a_day_that_grows_a_midnight_and_another_registry(served: Served) -> None:
    """What stands at midnight is in both days; today ends now and is asked anew; the registry may change between."""
    console, city, past = served
    before = us(DAY)
    # One alert from before midnight until after it, one in the last minute of the day, one at midnight to the µs.
    past.alert("over", 1, before + 23 * 3600 * 1_000_000, 1, 4)
    past.alert("over", 1, before + 25 * 3600 * 1_000_000, 2, 0)
    past.alert("late", 2, before + 86_399_500_000, 1, 3)
    past.alert("sharp", 3, before + 86_400_000_000, 1, 2)
    soon = us(TODAY) + 30_000_000
    past.alert("today", 4, soon, 1, 4)
    past.write()
    async with page(console.address) as ours:
        display = console.display
        assert display is not None
        days = {}
        for name, day in (("first", DAY), ("next", DAY + timedelta(days=1))):
            days[name] = await day_of(ours, day.date().isoformat())
        index = {n: display.find(city.engine.points.point_id[n]) for n in (1, 2, 3)}
        worst = {
            n: int(states_of(days["first"][1], 1439)[1][i] & SEVERITY)
            for n, i in index.items()
            if i is not None
        }
        after = {
            n: int(states_of(days["next"][1], 0)[1][i] & SEVERITY) for n, i in index.items() if i is not None
        }
        for minute, body in ((1439, days["first"][1]), (0, days["next"][1])):
            day = DAY if minute else DAY + timedelta(days=1)
            want = asked(console.root, day.timestamp() + minute * 60)
            assert shown(states_of(body, minute)[1], display) == want
        assert worst[1] == 4
        assert after[1] == 4
        assert after[2] >= 3
        assert after[3] >= 2
        if 120 < time.time() - TODAY.timestamp() < 86_400 - 120:
            today, body = await day_of(ours, TODAY.date().isoformat())
            assert today["grows"]
            assert today["steps"] <= (time.time() - today["begin"]) // 60 + 1
            index4 = display.find(city.engine.points.point_id[4])
            assert states_of(body, 1)[1][index4] & SEVERITY == 4
            status, found, _ = await ours.ask("GET", f"/api/replay/{today['date']}/counts?minute=1441")
            assert (status, found["error"].endswith("so far")) == (400, True)
        city.engine.points.retired[7] = True
        city.engine.points = copy(city.engine.points)
        version = display.version
        await ours.open()
        city.tick(now_us=time.time_ns() // 1000)
        await ours.until(lambda: ours.heads and ours.heads[-1].registry != version, "another registry")
        _, body = await day_of(ours, DAY.date().isoformat())
        assert int.from_bytes(body[4:8], "little") == ours.heads[-1].registry
        assert int.from_bytes(body[8:12], "little") == POINTS - 1


async def test_faults_outages_answers_and_merged_groups(served: Served) -> None:
    console, city, past = served
    points = city.engine.points
    gateway = points.gateways[points.gateway[50]]
    of_gateway = [n for n in range(len(points)) if points.gateways[points.gateway[n]] == gateway]
    at = us(DAY - timedelta(days=5)) + 60_000_000
    minute = 60_000_000
    past.alert("dead", 10, at, 1, 1, **{"class": "fault", "rule": "dead", "pos": None})
    past.alert("stuck", 11, at, 1, 1, **{"class": "fault", "rule": "stuck"})
    out = {"class": "fault", "rule": "outage", "point_id": None, "gateway_id": gateway}
    past.alert("out", 50, at, 1, 2, **out)
    past.alert("out", 50, at + 30 * minute, 2, 0, **out)
    past.alert("drill", 20, at, 1, 4, drill=True, pos=None)
    past.alert("one", 21, at, 1, 3)
    past.alert("two", 22, at + minute, 1, 2)
    past.alert("three", 23, at + 2 * minute, 1, 2)
    past.note(at + minute, "grouped", "three", detail="two")
    past.note(at + 3 * minute, "merged", "two", detail="one")
    past.note(at + 10 * minute, "answered", "one", who="王 <b>", detail=HOSTILE)
    past.alert("three", 23, at + 20 * minute, 2, 4)
    past.alert("one", 21, at + 40 * minute, 2, 0)
    past.write()
    async with page(console.address) as ours:
        display = console.display
        assert display is not None
        about, body = await day_of(ours, (DAY - timedelta(days=5)).date().isoformat())

        def state(number: int, minute: int) -> int:
            index = display.find(points.point_id[number])
            return int(states_of(body, minute)[1][index])

        assert (state(10, 0), state(10, 1)) == (0, OFFLINE | FAULT)
        assert state(11, 5) == FAULT
        assert {state(n, 5) & OFFLINE for n in of_gateway} == {OFFLINE}
        assert {state(n, 31) & OFFLINE for n in of_gateway if n != 10} == {0}
        assert state(20, 5) == 0, "a drill is no part of the city's past"
        assert [state(21, m) for m in (10, 11, 20, 21, 41)] == [3, 3 | TAKEN, 3 | TAKEN, 3, 0]
        assert [state(23, m) for m in (10, 11, 21)] == [2, 2 | TAKEN, 4]
        [group] = [g for g in about["alerts"] if g["id"] == "one"]
        assert group["members"] == 3
        assert group["course"] == [[1, 3, 1], [2, 3, 2], [3, 3, 3], [21, 4, 3], [41, 4, 2]]
        assert group["acks"] == [
            {"at": (at + 10 * minute) / 1e6, "by": "王 <b>", "note": HOSTILE, "severity": 3}
        ]
        assert [s["step"] for s in group["says"]] == [1, 21]
        assert group["points"][0] == display.find(points.point_id[23])


async def test_a_day_of_flapping_fits_in_wider_steps(served: Served) -> None:
    """600 points that each change every minute: more than a day may weigh at 116,200 points, told in fewer pictures."""
    console, _, past = served
    begin = us(DAY - timedelta(days=9))
    dice = random.Random(SEED)
    for number in range(40):
        for revision in range(1, 1400):
            past.alert(
                f"flap{number}", number, begin + revision * 60_000_000 - 1, revision, dice.randint(0, 4)
            )
    past.write()
    with connect(console.root) as con:
        display = console.display
        assert display is not None
        given = {
            "begin": begin / 1e6, "until": begin / 1e6 + 86_340, "version": 1, "about": {},
            "numbers": base64.b64encode(display.number.tobytes()).decode(),
        }  # fmt: skip
        whole = len(pastasked.day(con, given)[1])
        limit, pastasked.DAY_BYTES_MAX = pastasked.DAY_BYTES_MAX, whole // 3  # type: ignore[misc]
        try:
            body = gzip.decompress(pastasked.day(con, given)[1])
        finally:
            pastasked.DAY_BYTES_MAX = limit  # type: ignore[misc]
    about, state = states_of(body, 20)
    assert about["step_s"] > 60
    assert shown(state, display) == asked(console.root, begin / 1e6 + 20 * about["step_s"])
