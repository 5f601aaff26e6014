"""Points that disagree with those around them, and points that drift away from them, are faults of their own."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.alerts.event import FIRING, RESOLVED, AlertEvent
from anomaly.engine import Engine
from anomaly.neighbours import EARTH_M_PER_DEGREE, NEIGHBOURS, nearest
from storage.points import PointTable
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table, positions, raw_batch

MINUTE = 60


def city(n: int = 12, **columns: object) -> PointTable:
    """Points 100 m apart along a road."""
    lon = 104.0 + np.arange(n) * 100 / EARTH_M_PER_DEGREE / np.cos(np.radians(30.69))
    return point_table(
        n, **{"lon": lon, "level": np.full((4, n), np.nan), "interval_s": np.full(n, 60.0), **columns}
    )


def engine(table: PointTable, **kind: float) -> Engine:
    settings = {"neighbour_sigmas": 5.0, "neighbour_floor": 1.0, **kind}
    return Engine(table, {"waterlogging": kind_settings(**settings)}, check_settings(neighbours_s=600))


def minute(one: Engine, number: int, values: list[float]) -> list[AlertEvent]:
    at = T0 + number * MINUTE * S
    events = one.judge(
        raw_batch([(p, at, v) for p, v in enumerate(values)]), positions(0, len(values))
    ).events
    return events + one.tick(at)


def test_a_point_alone_with_its_opinion_is_a_fault_after_a_while_and_until_it_agrees() -> None:
    one = engine(city())
    events = []
    for i in range(40):
        off = 30.0 if 5 <= i < 25 else 0.0
        events += [(i, e) for e in minute(one, i, [10.0 + (p % 3) * 0.5 + off * (p == 4) for p in range(12)])]
    assert [(i, e.rule, e.type, e.alert_class, e.subject.point_id) for i, e in events] == [
        (15, "neighbours", FIRING, "fault", "P00004"),
        (25, "neighbours", RESOLVED, "fault", "P00004"),
    ]
    assert events[0][1].onset == T0 + 5 * MINUTE * S
    assert events[0][1].value > 5


def test_where_all_rise_together_nobody_is_at_fault() -> None:
    one = engine(city())
    events = [e for i in range(60) for e in minute(one, i, [10.0 + i * 3 + p * 0.1 for p in range(12)])]
    assert events == []


def test_too_few_fresh_neighbours_convict_nobody() -> None:
    one = engine(city(3))
    assert [e for i in range(60) for e in minute(one, i, [10.0, 10.0, 90.0])] == []


def test_a_slow_drift_is_found_though_no_hour_of_it_is_far_off() -> None:
    """Three deviations to one side, all day: under the limit of the one, over that of the other."""
    one = engine(city(), drift_sigmas=1.5)
    events = []
    for i in range(0, 48 * 60, 5):
        wrong = 3.0 if i < 30 * 60 else 0.0
        events += [(i, e) for e in minute(one, i, [20.0 + wrong * (p == 4) for p in range(12)])]
    assert [(e.rule, e.type, e.subject.point_id) for _, e in events] == [
        ("drift", FIRING, "P00004"),
        ("drift", RESOLVED, "P00004"),
    ]
    began, ended = (i / 60 for i, _ in events)
    assert 10 < began < 30 < ended


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_are_the_nearest(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    n = 300
    kind = rng.integers(0, 2, n).astype(np.int32)
    table = point_table(n, lon=104 + rng.random(n) * 0.05, lat=30.6 + rng.random(n) * 0.05, kinds=["a", "b"])
    table.kind[:] = kind
    of = np.flatnonzero(rng.random(n) < 0.8)
    found = nearest(table, of)
    for row, point in enumerate(of.tolist()):
        others = [p for p in of.tolist() if p != point and kind[p] == kind[point]]
        x = (table.lon[others] - table.lon[point]) * np.cos(np.radians(table.lat[kind == kind[point]].mean()))
        y = table.lat[others] - table.lat[point]
        expected = np.array(others)[np.argsort(x**2 + y**2)[:NEIGHBOURS]]
        assert set(found[row].tolist()) == set(expected.tolist())


def test_points_far_away_or_without_a_place_have_no_neighbours() -> None:
    table = city(12)
    table.lon[6:] += 1.0
    table.lon[11] = np.nan
    found = nearest(table, np.arange(11))
    assert set(found[0][found[0] >= 0].tolist()) == {1, 2, 3, 4, 5}
    one = engine(table)
    assert 11 not in one.neighbours.of


def test_an_alert_ends_when_its_kind_is_compared_no_more() -> None:
    one = engine(city())
    for i in range(15):
        minute(one, i, [40.0 if p == 4 else 10.0 for p in range(12)])
    arrays, meta = one.snapshot()
    again = Engine(city(), {"waterlogging": kind_settings()}, check_settings())
    again.restore(arrays, meta)
    assert [(e.rule, e.type) for e in again.tick(T0 + 16 * MINUTE * S)] == [("neighbours", RESOLVED)]
