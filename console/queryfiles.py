"""Query files: a question to the lake with its title, its parameters and the chart it makes (docs/queries.md).

Owns the form of such a file and what may be said for a parameter. Opens no file and runs nothing.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
FILE_BYTES_MAX: Final = 65_536
"""A question a person wrote is far below."""
TEXT_CHARS_MAX: Final = 200
"""Of a value: longer than any name that is asked for."""
RESERVED: Final = frozenset({"format"})
"""Words of the API beside parameters."""
GROUPS: Final = ("flood", "alerts", "quality", "video", "appeals", "food", "projects", "services", "other")
"""Under which a question stands on the page, in this order."""
OF_REGISTRY: Final = frozenset({"district", "kind", "source"})
"""Types whose choices are the city's own; "" is all of them."""
_PARAMETER: Final = re.compile(r"\$([A-Za-z_]\w*)")
_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_MOMENT: Final = re.compile(r"(now|today|month)((?:[+-]\d{1,5}[mhd])*)")
_STEP: Final = re.compile(r"([+-]\d+)([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}

Short = Annotated[str, Field(min_length=1, max_length=120)]


class QueryFault(ValueError):  # noqa: N818 - says what happened
    """What is wrong with a file, every fault in a line."""


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Choice(_Said):
    """One value that may be chosen."""

    value: str | float
    zh: str = ""
    en: str = ""


class Parameter(_Said):
    """One parameter. Of times ``default`` is a moment such as now-24h, today+8h or month-365d."""

    zh: Short
    en: Short
    type: Literal["text", "number", "integer", "time", "district", "kind", "source"]
    default: str | float
    choices: list[Choice | str] = Field(default_factory=list, max_length=100)
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Parameter:
        if self.type not in ("number", "integer") and (self.min is not None or self.max is not None):
            raise ValueError("min and max are for numbers")
        if self.choices and self.type in OF_REGISTRY | {"time"}:
            raise ValueError(f"the choices of a {self.type} are not said here")
        if self.type == "time":
            _offsets(str(self.default))
        else:
            self.value(self.default)
        return self

    def choice_list(self) -> list[Choice]:
        """The choices, each with its names."""
        return [one if isinstance(one, Choice) else Choice(value=one, zh=one, en=one) for one in self.choices]

    def value(self, said: str | float) -> str | float:
        """What is bound for ``said``; not of times. Raises ValueError with what is wrong."""
        if self.type in ("number", "integer"):
            value: str | float = self._number(said)
        elif not isinstance(said, str):
            raise ValueError("text is wanted")
        elif len(said) > TEXT_CHARS_MAX or "\0" in said:
            raise ValueError(f"at most {TEXT_CHARS_MAX} characters")
        else:
            value = said
        if self.choices and value not in [one.value for one in self.choice_list()]:
            raise ValueError("none of the choices")
        return value

    def _number(self, said: str | float) -> float:
        try:
            value = float(said)
        except ValueError:
            raise ValueError("a number is wanted") from None
        if not math.isfinite(value) or abs(value) > 1e12:
            raise ValueError("out of range")
        if self.type == "integer" and value != int(value):
            raise ValueError("a whole number is wanted")
        low, high = self.min, self.max
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"must be {_between(low, high)}")
        return int(value) if self.type == "integer" else value


class Column(_Said):
    """How a column is called and shown; ``form`` share shows 0.92 as 92 %."""

    zh: Short
    en: Short
    unit: str = ""
    form: Literal["", "share"] = ""


class Chart(_Said):
    """bars over a text, or lines over a time; ``by`` names the column that tells lines apart."""

    form: Literal["bars", "lines"]
    x: Short
    y: list[Short] = Field(min_length=1, max_length=6)
    by: str = ""


