"""Presence: since when each point, gateway and source could have been heard, and who is absent.

Owns the watermarks of sources, our own gaps, and which gateways are out. Knows nothing of values or of
alerts; anomaly.checks.absence compares, this module says what counts as silence.

Two clocks can find a silence. The source's watermark (newest event time less the allowed lateness) says
that others of the source are already past it. The receive clock says that nothing came for that long
while the link was up and its backlog drained. Spans in which we could not hear push a floor forward:
silence is counted from the floor on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from anomaly.checks import absence
from anomaly.checks.bycode import counted, looked_up, newest
from anomaly.checks.rows import NO_TIME
from anomaly.devices import Devices, DevicesOut
from anomaly.limits import NEVER_US, Limits
from anomaly.settings import CheckSettings
from anomaly.silence import silent_for
from anomaly.state import State
from storage.batch import I32, I64, US_PER_S, Bool
from storage.points import PointTable

TICK_JUMP_US: Final = 10 * US_PER_S
"""TICK comes once a second. Ten seconds on at once is a clock that was set or an engine that stood still;
either way nobody could have been heard, so the span is taken as a gap."""

SOURCE_FIELDS: Final = ("floor", "clear_since", "down")
GATEWAY_FIELDS: Final = ("back_at", "out_since")


@dataclass(slots=True)
class Absent:
    """What one TICK found.

    silent     bool[points]: dead, whoever is the fault
    dead       bool[points]: those of them whose gateway is not the fault, and decided
    out        bool[gateways]: out now
    began      bool[gateways]: out since this TICK
    ended      bool[gateways]: out until this TICK
    out_points int64[gateways]: dead points of each gateway
    last_word  int64[gateways]: newest event time, µs; NO_TIME for never
    heard      int64[points]: newest event time at which it was alive, µs; a camera that says it is offline is not
    steady     bool[points]: alive for long enough to count as back
    devices    the same of devices, between points and gateways
    """

    silent: Bool
    dead: Bool
    out: Bool
    began: Bool
    ended: Bool
    out_points: I64
    last_word: I64
    heard: I64
    steady: Bool
    devices: DevicesOut


class Presence:
    """The arrays of sources and gateways, and the judgement at each TICK."""

    def __init__(
        self, points: PointTable, limits: Limits, checks: CheckSettings, state: State, receive_clock: bool
    ) -> None:
        self._points = points
        self._limits = limits
        self._checks = checks
        self._state = state
        self._receive_clock = receive_clock
        # Copies: columns of Arrow are read-only, for which loops would be compiled once more.
        self._source = np.array(points.source, np.int32)
        self._gateway = np.array(points.gateway, np.int32)
        watched = limits.get("video_point")
        self._cameras = np.empty(0, np.intp) if watched is None else np.flatnonzero(watched)
        self._lateness_us = round(checks.lateness_s * US_PER_S)
        sources, gateways = len(points.sources), len(points.gateways)
        self.floor = np.full(sources, NO_TIME, np.int64)
        self.clear_since = np.full(sources, NO_TIME, np.int64)
        self.down = np.zeros(sources, np.bool_)
        self.back_at = np.full(gateways, NO_TIME, np.int64)
        self.out_since = np.full(gateways, NO_TIME, np.int64)
        self.devices = Devices(points, limits["expects"], checks.outage_points_min)
        self.left_at = np.full(len(points), NO_TIME, np.int64)
        self._named = np.array([bool(name) for name in points.gateways], np.bool_)
        self.ticked_at = NO_TIME

    def gap(self, begin: int, end: int, source: str, now: int) -> None:
        """A span, µs, in which ``source`` ("" for all) could not be heard; ``end`` 0 while it lasts.

        Under the clock of events the span's own times mean nothing: silence is counted from ``now`` on.
        """
        if not source:
            concerned = np.ones(len(self.floor), np.bool_)
        else:
            concerned = np.array([name == source for name in self._points.sources], np.bool_)
        self.down[concerned] = end == 0
        until = (end or begin) if self._receive_clock else now
        self._raise_floor(concerned, until)

    def leave(self, points: I32, at: int) -> None:
        """``points`` said farewell, or their gateway's will says it, at ``at``, µs of the receive clock.

        They are silent from the next TICK on, without waiting for an interval, until they are heard again.
        """
        self.left_at[points] = at

    def tick(self, now: int, drained: bool) -> Absent:
        """Who is absent at ``now``, µs of the engine's clock."""
        if self._receive_clock:
            self._watch_clock(now)
        self.ticked_at = now
        if not drained:
            np.maximum(self.clear_since, now, out=self.clear_since)
        heard, steady = self._alive(now)
        silences, last_word = self._silences(now, heard)
        share, points_min = self._checks.outage_share, self._checks.outage_points_min
        was_out = self.out_since != NO_TIME
        back = was_out & self._spoke_again(silences, share, heard, steady) if was_out.any() else was_out
        out_now = absence.gateways_out(silences, share, points_min) | self._left_whole(silences, share)
        began = out_now & ~was_out
        self.back_at[back] = now
        self.out_since[back] = NO_TIME
        self.out_since[began] = last_word[began]
        out = (was_out & ~back) | began
        is_dead = absence.dead(silences)
        excused = absence.undecided(silences)
        if (out | back).any():
            excused |= looked_up(out | back, silences.gateway)
        devices = self.devices.judge(silences, heard, steady, excused, now, share, points_min)
        excused |= devices.excused
        dead, counts = is_dead & ~excused, counted(silences.gateway, is_dead, silences.gateways)
        return Absent(is_dead, dead, out, began, back, counts, last_word, heard, steady, devices)

    def _alive(self, now: int) -> tuple[I64, Bool]:
        """(heard, steady) of every point, see Absent."""
        heard, n = self._state["last_t"], len(self._points)
        steady = np.ones(n, np.bool_)
        at = self._cameras
        if not len(at):
            return heard, steady
        place = self._state["video_point_place"][at]
        heard = heard.copy()
        heard[at] = self._state["video_alive"][place]
        up = self._state["video_up"][place]
        steady[at] = (up != NO_TIME) & (now - up >= self._limits["video_back_us"][0])
        return heard, steady

    def watermarks(self) -> I64:
        """Newest event time of each source less the allowed lateness, int64[sources] µs; NO_TIME for none.

        A device whose clock runs ahead cannot push it: a reading counts with its receive time at most.
        """
        heard = self._state["last_t"]
        if self._receive_clock:
            heard = np.minimum(heard, self._state["last_received"])
        last = newest(self._source, heard, len(self.floor))
        return np.where(last == NO_TIME, NO_TIME, last - self._lateness_us)

    def _watch_clock(self, now: int) -> None:
        everyone = np.ones(len(self.floor), np.bool_)
        if self.ticked_at != NO_TIME and now - self.ticked_at > TICK_JUMP_US:
            self._raise_floor(everyone, now)
        elif now < self.ticked_at:
            # The clock was set back: what was noted in its future would excuse silence until then.
            for noted in (self.floor, self.clear_since, self.back_at, self.devices.back_at):
                np.minimum(noted, now, out=noted)

    def _raise_floor(self, concerned: Bool, until: int) -> None:
        self.floor[concerned] = np.maximum(self.floor[concerned], until)
        self.clear_since[concerned] = np.maximum(self.clear_since[concerned], until)

    def _silences(self, now: int, last_t: I64) -> tuple[absence.Silences, I64]:
        last_received = self._state["last_received"]
        source, gateway = self._source, self._gateway
        gateway_t = newest(gateway, last_t, len(self.back_at))
        gateway_received = newest(gateway, last_received, len(self.back_at))
        expected, silent, of_gateway = silent_for(
            now if self._receive_clock else NO_TIME,
            (last_t, last_received, self._limits["expects"]),
            (source, self.watermarks(), self.floor, self.clear_since, self.down),
            (gateway, gateway_t, gateway_received, self.back_at),
            (self.devices.of, self.devices.back_at),
        )
        after = self._limits["silence_us"]
        gone = self._gone()
        if gone.any():
            # Who said farewell needs no interval to be missed by: many such points speak only when something changes.
            expected = expected | (gone & (last_t != NO_TIME) & self._limits["alert"])
            silent, after = np.where(gone, NEVER_US, silent), np.where(gone, 0, after)
        return absence.Silences(expected, silent, of_gateway, after, gateway, len(self.back_at)), gateway_t

    def _gone(self) -> Bool:
        """bool[points]: left and not heard since."""
        gone: Bool = self.left_at != NO_TIME
        if not gone.any():
            return gone
        gone &= self._state["last_received"] <= self.left_at
        self.left_at[~gone] = NO_TIME
        return gone

    def _left_whole(self, silences: absence.Silences, share: float) -> Bool:
        """bool[gateways]: ``share`` of the expected points left; few as they may be, it is one fault and not many."""
        of, n, those = silences.gateway, silences.gateways, self.left_at != NO_TIME
        if not those.any():
            return np.zeros(n, np.bool_)
        left = counted(of, those & silences.expected, n)
        expected = counted(of, silences.expected, n)
        whole: Bool = self._named & (left > 0) & (left >= share * expected)
        return whole

    def _spoke_again(self, silences: absence.Silences, share: float, heard: I64, steady: Bool) -> Bool:
        """bool[gateways]: fewer than ``share`` of the expected points are still missing since the outage."""
        of, n = silences.gateway, silences.gateways
        since = looked_up(self.out_since, of)
        spoke = silences.expected & steady & (heard > since)
        expected = counted(of, silences.expected, n)
        missing = expected - counted(of, spoke, n)
        asked = self._limits["expects"] | (self.left_at != NO_TIME)
        abandoned = counted(of, asked, n) == 0
        back: Bool = (missing < share * expected) | abandoned
        return back

    def snapshot(self) -> dict[str, Any]:
        """JSON-able, by name of source and gateway: their numbers change with the registry."""
        sources = [
            [name, *(int(getattr(self, field)[i]) for field in SOURCE_FIELDS)]
            for i, name in enumerate(self._points.sources)
            if self.down[i] or self.floor[i] != NO_TIME or self.clear_since[i] != NO_TIME
        ]
        gateways = [
            [name, *(int(getattr(self, field)[i]) for field in GATEWAY_FIELDS)]
            for i, name in enumerate(self._points.gateways)
            if self.back_at[i] != NO_TIME or self.out_since[i] != NO_TIME
        ]
        left = [
            [self._points.point_id[i], int(self.left_at[i])]
            for i in np.flatnonzero(self.left_at != NO_TIME).tolist()
        ]
        return {
            "ticked_at": int(self.ticked_at),
            "devices": self.devices.snapshot(),
            "sources": sources,
            "gateways": gateways,
            "left": left,
        }

    def restore(self, meta: dict[str, Any]) -> None:
        """Take over what ``snapshot`` gave; sources and gateways that are gone are forgotten."""
        self.ticked_at = meta["ticked_at"]
        self.devices.restore(meta.get("devices", []))
        gone: dict[str, int] = dict(meta.get("left", ()))
        number_of = self._points.number_of() if gone else {}
        for name, left_at in gone.items():
            if name in number_of:
                self.left_at[number_of[name]] = left_at
        for names, fields, rows in (
            (self._points.sources, SOURCE_FIELDS, meta["sources"]),
            (self._points.gateways, GATEWAY_FIELDS, meta["gateways"]),
        ):
            number = {name: i for i, name in enumerate(names)}
            for name, *values in rows:
                if name in number:
                    for field, value in zip(fields, values, strict=True):
                        getattr(self, field)[number[name]] = value
