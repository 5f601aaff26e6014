"""Whatever a config file says: it is a Config or faults that can be told, and no secret gets out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ingest.config import Config
from ingest.configfaults import model_in
from ingest.configfile import ConfigFaults, Fault, load

SECRET = "hush4711"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One folder for all examples of a test."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def keys(model: Any) -> list[str]:
    """Keys of a table and of the tables in it."""
    found = []
    for name, info in model.model_fields.items():
        found.append(name)
        inner = model_in(info.annotation)
        found += keys(inner) if inner is not None else []
    return found


KEYS = st.sampled_from(sorted({*keys(Config), "prot", "mqtt"}))
SCALARS = st.one_of(
    st.sampled_from(
        [
            "true",
            "false",
            "nan",
            "inf",
            "0",
            "-1",
            "70000",
            "1e308",
            "1979-05-27",
            '""',
            '"s"',
            '"${V}"',
            '"${W:-5}"',
        ]
    ),
    st.integers(-10, 100_000).map(str),
    st.text(st.sampled_from("ab$#+/{}:?-éü中"), max_size=8).map(lambda t: f"'{t}'"),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2).map(lambda v: f"[{', '.join(v)}]"), max_leaves=4
)
HEADS = st.one_of(KEYS.map("[{}]".format), KEYS.map("[[{}]]".format), KEYS.map("[kinds.{}]".format))
LINES = st.one_of(HEADS, st.tuples(KEYS, VALUES).map(" = ".join))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(lines=st.lists(LINES, max_size=12), more=st.lists(LINES, max_size=4))
def test_any_mixture_of_known_keys_is_a_config_or_faults_on_one_line_each(
    folder: Path, lines: list[str], more: list[str]
) -> None:
    path = folder / "c.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    path.with_suffix(".d").mkdir(exist_ok=True)
    (path.with_suffix(".d") / "more.toml").write_text("\n".join(more), encoding="utf-8")
    faults: list[Fault] = []
    try:
        assert isinstance(load(path, {"V": SECRET}), Config)
    except ConfigFaults as told:
        faults = told.faults
        event("refused")
    for fault in faults:
        assert fault.path.startswith("$")
        assert fault.message
        assert str(fault).isprintable()
        assert SECRET not in str(fault)


@settings(max_examples=200, deadline=None, print_blob=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30))
def test_text_comes_through_as_written_once_its_dollars_are_escaped(folder: Path, text: str) -> None:
    quoted = "".join(f"\\U{ord(c):08X}" for c in text.replace("${", "$${"))
    path = folder / "text.toml"
    path.write_text(f'[city]\nname = "{quoted}"', encoding="utf-8")
    assert load(path, {}).city.name == text
