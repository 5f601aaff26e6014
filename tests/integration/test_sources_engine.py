"""A stranger's system joins in one file, as the README shows it; what was refused before is sent through again, once.

The README's blocks are executed as they stand, but for the date of the captured message.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import orjson
import pytest

from tests.engines import ROOT, EngineProcess, run_yuzui, site_config, until, yuzui_here
from tests.talk import Talker

README = (ROOT / "README.md").read_text("utf-8")
_FILES = re.compile(r"```(?:json|toml) file=(\S+)\n(.*?)```", re.DOTALL)
_SHOWN = "2026-07-01"
LATE = """
topics = ["late/up"]
device = "d"
time = "t"
time_unit = "s"
value = "m.*"
quantities = { x = {}, y = {} }
devices.d0 = {}
"""
SEED = int(os.environ.get("YUZUI_SEED") or time.time())


def blocks(today: str) -> dict[str, str]:
    """The README's files, its message measured today."""
    return {name: text.replace(_SHOWN, today) for name, text in _FILES.findall(README)}


def lake(engine: EngineProcess, sql: str) -> list[tuple[Any, ...]]:
    """Rows by plain DuckDB."""
    with duckdb.connect() as con:
        con.execute((engine.data / "lake.sql").read_text())
        rows: list[tuple[Any, ...]] = con.execute(sql).fetchall()
        return rows


def say(engine: EngineProcess, messages: list[tuple[str, bytes]]) -> None:
    """Publish with QoS 1 and wait for every PUBACK."""
    with Talker(engine.port) as talker:
        talker.say_all(messages)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    """One engine on a folder with a small site of its own."""
    started = EngineProcess(tmp_path, site_config(tmp_path, {"g": ["p"]}))
    yield started
    if started.running:
        started.stop()


def test_the_readme_from_a_captured_message_to_rows_and_what_came_before_is_replayed(
    engine: EngineProcess,
) -> None:
    zone = ZoneInfo("Asia/Shanghai")
    now = datetime.now(zone)
    files = blocks(now.date().isoformat())
    # Measured a minute ago and not at 08:15, which may be in the future.
    at = now.replace(second=0, microsecond=0)
    captured = files["captured.json"].replace("08:15:00", at.strftime("%H:%M:%S"))
    (engine.folder / "captured.json").write_text(captured)
    engine.start()
    say(engine, [("park/PK-07/up", captured.encode())])
    until(
        lambda: lake(engine, "SELECT reason FROM quarantine") == [("unknown_topic",)],
        "refused before the file is there",
    )

    mapping = engine.folder / "sources.d" / "park.toml"
    mapping.parent.mkdir()
    mapping.write_text(files["sources.d/park.toml"])
    assert len(mapping.read_text().splitlines()) <= 10
    command = re.search(r"\$ scripts/yuzui (source test .*)", README)
    assert command is not None
    words = (
        command[1]
        .replace("sources.d/park.toml", str(mapping))
        .replace("captured.json", str(engine.folder / "captured.json"))
    )
    tried = yuzui_here(*words.split(), "-c", str(engine.config))
    assert tried.returncode == 0, tried.stderr
    shown = [line.split() for line in tried.stdout.splitlines()]
    printed = README[README.index("$ scripts/yuzui source test") :].splitlines()[1:6]
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.000+08:00")
    assert shown == [line.replace("2026-07-01T08:15:00.000+08:00", stamp).split() for line in printed]

    assert yuzui_here("reload", "-c", str(engine.config)).returncode == 0
    say(engine, [("park/PK-07/up", captured.encode())])
    query = re.search(r'\$ scripts/yuzui sql "(.*)"', README)
    assert query is not None
    expected = [
        ("PK-07-temp", at, 21.5, "°C", "青羊区"),
        ("PK-07-water", at, 18.2, "cm", "青羊区"),
    ]
    until(lambda: lake(engine, query[1]) == expected, "the rows in DuckDB")

    done = run_yuzui("quarantine", "replay", "-c", str(engine.config), "--json")
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout) == {
        "messages": 1,
        "refusals": 1,
        "done": True,
        "stored": 2,
        "refused_again": 0,
    }
    assert lake(engine, query[1]) == expected, "the same readings are repeats"
    assert lake(engine, "SELECT replayed_at IS NOT NULL, replay_stored FROM quarantine") == [(True, 2)]
    again = yuzui_here("quarantine", "replay", "-c", str(engine.config), "--json")
    assert orjson.loads(again.stdout) == {"messages": 0, "refusals": 0}
    engine.quiet()
    assert engine.vitals()["conservation_gap"] == 0

    listed = yuzui_here("source", "list", "-c", str(engine.config), "--json")
    park = next(row for row in map(orjson.loads, listed.stdout.splitlines()) if row["source"] == "park")
    assert (park["stored"], park["points"], park["online"], park["quarantined"]) == (2, 2, 1.0, {})
    assert 'yuzui_source_stored_total{source="park"} 2.0' in engine.page("/metrics")
    assert "park" in yuzui_here("status", "--sources", "-c", str(engine.config)).stdout


