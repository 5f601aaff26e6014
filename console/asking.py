"""Asking: the routes of saved queries and of SQL that people type.

Owns their arguments and the CSV people open in a spreadsheet. What may be asked is said by query files
(console.queryfiles) and held by the cage (storage.sqlsession).
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import orjson
from aiohttp import web

from console.guard import Refused, json_answer, json_body
from console.logins import OPERATE, VIEW
from console.queries import FILES_MAX, Broken, told
from console.queryfiles import Query
from console.route import Route
from storage.batch import US_PER_S

if TYPE_CHECKING:
    from console.server import Console

SQL_CHARS_MAX: Final = 20_000
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet computes what begins so: of names from outside that is shown as text."""
BOM: Final = "\ufeff"
"""Without it spreadsheets take Chinese for Latin."""
TRIAL: Final = "trial"
TRIED_MAX: Final = 4 * FILES_MAX
"""Statements of which is remembered whether they can be answered: all that can be listed, and as many edits."""
PATIENCE_S: Final = 2.0
"""So long the first list waits for queries to be planned: over a large lake each takes a tenth of a second."""


def routes(console: Console) -> list[Route]:
    """What this module answers."""
    asking = _Asking(console)
    return [
        Route("GET", "/api/queries", VIEW, asking.queries),
        Route("GET", "/api/queries/{name}", VIEW, asking.query),
        Route("POST", "/api/sql", OPERATE, asking.sql),
    ]


class Tried:
    """What came of planning a statement, by a digest of its text; beyond TRIED_MAX the oldest is forgotten."""

    def __init__(self) -> None:
        self._faults: dict[bytes, str] = {}

    def __contains__(self, sql: str) -> bool:
        return _digest(sql) in self._faults

    def __len__(self) -> int:
        return len(self._faults)

    def fault(self, sql: str) -> str:
        """Why it cannot be answered; "" where it can or nobody tried."""
        return self._faults.get(_digest(sql), "")

    def note(self, sql: str, fault: str) -> None:
        """It was tried."""
        if len(self._faults) >= TRIED_MAX:
            del self._faults[next(iter(self._faults))]
        self._faults[_digest(sql)] = fault


def _digest(sql: str) -> bytes:
    return hashlib.sha256(sql.encode()).digest()


class _Asking:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._zone = ZoneInfo(console.city.time_zone)
        self._tried = Tried()
        self._trying: asyncio.Task[None] | None = None

    async def queries(self, _: web.Request) -> web.StreamResponse:
        """Every query there is; what cannot be asked is named with its fault and left out.

        ``untried``: so many are listed that nobody has planned yet; it goes on.
        """
        library = self._console.library
        await asyncio.to_thread(library.look)
        found = list(library.queries.values())
        if any(query.sql not in self._tried for query in found):
            if self._trying is None or self._trying.done():
                self._trying = asyncio.create_task(self._try(found), name="console queries tried")
            await asyncio.wait([self._trying], timeout=PATIENCE_S)
        faults = {query.name: self._tried.fault(query.sql) for query in found}
        broken = [
            *library.broken,
            *(Broken(f"{q.name}.sql", faults[q.name]) for q in found if faults[q.name]),
        ]
        return json_answer(
            {
                "queries": [told(query) for query in found if not faults[query.name]],
                "broken": [{"file": one.file, "fault": one.fault} for one in broken],
                "untried": sum(query.sql not in self._tried for query in found),
                "free_sql": self._console.options.free_sql,
            }
        )

    async def query(self, request: web.Request) -> web.StreamResponse:
        query = await self._named(request.match_info["name"])
        said = dict(request.query)
        form = said.pop("format", "json")
        if form not in ("json", "csv"):
            raise Refused(400, "format is json or csv")
        try:
            bound = query.arguments(said, datetime.now(self._zone))
        except ValueError as fault:
            raise Refused(400, str(fault)) from None
        plain = {k: v.timestamp() if isinstance(v, datetime) else v for k, v in bound.items()}
        return await self._answer(query.sql, _wired(bound), form, query.name, {"arguments": plain})

    async def sql(self, request: web.Request) -> web.StreamResponse:
        if not self._console.options.free_sql:
            raise Refused(403, "SQL of your own is not open here: [console] free_sql = true opens it")
        asked = await json_body(request)
        sql, form = asked.get("sql"), asked.get("format", "json")
        if not isinstance(sql, str) or not sql.strip():
            raise Refused(400, "sql is needed, as text")
        if len(sql) > SQL_CHARS_MAX:
            raise Refused(400, f"the statement is longer than {SQL_CHARS_MAX} characters")
        if form not in ("json", "csv"):
            raise Refused(400, "format is json or csv")
        return await self._answer(sql.strip().removesuffix(";"), {}, form, "sql", {})

    async def _named(self, name: str) -> Query:
        library = self._console.library
        await asyncio.to_thread(library.look)
        if name not in library.queries:
            raise Refused(404, "no such query")
        return library.queries[name]

    async def _answer(
        self, sql: str, bound: dict[str, Any], form: str, name: str, more: dict[str, Any]
    ) -> web.StreamResponse:
        began = time.perf_counter()
        question = {"sql": sql, "format": "json", "parameters": bound}
        status, _, body = await self._console.asker.ask("sql", question)
        if status != 200:
            error = orjson.loads(body)["error"]
            # 408 would make a browser ask again by itself.
            raise Refused(
                503 if status == 408 else status, error, {"Retry-After": "5"} if status == 408 else None
            )
        if form == "csv":
            raw = await asyncio.to_thread(spreadsheet, body)
            headers = {
                "Content-Type": "text/csv; charset=utf-8",
                "Content-Disposition": f'attachment; filename="{name}.csv"',
                "Cache-Control": "no-store",
            }
            return web.Response(body=raw, headers=headers)
        took = round((time.perf_counter() - began) * 1000, 1)
        return json_answer({"name": name, **more, "took_ms": took, "answer": orjson.Fragment(body)})

    async def _try(self, queries: list[Query]) -> None:
        """Plan each query once, by its text; "" where it can be answered."""
        for query in queries:
            if query.sql in self._tried:
                continue
            bound = _wired(query.arguments({}, datetime.now(self._zone)))
            question = {"sql": query.sql, "format": TRIAL, "parameters": bound}
            try:
                status, _, body = await self._console.asker.ask("sql", question)
            except Refused:
                return  # nobody has the time now; whoever asks a broken one is told
            self._tried.note(query.sql, "" if status in (200, 408) else orjson.loads(body)["error"])


def _wired(bound: dict[str, Any]) -> dict[str, Any]:
    """Parameters as the session reads them."""
    return {
        name: {"us": round(value.timestamp() * US_PER_S)} if isinstance(value, datetime) else value
        for name, value in bound.items()
    }


def spreadsheet(body: bytes) -> bytes:
    """A JSON answer as CSV that a spreadsheet opens as it is meant."""
    answer = orjson.loads(body)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_cell(column["name"]) for column in answer["columns"]])
    writer.writerows([_cell(value) for value in row] for row in answer["rows"])
    return (BOM + out.getvalue()).encode()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return orjson.dumps(value).decode() if isinstance(value, list | dict) else value
