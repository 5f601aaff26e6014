"""The storm's verdict: how often people were called, what each outage was named by, and how soon.

Owns the counting at the webhook's other end, from its log alone and from what the scenario did. Knows the body as a
stranger would, from its schema; imports nothing of the engine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

STEPS = ("first", "step")
"""Why a group calls people by itself. Digests, ends, merges and returns are told apart."""
SILENCES = ("outage", "dead")
"""Rules that must wait before they speak: apart from the latency of alerts."""


@dataclass(slots=True)
class StormVerdict:
    """Counts of notifications, each once however often it was delivered, unless they say otherwise.

    by_reason       all of them, by why they were sent
    storm_groups    groups of events by place that people were called for
    flood_points    members those groups had when people last heard of them, merged ones in their new group
    steps_repeated  calls beyond one for a group, kind and severity: must be 0
    outages         gateways that fell silent; outages_once: of those, named by exactly one call with its own points
    outages_other   gateways called for that had not fallen silent
    stuck           sensors that stuck; stuck_groups: groups of stuck sensors people were called for
    p50_s, p99_s    from the reading to the arrival of the call, silences apart; None without any
    """

    calls: int = 0
    notifications: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    storm_groups: int = 0
    flood_points: int = 0
    steps_repeated: int = 0
    outages: int = 0
    outages_once: int = 0
    outages_other: int = 0
    stuck: int = 0
    stuck_groups: int = 0
    p50_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None
    examples: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Nobody was called twice for the same, and each outage has its name."""
        return not (self.steps_repeated or self.outages_other) and self.outages_once == self.outages


@dataclass(frozen=True, slots=True)
class Heard:
    """One notification at its first arrival, seconds since 1970."""

    arrived: float
    said: Mapping[str, Any]

    @property
    def latency_s(self) -> float:
        """Since the event it tells of."""
        return self.arrived - _seconds(self.said["at"])


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def heard(log_file: Path) -> tuple[int, dict[tuple[str, int], Heard]]:
    """How many calls of alerts came, and the notifications by (id, revision)."""
    found: dict[tuple[str, int], Heard] = {}
    calls = 0
    with log_file.open(encoding="utf-8") as lines:
        for line in lines:
            call = json.loads(line)
            if call["type"].startswith("alert."):
                calls += 1
                said = call["body"]["data"]
                found.setdefault((said["id"], said["revision"]), Heard(call["arrived"], said))
    return calls, found


def storm_verdict(
    log_file: Path,
    outages: Mapping[str, int],
    stuck: int,
    *,
    spoke_until_s: float,
    until_s: float | None = None,
) -> StormVerdict:
    """Count what a receiver's log holds. Times are seconds since 1970.

    outages  gateway → its points, of those that fell silent
    stuck    sensors that stuck
    spoke_until_s  when the city fell silent because the run was over; silences from then on are not counted
    until_s  latencies of events before it only: a dead engine calls nobody; None takes all
    """
    calls, notifications = heard(log_file)
    everything = [
        one
        for one in sorted(notifications.values(), key=lambda one: one.arrived)
        if not (one.said["rule"] in SILENCES and _seconds(one.said["onset"]) >= spoke_until_s)
    ]
    found = StormVerdict(calls=calls, notifications=len(everything), outages=len(outages), stuck=stuck)
    found.by_reason = dict(Counter(one.said["group"]["reason"] for one in everything))
    told = [one for one in everything if one.said["group"]["reason"] in STEPS]
    steps = Counter((one.said["id"], one.said["kind"], one.said["severity_now"]) for one in told)
    found.steps_repeated = sum(n - 1 for n in steps.values())
    found.examples = [f"{key} called {n} times" for key, n in steps.items() if n > 1][:5]
    last = {one.said["id"]: one.said["group"] for one in everything}
    storms = {one.said["id"] for one in told if one.said["group"]["scope"] == "storm"}
    found.storm_groups = len(storms)
    found.flood_points = sum(last[group]["members"] for group in storms if not last[group]["merged_into"])
    _outages(found, told, outages)
    sticking = {one.said["id"] for one in told if one.said["rule"] == "stuck"}
    found.stuck_groups = len(sticking)
    waited = [
        one.latency_s
        for one in told
        if one.said["rule"] not in SILENCES and (until_s is None or one.arrived - one.latency_s < until_s)
    ]
    if waited:
        found.p50_s, found.p99_s = (round(float(np.quantile(waited, q)), 3) for q in (0.5, 0.99))
        found.max_s = round(max(waited), 3)
    return found


def _outages(found: StormVerdict, told: Collection[Heard], outages: Mapping[str, int]) -> None:
    names = Counter(one.said["gateway"] for one in told if one.said["rule"] == "outage")
    points = {one.said["gateway"]: one.said["value"] for one in told if one.said["rule"] == "outage"}
    found.outages_once = sum(names[name] == 1 and points[name] == size for name, size in outages.items())
    found.outages_other = sum(name not in outages for name in names)
    found.examples += [
        f"outage of {name}: {names[name]} calls, {points.get(name)} of {size} points"
        for name, size in outages.items()
        if names[name] != 1 or points[name] != size
    ]
