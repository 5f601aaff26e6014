"""Saved queries, typed SQL and supervision, asked of a real console over a real lake as a page would."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from console.queries import shipped
from console.server import Console
from tests.console_city import made_up
from tests.console_client import Page, page, users_toml
from tests.integration.test_console_server import answer_schema, valid
from tests.integration.test_sql_door import ATTACKS
from tests.sight_city import DISTRICTS, HOSTILE, HOURS, PROJECTS, STEP_S, fill, point_of, value_of

# One console for all that only look: a caged process takes seconds to start.
pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = sorted(path.stem for path in shipped().glob("*.sql"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled lake that tests copy."""
    root = tmp_path_factory.mktemp("sight") / "data"
    root.mkdir()
    fill(root)
    return root


def serving(tmp_path: Path, lake: Path, **options: Any) -> Console:
    """A console over its own copy of the lake; wang may act, lin may look."""
    tmp_path.mkdir(exist_ok=True)
    users = tmp_path / "users.toml"
    users.write_text(users_toml(wang="operate", lin="view"))
    console, _ = made_up(tmp_path, 20, users_file=str(users), anonymous_view=False, **options)
    text = (lake / "lake.sql").read_text().replace(str(lake), str(console.root))
    shutil.rmtree(console.root / "lake")
    shutil.copytree(lake / "lake", console.root / "lake")
    (console.root / "lake.sql").write_text(text)
    return console


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours(tmp_path_factory: pytest.TempPathFactory, lake: Path) -> AsyncIterator[Page]:
    """Somebody who may look."""
    async with serving(tmp_path_factory.mktemp("ours"), lake) as console, page(console.address) as one:
        await one.login("lin")
        yield one


async def tried(ours: Page) -> Any:
    """The list once every query was planned."""
    while (listed := await ours.get("/api/queries"))["untried"]:
        continue
    return listed


async def test_every_query_that_comes_along_is_listed_and_answers(ours: Page) -> None:
    listed = await tried(ours)
    valid(answer_schema("/api/queries", "get", 200), listed)
    assert listed["broken"] == []
    assert sorted(one["name"] for one in listed["queries"]) == NAMES
    assert not listed["free_sql"]
    for query in listed["queries"]:
        said = "?minutes=1" if query["name"] == "silent-points" else ""
        found = await ours.get(f"/api/queries/{query['name']}{said}")
        valid(answer_schema("/api/queries/{name}", "get", 200), found)
        names = [column["name"] for column in found["answer"]["columns"]]
        assert found["answer"]["rows"], query["name"]
        assert set(query["columns"]) <= set(names), query["name"]
        chart = query["chart"]
        if chart:
            assert {chart["x"], *chart["y"], *filter(None, [chart["by"]])} <= set(names), query["name"]
            numbers = [row[names.index(y)] for row in found["answer"]["rows"] for y in chart["y"]]
            assert all(n is None or isinstance(n, int | float) for n in numbers), query["name"]
        for parameter in query["parameters"]:
            for choice in parameter["choices"]:
                if choice["value"] == parameter["default"]:
                    continue
                assert await ours.get(f"/api/queries/{query['name']}?{parameter['name']}={choice['value']}")


async def test_answers_are_those_of_the_lake(ours: Page) -> None:
    async def rows(path: str) -> list[dict[str, Any]]:
        answer = (await ours.get(f"/api/queries/{path}"))["answer"]
        return [dict(zip([c["name"] for c in answer["columns"]], row, strict=True)) for row in answer["rows"]]

    steps = 3600 // STEP_S
    water = {row["district"]: row["highest"] for row in await rows("water-now?kind=river_level")}
    last = (steps - 0) % 7
    top = {DISTRICTS[n % 2]: value_of("river_level", n, last) for n in range(8)}
    assert set(water) == set(DISTRICTS)
    assert all(water[d] <= top[d] for d in DISTRICTS)  # the newest of a point may be doubtful
    unanswered = await rows("alerts-unanswered")
    assert [(row["id"], row["escalations"]) for row in unanswered] == [("a2", 1)]
    assert await rows("alerts-unanswered?severity=4") == []
    answers = {row["district"]: row for row in await rows("answers")}
    assert (answers[DISTRICTS[0]]["called"], answers[DISTRICTS[0]]["minutes_median"]) == (2, 2.0)
    assert (answers[DISTRICTS[1]]["answered"], answers[DISTRICTS[1]]["within_5"]) == (1, 0.0)
    assert [row["point_id"] for row in await rows("silent-points?minutes=30")] == [
        point_of("waterlogging", 7)
    ]
    due = await rows("forecasts-due?hours=1")
    assert [(row["point_id"], row["limit_value"]) for row in due] == [(point_of("river_level", 2), 25.0)]
    assert [(row["reason"], row["refused"]) for row in await rows("refusals")] == [("unknown_point", 3)]
    assert await rows("refusals?since=now-1m") == []
    video = {row["district"]: row for row in await rows("video-online?since=now-2h")}
    assert (video[DISTRICTS[0]]["channels"], video[DISTRICTS[0]]["online_now"]) == (4, 0.75)


