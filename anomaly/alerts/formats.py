"""Formats: our webhook body in the words other systems expect.

Owns which formats there are and the JSON ones: Alertmanager's webhook body (version 4), the robots of 企业微信, 钉钉
and 飞书, templates of the operator's. CAP is anomaly.alerts.cap's. Pure: body v1 as JSON in, bytes out.

A template is JSON in which ``${field}`` stands inside texts. It is parsed first and filled in afterwards, text by text,
so nothing that a name or a district holds can change the structure of what is sent, and nothing is executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from string import Template
from typing import Any, Final

import orjson

from anomaly.alerts.cap import cap
from anomaly.alerts.words import COLOURS_EN, COLOURS_ZH

Body = Mapping[str, Any]
Render = Callable[[Body], bytes]

WECOM_BYTES_MAX: Final = 4096
"""企业微信: longest markdown text of a robot, in UTF-8."""
ROBOT_CHARS_MAX: Final = 1000
"""Of a message to any robot: three bytes a character stay below the shortest of their limits."""
NEVER: Final = "0001-01-01T00:00:00Z"
"""How Alertmanager writes the end of what has not ended."""
_TAME: Final = str.maketrans(
    {"<": "＜", ">": "＞", "[": "［", "]": "］", "*": "＊", "`": "｀", "@": "＠", "\n": " ", "\r": " "}
)
_COLOUR: Final = ("comment", "info", "warning", "warning", "warning")
FIELDS: Final = (
    "id", "revision", "type", "timestamp", "mode", "alert", "rule", "class", "kind", "severity", "severity_zh",
    "severity_en", "severity_now", "district", "point", "name", "gateway", "lon", "lat", "value", "limit", "peak",
    "unit", "onset", "at", "summary_zh", "summary_en", "link", "members", "open", "reason",
)  # fmt: skip
"""What a template may name; empty text where a notification has no such thing."""
SAY_DRILL: Final = ("summary_zh", "summary_en", "mode")
"""Fields that say it where a notification is of a drill or a replay; each message holds one of them."""


def fields_of(body: Body) -> dict[str, str]:
    """FIELDS of a notification, as text."""
    data = body["data"]
    group, place, point = data.get("group") or {}, data.get("place") or {}, data.get("point") or {}
    severity = int(data.get("severity") or 0)
    found: dict[str, Any] = {
        "type": body["type"],
        "timestamp": body["timestamp"],
        "severity_zh": COLOURS_ZH[severity],
        "severity_en": COLOURS_EN[severity],
        "district": place.get("district"),
        "lon": place.get("lon"),
        "lat": place.get("lat"),
        "point": point.get("id"),
        "name": point.get("name"),
        "summary_zh": data["summary"]["zh"],
        "summary_en": data["summary"]["en"],
        "members": group.get("members"),
        "open": group.get("open"),
        "reason": group.get("reason"),
    }
    return {name: _text(found[name] if name in found else data.get(name)) for name in FIELDS}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def template(text: str) -> Render:
    """A renderer from an operator's template. Raises ValueError naming what is wrong with it."""
    try:
        parsed = json.loads(text)
    except ValueError as fault:
        raise ValueError(f"not JSON: {fault}") from None
    used: set[str] = set()
    for one in _texts(parsed):
        try:
            names = Template(one).get_identifiers()
            valid = Template(one).is_valid()
        except ValueError:
            names, valid = [], False
        if not valid:
            raise ValueError(f"a lone $ in {one!r}: write $$ for a dollar sign")
        if unknown := sorted(set(names) - set(FIELDS)):
            raise ValueError(f"no field named {', '.join(unknown)}; there are {', '.join(FIELDS)}")
        used |= set(names)
    if not used & set(SAY_DRILL):
        raise ValueError(f"a drill would look real: put {' or '.join(SAY_DRILL)} in it")
    return lambda body: orjson.dumps(_filled(parsed, fields_of(body)))


