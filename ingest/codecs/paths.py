"""Paths into a payload: `data.items[].v`, `metrics.*`, `rows[][1]`, `"air.temp".value`.

Owns their grammar and taking one value by one. Knows nothing of readings.

    path  = step { "." step | "[" n "]" | "[]" }        a key, a place in an array, every element of an array
    step  = name | '"' any text '"' | "*"               "*": every entry of an object
    "$"   the payload itself; "$.a" is the same as "a"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum, auto
from operator import itemgetter
from typing import Any, Final

STEPS_MAX: Final = 16
"""Deeper paths are a mistake: no payload of a sensor nests that far."""


class Every(Enum):
    """A step that stands for many values."""

    ELEMENT = auto()
    """`[]`: every element of an array."""
    ENTRY = auto()
    """`*`: every entry of an object."""


Step = str | int | Every
Path = tuple[Step, ...]

_TOKEN = re.compile(r'\[(?P<index>\d{0,6})\]|(?P<dot>\.)|"(?P<quoted>[^"]+)"|(?P<name>[^.\[\]"]+)')
_MISSING: Final = object()


def parse_path(text: str) -> Path:
    """The steps of a path. Raises ValueError that says what is wrong and where.

    >>> parse_path("data.items[].v"), parse_path("$.rows[][1]"), parse_path("*")
    (('data', 'items', <Every.ELEMENT: 1>, 'v'), ('rows', <Every.ELEMENT: 1>, 1), (<Every.ENTRY: 2>,))
    """
    rest = text.removeprefix("$") if text == "$" or text.startswith(("$.", "$[")) else text
    rest = rest.removeprefix(".") if rest is not text else rest
    steps: list[Step] = []
    at, joined = 0, True
    while at < len(rest):
        token = _TOKEN.match(rest, at)
        if token is None:
            raise ValueError(f'"{text}": cannot be read from "{rest[at : at + 10]}" on')
        kind = token.lastgroup
        if kind == "dot":
            if joined:
                raise ValueError(f'"{text}": a name is missing before a dot')
            joined = True
        elif kind == "index":
            if joined and steps:
                raise ValueError(f'"{text}": a name is missing before "{token[0]}"')
            steps.append(int(token["index"]) if token["index"] else Every.ELEMENT)
            joined = False
        else:
            if not joined:
                raise ValueError(f'"{text}": a dot is missing before "{token[0]}"')
            name = token["quoted"] or token["name"]
            steps.append(Every.ENTRY if token["name"] == "*" else name)
            joined = False
        at = token.end()
    if joined and steps:
        raise ValueError(f'"{text}": ends with a dot')
    if len(steps) > STEPS_MAX:
        raise ValueError(f'"{text}": more than {STEPS_MAX} steps')
    return tuple(steps)


def spelled_path(steps: Sequence[Step]) -> str:
    """A path as an operator writes it.

    >>> spelled_path(parse_path('a[]."b.c"[0].*'))
    'a[]."b.c"[0].*'
    """
    out = ""
    for step in steps:
        if step is Every.ELEMENT:
            out += "[]"
        elif isinstance(step, int):
            out += f"[{step}]"
        else:
            name = "*" if step is Every.ENTRY else str(step)
            plain = step is Every.ENTRY or (name != "*" and re.fullmatch(r'[^.\[\]"$]+', name))
            out += ("." if out else "") + (name if plain else f'"{name}"')
    return out or "$"


def one_at(body: object, steps: Sequence[Step]) -> tuple[bool, Any]:
    """(found, value) by steps that each stand for one value."""
    found: Any = body
    for step in steps:
        if isinstance(step, str):
            if type(found) is not dict or (found := found.get(step, _MISSING)) is _MISSING:
                return False, None
        elif type(found) is list and isinstance(step, int) and step < len(found):
            found = found[step]
        else:
            return False, None
    return True, found


Column = Callable[[list[Any]], list[Any]]
"""Elements to one value of each. Raises KeyError, IndexError or TypeError where one has none."""


def column_of(steps: Sequence[Step]) -> Column:
    """One value of each of many elements, without a loop in Python."""
    getters = [itemgetter(step) for step in steps]
    in_arrays = [isinstance(step, int) for step in steps]

    if len(getters) == 1 and not in_arrays[0]:
        get = getters[0]
        return lambda elements: list(map(get, elements))

    def take(elements: list[Any]) -> list[Any]:
        for getter, in_array in zip(getters, in_arrays, strict=True):
            # Text has places too: "abc"[0] is no reading.
            if in_array and set(map(type, elements)) != {list}:
                raise TypeError("not an array")
            elements = list(map(getter, elements))
        return elements

    return take
