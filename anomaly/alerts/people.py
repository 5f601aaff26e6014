"""People: answering an alert, silencing what is known, asking who did.

Owns what persons do to alerts, each act durable and in the logbook with who and why. A plain face: the command line
and the console call these and nothing else. Raises ValueError with a text for a person where an act makes no sense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from anomaly.alerts import groups, logbook
from anomaly.alerts.outboxfile import OutboxFile
from storage.units import US_PER_S

SILENCE_S_MAX: Final = 30 * 86_400
"""Longer is not a silence but a setting: take the point's limits away instead."""
SEVERITY_MAX: Final = 3
"""A silence mutes up to orange unless it says red in so many words."""
TEXT_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a silence mutes: alerts that agree in all that is named; empty text is any."""

    rule: str = ""
    kind: str = ""
    district: str = ""
    point_id: str = ""
    gateway_id: str = ""
    severity_max: int = SEVERITY_MAX

    def said(self) -> str:
        """What is named, in one line."""
        named = {name: getattr(self, name) for name in ("rule", "kind", "district", "point_id", "gateway_id")}
        words = [f"{name}={value}" for name, value in named.items() if value] or ["everything"]
        return " ".join([*words, f"up to severity {self.severity_max}"])


def acknowledge(outbox: OutboxFile, alert_id: str, who: str, now: int, note: str = "") -> dict[str, Any]:
    """Somebody answers for an alert, and so for its group: nobody else is called for this severity.

    Gives the group's id, the severity answered and the seconds it took.
    """
    who, note = _said(who, "who answers"), note.strip()[:TEXT_MAX]
    with outbox.writing() as db:
        member = db.execute("SELECT grp FROM member WHERE id = ?", (alert_id,)).fetchone()
        group = groups.load(db, member[0] if member else alert_id)
        if group is None:
            raise ValueError(f"no alert {alert_id}")
        if not group.told:
            raise ValueError(f"nobody was called for {alert_id}")
        took_s = (now - group.told_at) / US_PER_S
        group.answered, group.answered_at, group.answered_by, group.answer_note = group.told, now, who, note
        group.answer_due = None
        groups.save(db, group)
        logbook.note(db, now, logbook.ANSWERED, group.id, who=who, detail=note or None)
        outbox.touch()
    return {"id": group.id, "severity": group.answered, "took_s": took_s}


def silence(
    outbox: OutboxFile, matcher: Matcher, who: str, why: str, begins: int, ends: int, now: int
) -> int:
    """Mute what ``matcher`` says between two times, µs; the silence's number. The end is never open."""
    who, why = _said(who, "who silences"), _said(why, "why")
    named = (matcher.rule, matcher.kind, matcher.district, matcher.point_id, matcher.gateway_id)
    if not any(named):
        raise ValueError("name what to silence: a rule, kind, district, point or gateway")
    if not 1 <= matcher.severity_max <= 4:
        raise ValueError("severity is 1 to 4")
    if ends <= max(begins, now):
        raise ValueError("it would be over already")
    if ends - begins > SILENCE_S_MAX * US_PER_S:
        raise ValueError(f"longer than {SILENCE_S_MAX // 86_400} days: change the settings instead")
    with outbox.writing() as db:
        made = db.execute(
            "INSERT INTO silence (rule, kind, district, point_id, gateway_id, severity_max, begins, ends, made_at, "
            "who, why) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*named, matcher.severity_max, begins, ends, now, who, why),
        )
        number = made.lastrowid
        assert number is not None
        what = ", ".join(text for text in named if text)
        detail = f"silence {number}: {what}, up to severity {matcher.severity_max}: {why}"
        logbook.note(db, now, logbook.SILENCE, who=who, detail=detail)
        outbox.touch()
    return number


def unsilence(outbox: OutboxFile, number: int, who: str, why: str, now: int) -> None:
    """End a silence now; what it held and still stands is told."""
    who, why = _said(who, "who ends it"), _said(why, "why")
    with outbox.writing() as db:
        ended = db.execute(
            "UPDATE silence SET ends = ? WHERE id = ? AND ends > ?", (now, number, now)
        ).rowcount
        if not ended:
            raise ValueError(f"no silence {number} that holds")
        logbook.note(db, now, logbook.UNSILENCE, who=who, detail=f"silence {number}: {why}")
        outbox.touch()


def silences(outbox: OutboxFile, now: int, *, over: bool = False) -> list[dict[str, Any]]:
    """Silences that hold or will; with ``over`` those that ended too, as long as they are kept."""
    rows = outbox.rows("SELECT * FROM silence WHERE ends > ? ORDER BY id", (0 if over else now,))
    return [dict(row) for row in rows]


def open_groups(outbox: OutboxFile) -> list[dict[str, Any]]:
    """Groups people were told of that are not over, the worst first, with the words of the worst alert in each."""
    rows = outbox.rows(
        "SELECT g.*, (SELECT e.summary_zh FROM member m JOIN alert_event e ON e.id = m.id AND e.newest = 1 "
        "WHERE m.grp = g.id ORDER BY m.open DESC, m.severity_now DESC, m.severity DESC, m.onset, m.id LIMIT 1) "
        "AS summary_zh FROM alert_group g WHERE g.told > 0 AND g.over_told = 0 AND g.merged_into IS NULL "
        "ORDER BY g.worst DESC, g.first_at"
    )
    return [dict(row) for row in rows]


def steps(outbox: OutboxFile, since: int, until: int, alert_id: str | None = None) -> list[dict[str, Any]]:
    """The logbook between two times, µs; of one alert and its group where named."""
    if alert_id is None:
        rows = outbox.rows("SELECT * FROM alert_log WHERE at >= ? AND at < ? ORDER BY id", (since, until))
    else:
        rows = outbox.rows(
            "SELECT * FROM alert_log WHERE at >= ? AND at < ? AND alert_id IN "
            "(SELECT ? UNION SELECT grp FROM member WHERE id = ?) ORDER BY id",
            (since, until, alert_id, alert_id),
        )
    return [dict(row) for row in rows]


def _said(text: str, what: str) -> str:
    found = " ".join(text.split())[:TEXT_MAX]
    if not found:
        raise ValueError(f"say {what}")
    return found