def _texts(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [text for one in inner for text in _texts(one)]


def _filled(part: Any, values: Mapping[str, str]) -> Any:
    if isinstance(part, str):
        return Template(part).substitute(values)
    if isinstance(part, dict):
        return {key: _filled(one, values) for key, one in part.items()}
    return [_filled(one, values) for one in part] if isinstance(part, list) else part


def tame(text: str) -> str:
    """Text without what robots read as markup, links or calls to people."""
    return text.translate(_TAME)[:ROBOT_CHARS_MAX]


def _lines(body: Body) -> list[str]:
    """A message for people: the summary, the worst of the group, who must answer, the link."""
    data = body["data"]
    lines = [tame(data["summary"]["zh"])]
    group = data.get("group") or {}
    lines += [f"· {tame(one['summary']['zh'])}" for one in group.get("top", [])[:5]]
    if data.get("link"):
        lines.append(str(data["link"]))
    return lines


def wecom(body: Body) -> bytes:
    """企业微信 robot: markdown, at most WECOM_BYTES_MAX bytes of text."""
    colour = _COLOUR[int(body["data"].get("severity_now") or 0)]
    first, *rest = _lines(body)
    text = "\n".join([f'<font color="{colour}">{first}</font>', *(f"> {line}" for line in rest)])
    while len(text.encode()) > WECOM_BYTES_MAX and rest:
        rest.pop(-2 if len(rest) > 1 else -1)
        text = "\n".join([f'<font color="{colour}">{first}</font>', *(f"> {line}" for line in rest)])
    return orjson.dumps({"msgtype": "markdown", "markdown": {"content": text}})


def dingtalk(body: Body) -> bytes:
    """钉钉 robot: markdown. Its signature goes into the URL, see anomaly.alerts.signature."""
    first, *rest = _lines(body)
    text = "\n\n".join([f"**{first}**", *rest])
    markdown = {"title": first[:60], "text": text}
    return orjson.dumps({"msgtype": "markdown", "markdown": markdown, "at": {"isAtAll": False}})


def feishu(body: Body) -> bytes:
    """飞书 robot: text. Its signature is put into the body when it is sent, see anomaly.alerts.signature."""
    return orjson.dumps({"msg_type": "text", "content": {"text": "\n".join(_lines(body))}})


def alertmanager(body: Body) -> bytes:
    """The webhook body of Prometheus Alertmanager, version 4: one alert for each member listed.

    Tests and heartbeats are alerts named after their type, resolved from the start.
    """
    data = body["data"]
    group = data.get("group") or {}
    members = group.get("top") or [_alone(body)]
    alerts = [_am_alert(one, body) for one in members]
    firing = any(one["status"] == "firing" for one in alerts) and body["type"] != "alert.resolved"
    name = str(data.get("rule") or body["type"])
    labels = {"alertname": name, "kind": str(data.get("kind") or "")}
    common = {**labels, "mode": data["mode"], "severity": COLOURS_EN[int(data.get("severity") or 0)].lower()}
    sent = {
        "version": "4",
        "groupKey": f"{{}}:{{id={json.dumps(data['id'])}}}",
        "truncatedAlerts": max(int(group.get("members") or len(alerts)) - len(alerts), 0),
        "status": "firing" if firing else "resolved",
        "receiver": "yuzui",
        "groupLabels": labels,
        "commonLabels": common,
        "commonAnnotations": {"summary": data["summary"]["zh"], "summary_en": data["summary"]["en"]},
        "externalURL": str(data.get("link") or ""),
        "alerts": alerts,
    }
    return orjson.dumps(sent)


def _alone(body: Body) -> dict[str, Any]:
    data = body["data"]
    point = data.get("point") or {}
    return {
        "id": data.get("alert") or data["id"],
        "open": body["type"] in ("alert.firing", "alert.updated"),
        "severity": data.get("severity") or 0,
        "rule": data.get("rule") or body["type"],
        "kind": data.get("kind"),
        "point": point.get("id"),
        "gateway": data.get("gateway"),
        "district": (data.get("place") or {}).get("district"),
        "onset": data.get("onset") or body["timestamp"],
        "at": data.get("at") or body["timestamp"],
        "summary": data["summary"],
    }


def _am_alert(one: Mapping[str, Any], body: Body) -> dict[str, Any]:
    data = body["data"]
    named = (("point", "point"), ("gateway", "gateway"), ("district", "district"), ("kind", "kind"))
    labels = {"alertname": one["rule"], "severity": COLOURS_EN[one["severity"]].lower(), "mode": data["mode"]}
    labels |= {label: str(one[key]) for label, key in named if one.get(key)}
    open_now = one["open"] and body["type"] != "alert.resolved"
    return {
        "status": "firing" if open_now else "resolved",
        "labels": labels,
        "annotations": {"summary": one["summary"]["zh"], "summary_en": one["summary"]["en"]},
        "startsAt": one["onset"],
        "endsAt": NEVER if open_now else one["at"],
        "generatorURL": str(data.get("link") or ""),
        "fingerprint": one["id"],
    }


def renderer(name: str, template_text: str | None, sender: str) -> Render | None:
    """What makes a target's body out of ours; None where it takes ours. Raises ValueError for a bad template."""
    if name == "v1":
        return None
    if name == "template":
        return template(template_text or "")
    if name == "cap":
        return lambda body: cap(body, sender)
    return {"wecom": wecom, "dingtalk": dingtalk, "feishu": feishu, "alertmanager": alertmanager}[name]


CONTENT_TYPES: Final = {"cap": "application/cap+xml"}
"""By format; all others are application/json."""
