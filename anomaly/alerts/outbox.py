"""Outbox: alert events and their notifications, durable before anyone is called.

Owns what is recorded together, the judged position, and what an operator may do with notifications. Knows
nothing of HTTP. One object is one connection: Judge, the deliverer and other processes each open their own.

The judged position and the events of the records up to it are one transaction: after a restart, effects of
records at or below it are not recorded again.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anomaly.alerts.body import HEARTBEAT, TEST, notice, notification, number, summaries
from anomaly.alerts.event import AlertEvent
from anomaly.alerts.outboxfile import DEAD, DROPPED, QUEUED, SENT, SUPERSEDED, OutboxFile
from anomaly.settings import AlertSettings, WebhookSettings

SHOWN_MAX: Final = 1_000
"""Rows a listing shows unless asked for more."""

_LAKE: Final = (
    *("id", "revision", "type", "rule", "class", "severity", "point_id", "gateway_id", "kind", "district"),
    *("onset", "at", "recorded_at", "value", "level", "peak", "unit", "summary_zh", "summary_en", "replay"),
    "drill",
)
_EVENT: Final = (*_LAKE, "severity_now", "notify", "body")
_LAKE_SQL: Final = ", ".join(("rowid", *_LAKE))
_SHOWN_SQL: Final = f"{_LAKE_SQL}, severity_now, notify"
_DELIVERY_SQL: Final = (
    "rowid, webhook_id, target, type, alert_id, revision, state, attempts, "
    "created_at, next_at, done_at, last_error"
)
_QUEUE_SQL: Final = (
    "INSERT OR IGNORE INTO delivery "
    "(webhook_id, target, type, alert_id, revision, event, body, created_at, next_at) "
    "VALUES (:webhook_id, :target, :type, :alert_id, :revision, :event, :body, :now, :now)"
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one ``record`` made: events new to the outbox, notifications queued, older ones superseded."""

    events: int
    queued: int
    superseded: int