async def test_parameters_are_values_and_never_sql(ours: Page) -> None:
    for evil in ("' OR '1'='1", "x'); DROP VIEW readings; --", "$kind", "\u202e", "长" * 100, "${x}", "\\"):
        url = aiohttp.client.URL(f"{ours.address}/api/queries/appeals-open").with_query(category=evil)
        async with ours.session.get(url) as answer:
            assert answer.status == 200
            found = json.loads(await answer.read())
        assert found["arguments"] == {"category": evil}
        assert found["answer"]["rows"] == []
    wrong = {
        "nothing": 404, "..%2f..%2fsample": 404, "water-now.sql": 404, "water-now?kind=pm25": 400,
        "water-now?kin=x": 400,
        "water-now?format=xml": 400, "exceedances?limit=x": 400, "exceedances?limit=nan": 400,
        "exceedances?since=x": 400,
        "sources-late?most=0": 400, "sources-late?most=1.5": 400, "exceedances?kind=" + "x" * 300: 400,
    }  # fmt: skip
    for path, status in wrong.items():
        found = await ours.ask("GET", f"/api/queries/{path}")
        assert found[0] == status, (path, found[1])
        valid({"$ref": "#/components/schemas/Error"}, found[1])


async def test_a_csv_opens_in_a_spreadsheet(ours: Page) -> None:
    status, raw, answer = await ours.ask("GET", "/api/queries/alerts-unanswered?format=csv")
    assert (status, answer.content_type) == (200, "text/csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="alerts-unanswered.csv"'
    rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"))))
    assert rows[0][0] == "severity"
    assert len(rows) == 2


def no_trace() -> bool:
    """Nothing an attack would have written is there."""
    return not list(Path("/tmp").glob("yuzui-attack*"))


async def test_typed_sql_is_shut_unless_it_is_opened_and_then_reaches_no_file(
    tmp_path: Path, lake: Path
) -> None:
    async with serving(tmp_path / "shut", lake) as console, page(console.address) as shut:
        await shut.login("wang")
        status, found, _ = await shut.ask("POST", "/api/sql", {"sql": "SELECT 1"})
        assert status == 403
        assert "free_sql" in found["error"]
    options = {"free_sql": True, "query_time_s_max": 3.0, "query_rows_max": 100, "query_concurrency_max": 2}
    async with serving(tmp_path / "open", lake, **options) as console, page(console.address) as ours:
        await ours.login("lin")
        assert (await ours.ask("POST", "/api/sql", {"sql": "SELECT 1"}))[0] == 403, (
            "who may look may not type SQL"
        )
        await ours.login("wang")
        assert (await tried(ours))["free_sql"]
        status, found, _ = await ours.ask("POST", "/api/sql", {"sql": "SELECT count(*) AS n FROM points;"})
        valid(answer_schema("/api/sql", "post", 200), found)
        assert found["answer"]["rows"] == [[48]]
        before = {p: p.stat().st_mtime_ns for p in console.root.rglob("*") if p.is_file()}
        secret = console.root / "lake" / "secret.txt"
        for attack in ATTACKS[::3]:
            sql = attack.replace("{data}", str(console.root)).replace("{{", "{").replace("}}", "}")
            status, found, _ = await ours.ask("POST", "/api/sql", {"sql": sql})
            assert status in (400, 413, 503), (attack[:80], found)
            valid({"$ref": "#/components/schemas/Error"}, found)
        assert {p: p.stat().st_mtime_ns for p in console.root.rglob("*") if p.is_file()} == before
        assert not secret.exists()
        assert no_trace()
        endless = "SELECT sum(sin(a.range * b.range)) FROM range(10000) a, range(100000000) b"
        for sql, ends in {
            "FROM range(101)": {413}, endless: {413, 503}, "SELECT repeat('x', 1000000) FROM range(50)": {413},
            "SELECT $1": {400}, "SELECT $name": {400},
        }.items():  # fmt: skip
            found = await ours.ask("POST", "/api/sql", {"sql": sql})
            assert found[0] in ends, (sql, found[1])
        assert (await ours.ask("POST", "/api/sql", {"sql": "FROM range(100)"}))[0] == 200
        for body in (
            {"sql": 1},
            {"sql": " "},
            {},
            {"sql": "x" * 30_000},
            {"sql": "SELECT 1", "format": "arrow"},
        ):
            assert (await ours.ask("POST", "/api/sql", body))[0] == 400
        vitals = console.vitals()
        assert vitals["console_queries"] > len(ATTACKS) // 3
        assert vitals["console_queries_ms"] > 0


async def test_a_broken_file_is_named_and_the_others_work(tmp_path: Path, lake: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    head = '-- zh = "x"\n-- en = "x"\n'
    bodies = {
        "no-head": "SELECT 1", "no-column": head + "SELECT nothing FROM points", "no-view": head + "FROM nowhere",
        "file": head + "FROM read_text('/etc/passwd')", "copy": head + "COPY (SELECT 1) TO '/tmp/yuzui-attack'",
        "mine": head + "SELECT count(*) AS n FROM points",
    }  # fmt: skip
    for name, body in bodies.items():
        (own / f"{name}.sql").write_text(body)
    async with (
        serving(tmp_path / "city", lake, queries_dir=str(own)) as console,
        page(console.address) as ours,
    ):
        await ours.login("lin")
        listed = await tried(ours)
        assert {one["file"] for one in listed["broken"]} == {
            f"{name}.sql" for name in bodies if name != "mine"
        }
        assert all(one["fault"] for one in listed["broken"])
        assert sorted(one["name"] for one in listed["queries"]) == sorted([*NAMES, "mine"])
        assert (await ours.get("/api/queries/mine"))["answer"]["rows"] == [[48]]
        for name in bodies:
            if name != "mine":
                assert (await ours.ask("GET", f"/api/queries/{name}"))[0] in (400, 404)
        (own / "no-column.sql").write_text(head + "SELECT count(*) FROM points")
        assert "no-column" in {one["name"] for one in (await tried(ours))["queries"]}


async def test_projects_have_their_progress_cameras_dust_and_findings(ours: Page) -> None:
    found = await ours.get("/api/supervision/projects")
    valid(answer_schema("/api/supervision/projects", "get", 200), found)
    sites = {one["project"]: one for one in found["sites"]}
    named = [one for one in found["sites"] if one["known"]]
    assert len(named) == PROJECTS
    assert sites["P-0"]["name"] == HOSTILE[0]
    one = sites["P-1"]
    assert (one["progress"], one["planned"], one["late"]) == (1 / PROJECTS, 0.5, True)
    assert (one["cameras"], one["cameras_online"], sites["P-0"]["cameras_online"]) == (1, 1, 0)
    assert one["points"] == 3
    assert one["dust"] <= value_of("dust_pm10", 1, 6)
    assert "D01" not in sites, "a device that a project names is not told again"
    assert not sites["P 3"]["known"], "a project of findings and approvals only"
    order = [(-s["overdue"], -s["severity"], -s["open"]) for s in found["sites"]]
    assert order == sorted(order)
    detail = await ours.get("/api/supervision/projects/P-1")
    valid(answer_schema("/api/supervision/projects/{id}", "get", 200), detail)
    assert {p["point_id"] for p in detail["points"]} == {
        point_of(k, 1) for k in ("dust_pm10", "site_noise", "video")
    }
    assert len(detail["finding"]) == one["findings"] > 0
    assert sum(f["overdue"] for f in detail["finding"]) == one["overdue"]
    unknown = await ours.get("/api/supervision/projects/" + "%27%20OR%201%3D1%20--")
    assert (unknown["points"], unknown["finding"]) == ([], [])


async def test_systems_and_districts_say_how_they_do(ours: Page) -> None:
    found = await ours.get("/api/supervision/systems?span=24h")
    valid(answer_schema("/api/supervision/systems", "get", 200), found)
    sources = {one["source"]: one for one in found["sources"]}
    water = sources["system-waterlogging"]
    assert (water["points"], water["online"]) == (8, 7 / 8)
    assert water["alerts"] == 3
    assert (water["called"], water["late_s"], water["timely_share"]) == (4, 0.5, 1.0)
    assert water["answer_s"] == 360.0
    assert sources["system-video"]["refused"] == 3
    arrived = sources["system-video"]["arrived_share"]
    assert 0.5 < arrived <= 1, "the first hour is not a whole one"
    assert water["arrived_share"] == pytest.approx(arrived * 7 / 8)
    districts = {one["district"]: one for one in found["districts"]}
    assert {name: one["points"] for name, one in districts.items()} == dict.fromkeys(DISTRICTS, 24)
    assert (await ours.ask("GET", "/api/supervision/systems?span=1y"))[0] == 400
    assert HOURS > 2


async def test_services_are_appeals_and_food(ours: Page) -> None:
    found = await ours.get("/api/supervision/services?span=90d")
    valid(answer_schema("/api/supervision/services", "get", 200), found)
    assert sum(one["appeals"] for one in found["appeals"]) > 50
    assert all(0 <= one["violation_rate"] <= 1 for one in found["rates"])
    assert found["violations"]
    assert found["banquets"]


async def test_pages_that_look_at_once_ask_the_lake_once(tmp_path: Path, lake: Path) -> None:
    async with serving(tmp_path, lake) as console, page(console.address) as ours:
        await ours.login("lin")
        got = await asyncio.gather(*(ours.get("/api/supervision/services") for _ in range(12)))
        assert console.lake.asked == 1
        assert all(one == got[0] for one in got)
