"""How a fault of the config is told: its path, what was expected, what was found, and no secret.

Owns the wording and the masking. Knows nothing of files or of rules between tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

Loc = tuple[str | int, ...]

SHOWN_CHARS_MAX = 60
"""Of a wrong value: enough to recognise it, short enough for one line."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_KEY = re.compile(r"pass|secret|token|credential|api_?key", re.IGNORECASE)
_MASK = "***"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: ``$.listener.port``, what and why, and the file that says it."""

    path: str
    message: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigFaults(Exception):  # noqa: N818 (all the faults, not one error)
    """The config is refused. ``faults`` holds everything found wrong, in the order of the files.

    data_dir  what it says of the data folder all the same; None where that cannot be told
    """

    def __init__(self, faults: Iterable[Fault], data_dir: str | None = None) -> None:
        self.faults = list(faults)
        self.data_dir = data_dir
        lines = (
            f"{fault} (in {fault.file})"
            if fault.file and not fault.path.startswith(fault.file)
            else str(fault)
            for fault in self.faults
        )
        super().__init__("\n".join(lines))


class Filled(str):
    """Text that ${VAR} gave part of. It is told as it was written: the environment holds secrets.

    whole: nothing but one ${VAR} was written, so it may stand for a number or a truth value.
    """

    __slots__ = ("whole", "written")
    written: str
    whole: bool

    def __new__(cls, text: str, written: str, whole: bool) -> Filled:
        """The substituted ``text``, remembering what was ``written``."""
        filled = super().__new__(cls, text)
        filled.written = written
        filled.whole = whole
        return filled


def spelled(loc: Loc) -> str:
    """The path of a place in the config.

    >>> spelled(("subscriber", 0, "qos")), spelled(("kinds", "air temp"))
    ('$.subscriber[0].qos', '$.kinds."air temp"')
    """
    path = "$"
    for key in loc:
        if isinstance(key, int):
            path += f"[{key}]"
        else:
            path += f".{key}" if _BARE_KEY.fullmatch(key) else f'."{_plain(key)}"'
    return path


def shown(loc: Loc, value: object) -> str:
    """A value as a message may tell it: short, on one line, secrets masked.

    >>> shown(("listener", "port"), "abc"), shown(("subscriber", 0, "password"), "abc"), shown((), True)
    ('"abc"', '***', 'true')
    """
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    key = next((k for k in reversed(loc) if isinstance(k, str)), "")
    if _SECRET_KEY.search(key) and not key.endswith("_file"):
        return _MASK
    if isinstance(value, Filled):
        value = value.written
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    text = _plain(shown_url(value) if "://" in value else value)
    return f'"{text[:SHOWN_CHARS_MAX]}…"' if len(text) > SHOWN_CHARS_MAX else f'"{text}"'


def shown_url(url: str) -> str:
    """A URL without what lets one in: user, password, and the path and query of a web hook.

    >>> shown_url("https://me:hush@hooks.example/T0/key?token=1")
    'https://***@hooks.example/…'
    """
    scheme, _, rest = url.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # An unescaped "/" in a password would end the place early and leave half of it standing.
    if "@" in rest:
        place = f"{_MASK}@{re.split(r'[/?#]', rest.rpartition('@')[2], maxsplit=1)[0]}"
    return f"{scheme}://{place}" + ("" if rest.endswith(place) else "/…")


def worded(config: type[BaseModel], told: Any, written: str | None = None) -> str:
    """What pydantic found wrong, in our words.

    told     one of ValidationError.errors()
    written  what the file says where the value came from the environment
    """
    loc: Loc = tuple(told["loc"])
    kind: str = told["type"]
    context: dict[str, Any] = told.get("ctx") or {}
    if kind == "extra_forbidden":
        near = get_close_matches(str(loc[-1]), keys_at(config, loc[:-1]), n=1)
        return f'unknown key (did you mean "{near[0]}"?)' if near else "unknown key"
    if kind == "missing":
        return "required, but missing"
    value = told["input"]
    got = f'"{written}"' if written is not None else shown(loc, value)
    if kind == "value_error":
        message = str(told["msg"]).removeprefix("Value error, ")
        return message.replace(str(value), value.written) if isinstance(value, Filled) else message
    return f"expected {_expected(kind, context, str(told['msg']))}, got {got}"


_TYPES = {
    "int_type": "int",
    "int_from_float": "int",
    "float_type": "number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _expected(kind: str, context: dict[str, Any], otherwise: str) -> str:
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"{word} {context[key]:g}" if isinstance(context[key], float) else f"{word} {context[key]}"
    if kind == "literal_error":
        return str(context["expected"]).replace("'", '"')
    if kind == "string_pattern_mismatch":
        return f"a match of {context['pattern']}"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "string_too_short":
        return f"at least {context['min_length']} characters"
    if kind == "too_short":
        return f"at least {context['min_length']} entries"
    if kind == "too_long":
        return f"at most {context['max_length']} entries"
    return otherwise[:1].lower() + otherwise[1:]


def keys_at(config: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that a table of the config may hold; none where there is no table of fixed keys."""
    model: type[BaseModel] | None = config
    for key in loc:
        if isinstance(key, int) or model is None:
            continue
        info = model.model_fields.get(key)
        # Below [kinds] the next key is a name of the operator's choice: the model stays.
        if info is not None:
            model = model_in(info.annotation)
    return [info.alias or name for name, info in model.model_fields.items()] if model is not None else []


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The table inside an annotation: that of ``list[Table]`` and ``dict[str, Table]`` too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := model_in(part))), None)


def _plain(text: str) -> str:
    """No control characters: a message is one line of a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
