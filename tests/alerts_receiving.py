"""Targets of notifications that are real HTTP servers on loopback, and a deliverer that calls them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from anomaly.alerts.delivery import Deliverer
from anomaly.alerts.outbox import Outbox
from anomaly.settings import AlertSettings, TargetSettings, WebhookSettings

DEADLINE_S = 60.0
QUICK = (0.05, 0.05, 0.1)
"""Retries in tests, in seconds."""
Respond = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """What a target saw; ``respond`` decides on the nth request (from 1)."""

    respond: Respond
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=s3cret-in-url"

    async def take(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.raw.append(raw)
        self.bodies.append(json.loads(raw))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return await self.respond(request, len(self.bodies))


@asynccontextmanager
async def receiving(respond: Respond) -> AsyncIterator[Receiver]:
    receiver = Receiver(respond)
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def delivering(
    path: Path, targets: Sequence[TargetSettings], **options: Any
) -> AsyncIterator[tuple[Deliverer, Outbox]]:
    deliverer = Deliverer(path, targets, retry_s=options.pop("retry_s", QUICK), **options)
    task = asyncio.create_task(deliverer.run())
    outbox = Outbox(path, targets, AlertSettings.model_validate({"link": "https://map.example/alert/"}))
    try:
        yield deliverer, outbox
    finally:
        await deliverer.stop()
        await task
        outbox.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; a test that waits in vain fails."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (what is waited for is in a file or another task)
            await asyncio.sleep(0.005)


async def ok(_: web.Request, __: int) -> web.StreamResponse:
    return web.Response(text="ok")


def webhook(receiver: Receiver, name: str = "room", **values: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"name": name, "url": receiver.url, **values})


def states(outbox: Outbox) -> list[str]:
    return [row["state"] for row in reversed(outbox.deliveries())]
