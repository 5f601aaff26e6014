"""What a reading costs in each format: bytes of messages to rows of a batch, bound to points of a registry.

Times are CPU seconds of this process. JSON's parser alone stands beside it: the rest is mapping and binding.
"""

from __future__ import annotations

import random
import time
from typing import Any

import orjson
import pytest

from bench.polls import turn_of
from ingest.codecs.table import CODECS
from ingest.config import Config
from ingest.decode.messages import Messages
from ingest.routes import Routes
from ingest.simulate.encoders.base import Sent, encoder_class
from tests.codec_trials import NOON_US, Bench, bench, readings, trial_points
from tests.tables import point_table

MESSAGES = 200
READINGS = 20
"""Of one message, where the format carries that many."""
CPU = pytest.mark.benchmark(timer=time.process_time, min_rounds=20)

SHAPES: dict[str, dict[str, object]] = {
    "an array of named values": {
        "device": "dev", "time": "ts", "quantity": "readings[].n", "value": "readings[].v", "topics": ["t/#"],
    },
    "an object of metrics": {"device": "dev", "time": "ts", "value": "metrics.*", "topics": ["t/#"]},
    "an array of devices": {"device": "r[].id", "time": "r[].ts", "value": "r[].v", "topics": ["t/#"]},
    "metrics in other units": {
        "device": "dev", "time": "ts", "value": "metrics.*", "topics": ["t/#"],
        "quantities": {f"q{i}": {"factor": 0.1, "missing": [-999.0]} for i in range(READINGS)},
    },
}  # fmt: skip


def rig(made: Bench, ids: list[str]) -> tuple[Messages, Routes]:
    """A decoder and its routes for a registry with these points."""
    points = point_table(len(ids), source="trial")
    points.point_id = ids
    points.topic = [""] * len(ids)
    routes = Routes(points, Config(source=[made.settings]))
    decoder = Messages(routes, 1000)
    decoder.set_window(NOON_US)
    return decoder, routes


def measure(
    benchmark: Any, made: Bench, sent: list[tuple[str, bytes]], ids: list[str], parser: bool = False
) -> None:
    decoder, routes = rig(made, ids)
    payloads = [payload for _, payload in sent]
    turn = turn_of(decoder, routes, sent, NOON_US)
    rows = len(turn())
    benchmark(turn)
    if benchmark.disabled:
        return
    best = benchmark.stats.stats.min
    line = f"{rows / best:,.0f} readings/s on one core, {rows / len(sent):.0f} a message"
    if parser:
        alone = min(_timed(payloads) for _ in range(20))
        line += f", {best / alone:.1f} x orjson.loads alone"
    benchmark.extra_info |= {"readings_per_s": round(rows / best), "readings_a_message": rows / len(sent)}
    print(f"\n{line}")


def _timed(payloads: list[bytes]) -> float:
    began = time.process_time()
    for payload in payloads:
        orjson.loads(payload)
    return time.process_time() - began


@CPU
@pytest.mark.parametrize("shape", list(SHAPES))
def test_json_by_mapping(benchmark: Any, shape: str) -> None:
    made = bench("json", **({"flag": None, "flags": {}, "quantity": None} | SHAPES[shape]))
    assert made.encoder is not None
    dice = random.Random(1)
    devices = [f"d{n:03}" for n in range(MESSAGES)]
    quantities = [f"q{n}" for n in range(READINGS)]
    many = "id" in str(SHAPES[shape]["device"])
    body: list[Sent] = []
    for number, device in enumerate(devices):
        for place, quantity in enumerate(quantities):
            value = round(dice.uniform(0, 500), 2)
            at = NOON_US + number * 1000
            body.append(
                Sent(f"{device}{place}", "", at, value) if many else Sent(device, quantity, at, value)
            )
    sent = [
        one for n in range(MESSAGES) for one in made.encoder.messages(body[n * READINGS : (n + 1) * READINGS])
    ]
    ids = [one.device if many else f"{one.device}-{one.quantity}" for one in body]
    assert len(sent) == MESSAGES
    measure(benchmark, made, sent, ids, parser=True)


@CPU
@pytest.mark.parametrize("name", [n for n in sorted(CODECS) if n != "json" and encoder_class(n) is not None])
def test_a_format(benchmark: Any, name: str) -> None:
    made = bench(name)
    assert made.encoder is not None
    dice = random.Random(1)
    body = readings(made.encoder, dice, READINGS)
    sent = made.encoder.messages(body) * (MESSAGES // 10)
    measure(benchmark, made, sent, list(trial_points(name).point_id))
