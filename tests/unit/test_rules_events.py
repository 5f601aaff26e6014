"""Appeals beside rising water: which events a compound rule counts, by their own time; restarts change nothing."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from anomaly.alerts.event import AlertEvent
from anomaly.engine import Engine
from anomaly.heard import HEARD_MAX, HeardEvents
from anomaly.rules.settings import RuleSettings
from storage.records import Event
from tests.anomaly_city import T0, S, check_settings, point_table, positions, raw_batch

MIN = 60 * S
APPEALS = {"event": "appeal", "category": "waterlogging", "count": 2, "within_s": 1800.0, "km": 1.0}
KM = 1 / 111.195


def rules(*needs: dict[str, Any], **more: Any) -> dict[str, Any]:
    table = {"name": "内涝", "severity": 3, "needs": list(needs), **more}
    return RuleSettings.model_validate({"compound": [table]}).model_dump()


RISING = rules({"rule": "rising"}, APPEALS)


def engine(table: dict[str, Any]) -> Engine:
    """Three sensors in two districts, the last one 3 km north of the others."""
    points = point_table(3, interval_s=np.zeros(3))
    points.districts[:] = ["金牛区", "武侯区"]
    points.district[2] = 1
    points.lat[2] += 3 * KM
    return Engine(points, {}, check_settings(), rules=table)


def appeal(number: int, at: int, north_km: float = 0.0, **more: Any) -> Event:
    said = {
        "category": "waterlogging",
        "district": "金牛区",
        "lon": 104.05,
        "lat": 30.69 + north_km * KM,
        **more,
    }
    return Event(f"a{number}", "hotline", "appeal", said.pop("state", "accepted"), at, **said)


class City:
    """An engine, its readings and its clock, minutes after T0."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.engine = engine(table)
        self.row = 0
        self.said: list[AlertEvent] = []

    def water(self, point: int, minute: float, cm: float) -> None:
        rows = raw_batch([(point, T0 + round(minute * MIN), cm)])
        self.said += self.engine.judge(rows, positions(self.row << 24, 1)).events
        self.row += 1

    def rise(self, point: int, minutes: range) -> None:
        for minute in minutes:
            self.water(point, minute, minute * 0.8)

    def tick(self, minute: float) -> list[AlertEvent]:
        found = [e for e in self.engine.tick(T0 + round(minute * MIN)) if e.rule == "compound"]
        self.said += found
        return found


def fires(*events: Event, table: dict[str, Any] = RISING, minute: float = 13) -> list[AlertEvent]:
    city = City(table)
    city.rise(0, range(12))
    city.engine.hear(events)
    return city.tick(minute)


def test_two_appeals_near_a_rising_sensor_fire_and_name_it() -> None:
    (event,) = fires(appeal(1, T0 + MIN, 0.4), appeal(2, T0 + 9 * MIN, -0.9))
    assert (event.subject.name, event.severity_now, event.members) == ("内涝 · 金牛区", 3, ("P00000",))
    assert "1 公里内30 分钟内 2 件积水诉求" in event.words_zh
    assert "2 waterlogging appeals in 30 min within 1 km" in event.words_en


@pytest.mark.parametrize(
    "events",
    [
        [],
        [appeal(1, T0 + 9 * MIN)],
        [appeal(1, T0 + MIN), appeal(1, T0 + 9 * MIN), appeal(1, T0 + 10 * MIN, state="assigned")],
        [appeal(1, T0 + MIN), appeal(2, T0 + 9 * MIN, 1.1)],
        [appeal(1, T0 - 18 * MIN), appeal(2, T0 + 9 * MIN)],
        [appeal(1, T0 + MIN), appeal(2, T0 + 9 * MIN, category="noise")],
        [appeal(1, T0 + MIN), appeal(2, T0 + 9 * MIN, lon=None)],
        [appeal(1, T0 + MIN), appeal(2, T0 + 9 * MIN), appeal(2, T0 + 10 * MIN, state="cancelled")],
        [
            appeal(1, T0 + MIN),
            appeal(2, T0 + 9 * MIN),
            appeal(2, T0 + 10 * MIN, state="refused", category=""),
        ],
        [appeal(1, T0 + MIN), appeal(2, T0 + 9 * MIN, state="closed")],
    ],
)
def test_too_few_too_old_too_far_or_void_ones_do_not(events: list[Event]) -> None:
    assert fires(*events) == []


