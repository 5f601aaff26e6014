"""Webhook body v1: an alert event, or the group it speaks for, as JSON.

Owns the notification's fields. Knows nothing of who receives it or how; its words are anomaly.alerts.words'.
configs/schemas/webhook-v1.json is its schema; receivers may rely on it. Other formats are made from this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from anomaly.alerts.event import FIRING, RESOLVED, UPDATED, AlertEvent
from anomaly.alerts.words import FIRST, MERGED, OVER, REOPENED, GroupView, clipped, mode_of, summaries
from storage.units import US_PER_S

BODY_VERSION: Final = 1
BODY_BYTES_MAX: Final = 20_000
"""Standard Webhooks asks for bodies under 20 kB."""
TOP_MAX: Final = 10
"""Members of a group that a notification lists, worst first."""
TOP_TEXT_MAX: Final = 120
HEARTBEAT: Final = "heartbeat"
TEST: Final = "test"
TYPES: Final = (FIRING, UPDATED, RESOLVED, HEARTBEAT, TEST)


@dataclass(frozen=True, slots=True)
class GroupParts:
    """What of a group stands beside its words.

    top        members, worst first, as the outbox lists them
    districts  (district, members), most first
    box        (lon_min, lat_min, lon_max, lat_max) of its places; None where none is known
    before     (revision, µs) of the notification before; None for the first
    """

    top: Sequence[Mapping[str, Any]] = ()
    districts: Sequence[tuple[str, int]] = ()
    box: tuple[float, float, float, float] | None = None
    before: tuple[int, int] | None = None


def type_of(reason: str) -> str:
    """The notification's type for one of anomaly.alerts.words.REASONS."""
    if reason in (FIRST, REOPENED):
        return FIRING
    return RESOLVED if reason in (OVER, MERGED) else UPDATED


def notification(
    event: AlertEvent,
    link: str | None = None,
    group: GroupView | None = None,
    parts: GroupParts | None = None,
    told_at: int | None = None,
) -> bytes:
    """The body of one alert event, JSON in UTF-8, below BODY_BYTES_MAX.

    ``link`` is a prefix the id is appended to. With ``group`` it speaks for that: id, revision, type are the group's.
    ``told_at`` µs, default when the event was recorded. A number that is not known is null.
    """
    alert = _alert(event, link, group)
    kind = event.type if group is None else type_of(group.reason)
    stamp = event.recorded_at if told_at is None else told_at
    if group is None:
        return _body(kind, stamp, alert)
    told = _group(group, parts or GroupParts())
    while True:
        body = _dump(kind, stamp, {**alert, "group": told})
        if len(body) < BODY_BYTES_MAX or not told["top"]:
            break
        told["top"] = told["top"][:-1]
    assert len(body) < BODY_BYTES_MAX, f"notification of {len(body)} bytes"
    return body


def _alert(event: AlertEvent, link: str | None, group: GroupView | None) -> dict[str, Any]:
    subject = event.subject
    zh, en = summaries(event, group)
    told_id = event.id if group is None else group.id
    return {
        "id": told_id,
        "revision": event.revision if group is None else group.revision,
        "alert": event.id,
        "rule": event.rule,
        "class": event.alert_class,
        "severity": event.severity if group is None else max(group.worst, event.severity),
        "severity_now": 0 if group is not None and type_of(group.reason) == RESOLVED else event.severity_now,
        "onset": iso(event.onset),
        "at": iso(event.at),
        "point": {"id": subject.point_id, "name": clipped(subject.name)} if subject.point_id else None,
        "gateway": subject.gateway_id or None,
        "place": {
            "district": clipped(subject.district),
            "lon": number(subject.lon),
            "lat": number(subject.lat),
        },
        "kind": subject.kind or None,
        "value": number(event.value),
        "limit": number(event.limit),
        "peak": number(event.peak),
        "unit": clipped(subject.unit),
        "summary": {"zh": zh, "en": en},
        "link": f"{link}{told_id}" if link else None,
        "mode": mode_of(event),
        "history": [
            {"at": iso(at), "severity": severity, "value": number(value)}
            for at, severity, value in event.history
        ],
        "members": list(event.members[:TOP_MAX]),
    }


