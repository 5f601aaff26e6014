"""JSON as a source's mapping would have it: the way back from ``ingest.codecs.mapping``.

Owns putting readings where the source's paths look for them. What stands at an outer path is said once a message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

import orjson

from ingest.codecs.paths import Every
from ingest.codecs.plan import Place, Plan, paths_of
from ingest.decode.times import US_PER_UNIT
from ingest.simulate.encoders.base import Sent, topic_of
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, GOOD

_FIELDS: Final = ("device", "quantity", "time", "flag", "value")


class Encoder:
    """See ingest.simulate.encoders.base.Encoder. ``iso``: times as ISO 8601 text unless there is a time_format."""

    SOURCE: ClassVar[dict[str, Any]] = {
        "topics": ["sim/{device}/up"],
        "device": "station.id",
        "time": "at",
        "quantity": "readings[].name",
        "value": "readings[].v",
        "flag": "readings[].state",
        "flags": {"ok": 1, "odd": 3, "broken": 4},
    }
    DEVICES: ClassVar[Sequence[str]] = ("s1", "测站-2", 'q"3')
    QUANTITIES: ClassVar[Sequence[str]] = ("pm25", "pm10", "a b")
    TIME_STEP_US: ClassVar[int] = 1000
    DECIMALS: ClassVar[int] = 6
    FLAG: ClassVar[int] = GOOD

    def __init__(self, settings: SourceSettings, zone: ZoneInfo, *, iso: bool = False) -> None:
        self._settings = settings
        self._zone = zone
        self._iso = iso
        self._plan = Plan(settings, paths_of(settings))
        self._words = {flag: word for word, flag in settings.flags.items()}

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, payload) of messages that hold these readings."""
        sent = []
        for (device, quantity), group in groupby(readings, self._topic_key):
            sent += [
                (topic_of(self._settings, device, quantity), orjson.dumps(body))
                for body in self._bodies(list(group))
            ]
        return sent

    def _topic_key(self, one: Sent) -> tuple[str, str]:
        topics = self._settings.topics
        in_topic = topics[0] if topics else ""
        names = []
        for name, value in (("device", one.device), ("quantity", one.quantity)):
            place = getattr(self._settings, name) or ""
            names.append(value if place.startswith("topic:") or f"{{{name}}}" in in_topic else "")
        return names[0], names[1]

    def _bodies(self, readings: Sequence[Sent]) -> list[Any]:
        """Bodies that hold the readings: one for all that agree in what stands outside of every array and object."""
        if not self._plan.levels:
            return [self._element(0, [one]) for one in readings]
        entries = any(level.every is Every.ENTRY for level in self._plan.levels)
        found = []
        for _, group in groupby(readings, lambda one: self._said_at(0, one)):
            together: list[Sent] = []
            keys: set[tuple[str, str]] = set()
            for one in group:
                if entries and (one.device, one.quantity) in keys:
                    found.append(self._element(0, together))
                    together, keys = [], set()
                together.append(one)
                keys.add((one.device, one.quantity))
            found.append(self._element(0, together))
        return found

    def _element(self, level: int, readings: list[Sent]) -> Any:
        """What stands at one element of a level: what it says itself, and the readings below it."""
        body: Any = None
        for name in _FIELDS:
            place: Place | None = getattr(self._plan, name)
            if place is None or place.key or place.constant is not None or place.level != level:
                continue
            if (value := self._value(name, readings[0])) is not None or name == "value":
                body = _put(body, place.path, value)
        if level == len(self._plan.levels):
            return body
        below = self._plan.levels[level]
        inner: Any = []
        if below.every is Every.ENTRY:
            inner = {
                key: self._element(level + 1, list(group))
                for key, group in groupby(readings, lambda one: self._key(level + 1, one))
            }
        elif level + 1 == len(self._plan.levels):
            inner = [self._element(level + 1, [one]) for one in readings]
        else:
            groups = groupby(readings, lambda one: self._said_at(level + 1, one))
            inner = [self._element(level + 1, list(group)) for _, group in groups]
        if body is not None and not below.path and below.every is Every.ENTRY:
            return body | inner
        return _put(body, below.path, inner)

    def _key(self, level: int, one: Sent) -> str:
        named = self._plan.device
        return one.device if named is not None and named.key and named.level == level else one.quantity

    def _said_at(self, level: int, one: Sent) -> tuple[object, ...]:
        """What a reading says at a level: two that differ there cannot share its element."""
        said: list[object] = []
        for name in _FIELDS:
            place: Place | None = getattr(self._plan, name)
            if place is not None and place.level == level and place.constant is None and not place.key:
                said.append(repr(self._value(name, one)))
        return tuple(said)

    def _value(self, name: str, one: Sent) -> Any:
        if name == "time":
            return self._time(one.time_us)
        if name == "value":
            return None if math.isnan(one.value) else one.value
        if name == "flag":
            return None if one.flag == DEVICE_SILENT else self._words.get(one.flag, one.flag)
        return getattr(one, name)

    def _time(self, time_us: int) -> int | str:
        settings = self._settings
        if settings.time_format is None and not self._iso:
            if settings.time_unit == "ns":
                return time_us * 1000
            return time_us // US_PER_UNIT[settings.time_unit]
        local = datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(self._zone)
        return local.strftime(settings.time_format) if settings.time_format else local.isoformat()


def _put(body: Any, path: Sequence[Any], value: Any) -> Any:
    """``body`` with a value at a path; None stands for a body that is not there yet."""
    if not path:
        return value
    step, *rest = path
    if isinstance(step, int):
        body = [] if body is None else body
        body.extend([None] * (step + 1 - len(body)))
        body[step] = _put(body[step], rest, value)
        return body
    body = {} if body is None else body
    body[step] = _put(body.get(step), rest, value)
    return body
