"""The rules that look across points: areal rain, compound signs, stations, dust, outlook and travel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anomaly.checks.level import highest, level
from anomaly.checks.rows import Rows
from anomaly.limits import limits_of
from anomaly.rules import row_rules, tick_rules
from anomaly.rules.base import Condition, Forecast, TickView
from anomaly.rules.settings import SIGNS, RuleSettings
from anomaly.rules.travel import follow
from anomaly.state import State
from storage.batch import stable_order
from storage.points import PointTable
from tests.anomaly_city import T0, S, check_settings, point_table

MIN = 60 * S
TICK_RULES = {rule.name: rule for rule in tick_rules()}


class Town:
    """Points of some kinds, fed with readings as the engine would; UTC is its clock."""

    def __init__(self, kinds: list[str], *, rules: dict[str, Any] | None = None, **columns: Any) -> None:
        names = sorted(set(kinds))
        self.points: PointTable = point_table(len(kinds), kind=names[0], **columns)
        self.points.kinds[:] = names
        self.points.kind[:] = [names.index(kind) for kind in kinds]
        self.rules = RuleSettings.model_validate(rules or {}).model_dump()
        self.limits = dict(limits_of(self.points, {}, check_settings()))
        for rule in row_rules():
            self.limits |= rule.settings(self.points, {}, self.rules)
        self.state = State(len(kinds))
        self.state.place(self.limits)
        self.levels = {rule.name: np.zeros(len(kinds), np.uint8) for rule in row_rules()}
        self.now = T0

    def hear(self, readings: list[tuple[int, int, float]]) -> None:
        """(point, µs after T0, value), times of a point rising."""
        point = np.array([r[0] for r in readings], np.int32)
        time = np.array([T0 + r[1] for r in readings], np.int64)
        value = np.array([r[2] for r in readings], np.float64)
        order = stable_order(point)
        state = self.state.arrays()
        rows = Rows.grouped(point[order], time[order], value[order], state)
        for rule in row_rules():
            found = rule.judge(rows, self.limits, state)
            self.levels[rule.name][rows.point[rows.last]] = found.classes[rows.last]
        level(rows, self.limits, state)
        rows.believe(state)
        last = rows.last
        state["last_t"][rows.point[last]] = rows.time[last]
        state["last_v"][rows.point[last]] = rows.value[last]
        self.now = max(self.now, int(time.max()))

    def view(self) -> TickView:
        levels = {**self.levels, "level": highest(self.state["level_mask"])}
        return TickView(self.now, self.points, self.limits, self.state.arrays(), levels, self.rules)

    def ask(self, name: str) -> list[Condition]:
        return TICK_RULES[name].judge(self.view())

    def expect(self) -> list[Forecast]:
        forecast = TICK_RULES["outlook"].forecast
        assert forecast is not None
        return forecast(self.view())


def test_a_tick_before_any_reading_says_nothing() -> None:
    town = Town(["rain_gauge", "pm25", "pm10", "waterlogging", "dust_pm10", "ph", "tp"])
    assert [town.ask(name) for name in TICK_RULES] == [[]] * len(TICK_RULES)
    assert town.expect() == []


@pytest.mark.parametrize(
    ("each_mm", "hours", "severity"), [(20.0, 3, 3), (40.0, 3, 4), (10.0, 6, 2), (1.0, 6, 0)]
)
def test_areal_rain_is_the_mean_of_a_districts_gauges(each_mm: float, hours: int, severity: int) -> None:
    """Three gauges at 0.5, 1 and 1.5 of an hourly amount: their mean decides, in the shortest window that does."""
    town = Town(["rain_gauge"] * 3)
    town.hear(
        [
            (p, h * 60 * MIN, each_mm * share)
            for h in range(1, hours + 1)
            for p, share in enumerate((0.5, 1.0, 1.5))
        ]
    )
    found = town.ask("areal_rain")
    assert [c.severity for c in found] == ([severity] if severity else [])
    if found:
        assert found[0].subject == "金牛区"
        assert found[0].value == pytest.approx(each_mm * hours)
        assert found[0].members == (2, 1, 0)
        assert "(实测)" in found[0].words_zh
        assert "预警" not in found[0].words_zh


def test_two_gauges_are_no_mean_of_a_district_and_a_silent_one_takes_no_part() -> None:
    town = Town(["rain_gauge"] * 2)
    town.hear([(p, MIN, 200.0) for p in range(2)])
    assert town.ask("areal_rain") == []
    town = Town(["rain_gauge"] * 3)
    town.hear([(p, MIN, 200.0) for p in range(3)])
    assert len(town.ask("areal_rain")) == 1
    town.now += 61 * MIN
    assert town.ask("areal_rain") == []


def compound_town() -> Town:
    needs = [
        {"rule": "rain_sum", "mm": 25.0, "hours": 3, "points": 2, "growing": True},
        {"rule": "rising", "kinds": ["river_level"]},
        {"rule": "level", "severity": 2, "kinds": ["waterlogging"]},
    ]
    levels = np.repeat(np.array([[15.0], [25.0], [30.0], [40.0]]), 5, axis=1)
    levels[:, 2] = (500.0, 501.0, 502.0, 503.0)
    kinds = ["rain_gauge", "rain_gauge", "river_level", "waterlogging", "rain_gauge"]
    rules = {"compound": [{"name": "内涝", "severity": 3, "needs": needs}]}
    town = Town(kinds, rules=rules, level=levels)
    town.points.districts[:] = ["金牛区", "双流区"]
    town.points.district[4] = 1
    return town


def test_a_compound_rule_needs_all_its_signs_in_one_area() -> None:
    town = compound_town()
    town.hear([(0, MIN, 5.0), (1, MIN, 5.0), *((2, m * MIN, 498.0) for m in range(1, 60, 5)), (3, MIN, 1.0)])
    assert town.ask("compound") == []
    town.hear([(0, 61 * MIN, 30.0), (4, 61 * MIN, 90.0), (3, 61 * MIN, 26.0), (2, 61 * MIN, 498.0)])
    assert town.ask("compound") == [], "one gauge, and no river that rises"
    town.hear(
        [
            (1, 62 * MIN, 30.0),
            *((2, m * MIN, 498.0 + (m - 61) * 0.05) for m in range(62, 75)),
            (3, 74 * MIN, 26.0),
        ]
    )
    (found,) = town.ask("compound")
    assert (found.subject, found.severity) == ("内涝 · 金牛区", 3)
    assert set(found.members) == {0, 1, 2, 3}
    assert "2 处3 小时雨量 ≥ 25 毫米" in found.words_zh
    town.now += 3 * 60 * MIN
    assert town.ask("compound") == []


def test_a_compound_rule_of_a_circle_counts_what_lies_in_it() -> None:
    rules = {
        "compound": [
            {
                "name": "near",
                "area": "circle",
                "circle": [104.05, 30.69, 1.0],
                "severity": 2,
                "needs": [{"rule": "level"}],
            }
        ]
    }
    town = Town(["waterlogging"] * 2, rules=rules)
    town.points.lon[1] += 0.02
    town.hear([(1, MIN, 50.0)])
    assert town.ask("compound") == []
    town.hear([(0, 2 * MIN, 50.0)])
    (found,) = town.ask("compound")
    assert found.members == (0,)


def test_a_station_is_as_bad_as_its_worst_pollutant_and_says_which() -> None:
    town = Town(["pm25", "pm10", "o3"], device_id=["D", "D", "D"])
    town.hear([(0, MIN, 160.0), (1, MIN, 60.0), (2, MIN, 100.0)])
    assert town.ask("aqi") == [], "an hour is judged when it is over"
    town.hear([(p, 61 * MIN, 1.0) for p in range(3)])
    (found,) = town.ask("aqi")
    # 2026-01-01 still has the tables of 2012: 200 + (160 - 150) / 100 * 100.
    assert (found.value, found.severity, found.members[0]) == (210.0, 2, 0)
    assert "重度污染" in found.words_zh
    assert "PM2.5" in found.words_zh
    assert not town.levels["air"].any(), "its points do not alert beside it"


def test_a_section_stands_in_the_class_of_its_worst_indicator() -> None:
    town = Town(["dissolved_oxygen", "tp", "ph"], device_id=["D", "D", "D"])
    town.points.interval_s[:] = 14_400
    town.hear([(0, MIN, 6.5), (1, MIN, 0.15), (2, MIN, 7.0)])
    assert town.ask("section") == [], "class III is the target"
    town.hear([(0, 2 * MIN, 2.5), (1, 2 * MIN, 0.25)])
    (found,) = town.ask("section")
    assert (found.severity, found.value, found.limit, found.members) == (2, 5.0, 3.0, (0,))
    assert "V类(目标III类),定类指标 溶解氧" in found.words_zh
    town.now += 13 * 3600 * S
    assert town.ask("section") == []


def test_dust_is_what_a_site_adds_to_its_district() -> None:
    town = Town(["dust_pm10", "pm10", "pm10", "dust_pm10"])
    town.hear([(p, MIN, v) for p, v in enumerate((400.0, 100.0, 120.0, 200.0))])
    town.hear([(p, 61 * MIN, 100.0) for p in range(4)])
    assert town.ask("dust_excess") == [], "the site's own quarter of an hour is an hour old"
    town.hear([(0, 62 * MIN, 500.0), (3, 62 * MIN, 150.0)])
    town.hear([(p, 76 * MIN, 100.0) for p in (0, 1, 2, 3)])
    (found,) = town.ask("dust_excess")
    assert (found.subject, found.severity, found.value) == ("P00000", 1, 300.0 - 110.0)


def test_a_level_that_rises_has_a_forecast_and_one_that_stands_has_none() -> None:
    town = Town(["waterlogging"] * 2)
    town.hear([(0, m * MIN, 6.0 + 0.5 * m) for m in range(13)] + [(1, m * MIN, 12.0) for m in range(13)])
    found = town.expect()
    assert [(f.point, f.method, round((f.at - f.made_at) / MIN)) for f in found] == [
        (0, "slope", 10), (0, "slope", 30), (0, "slope", 60),
    ]  # fmt: skip
    assert found[0].limit == 15.0
    assert found[0].eta_s == pytest.approx((15.0 - 12.0) / 0.5 * 60)
    assert 12.0 < found[0].value < found[1].value < found[2].value < 12.0 + 60 * 0.5


def test_what_passed_upstream_is_expected_downstream_after_its_travel() -> None:
    """A wave of 2 m an hour and a half upstream, half as high below: known from one earlier wave."""
    levels = np.full((4, 2), np.nan)
    levels[:, :] = np.array([[2.9], [4.0], [5.0], [6.0]])
    upstream = np.array([-1, 0], np.int32)
    town = Town(["river_level"] * 2, level=levels, upstream=upstream)
    spans = np.arange(0, 288)

    def wave(start: int) -> np.ndarray:
        return np.interp(spans, [start, start + 12, start + 40], [0.0, 2.0, 0.0])

    upper = 1.0 + wave(20) + wave(270)
    lower = 2.0 + 0.5 * (np.interp(spans - 18, spans, wave(20)) + np.interp(spans - 18, spans, wave(270)))
    for at, (up, down) in enumerate(zip(upper[:283], lower[:283], strict=True)):
        town.hear([(0, at * 5 * MIN, up), (1, at * 5 * MIN + S, down)])
    found = [f for f in town.expect() if f.method == "upstream"]
    assert {f.point for f in found} == {1}
    last = max(found, key=lambda f: f.at)
    assert (last.at - last.made_at) / MIN == 90
    assert last.value == pytest.approx(3.0, abs=0.1), "2 m above calm upstream are 1 m here"
    assert last.eta_s == pytest.approx(90 * 60, abs=600)


def test_courses_that_have_nothing_to_do_with_each_other_are_not_joined() -> None:
    rng = np.random.default_rng(3)
    print("seed 3")
    assert follow(np.cumsum(rng.normal(0, 1, 576)), np.cumsum(rng.normal(0, 1, 576))) is None
    assert follow(np.full(576, np.nan), np.arange(576.0)) is None
    assert follow(np.ones(576), np.ones(576)) is None


def test_a_compound_rule_may_name_every_rule_of_single_points() -> None:
    assert {rule.name for rule in row_rules()} | {"level", "rain_sum", "rising"} == SIGNS
