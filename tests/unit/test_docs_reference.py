"""The reference says what the code does; every command and every key of the config is held to something by a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_origin

import click
import pytest
from pydantic import BaseModel, ValidationError

from ingest.cli import COMMANDS, cli
from ingest.config import Config
from ingest.configfaults import model_in
from ingest.reference import FOLDER, PAGES, is_table, leaves, tables
from tests.engines import yuzui_here

ROOT = Path(__file__).resolve().parents[2]
LEAVES = list(leaves(cli, ("yuzui",)))
KEYS = [
    (loc, name)
    for loc, model in tables(Config)
    for name, info in model.model_fields.items()
    if not is_table(info)
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_reference_is_what_the_code_says_now(page: str) -> None:
    assert (FOLDER / page).read_text("utf-8") == PAGES[page](), "run scripts/reference"


def test_every_command_says_what_it_is_for() -> None:
    assert {words[1] for words, _ in LEAVES} == set(COMMANDS)
    assert [words for words, command in LEAVES if not command.help] == []


@pytest.mark.parametrize("words", [("city", "speak"), ("city", "check")], ids=" ".join)
def test_a_folder_that_is_no_city_is_told_so_in_a_line(words: tuple[str, str], tmp_path: Path) -> None:
    done = yuzui_here(*words, str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {tmp_path} has no yuzui.toml: make it: yuzui city make")


def test_every_command_is_run_by_a_test() -> None:
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    text += "\n".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    missing = []
    for words, command in LEAVES:
        if isinstance(command, click.Group):
            continue
        typed = r'",?\s*"'.join(map(re.escape, words[1:]))
        if not re.search(rf'"{typed}"|(yuzui |["\'`]){" ".join(words[1:])}\b', text):
            missing.append(" ".join(words))
    assert missing == []


def whole_model(loc: tuple[str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Config
    for name in loc:
        inner = model_in(model.model_fields[name].annotation)
        assert inner is not None
        model = inner
    return model


@pytest.mark.parametrize(
    ("loc", "key"), KEYS, ids=lambda part: ".".join(part) if isinstance(part, tuple) else part
)
def test_a_key_of_the_config_refuses_what_it_is_not_and_names_its_place(
    loc: tuple[str, ...], key: str
) -> None:
    info = whole_model(loc).model_fields[key]
    written = info.alias or key
    wrong: Any = {"no": {"such": "thing"}} if get_origin(info.annotation) is not dict else 5
    table: Any = {written: wrong}
    model: type[BaseModel] = Config
    shapes = []
    for name in loc:
        annotation = model.model_fields[name].annotation
        shapes.append((name, get_origin(annotation)))
        inner = model_in(annotation)
        assert inner is not None
        model = inner
    for name, shape in reversed(shapes):
        table = {name: [table] if shape is list else {"any": table} if shape is dict else table}
    with pytest.raises(ValidationError) as refused:
        Config.model_validate(table)
    places = {
        tuple(str(part) for part in fault["loc"] if part not in (0, "any"))
        for fault in refused.value.errors()
    }
    assert any(place[: len(loc) + 1] == (*loc, written) for place in places), places


def test_every_page_that_is_named_exists() -> None:
    for page in [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} names {target}"


def test_every_page_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()
