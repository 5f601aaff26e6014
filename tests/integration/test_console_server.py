"""The map's server, asked by HTTP and WebSocket as a browser would: who is let in, what is told, what slow ones
cost."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import stat
from collections import Counter
from collections.abc import AsyncIterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import numpy as np
import pytest

from anomaly.alerts.event import FIRING, RESOLVED
from anomaly.alerts.outbox import Outbox
from anomaly.alerts.people import acknowledge
from console.api import GUESSES_AT_ONCE, Route, routes
from console.guard import CSP, OPEN
from console.logins import OPERATE, make_link
from console.server import Console
from console.shown import SEVERITY, TAKEN
from tests.anomaly_events import event
from tests.console_city import MadeUp, made_up
from tests.console_client import page, users_toml

POINTS = 400
SPEC: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "console" / "openapi.json").read_text(encoding="utf-8")
)
Served = tuple[Console, MadeUp]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A console nobody may look at without a login: wang may act, lin may look."""
    users = tmp_path / "users.toml"
    users.write_text(users_toml(wang="operate", lin="view"))
    console, city = made_up(tmp_path, POINTS, users_file=str(users), anonymous_view=False)
    city.tick()
    async with console:
        await shows(console)
        yield console, city


async def shows(console: Console) -> None:
    """Wait for the first picture: until then there is nothing to ask for."""
    async with page(console.address) as first:
        await first.login("lin")
        await first.open()
        await first.until(lambda: first.heads, "the first picture")


def valid(schema: Any, found: Any) -> None:
    """``found`` is what the OpenAPI document says, nothing more and nothing less."""
    whole = {**schema, "components": SPEC["components"]}
    jsonschema.Draft202012Validator(whole).validate(found)


def answer_schema(path: str, method: str, status: int) -> Any:
    return SPEC["paths"][path][method.lower()]["responses"][str(status)]["content"]["application/json"][
        "schema"
    ]


def flood(number: int, city: MadeUp, revision: int = 1, kind: str = FIRING, **values: Any) -> Any:
    """An alert about a point of the city."""
    points = city.engine.points
    subject = event().subject
    where = {"lon": 104.0 + number * 0.3, "lat": 30.7, "district": points.districts[points.district[number]]}
    about = replace(subject, number=number, point_id=points.point_id[number], **where)
    return event(number, revision, kind, subject=about, **values)


def spec_path(route: Route) -> str:
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)


# Who is let in


async def test_every_route_refuses_a_foreign_host_a_foreign_origin_and_a_missing_login(
    served: Served,
) -> None:
    console, _ = served
    ways = {
        "Host": {"Host": "evil.example"},
        "rebound": {"Host": f"evil.example:{console.port}"},
        "Origin": {"Origin": "http://evil.example"},
        "null": {"Origin": "null"},
        "other port": {"Origin": "http://127.0.0.1:1"},
        "https": {"Origin": f"https://127.0.0.1:{console.port}"},
    }
    async with page(console.address) as ours:
        await ours.login("wang")
        for route in routes(console):
            path = re.sub(r"\{[^}]*\}", "x", route.path)
            for name, headers in ways.items():
                status, found, answer = await ours.ask(route.method, path, **headers)
                assert status == 403, (route, name, found)
                assert answer.headers["Content-Security-Policy"] == CSP
                assert "Set-Cookie" not in answer.headers
    async with page(console.address) as stranger:
        for route in routes(console):
            if route.needs == OPEN:
                continue
            path = re.sub(r"\{[^}]*\}", "x", route.path)
            status, found, _ = await stranger.ask(route.method, path)
            assert status == 401, (route, found)
        assert (await stranger.ask("GET", "/api/nothing"))[0] == 401
    async with page(console.address) as viewer:
        await viewer.login("lin")
        for route in routes(console):
            if route.needs == OPERATE:
                path = re.sub(r"\{[^}]*\}", "x", route.path)
                assert (await viewer.ask(route.method, path, {"note": "", "why": "x"}))[0] == 403
        for method, path in (("POST", "/api/logout"), ("POST", "/api/login")):
            async with viewer.session.post(viewer.address + path) as answer:
                assert answer.status == 403, f"{method} {path} without an Origin"
        status, _, _ = await viewer.ask("GET", "/api/kpi", **{"Sec-Fetch-Site": "cross-site"})
        assert status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await viewer.session.ws_connect(viewer.address + "/ws", origin="http://evil.example")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await viewer.session.ws_connect(viewer.address + "/ws")
    async with page(console.address) as stranger:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await stranger.session.ws_connect(stranger.address + "/ws", origin=stranger.address)


