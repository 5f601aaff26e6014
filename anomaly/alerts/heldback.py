"""What a restored outbox does not say again.

Owns the step between a backup's outbox and an engine that starts on it. Between the backup and the loss of the data
folder the former engine went on: notifications that waited then were delivered, digests were sent, somebody was
called next. None of that is known here, and hours may have passed. So what was under way is held back, listed, and
sent only if a person asks for it: nobody is called twice, and nobody for last night's water.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anomaly.alerts.outboxfile import OutboxFile

WHY: Final = "held back by a restore: it may have gone out after the backup; `yuzui outbox retry` sends it"


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Notifications that are dead letters now, groups whose digest or next call is not made, alerts open."""

    notifications: int
    groups: int
    open_alerts: int


def hold_back(path: Path, now_us: int) -> HeldBack:
    """Make dead letters of what was queued in the outbox at ``path``, and end what time alone would bring.

    Open alerts stay open, and all that happens from now on is told. Raises sqlite3.Error, ValueError.
    """
    outbox = OutboxFile(path)
    try:
        with outbox.writing() as db:
            notifications = db.execute(
                "UPDATE delivery SET state = 'dead', done_at = ?, last_error = ? WHERE state = 'queued'",
                (now_us, WHY),
            ).rowcount
            groups = db.execute(
                "UPDATE alert_group SET joined = 0, ended = 0, stepped = 0, answer_due = NULL "
                "WHERE joined + ended + stepped > 0 OR answer_due IS NOT NULL"
            ).rowcount
            still = db.execute("SELECT count(*) FROM alert_event WHERE newest = 1 AND type <> 'resolved'")
            return HeldBack(notifications, groups, int(still.fetchone()[0]))
    finally:
        outbox.close()
