"""What a message costs between scan and journal: 1,000 payloads to columns, beside orjson alone on the same bytes."""

from __future__ import annotations

import time
from typing import Any

import orjson

from ingest.config import Config, SourceSettings
from ingest.decode.messages import Chunk, Messages
from ingest.routes import Routes
from storage.batch import RawBatch
from storage.records import encode_readings
from tests.tables import point_table

MESSAGES = 1000
NOW_US = time.time_ns() // 1000
PAYLOADS = [b'{"ts":%d,"v":%d.25}' % (NOW_US // 1000, n) for n in range(MESSAGES)]


def test_decode_of_1000_single_readings_to_a_journal_body(benchmark: Any) -> None:
    points = point_table(MESSAGES, gateways=10)
    routes = Routes(points, Config(source=[SourceSettings(name="flood")]))
    routes.set_window(NOW_US)
    messages = Messages(routes, 1000)
    table = routes.table(None, lambda _name, _topic: True)
    chunk = Chunk([t.encode() for t in points.topic], PAYLOADS, b"\x32" * MESSAGES, "bench")

    def turn() -> RawBatch:
        messages.feed(table, chunk, NOW_US)
        batch, _ = messages.take(NOW_US)
        encode_readings(batch)
        return batch

    assert len(benchmark(turn)) == MESSAGES


def test_baseline_orjson_alone_on_the_same_1000_payloads(benchmark: Any) -> None:
    assert len(benchmark(lambda: [orjson.loads(p) for p in PAYLOADS])) == MESSAGES
