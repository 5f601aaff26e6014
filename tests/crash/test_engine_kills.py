"""kill -9 at random under load: nothing acknowledged is lost, and no query ever sees a reading twice."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from anomaly.engine import Engine
from ingest.configfile import load
from ingest.simulate.judge_ledger import Verdict, verdict
from ingest.simulate.run import SimulateOptions, SimulateReport, simulate
from storage import pointmap
from storage.batch import RawBatch
from tests.brokers import Mosquitto, needs_mosquitto
from tests.engines import ROOT, EngineProcess, city_config, free_port, until

pytestmark = pytest.mark.crash

POINTS = 11_620
POINTS_BROKER = 4_000
"""At QoS 1 through mosquitto: its own cost a message, twice, beside everything else on two cores."""
KILLS = int(os.environ.get("YUZUI_KILLS", "20"))
KILLS_BROKER = int(os.environ.get("YUZUI_KILLS_BROKER", "5"))
UP_S = (0.5, 3.0)
"""How long an engine lives after it was ready: from its first hot files to well behind its first seal."""
SEALED = "[sealed]\nseal_s = 3\ngrace_s = 60\n[snapshot]\nevery_s = 2\n[journal]\nsegment_bytes = 4194304\n"
"""Small, so that kills meet seals, snapshots, new segments and journal cuts too."""


class Watcher(threading.Thread):
    """An analyst who counts doubled readings again and again while engines die."""

    def __init__(self, lake: Path) -> None:
        super().__init__(daemon=True)
        self._lake = lake
        self._ended = threading.Event()
        self.looks = 0
        self.doubled: list[int] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Count until told to stop."""
        con = duckdb.connect()
        con.execute("SET threads = 1")
        text = until(lambda: self._lake.is_file() and self._lake.read_text(), "lake.sql", 60)
        while not self._ended.wait(0.5):
            try:
                con.execute(text)
                row = con.execute("SELECT count(*) - count(DISTINCT (point, time)) FROM readings").fetchone()
                assert row is not None
                self.looks += 1
                if row[0]:
                    self.doubled.append(row[0])
            except duckdb.Error as fault:
                self.errors.append(str(fault)[:300])

    def finish(self) -> None:
        """Stop and wait."""
        self._ended.set()
        self.join(60)


def kill_again_and_again(
    engine: EngineProcess, speaking: threading.Thread, rng: random.Random, kills: int
) -> int:
    """Kill and restart up to ``kills`` times while ``speaking`` lives; returns how many kills there were."""
    for done in range(kills):
        time.sleep(rng.uniform(*UP_S))  # the moment of the kill is what is random, not a wait for something
        if not speaking.is_alive():
            return done
        engine.kill()
        engine.start()
    return kills


def level_alerts(engine: EngineProcess) -> tuple[set[str], set[str]]:
    """(ids in the lake, ids an engine that was never killed gives for the lake's readings), of level alerts."""
    config = load(engine.config)
    table = pointmap.load(engine.data)
    assert table is not None
    con = duckdb.connect()
    con.execute((engine.data / "lake.sql").read_text())
    told = {row[0] for row in con.execute("SELECT id FROM alerts WHERE rule = 'level'").fetchall()}
    rows = con.sql("SELECT point, epoch_us(time) AS time, value FROM readings ORDER BY time, point")
    found = rows.to_arrow_table()
    point, time_us = found["point"].to_numpy().astype(np.int32), found["time"].to_numpy()
    judge = Engine(pointmap.point_table(table), config.kinds, config.checks)
    raw = RawBatch(point, time_us, time_us, found["value"].to_numpy(), np.zeros(len(point), np.uint8))
    events = judge.judge(raw, np.arange(len(point), dtype=np.int64)).events
    return told, {event.id for event in events if event.rule == "level"}


def run(
    folder: Path, engine: EngineProcess, target: str, kills: int, seed: int, **options: object
) -> tuple[Verdict, Watcher, int]:
    """Simulate a storm at 11,620 readings/s, kill ``kills`` times, and count."""
    print(f"seed {seed}")
    engine.start()
    watcher = Watcher(engine.data / "lake.sql")
    reports: list[SimulateReport] = []
    chosen = SimulateOptions(
        target=target, points_file=folder / "points.parquet", city_dir=ROOT / "configs" / "chengdu",
        ledger_dir=folder / "ledger", seconds=kills * 3.6 + 3, qos=1, seed=seed, scenario="storm",
        backlog_s_max=600.0, drain_s_max=60.0, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    speaking = threading.Thread(target=lambda: reports.append(simulate(chosen)), daemon=True)
    speaking.start()
    watcher.start()
    killed = kill_again_and_again(engine, speaking, random.Random(seed), kills)
    speaking.join(300)
    assert reports, "the simulator did not end"
    engine.quiet(60)
    watcher.finish()
    found = verdict(engine.data, folder / "ledger")
    vitals = engine.vitals()
    print(f"{killed} kills; {found}; {watcher.looks} looks; {reports[0].resent_messages} messages resent")
    assert vitals["conservation_gap"] == 0
    until(lambda: engine.vitals()["outbox_waiting"] == 0, "alerts exported", 30)
    told, due = level_alerts(engine)
    print(f"{len(told)} alerts told, {len(due)} due")
    assert told == due, "no alert is lost, doubled or made up by a kill"
    assert due, "a storm without an alert would show nothing"
    assert engine.stop() == 0
    return found, watcher, killed


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder whose data is removed afterwards: a million readings a test add up."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.timeout(400)
def test_twenty_kills_under_load_through_the_listener_lose_and_double_nothing(home: Path) -> None:
    port = free_port()
    engine = EngineProcess(home, city_config(home, port, points=POINTS, more=SEALED))
    found, watcher, killed = run(home, engine, f"mqtt://127.0.0.1:{port}", KILLS, random.randrange(1 << 30))
    assert killed == KILLS
    assert found.acked > POINTS * KILLS
    assert (found.lost, found.duplicates, found.wrong, found.invented) == (0, 0, 0, 0), found.examples
    assert watcher.looks > KILLS
    assert watcher.doubled == []
    assert watcher.errors == []


@pytest.mark.broker
@needs_mosquitto
@pytest.mark.timeout(300)
def test_kills_under_load_behind_mosquitto_lose_and_double_nothing(home: Path) -> None:
    with Mosquitto(home / "broker") as broker:
        subscriber = f'[[subscriber]]\nname = "broker"\nurl = "{broker.url}"\nfilters = ["cd/#"]\nqos = 1\n'
        engine = EngineProcess(home, city_config(home, 0, points=POINTS_BROKER, more=SEALED + subscriber))
        found, watcher, killed = run(
            home, engine, broker.url, KILLS_BROKER, random.randrange(1 << 30), aiomqtt_share=0.0
        )
    assert killed == KILLS_BROKER
    assert (found.lost, found.duplicates, found.wrong, found.invented) == (0, 0, 0, 0), found.examples
    assert watcher.doubled == []
    assert watcher.errors == []