def _group(group: GroupView, parts: GroupParts) -> dict[str, Any]:
    answer = {"by": clipped(group.answer_by) or None, "within_s": group.answer_s} if group.answer_s else None
    return {
        "reason": group.reason,
        "scope": group.scope,
        "onset": iso(group.onset),
        "members": group.members,
        "open": group.open,
        "worst": group.worst,
        "changed": {"joined": group.joined, "ended": group.ended, "stepped": group.stepped},
        "top": [_member(row) for row in parts.top],
        "districts": [{"name": clipped(name), "members": n} for name, n in parts.districts],
        "area": _circle(parts.box),
        "answer": answer,
        "merged_into": group.merged_into,
        "before": {"revision": parts.before[0], "timestamp": iso(parts.before[1])} if parts.before else None,
    }


def _member(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "open": bool(row["open"]),
        "severity": row["severity"],
        "severity_now": row["severity_now"],
        "rule": row["rule"],
        "kind": row["kind"] or None,
        "point": row["point_id"] or None,
        "gateway": row["gateway_id"] or None,
        "district": clipped(row["district"]),
        "onset": iso(row["onset"]),
        "at": iso(row["at"]),
        "value": row["value"],
        "limit": row["level"],
        "summary": {"zh": _short(row["summary_zh"]), "en": _short(row["summary_en"])},
    }


def _short(text: str) -> str:
    return text if len(text) <= TOP_TEXT_MAX else text[: TOP_TEXT_MAX - 1] + "…"


KM_PER_DEGREE: Final = 111.195


def _circle(box: tuple[float, float, float, float] | None) -> dict[str, float] | None:
    """The circle around a box in degrees: lon, lat, radius_km."""
    if box is None:
        return None
    lon, lat = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    east = (box[2] - box[0]) * math.cos(math.radians(lat))
    radius = math.hypot(east, box[3] - box[1]) / 2 * KM_PER_DEGREE
    return {"lon": round(lon, 6), "lat": round(lat, 6), "radius_km": round(radius, 3)}


def notice(kind: str, now_us: int, notice_id: str, *, drill: bool = False, link: str | None = None) -> bytes:
    """The body of a heartbeat or a test (``kind``): no alert, only that the way from us to them is open."""
    texts = {
        HEARTBEAT: ("心跳：告警通道正常", "Heartbeat: the alert channel is open"),
        TEST: ("【演练】测试通知，无需处置", "[TEST] Test notification, nothing to do"),
    }
    zh, en = texts[kind]
    mode = "drill" if drill or kind == TEST else "live"
    return _body(kind, now_us, {"id": notice_id, "summary": {"zh": zh, "en": en}, "link": link, "mode": mode})


def _dump(kind: str, timestamp: int, fields: dict[str, Any]) -> bytes:
    return orjson.dumps({"version": BODY_VERSION, "type": kind, "timestamp": iso(timestamp), "data": fields})


def _body(kind: str, timestamp: int, fields: dict[str, Any]) -> bytes:
    body = _dump(kind, timestamp, fields)
    assert len(body) < BODY_BYTES_MAX, f"notification of {len(body)} bytes"
    return body


def number(value: float) -> float | None:
    """None for NaN and infinities, which JSON has no word for."""
    return value if math.isfinite(value) else None


def iso(us: int) -> str:
    """µs since 1970 UTC as RFC 3339 in UTC, to the millisecond.

    >>> iso(1_767_225_600_250_000)
    '2026-01-01T00:00:00.250Z'
    """
    moment = datetime.fromtimestamp(us // US_PER_S, UTC).replace(microsecond=us % US_PER_S)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
