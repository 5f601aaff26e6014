"""The tools by which the score is judged, and a floor under the score itself."""

from __future__ import annotations

import numpy as np
import pytest

from bench import detection_score as table
from bench.detection_nab import PROBATION_ROWS_MAX, Labelled, gains, judge, windows_of
from bench.detection_series import FAMILIES, HELD_OUT, TUNE, made


def with_score(n: int, rows: dict[int, float]) -> np.ndarray:
    score = np.zeros(n)
    for row, value in rows.items():
        score[row] = value
    return score


def test_windows_share_a_tenth_of_the_series_and_meet_without_overlap() -> None:
    assert windows_of(1000, [500]) == [(450, 550)]
    assert windows_of(1000, [500, 800]) == [(475, 525), (775, 825)]
    assert windows_of(1000, [500, 510]) == [(475, 535)]
    assert windows_of(1000, []) == []


def test_what_a_row_is_worth() -> None:
    gain, inside = gains(1000, [(450, 550)])
    assert gain[450] == pytest.approx(1.0), "as early as it can be"
    assert 0 < gain[550] < 0.1
    assert gain[100] == -0.11
    assert gain[551] > -0.11 * 0.1, "just missed costs little"
    assert gain[990] == pytest.approx(-0.11, abs=0.001)
    assert (inside[450:551] == 0).all()
    assert inside[449] == inside[551] == -1


def test_perfect_is_a_hundred_silence_is_nothing_and_more_calls_in_a_window_cost_nothing() -> None:
    windows = [(450, 550)]
    assert judge([Labelled(with_score(1000, {450: 1.0}), windows)]).points == pytest.approx(100)
    again = judge([Labelled(with_score(1000, {450: 1.0, 460: 1.0, 470: 0.9}), windows)], 0.5)
    assert (again.points, again.false_rows) == (pytest.approx(100), 0)
    assert judge([Labelled(np.zeros(1000), windows)]).points == 0
    wrong = judge([Labelled(with_score(1000, {450: 1.0, 800: 1.0}), windows)])
    assert wrong.points == pytest.approx(100 - 11 / 2, abs=0.1)


def test_the_first_rows_are_not_judged() -> None:
    score = with_score(10_000, {PROBATION_ROWS_MAX - 1: 5.0, 5_000: 1.0})
    assert judge([Labelled(score, [(5_000, 5_400)])]).false_rows == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_series_is_the_same_whenever_it_is_made(family: str) -> None:
    one, other = made(family, 3), made(family, 3)
    assert one.value.tobytes() == other.value.tobytes()
    assert (np.diff(one.time) > 0).all()
    assert all(0.15 * len(one.time) < onset < len(one.time) for onset in one.onsets)
    assert made(family, 4).value.tobytes() != one.value.tobytes()
    assert set(TUNE) | set(HELD_OUT) == set(FAMILIES)


def test_the_score_stays_well_above_chance_at_its_alarm_line() -> None:
    """Families no choice was made on, and seeds nobody looked at; the table of bench has many more."""
    series = table.series_of(HELD_OUT, range(200, 202))
    found = judge(table.labelled(table.engine_score, series), 1.0)
    chance = judge(table.labelled(table.at_random, series))
    print(found, chance)
    assert found.points > 50
    assert found.points > chance.points + 25
