"""A storm over a city with stuck sensors and dead gateways, and kill -9 in the middle.

Nobody is called twice, nothing is left out, and the notifications are those of an engine nobody killed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ingest.demo import DemoOptions, run_demo
from ingest.demonight import night_figures
from ingest.simulate.scenario import Scenario
from tests.engines import ROOT

CITY = ROOT / "configs" / "chengdu"


def test_a_kill_in_the_storm_changes_no_notification(tmp_path: Path) -> None:
    said: list[str] = []
    options = DemoOptions(
        tmp_path / "city", CITY, seconds=30.0, points=3_000, scenario="storm-city", seed=1, kill_at=0.7
    )
    result = run_demo(options, said.append, lambda _: None)
    assert result.storm is not None
    assert result.storm.killed
    told, against = result.storm.told, result.storm.against
    print(result.storm)
    assert (result.lost, result.duplicates, result.wrong, result.invented) == (0, 0, 0, 0)
    assert result.offices is not None
    assert result.offices.acked > 0
    assert result.offices.clean, result.offices
    assert told.storm_groups > 2
    assert told.flood_points > told.storm_groups, "places are flooded in groups"
    assert told.steps_repeated == 0, told.examples
    assert (told.outages_once, told.outages) == (3, 3), told.examples
    assert told.outages_other == 0, "only who fell silent is called for"
    assert (result.storm.stuck_found, result.storm.stuck_other) == (told.stuck, 0)
    assert against.alerts > 20
    assert against.notifications > 20
    assert against.same, against
    forget_one(tmp_path / "city" / "data" / "outbox.db")
    again = night_figures(
        tmp_path / "city", tmp_path / "city" / "data", Scenario("storm-city", 1, 30.0), 0.0, None
    ).against
    assert (again.lost, again.untold, again.regrouped) == (1, 1, 1), "what is missing is seen"


def forget_one(path: Path) -> None:
    """Take an alert and a notification out of an outbox, as a bad engine would lose them."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM member WHERE id = (SELECT id FROM alert_event ORDER BY rowid LIMIT 1)")
        db.execute("DELETE FROM alert_event WHERE rowid = (SELECT min(rowid) FROM alert_event)")
        db.execute("DELETE FROM delivery WHERE rowid = (SELECT min(rowid) FROM delivery)")
