"""Groups of alerts: what people hear of together, what they hear at once and what waits, by the test's own clock."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from anomaly.alerts.event import AlertEvent
from tests.alerts_night import Night, nights
from tests.alerts_storm import course, night, told_event
from tests.anomaly_city import T0, S


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Night]]:
    yield from nights(tmp_path)


def test_the_first_of_a_storm_is_told_at_once_and_others_only_for_a_worse_severity(
    make: Callable[..., Night],
) -> None:
    one = make()
    one.take(told_event("a", 2, 0), told_event("b", 2, 60, lon=104.01), told_event("c", 1, 90, lon=104.02))
    assert one.why() == ["first"]
    one.take(told_event("b", 3, 120, onset=60, revision=2, lon=104.01), told_event("d", 3, 130))
    assert one.why() == ["first", "step"]
    assert (one.newest()["group"]["members"], one.newest()["severity"]) == (3, 3)
    for n, point in enumerate("abcd"):
        onset, lon = {"a": (0, 104.0), "b": (60, 104.01), "c": (90, 104.02), "d": (130, 104.0)}[point]
        one.take(told_event(point, 3, 300 + n, onset=onset, revision=9, over=True, lon=lon))
    assert one.why() == ["first", "step", "over"]
    assert one.newest()["group"]["open"] == 0
    assert len({group for group, _, _ in one.told()}) == 1


@pytest.mark.parametrize(
    ("there", "apart"),
    [
        ({"lon": 104.031}, False),  # 2.97 km at this latitude
        ({"lon": 104.0318}, True),  # 3.04 km
        ({"lat": 30.7269}, False),  # 2.99 km
        ({"lat": 30.7271}, True),  # 3.01 km
        ({"at": 1800}, False),
        ({"at": 1801}, True),
        ({"kind": "river_level"}, True),
        ({"drill": True}, True),
        ({"replay": True}, True),
        ({"rule": "rise"}, False),
    ],
)
def test_three_kilometres_and_half_an_hour_make_a_storm_of_one_kind(
    make: Callable[..., Night], there: dict[str, Any], apart: bool
) -> None:
    one = make().take(told_event("a", 2, 0), told_event("b", 2, there.pop("at", 10), **there))
    assert len(one.groups()) == (2 if apart else 1)


def shuffled(events: Sequence[AlertEvent], rng: random.Random) -> list[AlertEvent]:
    """Another order in which each alert's own events keep theirs."""
    left: dict[str, list[AlertEvent]] = {}
    for event in events:
        left.setdefault(event.id, []).append(event)
    order = [event.id for event in events]
    rng.shuffle(order)
    return [left[name].pop(0) for name in order]


def split(events: Sequence[AlertEvent], rng: random.Random) -> list[Sequence[AlertEvent]]:
    cuts = sorted({0, len(events), *(rng.randrange(len(events)) for _ in range(rng.randrange(12)))})
    return [events[a:b] for a, b in pairwise(cuts)]


@pytest.mark.parametrize("seed", range(12))
def test_any_order_and_any_split_of_the_same_events_give_the_same_groups(
    make: Callable[..., Night], seed: int
) -> None:
    rng = random.Random(seed)
    events: list[AlertEvent] = []
    for n in range(60):
        place: dict[str, Any] = {"lon": 104.0 + rng.uniform(0, 0.25), "lat": 30.7 + rng.uniform(0, 0.25)}
        events += course(f"p{n}", (1, rng.randrange(1, 5)), rng.randrange(7200), **place)
    expected = make().take(*events).groups()
    assert 2 < len(expected) < 60, f"seed {seed} makes no interesting night"
    for _ in range(3):
        other = make()
        for part in split(shuffled(events, rng), rng):
            other.take(*part)
        assert other.groups() == expected, seed


def test_two_storms_that_meet_become_the_older_and_who_heard_of_the_younger_is_told(
    make: Callable[..., Night],
) -> None:
    west, east = told_event("w", 2, 0), told_event("e", 3, 10, lon=104.06)
    one = make().take(west, east)
    assert [reason for _, _, reason in one.told()] == ["first", "first"]
    one.take(told_event("m", 2, 20, lon=104.03))
    assert one.groups() == {frozenset({west.id, east.id, told_event("m", 2, 20).id})}
    assert one.told()[-1] == (east.id, 2, "merged")
    assert one.newest()["group"]["merged_into"] == west.id
    one.take(told_event("n", 3, 30, lon=104.03))
    assert one.why() == ["first", "first", "merged"], "orange had been told by the younger"
    one.take(told_event("n", 4, 40, onset=30, revision=2, lon=104.03))
    assert one.told()[-1] == (west.id, 2, "step")


