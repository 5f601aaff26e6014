"""Episodes: a run of a condition, from its onset to its end, and the alert events it gives.

Owns the open episodes, the identity of alerts and the transition table. Knows nothing of wording, targets
or files. Only rows at which something changes are looked at one by one; all others pass as arrays.

    normal     --crossed----> pending
    pending    --confirmed--> firing      gives alert.firing
    pending    --back-------> normal
    firing     --stepped----> firing      gives alert.updated
    firing     --back-------> recovering
    recovering --crossed----> firing
    recovering --stepped----> recovering  gives alert.updated
    recovering --cleared----> normal      gives alert.resolved

``crossed`` and ``back``: a reading in a class above 0, or in class 0. ``confirmed``, ``cleared``: that many
readings in a row (confirm_readings) at or above the lowest level, or below it. ``stepped``: the same for
another level of a firing episode. A reading suspect by its rate counts: a real flood rises fast, and a page
too many is better than one too few; who wants spikes to wait asks for confirm_readings = 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, Final

import numpy as np

from anomaly.alerts.event import FIRING, LEVELS, RESOLVED, UPDATED, alert_id
from anomaly.alerts.event import AlertEvent as AlertEvent
from anomaly.checks.rows import Index, Rows
from anomaly.limits import Limits
from anomaly.rulebook import Rule, followed, rulebook
from anomaly.rules.base import Assessed, Condition
from anomaly.state import State
from anomaly.subjects import Subjects
from storage.batch import F64, I64, U8, Bool
from storage.fast import IS_COMPILED, compiled, unsigned

HISTORY_MAX: Final = 16
"""Entries of an alert's course kept: its first and the newest fifteen. Bounds the notification's bytes."""


class Phase(IntEnum):
    """Where an episode stands."""

    NORMAL = 0
    PENDING = 1
    FIRING = 2
    RECOVERING = 3


class Signal(StrEnum):
    """What a reading, or a TICK, says to it."""

    CROSSED = "crossed"
    CONFIRMED = "confirmed"
    STEPPED = "stepped"
    BACK = "back"
    CLEARED = "cleared"


TRANSITIONS: Final[dict[tuple[Phase, Signal], tuple[Phase, str | None]]] = {
    (Phase.NORMAL, Signal.CROSSED): (Phase.PENDING, None),
    (Phase.PENDING, Signal.CONFIRMED): (Phase.FIRING, FIRING),
    (Phase.PENDING, Signal.BACK): (Phase.NORMAL, None),
    (Phase.FIRING, Signal.STEPPED): (Phase.FIRING, UPDATED),
    (Phase.FIRING, Signal.BACK): (Phase.RECOVERING, None),
    (Phase.RECOVERING, Signal.CROSSED): (Phase.FIRING, None),
    (Phase.RECOVERING, Signal.STEPPED): (Phase.RECOVERING, UPDATED),
    (Phase.RECOVERING, Signal.CLEARED): (Phase.NORMAL, RESOLVED),
}
"""(phase, signal) to (next phase, the type of event it gives). What is not here does not happen."""


def diagram() -> str:
    """The table as text, one line a transition; this module's docstring holds it."""
    lines = []
    for (phase, signal), (after, event) in TRANSITIONS.items():
        gives = f"  gives {event}" if event else ""
        move = f"{phase.name.lower():<10} --{signal.value:-<11}> {after.name.lower():<10}"
        lines.append(f"    {move}{gives}".rstrip())
    return "\n".join(lines)


@dataclass(slots=True)
class Episode:
    """An open episode.

    subject  number of a point, of a gateway ("outage"), or the text of a tick rule's subject
    counts  per level: readings in a row that speak for entering it, or for leaving it once entered
    told    the level last notified, 0 for none
    limit   of the worst level, as its rule assessed it
    """

    rule: str
    subject: int | str
    onset: int
    phase: Phase = Phase.NORMAL
    level: int = 0
    worst: int = 0
    revision: int = 0
    told: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * LEVELS)
    history: list[tuple[int, int, float]] = field(default_factory=list)
    limit: float = np.nan


