"""Whose a reading is, in what unit, and whether it may be stored: the same for every codec.

Owns the way from a codec's Parsed to columns: point ids by the source's template, renames, unit conversion, codes for
"no value", the registry's word on who may say what, and the time window. Knows no bytes of any format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ingest.codecs.base import Common, Key, Parsed
from ingest.decode.columns import Columns
from ingest.decode.refused import DETAIL_CHARS_MAX, Refused
from ingest.sourcesettings import QuantitySettings, SourceSettings
from storage.flags import DEVICE_SILENT, MISSING, NOT_EVALUATED
from storage.points import TIME_FROM_RECEIVE, PointTable
from storage.records import Event

if TYPE_CHECKING:
    from ingest.routes import Route, Source

NAN: Final = float("nan")
REFUSED_KEYS_MAX: Final = 10_000
"""Unknown devices remembered for one table of keys: a flood of invented ones must not fill memory."""
SHAPE_KEYS_MAX: Final = 200_000
"""Keys in all lists remembered as points, over all topics of a source, for codecs that give the same list again. Some
never do, and a sender chooses how long its lists are: some 30 MB at the most."""
_AS_SENT: Final = QuantitySettings()
_PLACEHOLDER = re.compile(r"\{(device|quantity|source)\}")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a key stands for: a point and how its values are converted, or the refusal of all its readings.

    value stored = value sent x factor + offset; ``missing``: codes, as sent, that mean "no value"
    """

    point: int
    factor: float = 1.0
    offset: float = 0.0
    missing: frozenset[float] = frozenset()
    on_receipt: bool = False
    refused: Refused | None = None

    @property
    def plain(self) -> bool:
        """Whether values are stored as sent."""
        return self.factor == 1.0 and self.offset == 0.0 and not self.missing


@dataclass(slots=True)
class Stored:
    """What became of the readings of one message.

    outside  stored though outside the time window, because our own clock is suspect
    """

    readings: int = 0
    untimed: int = 0
    outside: int = 0
    retained_ignored: int = 0


def template_of(settings: SourceSettings) -> str:
    """The template of a source's point ids where it says none: "" stands for the choice by the key."""
    return settings.point_id or ""


def point_id_of(template: str, source: str, device: str, quantity: str) -> str:
    """The point id of a key, its quantity renamed already.

    >>> point_id_of("cd-{device}-{quantity}", "env", "s1", "pm25"), point_id_of("", "env", "s1", "")
    ('cd-s1-pm25', 's1')
    """
    if not template:
        return f"{device}-{quantity}" if device and quantity else device or quantity
    said = {"device": device, "quantity": quantity, "source": source}
    return _PLACEHOLDER.sub(lambda found: said[found[1]], template)


