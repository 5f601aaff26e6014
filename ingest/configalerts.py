"""What must agree between the config's tables about alerts: targets, routes, inhibitions.

Owns these rules. Connects to nothing; it reads templates, because a bad one is to be found before a flood.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from anomaly.settings import (
    TOPIC_PLACES,
    FileTargetSettings,
    InhibitSettings,
    MqttTargetSettings,
    RouteSettings,
    TargetSettings,
    WebhookSettings,
)
from ingest.configfaults import Loc
from ingest.configtables import Found, array, existing, unique

TARGETS: dict[str, type[TargetSettings]] = {
    "webhook": WebhookSettings,
    "mqtt_target": MqttTargetSettings,
    "file_target": FileTargetSettings,
}
ROBOTS = ("wecom", "dingtalk", "feishu")
_BRACES = re.compile(r"\{([^{}]*)\}")


def alert_faults(tables: dict[str, Any], broken: set[Loc]) -> Found:
    """Every (place, reason) that a rule objects to."""
    names: dict[str, str] = {}
    for name, model in TARGETS.items():
        yield from unique(tables.get(name), name, "name")
        for loc, target in array(model, tables.get(name), name, broken):
            yield from _target(loc, target)
            if names.setdefault(target.name, name) != name:
                yield (*loc, "name"), f"the same name as one of $.{names[target.name]}"
    yield from unique(tables.get("route"), "route", "name")
    for loc, route in array(RouteSettings, tables.get("route"), "route", broken):
        yield from _route(loc, route, set(names))
    for loc, inhibit in array(InhibitSettings, tables.get("inhibit"), "inhibit", broken):
        if both := sorted(set(inhibit.by) & set(inhibit.rules)):
            yield (*loc, "rules"), f"{', '.join(both)} would inhibit itself"


def _target(loc: Loc, target: TargetSettings) -> Found:
    if (target.format == "template") != (target.template_file is not None):
        yield (*loc, "template_file"), 'format "template" and template_file belong together'
    elif target.template_file is not None:
        yield from _template((*loc, "template_file"), target.template_file)
    if target.format in ROBOTS and not isinstance(target, WebhookSettings):
        yield (*loc, "format"), f"{target.format} is a robot of webhooks"
    if isinstance(target, WebhookSettings):
        yield from _webhook(loc, target)
    if isinstance(target, MqttTargetSettings):
        yield from _mqtt(loc, target)


def _template(loc: Loc, file: str) -> Found:
    # Here, because most commands need no formats and all need the config.
    from anomaly.alerts.formats import template

    try:
        template(Path(file).read_text("utf-8"))
    except OSError:
        yield loc, f'no such file: "{file}"'
    except ValueError as fault:
        yield loc, str(fault)


def _route(loc: Loc, route: RouteSettings, names: set[str]) -> Found:
    if route.severity_min > route.severity_max:
        yield (*loc, "severity_min"), f"{route.severity_min} is above severity_max {route.severity_max}"
    for key in ("targets", "escalate_to"):
        for index, name in enumerate(getattr(route, key)):
            if name not in names:
                yield (*loc, key, index), f'no target named "{name}"'
    if route.escalate_to and not route.answer_s:
        yield (*loc, "escalate_to"), "nobody is called next without answer_s"
    if len(route.answer_by) > len(route.escalate_to) + 1:
        yield (*loc, "answer_by"), "more names than steps: one for targets and one for each of escalate_to"


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        return url if url.hostname and url.port != 0 else None
    except ValueError:
        return None


def _webhook(loc: Loc, webhook: WebhookSettings) -> Found:
    url = _split(webhook.url)
    if url is None or url.scheme not in ("http", "https"):
        yield (*loc, "url"), "expected http://… or https://…"
    elif url.hostname and (reason := refused_address(url.hostname, webhook.allow_link_local)):
        yield (*loc, "url"), reason
    if webhook.secret is not None and webhook.secret_file is not None:
        yield (*loc, "secret_file"), "give secret or secret_file, one of them"
    if webhook.secret is not None and not _is_secret(webhook.secret):
        yield (*loc, "secret"), "expected text, or whsec_ followed by base64"
    if webhook.format == "wecom" and (webhook.secret or webhook.secret_file):
        yield (*loc, "secret"), "the robot of 企业微信 knows no signature: its key stands in the URL"
    yield from existing(loc, webhook, ("secret_file",))
    yield from _tls(loc, webhook, url is not None and url.scheme == "https", "https://")


def _mqtt(loc: Loc, target: MqttTargetSettings) -> Found:
    url = _split(target.url)
    if url is None or url.scheme not in ("mqtt", "mqtts"):
        yield (*loc, "url"), "expected mqtt://host:port or mqtts://host:port"
    elif url.username is not None or url.password is not None:
        yield (*loc, "url"), "say user and password in their own keys, not in the URL"
    elif url.hostname and (reason := refused_address(url.hostname, False)):
        yield (*loc, "url"), reason
    places = _BRACES.findall(target.topic)
    if set(target.topic) & set("+#\0") or set(places) - set(TOPIC_PLACES):
        yield (
            (*loc, "topic"),
            f"expected a topic without wildcards, with at most {', '.join(TOPIC_PLACES)} in braces",
        )
    if target.retain and "id" not in places:
        yield (*loc, "topic"), "retained, every alert needs a topic of its own: put {id} in it"
    if target.password is not None and target.password_file is not None:
        yield (*loc, "password_file"), "give password or password_file, one of them"
    if target.user is None and (target.password is not None or target.password_file is not None):
        yield (*loc, "user"), "a password without a user"
    yield from existing(loc, target, ("password_file",))
    yield from _tls(loc, target, url is not None and url.scheme == "mqtts", "mqtts://")


def _tls(loc: Loc, target: WebhookSettings | MqttTargetSettings, has_tls: bool, expected: str) -> Found:
    files = ("tls_ca_file", "tls_cert_file", "tls_key_file")
    yield from existing(loc, target, files)
    if not has_tls and any(getattr(target, key) for key in files):
        yield (*loc, "url"), f"TLS files are given, but the address is plain: expected {expected}"
    if (target.tls_cert_file is None) != (target.tls_key_file is None):
        yield (*loc, "tls_key_file"), "tls_cert_file and tls_key_file belong together"


def refused_address(host: str, allow_link_local: bool) -> str | None:
    """Why an address written in the config is never called; names are resolved only when calling."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    inner = getattr(address, "ipv4_mapped", None) or address
    if inner.is_multicast or inner.is_unspecified:
        return "multicast and unspecified addresses are never called"
    if inner.is_link_local and not allow_link_local:
        return "a link-local address: set allow_link_local = true if it is meant"
    return None


def _is_secret(secret: str) -> bool:
    if not secret.startswith("whsec_"):
        return bool(secret)
    try:
        return len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) > 0
    except (binascii.Error, ValueError):
        return False
