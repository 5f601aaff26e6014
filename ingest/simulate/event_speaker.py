"""The demo city's offices: what they know of the past, told at once, and then what happens, as it happens.

Owns one connection, which comes back after an engine's kill, and what is told over it. Run as
``python -m ingest.simulate.event_speaker`` with EventPlan as JSON on the first line of stdin; stops at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import aiomqtt
import polars as pl

from ingest.simulate.event_ledger import EventLedger
from ingest.simulate.events import Spoken, city_events, city_past
from ingest.simulate.projects import places_of, projects_of
from ingest.simulate.speaker import cpu_s, say
from storage.batch import US_PER_S

PLACES: Final = 200
PACE: Final = 0.0005
"""Lives of what happens now in times their length, so that a minute shows some of each."""
PER_DAY: Final = 2.0
"""Cases a day of what happens now, in times the city's own."""
AT_ONCE: Final = 200
"""Messages of the past that wait for their PUBACK."""
AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class EventPlan:
    """Whom to tell, about which registry, for how long at most; ``past`` in times what a city brings along.

    ledger_dir  where to keep what was said; "" keeps it nowhere
    """

    host: str
    port: int
    points_file: str
    seconds: float
    seed: int = 1
    past: float = 1.0
    ledger_dir: str = ""


@dataclass(slots=True)
class EventReport:
    """Messages that were acknowledged, their steps, and CPU of this process."""

    messages: int = 0
    steps: int = 0
    cpu_s: float = 0.0


async def tell(
    plan: EventPlan, stop: asyncio.Event, report: EventReport, ledger: EventLedger | None = None
) -> None:
    """Tell the past, then the present until ``stop`` or the plan's end; each message until it is acknowledged."""
    ledger = ledger or EventLedger()
    columns = ["point_id", "device_id", "district", "lon", "lat", "kind"]
    table = pl.read_parquet(plan.points_file, columns=columns)
    now = int(time.time()) * US_PER_S
    places, projects = places_of(table, plan.seed, PLACES), projects_of(table, now, plan.seed)
    past = city_past(plan.seed, now, places, projects, plan.past)
    cameras = table.filter(pl.col("kind") == "video")["point_id"].head(PLACES).to_list()
    # Projects have reported: their next report is due in a month.
    present = city_events(
        plan.seed, now, now + round(plan.seconds * US_PER_S), places, cameras=cameras, scale=PER_DAY, pace=PACE,
        projects=projects, types=("appeal", "inspection", "finding", "approval", "video_alarm"),
    )  # fmt: skip
    waiting = [past[at : at + AT_ONCE] for at in range(0, len(past), AT_ONCE)]
    live = list(present)
    while not stop.is_set() and (waiting or live):
        try:
            async with aiomqtt.Client(plan.host, plan.port, identifier="city-offices") as client:
                client.pending_calls_threshold = AT_ONCE
                while waiting and not stop.is_set():
                    await _publish(client, waiting[0], report, ledger)
                    del waiting[0]
                while live and not stop.is_set():
                    if await _stopped(stop, live[0].at_us / US_PER_S - time.time()):
                        return
                    await _publish(client, live[:1], report, ledger)
                    del live[0]
        except (aiomqtt.MqttError, OSError):
            await _stopped(stop, AGAIN_S)  # the engine is gone, and comes back


async def _publish(
    client: aiomqtt.Client, some: Sequence[Spoken], report: EventReport, ledger: EventLedger
) -> None:
    async def publish(one: Spoken) -> None:
        ledger.sent(one)
        await client.publish(one.topic, one.payload, qos=1)
        ledger.acked(one)

    await asyncio.gather(*map(publish, some))
    report.messages += len(some)
    report.steps += sum(len(one.steps) for one in some)


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait so long or until ``stop``; whether it was that."""
    try:
        await asyncio.wait_for(stop.wait(), max(0.0, seconds))
    except TimeoutError:
        return stop.is_set()
    return True


async def _run(plan: EventPlan) -> EventReport:
    stop, report, ledger = asyncio.Event(), EventReport(), EventLedger()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)  # its end: who started us is gone
    say(ready=True)
    before = cpu_s()
    await tell(plan, stop, report, ledger)
    await stop.wait()
    if plan.ledger_dir:
        ledger.write(Path(plan.ledger_dir))
    report.cpu_s = round(cpu_s() - before, 2)
    return report


def main() -> None:
    """Tell until stopped, and report."""
    plan = EventPlan(**json.loads(sys.stdin.buffer.readline()))
    say(report=asdict(asyncio.run(_run(plan))))


if __name__ == "__main__":
    main()
