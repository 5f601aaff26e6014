"""Alert events for tests that need some, without an engine behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from anomaly.alerts.event import FIRING, RESOLVED, AlertEvent, Subject
from tests.anomaly_city import T0

SUBJECT = Subject(
    7,
    "P7",
    "G1",
    "人民路下穿隧道",
    "waterlogging",
    "积水",
    "water",
    "金牛区",
    104.0,
    30.7,
    "cm",
    (15, 25, 30, 40),
)


def apart(number: int) -> Subject:
    """The subject of one alert of many: 30 km from the next, so that no two belong to one storm."""
    if number == 0:
        return SUBJECT
    place = {"lon": 104.0 + number % 300 * 0.3, "lat": 30.7 - number // 300 * 0.3}
    return replace(SUBJECT, number=7 + number, point_id=f"P{7 + number}", **place)


def event(number: int = 0, revision: int = 1, kind: str = FIRING, **values: Any) -> AlertEvent:
    fields: dict[str, Any] = {
        "id": f"{number:016x}",
        "revision": revision,
        "type": kind,
        "rule": "level",
        "alert_class": "event",
        "severity": 3,
        "severity_now": 0 if kind == RESOLVED else values.get("severity", 3),
        "subject": apart(number),
        "onset": T0,
        "at": T0 + revision * 1_000_000,
        "recorded_at": T0 + revision * 1_000_000,
        "value": 31.0,
        "limit": 30.0,
        "peak": 31.0,
        "notify": True,
        "replay": False,
        "drill": False,
        "history": ((T0, 3, 31.0),),
    }
    return AlertEvent(**{**fields, **values})
