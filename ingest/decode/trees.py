"""Mappings as trees of keys, the way the kernel walks them (ingest.kernels.mapped).

Owns which mappings have a tree: those whose paths are keys, and in which keys that name something stand in the
innermost objects. What has none is left to ingest.codecs.mapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ingest.codecs.json_mapping import JsonMapping
from ingest.codecs.paths import Every, Path
from ingest.codecs.plan import Place, Plan
from ingest.kernels.mapped import (
    DEVICE,
    ELEMENTS,
    ENTRIES,
    FLAG,
    KEY_FIELDS,
    NOTHING,
    O_ARRAY,
    O_DEVICE_AT,
    O_DEVICE_BYTES,
    O_ENTRIES,
    O_OBJECT,
    O_QUANTITY_AT,
    O_QUANTITY_BYTES,
    O_TEXT_TIMES,
    ORIGIN_FIELDS,
    PLACE_FIELDS,
    QUANTITY,
    T_COUNT,
    T_ELEMENT,
    T_FIELD,
    T_FIRST,
    T_HERE,
    T_KEY,
    T_LAST,
    T_LEVEL,
    T_MANY,
    T_NEEDED,
    T_WANTED,
    TIME,
    VALUE,
    Trees,
)
from ingest.kernels.words import SLACK
from ingest.sourcesettings import SourceSettings

KEYS_MAX: Final = 62
"""Of one object: which were met is kept in the bits of a word."""


class NoTree(Exception):  # noqa: N818 - says what is so
    """The mapping has something the kernel does not walk."""


class _Grower:
    """One plan's places and keys as they grow."""

    def __init__(self) -> None:
        self.places: list[list[int]] = []
        self.keys: list[dict[str, int]] = []
        self.wanted: dict[int, dict[str, int]] = {}

    def place(self) -> int:
        fresh = [0] * PLACE_FIELDS
        for field in (T_FIELD, T_ELEMENT, T_LEVEL, T_KEY):
            fresh[field] = NOTHING
        self.places.append(fresh)
        self.keys.append({})
        return len(self.places) - 1

    def below(self, place: int, path: Path) -> int:
        """The place at a path of keys."""
        for step in path:
            here = self.places[place]
            if not isinstance(step, str) or here[T_FIELD] != NOTHING or (here[T_MANY] and not here[T_WANTED]):
                raise NoTree
            name = _plain(step)
            if name not in self.keys[place]:
                self.keys[place][name] = self.place()
            place = self.keys[place][name]
        return place


def _plain(name: str) -> str:
    """A key that stands in JSON as it is."""
    if not name or not name.isprintable() or '"' in name or "\\" in name:
        raise NoTree
    return name


def _grow(grower: _Grower, plan: Plan, words: dict[str, int]) -> int:
    """Places of one plan; the body's. Raises NoTree."""
    said = {DEVICE: plan.device, QUANTITY: plan.quantity, TIME: plan.time, VALUE: plan.value, FLAG: plan.flag}
    roots = [grower.place()]
    for number, level in enumerate(plan.levels):
        holder = grower.below(roots[-1], level.path)
        element = grower.place()
        roots.append(element)
        many = grower.places[holder]
        if many[T_MANY] or many[T_FIELD] != NOTHING or grower.keys[holder]:
            raise NoTree
        many[T_ELEMENT] = element
        many[T_MANY] = ELEMENTS if level.every is Every.ELEMENT else ENTRIES
        if level.every is Every.ENTRY:
            _entries(grower, plan, number + 1, element)
            if level.wanted is not None:
                many[T_WANTED] = 1
                grower.wanted[holder] = {_plain(name): element for name in level.wanted}
    for depth, root in enumerate(roots):
        grower.places[root][T_LEVEL] = depth
    grower.places[roots[-1]][T_LAST] = 1
    for field, place in said.items():
        if place is not None and place.constant is None:
            _say(grower, roots[place.level], field, place, words)
    for holder, wanted in grower.wanted.items():
        # Beside entries that are wanted may stand what is said of all: {"ts": …, "rain": …, "level": …}.
        if len(grower.keys[holder]) > KEYS_MAX or not wanted.keys().isdisjoint(grower.keys[holder]):
            raise NoTree
        grower.keys[holder] |= wanted
    return roots[0]