async def test_cookies_and_headers_are_strict_and_a_logout_ends_the_feed_too(served: Served) -> None:
    console, _ = served
    async with page(console.address) as ours:
        status, _, answer = await ours.ask("POST", "/api/login", {"name": "wang", "password": "wang"})
        assert status == 200
        cookie = answer.headers["Set-Cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
        for path in ("/", "/api/me", "/api/nothing", "/static/nothing.js"):
            _, _, answer = await ours.ask("GET", path)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
            assert "Server" not in answer.headers
        await ours.open()
        await ours.until(lambda: ours.heads, "a first frame")
        assert (await ours.ask("POST", "/api/logout"))[0] == 204
        assert ours.ws is not None
        await ours.until(lambda: ours.ws.closed, "the feed closes")
        assert ours.ws.close_code == 4401
        assert (await ours.ask("GET", "/api/me"))[0] == 401


async def test_a_user_taken_out_of_the_file_is_out_and_a_session_survives_a_restart(tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    users.write_text(users_toml(wang="operate", lin="view"))
    console, city = made_up(tmp_path, POINTS, users_file=str(users), anonymous_view=False)
    city.tick()
    async with console, page(console.address) as ours:
        await ours.login("wang")
        cookies = {c.key: c.value for c in ours.session.cookie_jar}
    kept = console.root / "console-sessions.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert all(value not in kept.read_text() for value in cookies.values()), "only a hash is kept"
    console, city = made_up(tmp_path, POINTS, users_file=str(users), anonymous_view=False)
    city.tick()
    async with console, page(console.address) as again:
        again.session.cookie_jar.update_cookies(cookies, aiohttp.client.URL(console.address))
        assert (await again.get("/api/me"))["name"] == "wang"
        await again.open()
        await again.until(lambda: again.heads, "a first frame")
        users.write_text(users_toml(lin="view"))
        console.logins._looked_at -= 10
        assert (await again.ask("GET", "/api/me"))[0] == 401
        await again.until(lambda: again.ws is not None and again.ws.closed, "the feed of who is out closes")


async def test_guesses_are_throttled_by_name_and_links_work_once(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    console, _ = served
    async with page(console.address) as ours:
        wrong = [
            (await ours.ask("POST", "/api/login", {"name": "wang", "password": "guess-me"}))[0]
            for _ in range(12)
        ]
        assert wrong == [401] * 10 + [429] * 2
        status, _, answer = await ours.ask("POST", "/api/login", {"name": "wang", "password": "wang"})
        assert status == 429, "also the right one waits"
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
    console.guard.refused = 0
    token = make_link(console.root, "值班", "operate", 60)
    assert token not in "".join(str(p) for p in (console.root / "console-links").iterdir())
    # Another address would not be throttled; here the throttle is taken out of the way.
    throttle = next(r for r in console._runner.app.router.routes() if r.handler.__name__ == "login")  # type: ignore[union-attr]
    throttle.handler.__self__._throttle._failed.clear()  # type: ignore[attr-defined]
    async with page(console.address) as ours:
        status, me, _ = await ours.ask("POST", "/api/login", {"token": token})
        assert (status, me["name"], me["role"]) == (200, "值班", "operate")
        valid(answer_schema("/api/login", "post", 200), me)
        assert (await ours.ask("POST", "/api/login", {"token": token}))[0] == 401
    assert token not in caplog.text
    assert "guess-me" not in caplog.text


async def test_guesses_made_all_at_once_are_no_more_than_one_after_the_other(served: Served) -> None:
    console, _ = served
    guess = {"name": "wang", "password": "guess-me"}
    async with page(console.address) as ours:
        answers = await asyncio.gather(*(ours.ask("POST", "/api/login", guess) for _ in range(40)))
        found = Counter(status for status, _, _ in answers)
        assert found.keys() == {401, 429}
        assert found[401] <= console.options.failed_logins_per_minute_max + GUESSES_AT_ONCE


async def test_anonymous_people_on_this_machine_may_look_where_it_is_said_and_never_act(
    tmp_path: Path,
) -> None:
    console, city = made_up(tmp_path, POINTS)
    city.tick()
    async with console, page(console.address) as ours:
        me = await ours.get("/api/me")
        valid(answer_schema("/api/me", "get", 200), me)
        assert me == {"name": "", "role": "view", "anonymous": True, "expires_at": None}
        await ours.open()
        await ours.until(lambda: ours.heads, "a first frame")
        assert (await ours.ask("POST", "/api/alerts/x/ack", {}))[0] == 401


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"anonymous_view": False}, "nobody could log in"),
        ({"host": "0.0.0.0"}, "no anonymous_view"),
        ({"host": "0.0.0.0", "anonymous_view": False, "users_file": "users.toml"}, "tls_cert_file"),
        ({"host": "192.0.2.1", "users_file": "users.toml"}, "no anonymous_view"),
        ({"behind_proxy": True, "users_file": "users.toml"}, "no anonymous_view with behind_proxy"),
    ],
)
def test_what_would_not_be_safe_is_not_served(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    (tmp_path / "users.toml").write_text(users_toml(wang="operate"))
    if "users_file" in options:
        options = {**options, "users_file": str(tmp_path / "users.toml")}
    with pytest.raises(ValueError, match=why):
        made_up(tmp_path, 20, **options)


# What is told


async def test_frames_rebuild_the_picture_and_who_missed_one_gets_it_whole(served: Served) -> None:
    console, city = served
    points = city.engine.points
    async with page(console.address) as ours, page(console.address) as late:
        for one in (ours, late):
            await one.login("lin")
        await ours.open()
        for step in range(6):
            city.severity[step * 3] = 1 + step % 4
            city.silent[step * 5] = True
            picture = city.tick(1.0)
            await ours.until(
                lambda pos=picture.seq: ours.heads and ours.heads[-1].pos == pos, f"frame of {picture.seq}"
            )
        assert [h.type for h in ours.heads] == [1, *[2] * (len(ours.heads) - 1)]
        assert [h.seq for h in ours.heads] == list(
            range(ours.heads[0].seq, ours.heads[0].seq + len(ours.heads))
        )
        await late.open()
        await late.until(lambda: late.heads, "a keyframe")
        assert late.heads[0].type == 1
        assert ours.level is not None
        assert ours.state is not None
        assert late.state is not None
        shown = console.shown
        assert shown is not None
        np.testing.assert_array_equal(ours.level, shown.level)
        np.testing.assert_array_equal(ours.state, shown.state)
        np.testing.assert_array_equal(late.state, shown.state)
        number = shown.display.number
        np.testing.assert_array_equal(ours.state & SEVERITY, city.severity[number])
        np.testing.assert_array_equal((ours.state & 8) != 0, city.silent[number])
        hello = ours.texts[0]
        assert hello["t"] == "hello"
        assert hello["registry"] == ours.heads[0].registry
        assert ours.heads[0].n == len(points)
        found = await ours.get("/api/counts")
        valid(answer_schema("/api/counts", "get", 200), found)
        assert found["pos"] == picture.seq
        assert found["severity"] == np.bincount(city.severity, minlength=5).tolist()
        for path in ("/api/districts", "/api/kpi"):
            valid(answer_schema(path, "get", 200), await ours.get(path))
        kpi = [one for one in ours.texts if one["t"] == "kpi"]
        valid({"$ref": "#/components/schemas/Kpi"}, kpi[-1])
        assert kpi[-1]["alerts"] == found["severity"][1:]


async def test_a_new_registry_is_told_before_its_frames(served: Served) -> None:
    console, city = served
    async with page(console.address) as ours:
        await ours.login("lin")
        await ours.open()
        await ours.until(lambda: ours.heads, "a frame")
        first = ours.heads[0].registry
        city.engine.points.retired[3] = True
        city.engine.points = copy(city.engine.points)
        city.tick()
        await ours.until(lambda: ours.heads[-1].registry != first, "a frame of the new registry")
        head = next(h for h in ours.heads if h.registry != first)
        assert head.type == 1
        assert head.n == POINTS - 1
        assert [one["registry"] for one in ours.texts if one["t"] == "hello"] == [first, head.registry]
        assert (await ours.ask("GET", f"/api/point/@3?v={first}"))[0] == 409


# What people do


async def test_an_answer_and_a_silence_in_one_browser_show_in_another_and_survive_a_restart(
    tmp_path: Path,
) -> None:
    users = tmp_path / "users.toml"
    users.write_text(users_toml(wang="operate", lin="view"))
    console, city = made_up(tmp_path, POINTS, users_file=str(users), anonymous_view=False)
    city.severity[[0, 1]] = 3
    city.tick()
    one, two = flood(0, city), flood(1, city)
    async with console:
        await console.act(lambda outbox: outbox.record([one, two], None))
        async with page(console.address) as duty, page(console.address) as other:
            await duty.login("wang")
            await other.login("lin")
            await other.open()
            await other.until(lambda: len(other.groups) == 2, "two groups")
            for group in other.groups.values():
                valid({"$ref": "#/components/schemas/Group"}, group)
            assert other.groups[one.id]["answer"]["by"] == "值班长"
            assert not other.groups[one.id]["acked"]
            status, done, _ = await duty.ask("POST", f"/api/alerts/{one.id}/ack", {"note": "已派人"})
            assert (status, done["severity"]) == (200, 3)
            valid(answer_schema("/api/alerts/{id}/ack", "post", 200), done)
            await other.until(lambda: other.groups[one.id]["acked"], "the answer shows")
            assert other.groups[one.id]["ack"]["by"] == "wang"
            assert other.groups[one.id]["ack"]["note"] == "已派人"
            scope = {"point": city.engine.points.point_id[1]}
            status, made, _ = await duty.ask("POST", "/api/silences", {**scope, "for_s": 3600, "why": "施工"})
            assert status == 201
            rows = (await other.get("/api/silences"))["silences"]
            assert [(r["id"], r["who"], r["why"]) for r in rows] == [(made["id"], "wang", "施工")]
            valid(answer_schema("/api/silences", "get", 200), {"silences": rows})
            city.tick()
            index = console.display.find(city.engine.points.point_id[0])  # type: ignore[union-attr]
            await other.until(lambda: other.state[index] & TAKEN, "the point shows that it is taken")  # type: ignore[index]
            await console.act(lambda outbox: outbox.record([flood(1, city, 2, severity=4)], None))
            detail = await other.get(f"/api/alerts/{one.id}")
            valid(answer_schema("/api/alerts/{id}", "get", 200), detail)
            assert ("answered", "wang") in {(step["step"], step["who"]) for step in detail["steps"]}
            await duty.ask("DELETE", f"/api/silences/{made['id']}", {"why": "fertig"})
            assert (await other.get("/api/silences"))["silences"] == []
    console, city = made_up(tmp_path, POINTS, users_file=str(users), anonymous_view=False)
    city.tick()
    async with console, page(console.address) as again:
        await again.login("lin")
        await again.open()
        await again.until(lambda: again.groups, "groups after a restart")
        assert again.groups[one.id]["acked"]
        await console.act(lambda outbox: outbox.record([flood(0, city, 2, RESOLVED)], None))
        await again.until(lambda: one.id not in again.groups, "what is over goes")


async def test_what_another_process_does_shows_too(served: Served) -> None:
    console, city = served
    beside = Outbox(console.root / "outbox.db")
    alert = flood(5, city)
    await console.act(lambda outbox: outbox.record([alert], None))
    async with page(console.address) as ours:
        await ours.login("lin")
        await ours.open()
        await ours.until(lambda: alert.id in ours.groups, "the group")
        acknowledge(beside, alert.id, "命令行", alert.at + 1)
        await ours.until(lambda: ours.groups[alert.id]["acked"], "the answer from the command line")
    beside.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"district": "x", "why": "y"}, 400),
        ({"district": "x", "for_s": 60}, 400),
        ({"for_s": 60, "why": "y"}, 400),
        ({"district": "x", "for_s": 60, "until": 1, "why": "y"}, 400),
        ({"district": "x", "until": 1, "why": "y"}, 400),
        ({"district": "x", "for_s": 1e11, "why": "y"}, 400),
        ({"district": "x", "for_s": float("nan"), "why": "y"}, 400),
        ({"district": "x", "for_s": "60", "why": "y"}, 400),
        ({"district": "x", "for_s": 60, "why": "y", "severity_max": 9}, 400),
        ({"district": "x", "for_s": 60, "why": "y", "severity_max": True}, 400),
        ({"district": "x", "for_s": 60, "why": "   "}, 400),
        ({"district": ["x"], "for_s": 60, "why": "y"}, 400),
        ({"distrcit": "x", "for_s": 60, "why": "y"}, 400),
        (["district"], 400),
        ({"district": "x", "for_s": 60, "why": "y"}, 201),
        ({"district": "x", "until": "2100-01-01T00:00", "why": "y"}, 400),
    ],
)
async def test_a_silence_needs_a_scope_an_end_and_a_reason(served: Served, body: Any, status: int) -> None:
    console, _ = served
    async with page(console.address) as ours:
        await ours.login("wang")
        found = await ours.ask("POST", "/api/silences", body)
        assert found[0] == status, found[1]


