"""Supervising: the routes of projects, source systems and districts, appeals and food.

Owns their arguments, and that many pages that look at once ask the lake once. The answers are console.superviseside's.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from console.guard import Refused
from console.logins import VIEW
from console.route import Route

if TYPE_CHECKING:
    from console.server import Console

FRESH_S: Final = 10.0
"""Pages ask once a minute; within this time all are told the same."""
KEPT_MAX: Final = 64
PACKED_BYTES_MIN: Final = 32_768
"""Thousands of sites are a megabyte of text; packed off the loop, a tenth of that."""
SPANS_S: Final = {"24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400, "90d": 90 * 86_400}
NAME_CHARS_MAX: Final = 500

Asked = tuple[int, str, bytes]


def routes(console: Console) -> list[Route]:
    """What this module answers."""
    here = _Supervising(console)
    return [
        Route("GET", "/api/supervision/projects", VIEW, here.projects),
        Route("GET", "/api/supervision/projects/{id}", VIEW, here.project),
        Route("GET", "/api/supervision/systems", VIEW, here.systems),
        Route("GET", "/api/supervision/services", VIEW, here.services),
    ]


class _Supervising:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._kept: dict[bytes, tuple[float, asyncio.Task[Asked]]] = {}

    async def projects(self, _: web.Request) -> web.StreamResponse:
        kinds = self._console.options.video_kinds
        return await self._answer("projects", {"video": kinds[0] if kinds else ""})

    async def project(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        if len(name) > NAME_CHARS_MAX:
            raise Refused(404, "no such project")
        return await self._answer("project", {"project": name})

    async def systems(self, request: web.Request) -> web.StreamResponse:
        return await self._answer("systems", _span(request, "24h"))

    async def services(self, request: web.Request) -> web.StreamResponse:
        return await self._answer("services", _span(request, "30d"))

    async def _answer(self, question: str, arguments: dict[str, Any]) -> web.StreamResponse:
        status, kind, body = await self._once(question, arguments)
        headers = {"Content-Type": kind, "Cache-Control": "no-store"}
        answer = web.Response(body=body, status=status, headers=headers, zlib_executor_size=PACKED_BYTES_MIN)
        if len(body) >= PACKED_BYTES_MIN:
            answer.enable_compression()
        return answer

    async def _once(self, question: str, arguments: dict[str, Any]) -> Asked:
        key, now = orjson.dumps([question, arguments]), time.monotonic()
        self._kept = {k: one for k, one in self._kept.items() if now - one[0] < FRESH_S or not one[1].done()}
        if key in self._kept:
            return await asyncio.shield(self._kept[key][1])
        task = asyncio.create_task(self._console.lake.ask(question, arguments), name=f"console {question}")
        if len(self._kept) < KEPT_MAX:
            self._kept[key] = now, task
        try:
            found = await asyncio.shield(task)
        except Refused:
            self._kept.pop(key, None)
            raise
        if found[0] != 200:
            self._kept.pop(key, None)
        return found


def _span(request: web.Request, otherwise: str) -> dict[str, float]:
    """since and until of ``span``, rounded to a minute so that pages ask the same."""
    said = request.query.get("span", otherwise)
    if said not in SPANS_S:
        raise Refused(400, f"span is one of {', '.join(SPANS_S)}")
    until = time.time() // 60 * 60
    return {"since": until - SPANS_S[said], "until": until + 60}
