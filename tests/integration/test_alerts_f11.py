"""F11: whatever a webhook's other end does, ten alerts arrive: each at least once, in order, signed, none lost."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from anomaly.alerts.event import RESOLVED
from anomaly.alerts.outbox import Outbox
from tests.alerts_receiving import delivering, receiving, states, until, webhook
from tests.anomaly_events import event
from tests.engines import ROOT

ALERTS = 10
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def error(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def busy(_: web.Request) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "0"})


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def redirect(_: web.Request) -> web.StreamResponse:
    raise web.HTTPPermanentRedirect("http://169.254.169.254/latest/meta-data")


async def huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=503)
    await response.prepare(request)
    for _ in range(64):
        await response.write(b"x" * 65_536)
    return response


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=502)
    await response.prepare(request)
    for _ in range(600):
        await response.write(b"x")
        await asyncio.sleep(0.05)
    return response


@pytest.mark.parametrize("fault", [error, busy, hang, hang_up, redirect, huge, drip])
async def test_ten_alerts_arrive_when_the_other_end_heals(tmp_path: Path, fault: Respond) -> None:
    healed = False

    async def respond(request: web.Request, n: int) -> web.StreamResponse:
        if healed:
            return web.Response()
        try:
            return await fault(request)
        except (ConnectionError, asyncio.CancelledError):
            return web.Response(status=500)

    async with receiving(respond) as receiver:
        hook = webhook(receiver, secret=SECRET, timeout_s=0.4)
        async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
            outbox.record([event(n) for n in range(ALERTS)], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_failed"] >= ALERTS)
            outbox.record([event(0, 2, RESOLVED)], 2)
            healed = True
            deliverer.wake()
            await until(lambda: deliverer.waiting == 0)
            await until(lambda: "queued" not in states(outbox))
            told = {(row["alert_id"], row["revision"]): row["state"] for row in outbox.deliveries()}
    newest = {(event(0).id, 2), *((event(n).id, 1) for n in range(1, ALERTS))}
    assert {told[one] for one in newest} == {"sent"}
    assert told[event(0).id, 1] in ("sent", "superseded"), (
        "sent, where its call was in the air when the end healed"
    )
    calls = zip(receiver.raw, receiver.headers, strict=True)
    arrived = [Webhook(SECRET).verify(raw, headers)["data"] for raw, headers in calls]
    assert {(data["id"], data["revision"]) for data in arrived} >= newest
    course = [data["revision"] for data in arrived if data["id"] == event(0).id]
    assert course == sorted(course), "never back to an older state"


DELIVERER = """
import asyncio, sys
from pathlib import Path
from anomaly.alerts.delivery import Deliverer
from anomaly.settings import WebhookSettings
hook = WebhookSettings.model_validate_json(sys.argv[2])
asyncio.run(Deliverer(Path(sys.argv[1]), [hook], retry_s=(0.05,)).run())
"""


async def test_a_deliverer_killed_while_it_sends_leaves_nothing_unsent(tmp_path: Path) -> None:
    """kill -9 three times with calls in the air; what was answered is not forgotten, what was not is sent again."""
    arrived = asyncio.Event()
    slow = True

    async def respond(_: web.Request, __: int) -> web.StreamResponse:
        arrived.set()
        if slow:
            await asyncio.sleep(0.2)
        return web.Response()

    async with receiving(respond) as receiver:
        hook = webhook(receiver, secret=SECRET, concurrency_max=3)
        outbox = Outbox(tmp_path / "o.db", [hook])
        outbox.record([event(n) for n in range(ALERTS)], 1)
        for life in range(4):
            arrived.clear()
            slow = life < 3
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", DELIVERER, str(tmp_path / "o.db"), hook.model_dump_json(),
                cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
            async with asyncio.timeout(30):
                await arrived.wait()
            if not slow:
                await until(lambda: set(states(outbox)) == {"sent"})
            process.send_signal(signal.SIGKILL)
            await process.wait()
        outbox.close()
    ids = [headers["webhook-id"] for headers in receiver.headers]
    assert set(ids) == {f"{event(n).id}.1.room" for n in range(ALERTS)}
    for raw, headers in zip(receiver.raw, receiver.headers, strict=True):
        assert Webhook(SECRET).verify(raw, headers) == json.loads(raw)