def test_the_digest_tells_what_changed_each_interval_and_is_silent_when_nothing_did(
    make: Callable[..., Night],
) -> None:
    one = make().take(told_event("a", 3, 0), told_event("b", 2, 5), told_event("c", 2, 6))
    one.take(told_event("c", 2, 7, onset=6, revision=2, over=True))
    assert one.at(1799).round().why() == ["first"]
    assert one.at(1800).round().round().why() == ["first", "digest"]
    group = one.newest()["group"]
    assert (group["changed"], group["members"], group["open"]) == (
        {"joined": 2, "ended": 1, "stepped": 0},
        3,
        2,
    )
    assert [row["severity_now"] for row in group["top"]] == [3, 2, 0]
    assert one.at(9999).round().why() == ["first", "digest"]


def test_a_route_sets_targets_the_interval_and_who_hears_of_worse(make: Callable[..., Night]) -> None:
    routes = [
        {"name": "red", "severity_min": 4, "targets": ["mayor"], "repeat_s": 60},
        {"name": "faults", "classes": ["fault"], "targets": []},
        {"name": "west", "districts": ["金牛区"], "kinds": ["waterlogging"], "targets": ["room"]},
    ]
    one = make(routes=routes)
    one.take(told_event("a", 2, 0), told_event("x", 1, 0, rule="stuck"))
    assert (one.why("room"), one.why("mayor"), one.why("chief")) == (["first"], [], [])
    one.take(told_event("a", 4, 60, onset=0, revision=2))
    assert (one.why("room"), one.why("mayor")) == (["first", "step"], ["step"]), "who heard before hears on"
    one.take(told_event("b", 4, 61))
    assert one.at(60).round().why("mayor") == ["step", "digest"]
    one.take(told_event("z", 2, 62, district="武侯区", lon=105.0))
    assert one.why("chief") == ["first"], "where no route fits, everybody hears"


def test_an_outage_keeps_its_points_quiet_and_each_outage_is_told_once(make: Callable[..., Night]) -> None:
    one = make()
    one.take(*(told_event("", 2, n, rule="outage", gateway=f"G{n}") for n in range(3)))
    assert one.why() == ["first"] * 3
    one.take(
        told_event("a", 1, 9, rule="dead", gateway="G1"), told_event("b", 1, 9, rule="dead", gateway="G9")
    )
    assert one.why() == ["first"] * 4, "a point of another gateway is told"
    assert one.steps()["inhibited"] == 1
    one.take(told_event("", 2, 20, rule="outage", gateway="G1", onset=1, revision=2, over=True))
    one.at(30).round()
    assert one.steps()["released"] == 1, "still dead without an outage: now it counts"


def test_a_compound_alert_inhibits_its_parts_lower_steps(make: Callable[..., Night]) -> None:
    one = make(inhibits=[{"by": ["compound"], "rules": ["level"], "same": "members"}])
    parts = told_event("area", 3, 0, rule="compound", kind="", members=("a", "b"), lon=104.5)
    one.take(parts, told_event("a", 3, 1), told_event("c", 3, 2, lon=105.0))
    assert [group for group, _, _ in one.told()] == [parts.id, told_event("c", 3, 2).id]
    one.take(told_event("a", 4, 3, onset=1, revision=2))
    assert one.told()[-1][2] == "first", "worse than the compound alert is told"


def test_what_comes_back_too_often_is_told_as_flapping_once_and_again_when_quiet(
    make: Callable[..., Night],
) -> None:
    one = make()
    for n in range(12):
        at = n * 60
        one.take(told_event("a", 2, at), told_event("a", 2, at + 30, onset=at, revision=2, over=True))
    expected = ["first", "over", *["reopened", "over"] * 3, "flapping"]
    assert one.why() == expected
    one.take(told_event("a", 3, 730))
    assert one.why() == [*expected, "step"], "a worse severity is told all the same"
    one.take(told_event("a", 3, 740, onset=730, revision=2, over=True))
    assert one.at(730 + 599).round().why() == [*expected, "step"]
    assert one.at(730 + 600).round().why() == [*expected, "step", "over"]


