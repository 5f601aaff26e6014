"""Telling: a group's notification made and queued for whoever is to hear of it.

Owns the making of notifications in the outbox: which targets, superseding, answers that fall due. Knows nothing of why
a group is told (anomaly.alerts.grouping, anomaly.alerts.rounds) or of how a notification travels.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Final

from anomaly.alerts import logbook
from anomaly.alerts.body import TOP_MAX, GroupParts, notification, type_of
from anomaly.alerts.event import AlertEvent
from anomaly.alerts.groups import Group
from anomaly.alerts.policy import Facets, Plan, Policy
from anomaly.alerts.words import (
    DIGEST,
    ESCALATED,
    FIRST,
    FLAPPING,
    MERGED,
    OVER,
    REOPENED,
    STEP,
)
from storage.units import US_PER_S

_TOP: Final = (
    "SELECT m.id, m.open, m.severity, m.severity_now, m.rule, m.kind, m.point_id, m.gateway_id, m.district, m.onset, "
    "e.at, e.value, e.level, e.summary_zh, e.summary_en FROM member m "
    "JOIN alert_event e ON e.id = m.id AND e.newest = 1 WHERE m.grp = ? "
    "ORDER BY m.open DESC, m.severity_now DESC, m.severity DESC, m.onset, m.id LIMIT ?"
)
_DISTRICTS: Final = (
    "SELECT district, count(*) AS n FROM member WHERE grp = ? AND district <> '' GROUP BY district "
    "ORDER BY n DESC, district LIMIT ?"
)
_HEARD: Final = (
    "SELECT target FROM delivery WHERE alert_id = ? UNION SELECT d.target FROM alert_group g "
    "JOIN delivery d ON d.alert_id = g.id WHERE g.merged_into = ?"
)
_QUEUE: Final = (
    "INSERT OR IGNORE INTO delivery "
    "(webhook_id, target, type, alert_id, revision, body, created_at, next_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_STEPS: Final = {
    FIRST: logbook.CALLED,
    STEP: logbook.CALLED,
    REOPENED: logbook.REOPENED,
    FLAPPING: logbook.FLAPPING,
    DIGEST: logbook.DIGEST,
    ESCALATED: logbook.ESCALATED,
    OVER: logbook.OVER,
    MERGED: logbook.MERGED,
}


class Teller:
    """Makes notifications within a transaction; ``queued`` and ``superseded`` count them."""

    def __init__(self, policy: Policy, link: str | None) -> None:
        self._policy = policy
        self._link = link
        self.count: Counter[str] = Counter()

    def tell(self, db: sqlite3.Connection, group: Group, event: AlertEvent, reason: str, now: int) -> None:
        """``event`` speaks for its group, whose members are in the outbox already; changes the group, saves it not."""
        severity = group.worst if reason in (OVER, MERGED) else event.severity_now or event.severity
        plan = self._policy.plan(facets_of(event, severity))
        targets = self._heard(db, group)
        if reason not in (OVER, MERGED):
            targets |= set(plan.targets)
        targets = {name for name in targets if group.worst >= self._policy.severity_min.get(name, 5)}
        self._send(db, group, event, reason, plan, targets, now)
        if reason in (FIRST, STEP, REOPENED, FLAPPING):
            self._await_answer(group, plan, event.severity_now, now)
        if reason == OVER:
            group.answer_due = None

    def escalate(self, db: sqlite3.Connection, group: Group, event: AlertEvent, plan: Plan, now: int) -> None:
        """Nobody answered: the next in turn is called too."""
        target = plan.escalate_to[group.escalated]
        group.escalated += 1
        left = group.escalated < len(plan.escalate_to)
        group.answer_due = now + plan.answer_us
        told = {target} if target in self._policy.severity_min else set()
        self._send(db, group, event, ESCALATED, plan, told, now)
        who = plan.answerer(group.escalated) or None
        detail = (
            f"nobody answered; {'then ' + plan.escalate_to[group.escalated] if left else 'the last in turn'}"
        )
        logbook.note(db, now, logbook.ESCALATED, group.id, who=who, target=target, detail=detail)

    def _await_answer(self, group: Group, plan: Plan, severity: int, now: int) -> None:
        if plan.answer_us and severity > group.answered:
            group.answer_due, group.escalated = now + plan.answer_us, 0

    def _heard(self, db: sqlite3.Connection, group: Group) -> set[str]:
        """Targets that were told of it before: they also hear how it goes on."""
        if not group.revision:
            return set()
        return {row[0] for row in db.execute(_HEARD, (group.id, group.id))}

    def _send(
        self,
        db: sqlite3.Connection,
        group: Group,
        event: AlertEvent,
        reason: str,
        plan: Plan,
        targets: set[str],
        now: int,
    ) -> None:
        before = (group.revision, group.told_at) if group.revision else None
        group.revision += 1
        asked = plan.answer_us if event.severity_now > group.answered else 0
        view = group.view(reason, plan.answerer(group.escalated) if asked else "", asked // US_PER_S)
        body = notification(event, self._link, view, self._parts(db, group, before), now)
        for target in sorted(targets):
            self.count["superseded"] += supersede(db, target, group.id, group.revision, now)
            queue(db, target, type_of(reason), group.id, group.revision, now, body)
            self.count["queued"] += 1
        if reason != ESCALATED:
            into = f" {group.merged_into}" if group.merged_into else ""
            detail = f"{reason}{into}, severity {event.severity_now or group.worst}, route {plan.route}"
            logbook.note(db, now, _STEPS[reason], group.id, target=" ".join(sorted(targets)), detail=detail)
            group.joined = group.ended = group.stepped = 0
            group.told_at, group.route, group.repeat_us = now, plan.route, plan.repeat_us
            group.first_at = group.first_at or now

    def _parts(self, db: sqlite3.Connection, group: Group, before: tuple[int, int] | None) -> GroupParts:
        if group.members == 1:
            return GroupParts((), (), group.box, before)
        top = [dict(row) for row in db.execute(_TOP, (group.id, TOP_MAX))]
        districts = [(str(name), int(n)) for name, n in db.execute(_DISTRICTS, (group.id, TOP_MAX))]
        return GroupParts(top, districts, group.box, before)


def facets_of(event: AlertEvent, severity: int) -> Facets:
    """What policy looks at in an event."""
    subject = event.subject
    return Facets(
        event.rule,
        event.alert_class,
        subject.kind,
        subject.district,
        subject.point_id,
        subject.gateway_id,
        severity,
    )


def supersede(db: sqlite3.Connection, target: str, alert_id: str, revision: int, now: int) -> int:
    """What ``target`` did not get of older revisions it will not get any more; how many."""
    # "+state": by alert there are a few rows to look at, by state a whole storm's.
    return db.execute(
        "UPDATE delivery SET state = 'superseded', done_at = ? "
        "WHERE alert_id = ? AND target = ? AND +state = 'queued' AND revision < ?",
        (now, alert_id, target, revision),
    ).rowcount


def queue(
    db: sqlite3.Connection, target: str, kind: str, alert_id: str, revision: int, now: int, body: bytes
) -> str:
    """Queue one notification; its webhook-id, the same if repeated."""
    webhook_id = f"{alert_id}.{revision}.{target}"
    db.execute(_QUEUE, (webhook_id, target, kind, alert_id, revision, body, now, now))
    return webhook_id