def test_it_needs_the_water_too_and_ends_when_the_appeals_are_old() -> None:
    city = City(RISING)
    city.engine.hear([appeal(1, T0 + MIN), appeal(2, T0 + 9 * MIN)])
    assert city.tick(13) == []
    city.rise(0, range(12, 24))
    assert [e.type for e in city.tick(24)] == ["alert.firing"]
    ends = []
    for minute in range(25, 50):
        city.water(0, minute, minute * 0.8)
        ends += [(minute, e.type) for e in city.tick(minute)]
    assert ends == [(33, "alert.resolved")], "31 minutes after the first appeal, at the third look"


def test_in_the_area_without_km_and_by_district() -> None:
    counted = {**APPEALS, "km": 0.0}
    table = rules({"rule": "rising"}, counted)
    assert len(fires(appeal(1, T0, lon=None), appeal(2, T0, 30.0), table=table)) == 1
    assert fires(appeal(1, T0), appeal(2, T0, district="武侯区"), table=table) == []
    assert len(fires(appeal(1, T0), appeal(2, T0, district="武侯区"), table=rules(counted, area="city"))) == 1
    circle = rules(counted, area="circle", circle=[104.05, 30.69, 2.0])
    assert len(fires(appeal(1, T0, 1.9), appeal(2, T0, -1.9), table=circle)) == 1
    assert fires(appeal(1, T0, 2.1), appeal(2, T0), table=circle) == []


def test_what_no_rule_counts_is_not_kept_and_the_memory_is_bounded() -> None:
    none = HeardEvents(rules({"rule": "level"}))
    none.hear([appeal(1, T0)])
    assert none.snapshot() == []
    heard = HeardEvents(RISING)
    heard.hear(appeal(n, T0 + n) for n in range(HEARD_MAX + 10))
    assert len(heard.snapshot()) <= HEARD_MAX
    assert len(heard.view(T0 + HEARD_MAX).at) > HEARD_MAX // 2 - 20
    assert len(heard.view(T0 + 31 * MIN + HEARD_MAX).at) == 0
    assert heard.snapshot() == []


@pytest.mark.parametrize(
    ("need", "complaint"),
    [
        ({**APPEALS, "points": 2}, "has no points"),
        ({"count": 2}, "belong to a need of events"),
        (APPEALS, "km is the distance"),
    ],
)
def test_a_need_is_of_points_or_of_events(need: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        rules(need)


def test_a_restart_at_any_moment_changes_nothing() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    fired = 0
    for _ in range(3):
        deeds: list[tuple[str, Any]] = []
        for minute in range(60):
            deeds.append(("water", (0, minute, max(0.0, 20 * np.sin(minute / 9)))))
            for _ in range(rng.randrange(3)):
                at = T0 + (minute - rng.randrange(20)) * MIN
                state = rng.choice(("accepted", "accepted", "accepted", "assigned", "cancelled"))
                deeds.append(("hear", appeal(rng.randrange(60), at, rng.uniform(-2, 4), state=state)))
            deeds.append(("tick", minute + 0.5))
        table = rules({"rule": "rising"}, {**APPEALS, "count": rng.randrange(1, 6)})
        whole, cut = City(table), City(table)
        restart = rng.randrange(len(deeds))
        for number, (what, how) in enumerate(deeds):
            if number == restart:
                arrays, meta = cut.engine.snapshot()
                again = engine(table)
                again.restore(arrays, json.loads(json.dumps(meta)))
                cut.engine = again
            for city in (whole, cut):
                if what == "water":
                    city.water(*how)
                elif what == "hear":
                    city.engine.hear([how])
                else:
                    city.tick(how)
        told = [
            [(e.id, e.revision, e.type, e.at, e.members, e.words_zh) for e in c.said] for c in (whole, cut)
        ]
        assert told[0] == told[1]
        fired += sum(e.type == "alert.firing" and e.rule == "compound" for e in whole.said)
    assert fired > 0
