"""The deliverer's view of the outbox: what is queued, and what became of it.

Owns the queries the delivery loop makes, each one short transaction on its own connection and thread.
Knows nothing of HTTP or of order (anomaly.alerts.lane).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from anomaly.alerts import logbook
from anomaly.alerts.lane import RETRY_AFTER_S_MAX, Notice, Settlement
from anomaly.alerts.outbox import Outbox
from anomaly.alerts.outboxfile import DEAD, SENT
from storage.units import US_PER_S

AWAY_US: Final = 366 * 86_400 * US_PER_S
"""An engine is seldom off for longer; what seems to have waited so long was written, or is read, by a wrong clock."""
AHEAD_US: Final = 60 * US_PER_S
"""Less is a small step of NTP, or a letter queued by the judge while the deliverer asks: nothing to speak of."""
LOAD_MAX: Final = 2_000
"""Notifications read at once, with their bodies: some megabytes."""

_QUEUED: Final = (
    "SELECT d.rowid, d.target, d.webhook_id, d.alert_id, d.revision, d.attempts, d.created_at, d.next_at, "
    "d.body FROM delivery d WHERE d.state = 'queued' AND d.rowid > ? ORDER BY d.rowid LIMIT ?"
)
_SETTLE: Final = (
    "UPDATE delivery SET attempts = ?, next_at = ?, last_error = ?, done_at = CASE WHEN ? = 'queued' "
    "THEN done_at ELSE ? END, state = CASE WHEN ? = 'queued' AND state <> 'queued' THEN state ELSE ? END "
    "WHERE rowid = ?"
)
"""A failed call does not wake up what was superseded or dropped while it was in the air; a 2xx is a fact."""

_STRANGE_AGE: Final = (
    "UPDATE delivery SET created_at = :now, next_at = :now "
    "WHERE state = 'queued' AND created_at NOT BETWEEN :oldest AND :newest"
)
_STRANGE_WAIT: Final = "UPDATE delivery SET next_at = :now WHERE state = 'queued' AND next_at > :latest"
_LOG: Final = (
    "INSERT INTO alert_log (at, alert_id, step, target, detail) SELECT ?, alert_id, ?, target, "
    "webhook_id || coalesce(': ' || ?, '') FROM delivery WHERE rowid = ? AND type <> 'heartbeat'"
)
_STEPS: Final = {SENT: logbook.SENT, DEAD: logbook.DEAD}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A notification and the name of its target."""

    target: str
    notice: Notice


class Letters:
    """Used by one thread at a time; ``outbox`` is its own."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._after = 0
        self._touched: Any = None

    def believe(self, now: int) -> int:
        """Times of what is queued that cannot be are ``now`` (µs since 1970 UTC) from here on; how many were.

        For a start: a clock that was set while nobody ran makes letters of the future, or of long ago, of what waits.
        """
        latest = now + round(RETRY_AFTER_S_MAX * US_PER_S)
        known = {"now": now, "oldest": now - AWAY_US, "newest": now + AHEAD_US, "latest": latest}
        with self._outbox.writing() as db:
            return db.execute(_STRANGE_AGE, known).rowcount + db.execute(_STRANGE_WAIT, known).rowcount

    def new(self) -> tuple[list[Loaded], bool]:
        """Queued notifications not given before, and whether there are more."""
        rows = self._outbox.rows(_QUEUED, (self._after, LOAD_MAX))
        if rows:
            self._after = rows[-1]["rowid"]
        return [_loaded(row) for row in rows], len(rows) == LOAD_MAX

    def touched(self) -> bool:
        """Whether an operator changed something since this was asked last; False the first time."""
        before, self._touched = self._touched, self._outbox.meta("touched", 0)
        return before is not None and before != self._touched

    def again(self) -> list[Loaded]:
        """Everything queued among what was given before, without bodies: after an operator's change."""
        rows = self._outbox.rows(_QUEUED.replace("d.body", "NULL AS body"), (0, -1))
        return [_loaded(row) for row in rows if row["rowid"] <= self._after]

    def body(self, rowid: int) -> bytes:
        """The body of one notification."""
        return bytes(self._outbox.rows("SELECT body FROM delivery WHERE rowid = ?", (rowid,))[0][0])

    def settle(self, settlements: Sequence[Settlement], now: int, ahead: int) -> None:
        """Keep what became of notifications, in one transaction.

        now    µs since 1970 UTC; it is ``ahead`` of the clock the settlements tell their times by
        """
        with self._outbox.writing() as db:
            db.executemany(
                _SETTLE,
                [
                    (s.attempts, s.next_at + ahead, s.error, s.state, now, s.state, s.state, s.rowid)
                    for s in settlements
                ],
            )
            db.executemany(
                _LOG,
                [
                    (now, _STEPS.get(s.state, logbook.FAILED), s.error, s.rowid)
                    for s in settlements
                    if s.state in _STEPS or s.error is not None
                ],
            )

    def disabled(self) -> set[str]:
        """Targets that answered 410 and were not asked for again since."""
        rows = self._outbox.rows("SELECT key FROM meta WHERE key LIKE 'disabled:%'")
        return {str(row[0]).removeprefix("disabled:") for row in rows}

    def disable(self, target: str, now: int) -> None:
        """Remember that a target answered 410."""
        with self._outbox.writing():
            self._outbox.set_meta(f"disabled:{target}", now)

    def heartbeat(self, targets: Sequence[str]) -> None:
        """Queue a heartbeat for each target."""
        self._outbox.send_heartbeat(targets)

    def close(self) -> None:
        """Let go of the connection."""
        self._outbox.close()


def _loaded(row: Any) -> Loaded:
    body = None if row["body"] is None else bytes(row["body"])
    notice = Notice(
        row["rowid"],
        row["webhook_id"],
        row["alert_id"],
        row["revision"],
        row["attempts"],
        row["created_at"],
        row["next_at"],
        body,
    )
    return Loaded(row["target"], notice)