async def test_wrong_arguments_are_told_apart_and_nothing_is_our_mistake(served: Served) -> None:
    console, _ = served
    asked = {
        "/api/point/nobody": 404, "/api/point/@400": 404, "/api/point/@-1": 404, "/api/point/@99999999999999": 404,
        "/api/point/%00": 404, "/api/point/%ff%fe": 404, "/api/point/@1?v=0": 409, "/api/history/@1?span=2h": 400,
        "/api/history/@1?since=x": 400, "/api/history/@1?since=nan": 400, "/api/history/@1?since=9&until=1": 400,
        "/api/history/@1?since=0": 400, "/api/history/@1?format=xml": 400, "/api/history/@1?step=x": 400,
        "/api/search?q=x&limit=0": 400, "/api/search?q=x&limit=1e9": 400, "/api/search?q=x&limit=y": 400,
        "/api/alerts/nothing": 404, "/api/alerts/%ff": 404, "/static/../server.py": 404,
        "/static/%2e%2e%2fserver.py": 404,
        "/static//etc/passwd": 404, "/api/nothing": 404,
    }  # fmt: skip
    async with page(console.address) as ours:
        await ours.login("wang")
        for path, status in asked.items():
            url = aiohttp.client.URL(ours.address + path, encoded=True)
            async with ours.session.get(url, allow_redirects=False) as answer:
                found = await answer.read()
            assert answer.status == status, (path, answer.status, found)
            valid({"$ref": "#/components/schemas/Error"}, json.loads(found))
        sent = ours.session.post(
            ours.address + "/api/login",
            data=b"{",
            headers={"Origin": ours.address, "Content-Type": "application/json"},
        )
        async with sent as answer:
            assert answer.status == 400
        assert (await ours.ask("POST", "/api/login", {"name": "x"}, **{"Content-Type": "text/plain"}))[
            0
        ] == 415
        assert (await ours.ask("POST", "/api/login", {"name": "x" * 100_000, "password": "y"}))[0] == 413
        assert (await ours.ask("POST", "/api/alerts/nothing/ack", {}))[0] == 404
        assert (await ours.ask("DELETE", "/api/silences/99", {"why": "x"}))[0] == 404


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "\u202eRTL\u2066\u2069",
    "a\x00b\x07\x1b[31mc\u2028\u2029",
    "长" * 500,
    "'; DROP TABLE alert_event; --",
    "${jndi:ldap://x}",
    "🌊",
]


