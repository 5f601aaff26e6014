"""Episodes: a run of a condition, from its onset to its end, and the alert events it gives.

Owns the open episodes, the identity of alerts and the transition table. Knows nothing of wording, targets
or files. Only rows at which something changes are looked at one by one; all others pass as arrays.

{diagram}

``crossed`` and ``back``: a reading in a class above 0, or in class 0. ``confirmed``, ``cleared``: that many
readings in a row (confirm_readings) at or above the lowest level, or below it. ``stepped``: the same for
another level of a firing episode. A reading suspect by its rate counts: a real flood rises fast, and a page
too many is better than one too few; who wants spikes to wait asks for confirm_readings = 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from anomaly.checks.rows import Index, Rows, last_rows
from anomaly.limits import Limits
from anomaly.state import State
from storage.batch import F64, I64, U8, Bool

HISTORY_MAX: Final = 16
"""Entries of an alert's course kept: its first and the newest fifteen. Bounds the notification's bytes."""
LEVELS_MAX: Final = 4


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


FIRING: Final = "alert.firing"
UPDATED: Final = "alert.updated"
RESOLVED: Final = "alert.resolved"

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
        lines.append(f"    {phase.name.lower():<10} --{signal.value + '--':-<11}> {after.name.lower():<10}{gives}".rstrip())
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of episode.

    alert_class  event: the city; fault: our view of it
    severity     of each class, 0 … 4
    """

    name: str
    alert_class: str
    severity: tuple[int, ...]


RULES: Final = {
    rule.name: rule
    for rule in (
        Rule("level", "event", (0, 1, 2, 3, 4)),
        # Faults page low: nobody drowns in a dead sensor. An outage blinds many eyes at once.
        Rule("stuck", "fault", (0, 1)),
        Rule("dead", "fault", (0, 1)),
        Rule("outage", "fault", (0, 2)),
    )
}


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """One step in the course of one alert. Times are µs since 1970 UTC; NaN is no number.

    revision   1, 2, 3 … of this id
    severity   worst of the course so far, 1-4; level the class now, 0 once it is over
    value      what was read when it happened; outage: how many points are dead
    limit      of the level now (of the worst, once it is over)
    notify     False: recorded, but pages nobody
    history    (at, level, value) of the course, bounded
    """

    id: str
    revision: int
    type: str
    rule: str
    alert_class: str
    severity: int
    level: int
    point: int
    point_id: str
    gateway_id: str
    name: str
    kind: str
    title_zh: str
    title_en: str
    district: str
    lon: float
    lat: float
    unit: str
    onset: int
    at: int
    recorded_at: int
    value: float
    limit: float
    peak: float
    notify: bool
    replay: bool
    drill: bool
    history: tuple[tuple[int, int, float], ...]


@dataclass(slots=True)
class Episode:
    """An open episode. ``counts`` per level: readings in a row at or above it (> 0), or below it (< 0)."""

    rule: str
    subject: int
    onset: int
    phase: Phase = Phase.NORMAL
    level: int = 0
    worst: int = 0
    revision: int = 0
    told: bool = False
    counts: list[int] = field(default_factory=lambda: [0] * LEVELS_MAX)
    history: list[tuple[int, int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Step:
    """What an episode did: the numbers of an AlertEvent, without what the registry knows of its subject."""

    row: int
    id: str
    type: str
    rule: str
    subject: int
    revision: int
    severity: int
    level: int
    worst: int
    onset: int
    at: int
    value: float
    peak: float
    notify: bool
    history: tuple[tuple[int, int, float], ...]


@dataclass(slots=True)
class Course:
    """The rows a rule looks at: those of points whose episode may have something to say.

    height  value as its rule sees it: the higher the worse
    row     position in the batch, for the order of events
    """

    rule: Rule
    point: Index
    time: I64
    value: F64
    height: F64
    fresh: Bool
    row: Index


def alert_id(rule: str, subject: str, onset: int) -> str:
    """The identity of an alert, 16 hex digits: the same after a restart and after any replay.

    ``subject`` is a point_id or gateway_id, ``onset`` µs since 1970 UTC.
    """
    return blake2b(f"{rule}\n{subject}\n{onset}".encode(), digest_size=8).hexdigest()


class Episodes:
    """All open episodes of one engine. ``name_of`` gives the stable id of (rule, subject number)."""

    def __init__(self, state: State, limits: Limits, name_of: Callable[[str, int], str]) -> None:
        self._state = state
        self._limits = limits
        self._name_of = name_of
        self.open: dict[tuple[str, int], Episode] = {}

    def follow(self, rule: Rule, rows: Rows, classes: U8, fresh: Callable[[Index], Bool], order: Index) -> list[Step]:
        """The steps that readings cause.

        classes  uint8[rows]: what the rule's check said
        fresh    positions in ``rows`` to bool: not too old for paging when it came
        order    intp[rows]: position in the batch of each row
        """
        state, name = self._state, rule.name
        points = rows.point[rows.first]
        concerned = np.not_equal(state[f"{name}_phase"][points], Phase.NORMAL)
        if classes.any():
            concerned |= np.logical_or.reduceat(classes != 0, rows.first)
        concerned &= self._limits["alert"][points]
        if not concerned.any():
            return []
        lengths = np.diff(rows.first, append=len(rows))
        index = np.flatnonzero(np.repeat(concerned, lengths))
        point = rows.point[index]
        height = rows.value[index] * self._limits["sign"][point]
        course = Course(rule, point, rows.time[index], rows.value[index], height, fresh(index), order[index])
        return self._runs(course, classes[index])

    def _runs(self, course: Course, classes: U8) -> list[Step]:
        """Cut the course where point or class changes; look only at runs that may say something new."""
        name, point = course.rule.name, course.point
        change = np.ones(len(point), np.bool_)
        change[1:] = (point[1:] != point[:-1]) | (classes[1:] != classes[:-1])
        begin = np.flatnonzero(change)
        end = np.append(begin[1:], len(point))
        of = point[begin]
        worst = np.maximum.reduceat(course.height, begin)
        steady = self._state[f"{name}_steady"][of]
        alone = np.bincount(of - of.min())[of - of.min()] == 1
        quiet = alone & (steady != 0) & (steady == classes[begin])
        peak = self._state[f"{name}_peak"]
        peak[of[quiet]] = np.maximum(peak[of[quiet]], worst[quiet])
        steps: list[Step] = []
        for i in np.flatnonzero(~quiet).tolist():
            self._run(course, int(classes[begin[i]]), int(begin[i]), int(end[i]), float(worst[i]), steps)
        for p in point[last_rows(point)][: None if steps else 0].tolist():
            self._settle(name, p)
        return steps

    def _run(self, course: Course, cls: int, begin: int, end: int, worst: float, steps: list[Step]) -> None:
        """One point's rows ``begin`` … ``end`` of one class."""
        raise NotImplementedError