@dataclass(slots=True)
class Course:
    """The rows of points whose episode may have something to say, grouped by point.

    value   of the reading, or what the rule assessed
    limit   what the rule held it to; NaN where the registry's levels say it
    height  value as the rule sees it: the higher the worse
    fresh   not too old for paging when it came
    row     position in the batch, for the order of events
    received_at  int64[batch], µs
    begin   first row of the run looked at
    """

    rule: Rule
    point: Index
    time: I64
    value: F64
    limit: F64
    height: F64
    fresh: Bool
    row: Index
    received_at: I64
    begin: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where each point stands in one rule, arrays by point (anomaly.state.episode_fields); ``sign`` of its heights."""

    phase: U8
    steady: U8
    peak: F64
    sign: F64
    alert: Bool


def _with_news(rows: Rows, classes: U8, value: F64, standing: Standing) -> Index:
    """Positions of all rows of points whose episode may have something new to say.

    Those are points that may alert and stand in an episode or have a row in a class, but for the ones that go on as
    they were said to: of these only the peak is kept here.
    """
    if IS_COMPILED:
        # One zero seen n times is another form, for which the loop would be compiled once more.
        said = np.require(classes, requirements=["C", "W"]), np.require(value, requirements=["C", "W"])
        found = np.empty(len(rows), np.intp)
        of = standing.sign, standing.phase, standing.alert, standing.steady, standing.peak
        return found[: _pick(rows.point, rows.first, *said, *of, found)]
    points = rows.point[rows.first]
    least, most = (of.reduceat(classes, rows.first) for of in (np.minimum, np.maximum))
    concerned = ((standing.phase[points] != Phase.NORMAL) | (most != 0)) & standing.alert[points]
    if not concerned.any():
        return np.empty(0, np.intp)
    goes_on = concerned & (most != 0) & (least == most) & (standing.steady[points] == most)
    worst = np.fmax.reduceat(value * standing.sign[rows.point], rows.first)
    those = points[goes_on]
    standing.peak[those] = np.fmax(standing.peak[those], worst[goes_on])
    return np.flatnonzero(np.repeat(concerned & ~goes_on, np.diff(rows.first, append=len(rows))))


@compiled
def _pick(
    point: Index,
    first: Index,
    classes: U8,
    value: F64,
    sign: F64,
    phase: U8,
    alert: Bool,
    steady: U8,
    peak: F64,
    found: Index,
) -> int:
    groups, count = len(first), 0
    for group in range(groups):
        begin, end = first[group], first[group + 1] if group + 1 < groups else len(point)
        p, cls = unsigned(point[begin]), classes[begin]
        concerned, changes = cls != 0 or phase[p] != 0, False
        for i in range(begin + 1, end):
            concerned = concerned or classes[i] != 0
            changes = changes or classes[i] != cls
        if not concerned or not alert[p]:
            continue
        goes_on = cls != 0 and steady[p] == cls and not changes
        for i in range(begin, end):
            if goes_on:
                peak[p] = np.fmax(peak[p], value[i] * sign[p])
            else:
                found[count] = i
                count += 1
    return count


Found = list[tuple[int, AlertEvent]]
"""Events with the batch row that caused them."""


class Episodes:
    """All open episodes of one engine. ``subjects`` describes whom they are about."""

    def __init__(
        self,
        state: State,
        limits: Limits,
        subjects: Subjects,
        *,
        replay: bool = False,
        drill: bool = False,
    ) -> None:
        self._state = state
        self._limits = limits
        self._subjects = subjects
        self._replay = replay
        self._drill = drill
        self._book = rulebook()
        # The city's rules judge numbers of their own, for which the point's direction means nothing.
        plain = {False: limits["sign"], True: np.ones(state.n)}
        self._sign = {
            name: limits.get(f"{name}_sign", plain[self._book[name].assessed]) for name in followed()
        }
        self.open: dict[tuple[str, int | str], Episode] = {}
        self._count: Counter[str] = Counter()
        """How many of them each followed rule has."""

    def follow(
        self,
        rule: Rule,
        rows: Rows,
        classes: U8,
        fresh: Callable[[Index], Bool],
        order: Index,
        received_at: I64,
        assessed: Assessed | None = None,
        some: bool | None = None,
    ) -> Found:
        """The events that readings cause.

        classes  uint8[rows]: what the rule's check said
        fresh    positions in ``rows`` to bool: not too old for paging when it came
        order    intp[rows]: position in the batch of each row
        received_at  int64[batch], µs
        assessed  what the rule judged in place of the value; None: the value itself
        some     whether any of the classes is above 0; None where that is not known
        """
        if not self._count[rule.name] and not (classes.any() if some is None else some):
            return []
        name, state, sign = rule.name, self._state, self._sign[rule.name]
        said = rows.value if assessed is None else assessed.value
        standing = Standing(
            state[f"{name}_phase"],
            state[f"{name}_steady"],
            state[f"{name}_peak"],
            sign,
            self._limits["alert"],
        )
        index = _with_news(rows, classes, said, standing)
        if not len(index):
            return []
        point, value = rows.point[index], said[index]
        limit = np.full(len(index), np.nan) if assessed is None else assessed.limit[index]
        columns = rows.time[index], value, limit, value * sign[point]
        return self._runs(
            Course(rule, point, *columns, fresh(index), order[index], received_at), classes[index]
        )

    def _runs(self, course: Course, classes: U8) -> Found:
        """Cut the course where point or class changes."""
        point = course.point
        found: Found = []
        begin = np.flatnonzero(np.append(True, (point[1:] != point[:-1]) | (classes[1:] != classes[:-1])))
        end = np.append(begin[1:], len(point))
        for c, b, e in zip(classes[begin].tolist(), begin.tolist(), end.tolist(), strict=True):
            self._run(course, c, b, e, found)
        return found

    def _run(self, course: Course, cls: int, begin: int, end: int, found: Found) -> None:
        """One point's rows ``begin`` … ``end``, all of class ``cls``."""
        rule, point = course.rule.name, int(course.point[begin])
        episode = self.open.get((rule, point))
        if episode is None:
            if cls == 0:
                return
            episode = self.open[rule, point] = Episode(rule, point, onset=int(course.time[begin]))
            self._count[rule] += 1
        self._turn(episode, Signal.CROSSED if cls else Signal.BACK)
        confirm = int(self._limits["confirm"][point]) if course.rule.confirms else 1
        course.begin = seen = begin
        for offset, level in _levels(episode, cls, end - begin, confirm):
            self._tell(course, episode, seen, begin + offset, found)
            seen = begin + offset
            self._step(course, episode, level, seen, found)
        self._tell(course, episode, seen, end, found)
        peak = self._state[f"{rule}_peak"]
        peak[point] = np.fmax(peak[point], np.fmax.reduce(course.height[begin:end]))
        self._settle(episode, point, cls)

    def _turn(self, episode: Episode, signal: Signal) -> str | None:
        """Move along the table, or stay where it knows no such move; the event type of the move."""
        episode.phase, event = TRANSITIONS.get((episode.phase, signal), (episode.phase, None))
        return event

    def _step(self, course: Course, episode: Episode, level: int, row: int, found: Found) -> None:
        """The confirmed level became ``level`` at ``row``."""
        signal = Signal.CLEARED if level == 0 else Signal.STEPPED if episode.level else Signal.CONFIRMED
        episode.level = level
        episode.worst = max(episode.worst, level)
        event = self._turn(episode, signal)
        assert event is not None
        if event == RESOLVED:
            # Who was told it began is told it ended, however old that is.
            self._emit(course, episode, event, row, bool(episode.told), found)
            return
        notify = bool(course.fresh[row]) and (episode.phase is Phase.FIRING or bool(episode.told))
        self._emit(course, episode, event if episode.told or not notify else FIRING, row, notify, found)

    def _tell(self, course: Course, episode: Episode, begin: int, end: int, found: Found) -> None:
        """A level reached too long ago to page for, but a fresh reading still stands in it: now it pages."""
        if episode.phase is not Phase.FIRING or episode.told == episode.level:
            return
        fresh = course.fresh[begin:end]
        if fresh.any():
            row = begin + int(fresh.argmax())
            self._emit(course, episode, UPDATED if episode.told else FIRING, row, True, found)

    def _emit(
        self, course: Course, episode: Episode, event: str, row: int, notify: bool, found: Found
    ) -> None:
        rule, point = course.rule, int(course.point[row])
        before = float(self._state[f"{rule.name}_peak"][point])
        highest = float(np.fmax(before, np.fmax.reduce(course.height[course.begin : row + 1])))
        peak = highest * float(self._sign[rule.name][point]) if np.isfinite(highest) else np.nan
        if episode.level and episode.level == episode.worst:
            episode.limit = float(course.limit[row])
        limit = float(course.limit[row]) if episode.level else episode.limit
        at, value = int(course.time[row]), float(course.value[row])
        came_as = int(course.row[row])
        recorded_at = int(course.received_at[came_as])
        found.append((came_as, self._event(episode, event, at, recorded_at, value, limit, peak, notify)))

    def _event(
        self,
        episode: Episode,
        event: str,
        at: int,
        recorded_at: int,
        value: float,
        limit: float,
        peak: float,
        notify: bool,
        condition: Condition | None = None,
    ) -> AlertEvent:
        rule, members = self._book[episode.rule], condition.members if condition else ()
        subject = self._subjects.of(episode.rule, episode.subject, members)
        episode.revision += 1
        if notify:
            episode.told = episode.level
        episode.history.append((at, rule.severity[episode.level], value))
        if len(episode.history) > HISTORY_MAX:
            del episode.history[1]
        if rule.name == "level":
            limit = float(subject.levels[(episode.level or episode.worst) - 1])
        whom = episode.subject if isinstance(episode.subject, str) else subject.point_id or subject.gateway_id
        return AlertEvent(
            id=alert_id(rule.name, whom, episode.onset),
            revision=episode.revision,
            type=event,
            rule=rule.name,
            alert_class=rule.alert_class,
            severity=rule.severity[episode.worst],
            severity_now=rule.severity[episode.level],
            subject=subject,
            onset=episode.onset,
            at=at,
            recorded_at=recorded_at,
            value=value,
            limit=limit,
            peak=peak,
            notify=notify,
            replay=self._replay,
            drill=self._drill,
            history=tuple(episode.history),
            members=self._subjects.ids(members),
            words_zh=condition.words_zh if condition else "",
            words_en=condition.words_en if condition else "",
        )

    def _settle(self, episode: Episode, point: int, cls: int) -> None:
        """Keep as arrays what decides whether the point's next rows must be looked at."""
        rule, state = episode.rule, self._state
        said_all = episode.phase is Phase.FIRING and episode.level == episode.told == cls
        state[f"{rule}_phase"][point] = episode.phase
        state[f"{rule}_steady"][point] = cls if said_all else 0
        if episode.phase is Phase.NORMAL:
            state[f"{rule}_peak"][point] = -np.inf
            del self.open[(rule, point)]
            self._count[rule] -= 1

    def begin(
        self,
        rule: Rule,
        subject: int | str,
        onset: int,
        at: int,
        recorded_at: int,
        value: float,
        members: Sequence[int] = (),
    ) -> AlertEvent:
        """A condition found at a TICK rather than in a reading holds from now on. ``members``: whose it is too."""
        episode = self.open[(rule.name, subject)] = Episode(rule.name, subject, onset)
        event = self._confirm(episode, 1)
        begun = self._event(episode, event, at, recorded_at, value, np.nan, np.nan, True)
        return replace(begun, members=self._subjects.ids(members)) if members else begun

    def stand(self, rule: Rule, condition: Condition, at: int, recorded_at: int) -> AlertEvent | None:
        """A tick rule's condition stands at ``at``; the event of its begin or of another level, else None."""
        key = (rule.name, condition.subject)
        episode = self.open.get(key)
        if episode is None:
            episode = self.open[key] = Episode(*key, onset=at)
            event = self._confirm(episode, condition.severity)
        elif episode.level == condition.severity:
            return None
        else:
            episode.level = condition.severity
            episode.worst = max(episode.worst, condition.severity)
            event = UPDATED
        if episode.level == episode.worst:
            episode.limit = condition.limit
        value, limit = condition.value, condition.limit
        return self._event(episode, event, at, recorded_at, value, limit, np.nan, True, condition)

    def _confirm(self, episode: Episode, level: int) -> str:
        self._turn(episode, Signal.CROSSED)
        episode.level = episode.worst = level
        event = self._turn(episode, Signal.CONFIRMED)
        assert event is not None
        return event

    def end(self, rule: Rule, subject: int | str, at: int, recorded_at: int, value: float) -> AlertEvent:
        """An open episode is over, at a TICK."""
        episode = self.open.pop((rule.name, subject))
        self._turn(episode, Signal.BACK)
        episode.level = 0
        self._turn(episode, Signal.CLEARED)
        if rule.name in self._sign:
            self._count[rule.name] -= 1
            self._state[f"{rule.name}_phase"][subject] = Phase.NORMAL
            self._state[f"{rule.name}_steady"][subject] = 0
            self._state[f"{rule.name}_peak"][subject] = -np.inf
        told = bool(episode.told)
        return self._event(episode, RESOLVED, at, recorded_at, value, episode.limit, np.nan, told)

    def snapshot(self) -> list[dict[str, Any]]:
        """The open episodes by rule and subject, JSON-able."""
        return [asdict(episode) for _, episode in sorted(self.open.items())]

    def restore(self, saved: list[dict[str, Any]]) -> None:
        """Take over what ``snapshot`` gave."""
        self.open = {}
        for one in saved:
            # JSON has no NaN: what was missing comes back as null.
            history = [(at, severity, _number(v)) for at, severity, v in one["history"]]
            kept = {"phase": Phase(one["phase"]), "history": history, "limit": _number(one.get("limit"))}
            episode = Episode(**{**one, **kept})
            if episode.rule in self._book:
                self.open[(episode.rule, episode.subject)] = episode
        self._count = Counter(rule for rule, _ in self.open)


def _number(saved: float | None) -> float:
    return np.nan if saved is None else saved


def _levels(episode: Episode, cls: int, rows: int, confirm: int) -> Iterator[tuple[int, int]]:
    """(offset, new level) of every confirmed change in a run of ``rows`` readings of one class.

    The level rises to k at the ``confirm``-th reading in a row at or above k, and falls below k at the
    ``confirm``-th in a row below it. In one run it only rises or only falls.
    """
    due: dict[int, int] = {}
    for k in range(1, LEVELS + 1):
        rises, had = k > episode.level, episode.counts[k - 1]
        episode.counts[k - 1] = 0
        if rises != (k <= cls):
            continue
        offset = max(confirm - had - 1, 0)
        if offset >= rows:
            episode.counts[k - 1] = had + rows
        elif rises:
            due[offset] = max(due.get(offset, 0), k)
        else:
            due[offset] = min(due.get(offset, k - 1), k - 1)
    yield from sorted(due.items())
