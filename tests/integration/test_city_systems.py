"""One engine carries all 365 systems and all codecs at once, and the lake holds what they said, value by value."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

from ingest.simulate.systems.check import check
from ingest.simulate.systems.make import make
from ingest.simulate.systems.speak import speak
from ingest.simulate.systems.table import SYSTEMS, load_systems
from tests.engines import EngineProcess

CITY = Path(__file__).resolve().parents[2] / "configs" / "chengdu"
SCALE = 0.005
SECONDS = 6
PORTS = 60
"""More than the systems on plain TCP."""


def free_ports() -> int:
    """The first of PORTS ports in a row that nobody uses now, below those the kernel gives away."""
    for _ in range(100):
        first = random.randrange(20_000, 32_000 - PORTS)
        probes = [socket.socket() for _ in range(PORTS)]
        try:
            for number, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first
    raise AssertionError("no ports in a row are free")


def test_all_systems_and_codecs_at_once_are_stored_value_by_value(tmp_path: Path) -> None:
    made = make(tmp_path, CITY, scale=SCALE, interval_s=2.0, port=0, ops_port=0, port_first=free_ports())
    assert made.systems == SYSTEMS
    engine = EngineProcess(tmp_path, (tmp_path / "yuzui.toml").read_text()).start()
    try:
        said = asyncio.run(
            speak(tmp_path, CITY, seconds=SECONDS, scale=SCALE, seed=1, port=engine.port, events=20.0)
        )
        print(said)
        found = check(tmp_path)
        print(found)
    finally:
        engine.stop()
    assert found.good, found
    assert found.stored == said.readings > 3_000
    assert said.answers == said.frames > 50, "what stations wait for is said once their reports are on disk"
    assert found.steps == said.event_steps > 20
    measuring = sum(not system.has_events for system in load_systems(CITY))
    assert found.sources == said.systems == measuring