class Binding:
    """Keys of one source to points of the registry. Its tables fill at the first reading of a key."""

    def __init__(self, settings: SourceSettings, points: PointTable, number_of: Mapping[str, int]) -> None:
        self._settings = settings
        self._points = points
        self._number_of = number_of
        self._template = template_of(settings)
        self._source = points.sources.index(settings.name) if settings.name in points.sources else -1
        self._missing = frozenset(settings.missing_values)
        self._of_device: dict[str, set[int]] = {}
        self._shaped: dict[int, KeyTable] = {}
        self._shape_keys = 0
        self.shared = KeyTable(self, None)
        """For topics that do not say whose their readings are."""

    def keys_for(self, route: Route) -> KeyTable:
        """The table of a topic: one of its own only where the topic says something of the identity."""
        own = route.device or route.quantity or route.point >= 0 or route.gateway >= 0
        return KeyTable(self, route) if own else self.shared

    def shaped(self, table: KeyTable, keys: int) -> None:
        """``table`` is about to remember a list of so many keys; all tables forget theirs when these become many."""
        self._shape_keys += keys
        if self._shape_keys > SHAPE_KEYS_MAX:
            for one in self._shaped.values():
                one.forget_shapes()
            self._shaped.clear()
            self._shape_keys = keys
        self._shaped[id(table)] = table

    def bind(self, key: Key, route: Route | None) -> Bound:
        """What a key means on a topic."""
        try:
            return self._bind(key, route)
        except Refused as refused:
            return Bound(-1, refused=refused)

    def _bind(self, key: Key, route: Route | None) -> Bound:
        device = _agreed("device", key[0], route.device if route else "")
        quantity = _agreed("quantity", key[1], route.quantity if route else "")
        how = self._settings.quantities.get(quantity, _AS_SENT)
        name = quantity if how.as_ is None else how.as_
        if not device and route is not None and route.point >= 0 and not self._template:
            point = route.point
        else:
            if not device and "{device}" in (self._template or "{device}"):
                raise Refused("no_id", "neither the payload nor the topic names the device")
            named = point_id_of(self._template, self._settings.name, device, name)
            point = self._known(named[:DETAIL_CHARS_MAX], route)
        self._of_device.setdefault(device, set()).add(point)
        return Bound(
            point,
            how.factor,
            how.offset,
            self._missing | frozenset(how.missing),
            int(self._points.time_from[point]) == TIME_FROM_RECEIVE,
        )

    def _known(self, point_id: str, route: Route | None) -> int:
        point = self._number_of.get(point_id)
        if point is None:
            raise Refused("unknown_point", f'"{point_id}" is not in the registry', point_id)
        if int(self._points.source[point]) != self._source:
            raise Refused("identity_mismatch", "the point belongs to another source", point_id)
        if self._points.retired[point]:
            raise Refused("retired_point", "", point_id)
        if route is not None:
            if route.point >= 0 and route.point != point:
                whose = self._points.point_id[route.point]
                raise Refused("identity_mismatch", f'the topic is of "{whose}"', point_id)
            if route.gateway >= 0 and int(self._points.gateway[point]) != route.gateway:
                raise Refused("identity_mismatch", "the point belongs to another gateway", point_id)
        return point

    def placed(self, event: Event, received_at: int) -> Event:
        """An event as it is stored: received, and where its point stands if it says no place of its own."""
        point = self._number_of.get(event.point_id) if event.point_id else None
        if point is None:
            return replace(event, received_at=received_at)
        lon, lat = float(self._points.lon[point]), float(self._points.lat[point])
        here = event.lon is None and lon - lat == lon - lat
        return replace(
            event,
            received_at=received_at,
            district=event.district or self._points.districts[int(self._points.district[point])],
            lon=lon if here else event.lon,
            lat=lat if here else event.lat,
        )

    def points_of(self, devices: Iterable[str], gateways: Iterable[str]) -> set[int]:
        """Points of devices heard before, in the source's words, and of gateways, in the registry's."""
        found: set[int] = set()
        for device in devices:
            found |= self._of_device.get(device, set())
        points = self._points
        codes = [code for code, name in enumerate(points.gateways) if name in set(gateways)]
        if codes and self._source >= 0:
            of_source = (points.source == self._source) & ~points.retired.astype(bool)
            found.update(np.flatnonzero(of_source & np.isin(points.gateway, codes)).tolist())
        return found

    def point_id(self, point: int) -> str:
        """Of a point, for a refusal."""
        return self._points.point_id[point]


def _agreed(what: str, in_payload: str, in_topic: str) -> str:
    """A name that payload, topic or both say. Raises Refused where they differ."""
    if in_payload and in_topic and in_payload != in_topic:
        raise Refused(
            "identity_mismatch", f'the topic says {what} "{in_topic[:40]}", the payload "{in_payload[:40]}"'
        )
    return in_payload or in_topic


class BoundKeys(NamedTuple):
    """What a list of keys stands for.

    known  all are points that may be stored; plain: all their values are stored as sent
    """

    keys: list[Key]
    bounds: list[Bound]
    points: list[int]
    known: bool
    plain: bool


class KeyTable(dict[Key, Bound]):
    """Keys to what they stand for on one topic, or on all topics that name nothing."""

    def __init__(self, binding: Binding, route: Route | None) -> None:
        super().__init__()
        self.binding = binding
        self._route = route
        self._refused = 0
        self._shapes: dict[int, BoundKeys] = {}

    def __missing__(self, key: Key) -> Bound:
        bound = self.binding.bind(key, self._route)
        if bound.refused is None:
            self[key] = bound
        elif self._refused < REFUSED_KEYS_MAX:
            self._refused += 1
            self[key] = bound
        return bound

    def shape(self, keys: list[Key]) -> BoundKeys:
        """What a list of keys, not empty, stands for; the same list is bound only once."""
        known = self._shapes.get(id(keys))
        if known is not None and known[0] is keys:
            return known
        bounds = [self[key] for key in keys]
        points = [b.point for b in bounds]
        shape = BoundKeys(keys, bounds, points, min(points) >= 0, all(b.plain for b in bounds))
        self.binding.shaped(self, len(keys))
        self._shapes[id(keys)] = shape
        return shape

    def forget_shapes(self) -> None:
        """Bind every list anew."""
        self._shapes.clear()


