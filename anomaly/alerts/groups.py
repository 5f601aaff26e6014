"""A group of alerts, and its row in the outbox.

Owns the shape, loading and saving. Decides nothing: anomaly.alerts.grouping does.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Final

from anomaly.alerts.event import AlertEvent
from anomaly.alerts.words import GroupView

STORM: Final = "storm"
DISTRICT: Final = "district"
CITY: Final = "city"
SINGLE: Final = "single"
"""Scopes: alerts near each other in place and time; the same fault in a district, or in the whole city; one alert."""


@dataclass(slots=True)
class Group:
    """One group. Times are µs since 1970 UTC; 0 or None for never.

    key          what may become part of it
    onset        of its founder
    active_at    when its newest alert was recorded
    told         the worst severity people were told of; 0 for none
    over_told    people were told that it is over
    joined, ended, stepped  what they were not told yet
    flaps        when it came back after all its alerts were over, lately; comma between
    answer_due   when the next in turn is called; answered: up to which severity somebody answered
    """

    id: str
    key: str
    scope: str
    rule: str
    class_: str
    kind: str
    district: str
    mode: str
    onset: int
    active_at: int
    revision: int = 0
    members: int = 0
    open: int = 0
    worst: int = 0
    told: int = 0
    told_at: int = 0
    over_told: int = 0
    joined: int = 0
    ended: int = 0
    stepped: int = 0
    flaps: str = ""
    flapping: int = 0
    merged_into: str | None = None
    lon_min: float | None = None
    lon_max: float | None = None
    lat_min: float | None = None
    lat_max: float | None = None
    first_at: int = 0
    repeat_us: int = 0
    route: str = ""
    answer_due: int | None = None
    escalated: int = 0
    answered: int = 0
    answered_at: int | None = None
    answered_by: str | None = None
    answer_note: str | None = None

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """(lon_min, lat_min, lon_max, lat_max) of its places; None where none is known."""
        if self.lon_min is None or self.lon_max is None or self.lat_min is None or self.lat_max is None:
            return None
        return self.lon_min, self.lat_min, self.lon_max, self.lat_max

    def widen(self, lon: float, lat: float) -> None:
        """Take in a place; NaN is none."""
        if lon != lon or lat != lat:
            return
        self.lon_min = lon if self.lon_min is None else min(self.lon_min, lon)
        self.lon_max = lon if self.lon_max is None else max(self.lon_max, lon)
        self.lat_min = lat if self.lat_min is None else min(self.lat_min, lat)
        self.lat_max = lat if self.lat_max is None else max(self.lat_max, lat)

    def take_over(self, other: Group) -> None:
        """``other`` became part of this."""
        self.active_at = max(self.active_at, other.active_at)
        self.members += other.members
        self.open += other.open
        self.worst = max(self.worst, other.worst)
        self.told = max(self.told, other.told)
        self.joined += other.joined + (other.members if other.told and not other.over_told else 0)
        self.ended += other.ended
        self.stepped += other.stepped
        self.answered = max(self.answered, other.answered)
        if box := other.box:
            self.widen(box[0], box[1])
            self.widen(box[2], box[3])
        other.merged_into, other.open, other.answer_due, other.flapping = self.id, 0, None, 0
        other.joined = other.ended = other.stepped = 0

    def view(self, reason: str, answer_by: str = "", answer_s: int = 0) -> GroupView:
        """As a notification for ``reason`` tells it now."""
        return GroupView(
            self.id, self.revision, reason, self.scope, self.onset, self.members, self.open, self.worst,
            self.joined, self.ended, self.stepped, answer_by, answer_s, self.merged_into,
        )  # fmt: skip


_FIELDS: Final = tuple(field.name for field in fields(Group))
_COLUMNS: Final = tuple(name.rstrip("_") for name in _FIELDS)
_SAVE: Final = (
    f"INSERT OR REPLACE INTO alert_group ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
)


def load(db: sqlite3.Connection, group_id: str) -> Group | None:
    """The group of that id, or what it has become part of; None where it is unknown."""
    name: str | None = group_id
    found = None
    while name is not None:
        found = db.execute(f"SELECT {', '.join(_COLUMNS)} FROM alert_group WHERE id = ?", (name,)).fetchone()
        name = found["merged_into"] if found is not None else None
    return None if found is None else Group(*found)


def save(db: sqlite3.Connection, group: Group) -> None:
    """Keep it."""
    db.execute(_SAVE, [getattr(group, name) for name in _FIELDS])


def founded(event: AlertEvent, key: str, scope: str, mode: str) -> Group:
    """A new group with no member yet; its id is its founder's."""
    subject = event.subject
    return Group(
        event.id, key, scope, event.rule, event.alert_class, subject.kind, subject.district, mode,
        event.onset, event.recorded_at,
    )  # fmt: skip
