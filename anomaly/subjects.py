"""What the registry knows of whom an alert is about: a point, a gateway, an area.

Owns the making of Subjects. Knows nothing of episodes or wording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from anomaly import rules
from anomaly.alerts.event import Subject
from anomaly.limits import NO_SETTINGS
from anomaly.settings import KindSettings
from storage.points import PointTable
from storage.texts import Texts

OUTAGE_UNIT: Final = "points"


class Subjects:
    """Subjects of one registry; titles from the settings by kind, or the rule's own."""

    def __init__(self, points: PointTable, kinds: Mapping[str, KindSettings]) -> None:
        self._points = points
        self._kinds = kinds
        self._row_rules = {rule.name: rule for rule in rules.row_rules()}
        self._tick_rules = {rule.name: rule for rule in rules.tick_rules()}

    def of(self, rule: str, subject: int | str, members: Sequence[int] = ()) -> Subject:
        """``subject``: a point number; of "outage" a gateway number; of "device_outage" its name; of a tick rule
        its text."""
        if rule == "device_outage":
            return self._device(str(subject), members)
        if isinstance(subject, str):
            return self._named(rule, subject, members)
        if rule == "outage":
            return self._gateway(subject)
        return self._point(rule, subject)

    def ids(self, members: Sequence[int]) -> tuple[str, ...]:
        """The point_ids of point numbers."""
        return tuple(self._points.point_id[number] for number in members)

    def _point(self, rule: str, number: int) -> Subject:
        points = self._points
        kind = points.kinds[points.kind[number]]
        titles = self._kinds.get(kind, NO_SETTINGS)
        zh, en, unit = titles.title_zh or kind, titles.title_en or kind, points.unit[number]
        levels = tuple(points.level[:, number].tolist())
        own = self._row_rules.get(rule)
        if own is not None:
            zh, en, unit = own.title_zh or zh, own.title_en or en, own.unit or unit
            levels = (np.nan,) * len(levels)
        return Subject(
            number,
            points.point_id[number],
            points.gateways[points.gateway[number]],
            points.name[number],
            kind,
            zh,
            en,
            points.districts[points.district[number]],
            float(points.lon[number]),
            float(points.lat[number]),
            unit,
            levels,
        )

    def _gateway(self, number: int) -> Subject:
        points = self._points
        at = int(np.argmax(points.gateway == number))
        gateway, district = points.gateways[number], points.districts[points.district[at]]
        where = float(points.lon[at]), float(points.lat[at])
        return Subject(-1, "", gateway, gateway, "", "", "", district, *where, OUTAGE_UNIT)

    def _device(self, name: str, members: Sequence[int]) -> Subject:
        """A device lies where its silent points lie; without any (it is over) the first point of its name says."""
        points = self._points
        of_name = name.rpartition("/")[2]
        those = list(members) or self._of_device(name, of_name)
        if not those:
            return Subject(-1, "", "", name, "", "", "", "", np.nan, np.nan, OUTAGE_UNIT)
        first = those[0]
        kinds = {points.kinds[code] for code in points.kind[those].tolist()}
        where = _middle(points.lon[those]), _middle(points.lat[those])
        gateway, district = points.gateways[points.gateway[first]], points.districts[points.district[first]]
        kind = kinds.pop() if len(kinds) == 1 else ""
        return Subject(-1, "", gateway, name, kind, "", "", district, *where, OUTAGE_UNIT)

    def _of_device(self, *names: str) -> list[int]:
        """The first point of a device that is called by any of ``names``."""
        devices = Texts.of(self._points.device_id)
        return [min(found)] if (found := [int(n) for name in names for n in devices.where(name)[:1]]) else []

    def _named(self, rule: str, name: str, members: Sequence[int]) -> Subject:
        """A point by its id, else an area: it lies in the middle of its members, in their district if it is one."""
        points, own = self._points, self._tick_rules[rule]
        number = points.number_of().get(name)
        if number is not None:
            one = self._point(rule, number)
            zh, en = own.title_zh or one.title_zh, own.title_en or one.title_en
            where = (one.district, one.lon, one.lat)
            return Subject(
                number, one.point_id, one.gateway_id, one.name, one.kind, zh, en, *where, own.unit or one.unit
            )
        at = np.array(members, np.intp)
        districts = {points.districts[code] for code in points.district[at].tolist()}
        district = districts.pop() if len(districts) == 1 else name if name in points.districts else ""
        lon, lat = _middle(points.lon[at]), _middle(points.lat[at])
        return Subject(-1, "", "", name, "", own.title_zh, own.title_en, district, lon, lat, own.unit)


def _middle(of: np.ndarray) -> float:
    known = of[~np.isnan(of)]
    return float(known.mean()) if len(known) else np.nan
