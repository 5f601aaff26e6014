"""The config as files: one TOML, its drop-in folder, ${VAR}; every fault at once with its path.

Owns reading, merging, substitution and the wording of faults. The tables themselves are
ingest.config, what must agree between them is ingest.configrules. Connects to nothing.

A value of a secret never enters a message, and neither does anything that came from the environment.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ingest.config import Config
from ingest.configfaults import ConfigFaults, Fault, Filled, Loc, model_in, spelled, worded
from ingest.configrules import rule_faults
from ingest.sourcesettings import SourcesSettings

__all__ = ["ConfigFaults", "Fault", "load"]

# The escape first: "$${" is a literal "${". The last branch is a "${" that opens nothing we know.
_SUBSTITUTION = re.compile(
    r"(?P<escape>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<how>[-?])(?P<text>[^}]*))?\}|(?P<bad>\$\{)"
)
_SYNTAX = re.compile(r"^(?P<what>.*) \(at (?P<where>.+)\)$", re.DOTALL)


@dataclass(slots=True)
class _Reading:
    """One load under way: the merged tables, who said what, and the faults so far.

    said_in  the file of each key and array entry
    written  what stood where the environment gave a number or truth value
    broken   places with a fault: the rules leave these alone
    bodies   sources that are files of their own: a place in the file is told, not in the whole
    """

    file: Path
    env: Mapping[str, str]
    tables: dict[str, Any] = field(default_factory=dict)
    said_in: dict[Loc, str] = field(default_factory=dict)
    written: dict[Loc, str] = field(default_factory=dict)
    broken: set[Loc] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    bodies: dict[Loc, str] = field(default_factory=dict)

    def fault(self, loc: Loc, message: str, file: str | None = None) -> None:
        self.broken.add(loc)
        body = self.bodies.get(loc[:2])
        path = spelled(loc) if body is None else f"{body}: {spelled(loc[2:])}"
        self.faults.append(Fault(path, message, file or self.file_of(loc)))

    def file_of(self, loc: Loc) -> str:
        """The file that said the nearest part of ``loc``; the main file for what nobody said."""
        for end in range(len(loc), 0, -1):
            if loc[:end] in self.said_in:
                return self.said_in[loc[:end]]
        return self.file.name


def load(path: Path, env: Mapping[str, str] | None = None, *, source: Path | None = None) -> Config:
    """The config in ``path`` and its drop-in folder, checked offline.

    Drop-ins are ``NAME.d/*.toml`` beside ``NAME.toml``, in order of name: tables merge, arrays of
    tables append, and a value said twice must be said the same. ``${VAR}`` is taken from ``env``
    (default: the environment). Relative paths (keys ``dir``, ``file``, ``*_file`` and ``*_dir``, defaults too) are made
    absolute against the folder of ``path``, whichever file says them.

    Raises ConfigFaults with every fault found.
    """
    reading = _Reading(path, os.environ if env is None else env)
    for file in (path, *_listed(reading, drop_in_folder(path))):
        name = file.name if file == path else f"{file.parent.name}/{file.name}"
        tables = _parsed(file, name, reading)
        if tables is not None:
            _merge(reading, reading.tables, tables, (), name)
        elif file == path:
            # Without the main file everything else would be found missing.
            raise ConfigFaults(reading.faults)
    _fill(reading, reading.tables, ())
    _add_sources(reading, source)
    _say_default_paths(reading.tables)
    _make_absolute(reading.tables, path.absolute().parent, Config)
    config = _validated(reading)
    if config is None or reading.faults:
        said = _value_at(reading.tables, ("data", "dir"))
        raise ConfigFaults(reading.faults, said if isinstance(said, str) and said else None)
    return config


def load_source(file: Path, env: Mapping[str, str] | None = None) -> Config:
    """A config of nothing but one source's file. Raises ConfigFaults."""
    reading = _Reading(file, os.environ if env is None else env)
    reading.tables["sources"] = {"dir": os.devnull}
    _add_sources(reading, file)
    config = _validated(reading)
    if config is None or reading.faults:
        raise ConfigFaults(reading.faults)
    return config


def _add_sources(reading: _Reading, instead: Path | None = None) -> None:
    """Append the files of ``[sources] dir`` to the array ``source``."""
    files = _listed(reading, sources_folder(reading.file, reading.tables))
    if instead is not None:
        files = [*(file for file in files if file.name != instead.name), instead]
    for file in files:
        name = f"{file.parent.name}/{file.name}"
        sources = reading.tables.setdefault("source", [])
        if not isinstance(sources, list):
            return  # a fault of its own
        loc: Loc = ("source", len(sources))
        reading.bodies[loc] = name
        body = _parsed(file, name, reading, loc)
        if body is None:
            # The next file takes its place.
            del reading.bodies[loc]
            reading.broken.discard(loc)
            continue
        reading.said_in[loc] = name
        _remember(reading, body, loc, name)
        if isinstance(body.get("source"), list):
            reading.fault((*loc, "source"), "the file is the body of one source: leave out [[source]]")
            del body["source"]
        body.setdefault("name", file.stem)
        sources.append(body)
        _fill(reading, body, loc)


def sources_folder(path: Path, tables: Mapping[str, Any]) -> Path:
    """The folder of the sources' files, by the merged tables of the config in ``path``."""
    said = tables.get("sources")
    name = said.get("dir") if isinstance(said, dict) else None
    return path.absolute().parent / (name if isinstance(name, str) else SourcesSettings().dir)


def toml_files(folder: Path) -> list[Path]:
    """The TOML files of a folder in order of name; none where there is no folder. Raises OSError.

    A folder we may not read is no empty one, as glob would have it: an engine would start without its sources.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    # Editors leave dot files beside what they edit.
    return [folder / name for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")]


def _listed(reading: _Reading, folder: Path) -> list[Path]:
    try:
        return toml_files(folder)
    except OSError as error:
        reading.faults.append(Fault(folder.name, f"cannot be read: {error.strerror}", folder.name))
        return []


def drop_in_folder(path: Path) -> Path:
    """The folder whose ``*.toml`` belong to ``path``: ``city.d`` for ``city.toml``."""
    return path.with_suffix(".d")


def _parsed(file: Path, name: str, reading: _Reading, loc: Loc = ()) -> dict[str, Any] | None:
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        reading.fault(loc, f"cannot be read: {error.strerror}", name)
    except UnicodeDecodeError as error:
        reading.fault(loc, f"not UTF-8 (byte {error.start})", name)
    except tomllib.TOMLDecodeError as error:
        told = _SYNTAX.match(str(error))
        message = f"{told['where']}: {told['what']}" if told else str(error)
        reading.fault(loc, f"not TOML: {message}", name)
    except RecursionError:
        reading.fault(loc, "not TOML that can be read: nested too deeply", name)
    return None


def _merge(reading: _Reading, into: dict[str, Any], new: dict[str, Any], loc: Loc, file: str) -> None:
    for key, value in new.items():
        here = (*loc, key)
        if key not in into:
            into[key] = value
            reading.said_in[here] = file
            _remember(reading, value, here, file)
            continue
        old = into[key]
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(reading, old, value, here, file)
        elif _is_tables(old) and _is_tables(value):
            for offset, table in enumerate(value):
                _remember(reading, [table], here, file, first=len(old) + offset)
            old.extend(value)
        elif type(old) is not type(value) or old != value:
            # The first value stands, so that it is checked as well.
            message = f"said differently in {reading.file_of(here)} and {file}"
            reading.faults.append(Fault(spelled(here), message, file))


def _remember(reading: _Reading, value: Any, loc: Loc, file: str, first: int = 0) -> None:
    """Note who said the parts of ``value``: only below them can two files meet in one table."""
    if isinstance(value, dict):
        for key, part in value.items():
            reading.said_in[(*loc, key)] = file
            _remember(reading, part, (*loc, key), file)
    elif isinstance(value, list):
        for index in range(len(value)):
            reading.said_in[(*loc, first + index)] = file


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _fill(reading: _Reading, parent: Any, loc: Loc) -> None:
    """Replace ``${…}`` in every string below ``parent``, in place; numbers must be finite."""
    for key, value in list(parent.items() if isinstance(parent, dict) else enumerate(parent)):
        here = (*loc, key)
        if isinstance(value, str) and "${" in value:
            parent[key] = _filled(reading, value, here)
        elif isinstance(value, float) and not math.isfinite(value):
            reading.fault(here, f"expected a finite number, got {value}")
            parent[key] = 0.0
        elif isinstance(value, dict | list):
            _fill(reading, value, here)


def _filled(reading: _Reading, text: str, loc: Loc) -> str:
    def one(found: re.Match[str]) -> str:
        if found["escape"]:
            return "${"
        if found["bad"]:
            reading.fault(loc, "expected ${VAR}, ${VAR:-default}, ${VAR:?message}, or $${ for a plain ${")
            return ""
        name, how, alternative = found["name"], found["how"], found["text"]
        value = reading.env.get(name)
        if how == "-":
            return value or alternative
        if how == "?" and not value:
            reading.fault(loc, f"{name} is not set: {alternative or 'it is required'}")
        elif value is None:
            reading.fault(loc, f"{name} is not set (${{{name}:-default}} would allow that)")
        return value or ""

    whole = _SUBSTITUTION.fullmatch(text)
    return Filled(_SUBSTITUTION.sub(one, text), written=text, whole=bool(whole and whole["name"]))


def _say_default_paths(tables: dict[str, Any]) -> None:
    """Write out defaults that are relative paths, so that they start at the same folder as the others."""
    for name, info in Config.model_fields.items():
        default = info.get_default(call_default_factory=True)
        for key in type(default).model_fields if isinstance(default, BaseModel) else ():
            value = getattr(default, key)
            table = tables.setdefault(name, {}) if is_path_key(key) and isinstance(value, str) else None
            if isinstance(table, dict):
                table.setdefault(key, value)


def _make_absolute(parent: Any, folder: Path, table: type[BaseModel] | None) -> None:
    """``table``: what the config has here. A name of the operator's choice (an attribute "photo_file") is no key."""
    for key, value in parent.items() if isinstance(parent, dict) else enumerate(parent):
        known = table.model_fields.get(key) if table is not None and isinstance(key, str) else None
        if isinstance(value, dict | list):
            inner = table if isinstance(parent, list) else known and model_in(known.annotation)
            _make_absolute(value, folder, inner or None)
        elif known is not None and is_path_key(key) and isinstance(value, str) and value:
            absolute = os.path.abspath(folder / value)
            parent[key] = Filled(absolute, value.written, False) if isinstance(value, Filled) else absolute


def is_path_key(key: object) -> bool:
    """Whether a key names a file or folder; the rule that relative paths go by."""
    return isinstance(key, str) and (key in ("dir", "file") or key.endswith(("_file", "_dir")))


def _validated(reading: _Reading) -> Config | None:
    """The config, None where a table is refused; the rules check whatever tables are whole."""
    config, errors = _checked(reading.tables)
    if _convert(reading, errors):
        config, errors = _checked(reading.tables)
    for told in errors:
        loc: Loc = tuple(told["loc"])
        if loc not in reading.broken:
            reading.fault(loc, worded(Config, told, reading.written.get(loc)))
    for loc, message in rule_faults(reading.tables, reading.broken):
        value = _value_at(reading.tables, loc)
        reading.fault(
            loc, message.replace(value, value.written) if isinstance(value, Filled) and value else message
        )
    return config


def _value_at(tables: Any, loc: Loc) -> Any:
    """What the merged tables say at a place; None where they say nothing."""
    value = tables
    for key in loc:
        if isinstance(value, list) and isinstance(key, int):
            value = value[key]
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _checked(tables: dict[str, Any]) -> tuple[Config | None, list[ErrorDetails]]:
    try:
        return Config.model_validate(tables), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


_TRUTH = {"true": True, "false": False}


def _convert(reading: _Reading, errors: list[ErrorDetails]) -> bool:
    """Give ${PORT} as the number or truth value its field asked for; True where anything changed."""
    for told in errors:
        loc: Loc = tuple(told["loc"])
        text = told["input"]
        if not (isinstance(text, Filled) and text.whole):
            continue
        value = _read_as(told, text)
        if value is not None:
            parent: Any = reading.tables
            for key in loc[:-1]:
                parent = parent[key]
            parent[loc[-1]] = value
            reading.written[loc] = text.written
    return bool(reading.written)


def _read_as(told: ErrorDetails, text: str) -> int | float | bool | None:
    """``text`` in the type its field asked for, None where it does not read as one."""
    wanted = told["type"]
    try:
        if wanted == "bool_type":
            return _TRUTH.get(text.lower())
        if wanted == "int_type" or (wanted == "literal_error" and "'" not in told["ctx"]["expected"]):
            return int(text)
        if wanted == "float_type" and math.isfinite(float(text)):
            return float(text)
    except ValueError:
        pass
    return None
