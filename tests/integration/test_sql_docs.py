"""docs/sql.md is executed, and the README's queries too, over a lake and over a copy of it."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from storage.compact import Compactor
from storage.hot import HotTier
from storage.pointmap import merge
from storage.query import REFRESH, connect, write_copy_sql, write_lake_sql
from storage.schema import REGISTRY
from storage.sealed import Sealer
from storage.settings import CompactionSettings, SealedSettings
from tests.engines import ROOT, free_port, until
from tests.events_city import DAY, keep, steps_of
from tests.storage_oracle import finish
from tests.storage_rows import HOUR, S, batch, registry

PAGE = (ROOT / "docs" / "sql.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
SQL = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CONSOLE = [
    line.removeprefix("$ ") for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]  # fmt: skip
README_SQL = [
    statement for block in re.findall(r"```sql\n(.*?)```", README, re.DOTALL) for statement in block.split(";")
    if statement.strip()
]  # fmt: skip
POINTS = 12
HOURS = 30
DUCKDB = shutil.which("duckdb")
CURL = shutil.which("curl")
EMPTY_HERE = ("quarantine", "late_by_source", "alerts", "answers(", "projects WHERE")


def lake(root: Path) -> None:
    """Thirty hours up to now of a reading every ten minutes; the hours that are over are compacted."""
    table = registry(POINTS)
    kinds = ["waterlogging", "rain_gauge", "pm25", "video"]
    columns: dict[str, list[Any]] = {
        "kind": [kinds[p % 4] for p in range(POINTS)],
        "lon": [104.06 + p * 1e-4 for p in range(POINTS)],
        "lat": [30.66] * POINTS,
        "interval_s": [600.0] * POINTS,
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), REGISTRY.field(name), pa.array(values))
    now = int(time.time()) * S
    merge(root, table, now - HOURS * HOUR)
    hot, sealer = HotTier(root), Sealer(root, SealedSettings())
    write_lake_sql(root, "Asia/Shanghai", 7200)
    rng = np.random.default_rng(5)
    for k in range(HOURS):
        begin = now - (HOURS - k) * HOUR
        rows = [
            (p, begin + m * 600 * S, round(float(rng.random()) * 40, 1))
            for m in range(1, 7)
            for p in range(POINTS)
        ]
        part = batch(k, rows)
        part.flag[:] = rng.choice([1, 3], len(rows), p=[0.9, 0.1])
        part.checks[:] = np.where(part.flag == 3, 4, 0)
        hot.write(k, k, part, batch(k, []))
        if k < HOURS - 1:
            sealer.seal(k)
    finish(Compactor(root, CompactionSettings(lateness_s=0, fold_s=0)))
    keep(root, steps_of(random.Random(5), 2000, now - 25 * DAY, 20))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: data/ as an engine leaves it, copy/lake as a person copied it."""
    folder = tmp_path_factory.mktemp("sql")
    (folder / "data").mkdir()
    lake(folder / "data")
    for name in ("readings", "points.parquet"):
        source = folder / "data" / "lake" / name
        target = folder / "copy" / "lake" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _ = shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    return folder


