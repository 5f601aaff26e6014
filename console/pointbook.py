"""Pointbook: everything about one point that the engine knows in memory, and finding points by what people type.

Owns the JSON of a point (console/FORMAT.md). Reads the newest picture and, for what a point usually shows, the engine's
own arrays: those may be a moment newer. Opens no file.
"""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anomaly.checks import surprise
from anomaly.checks.rows import NO_TIME
from anomaly.episodes import Episode
from anomaly.rulebook import rulebook
from anomaly.settings import KindSettings
from console.board import Groups
from console.display import City, Display
from console.shown import OFFLINE, SEVERITY, Shown
from storage.batch import US_PER_S
from storage.flags import FLAG_NAMES
from storage.texts import Texts

NEIGHBOURS: Final = 8
NEIGHBOUR_KM_MAX: Final = 10.0
KM_PER_DEGREE: Final = 111.32
FOUND_MAX: Final = 200
WORDS_MAX: Final = 8
QUERY_MAX: Final = 100
NO_KIND: Final = KindSettings.model_validate({})


class PointBook:
    """The points of one display."""

    def __init__(self, display: Display, city: City) -> None:
        self.display = display
        self._city = city
        points = display.points
        number = display.number
        districts = pa.array(points.districts, pa.large_string()).take(pa.array(points.district[number]))
        texts = (Texts.of(column).arrow().take(pa.array(number)) for column in (points.point_id, points.name))
        between = pa.scalar("\n", pa.large_string())
        self._text = pc.utf8_lower(pc.binary_join_element_wise(*texts, districts, between))
        self._lon, self._lat = points.lon[number], points.lat[number]
        self._zone = ZoneInfo(city.time_zone)

    def describe(self, index: int, shown: Shown, groups: Groups) -> dict[str, Any]:
        """``GET /api/point/…`` of a display index."""
        display, picture = self.display, shown.picture
        points, number = display.points, int(display.number[index])
        kind = points.kinds[points.kind[number]]
        titles = self._city.kinds.get(kind, NO_KIND)
        at, received = int(picture.time[number]), int(picture.engine.state["last_received"][number])
        spoke = at != NO_TIME
        device_flag = int(picture.engine.state["last_flag"][number])
        return {
            "index": index, "id": points.point_id[number], "name": points.name[number],
            "kind": kind, "kind_zh": titles.title_zh or kind, "kind_en": titles.title_en or kind,
            "district": points.districts[points.district[number]], "source": points.sources[points.source[number]],
            "gateway": points.gateways[points.gateway[number]], "device": points.device_id[number],
            "lon": _number(points.lon[number]), "lat": _number(points.lat[number]), "unit": points.unit[number],
            "pos": picture.seq, "value": _number(picture.value[number]),
            "time": at / US_PER_S if spoke else None,
            "received_at": received / US_PER_S if received != NO_TIME else None,
            "age_s": round(max(0.0, _now(picture.now_us, picture.engine.clock) - at / US_PER_S), 3) if spoke else None,
            "interval_s": _number(points.interval_s[number]),
            "flag": FLAG_NAMES.get(int(picture.flag[number]), ""), "device_flag": FLAG_NAMES.get(device_flag, ""),
            **self._state(index, shown),
            "range": [_number(points.range_min[number]), _number(points.range_max[number])],
            "levels": [_number(one) for one in points.level[:, number]], "falling": bool(points.falling[number]),
            **self._usual(number, shown), "alerts": self._alerts(number, shown),
            "neighbours": self._neighbours(index, shown),
        }  # fmt: skip

    def find(self, asked: str, limit: int, shown: Shown | None) -> dict[str, Any]:
        """``GET /api/search``: id, name or district contain every word. Takes some ms; call it in a thread."""
        words = asked[:QUERY_MAX].lower().split()[:WORDS_MAX]
        if not words:
            return {"found": [], "more": False}
        hit = np.ones(len(self._text), np.bool_)
        for word in words:
            hit &= pc.match_substring(self._text, word).to_numpy(zero_copy_only=False)
        index = np.flatnonzero(hit)
        limit = max(1, min(limit, FOUND_MAX))
        return {"found": [self._brief(i, shown) for i in index[:limit].tolist()], "more": len(index) > limit}

    def _brief(self, index: int, shown: Shown | None) -> dict[str, Any]:
        display, number = self.display, int(self.display.number[index])
        points = display.points
        return {
            "index": index, "id": points.point_id[number], "name": points.name[number],
            "kind": points.kinds[points.kind[number]], "district": points.districts[points.district[number]],
            "state": int(shown.state[index]) if shown is not None else None,
        }  # fmt: skip

    def _state(self, index: int, shown: Shown) -> dict[str, Any]:
        state = int(shown.state[index])
        return {"state": state, "severity": state & SEVERITY, "offline": bool(state & OFFLINE)}

    def _usual(self, number: int, shown: Shown) -> dict[str, Any]:
        state = shown.picture.engine.state
        mine = state["score"][:, number]
        known = mine[surprise.N] >= surprise.WARM_READINGS
        hour = datetime.fromtimestamp(shown.picture.now_us / US_PER_S, self._zone).hour
        seen = state["score_hour_seen"][hour, number] >= surprise.HOUR_SEEN_MIN
        return {
            "typical": [_number(mine[surprise.LOW]), _number(mine[surprise.HIGH])] if known else None,
            "typical_hour": _number(state["score_hour"][hour, number]) if known and seen else None,
        }

    def _alerts(self, number: int, shown: Shown) -> list[dict[str, Any]]:
        book, name = rulebook(), self.display.points.point_id[number]
        open_now = shown.picture.engine.episodes.open
        found = []
        for rule in book:
            episode: Episode | None = open_now.get((rule, number)) or open_now.get((rule, name))
            if episode is not None and episode.level and rule != "outage":
                severity = book[rule].severity[episode.level]
                about = {"rule": rule, "class": book[rule].alert_class, "severity": severity}
                found.append({**about, "onset": episode.onset / US_PER_S})
        return found

    def _neighbours(self, index: int, shown: Shown) -> list[dict[str, Any]]:
        display, picture = self.display, shown.picture
        lon, lat = self._lon[index], self._lat[index]
        if not (math.isfinite(lon) and math.isfinite(lat)):
            return []
        same = np.flatnonzero(display.kind == display.kind[index])
        east = (self._lon[same] - lon) * math.cos(math.radians(lat)) * KM_PER_DEGREE
        north = (self._lat[same] - lat) * KM_PER_DEGREE
        km = np.hypot(east, north)
        km[np.isnan(km) | (same == index)] = np.inf
        nearest = np.argsort(km, kind="stable")[:NEIGHBOURS] if len(km) <= 64 else _least(km)
        found = []
        for at in nearest[km[nearest] <= NEIGHBOUR_KM_MAX].tolist():
            other = int(same[at])
            number = int(display.number[other])
            when = int(picture.time[number])
            found.append(
                {
                    **self._brief(other, shown),
                    **self._state(other, shown),
                    "km": round(float(km[at]), 3),
                    "value": _number(picture.value[number]),
                    "unit": display.points.unit[number],
                    "time": when / US_PER_S if when != NO_TIME else None,
                }
            )
        return found


def _least(km: np.ndarray) -> np.ndarray:
    some = np.argpartition(km, NEIGHBOURS)[:NEIGHBOURS]
    return some[np.argsort(km[some], kind="stable")]


def _now(now_us: int, clock: str) -> float:
    return now_us / US_PER_S if clock == "events" else time.time()


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