def store(
    table: KeyTable, source: Source, parsed: Parsed, received_at: int, retained: bool, into: Columns
) -> Stored:
    """Add a message's good readings to ``into``; every other is appended to ``parsed.refusals``."""
    if not parsed.keys:
        return Stored()
    _, bounds, points, known, plain = table.shape(parsed.keys)
    if known and _all_inside(source, parsed.times):
        values = parsed.values if plain else _converted(parsed.values, bounds)
        total = sum(values)
        # NaN and infinity do not cancel out of a sum; what made it so is found reading by reading.
        if total - total == 0:
            into.extend(points, parsed.times, values, parsed.flags)  # type: ignore[arg-type]
            return Stored(readings=len(points))
    stored = Stored()
    offsets = parsed.offsets
    readings = zip(bounds, parsed.times, parsed.values, parsed.flags, strict=True)
    for row, (bound, time_us, value, flag) in enumerate(readings):
        how = (received_at, offsets.get(row, 0), retained)
        try:
            _store_one(table.binding, source, bound, (time_us, value, flag), how, into, stored)
        except Refused as refused:
            parsed.refusals.append(refused)
    return stored


def store_common(table: KeyTable, source: Source, common: Common, into: Columns) -> bool:
    """Add the readings of a common message as ``store`` would; False, and nothing added, where one needs a look."""
    _, bounds, points, known, plain = table.shape(common.keys)
    if not known or not source.oldest_us <= common.time_us <= source.newest_us:
        return False
    values = common.values if plain else _converted(common.values, bounds)
    total = sum(values)
    if total - total != 0:
        return False
    into.extend_at(points, common.time_us, values, common.flags)
    return True


def admit(table: KeyTable, source: Source, parsed: Parsed, received_at: int) -> list[Event]:
    """A message's events as they are stored; those outside the time window are appended to ``parsed.refusals``."""
    kept = []
    for event in parsed.events:
        if source.oldest_us <= event.at_us <= source.newest_us or source.lenient:
            kept.append(table.binding.placed(event, received_at))
        else:
            parsed.refusals.append(Refused("time_window", _age(received_at - event.at_us)))
    return kept


def _age(us: int) -> str:
    return f"{abs(us) / 1e6:.0f} s {'old' if us > 0 else 'ahead'}"


def _all_inside(source: Source, times: list[int | None]) -> bool:
    """Whether all have a time and all stand in the window."""
    first = times[0]
    if first is not None and times.count(first) == len(times):
        # Nearly every message has one time for all its readings.
        return source.oldest_us <= first <= source.newest_us
    try:
        return source.oldest_us <= min(times) and max(times) <= source.newest_us  # type: ignore[type-var, operator]
    except TypeError:
        return False


def _converted(values: list[float], bounds: list[Bound]) -> list[float]:
    """Values in the registry's units; NaN for a code that means "no value"."""
    return [
        NAN if value in bound.missing else value * bound.factor + bound.offset
        for value, bound in zip(values, bounds, strict=True)
    ]


def _store_one(
    binding: Binding,
    source: Source,
    bound: Bound,
    reading: tuple[int | None, float, int],
    how: tuple[int, int, bool],
    into: Columns,
    stored: Stored,
) -> None:
    """One reading to ``into`` and to the counts. Raises Refused.

    how  when it was received; how much later it was measured, where it says only that; whether a broker had kept it
    """
    if bound.refused is not None:
        raise Refused(bound.refused.reason, bound.refused.detail, bound.refused.point_id)
    time_us, value, flag = reading
    received_at, offset, retained = how
    untimed = time_us is None
    if value in bound.missing:
        value = NAN
    elif value - value == 0:
        value = value * bound.factor + bound.offset
        if value - value != 0:
            raise Refused("not_finite", "after the conversion of its unit", binding.point_id(bound.point))
    elif value == value:
        raise Refused("not_finite", "infinity is no value", binding.point_id(bound.point))
    if value != value:
        flag = flag or MISSING
    if time_us is None:
        if not bound.on_receipt:
            raise Refused("no_time", "the reading brings no time", binding.point_id(bound.point))
        if retained:
            stored.retained_ignored += 1
            return
        # A reading that says nothing of its time is timed by the poll, whatever else comes in it.
        time_us = received_at + offset if offset else into.time_on_receipt(bound.point, received_at)
    if (offset or not untimed) and not source.oldest_us <= time_us <= source.newest_us:
        if not source.lenient:
            raise Refused("time_window", _age(received_at - time_us), binding.point_id(bound.point))
        flag = flag or NOT_EVALUATED
        stored.outside += 1
    into.add(bound.point, time_us, float(value), flag or DEVICE_SILENT)
    stored.readings += 1
    stored.untimed += untimed
