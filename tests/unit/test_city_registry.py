"""The demo city: exact, the same from the same seed, plausible, and calm when nothing happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from anomaly.settings import KindSettings
from ingest.config import Config
from ingest.configfile import load
from ingest.points import read_registry
from ingest.simulate.city import CITY_POINTS, COLUMNS, generate, load_kinds, write
from ingest.simulate.city_kinds import load_plans
from ingest.simulate.city_places import load_districts

CITY = Path(__file__).resolve().parents[2] / "configs" / "chengdu"
TOPIC_BYTES_MAX = 60
NAMED = {
    "锦江区",
    "青羊区",
    "金牛区",
    "武侯区",
    "成华区",
    "龙泉驿区",
    "青白江区",
    "新都区",
    "温江区",
    "双流区",
} | {
    *("郫都区", "新津区", "都江堰市", "彭州市", "邛崃市", "崇州市", "简阳市", "金堂县", "大邑县", "蒲江县"),
    *("高新区", "天府新区", "东部新区"),
}


@pytest.fixture(scope="module")
def city() -> pl.DataFrame:
    """The whole city."""
    return generate(CITY)


@pytest.fixture(scope="module")
def config() -> Config:
    """The demo city's config with its drop-in, no variable set."""
    return load(CITY / "yuzui.toml", {})


def levels(kind: KindSettings) -> list[float]:
    """The levels a kind has, from blue to red."""
    all_four = (kind.level_blue, kind.level_yellow, kind.level_orange, kind.level_red)
    return [level for level in all_four if level is not None]


@pytest.mark.parametrize("points", [0, 1, 7, 138, 1_000, 11_620, 120_001])
def test_a_city_has_exactly_the_points_asked_for(points: int) -> None:
    table = generate(CITY, points)
    assert len(table) == points
    assert table["point_id"].n_unique() == table["topic"].n_unique() == points


def test_the_whole_city_covers_every_district_source_and_kind(city: pl.DataFrame, config: Config) -> None:
    assert len(city) == CITY_POINTS == 116_200
    assert tuple(city.columns) == COLUMNS
    assert set(city["district"]) == NAMED == {d.name for d in load_districts(CITY)}
    assert set(city["kind"]) < set(load_kinds(CITY)) == set(config.kinds), "the others are the whole city's"
    assert set(city["source"]) == {source.name for source in config.source}


def test_the_same_seed_is_the_same_city_and_another_seed_is_another() -> None:
    one = generate(CITY, 3_000, seed=7)
    assert one.equals(generate(CITY, 3_000, seed=7))
    assert not one.equals(generate(CITY, 3_000, seed=8))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_engine_reads_the_generated_registry_without_a_fault(
    city: pl.DataFrame, config: Config, tmp_path: Path, suffix: str
) -> None:
    write(city, tmp_path / "made" / f"points.{suffix}")
    registry = read_registry(tmp_path / "made" / f"points.{suffix}", config)
    assert registry.report() == []
    assert registry.table.height == CITY_POINTS
    assert registry.table["unit"].min() != ""
    assert [p.name for p in (tmp_path / "made").iterdir()] == [f"points.{suffix}"]


def test_a_gateway_serves_one_source_in_one_district_for_about_a_hundred_neighbours(
    city: pl.DataFrame,
) -> None:
    gateways = city.group_by("gateway_id").agg(
        pl.len(),
        pl.col("source", "district").n_unique(),
        across_km=(pl.col("lat").max() - pl.col("lat").min()) * 111.2,
    )
    assert gateways["source"].max() == gateways["district"].max() == 1
    assert 1_100 < len(gateways) < 1_300
    assert gateways.filter(pl.col("len") > 120).is_empty()
    across = city.group_by("district", "source").agg(km=(pl.col("lat").max() - pl.col("lat").min()) * 111.2)
    assert gateways["across_km"].mean() < 0.6 * across["km"].mean()  # type: ignore[operator]


def test_a_device_stands_at_one_place_and_holds_the_kinds_of_its_type(city: pl.DataFrame) -> None:
    devices = city.group_by("device_id").agg(pl.len(), pl.col("lon", "lat", "gateway_id").n_unique())
    assert devices.select(pl.col("lon", "lat", "gateway_id").max()).row(0) == (1, 1, 1)
    water = city.filter(pl.col("device_id") == "water-000001")
    assert water["kind"].to_list() == ["ph", "dissolved_oxygen", "codmn", "nh3n", "tp"]


def test_topics_are_short_and_say_gateway_and_point(city: pl.DataFrame) -> None:
    assert city.filter(pl.col("topic").str.len_bytes() >= TOPIC_BYTES_MAX).is_empty()
    assert city.filter(pl.col("topic") != pl.format("cd/{}/{}", "gateway_id", "point_id")).is_empty()
    assert city["point_id"].str.contains(r"^cd-[a-z]+-[a-z0-9]+-\d{6}$").all()


