"""What the wire's kernels cost a message and a reading, each form apart, beside plain Python on the same bytes.

Each case is one connection's bytes of 100,000 readings over 100,000 topics in random order, as MQTT brings them: scan
of the frames, look-up of the topic, decode into columns. ``python -m pytest bench/test_bench_kernels.py -s`` prints
both ways and their ratio; plain Python decodes a tenth of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from ingest.config import Config, SourceSettings
from ingest.decode.messages import Chunk, Messages
from ingest.frames import scan
from ingest.mqtt.arena import Arena
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Publish
from ingest.mqtt.properties import Prop, Properties
from ingest.routes import Routes
from tests.tables import point_table

READINGS = 100_000
PACK = 100
NOW_US = time.time_ns() // 1000
MS = NOW_US // 1000
ISO = (
    datetime.fromtimestamp(MS / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
)
PEER = SimpleNamespace(client_id="bench", credential=None, from_publisher=True)

Form = Callable[[int], bytes]
ONE: dict[str, Form] = {
    "template": lambda n: b'{"ts":%d,"v":%d.25}' % (MS, n % 100),
    "reordered": lambda n: b'{"v":%d.25,"ts":%d}' % (n % 100, MS),
    "whitespace": lambda n: b'{ "ts": %d, "v": %d.25 }' % (MS, n % 100),
    "iso": lambda n: b'{"ts":"%s","v":%d.25}' % (ISO, n % 100),
}
ONE["mix"] = lambda n: list(ONE.values())[n % 4](n)
ONE["17 digits"] = lambda n: f'{{"ts":{MS},"v":{n / 7!r}}}'.encode()
ONE["five fields"] = lambda n: b'{"id":"p%d","ts":%d,"v":%d.25,"q":1,"unit":"cm"}' % (n, MS, n % 100)


def _pack(n: int) -> bytes:
    return b"[" + b",".join(ONE["template"](n + k) for k in range(PACK)) + b"]"


def _bare(n: int) -> bytes:
    return b"%d.25" % (n % 100)


@cache
def routes(bare: bool) -> Routes:
    on_receipt = tuple(range(READINGS)) if bare else ()
    points = point_table(READINGS, gateways=1000, on_receipt=on_receipt)
    return Routes(points, Config(source=[SourceSettings(name="flood")]))


def cpu_s(turn: Callable[[], object], times: int = 5) -> float:
    """CPU seconds of the best of some."""
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        turn()
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize(
    ("name", "form", "each"),
    [
        *((name, form, 1) for name, form in ONE.items()),
        ("arrays of 100", _pack, PACK),
        ("bare numbers", _bare, 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scan_and_decode(benchmark: Any, name: str, form: Form, each: int) -> None:
    table = routes(form is _bare)
    messages = Messages(table, 1000)
    messages.set_window(NOW_US)
    order = np.random.default_rng(5).permutation(READINGS)[: READINGS // each].tolist()
    points = table.points
    stream = b"".join(encode(Publish(points.topic[n], form(n), 1, pid=n % 65_535 + 1), False) for n in order)
    arena: Arena[Any] = Arena(len(stream))
    arena.view[: len(stream)] = stream

    def find() -> None:
        arena.clear()
        arena.segment(PEER, len(stream), False)
        arena.scan(1 << 20)

    def turn() -> int:
        find()
        messages.feed_arena(arena, lambda _: table.table(None, lambda *_: True), NOW_US)
        taken = messages._columns.filled
        messages._columns.filled = 0
        return taken

    assert benchmark(turn) == READINGS
    finding, both = cpu_s(find), cpu_s(turn)

    share = len(order) // 10
    part = b"".join(encode(Publish(points.topic[n], form(n), 1, pid=1), False) for n in order[:share])
    plain = Messages(table, 1000)
    plain.set_window(NOW_US)

    def plainly() -> None:
        frames = scan(part, 0, False)
        chunk = Chunk(frames.topics, frames.payloads, frames.heads, "bench")
        plain.feed(table.table(None, lambda *_: True), chunk, NOW_US)
        plain.take(NOW_US)

    ratio = cpu_s(plainly, 3) / share / (both / len(order))
    decoding = (both - finding) / READINGS
    print(
        f"\n  {name}: {both / READINGS * 1e9:.0f} ns a reading ({READINGS / both / 1e6:.1f} M/s), of it scan"
        f" {finding / READINGS * 1e9:.0f}, look-up and decode {decoding * 1e9:.0f} ({1e-6 / decoding:.1f} M/s);"
        f" plain Python {ratio:.0f} times as much"
    )


PROPERTIES: dict[str, Properties] = {
    "none": {},
    "an expiry": {Prop.MESSAGE_EXPIRY: 60},
    "an expiry, a type, two of the user's": {
        Prop.MESSAGE_EXPIRY: 60,
        Prop.CONTENT_TYPE: "application/json",
        Prop.USER_PROPERTY: [("site", "51010400"), ("固件", "2.1.7")],
    },
}


@pytest.mark.parametrize("name", list(PROPERTIES))
def test_scan_past_mqtt_5_properties(benchmark: Any, name: str) -> None:
    """What a PUBLISH costs to find whose properties mean nothing to us, beside the scan in plain Python."""
    count = READINGS // 10
    properties = PROPERTIES[name]
    stream = b"".join(
        encode(Publish(f"cd/g0/p{n}", ONE["template"](n), 1, pid=1, properties=properties), True)
        for n in range(count)
    )
    arena: Arena[Any] = Arena(len(stream))
    arena.view[: len(stream)] = stream

    def find() -> int:
        arena.clear()
        arena.segment(PEER, len(stream), True)
        arena.scan(1 << 20)
        return arena.count

    assert benchmark(find) == count
    finding, plainly = cpu_s(find), cpu_s(lambda: scan(stream, 0, True), 3)
    print(
        f"\n  {name}: {finding / count * 1e9:.0f} ns a message; plain Python {plainly / finding:.0f} times as much"
    )
