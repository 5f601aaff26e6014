"""A simulated city against a listener or broker: starts the speakers' processes and gathers their reports.

Owns ``simulate``: its options, the refusal of strange targets, start and stop of the processes. The
processes speak by themselves; nothing of the traffic passes here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ingest.simulate.child import Child, listen, on_signals
from ingest.simulate.encode import PACKET_IDS
from ingest.simulate.ledger import write_points
from ingest.simulate.scenario import ScenarioName
from ingest.simulate.speaker import CPU_FIELDS, Plan, SpeakerReport, fleet_of

MODULES: dict[str, str] = {
    "raw": "ingest.simulate.gateways",
    "aiomqtt": "ingest.simulate.async_gateways",
}
READY_S_MAX = 90.0
"""Reading the registry and connecting a thousand gateways takes seconds; a hang is an error."""
END_S_MAX = 30.0
"""After the last step and the drain a speaker only writes its ledger."""


class TargetRefusedError(ValueError):
    """The target is not this machine and nobody said that it is a drill."""


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What to simulate. Every field is said to the person who runs it.

    target          mqtt://host:port of a listener or broker
    points_file     registry (CSV or Parquet); city_dir: folder of the kinds' values
    points          only this many, whole gateways first; None is all
    batch           0 one reading a message; N readings an array on the gateway's topic
    aiomqtt_share   of the gateways; mqtt5_share: of the gateways speak MQTT 5, the others 3.1.1
    inflight_max    messages a gateway leaves unacknowledged (MQTT 5: at most the server's Receive Maximum)
    backlog_s_max   readings a gateway keeps while it cannot send, in seconds
    connect_s_max   how long the start waits for all to be connected; who is not goes on trying
    drain_s_max     how long the end waits for acknowledgements
    """

    target: str
    points_file: Path
    city_dir: Path
    ledger_dir: Path
    seconds: float = 60.0
    hz: float = 1.0
    qos: Literal[0, 1] = 1
    seed: int = 1
    scenario: ScenarioName = "steady"
    points: int | None = None
    batch: int = 0
    gateway_topic: str = "cd/{gateway}/batch"
    aiomqtt_share: float = 0.05
    mqtt5_share: float = 0.5
    inflight_max: int = PACKET_IDS
    backlog_s_max: float = 120.0
    drain_s_max: float = 15.0
    connect_s_max: float = 20.0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    drill: bool = False


@dataclass(slots=True)
class SimulateReport:
    """The speakers' reports together. Counts are readings; see SpeakerReport for each."""

    points: int = 0
    gateways: int = 0
    produced: int = 0
    sent: int = 0
    acked: int = 0
    refused: int = 0
    queued: int = 0
    not_sent: int = 0
    resent_messages: int = 0
    connects: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    lag_s_max: float = 0.0
    interrupted: bool = False
    speakers: list[SpeakerReport] = field(default_factory=list)


Progress = Callable[[dict[str, Any]], None]
"""Called about once a second with seconds, sent, acked, connected of all speakers together."""


def parse_target(target: str, drill: bool) -> tuple[str, int]:
    """Host and port of mqtt://host:port.

    Raises TargetRefusedError for a host that is not this machine's loopback unless ``drill``, ValueError
    for anything that is no such address.
    """
    parts = urlsplit(target)
    if parts.scheme != "mqtt" or not parts.hostname:
        raise ValueError(f'"{target}": expected mqtt://host:port')
    try:
        port = parts.port or 1883
    except ValueError:
        raise ValueError(f'"{target}": a port is 1 to 65535') from None
    if not drill:
        try:
            found = {info[4][0] for info in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)}
        except OSError as fault:
            raise ValueError(f"{parts.hostname}: {fault.strerror}") from None
        if not all(ipaddress.ip_address(address).is_loopback for address in found):
            raise TargetRefusedError(
                f"{parts.hostname} is not this machine: made-up readings there could raise real alarms "
                "(--drill says that this is meant)"
            )
    return parts.hostname, port


def simulate(options: SimulateOptions, progress: Progress | None = None) -> SimulateReport:
    """Publish a simulated city; returns when all is acknowledged or given up and the ledger is written.

    SIGINT and SIGTERM end the run early: what was sent is still waited for and the ledger is whole.
    Raises TargetRefusedError, ValueError for options or files that do not fit, ChildDiedError when a speaker
    died.
    """
    host, port = parse_target(options.target, options.drill)
    plans = _plans(options, host, port)
    report = SimulateReport()
    with contextlib.ExitStack() as stack:
        speakers = [
            stack.enter_context(Child(MODULES[plan.speaker], plan.to_json(), f"{plan.speaker} speaker"))
            for plan in plans
        ]

        def stop() -> None:
            report.interrupted = True
            for speaker in speakers:
                speaker.stop()

        stack.enter_context(on_signals(stop))

        def tell(child: Child) -> None:
            # The first speaker's second is everybody's second: one line, not one for each.
            if progress is not None and child is speakers[0]:
                progress(_together(speakers))

        listen(speakers, lambda: all(s.ready or s.report for s in speakers), READY_S_MAX)
        for speaker in speakers:
            speaker.tell("go")
        seconds_max = options.seconds + options.drain_s_max + END_S_MAX
        listen(speakers, lambda: all(s.report for s in speakers), seconds_max, tell)
    for speaker in speakers:
        assert speaker.report is not None
        _add(report, SpeakerReport(**speaker.report))
    return report


def _plans(options: SimulateOptions, host: str, port: int) -> list[Plan]:
    shared = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("target", "drill")}
    for name in ("points_file", "city_dir", "ledger_dir"):
        shared[name] = str(shared[name])
    if not 0 <= options.aiomqtt_share <= 1 or not 0 <= options.mqtt5_share <= 1 or options.hz <= 0:
        raise ValueError("shares are 0 to 1 and hz is above 0")
    if options.qos not in (0, 1):
        raise ValueError(f"qos {options.qos}: gateways publish at 0 or 1")
    if any(options.ledger_dir.glob("readings-*.parquet")):
        raise ValueError(f"{options.ledger_dir} holds the ledger of another run")
    plans = [Plan(speaker=speaker, host=host, port=port, **shared) for speaker in ("raw", "aiomqtt")]
    whole, raw, other = fleet_of(plans[0])
    write_points(options.ledger_dir, whole.number, whole.point_id)
    return [plan for plan, fleet in zip(plans, (raw, other), strict=True) if len(fleet)]


def _add(report: SimulateReport, part: SpeakerReport) -> None:
    """Counts add up; durations are the longest."""
    report.speakers.append(part)
    for f in fields(part):
        if f.name in CPU_FIELDS or isinstance(getattr(part, f.name), int):
            setattr(report, f.name, getattr(report, f.name) + getattr(part, f.name))
    report.seconds = max(report.seconds, part.seconds)
    report.lag_s_max = max(report.lag_s_max, part.lag_s_max)


def _together(speakers: list[Child]) -> dict[str, Any]:
    total = {key: sum(s.latest.get(key, 0) for s in speakers) for key in ("sent", "acked", "connected")}
    return {"seconds": speakers[0].latest.get("seconds", 0.0), **total}
