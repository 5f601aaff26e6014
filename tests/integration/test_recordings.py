"""Real recordings through a real broker stand in `readings` value for value, and real floods raise real alerts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import duckdb
import polars as pl
import pytest

from ingest.simulate.child import Child
from ingest.simulate.judge_ledger import verdict
from ingest.simulate.receiver import ReceiverOptions
from ingest.simulate.recordings import FLOOD_LEVELS_CM, from_floods, from_rivers
from ingest.simulate.replay import ReplayOptions, replay
from tests.brokers import Mosquitto, needs_mosquitto
from tests.engines import EngineProcess, until

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RIVERS = SHARED / "logan-river" / "readings.parquet"
FLOODS = SHARED / "floodnet" / "events.parquet"
YEARS = [int(y) for y in os.environ.get("YUZUI_RIVER_YEARS", "2016").split(",")]
"""One year of the river's six: about 170,000 readings of every property and site. 2014,…,2019 takes two minutes."""

pytestmark = [
    pytest.mark.shared,
    pytest.mark.broker,
    needs_mosquitto,
    pytest.mark.skipif(not FLOODS.is_file(), reason="SKIPPED: no recordings beside the checkout"),
    pytest.mark.timeout(240),
]


def replayed(
    folder: Path, points: pl.DataFrame, readings: pl.DataFrame, *, missing: str, hook: str
) -> EngineProcess:
    """An engine that heard the recording through mosquitto under --clock events; still running."""
    folder.mkdir(parents=True, exist_ok=True)
    points.write_parquet(folder / "points.parquet")
    readings.write_parquet(folder / "readings.parquet")
    with Mosquitto(folder / "broker") as broker:
        engine = EngineProcess(
            folder,
            f'[points]\nfile = "points.parquet"\n[ops]\nport = 0\n[[source]]\nname = "recording"\n{missing}\n'
            f'[[subscriber]]\nname = "broker"\nurl = "{broker.url}"\nfilters = ["recording/#"]\nqos = 1\n{hook}',
            ["--clock", "events"],
        ).start()
        report = replay(
            ReplayOptions(
                target=broker.url, readings=folder / "readings.parquet", points_file=folder / "points.parquet",
                ledger_dir=folder / "ledger", speed=0, rate_max=12_000,
            )
        )  # fmt: skip
        assert report.acked == len(readings)
        until(
            lambda: engine.vitals()["acknowledged_messages"] >= len(readings),
            "all readings at the engine",
            60,
        )
        engine.quiet()
    return engine


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Removed afterwards."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_river_water_stands_value_for_value_and_missing_codes_as_null(home: Path) -> None:
    points, readings = from_rivers(RIVERS)
    readings = readings.filter(pl.col("time").dt.year().is_in(YEARS))
    engine = replayed(home, points, readings, missing="missing_values = [-9999.0]", hook="")
    found = verdict(engine.data, home / "ledger", missing_values=[-9999.0])
    assert found.stored == len(readings)
    assert (found.lost, found.duplicates, found.wrong, found.invented) == (0, 0, 0, 0), found.examples
    con = duckdb.connect()
    con.execute((engine.data / "lake.sql").read_text())
    stored = pl.DataFrame(
        con.sql("SELECT point_id, value FROM readings ORDER BY point_id, time").to_arrow_table()
    )
    expected = readings.with_columns(value=pl.when(pl.col("value") != -9999.0).then("value")).sort(
        "point_id", "time"
    )
    assert stored["value"].equals(expected["value"]), "to the last bit"
    assert engine.stop() == 0


def test_street_floods_over_their_limits_call_the_webhook_under_one_id_an_episode(home: Path) -> None:
    points, readings = from_floods(FLOODS)
    options = ReceiverOptions(log_file=str(home / "webhooks.jsonl"))
    with Child("ingest.simulate.receiver", json.dumps(asdict(options))) as receiver:
        port = receiver.until_ready(30)["port"]
        hook = f'[alerts]\ngroup = false\n[[webhook]]\nname = "test"\nurl = "http://127.0.0.1:{port}/"\n'
        engine = replayed(home, points, readings, missing="", hook=hook)
        until(lambda: engine.vitals()["outbox_waiting"] == 0, "every notification delivered", 60)
        receiver.finish(30)
    found = verdict(engine.data, home / "ledger")
    assert (found.lost, found.duplicates, found.wrong, found.invented) == (0, 0, 0, 0), found.examples
    calls = [json.loads(line) for line in (home / "webhooks.jsonl").read_text().splitlines()]
    firing = [call for call in calls if call["type"] == "alert.firing"]
    assert len({call["id"] for call in firing}) == len(firing), "one id and one firing an episode"
    assert all(call["body"]["data"]["mode"] == "replay" for call in calls), "every output of a replay says so"
    over = set(readings.filter(pl.col("value") >= FLOOD_LEVELS_CM["level_blue"])["point_id"])
    con = duckdb.connect()
    con.execute((engine.data / "lake.sql").read_text())
    levels = con.execute("SELECT point_id, id FROM alerts WHERE rule = 'level'").fetchall()
    assert {point for point, _ in levels} == over, "each sensor that was over its limit, and no other"
    # Years in a minute: where an alert was over before its turn came, only its newest revision is sent.
    assert {call["id"] for call in calls} == {alert for _, alert in levels}
    assert engine.stop() == 0
