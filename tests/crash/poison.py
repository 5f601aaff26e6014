"""F12, F13: what cannot be decoded among what can, and a broker that breaks the protocol."""

from __future__ import annotations

import random
import struct
import time

import orjson

from tests.engines import until
from tests.faults_broker import TinyBroker
from tests.faults_judge import accounted
from tests.faults_load import Load
from tests.faults_trial import Faults, Trial
from tests.talk import Talker

BATCH = 100
POISON_TOPIC = "t/g1/g1-p0"
DEEP = 2_000
CANARY_S_MAX = 0.4
"""After this long without the canary the broker closes: what it sent looks like the start of a longer packet."""


def poison(rng: random.Random) -> tuple[str, bytes]:
    """(topic, payload) of a message none of whose readings may be stored."""
    now_ms = time.time_ns() // 1_000_000
    good = orjson.dumps({"ts": now_ms, "v": 1.5})
    payloads: list[bytes] = [
        b"", rng.randbytes(rng.randint(1, 200)), good[: rng.randrange(1, len(good))], b"[" * DEEP + b"]" * DEEP,
        b'{"ts":%d,"v":1e999}' % now_ms, b'{"ts":%d,"v":NaN}' % now_ms, b'{"ts":%d,"v":"7"}' % now_ms,
        b'{"ts":%d,"v":true}' % now_ms, b'{"v":1.0}', b'{"ts":%d}' % now_ms, b'{"ts":"yesterday","v":1}',
        b'{"ts":%d,"v":1}' % (now_ms + 10**9), b'{"ts":-5,"v":1}', b'{"id":"g1-p1","ts":%d,"v":1}' % now_ms,
        b"[]", b'{"ts":%d,"v":1,"q":77}' % now_ms,
    ]  # fmt: skip
    topic = POISON_TOPIC if rng.random() < 0.9 else rng.choice(["t/g1/none", "t/none", "a/b/c", "t"])
    return topic, rng.choice(payloads)


def poisoned(faults: Faults) -> None:
    """F12: ``count`` poisoned messages between good ones: each is acknowledged and set aside, no good one suffers."""
    trial = Trial(faults, rate=1_000.0).start()
    trial.watch()
    until(lambda: trial.acked > 1_000, "gateways that are acknowledged")
    with Talker(trial.engine.port) as talker:
        sent = 0
        while sent < faults.count:
            messages = [poison(faults.rng) for _ in range(min(BATCH, faults.count - sent))]
            talker.say_all(messages)
            sent += len(messages)
    trial.hush()
    trial.engine.quiet(60)
    vitals = trial.engine.vitals()
    refused = vitals["quarantined"]
    faults.expect(refused == sent, f"{sent} poisoned messages, {refused} quarantined")
    faults.expect(accounted(vitals) == 0, f"{accounted(vitals)} readings unaccounted for")
    reasons = {key.split("'")[3] if "'" in key else key for key in map(str, vitals["refused"])}
    faults.result.notes.append(f"{len(reasons)} reasons")
    found = trial.judge()
    faults.say(f"{sent} poisoned messages, {len(reasons)} reasons; {found}")
    faults.findings.__iadd__(found)
    faults.result.trials += sent


def malformed(rng: random.Random) -> bytes:
    """Bytes that are no packet a broker may send."""
    topic = b"\x00\x06t/g1/x"
    kinds: list[bytes] = [
        rng.randbytes(rng.randint(1, 60)),
        bytes([rng.choice([0x00, 0x0F, 0xF1, 0xFF])]) + b"\x00",
        b"\x30\xff\xff\xff\xff\x7f",
        b"\x36" + bytes([len(topic) + 3]) + topic + b"\x00\x01x",
        b"\x32" + bytes([len(topic) + 3]) + topic + b"\x00\x00x",
        b"\x32\x05\x00\xff" + b"abc",
        b"\x32\x07\x00\x03t/#\x00\x01",
        b"\x32\x07\x00\x03t\x00x\x00\x01",
        b"\x32\x07\x00\x03\xc3\x28\x80\x00\x01",
        b"\x32\x03\x00\x00\x01",
        b"\x20\x02\x00\x00",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
        b"\x82\x08\x00\x01\x00\x03a/b\x00",
        b"\x60\x02\x00\x01",
        b"\x62\x01\x00",
        b"\x40\x01\x00",
        b"\x90\x01\x00",
        b"\xd1\x00",
        b"\xd0\x01\x00",
        b"\xe0\x01",
        b"\x30" + struct.pack(">B", 0x80) + b"\x80\x80\x01" + rng.randbytes(50),
        b"\x33" + bytes([len(topic) + 2]) + topic + b"\x00\x07",
        b"\x32\xff\xff\xff\x7f" + rng.randbytes(40),
        b"\x90\x04\x00\x63\x80\x80",
    ]
    return rng.choice(kinds)


def rogue_broker(faults: Faults) -> None:
    """F13: ``count`` malformed packets, each followed by a canary that must be acknowledged and stored."""
    load = Load("g1", [f"p{i}" for i in range(40)])
    ledger = faults.ledger()
    with TinyBroker(ledger, load) as broker:
        subscriber = (
            f'[[subscriber]]\nname = "b"\nurl = "mqtt://127.0.0.1:{broker.port}"\nfilters = ["t/#"]\nqos = 1\n'
            "reconnect_s_max = 0.02\n"
        )
        trial = Trial(faults, loads=[load], extra=subscriber)
        trial.ledger = ledger
        trial.engine.start()
        for number in range(faults.count):
            until(lambda: broker.subscribed, "the engine subscribes")
            broker.send_raw(malformed(faults.rng))
            broker.offer(1)
            hang_up_at = time.monotonic() + CANARY_S_MAX
            end = hang_up_at + 30
            while broker.open and time.monotonic() < end:
                if time.monotonic() > hang_up_at:
                    broker.hang_up()
                    hang_up_at = time.monotonic() + 5
                time.sleep(0.001)
            faults.expect(not broker.open, f"the canary after malformed packet {number} was not acknowledged")
            if broker.open:
                break
            if number % 500 == 499:
                faults.say(f"{number + 1} malformed packets")
            faults.result.trials += 1
        broker.close_ledger()
        faults.expect(trial.engine.running, "the engine ended")
        found = trial.judge(alerts=False)
        faults.say(str(found))
    faults.findings.__iadd__(found)
