"""A source's mapping, compiled: which parts of a decoded body are readings, and what they are called.

Owns the meaning of the paths ``device``, ``quantity``, ``time``, ``value``, ``flag`` and ``readings``. Works on what a
decoder returned (JSON, MessagePack, CBOR): objects as dict with text keys, arrays as list. Knows no bytes.

A body is taken in one go, column by column, as long as nothing in it is out of the ordinary; anything else is walked
reading by reading, so that each bad one is refused with its reason and the good ones stay. Both say the same of a body
that has nothing bad in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from ingest.codecs.base import Key, Parsed
from ingest.codecs.events import EventBody
from ingest.codecs.paths import Every, one_at, spelled_path
from ingest.codecs.plan import Place, Plan, Rows, Unusual, maybe, names, paths_of, spread
from ingest.decode.refused import Refused
from ingest.decode.times import US_PER_UNIT, BadTime, from_text, to_us
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_FLAGS, DEVICE_SILENT

NAN: Final = float("nan")
PLAIN_TIMES_MAX: Final = 1 << 52
"""Numeric times beyond this are looked at one by one; in any unit but ns none is."""
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*")
_NONE: Final = type(None)
_TEXT: Final = {str}
_WHOLE: Final = {int}
_NUMBERS: Final = {int, float}
_NUMBERS_OR_NULL: Final = {int, float, _NONE}
_NUMBERS_TEXT_OR_NULL: Final = {int, float, str, _NONE}
SHAPE_KEYS_MAX: Final = 100_000
"""Keys remembered by the shape of their messages, for one source: about 10 MB at the most."""


class MappedBody:
    """Bodies of one source to Parsed, by its mapping. Raises ValueError where the mapping makes no sense.

    ``read`` raises Refused for a body of which nothing can be read.
    """

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        self._settings = settings
        self._zone = zone
        self._events = None if settings.event is None else EventBody(settings, settings.event, zone)
        paths = paths_of(settings)
        self._one = Plan(settings, paths)
        # A body that is an array of what a single one would be: most gateways send both.
        first = (Every.ELEMENT,)
        rooted = any(path[:1] == first for path in paths.values())
        self._many = (
            None if rooted else Plan(settings, {name: (*first, *path) for name, path in paths.items()})
        )
        self._scale = US_PER_UNIT.get(settings.time_unit, 0)
        self._flags = flag_words(settings.flags)
        self._shapes: dict[tuple[object, ...], list[Key]] = {}
        self._shape_keys = 0

    @property
    def plans(self) -> tuple[Plan, Plan | None]:
        """Of a body, and of an array of bodies; None where a body is an array already."""
        return self._one, self._many

    def read(self, body: object) -> Parsed:
        """Every reading of one body, or every event where the source sends events."""
        if self._events is not None:
            return self._events.read(body)
        form = type(body)
        if form is list and self._many is not None:
            plan = self._many
        elif form is dict or form is list:
            plan = self._one
        elif (form is int or form is float) and self._settings.bare_numbers:
            return Parsed([("", "")], [None], [body], [DEVICE_SILENT])  # type: ignore[list-item]
        else:
            raise Refused("wrong_shape", f"expected an object or an array, got {_called(body)}")
        try:
            return self._quick(plan, body)
        except (Unusual, KeyError, IndexError, TypeError, ValueError, OverflowError):
            return self._carefully(plan, body)

    def _quick(self, plan: Plan, body: object) -> Parsed:
        rows = plan.rows(body)
        n = len(rows.elements[-1])
        if n > self._settings.readings_per_message_max:
            raise Unusual
        keys = self._keys(plan, rows, n)
        values = self._values(plan.value, rows)
        times = self._times(plan.time, rows)
        flags = self._device_flags(plan.flag, rows) if plan.flag else [DEVICE_SILENT] * n
        return Parsed(keys, times, values, flags)

    def _keys(self, plan: Plan, rows: Rows, n: int) -> list[Key]:
        """The key of each reading. Messages of one shape get the same list again: it is not to be changed."""
        device = names(plan.device, rows)
        quantity = names(plan.quantity, rows)
        shape: tuple[object, ...]
        if type(quantity) is list:
            shape = (device, *quantity) if type(device) is str else (tuple(device), *quantity)
        else:
            shape = (n, device if type(device) is str else tuple(device), quantity)
        known = self._shapes.get(shape)
        if known is not None:
            return known
        keys = list(zip(_checked(device, n), _checked(quantity, n), strict=True))
        return self._remembered(shape, keys)

    def _remembered(self, shape: tuple[object, ...], keys: list[Key]) -> list[Key]:
        """Keep the keys of a shape; all are forgotten when they become many: a sender chooses them."""
        self._shape_keys += len(keys)
        if self._shape_keys > SHAPE_KEYS_MAX:
            self._shapes.clear()
            self._shape_keys = len(keys)
        self._shapes[shape] = keys
        return keys

    def _values(self, place: Place, rows: Rows) -> list[float]:
        elements = rows.elements[place.level]
        found = place.column(elements) if place.column else elements
        form = set(map(type, found))
        if not form <= _NUMBERS:
            if form <= _NUMBERS_OR_NULL:
                found = [NAN if value is None else value for value in found]
            elif self._settings.text_numbers and form <= _NUMBERS_TEXT_OR_NULL:
                found = [_number(value) for value in found]
            else:
                raise Unusual
        return spread(found, place.level, rows)

    def _times(self, place: Place, rows: Rows) -> list[int | None]:
        if place.level == 0:
            found, given = one_at(rows.elements[0][0], place.path)
            return [self._time(given) if found else None] * len(rows.elements[-1])
        elements = rows.elements[place.level]
        column = place.column(elements) if place.column else elements
        form = set(map(type, column))
        times: list[int | None]
        if form == _WHOLE and self._scale:
            scale = self._scale
            if min(column) <= -PLAIN_TIMES_MAX or max(column) >= PLAIN_TIMES_MAX:
                raise Unusual
            times = [time * scale for time in column]
        elif form == _TEXT:
            known = {text: self._time(text) for text in set(column)}
            times = [known[text] for text in column]
        else:
            times = [self._time(given) for given in column]
        return spread(times, place.level, rows)

    def _device_flags(self, place: Place, rows: Rows) -> list[int]:
        elements = rows.elements[place.level]
        found = maybe(elements, place.path)
        if bool in set(map(type, found)):
            raise Unusual
        table = self._flags
        return spread([table[word] for word in found], place.level, rows)

    def _time(self, given: object) -> int:
        """µs of a time as sent. Raises BadTime."""
        if isinstance(given, str) and self._settings.time_format is not None:
            return from_text(given, self._settings.time_format, self._zone)
        if isinstance(given, str) and self._settings.text_numbers and _NUMBER.fullmatch(given):
            number = float(given)
            return to_us(
                int(number) if number == int(number) else number, self._settings.time_unit, self._zone
            )
        return to_us(given, self._settings.time_unit, self._zone)

    # The careful way: one reading at a time.

    def _carefully(self, plan: Plan, body: object) -> Parsed:
        parsed = Parsed()
        for seen, path in enumerate(self._walk(plan, body, parsed), start=1):
            if seen > self._settings.readings_per_message_max:
                raise Refused(
                    "too_many_readings", f"more than {self._settings.readings_per_message_max} in one message"
                )
            try:
                self._one_reading(plan, path, parsed)
            except Refused as refused:
                parsed.refusals.append(refused)
        if not parsed.keys and not parsed.refusals:
            raise Refused("no_value", self._nothing(plan))
        return parsed

    def _nothing(self, plan: Plan) -> str:
        if plan.levels and plan.levels[-1].wanted:
            return f'none of the source\'s quantities stands at "{plan.shape}"'
        return f'nothing stands at "{plan.shape}"'

    @staticmethod
    def _walk(plan: Plan, body: object, parsed: Parsed) -> Iterator[tuple[list[Any], list[str]]]:
        """(elements, keys) from the body down to each reading; what is not of the mapping's shape is refused."""
        open_paths: list[tuple[list[Any], list[str]]] = [([body], [""])]
        while open_paths:
            elements, keys = open_paths.pop()
            depth = len(elements) - 1
            if depth == len(plan.levels):
                yield elements, keys
                continue
            level = plan.levels[depth]
            found, container = one_at(elements[-1], level.path)
            expected = "an array" if level.every is Every.ELEMENT else "an object"
            where = spelled_path([*level.path, level.every])
            if not found or type(container) is not (list if level.every is Every.ELEMENT else dict):
                got = _called(container) if found else "nothing"
                parsed.refusals.append(Refused("wrong_shape", f'expected {expected} at "{where}", got {got}'))
                continue
            below: list[tuple[list[Any], list[str]]]
            if level.every is Every.ELEMENT:
                below = [([*elements, one], [*keys, ""]) for one in container]
                if not below:
                    parsed.refusals.append(Refused("wrong_shape", f'the array at "{where}" is empty'))
            elif isinstance(container, dict):
                wanted = level.wanted
                below = [
                    ([*elements, one], [*keys, key])
                    for key, one in container.items()
                    if wanted is None or key in wanted
                ]
            open_paths.extend(reversed(below))

    def _one_reading(self, plan: Plan, path: tuple[list[Any], list[str]], parsed: Parsed) -> None:
        device = self._name("device", plan.device, path)
        quantity = self._name("quantity", plan.quantity, path)
        whose = f" of {device or 'the device'} {quantity}".rstrip()
        time_us = self._careful_time(plan.time, path, whose)
        value = self._careful_value(plan.value, path, whose)
        flag = DEVICE_SILENT
        if plan.flag is not None:
            _, word = one_at(path[0][plan.flag.level], plan.flag.path)
            known = None if isinstance(word, bool | list | dict) else self._flags.get(word)
            if known is None:
                raise Refused("wrong_type", f"the flag {_shown(word)}{whose} is not one the source declares")
            flag = known
        parsed.add((device, quantity), time_us, value, flag)

    @staticmethod
    def _name(what: str, place: Place | None, path: tuple[list[Any], list[str]]) -> str:
        if place is None:
            return ""
        if place.constant is not None:
            return place.constant
        if place.key:
            return path[1][place.level]
        found, named = one_at(path[0][place.level], place.path)
        if place.optional and (not found or named is None):
            return ""
        if not found:
            raise Refused("no_id", f'no {what} at "{spelled_path(place.path)}"')
        if type(named) is int:
            return str(named)
        if type(named) is not str:
            raise Refused("wrong_type", f"the {what} is {_called(named)}, expected text or a whole number")
        return named

    def _careful_time(self, place: Place, path: tuple[list[Any], list[str]], whose: str) -> int | None:
        found, given = one_at(path[0][place.level], place.path)
        if not found:
            return None
        try:
            return self._time(given)
        except BadTime as bad:
            raise Refused("bad_time", f"{bad}{whose}") from None

    def _careful_value(self, place: Place, path: tuple[list[Any], list[str]], whose: str) -> float:
        found, given = one_at(path[0][place.level], place.path)
        if not found:
            raise Refused("no_value", f'no value{whose} at "{spelled_path(place.path)}"')
        if given is None:
            return NAN
        if type(given) is int or type(given) is float:
            return given
        if type(given) is str and self._settings.text_numbers:
            try:
                return _number(given)
            except Unusual:
                raise Refused("wrong_type", f"the value{whose} is {_shown(given)}, no number") from None
        raise Refused("wrong_type", f"the value{whose} is {_called(given)}, expected a number")


