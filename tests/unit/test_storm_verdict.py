"""Claims about the storm's verdict: it sees who was called twice, which outage has no name, and how late a call was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ingest.demonight import last_word_s
from ingest.simulate.city import generate, write
from ingest.simulate.fleet import load_fleet
from ingest.simulate.night import outage_gateways, stuck_points
from ingest.simulate.scenario import CITY_STUCK_KINDS, Scenario
from ingest.simulate.storm_ledger import storm_verdict
from tests.engines import ROOT

BEGAN = "2026-07-01T20:00:00.000Z"
AT_S = 1_782_936_000.0
LATE_S = 0.25


def call(name: str, revision: int, reason: str, severity: int, **more: Any) -> dict[str, Any]:
    """One line of a receiver's log."""
    group = {"reason": reason, "scope": "storm", "members": 5, "merged_into": None}
    said = {
        "id": name, "revision": revision, "rule": "level", "kind": "waterlogging", "severity_now": severity,
        "at": BEGAN, "onset": BEGAN, "gateway": "g1", "value": 20.0, "group": group, **more,
    }  # fmt: skip
    return {"arrived": AT_S + LATE_S, "type": "alert.firing", "body": {"data": said}}


def verdict(folder: Path, *calls: dict[str, Any], outages: Mapping[str, int] | None = None) -> Any:
    log = folder / "webhooks.jsonl"
    log.write_text("".join(json.dumps(one) + "\n" for one in calls))
    return storm_verdict(log, outages or {}, 0, spoke_until_s=AT_S + 60)


def test_worse_steps_and_digests_are_no_repetition_but_the_same_step_twice_is(tmp_path: Path) -> None:
    course = [
        call("a", 1, "first", 1),
        call("a", 2, "step", 2),
        call("a", 3, "digest", 2),
        call("a", 2, "step", 2),
    ]
    found = verdict(tmp_path, *course)
    assert (found.calls, found.notifications, found.steps_repeated, found.well) == (4, 3, 0, True)
    assert (found.storm_groups, found.flood_points) == (1, 5)
    assert found.p99_s == LATE_S
    twice = verdict(tmp_path, *course, call("a", 4, "step", 2))
    assert (twice.steps_repeated, twice.well) == (1, False)


def test_an_outage_must_be_named_once_with_its_points_and_nobody_else(tmp_path: Path) -> None:
    def outage(name: str, gateway: str, value: float) -> dict[str, Any]:
        return call(name, 1, "first", 2, rule="outage", kind=None, gateway=gateway, value=value)

    outages = {"g1": 20}
    assert verdict(tmp_path, outage("o", "g1", 20.0), outages=outages).well
    assert not verdict(tmp_path, outages=outages).well
    assert not verdict(tmp_path, outage("o", "g1", 19.0), outages=outages).well
    assert not verdict(tmp_path, outage("o", "g1", 20.0), outage("p", "g1", 20.0), outages=outages).well
    assert not verdict(tmp_path, outage("o", "g1", 20.0), outage("p", "g2", 20.0), outages=outages).well
    late = call("p", 1, "first", 2, rule="outage", gateway="g2", onset="2026-07-01T20:02:00.000Z")
    assert verdict(tmp_path, outage("o", "g1", 20.0), late, outages=outages).well, (
        "the city had ended by then"
    )


def test_the_whole_city_has_400_stuck_sensors_and_3_silent_gateways(tmp_path: Path) -> None:
    write(generate(ROOT / "configs" / "chengdu"), tmp_path / "points.parquet")
    whole = load_fleet(tmp_path / "points.parquet")
    course = Scenario("storm-city", 1, 60.0)
    stuck = stuck_points(whole, course)
    assert stuck is not None
    assert len(np.unique(stuck)) == 400
    assert {whole.kinds[kind] for kind in whole.kind[stuck].tolist()} <= set(CITY_STUCK_KINDS)
    assert int(outage_gateways(whole, course).sum()) == 3


def test_the_city_spoke_last_when_its_ledger_says_however_long_acknowledgements_were_waited_for(
    tmp_path: Path,
) -> None:
    for name, times in (("raw", [1_000_000, 3_500_000]), ("aiomqtt", [2_000_000])):
        pl.DataFrame({"time_us": times}).write_parquet(tmp_path / f"readings-{name}.parquet")
    assert last_word_s(tmp_path) == 3.5
