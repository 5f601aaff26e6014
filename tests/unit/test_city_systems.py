"""The table of 365 systems and their archetypes: what the README says of the whole city is true of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import polars as pl
import pytest

from ingest.codecs.table import CODECS
from ingest.configfile import load
from ingest.points import read_registry
from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.encoders.base import encoder_class
from ingest.simulate.systems.make import make, source_text
from ingest.simulate.systems.table import (
    CITY_SENSORS,
    CITY_VIDEO,
    SYSTEMS,
    devices_of,
    load_archetype,
    load_systems,
)

CITY = Path(__file__).resolve().parents[2] / "configs" / "chengdu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("city")
    make(made, CITY, scale=0.01, seed=3)
    return made


def test_the_table_holds_365_systems_with_the_articles_counts() -> None:
    systems = load_systems(CITY)
    assert len(systems) == SYSTEMS
    assert len({one.id for one in systems}) == len({one.name for one in systems}) == SYSTEMS
    assert sum(one.points for one in systems) == CITY_SENSORS
    assert sum(one.videos for one in systems) == CITY_VIDEO
    fields = {one.field for one in systems}
    assert fields >= {
        "政务服务",
        "教育",
        "医疗",
        "交通",
        "应急",
        "城管",
        "环保",
        "防汛",
        "旅游",
        "食品监管",
        "重点项目",
    }


def test_the_whole_city_has_every_point_of_the_table_once() -> None:
    archetypes = {one.archetype: load_archetype(CITY, one.archetype) for one in load_systems(CITY)}
    points = [
        devices_of(one, archetypes[one.archetype]) * len(archetypes[one.archetype].quantities)
        for one in load_systems(CITY)
    ]
    assert sum(points) == CITY_SENSORS + CITY_VIDEO


def test_there_are_at_least_forty_mappings_and_every_codec_is_spoken() -> None:
    used = {one.archetype for one in load_systems(CITY)}
    archetypes = [load_archetype(CITY, name) for name in used]
    devices = [one for one in archetypes if one.quantities]
    bodies = [{key: value for key, value in one.body.items() if key != "interval_s"} for one in devices]
    distinct = [body for i, body in enumerate(bodies) if body not in bodies[:i]]
    print(f"{len(distinct)} distinct mappings, {len(archetypes) - len(devices)} of events")
    assert len(distinct) >= 40
    assert {one.body.get("codec", "json") for one in archetypes} == set(CODECS)
    assert {path.stem for path in (CITY / "archetypes").glob("*.toml")} == {one.name for one in devices}


def test_every_kind_of_an_archetype_has_values_and_settings(folder: Path) -> None:
    kinds, config = load_kinds(CITY), load(folder / "yuzui.toml")
    for system in load_systems(CITY):
        for kind in load_archetype(CITY, system.archetype).quantities.values():
            assert kind in kinds, f"{system.archetype}: {kind}"
            assert kind in config.kinds, f"{system.archetype}: {kind}"


def test_what_is_generated_is_right_and_the_same_for_the_same_seed(folder: Path, tmp_path: Path) -> None:
    config = load(folder / "yuzui.toml")
    assert len(config.source) == SYSTEMS
    assert all(encoder_class(source.codec) for source in config.source)
    registry = read_registry(folder / "points.parquet", config)
    assert registry.faults_count == 0
    assert len(registry.table) == len(pl.read_parquet(folder / "points.parquet"))
    make(tmp_path, CITY, scale=0.01, seed=3)
    for name in ("points.parquet", "sources.d/hotline-12345.toml", "sources.d/centre-rain.toml"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_systems_file_says_who_answers_for_it() -> None:
    systems = {one.id: one for one in load_systems(CITY)}
    rain = systems["centre-rain"]
    body = tomllib.loads(source_text(rain, load_archetype(CITY, rain.archetype), 21_234, 5.0))
    assert (body["name"], body["owner"], body["port"], body["interval_s"]) == (
        "centre-rain",
        "市水务局",
        21_234,
        5.0,
    )
    assert "city" not in body


def test_an_archetype_that_does_not_fit_is_named(tmp_path: Path) -> None:
    (tmp_path / "archetypes").mkdir()
    (tmp_path / "archetypes" / "odd.toml").write_text(
        'codec = "json"\n\n[city]\ndevice = "x"\nquantities = {}\n'
    )
    with pytest.raises(ValueError, match=r"odd\.toml"):
        load_archetype(tmp_path, "odd")
