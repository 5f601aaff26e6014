"""Past day: a day of the city as the map would have shown it, step by step, made of the steps of its alerts.

Owns the bytes of ``GET /api/replay/{date}`` (console/FORMAT.md), both ways, and the courses of groups. Pure: it is
given rows and an order of points, and knows nothing of DuckDB, sockets or clocks.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from console.shown import FAULT, OFFLINE, SEVERITIES, TAKEN
from storage.batch import U8, US_PER_S

U32 = npt.NDArray[np.uint32]
MAGIC: Final = b"YZD1"
HEAD: Final = struct.Struct("<4sIII")
"""magic, registry version, n, bytes of JSON."""
KEYFRAME_EVERY: Final = 60
"""A seek applies at most one step fewer than this."""
STEPS_S: Final = (60, 300, 900, 3600)
"""A step is a minute; wider where the day would not fit DAY_BYTES_MAX."""
DAY_BYTES_MAX: Final = 1_500_000
"""On the wire, gzipped: a second over a line of 12 Mbit/s."""
GROUPS_MAX: Final = 1_000
"""The worst; how many were left out is told."""
POINTS_MAX: Final = 20
COLOURS: Final = ("blue", "yellow", "orange", "red")
_PACK_LEVEL: Final = 6
_ALIGN: Final = 4
DEAD: Final = "dead"
OUTAGE: Final = "outage"


class Step(NamedTuple):
    """One revision of an alert, ``at`` µs when it was recorded."""

    id: str
    revision: int
    city: bool
    rule: str
    point_id: str | None
    gateway_id: str | None
    kind: str | None
    district: str | None
    severity: int
    onset: int
    at: int


class Answer(NamedTuple):
    """Somebody answered the alerts of a group."""

    group: str
    at: int
    who: str
    note: str


@dataclass(frozen=True, slots=True)
class Span:
    """When: ``begin`` s, the first picture; ``steps`` pictures, ``step_s`` apart."""

    begin: float
    step_s: int
    steps: int

    def step_of(self, at_us: int) -> int:
        """The first step at or after a moment; those before the begin are in the first."""
        return max(0, -(-(at_us - round(self.begin * US_PER_S)) // (self.step_s * US_PER_S)))


@dataclass(slots=True)
class Course:
    """A group of alerts through the day. ``says``: the revisions that made it worse, (step, alert id, revision)."""

    id: str
    first: Step
    counts: list[int] = field(default_factory=lambda: [0] * SEVERITIES)
    worst: int = 0
    answered: int = 0
    acks: list[dict[str, Any]] = field(default_factory=list)
    course: list[tuple[int, int, int]] = field(default_factory=list)
    says: list[tuple[int, str, int]] = field(default_factory=list)
    points: dict[int, int] = field(default_factory=dict)
    alerts: set[str] = field(default_factory=set)

    @property
    def severity(self) -> int:
        """The worst severity in which one of its alerts stands; 0 where none does."""
        return next((s for s in range(SEVERITIES - 1, 0, -1) if self.counts[s]), 0)

    @property
    def acked(self) -> bool:
        """Somebody answered for what it is now."""
        return self.answered > 0 and self.answered >= self.severity

    def mark(self, step: int) -> None:
        """Its course, where it changed in ``step``."""
        now = (step, self.severity, sum(self.counts[1:]))
        if not self.course or self.course[-1][1:] != now[1:]:
            self.course.append(now)


@dataclass(slots=True)
class Day:
    """What a day is made of. ``changes``: by step, index << 8 | state, by index; ``standing`` int[steps, 5] points."""

    span: Span
    changes: list[U32]
    keys: dict[int, U8]
    standing: npt.NDArray[np.int64]
    histogram: npt.NDArray[np.int64]
    groups: list[Course]


class Story:
    """Tells a day from its steps: feed ``step`` and ``answer`` in the order of their moments, then ``end``."""

    def __init__(
        self,
        span: Span,
        index: Mapping[str, int],
        members: Mapping[str, Sequence[int]],
        group_of: Mapping[str, str],
        n: int,
    ) -> None:
        """``index`` of a point_id in the display, ``members`` of a gateway; ``group_of`` an alert."""
        self._span, self._index, self._members, self._group_of = span, index, members, group_of
        self._now = 0
        self._state = np.zeros(n, np.uint8)
        self._revision: dict[str, int] = {}
        self._worst: dict[str, int] = {}
        self._severity: dict[str, int] = {}
        self._standing: dict[int, dict[str, tuple[int, int, Course]]] = {}
        self._groups: dict[str, Course] = {}
        self._dirty: set[int] = set()
        self._moved: set[str] = set()
        self._counts = np.array([n, 0, 0, 0, 0], np.int64)
        self._day = Day(
            span,
            [],
            {},
            np.zeros((span.steps, SEVERITIES), np.int64),
            np.zeros((4, span.steps), np.int64),
            [],
        )

    def step(self, row: Step) -> None:
        """A revision that is older than one seen is passed over, as a query for the newest would."""
        if row.revision <= self._revision.get(row.id, 0):
            return
        self._revision[row.id] = row.revision
        at = self._turn(row.at)
        course = self._course(row)
        worse = row.severity > self._worst.get(row.id, 0)
        if worse:
            self._worst[row.id] = row.severity
            if row.city and 0 < at < self._span.steps:
                self._day.histogram[row.severity - 1, at] += 1
        if row.severity > course.worst or not course.says:
            course.worst = max(row.severity, course.worst)
            course.says.append((at, row.id, row.revision))
        course.counts[self._severity.get(row.id, 0)] -= 1
        course.counts[row.severity] += 1
        self._severity[row.id] = row.severity
        course.alerts.add(row.id)
        self._moved.add(course.id)
        for point in self._about(row):
            self._stands(point, row, course)
            if worse and row.severity > course.points.get(point, 0):
                course.points[point] = row.severity
        if course.answered:
            self._dirty.update(course.points)

    def answer(self, answer: Answer) -> None:
        """Of a group that is not of this day nothing is kept."""
        course = self._groups.get(answer.group)
        if course is None or not course.severity:
            return
        self._turn(answer.at)
        course.answered = course.severity
        ack = {"at": answer.at / US_PER_S, "by": answer.who, "note": answer.note}
        course.acks.append({**ack, "severity": course.answered})
        self._dirty.update(course.points)

    def end(self) -> Day:
        """The whole day."""
        while self._now < self._span.steps:
            self._flush()
        self._day.groups = [course for course in self._groups.values() if any(c[2] for c in course.course)]
        return self._day

    def _turn(self, at: int) -> int:
        step = self._span.step_of(at)
        while self._now < min(step, self._span.steps):
            self._flush()
        return step

    def _course(self, row: Step) -> Course:
        name = self._group_of.get(row.id, row.id)
        found = self._groups.get(name)
        if found is None:  # most rows are of a group that is known
            found = self._groups[name] = Course(name, row)
        return found

    def _about(self, row: Step) -> Sequence[int]:
        if row.rule == OUTAGE:
            return self._members.get(row.gateway_id or "", ())
        index = self._index.get(row.point_id or "")
        return () if index is None else (index,)

    def _stands(self, point: int, row: Step, course: Course) -> None:
        mine = self._standing.setdefault(point, {})
        if row.severity:
            flags = 0 if row.city else FAULT if row.rule != OUTAGE else 0
            if row.rule in (DEAD, OUTAGE) and not row.city:
                flags |= OFFLINE
            mine[row.id] = (row.severity if row.city else 0, flags, course)
        else:
            mine.pop(row.id, None)
        self._dirty.add(point)

    def _state_of(self, point: int) -> int:
        mine = self._standing.get(point)
        if not mine:
            return 0
        severity, flags, taken = 0, 0, TAKEN
        for one, its, course in mine.values():
            severity = max(severity, one)
            flags |= its
            if not course.acked:
                taken = 0
        return severity | flags | taken

    def _flush(self) -> None:
        """The picture of the step that is over now."""
        state, found = self._state, []
        for point in sorted(self._dirty):
            now, before = self._state_of(point), int(state[point])
            if now != before:
                state[point] = now
                self._counts[before & 7] -= 1
                self._counts[now & 7] += 1
                found.append(point << 8 | now)
        for name in self._moved:
            self._groups[name].mark(self._now)
        self._dirty.clear()
        self._moved.clear()
        self._day.changes.append(np.array(found, np.uint32))
        self._day.standing[self._now] = self._counts
        if self._now % KEYFRAME_EVERY == 0:
            self._day.keys[self._now] = state.copy()
        self._now += 1


def chosen(day: Day) -> tuple[list[Course], int]:
    """The worst GROUPS_MAX groups, the worst and oldest first, and how many were left out."""
    order = sorted(day.groups, key=lambda g: (-g.worst, g.first.onset, g.id))
    return order[:GROUPS_MAX], max(0, len(order) - GROUPS_MAX)


def group_json(course: Course, words: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    """A group as the page reads it; ``words`` of (alert id, revision)."""
    first = course.first
    worst = sorted(course.points, key=lambda p: (-course.points[p], p))
    return {
        "id": course.id, "class": "event" if first.city else "fault", "rule": first.rule, "kind": first.kind or "",
        "district": first.district or "", "onset": first.onset / US_PER_S, "worst": course.worst,
        "members": len(course.alerts), "points": worst[:POINTS_MAX], "acks": course.acks, "course": course.course,
        "says": [{"step": at, **words.get((alert, revision), {})} for at, alert, revision in course.says],
    }  # fmt: skip


def packed(
    day: Day, version: int, n: int, about: Mapping[str, Any], groups: Iterable[Any], more: int
) -> bytes:
    """The day's bytes, gzipped. ``about``: what else its JSON says."""
    span, histogram = day.span, day.histogram.tolist()
    head = orjson.dumps(
        {
            **about, "begin": span.begin, "step_s": span.step_s, "steps": span.steps, "keyframe_every": KEYFRAME_EVERY,
            "histogram": dict(zip(COLOURS, histogram, strict=True)),
            "standing": dict(zip(COLOURS, day.standing.T[1:].tolist(), strict=True)),
            "alerts": list(groups), "more": more,
        }
    )  # fmt: skip
    head += b" " * (-len(head) % 8)
    parts = []
    for step, changes in enumerate(day.changes):
        body = day.keys[step].tobytes() if step in day.keys else changes.astype("<u4").tobytes()
        parts.append(body + b"\0" * (-len(body) % _ALIGN))
    table = np.cumsum([0, *map(len, parts)]).astype("<u4").tobytes()
    whole = b"".join([HEAD.pack(MAGIC, version, n, len(head)), head, table, *parts])
    return gzip.compress(whole, _PACK_LEVEL, mtime=0)


def states_of(body: bytes, step: int) -> tuple[dict[str, Any], U8]:
    """A day's JSON and the states uint8[n] of one of its pictures, of gunzipped bytes. Raises ValueError."""
    magic, _, n, size = HEAD.unpack_from(body)
    if magic != MAGIC:
        raise ValueError("these are not the bytes of a day")
    about = orjson.loads(body[HEAD.size : HEAD.size + size])
    if not 0 <= step < about["steps"]:
        raise ValueError(f"this day has steps 0 to {about['steps'] - 1}")
    at = HEAD.size + size
    table = np.frombuffer(body, "<u4", about["steps"] + 1, at)
    at += table.nbytes
    key = step - step % about["keyframe_every"]
    state = np.frombuffer(body, np.uint8, n, at + int(table[key])).copy()
    for one in range(key + 1, step + 1):
        changes = np.frombuffer(body, "<u4", int(table[one + 1] - table[one]) // 4, at + int(table[one]))
        state[changes >> 8] = changes & 255
    return about, state
