"""Engine: journaled readings in, judged readings and alert events out.

Owns the order of judgement: main or late, device flag, stateless checks, stateful checks, rules, episodes.
Knows nothing of files, sockets or wording. It sees time only through TICK and the rows themselves, so a
replay from any snapshot ends in the same state and gives the same events.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from anomaly import rules as city_rules
from anomaly.alerts.event import AlertEvent
from anomaly.checks import all_checks
from anomaly.checks.rows import NO_TIME, Index, RowCheck, Rows
from anomaly.checks.score import score
from anomaly.checks.unusual import ALARM_LINE, unusual
from anomaly.conditions import Conditions
from anomaly.episodes import Episodes, Found
from anomaly.faults import Faults
from anomaly.limits import limits_of
from anomaly.localtime import WallClock
from anomaly.neighbours import Neighbours
from anomaly.order import LATE, MAIN, REPEAT, Grouped, split
from anomaly.presence import Presence
from anomaly.rulebook import rulebook
from anomaly.rules.base import Assessed, Forecast, RowRule
from anomaly.settings import CheckSettings, KindSettings
from anomaly.state import State
from anomaly.subjects import Subjects
from storage.batch import F32, F64, I32, I64, U8, U32, US_PER_S, Bool, RawBatch, ReadingBatch
from storage.flags import DEVICE_SILENT, FAIL, GOOD, MISSING, NOT_EVALUATED, SUSPECT, bit, worst
from storage.points import PointTable
from storage.records import Event, Gap

log = logging.getLogger("yuzui.anomaly")

SNAPSHOT_VERSION: Final = 1
LOG_EVERY_US: Final = 60 * US_PER_S
"""A check that raises does so in every batch: one line a minute says it, the counter says how often."""

_OF_DEVICE = np.arange(256, dtype=np.uint8)
_OF_DEVICE[[DEVICE_SILENT, NOT_EVALUATED]] = GOOD
"""What a device's own flag makes of a reading. It did not look, but we do: 2 gives way to 1."""
_DEVICE_OBJECTS = np.isin(np.arange(256), (SUSPECT, FAIL, MISSING))


@dataclass(slots=True)
class Judged:
    """What became of a batch; both batches in journal order. ``repeats`` rows were dropped."""

    main: ReadingBatch
    late: ReadingBatch
    repeats: int
    events: list[AlertEvent]