class Head(_Said):
    """What the comment at the top says."""

    zh: Short
    en: Short
    about_zh: str = ""
    about_en: str = ""
    group: Literal[GROUPS] = "other"  # type: ignore[valid-type]
    chart: Chart | None = None
    columns: dict[str, Column] = Field(default_factory=dict)
    parameters: dict[str, Parameter] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _names(cls, said: dict[str, Parameter]) -> dict[str, Parameter]:
        wrong = [name for name in said if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) or name in RESERVED]
        if wrong:
            raise ValueError(f"no name of a parameter: {', '.join(wrong)[:200]}")
        return said


@dataclass(frozen=True, slots=True)
class Query:
    """A question that can be asked: ``sql`` with $names of its parameters."""

    name: str
    head: Head
    sql: str

    def arguments(self, said: Mapping[str, str], now: datetime) -> dict[str, Any]:
        """What is bound: text, numbers and, of times, aware datetimes. ``now`` is in the city's zone.

        Raises ValueError that names the parameter.
        """
        if unknown := sorted(set(said) - set(self.head.parameters)):
            raise ValueError(f"no parameter of this query: {', '.join(unknown)[:200]}")
        bound: dict[str, Any] = {}
        for name, parameter in self.head.parameters.items():
            value = said.get(name, parameter.default)
            try:
                bound[name] = moment(str(value), now) if parameter.type == "time" else parameter.value(value)
            except ValueError as fault:
                raise ValueError(f"{name}: {fault}") from None
        return bound


def read(name: str, text: str) -> Query:
    """The query in a file's text. Raises QueryFault."""
    if not NAME.fullmatch(name):
        raise QueryFault("the file's name has small letters, digits, - and _, at most 64, before .sql")
    lines = text.removeprefix("\ufeff").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    if not end:
        raise QueryFault('it must begin with a comment that says at least -- zh = "…" and -- en = "…"')
    try:
        said = tomllib.loads("\n".join(line[2:].removeprefix(" ") for line in lines[:end]))
    except tomllib.TOMLDecodeError as fault:
        raise QueryFault(f"the comment at its top is not TOML: {fault}") from None
    try:
        head = Head.model_validate(said)
    except ValidationError as wrong:
        raise QueryFault("; ".join(_worded(fault) for fault in wrong.errors())) from None
    sql = "\n".join(lines[end:]).strip().removesuffix(";")
    if not sql:
        raise QueryFault("there is no statement below the comment")
    used = set(_PARAMETER.findall(_QUOTED.sub(" ", sql)))
    if unsaid := sorted(used - set(head.parameters)):
        raise QueryFault(f"the statement has ${unsaid[0]}, of which [parameters.{unsaid[0]}] says nothing")
    if unused := sorted(set(head.parameters) - used):
        raise QueryFault(f"[parameters.{unused[0]}] is not in the statement as ${unused[0]}")
    return Query(name, head, sql)


def moment(said: str, now: datetime) -> datetime:
    """A time: seconds since 1970, ISO 8601 (of the zone of ``now`` if without offset), today+8h. Raises ValueError."""
    try:
        begin, offset = _offsets(said)
    except ValueError:
        return _absolute(said, now.tzinfo)
    if begin == "today":
        now = now.replace(hour=0, minute=0, second=0, microsecond=0)
    elif begin == "month":
        now = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return now + offset


def _offsets(said: str) -> tuple[str, timedelta]:
    found = _MOMENT.fullmatch(said)
    if found is None:
        raise ValueError("a moment is now, today or month with steps such as -24h or +8h")
    steps = [timedelta(**{_UNITS[unit]: int(n)}) for n, unit in _STEP.findall(found[2])]
    return found[1], sum(steps, timedelta())


def _absolute(said: str, zone: tzinfo | None) -> datetime:
    try:
        seconds = float(said)
        if not 0 <= seconds < 1e11:
            raise ValueError("a time lies after 1970")
        return datetime.fromtimestamp(seconds, zone)
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise ValueError("a time is seconds since 1970, ISO 8601, or such as now-24h") from None
    return at if at.tzinfo else at.replace(tzinfo=zone)


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"


def _worded(fault: Any) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    text = str(fault["msg"]).removeprefix("Value error, ")
    return f"{path}: {text}" if path else text
