"""The shift report: what a duty officer hands over, on one page, from the outbox alone.

Owns its figures and its text in Chinese and English. Reads; changes nothing.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, tzinfo
from statistics import median
from typing import Any, Final

from anomaly.alerts import logbook, people
from anomaly.alerts.outboxfile import DEAD, OutboxFile
from anomaly.alerts.words import COLOURS_EN, COLOURS_ZH
from storage.units import US_PER_S

SHOWN_MAX: Final = 12
"""Lines of each list: it is one page."""
OUTAGES: Final = ("outage", "device_outage")
"""Rules of what is out: a gateway, a device (a pole of cameras). They have a heading of their own."""


def figures(outbox: OutboxFile, since: int, until: int) -> dict[str, Any]:
    """What happened between two times, and what stands at the second of them; times µs since 1970 UTC."""
    fired = outbox.rows(
        "SELECT severity, class, district, drill OR replay AS practice, count(*) AS n FROM alert_event "
        "WHERE newest = 1 AND onset < ? AND recorded_at >= ? GROUP BY 1, 2, 3, 4",
        (until, since),
    )
    by_severity: Counter[int] = Counter()
    by_district: Counter[str] = Counter()
    by_class: Counter[str] = Counter()
    practice = 0
    for row in fired:
        if row["practice"]:
            practice += row["n"]
            continue
        by_severity[row["severity"]] += row["n"]
        by_class[row["class"]] += row["n"]
        by_district[row["district"] or "-"] += row["n"]
    steps = people.steps(outbox, since, until)
    standing = people.open_groups(outbox)
    outages = [group for group in standing if group["rule"] in OUTAGES]
    return {
        "since": since,
        "until": until,
        "by_severity": {str(severity): by_severity[severity] for severity in (4, 3, 2, 1)},
        "by_class": dict(sorted(by_class.items())),
        "by_district": dict(by_district.most_common()),
        "practice": practice,
        "steps": dict(sorted(Counter(step["step"] for step in steps).items())),
        "open": [_group(group) for group in standing if group not in outages],
        "unanswered": [_group(group) for group in standing if _unanswered(group)],
        "answered": _answered(outbox, steps),
        "silences": people.silences(outbox, until),
        "outages": [_group(group) for group in outages],
        "dead_letters": _dead(outbox),
    }


def _group(row: dict[str, Any]) -> dict[str, Any]:
    names = (
        "id",
        "worst",
        "members",
        "open",
        "district",
        "rule",
        "kind",
        "mode",
        "first_at",
        "answered_by",
        "summary_zh",
    )
    return {name: row[name] for name in names}


def _unanswered(group: dict[str, Any]) -> bool:
    asked = group["answer_due"] is not None or group["escalated"] > 0
    return bool(asked and group["answered"] < group["told"])


def _answered(outbox: OutboxFile, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """How many calls were answered, and how long after the call that was answered."""
    calls = (logbook.CALLED, logbook.REOPENED, logbook.FLAPPING, logbook.ESCALATED)
    took: list[float] = []
    escalated = sum(step["step"] == logbook.ESCALATED for step in steps)
    for step in steps:
        if step["step"] != logbook.ANSWERED:
            continue
        marks = ", ".join("?" * len(calls))
        sql = f"SELECT min(at) FROM alert_log WHERE alert_id = ? AND at <= ? AND step IN ({marks})"
        called = outbox.rows(sql, (step["alert_id"], step["at"], *calls))[0][0]
        if called is not None:
            took.append((step["at"] - called) / US_PER_S)
    return {
        "count": len(took),
        "median_s": round(median(took), 1) if took else None,
        "longest_s": round(max(took), 1) if took else None,
        "escalated": escalated,
    }


def _dead(outbox: OutboxFile) -> list[dict[str, Any]]:
    rows = outbox.rows(
        "SELECT target, count(*) AS n, max(last_error) AS error FROM delivery WHERE state = ? GROUP BY 1 ORDER BY 1",
        (DEAD,),
    )
    return [dict(row) for row in rows]


def page(found: dict[str, Any], city: str, zone: tzinfo) -> str:
    """The figures as one page of text, times in the city's zone."""
    colours = [f"{COLOURS_ZH[int(s)]} {COLOURS_EN[int(s)]} {n}" for s, n in found["by_severity"].items()]
    answered = found["answered"]
    took = (
        f",中位 median {answered['median_s']:g} s,最长 longest {answered['longest_s']:g} s"
        if answered["count"]
        else ""
    )
    lines = [
        f"值班报告 Shift report · {city}",
        f"{_moment(found['since'], zone)} – {_moment(found['until'], zone)}",
        "",
        f"告警 Alerts: {' · '.join(colours)}",
        "分区 Districts: " + (" · ".join(f"{d} {n}" for d, n in _some(found["by_district"])) or "–"),
        "类别 Classes: " + (" · ".join(f"{_class(c)} {n}" for c, n in found["by_class"].items()) or "–"),
        f"演练、回放 Drills and replays: {found['practice']}",
        f"应答 Answered: {answered['count']}{took};升级 escalated {answered['escalated']}",
        "",
        *_list("未结束 Open", found["open"], zone),
        *_list("无人应答 Unanswered", found["unanswered"], zone),
        *_list("网关、设备失联 Outages", found["outages"], zone),
        *_silences(found["silences"], zone),
        *_letters(found["dead_letters"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _class(name: str) -> str:
    return {"event": "事件 events", "fault": "故障 faults"}.get(name, name)


def _some(counts: dict[str, int]) -> list[tuple[str, int]]:
    return list(counts.items())[:SHOWN_MAX]


def _list(title: str, groups: list[dict[str, Any]], zone: tzinfo) -> list[str]:
    lines = [f"{title}: {len(groups)}"]
    for group in groups[:SHOWN_MAX]:
        who = f" · 应答 {group['answered_by']}" if group["answered_by"] else ""
        many = f" · {group['open']}/{group['members']} 处" if group["members"] > 1 else ""
        at = _moment(group["first_at"], zone)
        lines.append(
            f"  {group['id']}  {at}  {COLOURS_ZH[group['worst']]}  {group['summary_zh'] or ''}{many}{who}"
        )
    return lines + _rest(len(groups))


def _silences(rows: list[dict[str, Any]], zone: tzinfo) -> list[str]:
    lines = [f"静默 Silences: {len(rows)}"]
    for row in rows[:SHOWN_MAX]:
        names = ("rule", "kind", "district", "point_id", "gateway_id")
        what = " ".join(str(row[name]) for name in names if row[name])
        colour = COLOURS_ZH[row["severity_max"]]
        lines.append(
            f"  {row['id']}  {what} ≤ {colour} · 至 until {_moment(row['ends'], zone)} · {row['who']}: {row['why']}"
        )
    return lines + _rest(len(rows))


def _letters(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"未送达 Dead letters: {sum(row['n'] for row in rows)}"]
    return lines + [f"  {row['target']}: {row['n']} ({row['error'] or '-'})" for row in rows[:SHOWN_MAX]]


def _rest(count: int) -> list[str]:
    return [f"  … {count - SHOWN_MAX}"] if count > SHOWN_MAX else []


def _moment(us: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(us / US_PER_S, zone).strftime("%m-%d %H:%M")
