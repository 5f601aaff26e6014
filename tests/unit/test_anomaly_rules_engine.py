"""The engine's side of rules: row rules give bits and episodes like levels, tick rules conditions and forecasts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from anomaly import rulebook, rules
from anomaly.alerts.event import FIRING, RESOLVED, UPDATED, AlertEvent
from anomaly.checks.rows import Arrays, Field, Rows
from anomaly.conditions import CALM_TURNS
from anomaly.engine import Engine
from anomaly.rules.base import Assessed, Condition, Forecast, RowRule, TickRule, TickView
from storage.flags import GOOD, NOT_EVALUATED, bit
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table, positions, raw_batch

HOUR_US = 3600 * S
SHANGHAI_US = 8 * HOUR_US


def _settings(points: Any, kinds: Any, config: Any) -> dict[str, np.ndarray]:
    night = float(config.get("night_limit", 5.0))
    return {"t_night_limit": np.full(len(points), night), "t_night_sign": np.full(len(points), -1.0)}


def _night(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """Class 2 at night (22-06 by the city's clock) where ten less the value is at or below the limit."""
    hour = rows.local_time // HOUR_US % 24
    value, limit = 10.0 - rows.value, limits["t_night_limit"][rows.point]
    classes = np.where(((hour >= 22) | (hour < 6)) & (value <= limit), 2, 0).astype(np.uint8)
    np.add.at(state["t_night_seen"], rows.point, 1)
    return Assessed(classes, value, limit)


def _quarter(view: TickView) -> list[Condition]:
    """Severity by how many points stand in a level."""
    standing = np.flatnonzero(view.levels["level"])
    if not len(standing):
        return []
    words = (f"{len(standing)} 处积水", f"{len(standing)} places under water")
    at_most_4 = min(len(standing), 4)
    return [Condition("金牛区", at_most_4, float(len(standing)), 1.0, tuple(standing.tolist()), *words)]


def _expect(view: TickView) -> list[Forecast]:
    return [Forecast(0, view.now_us, view.now_us + 600 * S, 42.0, "linear", np.nan, np.nan)]


NIGHT = RowRule(
    "t_night", _settings, _night, (Field("t_night_seen", "i4", 0),), "dB", "夜间噪声", "noise at night"
)
QUARTER = TickRule(
    "t_quarter", _quarter, _expect, every_s=10, title_zh="片区积水", title_en="area", unit="places"
)


@pytest.fixture(autouse=True)
def city_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def forget() -> None:
        for remembered in (rules.row_rules, rules.tick_rules, rulebook.rulebook):
            remembered.cache_clear()

    monkeypatch.setattr(rules, "_found", lambda: (NIGHT, QUARTER))
    forget()
    yield
    forget()


def engine(points: int = 4, **options: Any) -> Engine:
    return Engine(
        point_table(points), {"waterlogging": kind_settings(unit="cm")}, check_settings(), **options
    )


def feed(
    one: Engine, values: list[float], *, start_s: int = 0, point: int = 0
) -> tuple[Any, list[AlertEvent]]:
    rows = [(point, T0 + (start_s + i) * S, value) for i, value in enumerate(values)]
    judged = one.judge(raw_batch(rows), positions(0, len(rows)))
    return judged.main, judged.events


def test_a_row_rule_sees_the_citys_clock_and_its_own_settings() -> None:
    """Midnight UTC is 08:00 in Shanghai: night in one city, day in the other."""
    there, events_there = feed(engine(time_zone="Asia/Shanghai"), [8.0])
    here, events_here = feed(engine(), [8.0])
    strict, _ = feed(engine(rules={"night_limit": 1.0}), [8.0])
    assert (there.checks[0], events_there) == (0, [])
    assert here.checks[0] == bit("rule")
    assert here.flag[0] == GOOD, "a rule is news, no doubt"
    assert strict.checks[0] == 0
    (event,) = events_here
    assert (event.rule, event.alert_class, event.severity) == ("t_night", "event", 2)
    assert (event.value, event.limit, event.subject.unit) == (2.0, 5.0, "dB")
    assert (event.subject.title_zh, event.subject.title_en) == ("夜间噪声", "noise at night")


def test_an_episode_of_a_rule_has_the_worst_value_it_judged_and_its_limit_to_the_end() -> None:
    one = engine()
    _, events = feed(one, [8.0, 9.0, 7.0, 1.0])
    assert [(e.type, e.value, e.limit) for e in events] == [(FIRING, 2.0, 5.0), (RESOLVED, 9.0, 5.0)]
    assert events[-1].peak == 1.0, "low is worse here: t_night_sign"
    assert one.state["t_night_seen"][0] == 4


def test_a_rule_that_raises_leaves_its_readings_unevaluated_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
        raise ZeroDivisionError("by design")

    one = engine()
    monkeypatch.setattr(one, "_rules", (RowRule("t_night", _settings, broken),))
    with caplog.at_level(logging.ERROR, "yuzui.anomaly"):
        main, _ = feed(one, [8.0])
    assert main.flag[0] == NOT_EVALUATED
    assert one.counts["check_errors.t_night"] == 1
    assert "t_night raised" in caplog.text


def flood(one: Engine, wet: int, second: int) -> None:
    rows = [(p, T0 + second * S, 20.0 if p < wet else 1.0) for p in range(4)]
    one.judge(raw_batch(rows), positions(0, 4))


def ticks(one: Engine, wet: list[int], *, restored: bool = False) -> list[AlertEvent]:
    """A TICK every ten seconds, so many points under water at each; the alerts of the tick rule."""
    events: list[AlertEvent] = []
    for turn, n in enumerate(wet):
        flood(one, n, turn * 10)
        events += one.tick(T0 + turn * 10 * S)
        if restored:
            arrays, meta = one.snapshot()
            one = engine()
            one.restore(arrays, orjson.loads(orjson.dumps(meta)))
    return [event for event in events if event.rule == "t_quarter"]


def test_a_condition_begins_and_worsens_at_once_and_ends_after_a_calm() -> None:
    wet = [0, 1, 3, 3, 1, 3, 1, 1, 1, 0, 0, 1, *[0] * CALM_TURNS]
    events = ticks(engine(), wet)
    assert [(e.type, e.severity_now, (e.at - T0) // (10 * S)) for e in events] == [
        (FIRING, 1, 1),
        (UPDATED, 3, 2),
        (UPDATED, 1, 8),
        (RESOLVED, 0, 14),
    ]
    assert len({event.id for event in events}) == 1
    fired = events[0]
    assert (fired.subject.name, fired.subject.district, fired.subject.unit) == ("金牛区", "金牛区", "places")
    assert (fired.members, fired.words_zh, fired.words_en) == (
        ("P00000",),
        "1 处积水",
        "1 places under water",
    )
    assert events[1].members == ("P00000", "P00001", "P00002")
    assert (fired.value, fired.limit, fired.subject.point_id) == (1.0, 1.0, "")


def test_restores_change_nothing_of_a_condition() -> None:
    wet = [0, 1, 3, 1, 1, 1, 0, 0, 0, 0, 2]
    assert repr(ticks(engine(), wet)) == repr(ticks(engine(), wet, restored=True))


def test_a_tick_rule_runs_no_oftener_than_it_asks_and_its_forecasts_are_handed_over_once() -> None:
    one = engine()
    for second in range(0, 25, 5):
        one.tick(T0 + second * S)
    made = one.take_forecasts()
    assert [(f.made_at - T0) // S for f in made] == [0, 10, 20]
    assert one.take_forecasts() == []


def test_a_snapshot_from_before_there_were_rules_still_restores() -> None:
    one = engine()
    feed(one, [20.0, 21.0])
    arrays, meta = one.snapshot()
    old = {name: array for name, array in arrays.items() if not name.startswith("t_")}
    del meta["asked_at"]
    meta["episodes"] = [
        {k: v for k, v in e.items() if k != "limit"} for e in meta["episodes"] if e["rule"] == "level"
    ]
    again = engine()
    again.restore(old, orjson.loads(orjson.dumps(meta)))
    _, events = feed(again, [1.0], start_s=10)
    assert [(e.rule, e.type) for e in events] == [("level", RESOLVED)]


def test_what_a_tick_rule_sees_cannot_be_changed() -> None:
    seen: list[TickView] = []

    def look(view: TickView) -> list[Condition]:
        seen.append(view)
        return []

    one = engine()
    one.conditions._rules = (TickRule("t_quarter", look),)
    one.tick(T0)
    with pytest.raises(ValueError, match="read-only"):
        seen[0].state["last_t"][0] = 1
