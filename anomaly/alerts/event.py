"""AlertEvent: one step of an alert, with all that a notification and the lake's log need of it.

Owns these shapes and the identity of alerts. Knows nothing of how a step came about (anomaly.episodes), of
wording (anomaly.alerts.body) or of where it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from hashlib import blake2b
from math import nan
from typing import Any, Final

import orjson

FIRING: Final = "alert.firing"
UPDATED: Final = "alert.updated"
RESOLVED: Final = "alert.resolved"
LEVELS: Final = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """What the registry knows of the point, or the gateway, an alert is about. Empty text where nothing.

    number  of the point, -1 for a gateway
    levels  the four warning levels, NaN where there is none
    """

    number: int
    point_id: str
    gateway_id: str
    name: str
    kind: str
    title_zh: str
    title_en: str
    district: str
    lon: float
    lat: float
    unit: str
    levels: tuple[float, ...] = (nan,) * LEVELS


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """One step in the course of one alert. Times are µs since 1970 UTC; NaN is no number.

    revision      1, 2, 3 … of this id
    severity      worst of the course so far, 1-4
    severity_now  of the level it stands in, 0 once it is over
    value         what was read, or the number its rule judged, when it happened; of an outage, how many points are dead
    limit         the level or limit it stands in (the worst it stood in, once it is over)
    notify        False: recorded, but pages nobody
    history       (at, severity then, value) of the course, bounded
    members       point_ids that take part in a condition across points, worst first, bounded; none otherwise
    words_zh, words_en   why such a condition stands, without its subject's name; empty otherwise
    rise, rise_s  how much the value changed over the last ``rise_s`` seconds; NaN where nobody said
    eta_s         seconds until ``eta_limit`` is reached; NaN where it is not in sight
    pos           journal seq << 24 | row of what caused it, row 0 of a TICK; 0 where it is not from the journal
    """

    id: str
    revision: int
    type: str
    rule: str
    alert_class: str
    severity: int
    severity_now: int
    subject: Subject
    onset: int
    at: int
    recorded_at: int
    value: float
    limit: float
    peak: float
    notify: bool
    replay: bool
    drill: bool
    history: tuple[tuple[int, int, float], ...]
    members: tuple[str, ...] = ()
    words_zh: str = ""
    words_en: str = ""
    rise: float = nan
    rise_s: float = nan
    eta_s: float = nan
    eta_limit: float = nan
    pos: int = 0


def alert_id(rule: str, subject: str, onset: int) -> str:
    """The identity of an alert, 16 hex digits: the same after a restart and after any replay.

    ``subject`` is a point_id, a gateway_id or the text of a tick rule's subject, ``onset`` µs since 1970 UTC.
    """
    return blake2b(f"{rule}\n{subject}\n{onset}".encode(), digest_size=8).hexdigest()


def packed(event: AlertEvent) -> bytes:
    """An event as JSON, to be kept; NaN becomes null."""
    return orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)


def unpacked(kept: bytes) -> AlertEvent:
    """What ``packed`` kept, also by a version that knew fewer fields: those have their defaults."""
    row: dict[str, Any] = orjson.loads(kept)
    subject = {**row["subject"], "levels": tuple(_or_nan(level) for level in row["subject"]["levels"])}
    row["subject"] = Subject(**{**subject, "lon": _or_nan(subject["lon"]), "lat": _or_nan(subject["lat"])})
    row["history"] = tuple((at, severity, _or_nan(value)) for at, severity, value in row["history"])
    row["members"] = tuple(row.get("members", ()))
    numbers = {name: _or_nan(row[name]) for name in _NUMBERS if name in row}
    return AlertEvent(**{**row, **numbers})


def _or_nan(value: float | None) -> float:
    return nan if value is None else value


_NUMBERS: Final = tuple(field.name for field in fields(AlertEvent) if field.type == "float")
