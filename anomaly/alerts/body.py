"""Webhook body v1: an alert event in words and as JSON.

Owns the notification's fields and its wording in Chinese and English. Knows nothing of who receives it or
how. configs/schemas/webhook-v1.json is its schema; receivers may rely on it.

The text is made to be read aloud on a telephone: how bad, where, what, how much, against which limit. It
states what was measured; it never issues a warning, which is the weather service's to do. Drills and
replays say so first, in every text.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from anomaly.alerts.event import FIRING, RESOLVED, UPDATED, AlertEvent
from storage.batch import US_PER_S

BODY_VERSION: Final = 1
BODY_BYTES_MAX: Final = 20_000
"""Standard Webhooks asks for bodies under 20 kB."""
TEXT_MAX: Final = 200
"""Characters of a name or unit taken into a notification; ids are kept whole."""
HEARTBEAT: Final = "heartbeat"
TEST: Final = "test"
TYPES: Final = (FIRING, UPDATED, RESOLVED, HEARTBEAT, TEST)

COLOURS_ZH: Final = ("", "蓝色", "黄色", "橙色", "红色")
COLOURS_EN: Final = ("", "Blue", "Yellow", "Orange", "Red")
FAULTS_ZH: Final = {"dead": "失联", "stuck": "读数卡滞", "outage": "网关失联"}
FAULTS_EN: Final = {"dead": "No data", "stuck": "Stuck", "outage": "Gateway out"}


def mode_of(event: AlertEvent) -> str:
    """live, drill or replay; a drill on a recording is a drill."""
    return "drill" if event.drill else "replay" if event.replay else "live"


def summaries(event: AlertEvent) -> tuple[str, str]:
    """(zh, en): one line each, to be read aloud."""
    zh, en = (" | ".join(part for part in parts if part) for parts in (_zh(event), _en(event)))
    mode = mode_of(event)
    if mode == "live":
        return zh, en
    return ("【演练】" if mode == "drill" else "【演练·回放】") + zh, f"[{mode.upper()}] {en}"


def notification(event: AlertEvent, link: str | None = None) -> bytes:
    """The body of one alert event, JSON in UTF-8, below BODY_BYTES_MAX.

    ``link`` is a prefix the alert id is appended to. A number that is not known is null.
    """
    subject = event.subject
    zh, en = summaries(event)
    alert = {
        "id": event.id,
        "revision": event.revision,
        "rule": event.rule,
        "class": event.alert_class,
        "severity": event.severity,
        "severity_now": event.severity_now,
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
        "link": f"{link}{event.id}" if link else None,
        "mode": mode_of(event),
        "history": [
            {"at": iso(at), "severity": severity, "value": number(value)}
            for at, severity, value in event.history
        ],
    }
    return _body(event.type, event.recorded_at, alert)


def notice(kind: str, now_us: int, notice_id: str, *, drill: bool = False, link: str | None = None) -> bytes:
    """The body of a heartbeat or a test (``kind``): no alert, only that the way from us to them is open."""
    texts = {
        HEARTBEAT: ("心跳：告警通道正常", "Heartbeat: the alert channel is open"),
        TEST: ("【演练】测试通知，无需处置", "[TEST] Test notification, nothing to do"),
    }
    zh, en = texts[kind]
    mode = "drill" if drill or kind == TEST else "live"
    return _body(kind, now_us, {"id": notice_id, "summary": {"zh": zh, "en": en}, "link": link, "mode": mode})


def _body(kind: str, timestamp: int, fields: dict[str, Any]) -> bytes:
    body = orjson.dumps({"version": BODY_VERSION, "type": kind, "timestamp": iso(timestamp), "data": fields})
    assert len(body) < BODY_BYTES_MAX, f"notification of {len(body)} bytes"
    return body


def _place_zh(event: AlertEvent) -> str:
    subject = event.subject
    if event.rule == "outage":
        return f"{subject.district} 网关 {clipped(subject.gateway_id)}"
    return f"{clipped(subject.district)} {clipped(subject.name)}"


def _place_en(event: AlertEvent) -> str:
    subject = event.subject
    if event.rule == "outage":
        return f"{subject.district} gateway {clipped(subject.gateway_id)}"
    return f"{clipped(subject.district)} {clipped(subject.name)}"


def _zh(event: AlertEvent) -> tuple[str, ...]:
    subject, over = event.subject, event.type == RESOLVED
    lasted = f"历时 {_span_zh(event.at - event.onset)}"
    if event.rule != "level":
        fault = FAULTS_ZH[event.rule]
        what = "" if over or event.rule == "stuck" else f"已 {_span_zh(event.at - event.onset)}无数据"
        if event.rule == "outage":
            what = "" if over else f"{event.value:g} 个点无数据"
        if event.rule == "stuck" and not over:
            what = f"{subject.title_zh} {_amount(event.value, subject.unit)} 长时间不变"
        return f"{fault}已恢复" if over else fault, _place_zh(event), what, lasted if over else ""
    now = f"{_place_zh(event)} {subject.title_zh} {_amount(event.value, subject.unit)}"
    if over:
        return "已解除", now, f"{_extreme_zh(event)} {_amount(event.peak, subject.unit)}", lasted
    return COLOURS_ZH[event.severity_now], f"{now}(限 {event.limit:g})", _change_zh(event)


def _en(event: AlertEvent) -> tuple[str, ...]:
    subject, over = event.subject, event.type == RESOLVED
    lasted = f"lasted {_span_en(event.at - event.onset)}"
    if event.rule != "level":
        fault = FAULTS_EN[event.rule]
        what = "" if over or event.rule == "stuck" else f"silent for {_span_en(event.at - event.onset)}"
        if event.rule == "outage":
            what = "" if over else f"{event.value:g} points without data"
        if event.rule == "stuck" and not over:
            what = f"{subject.title_en} {_amount(event.value, subject.unit)} unchanged"
        return f"{fault}: over" if over else fault, _place_en(event), what, lasted if over else ""
    now = f"{_place_en(event)} {subject.title_en} {_amount(event.value, subject.unit)}"
    if over:
        return "Over", now, f"{_extreme_en(event)} {_amount(event.peak, subject.unit)}", lasted
    return COLOURS_EN[event.severity_now], f"{now} (limit {event.limit:g})", _change_en(event)


def _change_zh(event: AlertEvent) -> str:
    before = _severity_before(event)
    return f"此前{COLOURS_ZH[before]}" if before and before != event.severity_now else ""


def _change_en(event: AlertEvent) -> str:
    before = _severity_before(event)
    return f"was {COLOURS_EN[before]}" if before and before != event.severity_now else ""


def _severity_before(event: AlertEvent) -> int:
    return event.history[-2][1] if len(event.history) > 1 else 0


def _falls(event: AlertEvent) -> bool:
    levels = [level for level in event.subject.levels if not math.isnan(level)]
    return len(levels) > 1 and levels[0] > levels[-1]


def _extreme_zh(event: AlertEvent) -> str:
    return "最低" if _falls(event) else "最高"


def _extreme_en(event: AlertEvent) -> str:
    return "lowest" if _falls(event) else "highest"


def _amount(value: float, unit: str) -> str:
    return f"{value:.6g} {clipped(unit)}".rstrip()


def _span_zh(us: int) -> str:
    count, unit = _span(us)
    return f"{count} {('秒', '分钟', '小时', '天')[unit]}"


def _span_en(us: int) -> str:
    count, unit = _span(us)
    return f"{count} {('s', 'min', 'h', 'd')[unit]}"


def _span(us: int) -> tuple[int, int]:
    """(count, unit): seconds below two minutes, minutes below two hours, hours below two days, else days."""
    seconds = max(us, 0) // US_PER_S
    for unit, size, until in ((0, 1, 120), (1, 60, 7_200), (2, 3_600, 172_800)):
        if seconds < until:
            return seconds // size, unit
    return seconds // 86_400, 3


def clipped(text: str) -> str:
    """At most TEXT_MAX characters, the cut shown."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


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