class Engine:
    """One city's checks and episodes. All calls from one thread, in journal order.

    points  the registry; its numbers are those of the rows
    kinds   settings by kind name
    rules   the config's [rules] table, for the city's rules
    clock   "wall": TICK is now; "events": the newest event time is (recordings, drills)
    time_zone  the city's, for hours of the day and calendar days
    now_us  the engine's clock, µs since 1970 UTC
    """

    def __init__(
        self,
        points: PointTable,
        kinds: Mapping[str, KindSettings],
        checks: CheckSettings,
        state: State | None = None,
        *,
        clock: Literal["wall", "events"] = "wall",
        drill: bool = False,
        row_checks: tuple[RowCheck, ...] | None = None,
        rules: Mapping[str, Any] = MappingProxyType({}),
        time_zone: str = "UTC",
    ) -> None:
        self.points = points
        self.state = state or State(len(points))
        if self.state.n < len(points):
            self.state.grow(len(points))
        self._rules = city_rules.row_rules()
        self.limits = limits_of(points, kinds, checks)
        for rule in self._rules:
            self.limits |= rule.settings(points, kinds, rules)
        # One layout whatever they came from (columns of Arrow are read-only): loops are compiled for each.
        self.limits = {
            name: np.require(array, requirements=["C", "W"]) for name, array in self.limits.items()
        }
        self.state.place(self.limits)
        self.clock = clock
        self.now_us: int = NO_TIME
        self.received_us: int = NO_TIME
        self.counts: Counter[str] = Counter()
        self._fresh_us = round(checks.fresh_s * US_PER_S)
        self._checks = all_checks() if row_checks is None else row_checks
        self.presence = Presence(points, self.limits, checks, self.state, clock == "wall")
        subjects = Subjects(points, kinds)
        self.episodes = Episodes(self.state, self.limits, subjects, replay=clock == "events", drill=drill)
        self.neighbours = Neighbours(points, self.limits, self.state, checks.neighbours_s)
        parts = (self.episodes, self.presence, self.neighbours)
        self._faults = Faults(points, self.limits, self.state, *parts)
        self.conditions = Conditions(points, self.limits, self.state, rules, self.episodes, self._failed)
        self._wall = WallClock(time_zone)
        self._logged: dict[str, int] = {}

    def judge(self, raw: RawBatch, pos: I64) -> Judged:
        """Judge the rows of consecutive journal records.

        pos  int64[n]: journal seq << 24 | row in the record, of each row

        A reading's flag is the worst of what its device and the checks say; missing values are 9. Late
        rows meet the stateless checks only and change no state; their score is 0, as is that of missing and
        failed values.
        """
        n = len(raw)
        if n == 0:
            nothing = _readings(
                raw, np.empty(0, np.uint8), np.empty(0, np.uint32), np.empty(0, np.float32), pos
            )
            return Judged(nothing, nothing, 0, [])
        arrival = self._arrival(raw)
        rows = Grouped.of(raw)
        verdict = split(rows, self.state)
        flag, checks, skipped = self._stateless(rows)
        believed = (verdict == MAIN) & (flag == GOOD)
        scores = np.zeros(n, np.float32)
        found = self._stateful(rows, believed, flag, checks, scores, skipped, arrival, raw.received_at)
        if skipped.any():
            flag[skipped & (flag == GOOD)] = NOT_EVALUATED
            checks[skipped] |= np.uint32(bit("not_evaluated"))
        flag, checks, scores = (_scattered(column, rows.order) for column in (flag, checks, scores))
        judged = _readings(raw, flag, checks, scores, pos)
        events = [replace(event, pos=int(pos[row])) for row, event in sorted(found, key=lambda one: one[0])]
        if not verdict.any():
            return Judged(judged, judged.take(np.empty(0, np.intp)), 0, events)
        place = _scattered(verdict, rows.order)
        return Judged(
            judged.take(place == MAIN), judged.take(place == LATE), int((place == REPEAT).sum()), events
        )

    def _arrival(self, raw: RawBatch) -> I64:
        """When each row came, on the engine's clock; sets the clock. int64[n] µs."""
        self.received_us = max(self.received_us, int(raw.received_at.max()))
        if self.clock == "wall":
            return raw.received_at
        arrival = np.maximum(np.maximum.accumulate(raw.time), self.now_us)
        self.now_us = int(arrival[-1])
        return arrival

    def _stateless(self, rows: Grouped) -> tuple[U8, U32, Bool]:
        """Flag and check bits of every row, late ones too, and where a check raised."""
        flag = _OF_DEVICE[rows.device_flag]
        checks = np.zeros(len(flag), np.uint32)
        skipped = np.zeros(len(flag), np.bool_)
        if rows.device_flag.any():
            checks[_DEVICE_OBJECTS[rows.device_flag]] = bit("device")
        alone = Rows.alone(rows.point, rows.time, rows.value)
        for check in self._checks:
            if not check.stateful:
                classes = self._run(check, alone)
                if classes is None:
                    skipped[:] = True
                elif classes.any():
                    _object(check, np.flatnonzero(classes), flag, checks)
        missing = np.isnan(rows.value)
        if missing.any():
            flag[missing] = MISSING
            skipped[missing] = False
        return flag, checks, skipped

    def _stateful(
        self,
        rows: Grouped,
        believed: Bool,
        flag: U8,
        checks: U32,
        scores: F32,
        skipped: Bool,
        arrival: I64,
        raw_received_at: I64,
    ) -> Found:
        """Checks that remember and the rules that follow them, on main rows nobody doubts so far."""
        index = np.flatnonzero(believed)
        if not len(index):
            return []
        whole = len(index) == len(believed)
        seen = Rows.grouped(
            rows.point if whole else rows.point[index],
            rows.time if whole else rows.time[index],
            rows.value if whole else rows.value[index],
            self.state.live,
        )
        seen.utc_offset_us = self._wall.offset_us(seen.time)
        order = rows.order if whole else rows.order[index]

        def fresh(of: Index) -> Bool:
            return np.greater_equal(seen.time[of], arrival[order[of]] - self._fresh_us)

        found: Found = []
        for check in self._checks:
            if not check.stateful:
                continue
            classes = self._run(check, seen)
            if classes is None:
                skipped[index] = True
                continue
            if classes.any():
                _object(check, index[np.flatnonzero(classes)], flag, checks)
            if check.rule is not None:
                rule = rulebook()[check.rule]
                found += self.episodes.follow(rule, seen, classes, fresh, order, raw_received_at)
        scores[index] = score_seen = self._score(seen, flag[index] == GOOD)
        alarms = np.flatnonzero(score_seen >= ALARM_LINE)
        if len(alarms):
            checks[index[alarms]] |= np.uint32(bit("anomaly"))
        classes = unusual(seen, score_seen, self.limits, self.state.live)
        found += self.episodes.follow(rulebook()["anomaly"], seen, classes, fresh, order, raw_received_at)
        for city_rule in self._rules:
            assessed = self._assess(city_rule, seen)
            if assessed is None:
                skipped[index] = True
                continue
            if assessed.classes.any():
                checks[index[np.flatnonzero(assessed.classes)]] |= np.uint32(bit("rule"))
            rule, classes = rulebook()[city_rule.name], assessed.classes
            found += self.episodes.follow(rule, seen, classes, fresh, order, raw_received_at, assessed)
        seen.believe(self.state.live)
        return found

    def _run(self, check: RowCheck, rows: Rows) -> U8 | None:
        """The classes a check finds; None where it raised, which is counted and said, never hidden."""
        try:
            return check.fastest(rows, self.limits, self.state.live)
        except Exception as failure:
            self._failed(check.name, failure)
            return None

    def _score(self, rows: Rows, sound: Bool) -> F32:
        try:
            return score(rows, sound, self.state.live)
        except Exception as failure:
            self._failed("score", failure)
            return np.zeros(len(rows), np.float32)

    def _assess(self, rule: RowRule, rows: Rows) -> Assessed | None:
        """What one of the city's rules says of believed rows; None where it raised, as for a check."""
        try:
            assessed = rule.fastest(rows, self.limits, self.state.live)
        except Exception as failure:
            self._failed(rule.name, failure)
            return None
        last = rows.last
        self.state[f"{rule.name}_class"][rows.point[last]] = assessed.classes[last]
        return assessed

    def _failed(self, name: str, failure: Exception) -> None:
        self.counts["check_errors"] += 1
        self.counts[f"check_errors.{name}"] += 1
        now = self.received_us
        if now - self._logged.get(name, NO_TIME // 2) >= LOG_EVERY_US:
            self._logged[name] = now
            log.error("%s raised; its readings are not evaluated", name, exc_info=failure)

    def gap(self, gap: Gap) -> list[AlertEvent]:
        """A span in which we could not have heard (a source of) the city: nobody is dead because of it."""
        self.presence.gap(gap.begin, gap.end, gap.source, self.now_us)
        return []

    def leave(self, points: I32, at: int) -> None:
        """``points`` [n] said farewell at ``at``, µs of the receive clock: silent until they are heard again."""
        self.presence.leave(points, at)

    def hear(self, events: Sequence[Event]) -> None:
        """Steps of events beside readings, in journal order: what a rule counts of them is kept until it is too old."""
        self.conditions.heard.hear(events)

    def tick(self, now_us: int, drained: bool = True) -> list[AlertEvent]:
        """TICK: who is dead, out, or back, and what the rules across points say.

        now_us   the receive clock, µs
        drained  no received bytes waited to be read or decoded in the second before
        """
        self.received_us = now_us
        if self.clock == "wall":
            self.now_us = now_us
        if self.now_us == NO_TIME:
            return []
        events = self._faults.tick(self.now_us, self.received_us, drained)
        return events + self.conditions.tick(self.now_us, self.received_us)

    def take_forecasts(self) -> list[Forecast]:
        """What the rules expect, made at TICKs since the last call."""
        made, self.conditions.forecasts = self.conditions.forecasts, []
        return made

    @property
    def points_dead(self) -> int:
        """Points silent for too long, whoever is the fault; safe to ask from another thread."""
        return self._faults.points_dead

    def video_online(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(source, district) to (channels online, channels), of points that the rule "video" watches.

        Online: its last word was a picture, and it is not silent for too long. Safe to ask from another thread.
        """
        watched = np.flatnonzero(self.limits["video_point"] & self.limits["expects"])
        if not len(watched):
            return {}
        place = self.state["video_point_place"][watched]
        alive, seen = self.state["video_alive"][place], self.state["video_seen"][place]
        online = (seen != NO_TIME) & (alive == seen) & ~self._faults.silent[watched]
        districts = len(self.points.districts)
        group = self.points.source[watched].astype(np.int64) * districts + self.points.district[watched]
        of = np.bincount(group)
        up = np.bincount(group[online], minlength=len(of))
        return {
            (self.points.sources[g // districts], self.points.districts[g % districts]): (
                int(up[g]),
                int(of[g]),
            )
            for g in np.flatnonzero(of).tolist()
        }

    @property
    def speaks(self) -> Bool:
        """bool[points]: heard at some time and not silent for too long; safe to ask from another thread."""
        silent = self._faults.silent
        heard: Bool = self.state["last_t"][: len(silent)] != NO_TIME
        return heard & ~silent

    @property
    def silent(self) -> Bool:
        """bool[points]: silent for too long at the newest TICK, whoever is the fault. Never changed in place."""
        return self._faults.silent

    @property
    def alerts_open(self) -> int:
        """Alerts firing now; safe to ask from another thread."""
        return sum(episode.level > 0 for episode in list(self.episodes.open.values()))

    def remember(self, point: I32, time: I64, value: F64, device_flag: U8) -> None:
        """The newest reading of points, where no snapshot is left: what is delivered again is then known as late.

        All [n], one row a point; time µs since 1970 UTC, value NaN where missing. Checks begin unseen.
        """
        self.state["last_t"][point] = time
        self.state["last_v"][point] = value
        self.state["last_flag"][point] = device_flag

    def snapshot(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Everything the next row's judgement depends on: copied arrays, and JSON-able meta."""
        open_episodes = self.episodes.snapshot()
        for one in open_episodes:
            if one["rule"] == "outage":
                one["subject"] = self.points.gateways[one["subject"]]
        meta = {
            "version": SNAPSHOT_VERSION,
            "now_us": self.now_us,
            "received_us": self.received_us,
            "episodes": open_episodes,
            "presence": self.presence.snapshot(),
            "asked_at": dict(self.conditions.asked_at),
            "heard": self.conditions.heard.snapshot(),
            "neighbours_at": int(self.neighbours.asked_at),
        }
        return {name: array.copy(order="K") for name, array in self.state.arrays().items()}, meta

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]], meta: dict[str, Any]) -> None:
        """Take over a snapshot, also one of a registry with fewer points.

        Raises ValueError for a snapshot of another version or of arrays that do not fit.
        """
        if meta["version"] != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version {meta['version']}, this engine reads {SNAPSHOT_VERSION}")
        self.state.restore(arrays)
        self.state.place(self.limits)
        self.now_us, self.received_us = meta["now_us"], meta["received_us"]
        gateways = {name: number for number, name in enumerate(self.points.gateways)}
        kept = []
        for one in meta["episodes"]:
            if one["rule"] != "outage":
                kept.append(one)
            elif one["subject"] in gateways:
                kept.append({**one, "subject": gateways[one["subject"]]})
        self.episodes.restore(kept)
        self.presence.restore(meta["presence"])
        # A snapshot from before there were rules has none.
        self.conditions.asked_at = dict(meta.get("asked_at", {}))
        self.conditions.heard.restore(meta.get("heard", ()))
        self.neighbours.asked_at = meta.get("neighbours_at", NO_TIME)
        self._faults.registry_changed = True


def _object(check: RowCheck, index: Index, flag: U8, checks: U32) -> None:
    checks[index] |= np.uint32(bit(check.name))
    if check.flag != GOOD:
        flag[index] = worst(flag[index], np.full(len(index), check.flag, np.uint8))


def _scattered(column: npt.NDArray[Any], order: Index) -> npt.NDArray[Any]:
    """A column of grouped rows back in batch order."""
    back = np.empty_like(column)
    back[order] = column
    return back


def _readings(raw: RawBatch, flag: U8, checks: U32, scores: F32, pos: I64) -> ReadingBatch:
    return ReadingBatch(
        raw.point,
        raw.time,
        raw.received_at,
        raw.value,
        raw.device_flag,
        flag,
        checks,
        scores,
        pos,
    )
