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
from anomaly.aftermath import spread_scores, stand
from anomaly.alerts.event import AlertEvent
from anomaly.checks import all_checks
from anomaly.checks.rows import NO_TIME, Index, RowCheck, Rows
from anomaly.checks.score import score
from anomaly.conditions import Conditions
from anomaly.episodes import Episodes, Found
from anomaly.faults import Faults
from anomaly.firstlook import CHECKS, Met, first_look
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
from storage.fast import IS_COMPILED
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
    compiled  all checks in one loop, where they are those it holds; one by one they give the same
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
        compiled: bool = IS_COMPILED,
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
        self._at_once = compiled and frozenset(self._checks) == CHECKS
        self.presence = Presence(points, self.limits, checks, self.state, clock == "wall")
        subjects = Subjects(points, kinds)
        self.episodes = Episodes(self.state, self.limits, subjects, replay=clock == "events", drill=drill)
        self.neighbours = Neighbours(points, self.limits, self.state, checks.neighbours_s)
        parts = (self.episodes, self.presence, self.neighbours)
        self._faults = Faults(points, self.limits, self.state, *parts)
        self.conditions = Conditions(points, self.limits, self.state, rules, self.episodes, self._failed)
        self._wall = WallClock(time_zone)
        self._logged: dict[str, int] = {}
        self._reach = self._reaches()

    def judge(self, raw: RawBatch, pos: I64) -> Judged:
        """Judge the rows of consecutive journal records.

        pos  int64[n]: journal seq << 24 | row in the record, of each row

        A reading's flag is the worst of what its device and the checks say; missing values are 9. Late
        rows meet the stateless checks only and change no state; their score is 0, as is that of missing and
        failed values.
        """
        n = len(raw)
        if n == 0:
            return Judged(_NO_READINGS, _NO_READINGS, 0, [])
        arrival = self._arrival(raw)
        met = self._meet(raw)
        scores = np.zeros(n, np.float32)
        found = self._follow(met, scores, arrival, raw.received_at)
        verdict, flag, checks = met.verdict, met.flag, met.checks
        if met.skipped is not None:
            flag[met.skipped & (flag == GOOD)] = NOT_EVALUATED
            checks[met.skipped] |= np.uint32(bit("not_evaluated"))
        judged = _readings(raw, flag, checks, scores, pos)
        events = [replace(event, pos=int(pos[row])) for row, event in sorted(found, key=lambda one: one[0])]
        if not verdict.any():
            return Judged(judged, _NO_READINGS, 0, events)
        main, late = judged.take(verdict == MAIN), judged.take(verdict == LATE)
        return Judged(main, late, int((verdict == REPEAT).sum()), events)

    def _arrival(self, raw: RawBatch) -> I64:
        """When each row came, on the engine's clock; sets the clock. int64[n] µs."""
        self.received_us = max(self.received_us, int(raw.received_at.max()))
        if self.clock == "wall":
            return raw.received_at
        arrival = np.maximum(np.maximum.accumulate(raw.time), self.now_us)
        self.now_us = int(arrival[-1])
        return arrival

    def _meet(self, raw: RawBatch) -> Met:
        """Order and flags of a batch, and the rows that checks with a memory see."""
        if self._at_once:
            return first_look(raw, self.limits, self.state.live)
        rows = Grouped.of(raw)
        verdict = split(rows, self.state)
        flag, checks, skipped = self._stateless(rows)
        index = np.flatnonzero((verdict == MAIN) & (flag == GOOD))
        seen = Rows.grouped(rows.point[index], rows.time[index], rows.value[index], self.state.live)
        back = rows.order
        skipped = None if skipped is None else _scattered(skipped, back)
        flag, checks = _scattered(flag, back), _scattered(checks, back)
        return Met(_scattered(verdict, back), flag, checks, skipped, seen, back[index], None, None, {})

    def _stateless(self, rows: Grouped) -> tuple[U8, U32, Bool | None]:
        """Flag and check bits of every row, late ones too, and where a check raised."""
        flag = _OF_DEVICE[rows.device_flag]
        checks = np.zeros(len(flag), np.uint32)
        skipped: Bool | None = None
        if rows.device_flag.any():
            checks[_DEVICE_OBJECTS[rows.device_flag]] = bit("device")
        alone = Rows.alone(rows.point, rows.time, rows.value)
        for check in self._checks:
            if not check.stateful:
                classes = self._run(check, alone)
                if classes is None:
                    skipped = ~np.isnan(rows.value)
                elif classes.any():
                    _object(check, np.flatnonzero(classes), flag, checks)
        flag[np.isnan(rows.value)] = MISSING
        return flag, checks, skipped

    def _follow(self, met: Met, scores: F32, arrival: I64, raw_received_at: I64) -> Found:
        """Checks that remember and the rules that follow them, on main rows nobody doubts so far."""
        seen, order = met.seen, met.row
        if not len(seen):
            return []
        seen.utc_offset_us = self._wall.offset_within(seen.time, *seen.span)

        def follow(
            name: str, rows: Rows, classes: U8, some: bool, begin: int = 0, assessed: Assessed | None = None
        ) -> Found:
            def fresh(of: Index) -> Bool:
                of = of + begin
                return np.greater_equal(seen.time[of], arrival[order[of]] - self._fresh_us)

            rule, of = rulebook()[name], order[begin : begin + len(rows)]
            return self.episodes.follow(rule, rows, classes, fresh, of, raw_received_at, assessed, some)

        found: Found = []
        for check in self._checks:
            if not check.stateful:
                continue
            classes = self._remember(check, met)
            if classes is not None and check.rule is not None:
                found += follow(check.rule, seen, classes, met.some.get(check.name, True))
        sound = met.flag[order] == GOOD if met.sound is None else met.sound
        score_seen, live = self._score(seen, sound), self.state.live
        unusual = spread_scores(seen, order, score_seen, self.limits, live, scores, met.checks)
        found += follow("anomaly", seen, *unusual)
        borders = np.searchsorted(seen.point, self._reach).tolist()
        for city_rule, begin, end in zip(self._rules, borders[::2], borders[1::2], strict=True):
            if begin == end:
                continue
            rows = seen.between(begin, end)
            assessed = self._assess(city_rule, rows)
            if assessed is None:
                met.skip(order[begin:end])
                continue
            some = stand(rows, assessed.classes, live[f"{city_rule.name}_class"])
            if some:
                met.checks[order[begin:end][np.flatnonzero(assessed.classes)]] |= np.uint32(bit("rule"))
            found += follow(city_rule.name, rows, assessed.classes, some, begin, assessed)
        if met.classes is None:
            seen.believe(live)
        return found

    def _remember(self, check: RowCheck, met: Met) -> U8 | None:
        """The classes of one check with a memory, and what it objects to; None where it raised or nobody asks."""
        if met.classes is not None:
            return met.classes.get(check.name)
        classes = self._run(check, met.seen)
        if classes is None:
            met.skip(met.row)
        elif classes.any():
            _object(check, met.row[np.flatnonzero(classes)], met.flag, met.checks)
        return classes

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
            return rule.fastest(rows, self.limits, self.state.live)
        except Exception as failure:
            self._failed(rule.name, failure)
            return None

    def _reaches(self) -> I64:
        """Of each rule the first of its points and the one behind its last: points of a kind are neighbours, so a batch
        holds few rows of others between. Those that stand in it from another registry are among them. int64[rules * 2]
        """
        n, found = len(self.points), []
        for rule in self._rules:
            shown = np.full(n, not rule.of)
            if rule.of:
                stands = (self.state[f"{rule.name}_{one}"][:n] != 0 for one in ("class", "phase"))
                shown = np.logical_or.reduce((self.limits[rule.of][:n], *stands))
            those = np.flatnonzero(shown)
            found += [int(those[0]), int(those[-1]) + 1] if len(those) else [0, 0]
        return np.array(found, np.int64)

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
        """Everything the next row's judgement depends on: the live arrays, and JSON-able meta.

        Be done with the arrays before anything is judged.
        """
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
        return self.state.arrays(), meta

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
        self._reach = self._reaches()


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


_NO_READINGS: Final = _readings(
    RawBatch.empty(),
    np.empty(0, np.uint8),
    np.empty(0, np.uint32),
    np.empty(0, np.float32),
    np.empty(0, np.int64),
)