def test_a_file_with_a_fault_is_refused_with_its_name_and_the_old_one_goes_on(engine: EngineProcess) -> None:
    files = blocks("2026-07-01")
    mapping = engine.folder / "sources.d" / "park.toml"
    mapping.parent.mkdir()
    mapping.write_text(files["sources.d/park.toml"])
    engine.start()
    mapping.write_text(files["sources.d/park.toml"].replace("data.*", "data..x") + 'codek = "json"\n')
    refused = yuzui_here("reload", "-c", str(engine.config))
    assert refused.returncode == 2
    assert "sources.d/park.toml: $.value: " in refused.stderr
    assert 'sources.d/park.toml: $.codek: unknown key (did you mean "codec"?)' in refused.stderr
    body = {
        "station": "PK-07",
        "when": datetime.now(ZoneInfo("Asia/Shanghai")).isoformat(),
        "data": {"temp": 1.5},
    }
    say(engine, [("park/PK-07/up", orjson.dumps(body))])
    until(lambda: lake(engine, "SELECT value FROM readings") == [(1.5,)], "the old mapping goes on")


def test_kills_in_the_middle_of_a_replay_lose_nothing_and_double_nothing(engine: EngineProcess) -> None:
    """Half of the messages come through after the file is there, half are refused again: each exactly once."""
    print(f"YUZUI_SEED={SEED}")
    dice = random.Random(SEED)
    n = 3_000
    now_s = int(time.time())
    messages = [
        ("late/up", orjson.dumps({"d": f"d{i % 2}", "t": now_s - i, "m": {"x": i, "y": -i}}))
        for i in range(n)
    ]
    engine.config.write_text(engine.config.read_text() + "\n[wire]\nunknown_kept_per_minute = 100000\n")
    engine.start()
    say(engine, messages)
    until(lambda: lake(engine, "SELECT count(*) FROM quarantine") == [(n,)], "all are in quarantine")
    (engine.folder / "sources.d").mkdir()
    (engine.folder / "sources.d" / "late.toml").write_text(LATE)
    assert yuzui_here("reload", "-c", str(engine.config)).returncode == 0
    sent = yuzui_here("quarantine", "replay", "-c", str(engine.config), "--wait-s", "0", "--json")
    assert orjson.loads(sent.stdout)["messages"] == n
    spool = engine.data / "replay"
    kills = 0
    while any(spool.glob("*.replay")) and kills < 3:
        before = engine.vitals()["replays_left"]
        until(
            lambda b=before: not any(spool.glob("*.replay")) or engine.vitals()["replays_left"] not in (0, b),
            "the replay moves",
        )
        time.sleep(dice.random() * 0.05)
        engine.kill()
        kills += 1
        engine.start()
    assert kills, "the replay was over before the first kill"
    until(lambda: not any(spool.glob("*.replay")), "the replay is through")
    engine.quiet()
    marks = "SELECT count(*), count(DISTINCT detail) FROM yuzui_refusals WHERE reason = 'replayed'"
    assert lake(engine, marks) == [(n, n)], f"{kills} kills"
    refused = "SELECT count(*), count(DISTINCT detail) FROM quarantine WHERE source = 'late'"
    assert lake(engine, refused) == [(n, 2)], "two refusals of each message of the unknown device"
    rows = lake(engine, "SELECT point_id, epoch(time)::BIGINT, value FROM readings ORDER BY ALL")
    expected = [
        (f"d0-{q}", now_s - i, float(s * i)) for i in range(0, n, 2) for q, s in (("x", 1), ("y", -1))
    ]
    assert rows == sorted(expected)
    assert engine.vitals()["conservation_gap"] == 0