def _entries(grower: _Grower, plan: Plan, level: int, element: int) -> None:
    """The key of an innermost entry says device or quantity; nothing below says the other: then a key that stands
    twice is found by the name it gives."""
    names = {DEVICE: plan.device, QUANTITY: plan.quantity}
    by_key = [field for field, place in names.items() if place is not None and place.key]
    if level != len(plan.levels) or len(by_key) != 1:
        raise NoTree
    (field,) = by_key
    key = names[field]
    other = names[DEVICE + QUANTITY - field]
    if (
        key is None
        or key.level != level
        or (other is not None and other.constant is None and other.level >= level)
    ):
        raise NoTree
    grower.places[element][T_KEY] = field


def _say(grower: _Grower, root: int, field: int, place: Place, words: dict[str, int]) -> None:
    """A field at its place below the element of its level."""
    bit = 1 << field
    grower.places[root][T_HERE] |= bit
    if field in (VALUE, QUANTITY):
        grower.places[root][T_NEEDED] |= bit
    if place.key:
        return
    there = grower.below(root, place.path)
    if grower.places[there][T_FIELD] != NOTHING or grower.places[there][T_MANY] or grower.keys[there]:
        raise NoTree
    grower.places[there][T_FIELD] = field
    if field == FLAG:
        grower.keys[there] = {_plain(word): flag for word, flag in words.items()}


def trees_of(codecs: Sequence[tuple[object, SourceSettings]]) -> Trees:
    """The trees of all sources, in their order; of those without one the origins lead nowhere."""
    places: list[list[int]] = []
    keys: list[list[int]] = []
    pool = bytearray()
    origins = np.zeros((len(codecs), ORIGIN_FIELDS), np.int64)
    origins[:, [O_OBJECT, O_ARRAY]] = NOTHING
    for number, (codec, settings) in enumerate(codecs):
        if not isinstance(codec, JsonMapping) or settings.event is not None:
            continue
        one, many = codec.plans
        by_body = {O_ARRAY: one} if many is None else {O_OBJECT: one, O_ARRAY: many}
        grown = [(_grown(plan, settings), where) for where, plan in by_body.items()]
        for made, where in grown:
            if made is not None:
                origins[number, where] = _plant(made, places, keys, pool)
        origins[number, O_TEXT_TIMES] = settings.time_format is None
        origins[number, O_ENTRIES] = any(
            row[T_MANY] == ENTRIES for made, _ in grown if made for row in made.places
        )
        for name, at, size in (
            ("device", O_DEVICE_AT, O_DEVICE_BYTES),
            ("quantity", O_QUANTITY_AT, O_QUANTITY_BYTES),
        ):
            said = getattr(settings, name)
            constant = said[1:].encode() if said is not None and said.startswith("=") else b""
            origins[number, at], origins[number, size] = len(pool), len(constant)
            pool += constant
    pool += bytes(SLACK)
    return Trees(
        np.array(places, np.int64).reshape(-1, PLACE_FIELDS),
        np.array(keys, np.int64).reshape(-1, KEY_FIELDS),
        origins,
        np.frombuffer(bytes(pool), np.uint8).copy(),
    )


def _grown(plan: Plan, settings: SourceSettings) -> _Grower | None:
    grower = _Grower()
    try:
        _grow(grower, plan, settings.flags)
    except NoTree:
        return None
    crowded = any(
        len(keys) > KEYS_MAX and row[T_MANY] != ENTRIES
        for keys, row in zip(grower.keys, grower.places, strict=True)
    )
    return None if crowded else grower


def _plant(grown: _Grower, places: list[list[int]], keys: list[list[int]], pool: bytearray) -> int:
    """Add one tree to all; where its body's place is."""
    base = len(places)
    for row, below in zip(grown.places, grown.keys, strict=True):
        row[T_FIRST], row[T_COUNT] = len(keys), len(below)
        if row[T_ELEMENT] != NOTHING:
            row[T_ELEMENT] += base
        for name, leads_to in below.items():
            raw = name.encode()
            keys.append([len(pool), len(raw), leads_to + (0 if row[T_FIELD] == FLAG else base)])
            pool += raw
        places.append(row)
    return base
