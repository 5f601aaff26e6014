"""Tables of a config that may be broken elsewhere: what the rules about agreeing keys look at it through.

Owns taking a table without its broken keys. Knows no rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ingest.configfaults import Loc
from storage.settings import Settings

Found = Iterator[tuple[Loc, str]]
Table = TypeVar("Table", bound=Settings)


def whole_table(model: type[Table], raw: Any, loc: Loc, broken: set[Loc]) -> Table | None:
    """A table without its broken keys; None where that leaves no table."""
    if not isinstance(raw, dict):
        return None
    depth = len(loc)
    bad = {place[depth] for place in broken if len(place) > depth and place[:depth] == loc}
    try:
        return model.model_validate({key: value for key, value in raw.items() if key not in bad})
    except ValidationError:
        return None


def array(model: type[Table], raw: Any, name: str, broken: set[Loc]) -> Iterator[tuple[Loc, Table]]:
    """The tables of an array that are whole, each with its place."""
    for index, one in enumerate(raw if isinstance(raw, list) else ()):
        found = whole_table(model, one, (name, index), broken)
        if found is not None:
            yield (name, index), found


def unique(raw: Any, name: str, key: str) -> Found:
    """Entries of an array that share the value of ``key`` with an earlier one."""
    first: dict[str, int] = {}
    for index, one in enumerate(raw if isinstance(raw, list) else ()):
        value = one.get(key) if isinstance(one, dict) else None
        if not isinstance(value, str):
            continue
        if value in first:
            yield (name, index, key), f"the same {key} as $.{name}[{first[value]}]"
        first.setdefault(value, index)


def existing(loc: Loc, table: Settings, keys: tuple[str, ...]) -> Found:
    """Keys that name files which are not there."""
    for key in keys:
        name = getattr(table, key)
        if name is not None and not Path(name).is_file():
            yield (*loc, key), f'no such file: "{name}"'
