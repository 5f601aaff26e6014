"""What the simulator's publishing processes have in common: their plan, their points, their talk.

Owns the plan a process is started with, how it finds its own points in it, and the lines it exchanges
with its parent: ``go`` and end of file on stdin, one JSON object a line on stdout. Knows no protocol.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.encode import MQTT_5, MQTT_311, PACKET_IDS
from ingest.simulate.fleet import Fleet, choose, deal, load_fleet
from ingest.simulate.night import outage_gateways, stuck_points
from ingest.simulate.scenario import Scenario, ScenarioName
from ingest.simulate.values import Values

SLOT_S = 0.02
"""Gateways publish at one of 50 phases of the second; those of one phase are encoded together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a publishing process needs; it is handed over as JSON."""

    speaker: Literal["raw", "aiomqtt"]
    host: str
    port: int
    points_file: str
    city_dir: str
    ledger_dir: str
    seconds: float
    hz: float = 1.0
    qos: int = 1
    seed: int = 1
    scenario: ScenarioName = "steady"
    batch: int = 0
    gateway_topic: str = "cd/{gateway}/batch"
    points: int | None = None
    aiomqtt_share: float = 0.05
    mqtt5_share: float = 0.5
    inflight_max: int = PACKET_IDS
    backlog_s_max: float = 120.0
    drain_s_max: float = 15.0
    connect_s_max: float = 20.0
    user: str | None = None
    password: str | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> Plan:
        """The plan written by to_json."""
        return Plan(**json.loads(line))

    def course(self) -> Scenario:
        """The scenario stretched over the run."""
        return Scenario(self.scenario, self.seed, self.seconds)

    def steps(self) -> int:
        """Readings of each point in the run."""
        return max(1, round(self.seconds * self.hz))


@dataclass(slots=True)
class Part:
    """A process's own points in the order it publishes them, and their values.

    slots    for each phase the gateway codes that publish at it; every gateway stands in one slot
    silent   bool by gateway code: falls silent in an outage
    version  MQTT version by gateway code
    """

    fleet: Fleet
    values: Values
    scenario: Scenario
    slots: list[list[int]]
    silent: np.ndarray[tuple[int], np.dtype[np.bool_]]
    version: list[int]


def fleet_of(plan: Plan) -> tuple[Fleet, Fleet, Fleet]:
    """The whole registry, and of the chosen points those of the raw speaker and those of aiomqtt's."""
    whole = load_fleet(Path(plan.points_file))
    raw, other = deal(choose(whole, plan.points, plan.seed), plan.aiomqtt_share)
    return whole, raw, other


def own_part(plan: Plan) -> Part:
    """The part of the city this plan's process speaks for, with points ordered by slot and gateway.

    Raises ValueError for a registry or city folder that does not fit, OSError.
    """
    whole, raw, other = fleet_of(plan)
    fleet = raw if plan.speaker == "raw" else other
    scenario = plan.course()
    present = np.unique(fleet.gateway)
    slots_n = max(1, round(1 / plan.hz / SLOT_S))
    slot_of = np.zeros(len(whole.gateways), np.int64)
    slot_of[present] = np.arange(len(present)) * slots_n // max(1, len(present))
    kinds = load_kinds(Path(plan.city_dir))
    stuck = stuck_points(whole, scenario)
    widths = Values(fleet, kinds, scenario, whole.box(), plan.hz)
    labels = fleet.point_id if plan.batch else fleet.topic
    label_length = np.array([len(label.encode()) for label in labels], np.int64)
    # The encoder's own order within a gateway, so that its rows and ours are the same.
    order = np.lexsort(
        (widths.decimals, widths.whole_width, label_length, fleet.gateway, slot_of[fleet.gateway])
    )
    fleet = fleet.take(order)
    speaks_5 = np.random.default_rng((plan.seed, 6)).random(len(whole.gateways)) < plan.mqtt5_share
    return Part(
        fleet=fleet,
        values=Values(fleet, kinds, scenario, whole.box(), plan.hz, stuck),
        scenario=scenario,
        slots=[present[slot_of[present] == s].tolist() for s in range(slots_n)],
        silent=outage_gateways(whole, scenario),
        version=[MQTT_5 if new else MQTT_311 for new in speaks_5.tolist()],
    )


@dataclass(slots=True)
class SpeakerReport:
    """What one publishing process did. Counts are readings unless they say otherwise.

    produced   came to be; = sent + queued + not_sent
    sent       handed to a connection at least once; acked, refused: of those, what the server said
    queued     kept and never sent before the run ended
    not_sent   dropped because a gateway's backlog was full; they are not in the ledger
    lag_s_max  how late a phase began at worst: above a slot the machine was too slow
    """

    speaker: str
    gateways: int = 0
    points: int = 0
    produced: int = 0
    sent: int = 0
    acked: int = 0
    refused: int = 0
    queued: int = 0
    not_sent: int = 0
    resent_messages: int = 0
    connects: int = 0
    lag_s_max: float = 0.0
    seconds: float = 0.0
    cpu_s: float = 0.0
    cpu_us_per_message: float = 0.0
    faults: list[str] = field(default_factory=list)


CPU_FIELDS = frozenset({"cpu_s"})
"""Fields that add up over speakers although they are no counts."""
FAULTS_KEPT_MAX = 20
"""Different faults a report names; a dying engine gives a thousand gateways the same one."""


def note_fault(report: SpeakerReport, fault: str) -> None:
    """Keep a fault's text once, up to FAULTS_KEPT_MAX."""
    if fault not in report.faults and len(report.faults) < FAULTS_KEPT_MAX:
        report.faults.append(fault)


def say(**fields: Any) -> None:
    """One JSON line to the parent. A parent that is gone does not stop the ledger from being written."""
    try:
        os.write(sys.stdout.fileno(), json.dumps(fields).encode() + b"\n")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def cpu_s() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class WallClock:
    """Milliseconds for timestamps, never the same twice and never backwards: a point's time only grows."""

    def __init__(self) -> None:
        self._last = 0

    def next_ms(self) -> int:
        """Wall clock in ms since 1970, at least one more than before."""
        self._last = max(time.time_ns() // 1_000_000, self._last + 1)
        return self._last


def forget_signals(stop: Callable[[], object]) -> None:
    """SIGINT and SIGTERM call ``stop`` and nothing else: the ledger is written whatever happens."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def finished(report: SpeakerReport) -> None:
    """The last line to the parent."""
    say(report=asdict(report))
