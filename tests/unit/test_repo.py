"""The repository keeps its promises to newcomers: what its documents say of it is true."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ingest.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ingest", "console", "anomaly", "storage")
NAMED = ("aiomqtt", "numpy", "polars", "pyarrow", "duckdb", "orjson", "uvloop", "pytest-benchmark")


def tracked() -> list[Path]:
    """Files git knows, or would add."""
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]


def imports_of(path: Path) -> set[str]:
    """Top-level names a Python file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_the_readme_names_for_each_package_the_user_chose_a_module_that_really_imports_it() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w./]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    table = dict(rows)
    assert set(NAMED) <= set(table)
    for package in NAMED:
        path = ROOT / table[package]
        assert path.is_file(), f"{table[package]} does not exist"
        if package == "pytest-benchmark":
            assert "benchmark" in path.read_text()
        else:
            assert package in imports_of(path), f"{table[package]} does not import {package}"


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"yuzui {name}" not in text and f"`{name}`" not in text] == []


def test_every_run_dependency_has_its_reason_in_architecture() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reasons = (ROOT / "ARCHITECTURE.md").read_text()
    names = [re.split(r"[<>=\[]", d)[0] for d in project["dependencies"]]
    assert [n for n in names if f"| {n} |" not in reasons] == []


def test_requirements_are_locked_with_hashes_wheels_only_and_name_no_index() -> None:
    for tier in ("run", "dev", "bench", "build"):
        text = (ROOT / "requirements" / f"{tier}.txt").read_text()
        assert "--only-binary :all:" in text
        assert "index-url" not in text
        assert "://" not in text
        for pin in re.findall(r"^[a-z0-9][\w.-]*==.*(?:\n    .*)*", text, re.MULTILINE):
            assert "--hash=sha256:" in pin


def test_benchmark_peers_never_enter_the_run_set() -> None:
    run = (ROOT / "requirements" / "run.txt").read_text()
    peers = re.findall(r"^([a-z0-9][\w.-]*)$", (ROOT / "requirements" / "bench.in").read_text(), re.MULTILINE)
    assert peers
    assert [p for p in peers if re.search(rf"^{re.escape(p)}==", run, re.MULTILINE)] == []


def test_no_file_names_a_machine_path() -> None:
    leak = re.compile(rb"/(?:work|farm|root|home/\w+)/[a-z]")
    found = [
        str(p.relative_to(ROOT)) for p in tracked()
        if p.suffix not in (".png", ".parquet") and p != Path(__file__) and leak.search(p.read_bytes())
    ]  # fmt: skip
    assert found == []


def test_every_python_file_opens_with_what_it_is() -> None:
    silent = [
        str(p.relative_to(ROOT)) for p in tracked()
        if p.suffix == ".py" and p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))
    ]  # fmt: skip
    assert silent == []


def test_everything_else_imports_with_the_console_deleted(tmp_path: Path) -> None:
    """The map is an extra: a copy of the tree without it imports every other module."""
    for package in PACKAGES[:1] + PACKAGES[2:]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    modules = [
        ".".join(p.relative_to(tmp_path).with_suffix("").parts).removesuffix(".__init__")
        for p in sorted(tmp_path.rglob("*.py"))
    ]
    assert len(modules) > 30
    # The editable install would still find the repository's console: None makes any import of it fail.
    code = "import importlib, sys; sys.path.insert(0, '.'); sys.modules['console'] = None\n" + "\n".join(
        f"importlib.import_module({m!r})" for m in modules
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "script", ["scripts/demo", "scripts/test", "scripts/faults", "scripts/yuzui", ".ci/run"]
)
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("fake", "says"),
    [
        ('case "$2" in *venv*) exit 1;; *print*) echo 3.11;; *) exit 0;; esac', "no venv module"),
        ('case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac', "3.11 or newer"),
    ],
    ids=["python3 without venv", "python3 too old"],
)
def test_set_up_says_in_one_line_what_is_missing_and_exits_3(tmp_path: Path, fake: str, says: str) -> None:
    for part in ("scripts", "requirements"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        (tools / name).write_text(f"#!/bin/sh\n{fake}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "scripts/demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tools}:/usr/bin:/bin"},
        timeout=120,
    )
    assert done.returncode == 3
    assert says in done.stderr
