"""How fast alerts leave: 1,000 alert events a second, in ten ticks, to one receiver in another process.

Caveats first: loopback, a receiver that only answers, an otherwise idle loop, the disk's own fsync. The
figure is from ``record`` (the outbox transaction begins) to the receiver having the whole request, on one
clock. Run: pytest bench/test_bench_webhooks.py -s
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from anomaly.alerts.delivery import Deliverer
from anomaly.alerts.outbox import Outbox
from anomaly.settings import WebhookSettings
from tests.anomaly_events import event

ALERTS = 1_000
TICKS = 10
P99_S_MAX = 0.5
RECEIVER = """
import json, sys, time
from aiohttp import web
seen = []
async def take(request):
    await request.read()
    seen.append((request.headers["webhook-id"], time.time()))
    return web.Response()
async def tell(_):
    return web.json_response(seen)
app = web.Application()
app.router.add_post("/", take)
app.router.add_get("/", tell)
import socket
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
web.run_app(app, sock=sock, print=None)
"""


@pytest.mark.parametrize("burst", [False, True], ids=["over a second", "at once"])
async def test_a_thousand_alerts_in_a_second_are_out_within_half_a_second(
    tmp_path: Path, burst: bool
) -> None:
    command = [sys.executable, "-c", RECEIVER]
    receiver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 (before the clock)
    assert receiver.stdout is not None
    port = int(receiver.stdout.readline())
    hook = WebhookSettings.model_validate(
        {"name": "bench", "url": f"http://127.0.0.1:{port}/", "secret": "s"}
    )
    deliverer = Deliverer(tmp_path / "outbox.db", [hook])
    running = asyncio.create_task(deliverer.run())
    began: dict[str, float] = {}

    def judge() -> None:
        outbox = Outbox(tmp_path / "outbox.db", [hook])
        for tick in range(TICKS):
            due = time.monotonic() + (0 if burst else 0.1)
            events = [event(tick * ALERTS // TICKS + n) for n in range(ALERTS // TICKS)]
            began.update({f"{e.id}.1.bench": time.time() for e in events})
            outbox.record(events, tick)
            deliverer.wake()
            time.sleep(max(0.0, due - time.monotonic()))
        outbox.close()

    thread = threading.Thread(target=judge)
    thread.start()
    try:
        async with asyncio.timeout(30):
            while deliverer.counters["webhooks_delivered"] < ALERTS:  # noqa: ASYNC110 (a counter, not an event)
                await asyncio.sleep(0.01)
        thread.join()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
    finally:
        await deliverer.stop()
        await running
        receiver.terminate()
        receiver.wait(10)
    seen = json.loads(answer.partition(b"\r\n\r\n")[2])
    took = np.array([at - began[webhook_id] for webhook_id, at in seen])
    print(f"p50 {np.percentile(took, 50):.3f} s, p99 {np.percentile(took, 99):.3f} s, max {took.max():.3f} s")
    assert len({webhook_id for webhook_id, _ in seen}) == ALERTS
    assert burst or np.percentile(took, 99) <= P99_S_MAX