def test_what_is_over_before_it_came_pages_nobody_and_stands_in_the_lake(make: Callable[..., Night]) -> None:
    """Six hours of a gateway's backlog at once: the engine says notify = False, and no group calls anybody."""
    old = [
        AlertEvent(
            **{
                **{name: getattr(e, name) for name in e.__slots__},
                "notify": False,
                "recorded_at": T0 + 21600 * S,
            }
        )
        for e in night(1, 2, 20, 5, 0)
    ]
    one = make().at(21600).take(*old).at(99999).round()
    assert one.told() == []
    rows = one.outbox.export_since(0)
    assert len(rows) == len(old)
    assert {row["at"] for row in rows} == {e.at for e in old}, "with their true times"
    fresh = told_event("new", 2, 21650, lon=110.0)
    assert one.take(fresh).why() == ["first"]


@pytest.mark.parametrize("parts", [3, 40])
def test_a_night_of_twenty_storms_four_hundred_stuck_sensors_and_three_outages(
    make: Callable[..., Night], parts: int
) -> None:
    """At most one notification for a storm and severity; a handful for the stuck; each outage named once."""
    events = night(7, 20, 150, 400, 3)
    one = make()
    for k in range(parts):
        one.take(*events[k * len(events) // parts : (k + 1) * len(events) // parts])
    rows = one.outbox.rows("SELECT body FROM delivery WHERE target = 'room'")
    sent = [json.loads(row[0])["data"] for row in rows]
    calls = [one for one in sent if one["group"]["reason"] not in ("over", "digest")]
    storms = Counter((one["id"], one["severity"]) for one in calls if one["rule"] == "level")
    assert set(storms.values()) == {1}
    assert Counter(severity for _, severity in storms) == {1: 20, 2: 20, 3: 20, 4: 20}
    assert sum(one["group"]["reason"] == "over" for one in sent if one["rule"] == "level") == 20
    assert sum(one["rule"] == "stuck" for one in calls) == 5, "four districts, then the whole city"
    assert Counter(one["gateway"] for one in calls if one["rule"] == "outage") == {
        f"out{n}": 1 for n in range(3)
    }
    assert len(one.outbox.alerts(limit=9999)) == 20 * 150 + 400 + 3, "and none is lost"


def test_a_restart_in_the_middle_changes_nothing(make: Callable[..., Night], tmp_path: Path) -> None:
    """The index in memory is made again from the file: the same groups and the same notifications."""
    events = night(3, 5, 30, 60, 2)
    whole = make().take(*events)
    broken = Night(tmp_path / "broken")
    for k in range(8):
        broken.take(*events[k * len(events) // 8 : (k + 1) * len(events) // 8])
        broken.take(*events[: (k + 1) * len(events) // 8])  # a replay gives the same events again
        broken.outbox.close()
        broken = Night(tmp_path / "broken")
    assert broken.groups() == whole.groups()
    assert broken.told() == whole.told()
    broken.outbox.close()


def test_a_transaction_that_fails_leaves_groups_as_they_were(make: Callable[..., Night]) -> None:
    one = make().take(told_event("a", 2, 0))
    with pytest.raises(AttributeError):
        one.take(told_event("b", 3, 10), object())  # type: ignore[arg-type]
    assert one.why() == ["first"]
    one.take(told_event("b", 3, 10))
    assert one.why() == ["first", "step"]
    assert len(one.groups()) == 1


def test_without_grouping_every_alert_is_told_by_itself(make: Callable[..., Night]) -> None:
    one = make(alerts={"group": False}).take(told_event("a", 2, 0), told_event("b", 2, 1))
    assert one.why() == ["first", "first"]


def test_a_group_that_was_trimmed_is_founded_anew(make: Callable[..., Night]) -> None:
    one = make()
    one.take(*course("a", (1,), 0, rule="dead"))
    one.outbox.trim(T0 + 10_000_000 * S, exported_rowid=99)
    assert one.outbox.rows("SELECT * FROM alert_group") == []
    one.take(told_event("b", 1, 300, rule="dead"))
    assert one.why()[-1] == "first"
