"""Rain as a duty officer reads it: sums, steps, counters and silences, one gauge at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anomaly.rules import row_rules
from anomaly.rules.base import Assessed
from anomaly.rules.rain import sums_at
from tests.anomaly_city import T0, S
from tests.rules_city import KINDS, city, judged, limits, new_state

MIN = 60 * S
(RAIN,) = (rule for rule in row_rules() if rule.name == "rain")
GAUGE, HILL, COUNTER = 0, 1, KINDS.index("rain_total")
"""P00001 lies in a district with a flash-flood table."""


def heard(point: int, readings: list[tuple[float, float]], /, **tables: Any) -> tuple[Assessed, Any]:
    """(minutes after midnight, value) of one gauge."""
    known = limits(city(), **tables)
    state = new_state(known)
    time = np.array([T0 + round(minute * MIN) for minute, _ in readings], np.int64)
    batch = np.full(len(time), point, np.int32), time, np.array([mm for _, mm in readings])
    return judged(RAIN, batch, state, known), state


@pytest.mark.parametrize(
    ("hours", "mm", "severity", "limit"),
    [(12, 50.0, 1, 50.0), (6, 50.0, 2, 50.0), (3, 50.0, 3, 50.0), (3, 100.0, 4, 100.0), (13, 50.0, 0, 50.0)],
)
def test_hourly_readings_reach_a_rainstorm_step_exactly_at_its_amount(
    hours: int, mm: float, severity: int, limit: float
) -> None:
    """Evenly over its hours and a hair less: the step is reached, and not reached."""
    each = mm / hours
    found, _ = heard(GAUGE, [(60.0 * h, round(each + 0.001, 3)) for h in range(1, hours + 1)])
    assert (found.classes[-1], found.limit[-1]) == (severity, limit)
    less, _ = heard(GAUGE, [(60.0 * h, round(each - 0.001, 3)) for h in range(1, hours + 1)])
    assert less.classes[-1] < max(severity, 1)


def test_a_hundred_thousand_tips_add_up_to_the_last_one() -> None:
    """0.1 mm has no exact double; the sum of 10,000 of them is 1,000 mm all the same."""
    found, state = heard(GAUGE, [(k * 0.14, 0.1) for k in range(1, 10_001)])
    place = state["rain_gauge_place"][GAUGE]
    assert state["rain_total"][place] == 1_000_000
    assert sums_at(T0 + 1400 * MIN, state.arrays())[-1, place] == 1000.0
    assert found.classes[-1] == 4


def test_rain_leaves_its_window_after_its_hours_and_the_step_only_with_its_gap() -> None:
    dry = [(60.0 * h, 0.0) for h in range(2, 15)]
    found, _ = heard(GAUGE, [(60.0, 50.5), *dry])
    assert found.classes.tolist() == [3, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0]
    near, _ = heard(GAUGE, [(60.0, 1.0), (61.0, 49.3), (239.0, 0.0), (242.0, 0.0)])
    assert near.classes.tolist() == [0, 3, 3, 2], "49.3 mm left of 50.3: not yet a millimetre below"


def test_an_area_with_a_flash_flood_table_has_its_steps_too() -> None:
    readings = [(60.0, 45.0)]
    assert heard(GAUGE, readings)[0].classes.tolist() == [0]
    found, _ = heard(HILL, readings)
    assert (found.classes.tolist(), found.value.tolist(), found.limit.tolist()) == ([2], [45.0], [45.0])


def test_a_counter_counts_what_it_grew_by_and_survives_being_set_back() -> None:
    readings = [(5.0 * k, 300.0 + 10 * k) for k in range(4)] + [
        (20.0, 5.0),
        (25.0, 10.0),
        (30.0, 9.8),
        (35.0, 10.1),
    ]
    found, state = heard(COUNTER, readings)
    place = state["rain_gauge_place"][COUNTER]
    # 30 mm, then 5 since it was set back, 5 more, a swing, and 0.3 after it.
    assert state["rain_total"][place] == 40_300
    assert found.classes[-1] == 0


def test_an_exchanged_counter_and_a_mad_reading_bring_no_rain() -> None:
    _, state = heard(COUNTER, [(0.0, 10.0), (5.0, 9000.0), (10.0, 9002.0)])
    assert state["rain_total"][state["rain_gauge_place"][COUNTER]] == 2000
    _, state = heard(GAUGE, [(0.0, 5.0), (5.0, 1e18), (10.0, -3.0)])
    assert state["rain_total"][state["rain_gauge_place"][GAUGE]] == 5000


def test_what_a_counter_tells_after_a_silence_is_no_cloudburst() -> None:
    """60 mm in a silence of 12 hours are 15 mm in three of them; at once they would be an orange storm."""
    found, state = heard(COUNTER, [(5.0, 0.0), (10.0, 0.0), (730.0, 60.0)])
    assert found.classes.tolist() == [0, 0, 1]
    place = state["rain_gauge_place"][COUNTER]
    sums = sums_at(T0 + 730 * MIN, state.arrays())[:, place]
    assert sums.tolist() == pytest.approx([5.0, 15.0, 30.0, 60.0, 60.0], abs=0.1)


def test_after_days_of_silence_only_the_share_of_the_last_day_counts() -> None:
    days = 10
    _, state = heard(COUNTER, [(5.0, 0.0), (5.0 + days * 1440, 288.0 * days)])
    place = state["rain_gauge_place"][COUNTER]
    sums = sums_at(T0 + round((5 + days * 1440) * MIN), state.arrays())[:, place]
    assert sums[-1] == pytest.approx(288.0)


def test_a_point_may_say_otherwise_than_its_kind() -> None:
    readings = [(60.0, 80.0)]
    assert heard(GAUGE, readings, point={"P00000": {"rain": "none"}})[0].classes.tolist() == [0]
    assert heard(COUNTER, readings, point={f"P{COUNTER:05}": {"rain": "increment"}})[0].classes.tolist() == [
        3
    ]
