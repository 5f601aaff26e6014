"""Board: the groups of alerts that are not over, as people see them, and what changed since.

Owns their JSON (console/FORMAT.md) and the watch of the outbox, which other processes write too. What people do about
alerts is anomaly.alerts.people's. All but ``topic`` belongs to one thread off the loop.
"""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from anomaly.alerts.outbox import Outbox
from anomaly.alerts.people import silences
from anomaly.alerts.policy import Facets, Silence, silence_of
from console.display import Display
from storage.batch import US_PER_S, Bool

GROUPS_MAX: Final = 500
POINTS_MAX: Final = 20
ANEW_S: Final = 5.0
"""Also where nothing was written: silences begin and end by themselves."""

_OPEN: Final = (
    "SELECT g.*, e.summary_zh, e.summary_en, e.value, e.level, e.unit, e.recorded_at "
    "FROM alert_group g LEFT JOIN alert_event e ON e.newest = 1 AND e.id = (SELECT m.id FROM member m "
    "WHERE m.grp = g.id ORDER BY m.open DESC, m.severity_now DESC, m.severity DESC, m.onset, m.id LIMIT 1) "
    "WHERE g.merged_into IS NULL AND (g.open > 0 OR (g.told > 0 AND g.over_told = 0)) "
    "ORDER BY g.worst DESC, g.first_at, g.id"
)
_MEMBERS: Final = (
    "SELECT grp, id, point_id, severity_now, held, class, rule, kind, district, gateway_id FROM member WHERE open = 1 "
    "ORDER BY grp, severity_now DESC, onset, id"
)
_FACETS: Final = ("rule", "class", "kind", "district", "point_id", "gateway_id", "severity_now")
Member = sqlite3.Row | dict[str, Any]


@dataclass(slots=True)
class Groups:
    """One version: groups by id, worst first, as JSON-able; ``taken`` point_ids all of whose alerts are taken."""

    version: int = 0
    by_id: dict[str, dict[str, Any]] = field(default_factory=dict)
    more: int = 0
    taken: frozenset[str] = frozenset()
    unacked: int = 0