async def test_hostile_names_pass_as_data(served: Served) -> None:
    console, city = served
    points = city.engine.points
    changed = copy(points)
    changed.name = [*HOSTILE, *points.name[len(HOSTILE) :]]
    city.engine.points = changed
    city.tick()
    async with page(console.address) as ours:
        await ours.login("wang")
        await ours.open()
        await ours.until(
            lambda: console.display is not None and console.display.points is changed, "the new names"
        )
        for number, name in enumerate(HOSTILE):
            _, found, answer = await ours.ask("GET", f"/api/point/{points.point_id[number]}")
            assert found["name"] == name
            valid(answer_schema("/api/point/{id}", "get", 200), found)
            assert answer.content_type == "application/json"
            alert = flood(number, city)
            alert = replace(alert, subject=replace(alert.subject, name=name))
            await console.act(lambda outbox, alert=alert: outbox.record([alert], None))
            status, _, _ = await ours.ask("POST", f"/api/alerts/{alert.id}/ack", {"note": name})
            assert status == 200
        found = await ours.get("/api/search?q=%3Cimg%20src")
        valid(answer_schema("/api/search", "get", 200), found)
        assert [one["name"] for one in found["found"]] == [HOSTILE[0]]
        await ours.until(lambda: len(ours.groups) == len(HOSTILE), "all groups")
        notes = {group["ack"]["note"] for group in ours.groups.values() if group["ack"]}
        assert len(notes) == len(HOSTILE)