def test_points_lie_in_the_city_near_the_middle_of_their_district(city: pl.DataFrame) -> None:
    centre = {d.name: d for d in load_districts(CITY)}
    spread = city.filter(pl.col("kind") != "river_level").select(
        "district",
        north=(pl.col("lat") - pl.col("district").replace_strict({n: d.lat for n, d in centre.items()}))
        * 111.2,
        east=(pl.col("lon") - pl.col("district").replace_strict({n: d.lon for n, d in centre.items()}))
        * 95.6,
        limit=pl.col("district").replace_strict({n: 2 * d.spread_km for n, d in centre.items()}),
    )
    distance = (pl.col("north") ** 2 + pl.col("east") ** 2).sqrt()
    assert spread.filter(distance > pl.col("limit")).is_empty()


def test_each_river_station_has_its_own_rising_levels_and_the_next_station_as_upstream(
    city: pl.DataFrame,
) -> None:
    river = city.filter(pl.col("kind") == "river_level")
    order = ("range_min", "level_blue", "level_yellow", "level_orange", "level_red", "range_max")
    steps = np.diff(river.select(order).to_numpy(), axis=1)
    assert (steps > 0).all()
    assert river["level_yellow"].n_unique() > 400
    linked = river.drop_nulls("upstream").join(
        river, left_on="upstream", right_on="point_id", suffix="_up", validate="m:1"
    )
    assert len(linked) == len(river) - 12  # twelve rivers, each with one first station
    drop = linked["range_min_up"] - linked["range_min"]
    assert drop.min() >= 0  # type: ignore[operator]
    km = ((linked["lat"] - linked["lat_up"]) ** 2 + (linked["lon"] - linked["lon_up"]) ** 2).sqrt() * 111
    assert km.max() < 3  # type: ignore[operator]


def test_an_interval_can_be_set_for_all_points_else_each_kind_has_its_own() -> None:
    assert generate(CITY, 500, interval_s=1.0)["expected_interval_s"].unique().to_list() == [1.0]
    kinds, _ = load_plans(CITY)
    table = generate(CITY, 5_000)
    expected = table["kind"].replace_strict({name: plan.interval_s for name, plan in kinds.items()})
    assert table["expected_interval_s"].equals(expected.rename("expected_interval_s"))


def test_a_calm_city_crosses_no_limit(city: pl.DataFrame, config: Config) -> None:
    """Between low and high lies no level, so that an alert in a steady run is a fault of the engine."""
    for name, sim in load_kinds(CITY).items():
        kind = config.kinds[name]
        assert sim.low <= sim.high, name
        if sim.below_level is not None:
            calm = city.filter(pl.col("kind") == name).select(
                head=pl.col("level_blue") - (pl.col("level_blue") - sim.below_level),
                depth=pl.col("level_blue") - sim.below_level - pl.col("range_min"),
            )
            swing = sim.spread + abs(sim.daily) + 6 * sim.noise
            assert calm["head"].min() > swing  # type: ignore[operator]
            assert calm["depth"].min() > swing  # type: ignore[operator]
            continue
        assert sim.low <= sim.base <= sim.high, name
        assert kind.range_min is not None
        assert kind.range_max is not None
        assert kind.range_min <= sim.low, name
        assert max(sim.high, sim.peak if sim.storm != "rain" else 0.0) <= kind.range_max, name
        if steps := levels(kind):
            falling = len(steps) > 1 and steps[0] > steps[-1]
            assert sim.low > steps[0] if falling else sim.high < steps[0], name


def test_a_storm_reaches_the_highest_level_of_streets_rain_and_rivers(
    city: pl.DataFrame, config: Config
) -> None:
    sims = load_kinds(CITY)
    for name in ("waterlogging", "rain_1h"):
        assert sims[name].peak > levels(config.kinds[name])[-1]
    river, sim = city.filter(pl.col("kind") == "river_level"), sims["river_level"]
    assert sim.below_level is not None
    reached = river["level_blue"] - sim.below_level + sim.peak
    assert (reached > river["level_orange"]).mean() > 0.5  # type: ignore[operator]
    assert (reached < river["range_max"]).all()


def test_quiet_sensors_are_not_called_stuck(config: Config) -> None:
    """Noise below half of the last digit leaves a value standing for long: hours are needed, or no check."""
    kinds, _ = load_plans(CITY)
    for name, sim in load_kinds(CITY).items():
        kind = config.kinds[name]
        if kind.flat_line_s is None or (kind.flat_line_skip_zero and sim.base == 0):
            continue
        steps_of_last_digit = sim.noise * 10**sim.decimals
        assert kind.flat_line_s >= (120 if steps_of_last_digit >= 1 else 300), name
        assert kind.flat_line_s >= 6 * 3600 or steps_of_last_digit >= 0.39, name
        assert kind.flat_line_s >= 10 * kinds[name].interval_s, name


def test_the_generator_names_a_wrong_table(tmp_path: Path) -> None:
    (tmp_path / "sensors.toml").write_text("[kind.x]\ncode = 'x'\ninterval_s = 1\nbase = 1.0\nbasis = 2\n")
    with pytest.raises(ValueError, match=r"kind\.x: unknown keys \['basis'\]"):
        load_kinds(tmp_path)