def run(place: Path, line: str) -> str:
    """What a line of the page prints."""
    line = re.sub(r"^yuzui ", f"{sys.executable} -m ingest.cli ", line)
    done = subprocess.run(
        ["sh", "-c", line], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=400, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("query", SQL, ids=lambda q: " ".join(q.split())[:60])
def test_every_query_of_the_page_answers(place: Path, query: str) -> None:
    found = connect(place / "data").execute(query).fetchall()
    assert found or any(view in query for view in EMPTY_HERE)


def test_every_view_and_macro_is_on_the_page(place: Path) -> None:
    con = connect(place / "data")
    query = "SELECT view_name FROM duckdb_views() WHERE NOT internal AND NOT starts_with(view_name, 'yuzui_')"
    views = {name for (name,) in con.execute(query).fetchall()}
    query = """SELECT DISTINCT function_name FROM duckdb_functions()
               WHERE NOT internal AND NOT starts_with(function_name, 'yuzui_')"""
    macros = {name for (name,) in con.execute(query).fetchall()} - {"last_clock"}
    assert {name for name in views if f"`{name}`" not in PAGE} == set()
    assert {name for name in macros if f"{name}(" not in PAGE} == set()


def test_the_python_cells_of_the_page_run_one_after_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook of Jupyter or marimo: each cell sees the names of those before."""
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    for cell in PYTHON:
        exec(compile(cell, "docs/sql.md", "exec"), names)
    assert names["con"].execute("SELECT count(*) FROM readings").fetchall() == [(POINTS * HOURS * 6,)]


def test_a_jdbc_tool_that_runs_the_file_statement_by_statement_gets_the_same_session(place: Path) -> None:
    """DBeaver sends bootstrap queries one by one, each ended by a semicolon at the end of a line."""
    text = (place / "data" / "lake.sql").read_text()
    con = duckdb.connect()
    for statement in con.extract_statements(text):
        con.execute(statement.query)
    assert con.execute("SELECT count(*) FROM readings").fetchall() == [(POINTS * HOURS * 6,)]
    con.execute(REFRESH)
    assert con.execute("SELECT count(*) FROM rollup_1h").fetchall() > [(POINTS * (HOURS - 1),)]


@pytest.mark.skipif(
    DUCKDB is None, reason="SKIPPED: no duckdb command on this machine; pip install duckdb-cli"
)
@pytest.mark.parametrize("form", ["-init data/lake.sql", "-cmd '.read data/lake.sql'"])
def test_the_duckdb_command_reads_the_file(place: Path, form: str) -> None:
    out = run(place, f"duckdb {form} -csv -noheader -c 'SELECT count(*) FROM readings'")
    assert out.strip().splitlines()[-1] == str(POINTS * HOURS * 6)


def test_another_engine_reads_the_main_table_untouched(place: Path) -> None:
    """All late readings folded: Polars' count and sum of the Delta table equal DuckDB's of the sealed hours."""
    con = connect(place / "data")
    [(seq, late)] = con.execute(
        "SELECT y.main_seq, len(yuzui_files(y.late)) - 1 FROM (SELECT getvariable('yuzui') y)"
    ).fetchall()
    assert late == 0
    assert seq == HOURS - 2
    frame = pl.scan_delta(str(place / "data" / "lake" / "readings"))
    rows, total = frame.select(pl.len(), pl.col("value").sum()).collect().row(0)
    write_copy_sql(place / "copy" / "lake", place / "polars.sql", "Asia/Shanghai")
    copied = duckdb.connect()
    copied.execute((place / "polars.sql").read_text())
    [(count, value)] = copied.execute("SELECT count(*), sum(value) FROM readings").fetchall()
    assert (rows, round(total, 6)) == (count, round(value, 6))


@pytest.mark.parametrize("with_all", [False, True], ids=["readings and points", "whole lake"])
def test_a_copy_answers_the_readmes_queries_as_the_lake_does(
    place: Path, tmp_path: Path, with_all: bool
) -> None:
    copy = tmp_path / "some where" / "lake"
    source = place / ("data" if with_all else "copy") / "lake"
    shutil.copytree(source, copy)
    for path in sorted(copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    out = write_copy_sql(copy, tmp_path / "copy.sql", "Asia/Shanghai")
    con, original = duckdb.connect(), connect(place / "data")
    con.execute(out.read_text())
    con.execute(REFRESH)
    assert len(README_SQL) >= 4
    for query in README_SQL:
        con.execute(query).fetchall()
    sealed = original.execute("SELECT count(*) FROM readings").fetchall()[0][0] - POINTS * 6
    assert con.execute("SELECT count(*) FROM readings").fetchall() == [(sealed,)]
    newest = "SELECT point_id, max(time) FROM readings GROUP BY 1 ORDER BY 1"
    assert (
        con.execute("SELECT point_id, time FROM latest ORDER BY 1").fetchall()
        == con.execute(newest).fetchall()
    )
    same = """SELECT point, time, "count", good, "min", "max" FROM rollup_1h
              WHERE time < now() - INTERVAL 3 HOUR ORDER BY 1, 2"""
    assert con.execute(same).fetchall() == original.execute(same).fetchall()
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before
    for path in copy.rglob("*"):
        path.chmod(0o755)


def test_the_commands_for_a_copy_work_as_they_stand(place: Path) -> None:
    lines = [line for line in CONSOLE if line.startswith(("yuzui", "duckdb"))]
    assert len(lines) == 3
    assert str(POINTS * (HOURS - 1) * 6) in run(place, lines[0])
    run(place, lines[1])
    assert (place / "copy.sql").is_file()
    if DUCKDB:
        run(place, lines[2])


def test_a_folder_that_is_no_lake_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no lake"):
        write_copy_sql(tmp_path, tmp_path / "x.sql", "UTC")


@pytest.mark.skipif(CURL is None, reason="SKIPPED: no curl on this machine")
def test_the_lines_for_http_work_as_they_stand(place: Path) -> None:
    port = free_port()
    (place / "yuzui.toml").write_text(f'[data]\ndir = "data"\n[sql]\nport = {port}\n')
    door = subprocess.Popen(
        [sys.executable, "-m", "ingest.cli", "sql", "--serve"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = [
        line.replace("127.0.0.1:9181", f"127.0.0.1:{port}") for line in CONSOLE if line.startswith("curl")
    ]
    assert len(lines) == 3
    ready = f"curl -sf 127.0.0.1:{port}/sql -d 'SELECT 1'"
    until(
        lambda: subprocess.run(["sh", "-c", ready], capture_output=True, check=False).returncode == 0,
        "it answers",
    )
    try:
        assert '"columns"' in run(place, lines[0].replace("curl", "curl -sf"))
        assert '"point_id"' in run(place, lines[1].replace("curl", "curl -sf"))
        subprocess.run(["sh", "-c", lines[2].replace("curl", "curl -sf -o arrow.out")], cwd=place, check=True)
        assert len(pa.ipc.open_stream((place / "arrow.out").read_bytes()).read_all()) == 3
    finally:
        door.terminate()
        door.wait(60)
