"""CAP 1.2 (OASIS Common Alerting Protocol): our notification as one of its messages.

Owns the mapping to its words and the order of its elements (CAP-v1.2.xsd is a sequence). Pure: body v1 as JSON in, XML
out. Rain and levels are what was measured: certainty is Observed, and no text issues a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from xml.etree import ElementTree as ET

NAMESPACE: Final = "urn:oasis:names:tc:emergency:cap:1.2"
SEVERITIES: Final = ("Unknown", "Minor", "Moderate", "Severe", "Extreme")
URGENCIES: Final = ("Past", "Expected", "Expected", "Immediate", "Immediate")
STATUS: Final = {"live": "Actual", "drill": "Exercise", "replay": "Exercise"}
MESSAGE: Final = {"alert.firing": "Alert", "alert.updated": "Update", "alert.resolved": "Cancel"}
CATEGORIES: Final = {
    "rain": "Met",
    "river": "Geo",
    "waterlogging": "Geo",
    "pm25": "Env",
    "pm10": "Env",
    "water": "Env",
    "noise": "Env",
}
"""By the begin of a kind's name; faults and all others are Infra."""
_FORBIDDEN: Final = re.compile(r"[\s,<&]+")
_UNPRINTABLE: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def cap(body: Mapping[str, Any], sender: str) -> bytes:
    """One CAP 1.2 message in UTF-8. Heartbeats and tests have status Test."""
    data = body["data"]
    group = data.get("group") or {}
    root = ET.Element("alert", xmlns=NAMESPACE)
    _add(root, "identifier", _identifier(data["id"], data.get("revision")))
    _add(root, "sender", _token(sender))
    _add(root, "sent", _moment(body["timestamp"]))
    _add(root, "status", STATUS[data["mode"]] if body["type"] in MESSAGE else "Test")
    before = group.get("before")
    kind = MESSAGE.get(body["type"], "Alert")
    # An Update or Cancel must say of what; the first word of a group is an Alert, whatever became of it.
    kind = kind if before or kind == "Alert" else "Alert"
    _add(root, "msgType", kind)
    _add(root, "scope", "Private")
    _add(root, "addresses", "operators")
    if data["mode"] != "live":
        _add(root, "note", data["summary"]["zh"])
    if before and kind != "Alert":
        earlier = (_token(sender), _identifier(data["id"], before["revision"]), _moment(before["timestamp"]))
        _add(root, "references", ",".join(earlier))
    if body["type"] in MESSAGE:
        _add(root, "incidents", _token(data["id"]))
        for language, words in (("zh-CN", data["summary"]["zh"]), ("en-US", data["summary"]["en"])):
            _info(root, body, language, words)
    ET.indent(root)
    xml: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def _info(root: ET.Element, body: Mapping[str, Any], language: str, words: str) -> None:
    data = body["data"]
    info = ET.SubElement(root, "info")
    _add(info, "language", language)
    _add(info, "category", _category(data))
    _add(info, "event", str(data.get("kind") or data["rule"]))
    over = body["type"] == "alert.resolved"
    _add(info, "responseType", "AllClear" if over else "Assess")
    _add(info, "urgency", URGENCIES[0 if over else data["severity_now"]])
    _add(info, "severity", SEVERITIES[data["severity"]])
    _add(info, "certainty", "Observed")
    _add(info, "onset", _moment(data["onset"]))
    _add(info, "headline", words[:160])
    _add(info, "description", words)
    if data.get("link"):
        _add(info, "web", data["link"])
    for name in ("rule", "value", "limit", "peak", "unit", "alert"):
        if data.get(name) is not None:
            parameter = ET.SubElement(info, "parameter")
            _add(parameter, "valueName", name)
            _add(parameter, "value", str(data[name]))
    area = ET.SubElement(info, "area")
    _add(area, "areaDesc", (data.get("place") or {}).get("district") or "unknown")
    circle = _circle(data)
    if circle:
        _add(area, "circle", circle)


def _circle(data: Mapping[str, Any]) -> str:
    """ "lat,lon radius" in degrees and km; "" where no place is known."""
    area = (data.get("group") or {}).get("area")
    place = data.get("place") or {}
    if area:
        return f"{area['lat']:g},{area['lon']:g} {area['radius_km']:g}"
    if place.get("lat") is None or place.get("lon") is None:
        return ""
    return f"{place['lat']:g},{place['lon']:g} 0"


def _category(data: Mapping[str, Any]) -> str:
    if data["class"] == "fault":
        return "Infra"
    kind = str(data.get("kind") or "")
    return next((category for begin, category in CATEGORIES.items() if kind.startswith(begin)), "Safety")


def _identifier(alert: str, revision: int | None) -> str:
    return _token(f"{alert}.{revision}" if revision else alert)


def _moment(text: str) -> str:
    """CAP has no fraction of a second and no Z: UTC is -00:00."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%dT%H:%M:%S-00:00")


def _token(text: str) -> str:
    """CAP: identifiers and senders hold no spaces, commas, < or &."""
    return _FORBIDDEN.sub("_", text) or "_"


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
