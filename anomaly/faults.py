"""Faults found at a TICK: who is dead, out, off its neighbours or adrift, and who is back.

Owns what becomes an episode of a fault, and when it ends. The comparisons are anomaly.presence's and
anomaly.neighbours'; knows nothing of readings or wording.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anomaly.alerts.event import AlertEvent
from anomaly.checks.rows import Bool
from anomaly.episodes import Episodes, Phase
from anomaly.limits import Limits
from anomaly.neighbours import Neighbours
from anomaly.presence import Absent, Presence
from anomaly.rulebook import rulebook
from anomaly.state import State
from storage.points import PointTable

POINT_FAULTS = ("dead", "neighbours", "drift")
OUTAGE_MEMBERS_MAX = 100
"""Points an outage names; how many there are it says in its value."""


class Faults:
    """The faults of one engine's points and gateways."""

    def __init__(
        self,
        points: PointTable,
        limits: Limits,
        state: State,
        episodes: Episodes,
        presence: Presence,
        neighbours: Neighbours,
    ) -> None:
        self._points = points
        self._limits = limits
        self._state = state
        self._episodes = episodes
        self._presence = presence
        self._neighbours = neighbours
        self.registry_changed = True
        self.points_dead = 0
        self.silent = np.zeros(len(points), np.bool_)

    def tick(self, now: int, recorded_at: int, drained: bool) -> list[AlertEvent]:
        """What began and ended at ``now``, µs of the engine's clock."""
        events = list(self._abandon(now, recorded_at)) if self.registry_changed else []
        self.registry_changed = False
        absent = self._presence.tick(now, drained)
        self.silent = absent.silent
        self.points_dead = int(absent.silent.sum())
        events += self._outages(absent, now, recorded_at)
        events += self._device_outages(absent, now, recorded_at)
        events += self._deaths(absent, now, recorded_at)
        off = self._neighbours.tick(now)
        if off is not None:
            # Who is silent has no newest value to be off with.
            events += self._follow("neighbours", off.off, off.back, off.deviation, now, recorded_at)
            events += self._follow("drift", off.drifts, off.steady, off.deviation, now, recorded_at)
        return events

    def _outages(self, absent: Absent, now: int, recorded_at: int) -> Iterator[AlertEvent]:
        rule, open_now = rulebook()["outage"], self._episodes.open
        for gateway in np.flatnonzero(absent.began).tolist():
            if self._limits["alert"][self._points.gateway == gateway].any():
                onset, dead = int(absent.last_word[gateway]), float(absent.out_points[gateway])
                those = np.flatnonzero(absent.silent & (self._points.gateway == gateway))
                members = those[:OUTAGE_MEMBERS_MAX].tolist()
                yield self._episodes.begin(rule, gateway, onset, now, recorded_at, dead, members)
        for gateway in np.flatnonzero(absent.ended).tolist():
            if (rule.name, gateway) in open_now:
                dead = float(absent.out_points[gateway])
                yield self._episodes.end(rule, gateway, now, recorded_at, dead)

    def _device_outages(self, absent: Absent, now: int, recorded_at: int) -> Iterator[AlertEvent]:
        rule, devices, found = rulebook()["device_outage"], self._presence.devices, absent.devices
        for code in np.flatnonzero(found.began).tolist():
            those = np.flatnonzero(devices.of == code)
            if self._limits["alert"][those].any():
                onset, dead = int(found.last_word[code]), float(found.out_points[code])
                members = those[absent.silent[those]][:OUTAGE_MEMBERS_MAX].tolist()
                name = devices.names[code]
                yield self._episodes.begin(rule, name, onset, now, recorded_at, dead, members)
        over = {devices.names[code] for code in np.flatnonzero(found.ended).tolist()}
        for name in sorted(str(subject) for one, subject in self._episodes.open if one == rule.name):
            if name in over or name not in devices.numbers:
                yield self._episodes.end(rule, name, now, recorded_at, 0.0)

    def _deaths(self, absent: Absent, now: int, recorded_at: int) -> Iterator[AlertEvent]:
        rule, state = rulebook()["dead"], self._state
        phase, last_v = state["dead_phase"], state["last_v"]
        firing = phase == Phase.FIRING
        for point in np.flatnonzero(firing & ~absent.silent & absent.steady).tolist():
            # A gap excuses silence but ends no episode: only a reading shows that a point lives.
            if absent.heard[point] > self._episodes.open[(rule.name, point)].onset:
                phase[point] = Phase.NORMAL
                yield self._episodes.end(rule, point, now, recorded_at, float(last_v[point]))
        for point in np.flatnonzero(absent.dead & ~firing & self._limits["alert"]).tolist():
            phase[point] = Phase.FIRING
            onset, value = int(absent.heard[point]), float(last_v[point])
            yield self._episodes.begin(rule, point, onset, now, recorded_at, value)

    def _follow(
        self, name: str, begins: Bool, ends: Bool, deviation: np.ndarray, now: int, recorded_at: int
    ) -> Iterator[AlertEvent]:
        rule, phase = rulebook()[name], self._state[f"{name}_phase"]
        firing = phase == Phase.FIRING
        for point in np.flatnonzero(firing & ends).tolist():
            phase[point] = Phase.NORMAL
            yield self._episodes.end(rule, point, now, recorded_at, float(deviation[point]))
        for point in np.flatnonzero(begins & ~firing & self._limits["alert"]).tolist():
            phase[point] = Phase.FIRING
            onset = int(self._state["off_since"][point]) if name == "neighbours" else now
            yield self._episodes.begin(rule, point, onset, now, recorded_at, float(deviation[point]))

    def _abandon(self, now: int, recorded_at: int) -> Iterator[AlertEvent]:
        """End episodes of points that were retired, may alert no more or are asked no more, since they began."""
        asked = {
            "dead": self._limits["expects"],
            "neighbours": ~np.isnan(self._limits["neighbour_sigmas"]),
            "drift": ~np.isnan(self._limits["drift_sigmas"]),
            "anomaly": self._limits["anomaly_alert"],
        }
        for name, number in sorted(self._episodes.open):
            if name == "outage" or isinstance(number, str):
                continue
            if self._limits["alert"][number] and (name not in asked or asked[name][number]):
                continue
            value = float(self._state["last_v"][number])
            yield self._episodes.end(rulebook()[name], number, now, recorded_at, value)
            if name in POINT_FAULTS:
                self._state[f"{name}_phase"][number] = Phase.NORMAL
