"""A browser's side of the map, as plain as it can be: what a page would know after the frames it got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import orjson

from console.frames import DELTA, KEYFRAME, FrameHead, head_of, planes_of
from storage.passwords import hash_password

WAIT_S = 60.0


def users_toml(**roles: str) -> str:
    """A users file; each name is its own password. Quick hashes: tests log in often."""
    return "".join(
        f'[[user]]\nname = "{name}"\nrole = "{role}"\npassword = "{hash_password(name, n=2)}"\n'
        for name, role in roles.items()
    )


class Page:
    """One browser: cookies, and a WebSocket with what it said."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session = session
        self.address = address.rstrip("/")
        self.ws: aiohttp.ClientWebSocketResponse | None = None
        self.heads: list[FrameHead] = []
        self.level: np.ndarray | None = None
        self.state: np.ndarray | None = None
        self.texts: list[dict[str, Any]] = []
        self.groups: dict[str, dict[str, Any]] = {}
        self.alerts_version: int | None = None
        self.sizes: list[int] = []
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        """(status, JSON or bytes, response) with the Origin a page of ours would send."""
        sent = {"Origin": self.address, **headers}
        data = None if body is None else orjson.dumps(body)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.address + path, data=data, headers=sent, allow_redirects=False
        ) as answer:
            raw = await answer.read()
            is_json = answer.content_type == "application/json"
            return answer.status, orjson.loads(raw) if is_json else raw, answer

    async def get(self, path: str) -> Any:
        """JSON of a GET that must be 200."""
        status, found, _ = await self.ask("GET", path)
        assert status == 200, (path, status, found)
        return found

    async def login(self, name: str) -> None:
        """As ``users_toml`` made them."""
        status, found, _ = await self.ask("POST", "/api/login", {"name": name, "password": name})
        assert status == 200, found

    async def open(self) -> None:
        """Open the feed and read it until closed."""
        self.ws = await self.session.ws_connect(self.address + "/ws", origin=self.address, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Close the feed."""
        if self.ws is not None:
            await self.ws.close()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    async def until(self, what: Callable[[], Any], why: str) -> Any:
        """The first true result, looked at after each message."""
        async with asyncio.timeout(WAIT_S):
            while not (found := what()):
                self._news.clear()
                try:
                    await self._news.wait()
                except asyncio.CancelledError:
                    raise AssertionError(f"not within {WAIT_S:g} s: {why}") from None
        return found

    async def _read(self) -> None:
        assert self.ws is not None
        async for message in self.ws:
            if message.type is aiohttp.WSMsgType.BINARY:
                self._frame(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                self._text(orjson.loads(message.data))
            self._news.set()
        self._news.set()

    def _frame(self, raw: bytes) -> None:
        head, (level, state) = head_of(raw), planes_of(raw)
        if head.type == DELTA:
            assert self.level is not None
            assert self.state is not None
            assert self.heads[-1].seq == head.seq - 1, "a delta for a picture this page has not"
            level, state = self.level + level, self.state ^ state
        else:
            assert head.type == KEYFRAME
        self.level, self.state = level, state
        self.heads.append(head)
        self.sizes.append(len(raw))

    def _text(self, said: dict[str, Any]) -> None:
        self.texts.append(said)
        if said["t"] == "alerts":
            if said["full"]:
                self.groups = {}
            else:
                assert self.alerts_version == said["version"] - 1, "a change of a list this page has not"
            for group in said["changed"]:
                self.groups[group["id"]] = group
            for gone in said["gone"]:
                self.groups.pop(gone, None)
            self.alerts_version = said["version"]


@asynccontextmanager
async def page(address: str) -> AsyncIterator[Page]:
    """A fresh browser at an address."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        one = Page(session, address)
        try:
            yield one
        finally:
            await one.close()
