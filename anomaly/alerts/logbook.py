"""The logbook of alerts: every step in their life, told in order, by whom and to whom.

Owns the words of steps and the table ``alert_log``. Knows nothing of why a step was taken.
"""

from __future__ import annotations

import sqlite3
from typing import Final

FIRED: Final = "fired"
UPDATED: Final = "updated"
RESOLVED: Final = "resolved"
GROUPED: Final = "grouped"
MERGED: Final = "merged"
CALLED: Final = "called"
DIGEST: Final = "digest"
FLAPPING: Final = "flapping"
REOPENED: Final = "reopened"
OVER: Final = "over"
SILENCED: Final = "silenced"
INHIBITED: Final = "inhibited"
RELEASED: Final = "released"
SENT: Final = "sent"
FAILED: Final = "failed"
DEAD: Final = "dead"
ANSWERED: Final = "answered"
ESCALATED: Final = "escalated"
UNANSWERED: Final = "unanswered"
SILENCE: Final = "silence"
UNSILENCE: Final = "unsilence"
DRILL: Final = "drill"
STEPS: Final = (
    FIRED, UPDATED, RESOLVED, GROUPED, MERGED, CALLED, DIGEST, FLAPPING, REOPENED, OVER, SILENCED, INHIBITED, RELEASED,
    SENT, FAILED, DEAD, ANSWERED, ESCALATED, UNANSWERED, SILENCE, UNSILENCE, DRILL,
)  # fmt: skip
"""An alert fired, changed, resolved, joined a group; a group merged into an older one, was called out, digested, is
flapping, came back, is over; an alert was kept quiet by a silence or another alert, or let go again; a notification
arrived, failed, was given up; somebody answered, the next was called, nobody was left; a silence began or was ended;
a drill was begun."""

_INSERT: Final = "INSERT INTO alert_log (at, alert_id, step, who, target, detail) VALUES (?, ?, ?, ?, ?, ?)"


def note(
    db: sqlite3.Connection,
    at: int,
    step: str,
    alert_id: str | None = None,
    *,
    who: str | None = None,
    target: str | None = None,
    detail: str | None = None,
) -> None:
    """One row; ``at`` µs since 1970 UTC."""
    db.execute(_INSERT, (at, alert_id, step, who, target, detail))