def _checked(names: str | list[str], n: int) -> list[str]:
    """A column of n names, all text. Raises Unusual."""
    if isinstance(names, str):
        return [names] * n
    if set(map(type, names)) != _TEXT:
        raise Unusual
    return names


def flag_words(said: Mapping[str, int]) -> dict[object, int]:
    """What a source may send as its flag to a device flag; QARTOD's own numbers where it declares no words."""
    table: dict[object, int] = {None: DEVICE_SILENT}
    for word, flag in said.items():
        table[word] = flag
        if word.isdecimal():
            table[int(word)] = flag
    return table if said else table | {flag: flag for flag in DEVICE_FLAGS}


def _number(value: object) -> float:
    """A value where numbers may come as text; empty text is missing. Raises Unusual."""
    if type(value) is int or type(value) is float:
        return value
    if value is None or (type(value) is str and not value.strip()):
        return NAN
    if type(value) is str and _NUMBER.fullmatch(value):
        return float(value)
    raise Unusual


_CALLED = {dict: "an object", list: "an array", str: "text", bool: "true or false", _NONE: "null"}


def _called(value: object) -> str:
    return _CALLED.get(type(value), "a number")


def _shown(value: object) -> str:
    return f'"{value[:40]}"' if isinstance(value, str) else str(value)[:40]
