"""A source's file to begin with, and a mapping guessed from one captured JSON message.

Owns the guesses and the wording of the file. A guess is written down as one: a person reads it and tries it with
`yuzui source test`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from ingest.codecs.paths import Every, Step, spelled_path

TIME_NAMES: Final = (
    "ts", "time", "timestamp", "t", "datetime", "date_time", "at", "date", "collecttime", "sampletime", "datatime",
    "measured_at", "created_at", "when",
)  # fmt: skip
DEVICE_NAMES: Final = (
    "device", "deviceid", "device_id", "dev", "dev_id", "station", "stationid", "station_id", "sn", "imei", "mn",
    "sensor", "sensorid", "sensor_id", "node", "id", "code", "serial",
)  # fmt: skip
QUANTITY_NAMES: Final = (
    "quantity", "metric", "param", "parameter", "factor", "type", "name", "n", "key", "channel", "code",
)  # fmt: skip
VALUE_NAMES: Final = ("value", "v", "val", "data", "reading", "number")
FLAG_NAMES: Final = ("flag", "q", "quality", "qc", "state", "status", "st")
_UNITS: Final = (("s", 1e9, 4e9), ("ms", 1e12, 4e12), ("us", 1e15, 4e15), ("ns", 1e18, 4e18))
"""Numeric times between 2001 and 2096 in each unit."""
_TEXT_FORMS: Final = ("%Y%m%d%H%M%S", "%Y/%m/%d %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%Y-%m-%d %H:%M")

Path = tuple[Step, ...]


@dataclass(slots=True)
class Guess:
    """A mapping as it looks from one message. Paths are spelled; None where nothing looked like one."""

    device: str | None = None
    quantity: str | None = None
    time: str | None = None
    value: str | None = None
    flag: str | None = None
    time_unit: str | None = None
    time_format: str | None = None
    text_numbers: bool = False
    quantities: dict[str, Any] = field(default_factory=dict)
    """What the message calls its quantities, each with its value there."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that holds no others: its path, the nearest name above it, itself."""

    path: Path
    name: str
    value: Any


