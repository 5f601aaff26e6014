"""Claims about simulated values and scenarios: deterministic, exact, calm when calm, wet in a storm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.fleet import choose, deal, hops_upstream, load_fleet
from ingest.simulate.scenario import OUTAGE_SPAN, Scenario
from ingest.simulate.values import Values
from tests.simulate_city import write_city

SECONDS = 40.0


def played(
    tmp_path: Path, name: str, points: int = 600, seed: int = 5
) -> tuple[Values, np.ndarray, list[str]]:
    points_file, city = write_city(tmp_path, points, 20)
    fleet = load_fleet(points_file)
    values = Values(fleet, load_kinds(city), Scenario(name, seed, SECONDS), fleet.box())  # type: ignore[arg-type]
    return (
        values,
        np.array([values.at(step) for step in range(int(SECONDS))]),
        [fleet.kinds[k] for k in fleet.kind],
    )


@pytest.mark.parametrize("name", ["steady", "storm", "stuck"])
def test_a_value_is_the_double_of_its_own_decimal_text(tmp_path: Path, name: str) -> None:
    values, rows, _ = played(tmp_path, name)
    for step in (0, 13, 39):
        for value, decimals in zip(rows[step].tolist(), values.decimals.tolist(), strict=True):
            assert float(f"{value:.{decimals}f}") == value


@pytest.mark.parametrize("name", ["steady", "storm", "stuck"])
def test_any_slice_says_what_the_whole_says(tmp_path: Path, name: str) -> None:
    values, rows, _ = played(tmp_path, name)
    for step in (0, 12, 25):
        parts = [values.at(step, slice(a, b)) for a, b in ((0, 1), (1, 77), (77, 300), (300, 600))]
        assert np.array_equal(np.concatenate(parts), rows[step])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    assert np.array_equal(played(tmp_path, "storm")[1], played(tmp_path, "storm")[1])
    assert not np.array_equal(played(tmp_path, "storm", seed=6)[1], played(tmp_path, "storm")[1])


def test_a_calm_city_stays_within_its_kinds_spans(tmp_path: Path) -> None:
    _, rows, kinds = played(tmp_path, "steady")
    for name, low, high in (("rain", 0, 0), ("water", 0, 2), ("frost", -30, 5), ("count", 0, 120)):
        mine = rows[:, [k == name for k in kinds]]
        assert mine.min() >= low
        assert mine.max() <= high


def test_a_storm_rises_and_falls_and_stays_inside_the_range(tmp_path: Path) -> None:
    _, rows, kinds = played(tmp_path, "storm")
    rain, water = rows[:, [k == "rain" for k in kinds]], rows[:, [k == "water" for k in kinds]]
    assert rain.max() > 5
    assert rain.max() <= 120  # the registry's range_max
    flooded = water.max(axis=0) > 10
    assert 0 < flooded.sum() < len(flooded)
    assert (water[0] <= 2).all(), "the storm begins outside"
    assert (water[-1, flooded] < water.max(axis=0)[flooded]).all()
    first = [int(np.argmax(water[:, i] > 10)) for i in np.flatnonzero(flooded)]
    assert max(first) > min(first), "the cell moves: not everywhere at once"


def test_river_stations_keep_below_their_own_level_until_the_storm(tmp_path: Path) -> None:
    points_file, city = write_city(tmp_path, 600, 20)
    fleet = load_fleet(points_file)
    river = np.array([fleet.kinds[k] == "river" for k in fleet.kind])
    calm = Values(fleet, load_kinds(city), Scenario("steady", 5, SECONDS), fleet.box())
    for step in range(0, 40, 5):
        gap = fleet.level_blue[river] - calm.at(step)[river]
        assert (gap > 1).all()


def test_stuck_sensors_stop_and_others_go_on(tmp_path: Path) -> None:
    points_file, city = write_city(tmp_path, 3_000, 20)
    fleet = load_fleet(points_file)
    scenario = Scenario("stuck", 5, SECONDS)
    stuck = scenario.stuck(fleet.number)
    rows = np.array(
        [Values(fleet, load_kinds(city), scenario, fleet.box()).at(s) for s in range(int(SECONDS))]
    )
    assert 0 < stuck.sum() < 40
    assert (rows[10:, stuck] == rows[10, stuck]).all()
    moving = np.array([fleet.kinds[k] == "frost" for k in fleet.kind]) & ~stuck
    assert ((rows[10:, moving] != rows[10, moving]).any(axis=0)).all()


def test_an_outage_silences_some_gateways_for_its_span() -> None:
    scenario = Scenario("outage", 1, 100.0)
    silent = scenario.silent_gateways(500)
    assert silent.sum() == 10
    assert not scenario.silent_now(OUTAGE_SPAN[0] - 0.01)
    assert scenario.silent_now(OUTAGE_SPAN[0])
    assert not scenario.silent_now(OUTAGE_SPAN[1])
    assert not Scenario("steady", 1, 100.0).silent_gateways(500).any()


def test_dealing_gives_every_point_to_exactly_one_speaker(tmp_path: Path) -> None:
    fleet = load_fleet(write_city(tmp_path, 600, 40)[0])
    raw, other = deal(fleet, 0.1)
    assert sorted([*raw.number.tolist(), *other.number.tolist()]) == list(range(600))
    assert len(np.unique(other.gateway)) == 4
    assert not set(raw.gateway.tolist()) & set(other.gateway.tolist())
    assert len(deal(fleet, 0.0)[1]) == 0
    assert len(deal(fleet, 1.0)[0]) == 0


def test_fewer_points_are_whole_gateways_as_far_as_they_go(tmp_path: Path) -> None:
    fleet = load_fleet(write_city(tmp_path, 600, 40)[0])
    some = choose(fleet, 100, 1)
    assert len(some) == 100
    assert np.bincount(some.gateway).tolist().count(15) == 6
    assert len(choose(fleet, None, 1)) == len(choose(fleet, 601, 1)) == 600


def test_retired_points_and_comments_are_not_played(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("# a note\npoint_id,kind,topic,retired\na,rain,t/a,false\nb,rain,t/b,true\nc,rain,t/c,\n")
    assert load_fleet(file).point_id == ["a", "c"]


def test_a_registry_without_topics_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("point_id,kind\na,rain\n")
    with pytest.raises(ValueError, match="topic"):
        load_fleet(tmp_path / "points.csv")


def test_hops_count_the_points_upstream_and_a_ring_ends() -> None:
    assert hops_upstream(np.array([-1, 0, 1, -1], np.int32)).tolist() == [0, 1, 2, 0]
    assert hops_upstream(np.array([1, 0], np.int32)).tolist() == [12, 12]
