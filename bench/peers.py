"""The baselines: what a Python program pays for a message with the clients people know, through the same broker.

Caveats first. A baseline parses, collects and writes Parquet, and that is all: no journal, no fsync, no check, no
alert, no acknowledgement that means anything. It runs at a rate it can carry; what it costs a message hardly depends on
it. Its CPU is compared with the engine's, which does all of that, through the same mosquitto.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.case import CITY_POINTS
from bench.family import Family
from bench.load.plan import LoadPlan
from bench.load.registry import CLOCK, PULSE, bench_registry
from bench.rig import CHILD_S_MAX, CITY_DIR, CannotMeasure, broker
from ingest.simulate.child import Child, listen
from ingest.simulate.city import write

CLIENTS: Final = {
    "aiomqtt": ("aiomqtt_loop", 5_000.0),
    "gmqtt": ("gmqtt_loop", 10_000.0),
    "paho-mqtt": ("paho_loop", 10_000.0),
}
"""Module of each, and messages a second that it carries."""
LOOK_S: Final = 0.5
IDLE_SHARE: Final = 0.05
"""Of a core over LOOK_S: a client that uses less has nothing left to take in."""
DRAIN_S_MAX: Final = 30.0


@dataclass(slots=True)
class Peer:
    """One baseline's figures: µs of CPU a message, and how many of those sent it got."""

    name: str
    rate: float
    sent: int
    received: int
    cpu_us: float
    cpu_s: float


def measure_peer(name: str, seconds: float, folder: Path, cache: Path, pulses: int = 300) -> Peer:
    """One client for ``seconds`` at its rate. Raises CannotMeasure, ChildDiedError."""
    shutil.rmtree(folder, ignore_errors=True)
    module, rate = CLIENTS[name]
    points_file = cache / f"points-{CITY_POINTS}-{pulses}.parquet"
    if not points_file.exists():
        write(bench_registry(CITY_DIR, CITY_POINTS, pulses), points_file)
    with broker(folder / "broker") as (port, _):
        told = json.dumps({"port": port, "folder": str(folder / "files"), "qos": 0})
        with Child(f"bench.baselines.{module}", told, name) as client:
            client.until_ready(CHILD_S_MAX)
            plan = LoadPlan(
                "127.0.0.1", port, str(points_file), str(CITY_DIR), seconds=seconds, rate=rate, connections=100,
                leave_out=f"{PULSE},{CLOCK}",
            )  # fmt: skip
            with Child("bench.load.generator", plan.to_json(), "generator") as load:
                load.until_ready(CHILD_S_MAX)
                load.tell("go")
                listen([load], lambda: load.report is not None, seconds + CHILD_S_MAX)
                assert load.report is not None
                sent = load.report["sent"]
            _until_idle(Family(client.pid))
            report = client.finish(CHILD_S_MAX)
    shutil.rmtree(folder, ignore_errors=True)
    if not report["received"]:
        raise CannotMeasure(f"{name} received nothing of {sent:,}")
    cpu_us = report["cpu_s"] / report["received"] * 1e6
    return Peer(name, rate, sent, report["received"], round(cpu_us, 3), round(report["cpu_s"], 3))


def _until_idle(client: Family) -> None:
    """What is on its way still arrives."""
    end = time.monotonic() + DRAIN_S_MAX
    used = client.cpu_s()
    while time.monotonic() < end:
        time.sleep(LOOK_S)
        before, used = used, client.cpu_s()
        if used - before < IDLE_SHARE * LOOK_S:
            return


def measure_peers(seconds: float, folder: Path, cache: Path) -> list[dict[str, object]]:
    """All of them, one after the other."""
    return [asdict(measure_peer(name, seconds, folder, cache)) for name in CLIENTS]
