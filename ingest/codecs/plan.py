"""Where a mapping finds its fields: the paths of a source as levels of many things and places within them.

Owns the meaning of ``readings`` and of paths that walk through arrays and objects; lays a body out by them. Knows
nothing of times, values or flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

from ingest.codecs.paths import Column, Every, Path, column_of, one_at, parse_path, spelled_path
from ingest.sourcesettings import SourceSettings

_WHOLE: Final = {int}


class Unusual(Exception):  # noqa: N818 - no error: the careful way takes it
    """The body has something the quick way does not take."""


@dataclass(frozen=True, slots=True)
class Level:
    """One step from a thing to many: every element of the array, or every entry of the object, at ``path``.

    wanted  of the entries only these; None: all
    form    what must stand at ``path``: list or dict
    """

    path: Path
    every: Every
    column: Column | None
    wanted: Mapping[str, object] | None
    form: Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field stands: at ``path`` from an element of level ``level`` (0: the body), or that element's key.

    constant  said by the config instead of the message
    optional  may be absent
    """

    level: int = 0
    path: Path = ()
    key: bool = False
    constant: str | None = None
    optional: bool = False
    column: Column | None = None


@dataclass(slots=True)
class Rows:
    """A body laid out: the elements of each level, their keys, and how many each one of the level before has."""

    elements: list[list[Any]]
    keys: list[list[str] | None]
    counts: list[list[int]]


def paths_of(settings: SourceSettings) -> dict[str, Path]:
    """Each field's path from the body; only fields that are read from payloads. Raises ValueError for a bad path.

    Where ``readings`` is said, paths that do not begin with "$." start at its elements.
    """
    before: Path = ()
    readings = settings.readings or settings.readings_field
    if readings:
        before = parse_path(readings)
        if not before or not isinstance(before[-1], Every):
            before = (*before, Every.ELEMENT)
    said = settings.model_fields_set
    wanted: dict[str, str | None] = {
        "device": settings.device or _default_device(settings),
        "quantity": settings.quantity,
        "time": settings.time or settings.time_field,
        "value": settings.value or settings.value_field,
        "flag": settings.flag or (settings.flag_field if "flag_field" in said else None),
    }
    found = {}
    for name, text in wanted.items():
        if text is not None and not is_elsewhere(text):
            path = parse_path(text)
            found[name] = path if text.startswith("$") else (*before, *path)
    return found


def is_elsewhere(text: str) -> bool:
    """Whether a device or quantity is not in the payload: "topic:2", or "=words"."""
    return text.startswith(("topic:", "="))


def _default_device(settings: SourceSettings) -> str | None:
    in_topic = any("{device}" in topic for topic in settings.topics)
    return None if in_topic and "id_field" not in settings.model_fields_set else settings.id_field


def _levels_of(path: Path) -> tuple[list[tuple[Path, Every]], Path]:
    """A path cut behind each step that stands for many, and what is left."""
    levels: list[tuple[Path, Every]] = []
    begin = 0
    for index, step in enumerate(path):
        if isinstance(step, Every):
            levels.append((path[begin:index], step))
            begin = index + 1
    return levels, path[begin:]


