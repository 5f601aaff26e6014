"""Flags, and the course of alerts that readings cause."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from anomaly import episodes
from anomaly.alerts.event import FIRING, RESOLVED, UPDATED, AlertEvent
from anomaly.checks import all_checks
from anomaly.checks.rows import Arrays, RowCheck, Rows
from anomaly.engine import Engine, Judged
from anomaly.episodes import HISTORY_MAX, TRANSITIONS, Phase
from storage.batch import U8, RawBatch
from storage.flags import FAIL, GOOD, MISSING, NOT_EVALUATED, SUSPECT, bit
from storage.points import PointTable
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table, positions, raw_batch


def engine(table: PointTable | None = None, *, kind: dict[str, Any] | None = None, **checks: Any) -> Engine:
    return Engine(
        table or point_table(3), {"waterlogging": kind_settings(**kind or {})}, check_settings(**checks)
    )


def judge(one: Engine, values: Sequence[float], *, start: int = 0, point: int = 0, late_s: int = 0) -> Judged:
    """One reading a second from second ``start`` on, all in one batch, received ``late_s`` after the last."""
    rows = [(point, T0 + (start + i) * S, v) for i, v in enumerate(values)]
    received = [T0 + (start + len(values) + late_s) * S] * len(rows) if late_s else None
    return one.judge(raw_batch(rows, received=received), positions(0, len(rows)))


def course(events: Sequence[AlertEvent]) -> list[tuple[str, int]]:
    return [(event.type, event.severity_now) for event in events]


def test_the_diagram_in_the_docstring_is_the_table() -> None:
    assert episodes.__doc__ is not None
    assert episodes.diagram() in episodes.__doc__


def test_every_phase_can_be_left_and_every_alert_ends() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    ends = {after for (_, _), (after, event) in TRANSITIONS.items() if event == RESOLVED}
    assert ends == {Phase.NORMAL}


def test_flags_follow_precedence_and_bits_say_who_objected() -> None:
    one = engine(kind={"rate_max_per_s": 5.0})
    raw = raw_batch([(0, T0, 1.0), (0, T0 + S, 11.0), (0, T0 + 2 * S, 300.0), (0, T0 + 3 * S, np.nan)])
    judged = one.judge(raw, positions(0, 4))
    assert judged.main.flag.tolist() == [GOOD, SUSPECT, FAIL, MISSING]
    assert judged.main.checks.tolist() == [0, bit("rate_of_change"), bit("gross_range"), 0]


@pytest.mark.parametrize(
    ("said", "flag"), [(0, GOOD), (1, GOOD), (2, GOOD), (3, SUSPECT), (4, FAIL), (9, MISSING)]
)
def test_what_the_device_says_counts(said: int, flag: int) -> None:
    """A device that did not look (2) gives way to checks that did."""
    raw = raw_batch([(0, T0, 50.0)])
    raw.device_flag[:] = said
    judged = engine().judge(raw, positions(0, 1))
    assert judged.main.flag.tolist() == [flag]
    assert bool(judged.main.checks[0] & bit("device")) == (flag != GOOD)
    assert bool(judged.events) == (flag == GOOD), "only a reading nobody doubts raises an alert"


def test_a_value_out_of_range_never_pages_and_leaves_no_trace_in_later_checks() -> None:
    one = engine(kind={"rate_max_per_s": 5.0})
    judged = judge(one, [1.0, 999.0, 2.0])
    assert judged.events == []
    assert judged.main.flag.tolist() == [GOOD, FAIL, GOOD]


def test_late_rows_meet_the_range_only_and_change_nothing() -> None:
    one = engine()
    judge(one, [1.0, 1.0, 1.0])
    before = {name: array.copy() for name, array in one.state.arrays().items()}
    judged = one.judge(raw_batch([(0, T0, 50.0), (0, T0 + S, 999.0)]), positions(9, 2))
    assert (len(judged.main), len(judged.late), judged.repeats) == (0, 2, 0)
    assert judged.late.flag.tolist() == [GOOD, FAIL]
    assert judged.late.pos.tolist() == [9, 10]
    assert judged.events == []
    assert all(before[name].tobytes() == one.state[name].tobytes() for name in before)


def test_an_alert_fires_steps_and_ends_under_one_id() -> None:
    judged = judge(engine(), [10, 16, 26, 41, 29, 20, 10])
    assert course(judged.events) == [
        (FIRING, 1), (UPDATED, 2), (UPDATED, 4), (UPDATED, 3), (UPDATED, 1), (RESOLVED, 0),
    ]  # fmt: skip
    assert len({event.id for event in judged.events}) == 1
    assert [event.revision for event in judged.events] == [1, 2, 3, 4, 5, 6]
    assert [event.severity for event in judged.events] == [1, 2, 4, 4, 4, 4], "severity is the worst so far"
    last = judged.events[-1]
    assert (last.peak, last.value, last.onset, last.at) == (41, 10, T0 + S, T0 + 6 * S)
    assert [event.limit for event in judged.events] == [15, 25, 40, 30, 15, 40]
    assert judged.main.checks.tolist() == [0, *[bit("level")] * 5, 0]
    assert judged.main.flag.tolist() == [GOOD] * 7, "a flood is no doubt about the reading"


def test_the_peak_is_kept_while_nothing_new_is_said() -> None:
    """Readings that stay in their level cause no event, but the worst of them is in the next one."""
    one = engine()
    found = [judge(one, [value], start=i).events for i, value in enumerate([16, 24, 17, 10])]
    assert [len(events) for events in found] == [1, 0, 0, 1]
    assert found[-1][0].peak == 24


def test_a_level_is_left_only_beyond_the_gap() -> None:
    judged = judge(engine(), [16, 14, 13.5, 13, 12.9])
    assert [(event.type, event.value) for event in judged.events] == [(FIRING, 16), (RESOLVED, 12.9)]


def test_falling_levels_are_mirrored() -> None:
    table = point_table(1)
    table.level[:, 0] = (4, 3, 2, 1)
    table.falling[0] = True
    table.level_gap[0] = 0.5
    judged = judge(engine(table), [9, 3.5, 0.9, 1.4, 9])
    assert course(judged.events) == [(FIRING, 1), (UPDATED, 4), (RESOLVED, 0)]
    assert judged.events[-1].peak == 0.9


def test_confirmation_waits_for_readings_in_a_row_both_ways() -> None:
    judged = judge(engine(kind={"confirm_readings": 3}), [16, 10, 16, 16, 16, 26, 16, 10, 10, 16, 10, 10, 10])
    assert [(event.type, (event.at - T0) // S, event.onset) for event in judged.events] == [
        (FIRING, 4, T0 + 2 * S),
        (RESOLVED, 12, T0 + 2 * S),
    ]


def test_a_jump_that_is_suspect_by_its_rate_pages_all_the_same() -> None:
    judged = judge(engine(kind={"rate_max_per_s": 1.0}), [1, 45])
    assert judged.main.flag.tolist() == [GOOD, SUSPECT]
    assert course(judged.events) == [(FIRING, 4)]


def test_a_backlog_never_pages_for_last_nights_flood() -> None:
    judged = judge(engine(fresh_s=60), [16] * 5 + [10] * 5, late_s=3600)
    assert [(event.type, event.notify) for event in judged.events] == [(FIRING, False), (RESOLVED, False)]


def test_a_flood_that_began_in_the_backlog_and_still_stands_pages_once_it_is_fresh() -> None:
    one = engine(fresh_s=60)
    old = judge(one, [16, 26], late_s=3600).events
    now = judge(one, [26, 26, 10], start=3600).events
    assert [(e.type, e.notify, e.revision) for e in old] == [(FIRING, False, 1), (UPDATED, False, 2)]
    assert [(e.type, e.notify, e.revision) for e in now] == [(FIRING, True, 3), (RESOLVED, True, 4)]
    assert len({event.id for event in old + now}) == 1


def test_a_step_missed_in_a_backlog_is_told_once_a_fresh_reading_stands_there() -> None:
    one = engine(fresh_s=60)
    judge(one, [16])
    stale = judge(one, [41], start=1, late_s=3600).events
    fresh = judge(one, [41], start=3600).events
    assert [(e.type, e.notify) for e in stale] == [(UPDATED, False)]
    assert [(e.type, e.notify, e.severity_now) for e in fresh] == [(UPDATED, True, 4)]


def test_a_stuck_sensor_is_a_fault_and_ends_with_the_first_change() -> None:
    judged = judge(engine(kind={"flat_line_s": 3.0}), [5, 5, 5, 5, 5, 6])
    assert [(e.rule, e.alert_class, e.type) for e in judged.events] == [
        ("stuck", "fault", FIRING),
        ("stuck", "fault", RESOLVED),
    ]
    assert judged.main.flag.tolist() == [GOOD, GOOD, GOOD, SUSPECT, SUSPECT, GOOD]


def test_a_kind_without_alerts_has_flags_and_bits_only() -> None:
    judged = judge(engine(kind={"alert": False, "flat_line_s": 1.0}), [50, 50, 50])
    assert judged.events == []
    assert judged.main.checks[0] == bit("level")


def test_the_history_keeps_the_onset_and_the_newest_steps() -> None:
    one = engine()
    found = judge(one, [16, *[26, 16] * 30]).events
    assert len(found[-1].history) == HISTORY_MAX
    assert found[-1].history[0] == (T0, 1, 16)
    assert found[-1].history[-1][0] == found[-1].at


def test_a_check_that_raises_is_never_silence(caplog: pytest.LogCaptureFixture) -> None:
    """Its readings are flagged 2, it is counted and said once a minute, and the other checks go on."""

    def broken(rows: Rows, limits: Arrays, state: Arrays) -> U8:
        raise ZeroDivisionError("mine")

    checks = tuple(check for check in all_checks() if check.name != "rate_of_change")
    one = Engine(
        point_table(1),
        {},
        check_settings(),
        row_checks=(*checks, RowCheck("rate_of_change", SUSPECT, broken)),
    )
    caplog.set_level(logging.ERROR)
    judged = judge(one, [1, 16, 999, np.nan])
    judge(one, [1], start=10)
    assert judged.main.flag.tolist() == [NOT_EVALUATED, NOT_EVALUATED, FAIL, MISSING]
    assert judged.main.checks[1] == bit("level") | bit("not_evaluated")
    assert course(judged.events) == [(FIRING, 1)]
    assert one.counts["check_errors"] == 2
    assert len(caplog.records) == 1


def test_a_retired_point_ends_its_alert_at_the_next_tick() -> None:
    one = engine()
    judge(one, [16])
    arrays, meta = one.snapshot()
    table = point_table(3)
    table.retired[0] = True
    other = engine(table)
    other.restore(arrays, meta)
    assert course(other.tick(T0 + 5 * S)) == [(RESOLVED, 0)]
    assert course(judge(other, [50], start=9).events) == []


def test_more_points_after_a_restart_keep_the_old_ones_state() -> None:
    one = engine()
    judge(one, [16])
    other = engine(point_table(9))
    other.restore(*one.snapshot())
    assert course(judge(other, [26], start=1).events) == [(UPDATED, 2)]
    assert course(judge(other, [26], point=8).events) == [(FIRING, 2)]


def test_an_empty_batch_is_judged_as_nothing() -> None:
    judged = engine().judge(RawBatch.empty(), positions(0, 0))
    assert (len(judged.main), len(judged.late), judged.repeats, judged.events) == (0, 0, 0, [])
