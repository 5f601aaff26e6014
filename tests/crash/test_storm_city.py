"""A storm over a city with stuck sensors and dead gateways, and kill -9 in the middle: nobody is called twice, nothing is
left out, and the notifications are those of an engine nobody killed."""

from __future__ import annotations

from pathlib import Path

from ingest.demo import DemoOptions, run_demo
from tests.engines import ROOT

CITY = ROOT / "configs" / "chengdu"


def test_a_kill_in_the_storm_changes_no_notification(tmp_path: Path) -> None:
    said: list[str] = []
    options = DemoOptions(
        tmp_path / "city", CITY, seconds=24.0, points=3_000, scenario="storm-city", seed=1, kill_at=0.6
    )
    result = run_demo(options, said.append, lambda _: None)
    assert result.storm is not None and result.storm.killed
    told, against = result.storm.told, result.storm.against
    print(told, against)
    assert (result.lost, result.duplicates, result.wrong, result.invented) == (0, 0, 0, 0)
    assert told.storm_groups > 2 and told.flood_points > told.storm_groups, (
        "a storm that floods places in groups"
    )
    assert told.steps_repeated == 0, told.examples
    assert (told.outages_once, told.outages) == (3, 3), told.examples
    assert told.stuck_told > 0
    assert against.alerts > 50 and against.notifications > 20
    assert against.same, against
