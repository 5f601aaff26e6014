"""What must agree between keys of the config, each rule a function that yields what breaks it.

Owns these rules. Reads no config file and connects to nothing; it only looks whether named files exist.
Rules see every table that is whole, also when another part of the config is refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from itertools import pairwise
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from anomaly.settings import KindSettings
from ingest.config import (
    ConsoleSettings,
    ListenerSettings,
    OpsSettings,
    SourceSettings,
    SqlSettings,
    SubscriberSettings,
)
from ingest.configalerts import alert_faults
from ingest.configfaults import Loc
from ingest.configtables import Found, array, existing, unique, whole_table
from ingest.tcp.settings import TcpSettings
from storage.settings import RetentionSettings

FILTER_BYTES_MAX = 65_535
"""MQTT's own limit of a topic."""
SHARE = "$share/"
SECONDS_A_DAY = 86_400
ANY_HOST = frozenset({"0.0.0.0", "::"})
"""Listening there takes the port at every address."""
LEVELS = ("level_blue", "level_yellow", "level_orange", "level_red")


def rule_faults(tables: dict[str, Any], broken: set[Loc]) -> Found:
    """Every (place, reason) that a rule objects to.

    tables  the merged config as read; paths are absolute already
    broken  places that a fault was found at: they are taken as not said
    """
    from ingest.sourcerules import source_faults, sources_faults  # with codecs, and so Arrow: not for --help

    listener = whole_table(ListenerSettings, tables.get("listener", {}), ("listener",), broken)
    ops = whole_table(OpsSettings, tables.get("ops", {}), ("ops",), broken)
    subscribers = list(array(SubscriberSettings, tables.get("subscriber"), "subscriber", broken))
    sources = list(array(SourceSettings, tables.get("source"), "source", broken))
    for name in ("subscriber", "source"):
        yield from unique(tables.get(name), name, "name")
    if listener is not None:
        yield from _listener(listener)
    sql = whole_table(SqlSettings, tables.get("sql", {}), ("sql",), broken)
    if sql is not None:
        yield from existing(("sql",), sql, ("token_file",))
        yield from _server_tls(("sql",), sql)
        if not is_loopback(sql.host) and sql.token_file is None and sql.tls_client_ca_file is None:
            yield ("sql", "host"), "beyond loopback anyone could ask: give token_file, or tls_client_ca_file"
    if ops is not None:
        yield from _server_tls(("ops",), ops)
    console = whole_table(ConsoleSettings, tables.get("console", {}), ("console",), broken)
    if console is not None:
        yield from _console(console)
    yield from _ports({"listener": listener, "ops": ops, "sql": sql, "console": console})
    for loc, subscriber in subscribers:
        yield from _subscriber(loc, subscriber)
    for source_loc, source in sources:
        yield from _source(source_loc, source)
        yield from _server_tls((*source_loc, "tcp"), source.tcp)
        yield from source_faults(source_loc, source)
        if source.credential is not None and listener is not None and listener.enabled and listener.anonymous:
            yield (*source_loc, "credential"), "the listener takes anyone: set $.listener.anonymous = false"
    yield from sources_faults(sources)
    yield from alert_faults(tables, broken)
    retention = whole_table(RetentionSettings, tables.get("retention", {}), ("retention",), broken)
    if retention is not None:
        yield from _retention(retention, [source for _, source in sources])
    kinds = tables.get("kinds")
    for name, raw in kinds.items() if isinstance(kinds, dict) else ():
        kind = whole_table(KindSettings, raw, ("kinds", name), broken)
        if kind is not None:
            yield from _kind(("kinds", name), kind)


