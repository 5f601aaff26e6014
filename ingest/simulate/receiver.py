"""A webhook receiver that keeps the time: how long after its reading an alert arrives.

Owns the receiving end of a demo or test: it answers, notes every call as one line of JSON, checks the
signature and says at its end what came. Knows the webhook's body as a stranger would, from its schema.
Run as ``python -m ingest.simulate.receiver`` with ReceiverOptions as JSON on the first line of stdin.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from ingest.simulate.speaker import cpu_s, forget_signals, say

FIRING = "alert.firing"
AGE_S_MAX = 300.0
"""A signed call older than this is a replay, says Standard Webhooks."""
BODY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class ReceiverOptions:
    """Where to listen. Port 0 takes a free one and ``ready`` says which. ``secret`` None checks nothing."""

    log_file: str
    host: str = "127.0.0.1"
    port: int = 0
    secret: str | None = None


@dataclass(slots=True)
class ReceiverReport:
    """What came. Latencies are seconds from the event's time to arrival, of alert.firing; NaN without any.

    alerts      different alert ids among alert.firing
    repeated    calls whose (id, revision, type) had come before: allowed, at least once
    unsigned    calls whose signature was missing or wrong: answered 401
    """

    calls: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    alerts: int = 0
    repeated: int = 0
    unsigned: int = 0
    unreadable: int = 0
    p50_s: float = float("nan")
    p99_s: float = float("nan")
    max_s: float = float("nan")
    cpu_s: float = 0.0


class Receiver:
    """Takes calls; keeps counts and, in ``log_file``, one line a call: arrived, latency_s and the body."""

    def __init__(self, log_file: Path, secret: str | None) -> None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        self._log = log_file.open("a", encoding="utf-8")
        self._key = None if secret is None else signing_key(secret)
        self._seen: Counter[tuple[str, int, str]] = Counter()
        self._by_type: Counter[str] = Counter()
        self._firing: set[str] = set()
        self._latency_s: list[float] = []
        self._unsigned = self._unreadable = 0

    async def receive(self, request: web.Request) -> web.Response:
        """The handler of every POST."""
        body = await request.read()
        arrived = time.time()
        if self._key is not None and not signed(self._key, request.headers, body, arrived):
            self._unsigned += 1
            return web.Response(status=401, text="signature missing or wrong")
        try:
            self.note(arrived, json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            self._unreadable += 1
            return web.Response(status=400, text=f"not a webhook body v1: {type(fault).__name__}")
        return web.Response(status=204)

    def note(self, arrived: float, body: Mapping[str, Any]) -> None:
        """One call's body, at seconds since 1970. ValueError, KeyError or TypeError for a wrong one."""
        kind, data = body["type"], body["data"]
        line: dict[str, Any] = {"arrived": arrived, "type": kind, "id": data["id"]}
        if kind.startswith("alert."):
            revision = int(data["revision"])
            latency_s = arrived - datetime.fromisoformat(data["at"]).timestamp()
            line |= {"revision": revision, "latency_s": latency_s, "at": data["at"]}
            line["point"] = data["point"]["id"] if data.get("point") else None
            key = (data["id"], revision, kind)
            if kind == FIRING and not self._seen[key]:
                self._latency_s.append(latency_s)
                self._firing.add(data["id"])
            self._seen[key] += 1
        self._by_type[kind] += 1
        self._log.write(json.dumps({**line, "body": body}, ensure_ascii=False) + "\n")

    def report(self) -> ReceiverReport:
        """What came so far."""
        found = ReceiverReport(
            calls=sum(self._by_type.values()) + self._unsigned + self._unreadable,
            by_type=dict(self._by_type),
            alerts=len(self._firing),
            repeated=sum(n - 1 for n in self._seen.values()),
            unsigned=self._unsigned,
            unreadable=self._unreadable,
        )
        if self._latency_s:
            found.p50_s, found.p99_s = (float(np.quantile(self._latency_s, q)) for q in (0.5, 0.99))
            found.max_s = max(self._latency_s)
        return found

    def close(self) -> None:
        """Write the log out."""
        self._log.close()


def signing_key(secret: str) -> bytes:
    """Standard Webhooks: base64 after ``whsec_``, else the text itself."""
    return base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()


def signed(key: bytes, headers: Mapping[str, str], body: bytes, now_s: float) -> bool:
    """Whether one of the call's v1 signatures is ours and its timestamp is of now."""
    webhook_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not webhook_id or not stamp.isdigit() or abs(now_s - int(stamp)) > AGE_S_MAX:
        return False
    wanted = hmac.new(key, f"{webhook_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    for signature in headers.get("webhook-signature", "").split():
        version, _, text = signature.partition(",")
        try:
            if version == "v1" and hmac.compare_digest(base64.b64decode(text), wanted):
                return True
        except binascii.Error:
            continue
    return False


async def _main(options: ReceiverOptions) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    forget_signals(lambda: loop.call_soon_threadsafe(stopped.set))
    loop.add_reader(sys.stdin.fileno(), _parent_gone, stopped)
    receiver = Receiver(Path(options.log_file), options.secret)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port)
    await site.start()
    say(ready=True, port=runner.addresses[0][1])
    cpu = cpu_s()
    await stopped.wait()
    await runner.cleanup()
    receiver.close()
    report = receiver.report()
    report.cpu_s = cpu_s() - cpu
    say(report=asdict(report))


def _parent_gone(stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 64):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopped.set()


def main() -> None:
    """Receive until SIGTERM or the parent's end; report."""
    asyncio.run(_main(ReceiverOptions(**json.loads(sys.stdin.buffer.readline()))))


if __name__ == "__main__":
    main()