class Plan:
    """The levels of one mapping and the place of each field. Raises ValueError where paths do not fit together."""

    def __init__(self, settings: SourceSettings, paths: Mapping[str, Path]) -> None:
        self._settings = settings
        cut = {name: _levels_of(path) for name, path in paths.items()}
        # Of several that are as long, the value's: the others are told to follow it.
        named = max(cut, key=lambda name: (len(cut[name][0]), name == "value"))
        longest = cut[named][0]
        for name, (levels, _) in cut.items():
            if levels != longest[: len(levels)]:
                raise ValueError(
                    f'{name}: "{spelled_path(paths[name])}" and "{_joined(longest)}" walk through different parts'
                )
        self.device = self._named("device", cut, longest)
        self.quantity = self._named("quantity", cut, longest)
        if self.quantity is None:
            self.quantity = self._entry_key(longest)
        self.levels = [
            Level(
                path,
                every,
                column_of(path) if path else None,
                self._wanted(number, every),
                list if every is Every.ELEMENT else dict,
            )
            for number, (path, every) in enumerate(longest, start=1)
        ]
        self.time = self._place("time", cut)
        self.value = self._place("value", cut)
        self.flag = self._place("flag", cut) if "flag" in cut else None
        self.shape = _joined(longest)

    def _place(self, name: str, cut: Mapping[str, tuple[list[tuple[Path, Every]], Path]]) -> Place:
        levels, rest = cut[name]
        optional = name == "flag" or (name == "time" and not levels)
        return Place(len(levels), rest, optional=optional, column=column_of(rest) if rest else None)

    def _named(
        self,
        name: str,
        cut: Mapping[str, tuple[list[tuple[Path, Every]], Path]],
        longest: list[tuple[Path, Every]],
    ) -> Place | None:
        """Device or quantity: a constant, a key, or a value in the payload; None where only the topic can say it.

        A device may be absent from a message: the topic may name it.
        """
        text: str | None = getattr(self._settings, name)
        if text is not None and text.startswith("="):
            return Place(constant=text[1:])
        if name not in cut:
            return None
        levels, rest = cut[name]
        if not rest and levels and levels[-1][1] is Every.ENTRY:
            return Place(len(levels), key=True)
        return Place(len(levels), rest, optional=name == "device", column=column_of(rest) if rest else None)

    def _entry_key(self, longest: list[tuple[Path, Every]]) -> Place | None:
        """The innermost object's keys, unless they are the devices."""
        for number in range(len(longest), 0, -1):
            taken = self.device is not None and self.device.key and self.device.level == number
            if longest[number - 1][1] is Every.ENTRY and not taken:
                return Place(number, key=True)
        return None

    def _wanted(self, number: int, every: Every) -> Mapping[str, object] | None:
        named = self.quantity is not None and self.quantity.key and self.quantity.level == number
        return self._settings.quantities or None if every is Every.ENTRY and named else None

    # The quick way: columns.

    def rows(self, body: object) -> Rows:
        """The elements of every level. Raises Unusual, KeyError, IndexError or TypeError."""
        elements: list[Any] = [body]
        rows = Rows([elements], [None], [])
        for level in self.levels:
            keys: list[str] | None = None
            containers: list[Any] = level.column(elements) if level.column else elements
            if len(containers) == 1:
                one: Any = containers[0]
                if type(one) is not level.form:
                    raise Unusual
                if level.every is Every.ELEMENT:
                    elements = one
                elif level.wanted is None:
                    keys, elements = list(one), list(one.values())
                else:
                    wanted = level.wanted
                    keys = [key for key in one if key in wanted]
                    elements = [one[key] for key in keys]
                counts = [len(elements)]
            elif set(map(type, containers)) != {level.form}:
                raise Unusual
            elif level.every is Every.ELEMENT:
                elements = list(chain.from_iterable(containers))
                counts = list(map(len, containers))
            else:
                keys, elements, counts = _entries(containers, level.wanted)
            if not elements or 0 in counts:
                raise Unusual
            rows.elements.append(elements)
            rows.keys.append(keys)
            rows.counts.append(counts)
        return rows


def _entries(
    containers: list[dict[str, Any]], wanted: Mapping[str, object] | None
) -> tuple[list[str], list[Any], list[int]]:
    """Keys and values of objects, and how many each has."""
    if wanted is None:
        every = list(chain.from_iterable(containers))
        return every, list(chain.from_iterable(map(dict.values, containers))), list(map(len, containers))
    each = [[key for key in one if key in wanted] for one in containers]
    elements = [one[key] for one, keys in zip(containers, each, strict=True) for key in keys]
    return list(chain.from_iterable(each)), elements, list(map(len, each))


def _joined(levels: Sequence[tuple[Path, Every]]) -> str:
    return spelled_path([step for path, every in levels for step in (*path, every)])


def spread(values: list[Any], level: int, rows: Rows) -> list[Any]:
    """A column of one level as a column of the innermost: each value once for every reading below it."""
    for number in range(level, len(rows.counts)):
        if len(values) == 1:
            values = values * len(rows.elements[number + 1])
        else:
            values = list(chain.from_iterable(map(repeat, values, rows.counts[number])))
    return values


def names(place: Place | None, rows: Rows) -> str | list[str]:
    """Devices or quantities: one for all readings, or one of each. Raises Unusual, KeyError, IndexError, TypeError."""
    if place is None:
        return ""
    if place.constant is not None:
        return place.constant
    if place.key:
        keys = rows.keys[place.level]
        assert keys is not None
        return spread(keys, place.level, rows)
    elements = rows.elements[place.level]
    if place.level == 0:
        _, named = one_at(elements[0], place.path)
        if type(named) is str:
            return named
        if type(named) is int:
            return str(named)
        if place.optional and named is None:
            return ""
        raise Unusual
    try:
        column = place.column(elements) if place.column else elements
    except KeyError:
        if not place.optional:
            raise
        column = maybe(elements, place.path)
    if place.optional and column.count(None) == len(column):
        return ""
    if type(column[0]) is int:
        # Numbers become text before a shape is looked up: True and 1.0 are equal to 1.
        if set(map(type, column)) != _WHOLE:
            raise Unusual
        column = list(map(str, column))
    return spread(column, place.level, rows)


def maybe(elements: list[Any], path: Path) -> list[Any]:
    """One value of each element, None where it has none. Raises Unusual for elements that are no objects."""
    if len(path) != 1 or not isinstance(path[0], str):
        return [one_at(element, path)[1] for element in elements]
    if set(map(type, elements)) != {dict}:
        raise Unusual
    (key,) = path
    return [element.get(key) for element in elements]
