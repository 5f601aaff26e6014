"""configs/sample.toml shows every option there is, and its "default" is the default."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ingest.config import Config
from ingest.configfaults import keys_at, model_in
from ingest.configfile import is_path_key, load
from ingest.reference import tables

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "configs" / "sample.toml"
TEXT = SAMPLE.read_text("utf-8")
ALL_TEXT = re.sub(r"^# (\w+ = .*)$", r"\1", TEXT, flags=re.MULTILINE)


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A table's keys as they are written."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def shown_at(loc: tuple[str, ...]) -> dict[str, Any]:
    """The sample's table at a place; of an array the first example, and what only the others say."""
    table: Any = tomllib.loads(ALL_TEXT)
    model: type[BaseModel] | None = Config
    for key in loc:
        assert model is not None
        annotation = model.model_fields[key].annotation
        table = table[key]
        if isinstance(table, list):
            table = {name: value for one in reversed(table) for name, value in one.items()}
        elif get_origin(annotation) is dict:
            table = next(iter(table.values()))
        model = model_in(annotation)
    assert isinstance(table, dict)
    return table


def option_lines() -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(table, key, comment) of every option in the sample, commented out or not."""
    known = dict(tables(Config))
    loc: tuple[str, ...] = ()
    for line in ALL_TEXT.splitlines():
        if head := re.fullmatch(r"\[+([\w.-]+)\]+", line):
            loc = tuple(head[1].split("."))
            while loc not in known:  # the last part is a name, of a kind or a point
                loc = loc[:-1]
        elif option := re.match(r"(\w+) = (.*)$", line):
            rest = option[2]
            yield loc, option[1], rest.rpartition("  # ")[2] if "  # " in rest else ""


def test_the_sample_is_a_config_without_a_fault() -> None:
    config = load(SAMPLE, env={})
    assert config.subscriber[0].password == "change-me"
    assert config.data.dir == str(SAMPLE.parent / "data")


@pytest.mark.parametrize(
    ("loc", "model"), list(tables(Config)), ids=lambda p: ".".join(p) if isinstance(p, tuple) else ""
)
def test_every_key_of_a_table_stands_in_the_sample(loc: tuple[str, ...], model: type[BaseModel]) -> None:
    shown = shown_at(loc)
    assert sorted(keys_of(model).keys() - shown.keys()) == []
    assert sorted(shown.keys() - keys_of(model).keys()) == []


def test_what_is_commented_out_has_the_right_type_too() -> None:
    Config.model_validate(tomllib.loads(ALL_TEXT))


def test_every_option_says_in_its_line_what_it_is_for() -> None:
    assert [(loc, key) for loc, key, comment in option_lines() if not comment] == []


def test_a_value_marked_default_is_the_default_and_only_such_a_value_is() -> None:
    wrong = []
    marked = 0
    known = dict(tables(Config))
    for loc, key, comment in option_lines():
        info = keys_of(known[loc])[key]
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        same = not info.is_required() and shown_at(loc)[key] == default
        says = comment.startswith("default.")
        marked += says
        if same != says:
            wrong.append((loc, key, shown_at(loc)[key], default))
    assert wrong == []
    assert marked > 50


def test_every_option_that_names_a_file_or_folder_follows_the_naming_rule_of_relative_paths() -> None:
    """Options holding a path would otherwise depend on the folder the engine was started in."""
    for loc, model in tables(Config):
        for name, info in model.model_fields.items():
            text = str in (info.annotation, *get_args(info.annotation))
            if text and re.search(r"(file|dir|path|folder)$", name):
                assert is_path_key(name), (loc, name)


def test_keys_at_knows_tables_arrays_and_kinds() -> None:
    assert "port" in keys_at(Config, ("listener",))
    assert "qos" in keys_at(Config, ("subscriber", 3))
    assert "level_red" in keys_at(Config, ("kinds", "anything"))
