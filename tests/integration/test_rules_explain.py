"""`yuzui rules`: what is listed, and the numbers an explanation shows are those the engine saw."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import EngineProcess, site_config, yuzui_here
from tests.talk import Talker

START_MS = (time.time_ns() // 1_000_000 // 60_000 - 40) * 60_000
"""Forty minutes ago, at a full minute."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine whose street filled by half a centimetre a minute for 25 minutes."""
    folder = tmp_path_factory.mktemp("explain")
    more = '[rules.rise]\nkinds = ["level"]\nshare = 0.25\n[rules.rain]\nincrement = ["plain"]'
    config = site_config(folder, {"g": ["street", "gauge"]}, kinds={"street": "level"}, more=more)
    running = EngineProcess(folder, config).start()
    with Talker(running.port) as gateway:
        for minute in range(25):
            at = START_MS + minute * 60_000
            gateway.say("t/g/street", b'{"ts":%d,"v":%.1f}' % (at, minute / 2))
            gateway.say("t/g/gauge", b'{"ts":%d,"v":2.5}' % at)
    running.until_lake("SELECT count(*) FROM readings", [(50,)])
    yield running
    assert running.stop() == 0


def explained(engine: EngineProcess, point: str, minute: float) -> dict[str, object]:
    at = START_MS / 1000 + minute * 60
    told = yuzui_here(
        "rules", "explain", point, time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at)),
        "-c", str(engine.config), "--json",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    found: dict[str, object] = json.loads(told.stdout)
    return found


def verdicts(found: dict[str, object]) -> dict[str, dict[str, float]]:
    listed = found["verdicts"]
    assert isinstance(listed, list)
    return {one["name"]: one for one in listed}


def test_an_explanation_shows_what_was_near_and_how_soon(engine: EngineProcess) -> None:
    """8 cm at minute 16, rising 0.5 cm a minute: blue (10 cm) in 4 minutes, and yellow (15 cm) in 14."""
    found = explained(engine, "street", 16.5)
    assert (found["value"], found["seen"], found["flag"]) == (8.0, 17, 1)
    rise = verdicts(found)["rise"]
    assert (rise["class"], rise["limit"]) == (1, 10.0)
    assert rise["value"] == pytest.approx(4.0, rel=1e-3)
    assert verdicts(found)["level"]["class"] == 0
    held = found["held_to"]
    assert isinstance(held, dict)
    assert [held[f"level[{k}]"] for k in range(4)] == [10.0, 15.0, 25.0, 40.0]


def test_an_explanation_of_rain_gives_the_sum_and_the_step(engine: EngineProcess) -> None:
    rain = verdicts(explained(engine, "gauge", 25))["rain"]
    assert (rain["class"], rain["value"], rain["limit"]) == (3, 62.5, 50.0)


def test_a_person_reads_it_without_json_and_hears_what_is_missing(engine: EngineProcess) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(START_MS / 1000 + 24 * 60))
    told = yuzui_here("rules", "explain", "street", at, "-c", str(engine.config))
    assert told.returncode == 0
    assert "class 1" in told.stdout
    assert "limit 15" in told.stdout
    for point, when, why in (
        ("nobody", at, 'no point "nobody"'),
        ("street", "2020-01-01", "no readings in the 26 hours"),
        ("street", "yesterday", "is no time"),
    ):
        told = yuzui_here("rules", "explain", point, when, "-c", str(engine.config))
        assert (told.returncode, why in told.stderr) == (2, True), told.stderr


def test_the_list_names_every_rule_and_the_source_of_every_table() -> None:
    from anomaly.rules import row_rules, tick_rules

    told = yuzui_here("rules", "list", "--json")
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert {line["rule"] for line in lines if "rule" in line} == {
        r.name for r in (*row_rules(), *tick_rules())
    }
    tables = [line for line in lines if "table" in line]
    assert len(tables) > 40
    assert all(table["source"] for table in tables)
    assert "GB 3838-2002" in yuzui_here("rules", "list").stdout


def test_tables_are_part_of_the_wheel() -> None:
    """They stand inside a package, so hatch takes them along; the sdist names the package."""
    import anomaly.rules.tables

    folder = Path(anomaly.rules.tables.__file__).parent
    assert {p.name for p in folder.glob("*.toml")} >= {
        "rain.toml",
        "air.toml",
        "water.toml",
        "noise.toml",
        "flood.toml",
    }
