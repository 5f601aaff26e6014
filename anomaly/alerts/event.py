"""AlertEvent: one step of an alert, with all that a notification and the lake's log need of it.

Owns these shapes and the identity of alerts. Knows nothing of how a step came about (anomaly.episodes), of
wording (anomaly.alerts.body) or of where it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np

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
    levels: tuple[float, ...] = (np.nan,) * LEVELS


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """One step in the course of one alert. Times are µs since 1970 UTC; NaN is no number.

    revision      1, 2, 3 … of this id
    severity      worst of the course so far, 1-4
    severity_now  of the level it stands in, 0 once it is over
    value         what was read when it happened; of an outage, how many points are dead
    limit         the level it stands in (the worst it stood in, once it is over)
    notify        False: recorded, but pages nobody
    history       (at, severity then, value) of the course, bounded
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


def alert_id(rule: str, subject: str, onset: int) -> str:
    """The identity of an alert, 16 hex digits: the same after a restart and after any replay.

    ``subject`` is a point_id or gateway_id, ``onset`` µs since 1970 UTC.
    """
    return blake2b(f"{rule}\n{subject}\n{onset}".encode(), digest_size=8).hexdigest()