def guess(payload: bytes) -> Guess | None:
    """A mapping for a message like this one; None where it is no JSON object or array with a number in it."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    many = isinstance(body, list) and bool(body) and isinstance(body[0], dict)
    try:
        every = list(leaves(body[0] if many else body, ()))
    except RecursionError:
        return None  # a thousand levels: nobody means them
    found = Guess()
    time = _named(every, TIME_NAMES, _is_time)
    if time is not None:
        found.time = spelled_path(time.path)
        _time_form(found, time.value)
    rest = [leaf for leaf in every if leaf is not time]
    numbers = [leaf for leaf in rest if _number(leaf.value)]
    value = _named(numbers, VALUE_NAMES, lambda _: True)
    if value is not None:
        around = [leaf for leaf in rest if leaf.path[:-1] == value.path[:-1] and leaf is not value]
        found.value = spelled_path(value.path)
        quantity = _named(around, QUANTITY_NAMES, lambda v: isinstance(v, str))
        found.quantity = spelled_path(quantity.path) if quantity else None
        flag = _named(around, FLAG_NAMES, lambda v: isinstance(v, str | int))
        found.flag = (
            spelled_path(flag.path)
            if flag and isinstance(flag.value, int) and flag.value in (1, 2, 3, 4, 9)
            else None
        )
        values = [value]
        if quantity is not None:
            rest = [leaf for leaf in rest if leaf is not quantity]
            found.quantities = _quantities_of(body[0] if many else body, quantity.path, value.path)
    device = _named(
        [leaf for leaf in rest if leaf is not value], DEVICE_NAMES, lambda v: isinstance(v, str | int)
    )
    found.device = spelled_path(device.path) if device is not None else None
    if value is None:
        values = _together([leaf for leaf in numbers if leaf is not device])
        if not values:
            return None
        found.value = spelled_path((*values[0].path[:-1], Every.ENTRY))
        found.quantities = {leaf.name: leaf.value for leaf in values}
    found.text_numbers = any(isinstance(leaf.value, str) for leaf in values)
    return found


def leaves(inner: Any, path: Path) -> Iterator[Leaf]:
    """Every value of a body; the first element of an array stands for all."""
    if isinstance(inner, dict):
        for key, value in inner.items():
            yield from leaves(value, (*path, key))
    elif isinstance(inner, list):
        if inner:
            yield from leaves(inner[0], (*path, Every.ELEMENT))
    else:
        yield Leaf(path, next((step for step in reversed(path) if isinstance(step, str)), ""), inner)


def _named(leaves: list[Leaf], names: tuple[str, ...], right: Any) -> Leaf | None:
    """The leaf whose name stands first in ``names``; of several the outermost."""
    fitting = [
        (names.index(leaf.name.lower()), len(leaf.path), number)
        for number, leaf in enumerate(leaves)
        if leaf.name.lower() in names and right(leaf.value)
    ]
    return leaves[min(fitting)[2]] if fitting else None


def _together(leaves: list[Leaf]) -> list[Leaf]:
    """The largest group of numbers that stand in one object."""
    groups: dict[Path, list[Leaf]] = {}
    for leaf in leaves:
        if leaf.path and isinstance(leaf.path[-1], str):
            groups.setdefault(leaf.path[:-1], []).append(leaf)
    return max(groups.values(), key=len, default=[])


def _quantities_of(body: Any, quantity: Path, value: Path) -> dict[str, Any]:
    """What each element of the innermost array calls itself, with its value."""
    ends = [number for number, step in enumerate(quantity) if isinstance(step, Every)]
    if not ends:
        return {}
    elements: list[Any] = [body]
    for step in quantity[: ends[-1] + 1]:
        if step is Every.ELEMENT:
            elements = [one for part in elements if isinstance(part, list) for one in part]
        else:
            elements = [part[step] for part in elements if isinstance(part, dict) and step in part]
    name, number = quantity[-1], value[-1]
    return {str(one[name]): one.get(number) for one in elements if isinstance(one, dict) and name in one}


def _number(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+\.\d+", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_time(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) > 10 and (value[:4].isdecimal() or value[6:10].isdecimal())
    return isinstance(value, int | float) and any(low <= value <= high for _, low, high in _UNITS)


def _time_form(found: Guess, value: Any) -> None:
    if not isinstance(value, str):
        found.time_unit = next(unit for unit, low, high in _UNITS if low <= value <= high)
        return
    try:
        datetime.fromisoformat(value)
    except ValueError:
        pass
    else:
        if not value.isdecimal():
            return
    for form in _TEXT_FORMS:
        try:
            datetime.strptime(value, form)  # noqa: DTZ007 - only whether it reads
        except ValueError:
            continue
        found.time_format = form
        return


def written(
    *,
    codec: str,
    topics: list[str],
    owner: str,
    city_field: str,
    kind: str,
    found: Guess | None,
    captured: str,
) -> str:
    """The file of a new source, with a comment a line. ``captured``: where the guess is from."""
    lines = [
        "# One upstream system. Every key stands in docs/sources.md and configs/sample.toml; try it with",
        "#   yuzui source test THIS_FILE --message CAPTURED",
        "# and have a running engine take it up with `yuzui reload`.",
        f"owner = {_toml(owner)}  # who answers for it",
        f"field = {_toml(city_field)}  # the city's field of work",
        f'codec = {_toml(codec)}  # what its payloads are',
        f"topics = {_toml(topics)}  # {{device}} stands for a level that names the device",
    ]  # fmt: skip
    if codec in ("json", "msgpack"):
        lines += _mapping(found, captured, any("{device}" in topic for topic in topics))
    lines += [
        '# time_zone = "Asia/Shanghai"  # of times without an offset; the city\'s if left out',
        '# point_id = "{source}-{device}-{quantity}"  # how point ids are made; "{device}-{quantity}" if left out',
        f"{'' if kind else '# '}kind = {_toml(kind or 'river_level')}  # of its points: decides limits and unit",
        "# interval_s = 60.0  # how often each point speaks; 0 is never dead",
        "",
    ]
    for name, value in (found.quantities if found else {}).items():
        lines += [
            f"[quantities.{_key(name)}]  # was {value}",
            'unit = ""',
            "# factor = 1.0  # stored = sent x factor",
            "",
        ]
    lines += [
        "# A device's points need no row in the registry. One table for each:",
        "# [devices.S07]",
        '# name = "Bridge gauge"',
        '# district = ""',
        "",
    ]
    return "\n".join(lines)


def _mapping(found: Guess | None, captured: str, device_in_topic: bool) -> Iterator[str]:
    if found is None:
        yield '# device = "station"  # path to the device; leave it out where the topic names it'
        yield 'time = "ts"  # when it was measured'
        yield 'time_unit = "ms"  # of numeric times; text is ISO 8601, or say time_format'
        yield 'value = "metrics.*"  # every entry of the object "metrics" is a reading; "list[].v": of an array'
        return
    yield f"# Guessed from {captured}: read it before you trust it."
    if found.device is not None:
        yield f"{'# ' if device_in_topic else ''}device = {_toml(found.device)}"
    elif not device_in_topic:
        yield '# device = "…"  # nothing looked like a device: name it, or put {device} into a topic'
    if found.quantity is not None:
        yield f"quantity = {_toml(found.quantity)}"
    if found.time is not None:
        yield f"time = {_toml(found.time)}"
        if found.time_format is not None:
            yield f"time_format = {_toml(found.time_format)}"
        if found.time_unit is not None:
            yield f"time_unit = {_toml(found.time_unit)}"
    else:
        yield 'time_from = "receive"  # nothing looked like a time: readings are timed when they arrive'
    yield f"value = {_toml(found.value)}"
    if found.flag is not None:
        yield f"flag = {_toml(found.flag)}"
    if found.text_numbers:
        yield "text_numbers = true  # numbers come as text"


def _toml(value: object) -> str:
    # A JSON string or array of strings is TOML, but for DEL and U+2028-like marks that TOML takes too.
    return orjson.dumps(value).decode()


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
