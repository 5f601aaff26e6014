"""A drill: one made-up alert that goes the whole way from the outbox to whoever is called, and says it is a drill.

Owns the making of its events. It has the marks of a drill, so it joins no group of the living, and every text of it
begins with 演练. Knows nothing of how it is delivered.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

import numpy as np

from anomaly.alerts import logbook
from anomaly.alerts.event import FIRING, RESOLVED, AlertEvent, Subject, alert_id
from anomaly.alerts.outbox import Outbox

RULE: Final = "level"
LEVEL_CM: Final = 30.0


def subject(kind: str, district: str, name: str) -> Subject:
    """Where a drill takes place: a place of this run alone, so that two drills are two alerts."""
    place = f"drill-{secrets.token_hex(4)}"
    return Subject(-1, place, "", name, kind, "积水", "water", district, np.nan, np.nan, "cm")


def begin(outbox: Outbox, where: Subject, severity: int, who: str, now: int) -> AlertEvent:
    """Fire it. Returns its first event."""
    event = AlertEvent(
        alert_id(RULE, where.point_id, now), 1, FIRING, RULE, "event", severity, severity, where, now, now, now,
        LEVEL_CM, LEVEL_CM, LEVEL_CM, True, False, True, ((now, severity, LEVEL_CM),),
    )  # fmt: skip
    with outbox.writing() as db:
        logbook.note(db, now, logbook.DRILL, event.id, who=who, detail=f"severity {severity}")
    outbox.record([event], None)
    _wake(outbox)
    return event


def end(outbox: Outbox, event: AlertEvent, now: int) -> None:
    """It is over: whoever heard of it is told."""
    over = replace(
        event, revision=2, type=RESOLVED, severity_now=0, at=now, recorded_at=now, value=0.0,
        history=(*event.history, (now, 0, 0.0)),
    )  # fmt: skip
    outbox.record([over], None)
    _wake(outbox)


def _wake(outbox: Outbox) -> None:
    with outbox.writing():
        outbox.touch()