class Outbox(OutboxFile):
    """One connection to the outbox.

    webhooks  the targets new events are queued for; a reader needs none
    alerts    for the link in notifications
    """

    def __init__(
        self,
        path: Path,
        webhooks: Sequence[WebhookSettings] = (),
        alerts: AlertSettings | None = None,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        super().__init__(path)
        self._webhooks = tuple(webhooks)
        self._link = alerts.link if alerts else None
        self._now_us = now_us

    # Judge's side

    def record(self, events: Iterable[AlertEvent], judged_seq: int) -> Recorded:
        """Events and their notifications, and that Judge came as far as ``judged_seq``, in one transaction.

        An (id, revision) that is already there stays as it is. A newer revision supersedes notifications of
        older ones that were not delivered. A target hears of alerts whose course reached its severity_min.
        """
        made = queued = superseded = 0
        now = self._now_us()
        with self.writing() as db:
            for event in events:
                rowid = _insert_event(db, event, notification(event, self._link))
                if rowid is None:
                    continue
                made += 1
                for webhook in self._webhooks if event.notify else ():
                    if event.severity >= webhook.severity_min:
                        superseded += _supersede(db, webhook.name, event.id, event.revision, now)
                        _queue(db, webhook.name, event.type, event.id, event.revision, now, event=rowid)
                        queued += 1
            self.set_meta("judged_seq", judged_seq)
        return Recorded(made, queued, superseded)

    def mark(self, judged_seq: int) -> None:
        """Judge came as far as ``judged_seq``; what lies between had no effects."""
        with self.writing():
            self.set_meta("judged_seq", judged_seq)

    def judged_seq(self) -> int:
        """Effects of journal records up to here are in the outbox; 0 for none."""
        return int(self.meta("judged_seq", 0))

    def export_since(self, rowid: int, limit: int = 100_000) -> list[dict[str, Any]]:
        """Alert events after ``rowid`` with the columns of the lake's alerts log, and ``rowid``.

        ``type`` is firing, updated or resolved there, ``level`` the limit; times are µs since 1970 UTC.
        """
        sql = f"SELECT {_LAKE_SQL} FROM alert_event WHERE rowid > ? ORDER BY rowid LIMIT ?"
        found = _dicts(self.rows(sql, (rowid, limit)))
        return [{**row, "replay": bool(row["replay"]), "drill": bool(row["drill"])} for row in found]

    # The operator's side

    def alerts(self, *, open_only: bool = False, limit: int = SHOWN_MAX) -> list[dict[str, Any]]:
        """The newest revision of each alert, newest first."""
        still = "AND type <> 'resolved'" if open_only else ""
        sql = f"SELECT {_SHOWN_SQL} FROM alert_event WHERE newest = 1 {still} ORDER BY rowid DESC LIMIT ?"
        return _dicts(self.rows(sql, (limit,)))

    def show(self, alert_id: str) -> dict[str, Any] | None:
        """One alert: its revisions, oldest first, and their notifications; None where it is unknown."""
        sql = f"SELECT {_SHOWN_SQL} FROM alert_event WHERE id = ? ORDER BY revision"
        course = _dicts(self.rows(sql, (alert_id,)))
        if not course:
            return None
        sql = f"SELECT {_DELIVERY_SQL} FROM delivery WHERE alert_id = ? ORDER BY rowid"
        return {"id": alert_id, "revisions": course, "deliveries": _dicts(self.rows(sql, (alert_id,)))}

    def deliveries(self, state: str | None = None, *, limit: int = SHOWN_MAX) -> list[dict[str, Any]]:
        """Notifications, newest first; of one state where given."""
        which, values = ("WHERE state = ?", (state, limit)) if state else ("", (limit,))
        sql = f"SELECT {_DELIVERY_SQL} FROM delivery {which} ORDER BY rowid DESC LIMIT ?"
        return _dicts(self.rows(sql, values))

    def counts(self) -> dict[str, int]:
        """Notifications by state."""
        found = self.rows("SELECT state, count(*) FROM delivery GROUP BY state")
        states = dict.fromkeys((QUEUED, SENT, SUPERSEDED, DEAD, DROPPED), 0)
        return {**states, **{str(state): int(n) for state, n in found}}

    def retry(self, webhook_ids: Sequence[str] | None = None) -> int:
        """Queue dead letters (all, or those named) again with their webhook-id; how many.

        Targets that had answered 410 are called again. A letter whose alert has moved on stays dead.
        """
        which, values = _named(webhook_ids)
        now = self._now_us()
        sql = (
            "UPDATE delivery SET state = 'queued', attempts = 0, created_at = ?, next_at = ?, done_at = NULL "
            f"WHERE state = 'dead' {which} AND NOT EXISTS (SELECT 1 FROM delivery AS newer "
            "WHERE newer.alert_id = delivery.alert_id AND newer.target = delivery.target "
            "AND newer.revision > delivery.revision AND newer.state <> 'dropped')"
        )
        with self.writing() as db:
            done = db.execute(sql, (now, now, *values)).rowcount
            db.execute("DELETE FROM meta WHERE key LIKE 'disabled:%'")
            self.touch()
        return done

    def drop(self, webhook_ids: Sequence[str]) -> int:
        """Give up queued or dead notifications for good; how many. They stay listed as dropped."""
        which, values = _named(webhook_ids)
        sql = f"UPDATE delivery SET state = 'dropped', done_at = ? WHERE state IN ('queued', 'dead') {which}"
        with self.writing() as db:
            done = db.execute(sql, (self._now_us(), *values)).rowcount
            self.touch()
        return done

    def send_test(self, targets: Sequence[str]) -> list[str]:
        """Queue a test notification for each target; their webhook-ids."""
        now, made = self._now_us(), []
        with self.writing() as db:
            for target in targets:
                notice_id = f"test-{secrets.token_hex(8)}"
                body = notice(TEST, now, notice_id)
                made.append(_queue(db, target, TEST, notice_id, 1, now, body=body))
            self.touch()
        return made

    def send_heartbeat(self, targets: Sequence[str]) -> None:
        """Queue a heartbeat for each target in place of one that was not delivered yet."""
        now = self._now_us()
        body = notice(HEARTBEAT, now, f"{HEARTBEAT}-{now}")
        with self.writing() as db:
            for target in targets:
                _supersede(db, target, HEARTBEAT, now, now)
                _queue(db, target, HEARTBEAT, HEARTBEAT, now, now, body=body)

    def trim(self, before_us: int, exported_rowid: int) -> int:
        """Forget what ended before ``before_us``; rows removed.

        Finished notifications (dead ones stay), and events the lake's log holds (up to ``exported_rowid``)
        that no notification needs and that are not the newest word on an open alert.
        """
        deliveries = "DELETE FROM delivery WHERE state IN ('sent', 'superseded', 'dropped') AND done_at < ?"
        events = (
            "DELETE FROM alert_event WHERE rowid <= ? AND recorded_at < ? "
            "AND (newest = 0 OR type = 'resolved') "
            "AND NOT EXISTS (SELECT 1 FROM delivery WHERE event = alert_event.rowid)"
        )
        with self.writing() as db:
            gone = db.execute(deliveries, (before_us,)).rowcount
            return gone + db.execute(events, (exported_rowid, before_us)).rowcount


def _insert_event(db: sqlite3.Connection, event: AlertEvent, body: bytes) -> int | None:
    """The row of a new event; None where it was there."""
    subject, (zh, en) = event.subject, summaries(event)
    row = {
        "id": event.id,
        "revision": event.revision,
        "type": event.type.removeprefix("alert."),
        "rule": event.rule,
        "class": event.alert_class,
        "severity": event.severity,
        "severity_now": event.severity_now,
        "point_id": subject.point_id or None,
        "gateway_id": subject.gateway_id or None,
        "kind": subject.kind or None,
        "district": subject.district,
        "onset": event.onset,
        "at": event.at,
        "recorded_at": event.recorded_at,
        "value": number(event.value),
        "level": number(event.limit),
        "peak": number(event.peak),
        "unit": subject.unit,
        "summary_zh": zh,
        "summary_en": en,
        "replay": event.replay,
        "drill": event.drill,
        "notify": event.notify,
        "body": body,
    }
    named = ", ".join(f":{name}" for name in _EVENT)
    done = db.execute(f"INSERT OR IGNORE INTO alert_event ({', '.join(_EVENT)}) VALUES ({named})", row)
    if not done.rowcount:
        return None
    older = "UPDATE alert_event SET newest = 0 WHERE id = ? AND newest = 1 AND revision < ?"
    db.execute(older, (event.id, event.revision))
    return done.lastrowid


def _supersede(db: sqlite3.Connection, target: str, alert_id: str, revision: int, now: int) -> int:
    return db.execute(
        "UPDATE delivery SET state = 'superseded', done_at = ? "
        "WHERE alert_id = ? AND target = ? AND state = 'queued' AND revision < ?",
        (now, alert_id, target, revision),
    ).rowcount


def _queue(
    db: sqlite3.Connection,
    target: str,
    kind: str,
    alert_id: str,
    revision: int,
    now: int,
    *,
    event: int | None = None,
    body: bytes | None = None,
) -> str:
    """Queue one notification, of an event or with a body of its own; its webhook-id, the same if repeated."""
    webhook_id = f"{alert_id}.{revision}.{target}"
    row = {
        "webhook_id": webhook_id,
        "target": target,
        "type": kind,
        "alert_id": alert_id,
        "revision": revision,
        "event": event,
        "body": body,
        "now": now,
    }
    db.execute(_QUEUE_SQL, row)
    return webhook_id


def _named(webhook_ids: Sequence[str] | None) -> tuple[str, tuple[str, ...]]:
    if webhook_ids is None:
        return "", ()
    return f"AND webhook_id IN ({', '.join('?' * len(webhook_ids))})", tuple(webhook_ids)


def _dicts(rows: Iterable[sqlite3.Row]) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]
