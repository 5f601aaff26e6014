"""Policy: who hears of an alert, who must answer, and what keeps it from being told.

Owns the matching of routes, silences and inhibitions. Pure: no file, no clock; all three are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anomaly.settings import AlertSettings, InhibitSettings, RouteSettings, TargetSettings
from storage.units import US_PER_S

OUTAGE: Final = InhibitSettings(by=["outage"], rules=["dead", "stuck"], same="gateway")
DEVICE_OUTAGE: Final = InhibitSettings(
    by=["outage", "device_outage"], rules=["dead", "stuck", "video"], same="members"
)
"""Always so: of a gateway or a device that is out, each silent point is no news."""
EVERYBODY: Final = "default"


@dataclass(frozen=True, slots=True)
class Facets:
    """What policy looks at in an alert. Empty text where nothing."""

    rule: str
    alert_class: str
    kind: str
    district: str
    point_id: str
    gateway_id: str
    severity: int


@dataclass(frozen=True, slots=True)
class Standing:
    """An open alert that may inhibit others."""

    rule: str
    district: str
    gateway_id: str
    severity: int
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class Silence:
    """A person's mute: alerts that agree in all that is named (empty: any), up to ``severity_max``. Times in µs."""

    id: int
    rule: str
    kind: str
    district: str
    point_id: str
    gateway_id: str
    severity_max: int
    begins: int
    ends: int
    who: str
    why: str

    def mutes(self, one: Facets, now: int) -> bool:
        """Whether it holds for an alert at ``now``."""
        if not self.begins <= now < self.ends or one.severity > self.severity_max:
            return False
        return all(
            not wanted or wanted == found
            for wanted, found in (
                (self.rule, one.rule),
                (self.kind, one.kind),
                (self.district, one.district),
                (self.point_id, one.point_id),
                (self.gateway_id, one.gateway_id),
            )
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a route asks for. ``answer_us`` 0: nobody must answer."""

    route: str
    targets: tuple[str, ...]
    repeat_us: int
    answer_us: int
    escalate_to: tuple[str, ...]
    answer_by: tuple[str, ...]

    def answerer(self, step: int) -> str:
        """Who is to answer after ``step`` escalations; "" where nobody is named."""
        return self.answer_by[step] if step < len(self.answer_by) else ""


class Policy:
    """The config's routes and inhibitions; ``targets`` in the order of the config."""

    def __init__(
        self,
        targets: Sequence[TargetSettings],
        alerts: AlertSettings | None = None,
        routes: Sequence[RouteSettings] = (),
        inhibits: Sequence[InhibitSettings] = (),
    ) -> None:
        self.alerts = alerts or AlertSettings()
        self.severity_min = {target.name: target.severity_min for target in targets}
        self._routes = tuple(routes)
        self.inhibits = (OUTAGE, DEVICE_OUTAGE, *inhibits)
        self.inhibitors = tuple(sorted({rule for one in self.inhibits for rule in one.by}))
        self._everybody = Plan(EVERYBODY, tuple(self.severity_min), self._us(None), 0, (), ())

    def plan(self, one: Facets) -> Plan:
        """Of the first route that fits; all targets and no answer where none does."""
        for route in self._routes:
            if _fits(route, one):
                return self._plan(route)
        return self._everybody

    def named(self, route: str) -> Plan:
        """The plan of a route by its name; that of everybody where it is gone from the config."""
        found = next((r for r in self._routes if r.name == route), None)
        return self._everybody if found is None else self._plan(found)

    def _plan(self, route: RouteSettings) -> Plan:
        known = [name for name in route.targets if name in self.severity_min]
        then = [name for name in route.escalate_to if name in self.severity_min]
        answer_us = round(route.answer_s * US_PER_S)
        return Plan(
            route.name, tuple(known), self._us(route.repeat_s), answer_us, tuple(then), tuple(route.answer_by)
        )

    def _us(self, repeat_s: int | None) -> int:
        return (repeat_s or self.alerts.repeat_s) * US_PER_S

    def held(self, one: Facets, silences: Iterable[Silence], standing: Iterable[Standing], now: int) -> str:
        """Why an alert is not told: "silence N", "inhibited by RULE", or "" where nothing keeps it."""
        for silence in silences:
            if silence.mutes(one, now):
                return f"silence {silence.id}"
        for inhibit in self.inhibits:
            if one.rule not in inhibit.rules:
                continue
            for other in standing:
                if other.rule in inhibit.by and one.severity <= other.severity and _same(inhibit, one, other):
                    return f"inhibited by {other.rule}"
        return ""


def silence_of(row: Any) -> Silence:
    """A row of the outbox's table as a Silence."""
    return Silence(**{name: row[name] for name in Silence.__slots__})


def _fits(route: RouteSettings, one: Facets) -> bool:
    if not route.severity_min <= one.severity <= route.severity_max:
        return False
    wanted = (
        (route.kinds, one.kind),
        (route.districts, one.district),
        (route.rules, one.rule),
        (route.classes, one.alert_class),
    )
    return all(not names or found in names for names, found in wanted)


def _same(inhibit: InhibitSettings, one: Facets, other: Standing) -> bool:
    if inhibit.same == "gateway":
        return bool(one.gateway_id) and one.gateway_id == other.gateway_id
    if inhibit.same == "members":
        return bool(one.point_id) and one.point_id in other.members
    return bool(one.district) and one.district == other.district
