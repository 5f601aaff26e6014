"""The demo does what the README says: it runs a city, counts every reading, and its lake answers the README's SQL."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.brokers import Mosquitto, needs_mosquitto
from tests.engines import ROOT

OPEN_FILES = 200
PROMISED = (
    "points", "sent", "acked", "stored", "lost", "duplicates", "quarantined", "alerts_fired", "webhooks_delivered",
    "publish_to_webhook_p99_s", "publish_to_query_p99_s", "engine_cpu_s", "engine_cores", "engine_rss_mb", "seconds",
)  # fmt: skip


def demo(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run `yuzui demo --json`; the object on its last line.

    Under a low soft limit of open files, as many machines have it: more gateways connect than that.
    """
    command = [sys.executable, "-m", "ingest.cli", "demo", "--json", "--folder", str(folder), *arguments]
    done = subprocess.run(
        ["bash", "-c", f'ulimit -Sn {OPEN_FILES}; exec "$@"', "-", *command],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """One run through the listener: 5,000 points, a storm of ten seconds."""
    folder = tmp_path_factory.mktemp("demo") / "city"
    yield folder, demo(folder, "--points", "5000", "--seconds", "10")
    shutil.rmtree(folder, ignore_errors=True)


def test_the_last_line_is_one_object_with_every_promised_figure_and_nothing_is_lost(
    city: tuple[Path, dict[str, Any]],
) -> None:
    result = city[1]
    assert [key for key in PROMISED if result.get(key) is None] == []
    assert result["sent"] == result["acked"] == result["stored"] == 50_000
    assert (result["lost"], result["duplicates"], result["wrong"], result["invented"]) == (0, 0, 0, 0)
    assert result["conservation_gap"] == 0
    offices = result["offices"]
    assert offices["sent"] >= offices["acked"] > 0
    assert offices["acked"] <= offices["stored"] <= offices["sent"]
    assert (offices["lost"], offices["doubled"], offices["invented"]) == (0, 0, 0)
    assert result["alerts_fired"] > 0
    assert result["webhooks_delivered"] > 0


def test_every_alert_that_fired_was_told_with_its_group_and_stands_in_the_lake(
    city: tuple[Path, dict[str, Any]],
) -> None:
    folder, result = city
    calls = [json.loads(line) for line in (folder / "webhooks.jsonl").read_text().splitlines()]
    told = {call["id"] for call in calls}
    con = duckdb.connect()
    con.execute((folder / "data" / "lake.sql").read_text())
    known = {row[0] for row in con.execute("SELECT id FROM alerts").fetchall()}
    with closing(sqlite3.connect(folder / "data" / "outbox.db")) as outbox:
        group_of = dict(outbox.execute("SELECT id, grp FROM member"))
    assert set(group_of) == known
    assert set(group_of.values()) <= told <= known, "each group was told, under the id of one of its alerts"
    assert len(known) == result["alerts_fired"]
    seen = [(call["id"], call["revision"]) for call in calls]
    assert len(seen) == len(set(seen)), "no notification came twice without a kill"


def test_the_readmes_sql_runs_on_the_demos_lake(city: tuple[Path, dict[str, Any]]) -> None:
    con = duckdb.connect()
    con.execute((city[0] / "data" / "lake.sql").read_text())
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    statements = [s for block in blocks for s in block.split(";") if s.strip()]
    assert len(statements) >= 4
    answers = [con.execute(statement).fetchall() for statement in statements]
    assert len(answers[0]) > 10, "most districts have waterlogging points"


def test_a_folder_that_is_not_a_demos_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    done = subprocess.run(
        [sys.executable, "-m", "ingest.cli", "demo", "--folder", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


@pytest.mark.broker
@needs_mosquitto
@pytest.mark.parametrize("qos", ["0", "1"])
def test_the_demo_through_a_real_mosquitto_loses_nothing(tmp_path: Path, qos: str) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        result = demo(
            tmp_path / "city", "--points", "2000", "--seconds", "6", "--qos", qos, "--broker", broker.url
        )
    assert result["sent"] == result["stored"] == 12_000
    assert (result["lost"], result["duplicates"], result["wrong"], result["invented"]) == (0, 0, 0, 0)
