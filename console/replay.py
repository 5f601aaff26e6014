"""Replay: a stored day of the city for the page, out of the lake.

Owns which days may be asked for, how long an answer is kept, and the routes under ``/api/replay``. What a day is made
of is console.pastday's and console.pastasked's; here only bytes pass through.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import date as Date  # noqa: N812 - a type's name
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import orjson
from aiohttp import web

from console import frames
from console.display import Display
from console.guard import Refused, json_answer
from console.lake import Lake
from console.pastday import states_of
from console.shown import SEVERITIES, Painter, Shown
from storage.batch import US_PER_S

MINUTE_S: Final = 60
SETTLE_S: Final = 10.0
"""So long after it was recorded, a step of an alert stands in the lake."""
GROWING_KEPT_S: Final = 15.0
WHOLE_KEPT_S: Final = 900.0
"""Also a day that is over is asked anew at times: a reading that came late may still have changed it."""
OVER_AFTER_S: Final = 900.0
"""A day grows until so long after its midnight."""
TELL_S_MAX: Final = 30.0
"""Telling a day of 75,000 steps of alerts takes 4 s of CPU, below everything else that wants it."""
LIST_KEPT_S: Final = 10.0
DAYS_KEPT: Final = 8
"""At most 12 MB."""


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    answer: asyncio.Task[bytes]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A city day: its name, its midnights in s, and what of it is in the lake for good by now."""

    date: str
    begin: float
    end: float
    until: float
    grows: bool


