"""The routes: what each answers, and what it needs (console/FORMAT.md, console/openapi.json).

Owns arguments and their faults. What stands behind an answer is owned by the modules it asks.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from importlib.resources import files
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from aiohttp import web

from anomaly.alerts import people
from anomaly.alerts.outbox import Outbox
from console import asking, supervising
from console.guard import COOKIE, OPEN, SESSION, Refused, json_answer, json_body
from console.logins import ANONYMOUS, OPERATE, VIEW, Session, Throttle
from console.pointbook import FOUND_MAX
from console.route import Route
from console.server import Console
from console.shown import DOUBTFUL, FAULT, OFFLINE, SEVERITY, Shown, counts, district_counts
from console.static_files import INDEX
from storage import audit
from storage.batch import US_PER_S

SPANS_S: Final = {"1h": 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}
SPAN_S_MAX: Final = 400 * 86_400
GUESSES_AT_ONCE: Final = 2
"""A guess costs 50 ms and 16 MiB."""
NOTE_MAX: Final = people.TEXT_MAX
SCOPES: Final = ("rule", "kind", "district", "point", "gateway")


def application(console: Console) -> web.Application:
    """The application with all routes behind the guard."""
    from console.server import REQUEST_BYTES_MAX

    app = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[console.guard.middleware])
    app.on_response_prepare.append(console.guard.on_prepare)
    for route in routes(console):
        added = app.router.add_route(route.method, route.path, route.handler)
        assert added.resource is not None
        console.guard.needs[route.method, added.resource.canonical] = route.needs
    return app


def routes(console: Console) -> list[Route]:
    """Every route there is."""
    api, people_api, past = _Look(console), _Act(console), console.replay
    return [
        Route("GET", "/", OPEN, api.index),
        Route("GET", "/static/{name:.+}", OPEN, api.static),
        Route("GET", "/api/openapi.json", OPEN, api.openapi),
        Route("POST", "/api/login", OPEN, people_api.login),
        Route("POST", "/api/logout", VIEW, people_api.logout),
        Route("GET", "/api/me", VIEW, people_api.me),
        Route("GET", "/ws", VIEW, api.feed),
        Route("GET", "/api/registry", VIEW, api.registry),
        Route("GET", "/api/kpi", VIEW, api.kpi),
        Route("GET", "/api/counts", VIEW, api.counts),
        Route("GET", "/api/districts", VIEW, api.districts),
        Route("GET", "/api/point/{id}", VIEW, api.point),
        Route("GET", "/api/history/{id}", VIEW, api.history),
        Route("GET", "/api/replay", VIEW, past.days),
        Route("GET", "/api/replay/{date}", VIEW, past.day),
        Route("GET", "/api/replay/{date}/levels", VIEW, past.levels),
        Route("GET", "/api/replay/{date}/counts", VIEW, past.counts),
        Route("GET", "/api/search", VIEW, api.search),
        Route("GET", "/api/alerts", VIEW, api.alerts),
        Route("GET", "/api/alerts/{id}", VIEW, api.alert),
        Route("GET", "/api/silences", VIEW, api.silences),
        Route("POST", "/api/alerts/{id}/ack", OPERATE, people_api.ack),
        Route("POST", "/api/silences", OPERATE, people_api.silence),
        Route("DELETE", "/api/silences/{id}", OPERATE, people_api.unsilence),
        *asking.routes(console),
        *supervising.routes(console),
    ]


class _Look:
    """What can be seen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._zone = ZoneInfo(console.city.time_zone)

    async def index(self, request: web.Request) -> web.StreamResponse:
        return self._console.files.answer(request, INDEX)

    async def static(self, request: web.Request) -> web.StreamResponse:
        return self._console.files.answer(request, request.match_info["name"])

    async def openapi(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            body=(files("console") / "openapi.json").read_bytes(), content_type="application/json"
        )

    async def feed(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise Refused(400, "this is a WebSocket")
        served = await self._console.feed.serve(request, request[SESSION])
        if served is None:
            raise Refused(503, "too many maps are open: see [console] clients_max", {"Retry-After": "10"})
        return served

    async def registry(self, request: web.Request) -> web.StreamResponse:
        of = self._shown().display
        etag = f'"{of.version}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache, private"}
        if etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        headers |= {"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"}
        return web.Response(body=of.packed, headers=headers)

    async def kpi(self, _: web.Request) -> web.StreamResponse:
        pulse = self._console.pulse
        seconds = list(pulse.seconds)
        return json_answer(
            {
                "now": seconds[-1] if seconds else None,
                "history": {"step_s": 1, "kpi": seconds},
                "minutes": {"step_s": 60, "kpi": list(pulse.minutes)},
            }
        )

    async def counts(self, _: web.Request) -> web.StreamResponse:
        shown = self._shown()
        return json_answer({"seq": self._console.seq, **counts(shown)})

    async def districts(self, _: web.Request) -> web.StreamResponse:
        shown = self._shown()
        found = {"seq": self._console.seq, **counts(shown)}
        _more_of_districts(shown, found["districts"])
        return json_answer(found)

    async def point(self, request: web.Request) -> web.StreamResponse:
        shown = self._shown()
        index = self._index(request, shown)
        return json_answer(self._book().describe(index, shown, self._console.board.groups))

    async def history(self, request: web.Request) -> web.StreamResponse:
        shown = self._shown()
        index = self._index(request, shown)
        query = request.query
        until = self._time(query.get("until"), time.time())
        since = self._time(query.get("since"), until - _span(query.get("span", "1h")))
        step = _finite(query["step"], "step") if "step" in query else None
        if not 0 < until - since <= SPAN_S_MAX:
            raise Refused(400, f"until must be after since, by at most {SPAN_S_MAX // 86_400} days")
        form = query.get("format") or ("csv" if "text/csv" in request.headers.get("Accept", "") else "json")
        if form not in ("json", "csv"):
            raise Refused(400, "format is json or csv")
        told = self._book().describe(index, shown, self._console.board.groups)
        about = {"id": told["id"], "unit": told["unit"], "limits": told["levels"], "range": told["range"]}
        status, kind, body = await self._console.lake.ask(
            "history",
            {
                "point_id": told["id"],
                "since": since,
                "until": until,
                "step": step,
                "format": form,
                "about": about,
            },
        )
        headers = {"Content-Type": kind, "Cache-Control": "no-store"}
        if form == "csv" and status == 200:
            headers["Content-Disposition"] = 'attachment; filename="history.csv"'
        return web.Response(body=body, status=status, headers=headers)

    async def search(self, request: web.Request) -> web.StreamResponse:
        asked, limit = request.query.get("q", ""), int(_finite(request.query.get("limit", "20"), "limit"))
        if not 1 <= limit <= FOUND_MAX:
            raise Refused(400, f"limit is 1 to {FOUND_MAX}")
        return json_answer(await asyncio.to_thread(self._book().find, asked, limit, self._console.shown))

    async def alerts(self, _: web.Request) -> web.StreamResponse:
        groups = self._console.board.groups
        return json_answer(
            {"version": groups.version, "groups": list(groups.by_id.values()), "more": groups.more}
        )

    async def alert(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        found = await self._console.read(lambda outbox: _alert(outbox, name))
        if found is None:
            raise Refused(404, "no such alert")
        of = self._shown().display
        for one in found["members"]:
            one["index"] = of.find(one["id"])
        return json_answer(found)

    async def silences(self, _: web.Request) -> web.StreamResponse:
        rows = await self._console.read(lambda outbox: people.silences(outbox, _now_us()))
        for row in rows:
            for name in ("begins", "ends", "made_at"):
                row[name] /= US_PER_S
        return json_answer({"silences": rows})

    def _shown(self) -> Shown:
        shown = self._console.shown
        if shown is None:
            raise Refused(503, "the first picture is not there yet", {"Retry-After": "1"})
        return shown

    def _book(self) -> Any:
        return self._console.book

    def _index(self, request: web.Request, shown: Shown) -> int:
        name, of = request.match_info["id"], shown.display
        asked = request.query.get("v")
        if asked is not None and asked != str(of.version):
            raise Refused(409, "the registry has changed: fetch it again")
        if name.startswith("@") and name[1:].isascii() and name[1:].isdigit():
            index = int(name[1:]) if len(name) < 12 else len(of)
            found = index if index < len(of) else None
        else:
            found = of.find(name)
        if found is None:
            raise Refused(404, "no such point")
        return found

    def _time(self, text: str | None, otherwise: float) -> float:
        if text is None:
            return otherwise
        try:
            return _finite(text, "time")
        except Refused:
            pass
        try:
            at = datetime.fromisoformat(text)
            return (at if at.tzinfo else at.replace(tzinfo=self._zone)).timestamp()
        except (ValueError, OverflowError):
            raise Refused(400, "a time is seconds since 1970 or ISO 8601") from None


class _Act:
    """What people do."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._throttle = Throttle(console.options.failed_logins_per_minute_max)
        self._guesses = asyncio.Semaphore(GUESSES_AT_ONCE)
        self._zone = ZoneInfo(console.city.time_zone)

    async def _note(
        self, request: web.Request, what: str, who: str, subject: str = "", detail: str = ""
    ) -> None:
        """To the audit log, in a thread: it waits for the disk."""
        act = audit.Act(what, who, f"console {self._console.guard.address(request)}", subject, detail)
        await asyncio.to_thread(audit.note, self._console.root, act)

    def _may_guess(self, of: tuple[str, ...]) -> None:
        wait_s = self._throttle.wait_s(*of)
        if wait_s > 0:
            raise Refused(
                429, "too many wrong passwords: wait a minute", {"Retry-After": str(int(wait_s) + 1)}
            )

    async def login(self, request: web.Request) -> web.StreamResponse:
        asked = await json_body(request)
        logins, address = self._console.logins, f"address {self._console.guard.address(request)}"
        name = _text(asked, "name") if "token" not in asked else ""
        of = (address, f"name {name[:200]}") if name else (address,)
        self._may_guess(of)
        if "token" in asked:
            claimed = logins.claim(_text(asked, "token"))
            found = (*claimed, "") if claimed else None
        else:
            password = _text(asked, "password")
            async with self._guesses:
                self._may_guess(of)  # of a thousand that came at once most would have passed the first look
                user = await asyncio.to_thread(logins.check, name, password)
            found = (user.name, user.role, user.password) if user else None
        if found is None:
            self._throttle.failed(*of)
            self._console.logins_failed += 1
            # A name nobody has may be a password in the wrong field.
            who = name if name and logins.knows(name) else ""
            why = (
                "a link that was used or is too old"
                if not name
                else "wrong password"
                if who
                else "unknown name"
            )
            await self._note(request, audit.LOGIN_REFUSED, who, detail=why)
            raise Refused(401, "wrong name or password" if name else "this link was used or is too old")
        before = request.get(SESSION)
        if before is not None and before is not ANONYMOUS:
            logins.close(before)
        secret, session = logins.open(*found)
        await self._note(request, audit.LOGIN, session.name, detail=session.role)
        answer = json_answer(_me(session))
        answer.set_cookie(
            COOKIE, secret, httponly=True, samesite="Strict", path="/", secure=self._console.guard.secure,
            max_age=round(self._console.options.session_hours * 3600),
        )  # fmt: skip
        return answer

    async def logout(self, request: web.Request) -> web.StreamResponse:
        session = request[SESSION]
        self._console.logins.close(session)
        await self._note(request, audit.LOGOUT, session.name)
        self._console.feed.end_session(session)
        answer = web.Response(status=204, headers={"Cache-Control": "no-store"})
        answer.del_cookie(
            COOKIE, path="/", httponly=True, samesite="Strict", secure=self._console.guard.secure
        )
        return answer

    async def me(self, request: web.Request) -> web.StreamResponse:
        return json_answer(_me(request[SESSION]))

    async def ack(self, request: web.Request) -> web.StreamResponse:
        asked, who, name = await json_body(request), request[SESSION].name, request.match_info["id"]
        note = _text(asked, "note", "")
        try:
            done = await self._console.act(
                lambda outbox: people.acknowledge(outbox, name, who, _now_us(), note)
            )
        except ValueError as fault:
            raise Refused(404 if str(fault).startswith("no alert") else 409, str(fault)) from None
        await self._note(request, audit.ACKNOWLEDGED, who, done["id"], note)
        return json_answer(done)

    async def silence(self, request: web.Request) -> web.StreamResponse:
        asked, who, now = await json_body(request), request[SESSION].name, _now_us()
        if unknown := sorted(set(asked) - {*SCOPES, "severity_max", "until", "for_s", "why"}):
            raise Refused(400, f"unknown: {', '.join(unknown)[:200]}")
        rule, kind, district, point, gateway = (_text(asked, scope, "") for scope in SCOPES)
        severity = asked.get("severity_max", people.SEVERITY_MAX)
        if not isinstance(severity, int) or isinstance(severity, bool):
            raise Refused(400, "severity_max is 1 to 4")
        matcher = people.Matcher(rule, kind, district, point, gateway, severity)
        ends, why = self._ends(asked, now), _text(asked, "why")
        try:
            number = await self._console.act(
                lambda outbox: people.silence(outbox, matcher, who, why, now, ends, now)
            )
        except ValueError as fault:
            raise Refused(400, str(fault)) from None
        await self._note(request, audit.SILENCED, who, str(number), f"{matcher.said()}: {why}")
        return json_answer({"id": number}, 201)

    async def unsilence(self, request: web.Request) -> web.StreamResponse:
        asked, who, name = await json_body(request), request[SESSION].name, request.match_info["id"]
        if not (name.isascii() and name.isdigit() and len(name) < 19):
            raise Refused(404, "no such silence")
        why = _text(asked, "why")
        try:
            await self._console.act(lambda outbox: people.unsilence(outbox, int(name), who, why, _now_us()))
        except ValueError as fault:
            raise Refused(404, str(fault)) from None
        await self._note(request, audit.UNSILENCED, who, name, why)
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    def _ends(self, asked: dict[str, Any], now: int) -> int:
        until, for_s = asked.get("until"), asked.get("for_s")
        if (until is None) == (for_s is None):
            raise Refused(400, "a silence needs an end: until, or for_s")
        value = until if for_s is None else for_s
        if isinstance(value, str) and for_s is None:
            try:
                at = datetime.fromisoformat(value)
                return round((at if at.tzinfo else at.replace(tzinfo=self._zone)).timestamp() * US_PER_S)
            except (ValueError, OverflowError):
                raise Refused(400, "until is seconds since 1970 or ISO 8601") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
            raise Refused(400, "until and for_s are numbers of seconds")
        return round(value * US_PER_S) + (now if for_s is not None else 0)


def _more_of_districts(shown: Shown, districts: list[dict[str, Any]]) -> None:
    of, state = shown.display, shown.state
    video, alive = of.video, (state & OFFLINE) == 0
    columns = {
        "video": np.stack((district_counts(shown, video & alive), district_counts(shown, video)), axis=1),
        "doubtful": district_counts(shown, (state & DOUBTFUL) != 0),
        "faults": district_counts(shown, (state & FAULT) != 0),
    }
    kinds = len(of.kinds)
    code = of.district.astype(np.int64) * kinds + of.kind
    size = len(of.districts) * kinds
    n = np.bincount(code, minlength=size)
    offline = np.bincount(code[~alive], minlength=size)
    worst = np.zeros(size, np.uint8)
    np.maximum.at(worst, code, state & SEVERITY)
    for d, district in enumerate(districts):
        district |= {name: column[d].tolist() for name, column in columns.items()}
        at = range(d * kinds, (d + 1) * kinds)
        district["kinds"] = {
            of.kinds[i - d * kinds]: [int(n[i]), int(offline[i]), int(worst[i])] for i in at if n[i]
        }


def _alert(outbox: Outbox, alert_id: str) -> dict[str, Any] | None:
    found = outbox.show(alert_id)
    if found is None:
        return None
    for row in found["revisions"]:
        row.pop("rowid", None)
        for name in ("onset", "at", "recorded_at"):
            row[name] /= US_PER_S
    for row in found["deliveries"]:
        for name in ("created_at", "next_at", "done_at"):
            row[name] = row[name] / US_PER_S if row[name] is not None else None
    steps = people.steps(outbox, 0, _now_us() + US_PER_S, alert_id)
    found["steps"] = [{**step, "at": step["at"] / US_PER_S} for step in steps]
    members = outbox.rows(
        "SELECT point_id AS id, severity, severity_now, open FROM member WHERE grp = ? "
        "ORDER BY open DESC, severity_now DESC, severity DESC, onset LIMIT 200",
        (found["group"],),
    )
    found["members"] = [dict(row) for row in members]
    return found


def _me(session: Session) -> dict[str, Any]:
    anonymous = session is ANONYMOUS
    expires = None if anonymous else session.expires
    return {"name": session.name, "role": session.role, "anonymous": anonymous, "expires_at": expires}


def _text(asked: dict[str, Any], name: str, otherwise: str | None = None) -> str:
    value = asked.get(name, otherwise)
    if not isinstance(value, str):
        raise Refused(400, f"{name} is needed, as text")
    return value


def _finite(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Refused(400, f"{name} must be a number") from None
    if not abs(value) < 1e12:
        raise Refused(400, f"{name} is out of range")
    return value


def _span(text: str) -> float:
    if text not in SPANS_S:
        raise Refused(400, f"span is one of {', '.join(SPANS_S)}")
    return SPANS_S[text]


def _now_us() -> int:
    return time.time_ns() // 1000
