"""Every number of the rule tables, against what the project's domain notes say of the standards, and its source."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from anomaly.rules.air import iaqi
from anomaly.rules.noise import HOUR_US, by_night
from anomaly.rules.rain import grade
from anomaly.rules.tables import entries, names
from anomaly.rules.water import CLASS_NAMES, bounds, water_class

BEFORE, AFTER = (date(2026, 2, 28) - date(1970, 1, 1)).days, (date(2026, 3, 1) - date(1970, 1, 1)).days

IAQI = {
    ("pm25", 24): ([0, 35, 75, 115, 150, 250, 350, 500], [0, 35, 60, 115, 150, 250, 350, 500]),
    ("pm10", 24): ([0, 50, 150, 250, 350, 420, 500, 600], [0, 50, 120, 250, 350, 420, 500, 600]),
    ("no2", 24): ([0, 40, 80, 180, 280, 565, 750, 940],) * 2,
    ("no2", 1): ([0, 100, 200, 700, 1200, 2340, 3090, 3840],) * 2,
    ("co", 24): ([0, 2, 4, 14, 24, 36, 48, 60],) * 2,
    ("co", 1): ([0, 5, 10, 35, 60, 90, 120, 150],) * 2,
    ("o3", 1): ([0, 160, 200, 300, 400, 800, 1000, 1200],) * 2,
    ("o3", 8): ([0, 100, 160, 215, 265, 800],) * 2,
    ("so2", 1): ([0, 150, 500, 650, 800],) * 2,
    ("so2", 24): ([0, 50, 150, 475, 800, 1600, 2100, 2620],) * 2,
}
"""(before 2026-03-01, since)."""


def test_every_table_has_a_source_and_no_number_stands_without_one() -> None:
    assert len(names()) >= 8
    for file, name in names():
        for entry in entries(file, name):
            assert len(entry.source) > 10, (file, name)
            assert entry.numbers, (file, name)


def test_what_no_primary_source_was_at_hand_for_is_marked() -> None:
    marked = {(file, name) for file, name in names() if any(entry.verify for entry in entries(file, name))}
    assert marked == {
        ("rain", "grade"),
        ("rain", "flash"),
        ("rain", "city"),
        ("flood", "waterlogging"),
        ("air", "iaqi"),
    }
    unsure = [(e["pollutant"], e["hours"]) for e in entries("air", "iaqi") if e.verify]
    assert set(unsure) == {("so2", 24)}
    assert [e["hours"] for e in entries("rain", "grade") if e.verify] == [1, 3]


def test_rain_grades() -> None:
    lower = {entry["hours"]: entry["lower_mm"] for entry in entries("rain", "grade")}
    assert lower == {
        1: [0.1, 2, 5, 10, 20],
        3: [0.1, 3, 10, 20, 50, 70],
        12: [0.1, 5, 15, 30, 70, 140],
        24: [0.1, 10, 25, 50, 100, 250],
    }
    assert [grade(mm, 24) for mm in (0.0, 0.1, 9.9, 10, 25, 50, 100, 250)] == [
        "", "小雨", "小雨", "中雨", "大雨", "暴雨", "大暴雨", "特大暴雨",
    ]  # fmt: skip
    assert grade(500.0, 1) == "大暴雨"


def test_rainstorm_steps_are_those_of_the_warning_signals() -> None:
    found = [(e["severity"], e["mm"], e["hours"]) for e in entries("rain", "signal")]
    assert found == [(1, 50, 12), (2, 50, 6), (3, 50, 3), (4, 100, 3)]


def test_flash_flood_and_city_tables() -> None:
    (flash,) = entries("rain", "flash")
    assert dict(zip(flash["hours"], flash["mm"], strict=True)) == {
        1: [35, 45, 60, 80], 3: [55, 75, 100, 120], 6: [70, 95, 120, 150], 24: [100, 130, 160, 200],
    }  # fmt: skip
    (city,) = entries("rain", "city")
    assert (city["gauges"], city["mm_response"], city["mm_red"]) == (10, 25, 200)


@pytest.mark.parametrize(("pollutant", "hours"), list(IAQI))
def test_index_of_every_knot_before_and_since_the_first_of_march_2026(pollutant: str, hours: int) -> None:
    if pollutant.startswith("pm"):
        assert not [e for e in entries("air", "iaqi") if e["pollutant"] == pollutant and e["hours"] != 24]
    index = [0, 50, 100, 150, 200, 300, 400, 500]
    for day, knots in zip((BEFORE, AFTER), IAQI[pollutant, hours], strict=True):
        at = np.array(knots, np.float64)
        assert iaqi(pollutant, at, np.full(len(at), day), hours).tolist() == index[: len(knots)]
        beyond = iaqi(pollutant, at[-1:] * 3, np.array([day]), hours)
        assert beyond.tolist() == [index[len(knots) - 1]], "capped at its last index"


def test_an_index_is_rounded_up_and_the_tables_change_at_midnight_of_the_city() -> None:
    assert iaqi("pm25", np.array([60.0, 60.0]), np.array([BEFORE, AFTER])).tolist() == [82, 100]
    assert iaqi("pm25", np.array([35.01]), np.array([AFTER])).tolist() == [51]
    assert np.isnan(iaqi("pm25", np.array([np.nan]), np.array([AFTER]))).all()
    assert (entries("air", "index")[0]["primary_above"]) == 50


def test_the_tables_of_2012_end_the_day_before_those_of_2026_begin() -> None:
    for entry in entries("air", "iaqi"):
        assert (entry.effective_from, entry.effective_to) in (
            (None, date(2026, 2, 28)),
            (date(2026, 3, 1), None),
        )


def test_water_classes() -> None:
    upper = {
        "codmn": [2, 4, 6, 10, 15], "cod": [15, 15, 20, 30, 40], "bod5": [3, 3, 4, 6, 10],
        "nh3n": [0.15, 0.5, 1, 1.5, 2], "tp": [0.02, 0.1, 0.2, 0.3, 0.4],
    }  # fmt: skip
    for indicator, most in upper.items():
        assert bounds(indicator)[1].tolist() == most
        assert np.isinf(bounds(indicator)[0]).all()
    assert bounds("do")[0].tolist() == [7.5, 6, 5, 3, 2]
    assert [b.tolist() for b in bounds("ph")] == [[6.0] * 5, [9.0] * 5]
    least, greatest = (bound[:, None] for bound in bounds("ph"))
    assert [CLASS_NAMES[c - 1] for c in water_class(np.array([5.9, 6.0, 9.0, 9.1]), least, greatest)] == [
        "劣V", "I", "I", "劣V",
    ]  # fmt: skip
    with pytest.raises(KeyError):
        bounds("gold")


def test_noise_limits_by_zone_and_night() -> None:
    zones = {e["name"]: (e["day"], e["night"]) for e in entries("noise", "zone")}
    assert zones == {
        "0": (50, 40), "1": (55, 45), "2": (60, 50), "3": (65, 55), "4": (70, 55), "construction": (70, 55),
    }  # fmt: skip
    (night,) = entries("noise", "night")
    assert (night["from_h"], night["to_h"], night["peak_above"]) == (22, 6, 15)
    hours = np.arange(24) * HOUR_US
    assert np.flatnonzero(by_night(hours)).tolist() == [0, 1, 2, 3, 4, 5, 22, 23]


def test_depths_of_water_on_a_street() -> None:
    assert entries("flood", "waterlogging")[0]["cm"] == [15, 27, 40]