class Replay:
    """Days of one city. ``shown`` tells the newest frame, ``judged_s`` up to when the engine has judged, s."""

    def __init__(
        self,
        lake: Lake,
        time_zone: str,
        shown: Callable[[], Shown],
        judged_s: Callable[[], float],
        flags: int = 0,
    ) -> None:
        self._lake = lake
        self._zone_name = time_zone
        self._zone = ZoneInfo(time_zone)
        self._shown = shown
        self._judged_s = judged_s
        self._flags = flags | frames.REPLAY
        self._kept: dict[tuple[str, int], _Kept] = {}
        self._numbers: tuple[int, str] | None = None

    async def days(self, _: web.Request) -> web.StreamResponse:
        """``GET /api/replay``."""
        return json_answer(orjson.loads(await self._days()))

    async def day(self, request: web.Request) -> web.StreamResponse:
        """``GET /api/replay/{date}``."""
        of = await self._asked(request)
        body = await self._day(of, self._shown().display)
        etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache, private"}
        if etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        headers |= {"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"}
        return web.Response(body=body, headers=headers)

    async def counts(self, request: web.Request) -> web.StreamResponse:
        """``GET /api/replay/{date}/counts?minute=``: by DuckDB, not by us."""
        of = await self._asked(request)
        minute, at = _minute(request, of)
        rows = orjson.loads(await self._ask("counts", {"t": at}))["rows"]
        names = self._shown().display.districts
        by = {name: [0] * SEVERITIES for name in names}
        for name, severity, points in rows:
            by.setdefault(name or "", [0] * SEVERITIES)[severity] += points
        listed = [{"id": name, "severity": n, "n": sum(n)} for name, n in by.items()]
        total = [sum(n[s] for n in by.values()) for s in range(SEVERITIES)]
        return json_answer({"minute": minute, "time": at, "severity": total, "districts": listed})

    async def levels(self, request: web.Request) -> web.StreamResponse:
        """``GET /api/replay/{date}/levels?minute=``: a keyframe as in the feed."""
        of = await self._asked(request)
        minute, at = _minute(request, of)
        shown = self._shown()
        day = await self._day(of, shown.display)
        values = await self._ask("replay_levels", {"t": at, "points": len(shown.display.points)})
        try:
            frame = await asyncio.to_thread(_frame, shown, values, day, minute, at, self._flags)
        except ValueError:  # the day as it is kept ends before a minute that has just begun
            raise Refused(503, "this minute is not told yet", {"Retry-After": "15"}) from None
        return web.Response(body=frame, headers={"Content-Type": "application/octet-stream"})

    async def _ask(self, question: str, arguments: dict[str, Any], more_s: float = 0.0) -> bytes:
        status, _, body = await self._lake.ask(question, arguments, more_s)
        if status != 200:
            raise Refused(
                status, orjson.loads(body)["error"], {"Retry-After": "5"} if status == 503 else None
            )
        return body

    async def _once(self, key: tuple[str, int], kept_s: float, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """``make`` once for all who ask meanwhile and for a while after; what failed is not kept."""
        now = time.monotonic()
        found = self._kept.get(key)
        if found is None or (found.until < now and found.answer.done()):
            for old in [k for k, v in self._kept.items() if v.until < now and v.answer.done()]:
                del self._kept[old]
            while len(self._kept) >= DAYS_KEPT:
                del self._kept[next(iter(self._kept))]
            found = self._kept[key] = _Kept(now + kept_s, asyncio.ensure_future(_called(make)))
        try:
            return await asyncio.shield(found.answer)
        except Exception:
            if self._kept.get(key) is found:
                del self._kept[key]
            raise

    async def _days(self) -> bytes:
        arguments = {"zone": self._zone_name, "until": time.time()}
        return await self._once(("", 0), LIST_KEPT_S, lambda: self._ask("replay_days", arguments))

    async def _asked(self, request: web.Request) -> _Asked:
        name = request.match_info["date"]
        try:
            first = Date.fromisoformat(name)
            if first.isoformat() != name:
                raise ValueError
            begin = datetime(first.year, first.month, first.day, tzinfo=self._zone)
            end = datetime.combine(first + timedelta(days=1), begin.timetz())
            midnights = begin.timestamp(), end.timestamp()
        except (ValueError, OverflowError):
            raise Refused(400, "a day is named YYYY-MM-DD") from None
        known = min(time.time(), self._judged_s()) - SETTLE_S
        if known < midnights[0]:
            raise Refused(404, f"{name} has not begun: GET /api/replay lists the days there are")
        if name not in {day["date"] for day in orjson.loads(await self._days())["days"]}:
            raise Refused(404, f"nothing is stored of {name}: GET /api/replay lists the days there are")
        # The midnight at the end is the next day's first picture.
        until = min(known, midnights[1] - MINUTE_S)
        return _Asked(name, *midnights, until, known < midnights[1] + OVER_AFTER_S)

    async def _day(self, of: _Asked, display: Display) -> bytes:
        if self._numbers is None or self._numbers[0] != display.version:
            self._numbers = display.version, base64.b64encode(display.number.tobytes()).decode()
        about = {"date": of.date, "end": of.end, "time_zone": self._zone_name, "grows": of.grows}
        arguments = {
            "begin": of.begin, "until": of.until, "version": display.version,
            "numbers": self._numbers[1], "about": about,
        }  # fmt: skip
        kept_s = GROWING_KEPT_S if of.grows else WHOLE_KEPT_S
        return await self._once(
            (of.date, display.version), kept_s, lambda: self._ask("replay_day", arguments, TELL_S_MAX)
        )


async def _called(make: Callable[[], Awaitable[bytes]]) -> bytes:
    return await make()


def _minute(request: web.Request, of: _Asked) -> tuple[int, float]:
    """The minute asked for, and its moment in s."""
    text, last = request.query.get("minute", ""), int(of.until - of.begin) // MINUTE_S
    so_far = " so far" if of.grows else ""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= last):
        raise Refused(400, f"minute is 0 to {last}{so_far}")
    return int(text), of.begin + int(text) * MINUTE_S


def _frame(shown: Shown, values: bytes, day: bytes, minute: int, at: float, flags: int) -> bytes:
    """Levels of what was read, states of what was recorded."""
    body = gzip.decompress(day)
    step_s = orjson.loads(body[16 : 16 + int.from_bytes(body[12:16], "little")])["step_s"]
    _, state = states_of(body, minute * MINUTE_S // step_s)
    picture = replace(shown.picture, now_us=round(at * US_PER_S), seq=0, value=np.frombuffer(values))
    painted = Painter(shown.display, picture).paint(picture)
    return frames.keyframe(Shown(shown.display, picture, painted.level, state), 0, flags)