# What is documented


def test_the_openapi_document_names_exactly_the_routes_there_are(served_sync: Console) -> None:
    assert SPEC["openapi"].startswith("3.1")
    listed = {
        (method.upper(), path): told["x-role"]
        for path, methods in SPEC["paths"].items()
        for method, told in methods.items()
    }
    assert listed == {(route.method, spec_path(route)): route.needs for route in routes(served_sync)}
    for (method, path), role in listed.items():
        told = SPEC["paths"][path][method.lower()]
        assert told["security"] == ([] if role == OPEN else [{"session": []}])
        named = {one["name"] for one in told.get("parameters", []) if one["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path))
        assert "403" in told["responses"]
    for schema in SPEC["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(SPEC)))
    assert names <= set(SPEC["components"]["schemas"])


@pytest.fixture
def served_sync(tmp_path: Path) -> Console:
    return made_up(tmp_path, 20)[0]


async def test_the_registry_is_what_its_format_says(served: Served) -> None:
    console, city = served
    async with page(console.address) as ours:
        await ours.login("lin")
        status, body, answer = await ours.ask("GET", "/api/registry")
        assert status == 200
        assert answer.headers["Content-Encoding"] == "gzip"
        etag = answer.headers["ETag"]
        assert (await ours.ask("GET", "/api/registry", **{"If-None-Match": etag}))[0] == 304
        assert body[:4] == b"YZR1"
        version, n, size = np.frombuffer(body, "<u4", 3, 4).tolist()
        head = json.loads(body[16 : 16 + size])
        assert (head["version"], head["n"]) == (version, n) == (console.display.version, POINTS)  # type: ignore[union-attr]
        planes = np.frombuffer(body, np.uint8, offset=16 + size).reshape(8, n)

        def unzigzag(low: np.ndarray, high: np.ndarray) -> np.ndarray:
            d = low.astype(np.int64) | high.astype(np.int64) << 8
            return np.cumsum((d >> 1) ^ -(d & 1)) & 0xFFFF

        x, y = unzigzag(planes[0], planes[1]), unzigzag(planes[2], planes[3])
        frame, points = head["frame"], city.engine.points
        number = console.display.number  # type: ignore[union-attr]
        lon = frame["lon0"] + x / 65534 * (frame["lon1"] - frame["lon0"])
        lat = frame["lat0"] + y / 65534 * (frame["lat1"] - frame["lat0"])
        assert np.abs(lon - points.lon[number]).max() < 1e-4
        assert np.abs(lat - points.lat[number]).max() < 1e-4
        assert [head["kinds"][k]["id"] for k in planes[4]] == [points.kinds[k] for k in points.kind[number]]
        assert [head["districts"][k]["id"] for k in planes[5]] == [
            points.districts[k] for k in points.district[number]
        ]
        source = planes[6] | planes[7].astype(np.uint16) << 8
        assert [head["sources"][k]["id"] for k in source] == [
            points.sources[k] for k in points.source[number]
        ]
        assert gzip.decompress(console.display.packed) == body  # type: ignore[union-attr]
