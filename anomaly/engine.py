"""Engine: journaled readings in, judged readings and alert events out.

Owns the order of judgement: main or late, device flag, stateless checks, stateful checks, rules, episodes.
Knows nothing of files, sockets or wording. It sees time only through TICK and the rows themselves, so a
replay from any snapshot ends in the same state and gives the same events.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from anomaly.alerts.event import AlertEvent, Subject
from anomaly.checks import all_checks
from anomaly.checks.rows import NO_TIME, Index, RowCheck, Rows
from anomaly.episodes import RULES, Episodes, Found, Phase
from anomaly.limits import NO_SETTINGS, limits_of
from anomaly.order import LATE, MAIN, REPEAT, Grouped, split
from anomaly.presence import Absent, Presence
from anomaly.settings import CheckSettings, KindSettings
from anomaly.state import State
from storage.batch import I64, U8, U32, US_PER_S, Bool, RawBatch, ReadingBatch
from storage.flags import DEVICE_SILENT, FAIL, GOOD, MISSING, NOT_EVALUATED, SUSPECT, bit, worst
from storage.points import PointTable
from storage.records import Gap

log = logging.getLogger("yuzui.anomaly")

SNAPSHOT_VERSION: Final = 1
LOG_EVERY_US: Final = 60 * US_PER_S
"""A check that raises does so in every batch: one line a minute says it, the counter says how often."""
OUTAGE_UNIT: Final = "points"

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
    clock   "wall": TICK is now; "events": the newest event time is (recordings, drills)
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
    ) -> None:
        self.points = points
        self.state = state or State(len(points))
        if self.state.n < len(points):
            self.state.grow(len(points))
        self.limits = limits_of(points, kinds, checks)
        self.clock = clock
        self.now_us: int = NO_TIME
        self.received_us: int = NO_TIME
        self.counts: Counter[str] = Counter()
        self.points_dead = 0
        self._kinds = kinds
        self._fresh_us = round(checks.fresh_s * US_PER_S)
        self._checks = all_checks() if row_checks is None else row_checks
        self.presence = Presence(points, self.limits, checks, self.state, clock == "wall")
        self.episodes = Episodes(
            self.state, self.limits, self._subject, replay=clock == "events", drill=drill
        )
        self._logged: dict[str, int] = {}
        self._registry_changed = True

    def judge(self, raw: RawBatch, pos: I64) -> Judged:
        """Judge the rows of consecutive journal records.

        pos  int64[n]: journal seq << 24 | row in the record, of each row

        A reading's flag is the worst of what its device and the checks say; missing values are 9. Late
        rows meet the stateless checks only and change no state. Score is 0: no check of this set scores.
        """
        n = len(raw)
        if n == 0:
            nothing = _readings(raw, np.empty(0, np.uint8), np.empty(0, np.uint32), pos)
            return Judged(nothing, nothing, 0, [])
        arrival = self._arrival(raw)
        rows = Grouped.of(raw)
        verdict = split(rows, self.state)
        flag, checks, skipped = self._stateless(rows)
        believed = (verdict == MAIN) & (flag == GOOD)
        found = self._stateful(rows, believed, flag, checks, skipped, arrival, raw.received_at)
        flag[skipped & (flag == GOOD)] = NOT_EVALUATED
        checks[skipped] |= np.uint32(bit("not_evaluated"))
        judged = _readings(raw, _scattered(flag, rows.order), _scattered(checks, rows.order), pos)
        events = [event for _, event in sorted(found, key=lambda one: one[0])]
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
            self.state.arrays(),
        )
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
                found += self.episodes.follow(RULES[check.rule], seen, classes, fresh, order, raw_received_at)
        seen.believe(self.state.arrays())
        return found

    def _run(self, check: RowCheck, rows: Rows) -> U8 | None:
        """The classes a check finds; None where it raised, which is counted and said, never hidden."""
        try:
            return check.judge(rows, self.limits, self.state.arrays())
        except Exception as failure:
            self.counts["check_errors"] += 1
            self.counts[f"check_errors.{check.name}"] += 1
            now = self.received_us
            if now - self._logged.get(check.name, NO_TIME // 2) >= LOG_EVERY_US:
                self._logged[check.name] = now
                log.error("check %s raised; its readings are not evaluated", check.name, exc_info=failure)
            return None

    def gap(self, gap: Gap) -> list[AlertEvent]:
        """A span in which we could not have heard (a source of) the city: nobody is dead because of it."""
        self.presence.gap(gap.begin, gap.end, gap.source, self.now_us)
        return []

    def tick(self, now_us: int, drained: bool = True) -> list[AlertEvent]:
        """TICK: who is dead, out, or back.

        now_us   the receive clock, µs
        drained  no received bytes waited to be read or decoded in the second before
        """
        self.received_us = now_us
        if self.clock == "wall":
            self.now_us = now_us
        if self.now_us == NO_TIME:
            return []
        events = self._abandon() if self._registry_changed else []
        self._registry_changed = False
        absent = self.presence.tick(self.now_us, drained)
        events += self._outages(absent) + self._deaths(absent)
        self.points_dead = int(absent.silent.sum())
        return events

    @property
    def alerts_open(self) -> int:
        """Alerts firing now; safe to ask from another thread."""
        return sum(episode.level > 0 for episode in list(self.episodes.open.values()))

    def _outages(self, absent: Absent) -> list[AlertEvent]:
        rule, events, now, seen = RULES["outage"], [], self.now_us, self.received_us
        open_now = self.episodes.open
        for gateway in np.flatnonzero(absent.began).tolist():
            if self.limits["alert"][self.points.gateway == gateway].any():
                onset, dead = int(absent.last_word[gateway]), float(absent.out_points[gateway])
                events.append(self.episodes.begin(rule, gateway, onset, now, seen, dead))
        back = [g for g in np.flatnonzero(absent.ended).tolist() if (rule.name, g) in open_now]
        return events + [self.episodes.end(rule, g, now, seen, float(absent.out_points[g])) for g in back]

    def _deaths(self, absent: Absent) -> list[AlertEvent]:
        rule, events, state = RULES["dead"], [], self.state
        now, seen = self.now_us, self.received_us
        phase, last_v = state["dead_phase"], state["last_v"]
        firing = phase == Phase.FIRING
        for point in np.flatnonzero(firing & ~absent.silent).tolist():
            # A gap excuses silence but ends no episode: only a reading shows that a point lives.
            if state["last_t"][point] > self.episodes.open[(rule.name, point)].onset:
                phase[point] = Phase.NORMAL
                events.append(self.episodes.end(rule, point, now, seen, float(last_v[point])))
        for point in np.flatnonzero(absent.dead & ~firing & self.limits["alert"]).tolist():
            phase[point] = Phase.FIRING
            onset, value = int(state["last_t"][point]), float(last_v[point])
            events.append(self.episodes.begin(rule, point, onset, now, seen, value))
        return events

    def _abandon(self) -> list[AlertEvent]:
        """End episodes of points that were retired, or may alert no more, since they began."""
        events = []
        for name, number in sorted(self.episodes.open):
            over = not self.limits["alert"][number] if name != "outage" else False
            if over or (name == "dead" and not self.limits["expects"][number]):
                value = float(self.state["last_v"][number])
                events.append(self.episodes.end(RULES[name], number, self.now_us, self.received_us, value))
                if name == "dead":
                    self.state["dead_phase"][number] = Phase.NORMAL
        return events

    def _subject(self, rule: str, number: int) -> Subject:
        points = self.points
        at = int(np.argmax(points.gateway == number)) if rule == "outage" else number
        kind = points.kinds[points.kind[at]]
        titles = self._kinds.get(kind, NO_SETTINGS)
        district = points.districts[points.district[at]]
        gateway = points.gateways[points.gateway[at]]
        place = (district, float(points.lon[at]), float(points.lat[at]))
        if rule == "outage":
            return Subject(-1, "", gateway, gateway, "", "", "", *place, OUTAGE_UNIT)
        return Subject(
            number,
            points.point_id[at],
            gateway,
            points.name[at],
            kind,
            titles.title_zh or kind,
            titles.title_en or kind,
            *place,
            points.unit[at],
            tuple(points.level[:, at].tolist()),
        )

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
        }
        return {name: array.copy() for name, array in self.state.arrays().items()}, meta

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]], meta: dict[str, Any]) -> None:
        """Take over a snapshot, also one of a registry with fewer points.

        Raises ValueError for a snapshot of another version or of arrays that do not fit.
        """
        if meta["version"] != SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version {meta['version']}, this engine reads {SNAPSHOT_VERSION}")
        self.state.restore(arrays)
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
        self._registry_changed = True


def _object(check: RowCheck, index: Index, flag: U8, checks: U32) -> None:
    checks[index] |= np.uint32(bit(check.name))
    if check.flag != GOOD:
        flag[index] = worst(flag[index], np.full(len(index), check.flag, np.uint8))


def _scattered(column: npt.NDArray[Any], order: Index) -> npt.NDArray[Any]:
    """A column of grouped rows back in batch order."""
    back = np.empty_like(column)
    back[order] = column
    return back


def _readings(raw: RawBatch, flag: U8, checks: U32, pos: I64) -> ReadingBatch:
    return ReadingBatch(
        raw.point,
        raw.time,
        raw.received_at,
        raw.value,
        raw.device_flag,
        flag,
        checks,
        np.zeros(len(flag), np.float32),
        pos,
    )
