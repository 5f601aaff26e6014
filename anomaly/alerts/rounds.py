"""Rounds: what time brings to groups of alerts: digests, escalations, the end of a silence, quiet after flapping.

Owns when each is due. One call is one look at the outbox; nothing is written unless something is due, and what is due
is asked again inside the transaction, so it does not matter how many processes make rounds or where one is killed.

A silence also quietens a group people were told of: while it holds for every open alert of the group, nobody is called
and no digest goes. What fell due meanwhile is done at its end. That the group is over is told: no silence is for that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from anomaly.alerts import groups, logbook
from anomaly.alerts.event import unpacked
from anomaly.alerts.grouping import lead, reason_to_tell, silences, standing
from anomaly.alerts.groups import Group
from anomaly.alerts.outboxfile import OutboxFile
from anomaly.alerts.policy import Facets, Policy, Silence
from anomaly.alerts.telling import Teller
from anomaly.alerts.words import DIGEST, OVER
from storage.units import US_PER_S

_CHANGED: Final = (
    "joined + ended + stepped > 0 AND told > 0 AND over_told = 0 AND flapping = 0 "
    "AND told_at + repeat_us <= :now"
)
_DUE: Final = "answer_due IS NOT NULL AND answer_due <= :now"
_FLAPPING: Final = "flapping > 0"
_OPEN: Final = (
    "SELECT rule, class, kind, district, point_id, gateway_id, severity_now FROM member "
    "WHERE grp = ? AND open = 1"
)
_HELD: Final = (
    "SELECT m.id, m.grp, m.held, m.rule, m.class, m.kind, m.district, m.point_id, m.gateway_id, m.severity_now, "
    "e.packed FROM member m INDEXED BY member_held CROSS JOIN alert_event e ON e.id = m.id AND e.newest = 1 "
    "WHERE m.open = 1 AND m.held <> '' AND m.held <> 'old'"
)


class Rounds:
    """Made by whoever delivers, once a second or so."""

    def __init__(self, outbox: OutboxFile, policy: Policy, link: str | None) -> None:
        self._outbox = outbox
        self._policy = policy
        self._teller = Teller(policy, link)
        self._quiet_us = round(policy.alerts.flap_quiet_s * US_PER_S)

    def make(self, now: int) -> int:
        """Whatever is due at ``now`` (µs); how many notifications were queued. Raises sqlite3.Error."""
        if not self._anything(now):
            return 0
        before = self._teller.count["queued"]
        with self._outbox.writing() as db:
            for group in self._where(db, _DUE, now):
                self._escalate(db, group, now)
            for group in self._where(db, _FLAPPING, now):
                self._calm(db, group, now)
            for group in self._where(db, _CHANGED, now):
                self._tell(db, group, DIGEST, now)
            self._release(db, now)
        return self._teller.count["queued"] - before

    def _anything(self, now: int) -> bool:
        with self._outbox.reading() as db:
            muted = _in_force(db, now)
            for condition in (_DUE, _CHANGED, _FLAPPING):
                sql = f"SELECT id, flaps FROM alert_group WHERE {condition} AND merged_into IS NULL"
                for row in db.execute(sql, {"now": now}):
                    calm = condition is not _FLAPPING or self._is_calm(row["flaps"], now)
                    if calm and not _quiet(db, row["id"], muted, now):
                        return True
            return bool(self._free(db, now))

    def _where(self, db: sqlite3.Connection, condition: str, now: int) -> list[Group]:
        rows = db.execute(
            f"SELECT id FROM alert_group WHERE {condition} AND merged_into IS NULL ORDER BY id", {"now": now}
        ).fetchall()
        muted = _in_force(db, now)
        found = (groups.load(db, row[0]) for row in rows if not _quiet(db, row[0], muted, now))
        return [group for group in found if group is not None]

    def _tell(self, db: sqlite3.Connection, group: Group, reason: str, now: int) -> None:
        event = lead(db, group.id)
        if event is not None:
            self._teller.tell(db, group, event, reason, now)
        else:
            group.joined = group.ended = group.stepped = 0
        groups.save(db, group)

    def _escalate(self, db: sqlite3.Connection, group: Group, now: int) -> None:
        plan, event = self._policy.named(group.route), lead(db, group.id)
        group.answer_due = None
        if event is None or group.escalated >= len(plan.escalate_to):
            logbook.note(db, now, logbook.UNANSWERED, group.id, detail=f"after {group.escalated} escalations")
        else:
            self._teller.escalate(db, group, event, plan, now)
        groups.save(db, group)

    def _is_calm(self, flaps: str, now: int) -> bool:
        return now - int(flaps.rpartition(",")[2] or 0) >= self._quiet_us

    def _calm(self, db: sqlite3.Connection, group: Group, now: int) -> None:
        """It has not come back for a while: people are told how it stands."""
        if not self._is_calm(group.flaps, now):
            return
        group.flapping, group.flaps = 0, ""
        group.over_told = int(group.open == 0)
        self._tell(db, group, OVER if group.over_told else DIGEST, now)

    def _free(self, db: sqlite3.Connection, now: int) -> list[sqlite3.Row]:
        """Open alerts that were held and that nothing holds any more."""
        rows = db.execute(_HELD).fetchall()
        if not rows:
            return []
        muted, others = silences(db, now), standing(db, self._policy)
        return [row for row in rows if not self._policy.held(_facets(row), muted, others, now)]

    def _release(self, db: sqlite3.Connection, now: int) -> None:
        for row in self._free(db, now):
            group = groups.load(db, row["grp"])
            assert group is not None, "a member has a group"
            db.execute("UPDATE member SET held = '' WHERE id = ?", (row["id"],))
            logbook.note(db, now, logbook.RELEASED, row["id"], detail=row["held"])
            reason = reason_to_tell(group, row["severity_now"])
            if reason:
                self._teller.tell(db, group, unpacked(row["packed"]), reason, now)
            else:
                group.joined += 1
            groups.save(db, group)


def _in_force(db: sqlite3.Connection, now: int) -> list[Silence]:
    return [one for one in silences(db, now) if one.begins <= now < one.ends]


def _quiet(db: sqlite3.Connection, group: str, muted: Sequence[Silence], now: int) -> bool:
    """Whether silences hold for all that is open of a group; not where nothing is."""
    if not muted:
        return False
    alerts = [_facets(row) for row in db.execute(_OPEN, (group,))]
    return bool(alerts) and all(any(one.mutes(alert, now) for one in muted) for alert in alerts)


def _facets(row: sqlite3.Row) -> Facets:
    names = ("rule", "class", "kind", "district", "point_id", "gateway_id", "severity_now")
    return Facets(*(row[name] for name in names))
