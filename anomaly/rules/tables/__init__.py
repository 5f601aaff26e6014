"""The rule tables: limits of standards and plans as data, each with its source and the days it holds.

Owns the reading of the TOML files beside it. Knows no rule and no point.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Final

_ABOUT: Final = ("source", "effective_from", "effective_to", "verify")


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of a standard.

    numbers         its keys other than these
    source          where the numbers stand
    effective_from, effective_to  first and last day in the city's time; None: always
    verify          no primary source was at hand: ask the responsible office before anything depends on it
    """

    numbers: Mapping[str, Any]
    source: str
    effective_from: date | None
    effective_to: date | None
    verify: bool

    def __getitem__(self, key: str) -> Any:
        return self.numbers[key]


@cache
def entries(file: str, name: str) -> tuple[Entry, ...]:
    """All ``[[name]]`` of ``file``.toml, in its order. Raises KeyError for an unknown name or a missing source."""
    return tuple(_entry(table) for table in _file(file)[name])


@cache
def names() -> tuple[tuple[str, str], ...]:
    """(file, name) of every table there is."""
    found = sorted(
        f.name.removesuffix(".toml") for f in files(__name__).iterdir() if f.name.endswith(".toml")
    )
    return tuple((file, name) for file in found for name in _file(file))


@cache
def _file(file: str) -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads((files(__name__) / f"{file}.toml").read_text("utf-8"))


def _entry(table: dict[str, Any]) -> Entry:
    return Entry(
        {key: value for key, value in table.items() if key not in _ABOUT},
        table["source"],
        table.get("effective_from"),
        table.get("effective_to"),
        table.get("verify", False),
    )
