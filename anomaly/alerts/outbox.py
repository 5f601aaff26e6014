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

from anomaly.alerts.body import HEARTBEAT, TEST, notice, number
from anomaly.alerts.event import AlertEvent, packed
from anomaly.alerts.grouping import Grouping
from anomaly.alerts.outboxfile import DEAD, DROPPED, QUEUED, SENT, SUPERSEDED, OutboxFile
from anomaly.alerts.policy import Policy
from anomaly.alerts.telling import Teller, queue, supersede
from anomaly.alerts.words import summaries
from anomaly.settings import AlertSettings, InhibitSettings, RouteSettings, TargetSettings

SHOWN_MAX: Final = 1_000
"""Rows a listing shows unless asked for more."""

_LAKE: Final = (
    *("id", "revision", "type", "rule", "class", "severity", "point_id", "gateway_id", "kind", "district"),
    *("onset", "at", "recorded_at", "value", "level", "peak", "unit", "summary_zh", "summary_en", "replay"),
    *("drill", "severity_now", "pos"),
)
_EVENT: Final = (*_LAKE, "notify", "packed")
_LAKE_SQL: Final = ", ".join(("rowid", *_LAKE))
_SHOWN_SQL: Final = f"{_LAKE_SQL}, notify"
_DELIVERY_SQL: Final = (
    "rowid, webhook_id, target, type, alert_id, revision, state, attempts, "
    "created_at, next_at, done_at, last_error"
)
_FINISHED: Final = "open = 0 AND active_at < ? AND (told = 0 OR over_told = 1 OR merged_into IS NOT NULL)"
_TRIM_DELIVERIES: Final = (
    "DELETE FROM delivery WHERE state IN ('sent', 'superseded', 'dropped') AND done_at < ? "
    "AND alert_id NOT IN (SELECT id FROM alert_group WHERE over_told = 0)"
)
_TRIM_EVENTS: Final = (
    "DELETE FROM alert_event WHERE rowid <= ? AND recorded_at < ? AND (newest = 0 OR type = 'resolved')"
)
_INSERT_SQL: Final = (
    f"INSERT OR IGNORE INTO alert_event ({', '.join(_EVENT)}) VALUES ({', '.join('?' * len(_EVENT))})"
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one ``record`` made: events new to the outbox, notifications queued, older ones superseded."""

    events: int
    queued: int
    superseded: int


class Outbox(OutboxFile):
    """One connection to the outbox.

    targets   who may hear of alerts; a reader needs none
    alerts    grouping, digests, the link in notifications
    routes, inhibits  who hears of what, and what keeps it from being told
    """

    def __init__(
        self,
        path: Path,
        targets: Sequence[TargetSettings] = (),
        alerts: AlertSettings | None = None,
        *,
        routes: Sequence[RouteSettings] = (),
        inhibits: Sequence[InhibitSettings] = (),
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        super().__init__(path)
        self.policy = Policy(targets, alerts, routes, inhibits)
        self.link = self.policy.alerts.link
        self._teller = Teller(self.policy, self.link)
        self._grouping: Grouping | None = None
        self._now_us = now_us

    # Judge's side

    def record(self, events: Iterable[AlertEvent], judged_seq: int | None) -> Recorded:
        """Events, their groups and notifications, and how far Judge came (None: as it was), in one transaction.

        An (id, revision) that is already there stays as it is. What is told of a group supersedes what was told of it
        before and not delivered. A target hears of groups whose course reached its severity_min.
        """
        made, now = 0, self._now_us()
        before = self._teller.count.copy()
        try:
            with self.writing() as db:
                grouping = self._grouping or Grouping(db, self.policy, self._teller)
                # What it holds in memory is the file's only once this is committed.
                self._grouping = None
                grouping.begin(now)
                for event in events:
                    if _insert_event(db, event):
                        made += 1
                        grouping.follow(event)
                grouping.end()
                if judged_seq is not None:
                    self.set_meta("judged_seq", judged_seq)
        except BaseException:
            self._teller.count = before
            raise
        self._grouping = grouping
        count = self._teller.count - before
        return Recorded(made, count["queued"], count["superseded"])

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
        """One alert: its revisions, oldest first, its group and the group's notifications; None where it is unknown."""
        sql = f"SELECT {_SHOWN_SQL} FROM alert_event WHERE id = ? ORDER BY revision"
        course = _dicts(self.rows(sql, (alert_id,)))
        if not course:
            return None
        found = self.rows("SELECT grp, held FROM member WHERE id = ?", (alert_id,))
        group, held = found[0] if found else (alert_id, "")
        sql = f"SELECT {_DELIVERY_SQL} FROM delivery WHERE alert_id IN (?, ?) ORDER BY rowid"
        told = _dicts(self.rows(sql, (alert_id, group)))
        return {"id": alert_id, "group": group, "held": held, "revisions": course, "deliveries": told}

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
                made.append(queue(db, target, TEST, notice_id, 1, now, body))
            self.touch()
        return made

    def send_heartbeat(self, targets: Sequence[str]) -> None:
        """Queue a heartbeat for each target in place of one that was not delivered yet."""
        now = self._now_us()
        body = notice(HEARTBEAT, now, f"{HEARTBEAT}-{now}")
        with self.writing() as db:
            for target in targets:
                supersede(db, target, HEARTBEAT, now, now)
                queue(db, target, HEARTBEAT, HEARTBEAT, now, now, body)

    def export_log_since(self, rowid: int, limit: int = 100_000) -> list[dict[str, Any]]:
        """Steps after ``rowid`` with the columns of the lake's alert_log; times are µs since 1970 UTC."""
        sql = "SELECT id, at, alert_id, step, who, target, detail FROM alert_log WHERE id > ? ORDER BY id LIMIT ?"
        return _dicts(self.rows(sql, (rowid, limit)))

    def trim(self, before_us: int, exported_rowid: int, exported_log: int = 0) -> int:
        """Forget what ended before ``before_us``; notifications and events removed.

        Finished notifications (dead ones stay, and those of groups whose end is still to be told to whoever heard),
        events and steps the lake's logs hold (up to ``exported_rowid`` and ``exported_log``) that are not the newest
        word on an open alert, groups and silences that are over.
        """
        with self.writing() as db:
            db.execute("DELETE FROM alert_log WHERE id <= ? AND at < ?", (exported_log, before_us))
            db.execute("DELETE FROM silence WHERE ends < ?", (before_us,))
            db.execute(
                f"DELETE FROM member WHERE grp IN (SELECT id FROM alert_group WHERE {_FINISHED})",
                (before_us,),
            )
            db.execute(f"DELETE FROM alert_group WHERE {_FINISHED}", (before_us,))
            gone = db.execute(_TRIM_DELIVERIES, (before_us,)).rowcount
            return gone + db.execute(_TRIM_EVENTS, (exported_rowid, before_us)).rowcount


def _insert_event(db: sqlite3.Connection, event: AlertEvent) -> bool:
    """False where it was there."""
    subject, (zh, en) = event.subject, summaries(event)
    row = (
        event.id, event.revision, event.type.removeprefix("alert."), event.rule, event.alert_class, event.severity,
        subject.point_id or None, subject.gateway_id or None, subject.kind or None, subject.district,
        event.onset, event.at, event.recorded_at, number(event.value), number(event.limit), number(event.peak),
        subject.unit, zh, en, event.replay, event.drill, event.severity_now,
        event.pos or None, event.notify, packed(event),
    )  # fmt: skip
    if not db.execute(_INSERT_SQL, row).rowcount:
        return False
    if event.revision > 1:
        older = (
            "UPDATE alert_event SET newest = 0, packed = NULL WHERE id = ? AND newest = 1 AND revision < ?"
        )
        db.execute(older, (event.id, event.revision))
    return True


def _named(webhook_ids: Sequence[str] | None) -> tuple[str, tuple[str, ...]]:
    if webhook_ids is None:
        return "", ()
    return f"AND webhook_id IN ({', '.join('?' * len(webhook_ids))})", tuple(webhook_ids)


def _dicts(rows: Iterable[sqlite3.Row]) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]
