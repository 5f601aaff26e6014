"""Retention: what may go, counted from the data's own days, and never more than two days a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.retention import PARTITION_DAYS_A_RUN, believed_day, plan, says
from storage.settings import RetentionSettings

TODAY = 20_000


def hours_of(*days: int) -> dict[int, bool]:
    """All hours of these days, clean."""
    return {day * 24 + hour: True for day in days for hour in range(24)}


def planned(settings: RetentionSettings, raw: dict[int, bool], **more: object) -> object:
    """A plan counted from TODAY."""
    known: dict[str, object] = {"thinned_to": {}, "owed": {}, "rollup_1m_hours": (), "rollup_1h_days": ()}
    return plan(settings, TODAY, raw_hours=raw, **{**known, **more})  # type: ignore[arg-type]


def test_nothing_goes_unless_configured() -> None:
    """However old the readings are."""
    found = planned(
        RetentionSettings(), hours_of(0, 1, TODAY), rollup_1m_hours=range(48), rollup_1h_days=range(9)
    )
    assert not found


def test_a_tier_keeps_its_days_and_today() -> None:
    """raw_days = 3 keeps today and the three days before it."""
    found = planned(RetentionSettings(raw_days=3), hours_of(TODAY - 4, TODAY - 3, TODAY))
    assert {hour // 24 for hour in found.raw_hours} == {TODAY - 4}  # type: ignore[attr-defined]
    assert len(found.raw_hours) == 24  # type: ignore[attr-defined]


@given(
    days=st.sets(st.integers(TODAY - 400, TODAY), max_size=60),
    keep=st.integers(1, 300),
    kind=st.integers(1, 300),
)
def test_one_run_takes_at_most_two_days_and_only_old_ones(days: set[int], keep: int, kind: int) -> None:
    """Of each tier; and an hour goes whole or loses kinds, never both."""
    settings = RetentionSettings(
        raw_days=keep, raw_days_by_kind={"video": kind}, rollup_1m_days=keep, rollup_1h_days=keep
    )
    found = plan(
        settings,
        TODAY,
        raw_hours=hours_of(*days),
        thinned_to={},
        owed={},
        rollup_1m_hours=hours_of(*days),
        rollup_1h_days=days,
    )
    for hours, kept in ((found.raw_hours, keep), (found.rollup_1m_hours, keep), (tuple(found.thin), kind)):
        gone = {hour // 24 for hour in hours}
        assert len(gone) <= PARTITION_DAYS_A_RUN
        assert all(day < TODAY - kept for day in gone)
    if found.raw_hours:
        assert min(found.raw_hours) // 24 == min(days)
    assert len(found.rollup_1h_days) <= PARTITION_DAYS_A_RUN
    assert not set(found.raw_hours) & set(found.thin)


def test_an_hour_still_waiting_for_its_compaction_stays() -> None:
    """Its rollups are not written yet, or late readings of it are on their way."""
    hour = (TODAY - 9) * 24
    assert not planned(RetentionSettings(raw_days=1), {hour: False})


def test_a_kind_is_thinned_once() -> None:
    """The hours behind its mark are not rewritten at every run."""
    settings = RetentionSettings(raw_days_by_kind={"video": 2})
    raw = hours_of(TODAY - 5, TODAY - 4, TODAY - 3)
    first = planned(settings, raw)
    assert {hour // 24 for hour in first.thin} == {TODAY - 5, TODAY - 4}  # type: ignore[attr-defined]
    then = planned(settings, raw, thinned_to={"video": (TODAY - 3) * 24})
    assert {hour // 24 for hour in then.thin} == {TODAY - 3}  # type: ignore[attr-defined]
    mark = {"video": (TODAY - 2) * 24}
    assert not planned(settings, raw, thinned_to=mark)
    left = planned(settings, raw, thinned_to=mark, owed={"video": [(TODAY - 4) * 24 + 5]})
    assert list(left.thin) == [(TODAY - 4) * 24 + 5]  # type: ignore[attr-defined]


@pytest.mark.parametrize("jump", [3, 30, 27_000])
def test_a_clock_that_jumps_ahead_moves_nothing(jump: int) -> None:
    """Neither for a day of such readings nor for two."""
    for wrong in ([TODAY + jump], [TODAY + jump, TODAY + jump + 1]):
        belief = believed_day(TODAY, [TODAY - 1, TODAY, *wrong])
        assert belief.day == TODAY
        assert "nothing is deleted" in belief.doubt


def test_an_engine_that_stood_still_goes_on_after_three_days() -> None:
    """Without a hand: the days behind the jump fill like days do."""
    assert believed_day(TODAY, [TODAY, *range(TODAY + 40, TODAY + 43)]).day == TODAY + 42


def test_a_clock_that_goes_back_takes_the_belief_with_it() -> None:
    """A believed day in the far future would make all readings old."""
    assert believed_day(TODAY + 27_000, [TODAY - 1, TODAY]).day == TODAY
    assert believed_day(TODAY, []).day == TODAY


def test_check_says_what_will_go() -> None:
    """A line for each tier that is configured."""
    settings = RetentionSettings(raw_days=400, raw_days_by_kind={"video": 30}, alerts_days=4000)
    assert says(settings) == [
        "raw readings are deleted 400 days after the newest day with readings",
        "raw readings of video are deleted 30 days after the newest day with readings",
        "ended alerts are deleted 4000 days after the newest day with readings",
    ]
    assert says(RetentionSettings()) == ["nothing is deleted: retention is not configured"]
