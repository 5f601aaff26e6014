"""Who is dead, who is out, and what is never their fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from anomaly.alerts.event import FIRING, RESOLVED, AlertEvent
from anomaly.checks.absence import Silences, dead, gateways_out, undecided
from anomaly.checks.rows import NO_TIME
from anomaly.engine import Engine
from anomaly.silence import silent_for
from storage.fast import IS_COMPILED
from storage.points import PointTable
from storage.records import Gap
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table, positions, raw_batch

DEAD_S = 31
"""Points at 1 Hz are dead after 30 s (dead_s_min)."""


class City:
    """An engine whose second is played: ``second(t, speaking points)`` then TICK."""

    def __init__(self, table: PointTable, **options: Any) -> None:
        clock = options.pop("clock", "wall")
        kinds = {"waterlogging": kind_settings(**options.pop("kind", {}))}
        self.engine = Engine(table, kinds, check_settings(**options), clock=clock)
        self.events: list[AlertEvent] = []

    def second(self, t: int, speaking: Iterable[int], *, drained: bool = True, ahead_s: int = 0) -> None:
        rows = [(p, T0 + (t + ahead_s) * S, 5.0 + t % 7) for p in speaking]
        if rows:
            raw = raw_batch(rows, received=[T0 + t * S] * len(rows))
            self.events += self.engine.judge(raw, positions(0, len(rows))).events
        self.events += self.engine.tick(T0 + t * S, drained)

    def seconds(self, begin: int, end: int, speaking: Sequence[int], **options: Any) -> None:
        for t in range(begin, end):
            self.second(t, speaking, **options)

    def told(self) -> list[tuple[str, str, str]]:
        return [(e.rule, e.type, e.subject.point_id or e.subject.gateway_id) for e in self.events]


def test_a_point_that_falls_silent_among_others_is_dead_and_then_back() -> None:
    city = City(point_table(4))
    city.seconds(0, 5, [0, 1, 2, 3])
    city.seconds(5, 5 + DEAD_S + 12, [0, 1, 2])
    city.seconds(5 + DEAD_S + 12, 5 + DEAD_S + 30, [0, 1, 2, 3])
    assert city.told() == [("dead", FIRING, "P00003"), ("dead", RESOLVED, "P00003")]
    fired, resolved = city.events
    assert fired.onset == T0 + 4 * S
    assert fired.at == T0 + (4 + DEAD_S) * S
    assert fired.id == resolved.id
    assert (fired.alert_class, fired.severity) == ("fault", 1)


def test_a_whole_gateway_is_one_alert_and_none_for_its_points() -> None:
    city = City(point_table(200, gateways=2))
    both, one = list(range(200)), list(range(0, 200, 2))
    city.seconds(0, 5, both)
    city.seconds(5, 60, one)
    city.seconds(60, 120, both)
    assert city.told() == [("outage", FIRING, "G001"), ("outage", RESOLVED, "G001")]
    assert city.events[0].value >= 80
    assert city.events[0].onset == T0 + 4 * S


def test_points_that_stay_silent_after_the_outage_are_then_dead_themselves() -> None:
    city = City(point_table(20, gateways=2))
    everyone, others = list(range(20)), list(range(0, 20, 2))
    city.seconds(0, 5, everyone)
    city.seconds(5, 60, others)
    city.seconds(60, 140, [p for p in everyone if p != 7])
    assert city.told() == [
        ("outage", FIRING, "G001"),
        ("outage", RESOLVED, "G001"),
        ("dead", FIRING, "P00007"),
    ]
    assert city.events[-1].at == T0 + (60 + DEAD_S) * S, "its silence counts from the gateway's return"


def test_an_outage_of_a_gateway_with_slow_points_is_seen_while_they_are_not_yet_due() -> None:
    """Half of them report once an hour: nobody waits five hours, and the fast half is no hundred alerts."""
    table = point_table(20, gateways=1)
    table.interval_s[10:] = 3600
    city = City(table)
    city.seconds(0, 5, list(range(20)))
    city.seconds(5, 60, [])
    assert city.told() == [("outage", FIRING, "G000")]


def test_points_that_fall_silent_seconds_apart_are_still_one_outage() -> None:
    """At 8 s intervals the first of a gateway's points is dead seven seconds before the last."""
    table = point_table(16, gateways=2)
    table.interval_s[:] = 8
    city = City(table)
    for t in range(100):
        city.second(t, [p for p in range(16) if p // 2 % 8 == t % 8 and (p % 2 == 0 or t < 40)])
    assert city.told() == [("outage", FIRING, "G001")]


def test_few_points_are_judged_one_by_one() -> None:
    city = City(point_table(4, gateways=2))
    city.seconds(0, 5, [0, 1, 2, 3])
    city.seconds(5, 60, [0, 2])
    assert sorted(city.told()) == [("dead", FIRING, "P00001"), ("dead", FIRING, "P00003")]


def test_never_seen_retired_and_irregular_points_are_never_dead() -> None:
    table = point_table(6)
    table.interval_s[1] = 0
    table.retired[2] = True
    city = City(table)
    city.seconds(0, 3, [0, 1, 2, 3, 4])
    city.seconds(3, 80, [0, 3, 4])
    assert city.told() == []


def test_a_link_that_was_down_is_our_gap_and_nobodys_death() -> None:
    city = City(point_table(4))
    city.seconds(0, 5, range(4))
    city.engine.gap(Gap("link", T0 + 5 * S, 0, "flood"))
    city.seconds(5, 400, [])
    city.engine.gap(Gap("link", T0 + 5 * S, T0 + 400 * S, "flood"))
    city.seconds(400, 420, [0])
    assert city.told() == []
    city.seconds(420, 460, [0])
    assert [told for told in city.told() if told[1] == FIRING] == [
        ("dead", FIRING, f"P0000{p}") for p in (1, 2, 3)
    ]


def test_a_gap_of_another_source_excuses_nobody() -> None:
    table = point_table(4)
    table.sources.append("rain")
    city = City(table)
    city.seconds(0, 5, range(4))
    city.engine.gap(Gap("link", T0 + 5 * S, 0, "rain"))
    city.seconds(5, 60, [0, 1, 2])
    assert city.told() == [("dead", FIRING, "P00003")]


def test_our_own_downtime_kills_nobody_and_revives_nobody() -> None:
    city = City(point_table(4))
    city.seconds(0, 5, range(4))
    city.seconds(5, 60, [0, 1, 2])
    other = City(point_table(4))
    other.engine.restore(*city.engine.snapshot())
    other.engine.gap(Gap("downtime", T0 + 60 * S, T0 + 4_000 * S))
    other.seconds(4_000, 4_020, [])
    assert other.told() == []
    other.second(4_020, range(4))
    assert other.told() == [("dead", RESOLVED, "P00003")]


def test_a_restart_after_a_long_stop_kills_nobody_even_if_no_gap_was_recorded() -> None:
    city = City(point_table(4))
    city.seconds(0, 5, range(4))
    other = City(point_table(4))
    other.engine.restore(*city.engine.snapshot())
    other.seconds(4_000, 4_020, [])
    assert other.told() == []


def test_silence_without_a_watermark_counts_only_while_the_backlog_was_drained() -> None:
    city = City(point_table(1))
    city.second(0, [0])
    city.seconds(1, 50, [], drained=False)
    city.seconds(50, 50 + DEAD_S - 2, [])
    assert city.told() == []
    city.seconds(50 + DEAD_S - 2, 50 + DEAD_S + 2, [])
    assert city.told() == [("dead", FIRING, "P00000")]


def test_a_clock_that_is_set_kills_nobody() -> None:
    """One hour forward, then back again."""
    city = City(point_table(4))
    city.seconds(0, 5, range(4))
    city.seconds(3_605, 3_615, [])
    city.seconds(20, 40, range(4))
    assert city.told() == []


def test_a_device_whose_clock_runs_ahead_kills_nobody() -> None:
    city = City(point_table(4))
    for t in range(60):
        city.second(t, [0], ahead_s=600)
        city.second(t, [1, 2, 3])
    assert city.told() == []


def test_a_backlog_that_is_still_coming_in_revives_a_point_only_when_it_has_caught_up() -> None:
    city = City(point_table(4))
    city.seconds(0, 5, range(4))
    city.seconds(5, 100, [0, 1, 2])
    city.second(100, [0, 1, 2])
    raw = raw_batch([(3, T0 + 30 * S, 5.0)], received=[T0 + 100 * S])
    city.engine.judge(raw, positions(0, 1))
    city.second(101, [0, 1, 2])
    assert [e.type for e in city.events] == [FIRING]
    city.second(102, range(4))
    assert [e.type for e in city.events] == [FIRING, RESOLVED]


def test_under_the_clock_of_events_only_other_events_show_a_silence() -> None:
    """Ticks of today mean nothing to a recording of last year; its own newest event is now."""
    city = City(point_table(4), clock="events")
    city.seconds(0, 5, range(4))
    for t in range(10**6, 10**6 + 100):
        city.events += city.engine.tick(T0 + t * S)
    assert city.told() == []
    for t in range(5, 60):
        city.second(t, [0, 1, 2])
    assert city.told() == [("dead", FIRING, "P00003")]
    assert city.events[0].at == T0 + (4 + DEAD_S + 10) * S, "the watermark allows 10 s of lateness"
    assert city.events[0].replay


def test_faults_of_a_kind_without_alerts_are_not_told() -> None:
    city = City(point_table(4, gateways=1), kind={"alert": False})
    city.seconds(0, 5, range(4))
    city.seconds(5, 100, [])
    assert city.told() == []


def test_absence_does_not_depend_on_the_order_of_points_and_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    n, gateways = 200, 8
    silences = Silences(
        rng.random(n) < 0.9,
        rng.integers(0, 100, n),
        rng.integers(0, 60, n),
        rng.integers(20, 80, n),
        rng.integers(0, gateways, n).astype(np.int32),
        gateways,
    )
    order = rng.permutation(n)
    mixed = Silences(
        silences.expected[order],
        silences.silent_us[order],
        silences.gateway_us[order],
        silences.after_us[order],
        silences.gateway[order],
        gateways,
    )
    for array in (
        silences.expected,
        silences.silent_us,
        silences.gateway_us,
        silences.after_us,
        silences.gateway,
    ):
        array.setflags(write=False)
    assert dead(mixed).tolist() == dead(silences)[order].tolist()
    assert undecided(mixed).tolist() == undecided(silences)[order].tolist()
    assert gateways_out(mixed, 0.6, 3).tolist() == gateways_out(silences, 0.6, 3).tolist()
    assert gateways_out(silences, 0.6, 3).any()


@pytest.mark.skipif(not IS_COMPILED, reason="there is no compiled form without numba")
@pytest.mark.parametrize("clock", ["wall", "events"])
def test_silences_are_the_same_in_columns_and_in_a_loop(clock: str) -> None:
    rng = np.random.default_rng(11)
    n, sources, gateways, devices = 3_000, 5, 40, 60

    def times(size: int) -> np.ndarray:
        """Around now, some of them never."""
        return np.where(rng.random(size) < 0.4, NO_TIME, T0 + rng.integers(-90 * S, 20 * S, size))

    of_points = times(n), times(n), rng.random(n) < 0.8
    code = [rng.integers(0, size, n).astype(np.int32) for size in (sources, gateways, devices)]
    of_sources = code[0], times(sources), times(sources), times(sources), rng.random(sources) < 0.3
    of_gateways = code[1], times(gateways), times(gateways), times(gateways)
    now = T0 if clock == "wall" else NO_TIME
    both = [
        silent_for(now, of_points, of_sources, of_gateways, (code[2], times(devices) * 0 + NO_TIME), loop)
        for loop in (False, True)
    ]
    back = code[2], times(devices)
    both += [silent_for(now, of_points, of_sources, of_gateways, back, loop) for loop in (False, True)]
    for columns, loop in (both[:2], both[2:]):
        for one, other in zip(columns, loop, strict=True):
            assert one.tolist() == other.tolist()
    assert 100 < np.count_nonzero(both[0][1]) < n, "or nothing was compared"


def test_points_that_say_farewell_are_out_at_once_and_back_when_they_are_heard() -> None:
    """The will of a node: one outage that names its points, no interval waited for, even where none is known."""
    city = City(point_table(8, gateways=2, interval_s=np.zeros(8)))
    everyone, others = list(range(8)), [0, 2, 4, 6]
    city.seconds(0, 5, everyone)
    city.engine.leave(np.array([1, 3, 5, 7], np.int32), T0 + 5 * S)
    city.second(5, others)
    assert city.told() == [("outage", FIRING, "G001")]
    assert city.events[0].members == ("P00001", "P00003", "P00005", "P00007")
    assert (city.events[0].value, city.events[0].onset) == (4.0, T0 + 4 * S)
    other = City(point_table(8, gateways=2, interval_s=np.zeros(8)))
    other.engine.restore(*city.engine.snapshot())
    for one in (city, other):
        one.events.clear()
        one.seconds(6, 90, others)
        assert one.told() == []
        one.seconds(90, 95, everyone)
        assert one.told() == [("outage", RESOLVED, "G001")]


def test_a_device_that_says_farewell_is_dead_alone_and_its_node_is_not_out() -> None:
    city = City(point_table(20, gateways=2))
    everyone = list(range(20))
    city.seconds(0, 5, everyone)
    city.engine.leave(np.array([3], np.int32), T0 + 5 * S)
    city.seconds(5, 10, [p for p in everyone if p != 3])
    assert city.told() == [("dead", FIRING, "P00003")]
    city.second(10, everyone)
    assert city.told() == [("dead", FIRING, "P00003"), ("dead", RESOLVED, "P00003")]


def test_a_farewell_of_who_was_never_heard_or_of_points_without_a_gateway_is_no_outage() -> None:
    table = point_table(4, gateways=1)
    table.gateways[0] = ""
    city = City(table)
    city.seconds(0, 5, [0, 1, 2])
    city.engine.leave(np.array([0, 3], np.int32), T0 + 5 * S)
    city.seconds(5, 8, [1, 2])
    assert city.told() == [("dead", FIRING, "P00000")]
