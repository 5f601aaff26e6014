"""Our own clock: believed as long as it runs, not when it jumps, and again once the city agrees."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.ourclock import LEFT_MIN, SPAN_S, VOTES_MIN, OurClock

T0 = 1_767_225_600_000_000
HOUR_US = 3_600_000_000
NONE = np.zeros(0, np.int64)


def times(at_us: int, n: int = VOTES_MIN) -> np.ndarray:
    return np.full(n, at_us, np.int64)


def test_a_clock_that_is_corrected_by_seconds_is_followed() -> None:
    clock = OurClock()
    assert clock.now(T0, 10.0) == T0
    assert clock.now(T0 + 31_000_000, 11.0) == T0 + 31_000_000
    assert clock.now(T0 + 2_000_000, 12.0) == T0 + 2_000_000
    assert (clock.why, clock.jumps) == ("", 0)


@pytest.mark.parametrize(
    "jump_us", [-HOUR_US, HOUR_US, -T0, 74 * 8766 * HOUR_US], ids=["-1h", "+1h", "1970", "2100"]
)
def test_after_a_jump_time_goes_on_steadily_until_the_wall_clock_is_back(jump_us: int) -> None:
    clock = OurClock()
    clock.now(T0, 10.0)
    for second in range(1, 50):
        now = clock.now(T0 + jump_us + second * 1_000_000, 10.0 + second)
        assert now == T0 + second * 1_000_000
        clock.heard(now, times(now), {"s": VOTES_MIN}, {})
    assert "jumped" in clock.why
    assert clock.jumps == 1
    assert clock.now(T0 + 60_000_000, 70.0) == T0 + 60_000_000
    assert clock.why == ""


def test_a_jump_that_the_city_confirms_is_followed() -> None:
    clock = OurClock()
    clock.now(T0, 10.0)
    now = clock.now(T0 + HOUR_US, 11.0)
    assert now == T0 + 1_000_000
    clock.heard(now, times(T0 + HOUR_US - 500_000), {"s": VOTES_MIN}, {})
    assert clock.now(T0 + HOUR_US + 1_000_000, 12.0) == T0 + HOUR_US + 1_000_000
    assert clock.why == ""


def test_a_few_strange_readings_decide_nothing() -> None:
    clock = OurClock()
    clock.now(T0, 10.0)
    now = clock.now(T0 + HOUR_US, 11.0)
    clock.heard(now, times(T0 + HOUR_US, VOTES_MIN - 1), {"s": 1}, {})
    assert clock.now(T0 + HOUR_US + 1_000_000, 12.0) == T0 + 2_000_000


@pytest.mark.parametrize(
    "wall_us", [HOUR_US, T0 - HOUR_US, T0 + 74 * 8766 * HOUR_US], ids=["1970", "-1h", "2100"]
)
def test_a_start_before_the_engines_own_past_or_years_after_it_is_not_believed(wall_us: int) -> None:
    clock = OurClock(known_us=T0)
    assert clock.now(wall_us, 10.0) == T0
    assert "jumped" in clock.why


def test_a_start_after_weeks_of_rest_is_believed() -> None:
    clock = OurClock(known_us=T0)
    assert clock.now(T0 + 1000 * HOUR_US, 10.0) == T0 + 1000 * HOUR_US
    assert clock.why == ""


def test_most_sources_outside_their_window_within_a_minute_are_our_fault_until_they_are_back() -> None:
    clock = OurClock()
    clock.now(T0, 0.0)
    clock.heard(T0, NONE, {"a": 5}, {"b": LEFT_MIN, "c": LEFT_MIN})
    clock.look(1.0)
    assert "suspect" in clock.why
    clock.heard(T0, NONE, {"a": 5, "b": LEFT_MIN + 1, "c": LEFT_MIN + 1}, {})
    clock.look(2.0)
    assert clock.why == ""


def test_one_source_of_three_outside_its_window_is_that_sources_fault() -> None:
    clock = OurClock()
    clock.now(T0, 0.0)
    clock.heard(T0, NONE, {"a": 5, "b": 5}, {"c": 1000})
    clock.look(1.0)
    assert clock.why == ""


def test_what_was_outside_more_than_a_minute_ago_counts_no_more() -> None:
    clock = OurClock()
    clock.now(T0, 0.0)
    clock.heard(T0, NONE, {}, {"a": LEFT_MIN})
    clock.look(1.0)
    assert clock.why
    clock.look(1.0 + SPAN_S)
    assert clock.why == ""
