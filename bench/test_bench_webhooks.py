"""How fast alerts leave: 1,000 alert events, in ten ticks, to one receiver in another process.

Caveats first: loopback, a receiver that only answers, an otherwise idle loop, the disk's own fsync. Measured is a
round: from the first ``record`` (an outbox transaction begins) to the answer to the last call. What single alerts
took, from their ``record`` to the receiver having the whole request on one clock, stands in the extra figures. A busy
machine makes all of that longer and none of it wrong: asserted is that each alert arrived.
Run: pytest bench/test_bench_webhooks.py
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import numpy as np
import pytest

from anomaly.alerts.delivery import Deliverer
from anomaly.alerts.outbox import Outbox
from anomaly.settings import WebhookSettings
from tests.anomaly_events import event

ALERTS: Final = 1_000
TICKS: Final = 10
ROUNDS: Final = 3
TICK_S: Final = 0.1
ROUND_S_MAX: Final = 120
"""A round takes a second or two; what takes this long has stopped."""
RECEIVER: Final = """
import json, sys, time
from aiohttp import web
seen = []
async def take(request):
    await request.read()
    seen.append((request.headers["webhook-id"], time.time()))
    return web.Response()
async def tell(_):
    told = seen.copy()
    seen.clear()
    return web.json_response(told)
app = web.Application()
app.router.add_post("/", take)
app.router.add_get("/", tell)
import socket
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
web.run_app(app, sock=sock, print=None)
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    """Where it listens; a GET says, once, which webhook-ids came and when."""
    with subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(one.stdout.readline())}/"
        finally:
            one.terminate()


@pytest.mark.parametrize("burst", [False, True], ids=["over a second", "at once"])
def test_a_thousand_alerts_reach_their_receiver(
    tmp_path: Path, receiver: str, benchmark: Any, burst: bool
) -> None:
    hook = WebhookSettings.model_validate({"name": "bench", "url": receiver, "secret": "s"})
    files = (tmp_path / f"outbox-{n}.db" for n in itertools.count())
    took: list[float] = []

    def turn() -> int:
        began = asyncio.run(_tell(next(files), hook, burst))
        with urlopen(receiver) as answer:
            seen = json.load(answer)
        took.extend(at - began[webhook_id] for webhook_id, at in seen)
        return len({webhook_id for webhook_id, _ in seen})

    assert benchmark.pedantic(turn, rounds=ROUNDS) == ALERTS
    benchmark.extra_info |= {f"p{share}_s": round(float(np.percentile(took, share)), 3) for share in (50, 99)}


async def _tell(outbox_file: Path, hook: WebhookSettings, burst: bool) -> dict[str, float]:
    """One round, until every call is answered; by webhook-id when its alert's ``record`` began."""
    deliverer = Deliverer(outbox_file, [hook])
    running = asyncio.create_task(deliverer.run())
    began: dict[str, float] = {}

    def judge() -> None:
        outbox = Outbox(outbox_file, [hook])
        for tick in range(TICKS):
            due = time.monotonic() + (0 if burst else TICK_S)
            events = [event(tick * ALERTS // TICKS + n) for n in range(ALERTS // TICKS)]
            began.update({f"{e.id}.1.bench": time.time() for e in events})
            outbox.record(events, tick)
            deliverer.wake()
            time.sleep(max(0.0, due - time.monotonic()))
        outbox.close()

    thread = threading.Thread(target=judge)
    thread.start()
    try:
        async with asyncio.timeout(ROUND_S_MAX):
            while deliverer.counters["webhooks_delivered"] < ALERTS:  # noqa: ASYNC110 (a counter, not an event)
                await asyncio.sleep(0.01)
    finally:
        thread.join()
        await deliverer.stop()
        await running
    return began