class Board:
    """One outbox, watched. ``look`` in one thread, ``topic`` and ``groups`` anywhere."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.groups = Groups()
        self._step: tuple[int, str] | None = None
        self._seen: int | None = None
        self._at = 0.0
        self._display: Display | None = None

    def look(self, display: Display | None, *, anew: bool = False) -> bool:
        """Whether something changed since the last look; ``anew``: we wrote to it ourselves. Raises sqlite3.Error."""
        [[seen]] = self.outbox.rows("PRAGMA data_version")
        now = time.monotonic()
        same = seen == self._seen and display is self._display
        if same and not anew and now - self._at < ANEW_S:
            return False
        self._seen, self._at, self._display = seen, now, display
        return self._take(*self._read(time.time_ns() // 1000))

    def topic(self, had: int | None) -> tuple[int, str] | None:
        """The feed's topic: what brings a client that has version ``had`` to the newest."""
        groups, step = self.groups, self._step
        if had == groups.version:
            return None
        if step is not None and had == groups.version - 1 and step[0] == groups.version:
            return step
        return groups.version, self._text(True, list(groups.by_id.values()), [])

    def _take(self, groups: list[dict[str, Any]], taken: frozenset[str]) -> bool:
        before = self.groups
        by_id = {group["id"]: group for group in groups[:GROUPS_MAX]}
        more = max(0, len(groups) - GROUPS_MAX)
        unacked = sum(g["told"] and g["open"] > 0 and not g["acked"] for g in groups)
        if by_id == before.by_id and more == before.more and taken == before.taken and before.version:
            return False
        changed = [group for key, group in by_id.items() if before.by_id.get(key) != group]
        gone = [key for key in before.by_id if key not in by_id]
        self.groups = Groups(before.version + 1, by_id, more, taken, unacked)
        self._step = self.groups.version, self._text(False, changed, gone)
        return True

    def _text(self, full: bool, changed: list[dict[str, Any]], gone: list[str]) -> str:
        groups = self.groups
        body = {"t": "alerts", "version": groups.version, "full": full, "changed": changed, "gone": gone}
        body["more"] = groups.more
        return orjson.dumps(body).decode()

    def _read(self, now: int) -> tuple[list[dict[str, Any]], frozenset[str]]:
        with self.outbox.reading() as db:
            rows = db.execute(_OPEN).fetchall()
            found = db.execute(_MEMBERS).fetchall()
        holding = {one["id"]: one for one in silences(self.outbox, now)}
        members: dict[str, list[Member]] = defaultdict(list)
        mutes = [silence_of(one) for one in holding.values()]
        for row in found:
            members[row["grp"]].append(_held_now(row, mutes, now) if mutes else row)
        groups = [self._group(row, members.get(row["id"], []), holding) for row in rows]
        return groups, _taken(groups, members)

    def _group(
        self, row: sqlite3.Row, members: list[Member], holding: dict[int, dict[str, Any]]
    ) -> dict[str, Any]:
        severity = max((one["severity_now"] for one in members), default=0)
        acked = bool(row["answered"]) and row["answered"] >= severity
        held = next((one["held"] for one in members if one["held"]), "")
        all_held = bool(members) and all(one["held"] for one in members)
        plan = self.outbox.policy.named(row["route"])
        asked = row["answer_due"] is not None
        return {
            "id": row["id"], "group": row["id"], "severity": severity, "worst": row["worst"], "class": row["class"],
            "rule": row["rule"], "kind": row["kind"], "district": row["district"], "scope": row["scope"],
            "onset": row["onset"] / US_PER_S, "first_at": (row["first_at"] or row["onset"]) / US_PER_S,
            "updated_at": (row["recorded_at"] or row["active_at"]) / US_PER_S,
            "summary_zh": row["summary_zh"] or "", "summary_en": row["summary_en"] or "",
            "members": row["members"], "open": row["open"], "points": self._points(members),
            "value": row["value"], "limit": row["level"], "unit": row["unit"] or "",
            "ack": _answer(row), "acked": acked,
            "answer": {
                "by": plan.answerer(row["escalated"]),
                "due": row["answer_due"] / US_PER_S if asked else None,
                "step": row["escalated"],
            } if asked or (plan.answer_us and not acked) else None,
            "silenced": _silence(held, holding) if all_held else None, "held": held if all_held else "",
            "told": bool(row["told"]), "flapping": bool(row["flapping"]), "mode": row["mode"],
        }  # fmt: skip

    def _points(self, members: list[Member]) -> list[int]:
        if self._display is None:
            return []
        found = (self._display.find(one["point_id"]) for one in members[:POINTS_MAX] if one["point_id"])
        return [index for index in found if index is not None]


def taken_mask(groups: Groups, display: Display) -> Bool | None:
    """bool[points] of ``groups.taken``; None where there is none."""
    if not groups.taken:
        return None
    mask = np.zeros(len(display.points), np.bool_)
    numbers = [display.ids[one] for one in groups.taken if one in display.ids]
    mask[numbers] = True
    return mask


def _answer(row: sqlite3.Row) -> dict[str, Any] | None:
    if not row["answered_at"]:
        return None
    at = row["answered_at"] / US_PER_S
    return {"by": row["answered_by"], "note": row["answer_note"] or "", "at": at, "severity": row["answered"]}


def _silence(held: str, holding: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    word, _, number = held.partition(" ")
    found = holding.get(int(number)) if word == "silence" and number.isdigit() else None
    if found is None:
        return None
    return {"id": found["id"], "until": found["ends"] / US_PER_S, "by": found["who"], "why": found["why"]}


def _held_now(row: sqlite3.Row, mutes: list[Silence], now: int) -> Member:
    """Also an alert that stood before somebody silenced it: its next step will say so, people see it at once."""
    if row["held"]:
        return row
    about = Facets(*(row[name] for name in _FACETS))
    found = next((one for one in mutes if one.mutes(about, now)), None)
    return row if found is None else {**dict(row), "held": f"silence {found.id}"}


def _taken(groups: list[dict[str, Any]], members: dict[str, list[Member]]) -> frozenset[str]:
    acked = {group["id"] for group in groups if group["acked"]}
    free: set[str] = set()
    taken: set[str] = set()
    for group, ones in members.items():
        for one in ones:
            if one["point_id"]:
                (taken if group in acked or one["held"] else free).add(one["point_id"])
    return frozenset(taken - free)