def is_loopback(host: str) -> bool:
    """Whether listening at ``host`` is heard on this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _listener(listener: ListenerSettings) -> Found:
    loc: Loc = ("listener",)
    # Not credentials_file: `yuzui credential add` makes it, and needs a config that can be read.
    yield from _server_tls(loc, listener)
    if not listener.enabled:
        return
    if listener.anonymous and not is_loopback(listener.host):
        yield (*loc, "anonymous"), "beyond loopback anyone could publish: set anonymous = false"
    if not (listener.anonymous or listener.credentials_file or listener.tls_client_ca_file):
        yield (*loc, "anonymous"), "nobody could connect: give credentials_file or tls_client_ca_file"


def _console(console: ConsoleSettings) -> Found:
    loc: Loc = ("console",)
    # Not users_file: `yuzui console user add` makes it, and needs a config that can be read.
    yield from _server_tls(loc, console)
    if not console.enabled:
        return
    if console.users_file is None and not console.anonymous_view:
        yield (*loc, "users_file"), "nobody could log in: name a file, `yuzui console user add` fills it"
    if console.behind_proxy and console.anonymous_view:
        yield (*loc, "anonymous_view"), "whoever comes through the proxy could look: leave it false"
    if is_loopback(console.host):
        return
    if console.anonymous_view and not console.behind_proxy:
        yield (*loc, "anonymous_view"), "beyond loopback anyone could look: leave it false"
    if console.tls_cert_file is None and not console.behind_proxy:
        yield (
            (*loc, "host"),
            "beyond loopback passwords need TLS: give tls_cert_file, or behind_proxy and a proxy with TLS",
        )


def _ports(
    doors: Mapping[str, ListenerSettings | OpsSettings | SqlSettings | ConsoleSettings | None],
) -> Found:
    open_doors = [(name, door) for name, door in doors.items() if door is not None and door.enabled]
    for at, (name, door) in enumerate(open_doors):
        for other, before in open_doors[:at]:
            if door.port == before.port != 0 and (
                door.host == before.host or ANY_HOST & {door.host, before.host}
            ):
                yield (name, "port"), f"the same host and port as $.{other}"
                break


def _subscriber(loc: Loc, subscriber: SubscriberSettings) -> Found:
    yield from _broker_url(loc, subscriber)
    yield from _tls_pair(loc, subscriber.tls_cert_file, subscriber.tls_key_file)
    if bool(subscriber.filters) == bool(subscriber.slices):
        yield (*loc, "filters"), "give filters or slices, one of them"
    if subscriber.slices and subscriber.connections > 1:
        yield (*loc, "connections"), "slices say how many connections there are: leave it at 1"
    for index, one in enumerate(subscriber.filters):
        yield from _filter((*loc, "filters", index), one)
        if subscriber.connections > 1 and not one.startswith(SHARE):
            yield (*loc, "filters", index), f"shared by connections it must be {SHARE}group/…"
    for index, part in enumerate(subscriber.slices):
        if not part:
            yield (*loc, "slices", index), "expected at least 1 filter"
        for within, one in enumerate(part):
            yield from _filter((*loc, "slices", index, within), one)
    if subscriber.password is not None and subscriber.password_file is not None:
        yield (*loc, "password_file"), "give password or password_file, one of them"
    if subscriber.user is None and (subscriber.password is not None or subscriber.password_file is not None):
        yield (*loc, "user"), "a password without a user"
    if not subscriber.client_id:
        yield (*loc, "client_id"), "expected a name: the broker keeps the session under it"
    yield from existing(loc, subscriber, ("tls_ca_file", "tls_cert_file", "tls_key_file", "password_file"))


def _broker_url(loc: Loc, subscriber: SubscriberSettings) -> Found:
    here = (*loc, "url")
    try:
        url = urlsplit(subscriber.url)
        port = url.port
    except ValueError:
        yield here, "expected mqtt://host:port or mqtts://host:port"
        return
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname or port == 0:
        yield here, "expected mqtt://host:port or mqtts://host:port"
    if url.username is not None or url.password is not None:
        yield here, "say user and password in their own keys, not in the URL"
    if url.path not in ("", "/") or url.query or url.fragment:
        yield here, "expected nothing after the port"
    tls = (subscriber.tls_ca_file, subscriber.tls_cert_file, subscriber.tls_key_file)
    if url.scheme == "mqtt" and any(tls):
        yield here, "TLS files are given, but mqtt:// is plain: expected mqtts://"


def _filter(loc: Loc, text: str) -> Found:
    topic = text
    if text.startswith(SHARE):
        group, _, topic = text.removeprefix(SHARE).partition("/")
        if not group or set(group) & set("+#"):
            yield loc, f"expected {SHARE}group/filter"
            return
    levels = topic.split("/")
    wild = [level for level in levels if set(level) & set("+#")]
    if not topic or "\0" in topic or len(text.encode(errors="replace")) > FILTER_BYTES_MAX:
        yield loc, "not a topic filter: empty, too long, or with a NUL"
    elif any(level not in ("+", "#") for level in wild) or "#" in levels[:-1]:
        yield loc, "not a topic filter: + stands for one whole level, # for all that follow, at the end"


def _source(loc: Loc, source: SourceSettings) -> Found:
    template = source.gateway_topic
    if template is not None:
        here = (*loc, "gateway_topic")
        if template.count("{gateway}") != 1 or set(template.replace("{gateway}", "")) & set("+#{}\0"):
            yield here, 'expected a topic with one {gateway} and no wildcards, such as "city/{gateway}/batch"'
    if source.readings_field is not None:
        yield from _field_path((*loc, "readings_field"), source.readings_field)
    first: dict[str, str] = {}
    for key in ("id_field", "time_field", "value_field", "flag_field"):
        path: str = getattr(source, key)
        yield from _field_path((*loc, key), path)
        if path in first:
            yield (*loc, key), f"the same field as {first[path]}"
        first.setdefault(path, key)


def _field_path(loc: Loc, path: str) -> Found:
    if not all(path.split(".")):
        yield loc, 'expected field names with dots between them, such as "data.value"'


def _kind(loc: Loc, kind: KindSettings) -> Found:
    if kind.range_min is not None and kind.range_max is not None and kind.range_min > kind.range_max:
        yield (*loc, "range_min"), f"{kind.range_min:g} is above range_max {kind.range_max:g}"
    levels = [(name, value) for name in LEVELS if (value := getattr(kind, name)) is not None]
    steps = [b[1] - a[1] for a, b in pairwise(levels)]
    if steps and not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
        told = ", ".join(f"{name.removeprefix('level_')} {value:g}" for name, value in levels)
        yield (*loc, levels[0][0]), f"levels must rise or fall from blue to red: {told}"


def _server_tls(
    loc: Loc, table: ListenerSettings | OpsSettings | SqlSettings | ConsoleSettings | TcpSettings
) -> Found:
    """What must hold wherever we listen with TLS."""
    yield from _tls_pair(loc, table.tls_cert_file, table.tls_key_file)
    if table.tls_client_ca_file and not table.tls_cert_file:
        yield (*loc, "tls_client_ca_file"), "client certificates need tls_cert_file and tls_key_file"
    yield from existing(loc, table, ("tls_cert_file", "tls_key_file", "tls_client_ca_file"))


def _tls_pair(loc: Loc, cert: str | None, key: str | None) -> Found:
    if cert and not key:
        yield (*loc, "tls_key_file"), "tls_cert_file is given without its key"
    if key and not cert:
        yield (*loc, "tls_cert_file"), "tls_key_file is given without its certificate"


def _retention(retention: RetentionSettings, sources: list[SourceSettings]) -> Found:
    """Nothing late may meet an hour whose readings are gone: its rollups could not be made again."""
    age_s, name = max(((s.age_s_max, s.name) for s in sources), default=(0.0, ""))
    days_min = ceil(age_s / SECONDS_A_DAY) + 1
    kept: list[tuple[Loc, int | None]] = [(("retention", "raw_days"), retention.raw_days)]
    kept += [
        (("retention", "raw_days_by_kind", kind), days) for kind, days in retention.raw_days_by_kind.items()
    ]
    for loc, days in kept:
        if days is not None and days < days_min:
            yield (
                loc,
                f"{days} days is too short: source {name} takes readings of {age_s / SECONDS_A_DAY:g} days ago "
                f"(age_s_max); keep {days_min} or more",
            )
    for tier, finer in (("rollup_1m_days", "raw_days"), ("rollup_1h_days", "rollup_1m_days")):
        coarse_days, fine_days = getattr(retention, tier), getattr(retention, finer)
        if coarse_days is not None and (fine_days is None or coarse_days < fine_days):
            yield (
                ("retention", tier),
                f"shorter than {finer}: a coarser tier is kept at least as long as a finer one",
            )
