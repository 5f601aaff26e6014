"""Events through the whole running engine: over MQTT, through kill -9, to DuckDB; and nobody's number on the disk."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.simulate.event_words import Site
from ingest.simulate.events import Spoken, city_events
from storage.records import Event
from tests.engines import ROOT, EngineProcess, site_config, until
from tests.found_numbers import numbers_in, numbers_on_disk
from tests.talk import Closed, Talker

FILES = ROOT / "configs" / "chengdu" / "events"
SITES = [Site("金牛区", 104.05, 30.69), Site("武侯区", 104.04, 30.64)]
HOUR = 3_600_000_000
LOG = (
    "SELECT source, id, state, epoch_us(time), type, district, category, name, lon, lat, point_id, epoch_us(due), "
    "attributes FROM event_log ORDER BY source, id, state, time"
)
MORE = """
[snapshot]
every_s = 1
[sealed]
seal_s = 2
[journal]
segment_bytes = 1048576
reserve_bytes = 0
"""
Message = tuple[str, bytes]


def config(folder: Path) -> str:
    text = site_config(
        folder, {"g0": ["cam-1", "cam-2"]}, more="[snapshot]\nevery_s = 1\n[sealed]\nseal_s = 2\n"
    )
    shutil.copytree(FILES, folder / "sources.d")
    return text


def row(step: Event) -> tuple[Any, ...]:
    return (
        step.source, step.id, step.state, step.at_us, step.type, step.district or None, step.category or None,
        step.name or None, step.lon, step.lat, step.point_id or None, step.due_us, dict(step.attributes),
    )  # fmt: skip


def poison(rng: random.Random, spoken: list[Spoken]) -> tuple[list[Message], set[str]]:
    """Messages that cannot be stored, each with somebody's number in it, and those numbers."""
    appeals = [one for one in spoken if one.source == "hotline-12345"]
    numbers: set[str] = set()
    found: list[Message] = []
    topics = ("events/hotline/orders", "events/hotline/orders", "nobody/knows/this", "events/banquets")
    for kind in range(60):
        phone = f"1{rng.choice('3589')}{rng.randrange(10**9):09d}"
        numbers.add(phone)
        body = json.loads(appeals[kind].payload)
        order, topic = body["order"], topics[kind % 4]
        body["caller"]["phone"] = body["content"]["text"] = f"电话 {phone[:3]} {phone[3:]}"
        match kind % 9:
            case 0:
                order["status"] = phone
            case 1:
                order["updated"] = f"昨天 {phone}"
            case 2:
                order["no"] = phone
            case 3:
                body["content"]["gps"] = {"lng": phone, "lat": int(phone)}
            case 4:
                body["content"]["kind"] = [phone]
            case 5:
                order["updated"] = "1990-01-01 00:00:00"
            case 6:
                body = {
                    "phone": int(phone),
                    "tel": phone,
                    phone: "".join(chr(0xFF10 + int(d)) for d in phone),
                }
            case _:
                body = [phone]
        payload = json.dumps(body, ensure_ascii=bool(kind % 2)).encode()
        if kind % 5 == 0:
            payload = payload[: -7 if len(payload) > 100 else -1]
        if kind % 11 == 0:
            topic = f"nobody/{phone}"
        found.append((topic, payload))
    return found, numbers


def told(engine: EngineProcess, messages: list[Message]) -> list[Message]:
    """Say them; those that were not acknowledged when the engine went away."""
    talker = Talker(engine.port, v5=True)
    pids = [talker.next_pid() for _ in messages]
    try:
        for pid, (topic, payload) in zip(pids, messages, strict=True):
            talker.send(talker.publish_bytes(topic, payload, pid=pid))
        talker.hear(pids)
    except (Closed, OSError):
        pass
    finally:
        talker.close()
    return [message for pid, message in zip(pids, messages, strict=True) if pid not in talker.acks]


@pytest.fixture
def spoken() -> list[Spoken]:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    now = time.time_ns() // 1000
    begin = now - 12 * HOUR
    return list(city_events(seed, begin, now, SITES, cameras=["cam-1", "cam-2"], scale=0.06))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    running = EngineProcess(tmp_path, config(tmp_path))
    try:
        yield running.start()
    finally:
        if running.running:
            running.kill()


def test_every_step_is_in_the_lake_once_whoever_is_killed_and_no_number_is_on_the_disk(
    engine: EngineProcess, spoken: list[Spoken]
) -> None:
    messages = [(one.topic, one.payload) for one in spoken]
    bad, numbers = poison(random.Random(7), spoken)
    numbers |= {number for one in spoken for number in one.numbers}
    # What is looked for below can be found: here it is.
    said = "\n".join(payload.decode(errors="replace") for _, payload in messages + bad)
    assert numbers_in(said, numbers) == numbers

    third = len(messages) // 3
    assert told(engine, messages[:third] + bad[:20]) == []
    until(lambda: list((engine.data / "snapshot").glob("*.snapshot")), "a snapshot")
    talker = Talker(engine.port)
    for topic, payload in messages[third : 2 * third]:
        talker.send(talker.publish_bytes(topic, payload, pid=talker.next_pid()))
    engine.kill()
    talker.close()
    engine.start()
    # A gateway that was told nothing says it all again; some of it stands in the journal already.
    assert told(engine, messages[third:] + bad) == []

    expected = sorted(row(step) for one in spoken for step in one.steps)
    engine.until_lake("SELECT count(*) FROM event_log", [(len(expected),)])
    found = [(*row[:-1], json.loads(row[-1])) for row in engine.lake(LOG)]
    assert found == sorted(expected, key=lambda r: r[:4])
    ids = len({(r[0], r[1]) for r in expected})
    assert engine.lake("SELECT count(*) FROM events") == [(ids,)]
    assert engine.lake("SELECT count(*) FROM events WHERE received_at < opened") == [(0,)]
    assert engine.vitals()["conservation_gap"] == 0

    personal = "source IN ('hotline-12345', 'village-banquets', 'food-inspections')"
    engine.until_lake(
        f"SELECT count(*) >= 20, max(octet_length(raw)) FROM quarantine WHERE {personal}", [(True, 0)]
    )
    [[hashed]] = engine.lake(f"SELECT count(*) FROM quarantine WHERE {personal} AND detail LIKE 'sha256 %'")
    assert hashed > 10
    assert {"unknown_state", "bad_time", "personal_id", "time_window", "bad_json"} <= {
        reason for (reason,) in engine.lake("SELECT DISTINCT reason FROM quarantine")
    }

    until(lambda: list((engine.data / "lake" / "events").glob("*.parquet")), "a file of events")
    engine.kill()
    assert numbers_on_disk([engine.data, engine.log], numbers) == {}
    assert "conservation broken" not in engine.log.read_text()
