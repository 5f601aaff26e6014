"""Alert events of a night: storms, stuck sensors and outages over a city, as the engine would give them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from anomaly.alerts.event import FIRING, RESOLVED, UPDATED, AlertEvent, Subject, alert_id
from tests.anomaly_city import T0, S

LEVELS = (15.0, 25.0, 30.0, 40.0)


def told_event(
    point: str,
    severity: int,
    at: int,
    *,
    lon: float = 104.0,
    lat: float = 30.7,
    onset: int | None = None,
    revision: int = 1,
    over: bool = False,
    rule: str = "level",
    kind: str = "waterlogging",
    district: str = "金牛区",
    gateway: str = "G1",
    **values: Any,
) -> AlertEvent:
    """One event of a point (of a gateway where ``rule`` is outage); ``at`` in s after T0."""
    began = T0 + (at if onset is None else onset) * S
    outage = rule == "outage"
    subject = Subject(
        -1 if outage else 1, "" if outage else point, gateway, gateway if outage else f"{point} 号下穿隧道",
        "" if outage else kind, "积水", "water", district, lon, lat, "cm", LEVELS,
    )  # fmt: skip
    now = T0 + at * S
    fields: dict[str, Any] = {
        "id": alert_id(rule, subject.point_id or gateway, began),
        "revision": revision,
        "type": RESOLVED if over else FIRING if revision == 1 else UPDATED,
        "rule": rule,
        "alert_class": "fault" if rule in ("dead", "stuck", "outage") else "event",
        "severity": severity,
        "severity_now": 0 if over else severity,
        "subject": subject,
        "onset": began,
        "at": now,
        "recorded_at": now,
        "value": 0.0 if over else LEVELS[severity - 1] + 1,
        "limit": LEVELS[severity - 1],
        "peak": LEVELS[severity - 1] + 1,
        "notify": True,
        "replay": False,
        "drill": False,
        "history": ((began, severity, LEVELS[severity - 1] + 1),),
    }
    return AlertEvent(**{**fields, **values})


def course(
    point: str, severities: Iterable[int], at: int, every_s: int = 120, **values: Any
) -> list[AlertEvent]:
    """One point's alert that steps through ``severities`` and is over at the end."""
    found, revision, worst = [], 0, 0
    for revision, severity in enumerate(severities, 1):
        worst = max(worst, severity)
        when = at + (revision - 1) * every_s
        found.append(told_event(point, severity, when, onset=at, revision=revision, **values))
    end = at + revision * every_s
    return [*found, told_event(point, worst, end, onset=at, revision=revision + 1, over=True, **values)]


def night(seed: int, storms: int, per_storm: int, stuck: int, outages: int) -> list[AlertEvent]:
    """Events in the order of time. Storms are 20 km apart and a kilometre wide; stuck sensors lie all over the city."""
    rng = random.Random(seed)
    found: list[AlertEvent] = []
    for storm in range(storms):
        lon, lat = 103.5 + storm % 5 * 0.21, 30.3 + storm // 5 * 0.19
        for number in range(per_storm):
            place = {"lon": lon + rng.uniform(-0.005, 0.005), "lat": lat + rng.uniform(-0.005, 0.005)}
            point, begin = f"w{storm}-{number}", rng.randrange(1500)
            found += course(
                point, (1, 2, 3, 4), begin, district=f"D{storm % 22}", gateway=f"g{number % 97}", **place
            )
    for number in range(stuck):
        place = {"lon": 103.5 + rng.random(), "lat": 30.3 + rng.random()}
        found.append(
            told_event(
                f"s{number}", 1, rng.randrange(600), rule="stuck", kind=f"k{number % 20}",
                district=f"D{rng.randrange(22)}", gateway=f"g{number % 97}", **place,
            )
        )  # fmt: skip
    found += [
        told_event("", 2, 30 + n, rule="outage", gateway=f"out{n}", district=f"D{n}") for n in range(outages)
    ]
    return sorted(found, key=lambda one: (one.at, one.id, one.revision))
