"""The demo city's events: the same bytes for a seed, whole lives, each message as its source's file reads it."""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ingest.codecs.table import make_codec
from ingest.configfile import load
from ingest.simulate.city import generate
from ingest.simulate.event_words import DAY_US, SOURCES, Site
from ingest.simulate.events import TOPICS, Flood, Spoken, city_events, city_past
from ingest.simulate.projects import CAMERAS as CAMERAS_OF_SITE
from ingest.simulate.projects import PROJECTS as ALL_PROJECTS
from ingest.simulate.projects import Project, places_of, projects_of, with_cameras
from ingest.sourcesettings import SourceSettings
from storage.records import STATES

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "configs" / "chengdu" / "events"
ZONE = ZoneInfo("Asia/Shanghai")
BEGIN = 1_782_835_200_000_000
SITES = [Site("金牛区", 104.05, 30.69), Site("武侯区", 104.04, 30.64)]
CAMERAS = ["cam-1", "cam-2"]
PROJECTS = [
    Project(f"CD-{n:04d}", f"项目{n}", "轨道交通", SITES[n % 2], (f"site-{n}", "cam-1"), BEGIN - (9 - n) * 30 * DAY_US,
            BEGIN + (n - 2) * 60 * DAY_US, 0.9)
    for n in range(1, 6)
]  # fmt: skip
FLOOD = Flood(SITES[0], BEGIN + DAY_US // 2, BEGIN + DAY_US // 2 + 1_800_000_000, 40)


def stream(seed: int) -> list[Spoken]:
    days = (BEGIN, BEGIN + 2 * DAY_US)
    return list(
        city_events(seed, *days, SITES, cameras=CAMERAS, scale=0.05, floods=[FLOOD], projects=PROJECTS)
    )


def settings(source: str) -> SourceSettings:
    text = (FILES / f"{source}.toml").read_text("utf-8")
    return SourceSettings.model_validate({"name": source, **tomllib.loads(text)})


@pytest.fixture(scope="module")
def spoken() -> list[Spoken]:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    found = stream(seed)
    assert stream(seed) == found
    assert stream(seed + 1) != found
    return found


def test_each_message_is_read_as_the_ledger_says(spoken: list[Spoken]) -> None:
    codecs = {name: make_codec("json", settings(name), ZONE) for name in SOURCES.values()}
    for one in spoken:
        parsed = codecs[one.source].parse(one.topic, one.payload)
        assert parsed.refusals == []
        assert tuple(parsed.events) == one.steps
        assert not any(number in str(parsed.events) for number in one.numbers)


def test_it_is_a_city(spoken: list[Spoken]) -> None:
    steps = [step for one in spoken for step in one.steps]
    assert {step.type for step in steps} == set(SOURCES)
    assert len({(s.source, s.id, s.state, s.at_us) for s in steps}) == len(steps)
    assert all(BEGIN <= s.at_us < BEGIN + 2 * DAY_US and s.at_us % 1_000_000 == 0 for s in steps)
    assert [one.at_us for one in spoken] == sorted(one.at_us for one in spoken)
    assert {one.topic for one in spoken} == set(TOPICS.values())
    states = Counter(s.state for s in steps if s.type == "appeal")
    assert min(states[name] for name in ("accepted", "assigned", "handled", "closed", "rated")) > 50
    near = [s for s in steps if s.id.startswith("FL") and s.state == "accepted"]
    assert len(near) == FLOOD.appeals
    assert all(s.category == "waterlogging" and abs((s.lon or 0) - 104.05) < 0.01 for s in near)


def test_lives_go_forward(spoken: list[Spoken]) -> None:
    lives: dict[str, list[tuple[int, int]]] = {}
    for one in spoken:
        for step in one.steps:
            lives.setdefault(step.id, []).append((step.at_us, STATES[step.state]))
    for life in lives.values():
        assert [stage for _, stage in sorted(life)] == sorted(stage for _, stage in life)


def test_a_life_can_be_made_short() -> None:
    span = (BEGIN, BEGIN + DAY_US // 24)
    quick = [
        step for one in city_events(1, *span, SITES, scale=3, pace=1e-3) for step in one.steps
        if step.type == "finding"
    ]  # fmt: skip
    assert {"accepted", "closed"} <= {step.state for step in quick}


def test_without_cameras_there_are_no_alarms() -> None:
    found = city_events(1, BEGIN, BEGIN + DAY_US // 24, SITES, scale=0.1)
    assert {one.source for one in found}.isdisjoint({"video-alarms"})


def test_a_city_that_joins_brings_along_enough_for_every_list() -> None:
    """Thirty projects with what stands on their sites, each with a plan; findings of them, some past their day."""
    table = with_cameras(generate(ROOT / "configs" / "chengdu", 5000, 1, 1.0), 1)
    assert len(table) == 5000
    projects = projects_of(table, BEGIN, 1)
    assert len({one.number for one in projects}) == len(projects) == ALL_PROJECTS
    assert len({one.site.district for one in projects}) > 10
    kinds = dict(zip(table["point_id"], table["kind"], strict=True))
    devices = set(table["device_id"])
    for one in projects:
        assert one.devices[0] in devices
        assert [kinds[camera] for camera in one.devices[1:]] == ["video"] * CAMERAS_OF_SITE
        assert 0 < one.done(BEGIN) < 1
        assert 0 < one.planned(BEGIN) <= 1
    assert any(one.end_us < BEGIN for one in projects), "some are late"
    past = city_past(1, BEGIN, places_of(table, 1, 50), projects)
    assert past == city_past(1, BEGIN, places_of(table, 1, 50), projects)
    assert 3_000 < len(past) < 8_000
    steps = [step for one in past for step in one.steps]
    assert all(step.at_us < BEGIN for step in steps)
    assert len({(s.source, s.id, s.state, s.at_us) for s in steps}) == len(steps)
    assert {s.id for s in steps if s.type == "project"} == {one.number for one in projects}
    assert {s.attributes["project"] for s in steps if s.type == "finding"} <= {one.number for one in projects}
    over = {s.id for s in steps if s.type == "finding" and s.state == "closed"}
    late = {s.id for s in steps if s.type == "finding" and (s.due_us or BEGIN) < BEGIN} - over
    assert len(late) > 5
    months = {s.at_us // (30 * DAY_US) for s in steps if s.type == "inspection" and s.state == "closed"}
    assert len(months) >= 12


def test_a_registry_with_cameras_or_without_sites_stays_as_it_is() -> None:
    table = generate(ROOT / "configs" / "chengdu", 5000, 1, 1.0)
    once = with_cameras(table, 1)
    assert with_cameras(once, 1).equals(once)
    bare = table.filter(~table["kind"].is_in(["dust_pm10", "site_noise"]))
    assert with_cameras(bare, 1).equals(bare)
    assert projects_of(bare, BEGIN, 1) == []


def test_the_files_are_sources_of_a_config_without_a_fault(tmp_path: Path) -> None:
    (tmp_path / "sources.d").symlink_to(FILES)
    (tmp_path / "points.csv").write_text("point_id,name,source,kind\n")
    (tmp_path / "yuzui.toml").write_text('[city]\ntime_zone = "Asia/Shanghai"\n')
    config = load(tmp_path / "yuzui.toml", env={})
    assert {source.name for source in config.source} == set(SOURCES.values())
    assert {s.name for s in config.source if s.personal} == {
        "hotline-12345", "food-inspections", "village-banquets",
    }  # fmt: skip
