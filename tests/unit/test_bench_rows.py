"""What benchmarks measure on: rows that are what they claim, verdicts that look the right way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bench.storage_city import CITY_POINTS, JITTER_MS, city, map_city, sorted_hour
from bench.storage_figures import BENCH, README, Figure, Report
from bench.storage_hours import HOUR_US, MINUTES, CityHours
from bench.week_questions import same
from storage.batch import ReadingBatch

EVERY = 2_000


@pytest.fixture(scope="module")
def map_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return map_city(tmp_path_factory.mktemp("city"), 60.0)


def test_an_hour_laid_down_is_sorted_whole_and_inside_its_hour(map_file: Path) -> None:
    """Such rows are written as a compacted file without any sort."""
    hours = CityHours(map_file, 1, EVERY)
    hour = hours.hour(5)
    rows = hour.sorted(0, len(hours))
    assert len(rows) == len(hours) * MINUTES == len(range(0, CITY_POINTS, EVERY)) * MINUTES
    assert np.array_equal(np.lexsort((rows.time, rows.point)), np.arange(len(rows)))
    assert set((rows.time // HOUR_US).tolist()) == {hour.hour}
    assert np.all(rows.received_at > rows.time)


def test_minutes_in_order_of_arrival_hold_the_same_rows_as_the_sorted_hour(map_file: Path) -> None:
    hours = CityHours(map_file, 1, EVERY)
    hour = hours.hour(0)
    arrived = ReadingBatch.concat([hour.minute(m) for m in range(MINUTES)])
    assert np.all(np.diff(hour.minute(7).received_at) >= 0)
    order = np.lexsort((arrived.time, arrived.point))
    laid = hour.sorted(0, len(hours))
    for name in ReadingBatch.__slots__:
        assert np.array_equal(getattr(arrived, name)[order], getattr(laid, name)), name


def test_the_same_hour_is_made_again_from_the_same_arguments(map_file: Path) -> None:
    one, other = (CityHours(map_file, 1, EVERY).hour(3) for _ in range(2))
    assert np.array_equal(one.value, other.value)
    assert np.array_equal(one.time, other.time)


@pytest.mark.parametrize("jitter_ms", [0, JITTER_MS])
def test_the_hour_at_1_hz_jitters_as_much_as_it_says(map_file: Path, jitter_ms: int) -> None:
    rows = sorted_hour(city(map_file, every=20_000, jitter_ms=jitter_ms), 600)
    off = np.abs(rows.time - np.rint(rows.time / 1e6).astype(np.int64) * 1_000_000)
    assert off.max() == jitter_ms * 1000
    assert np.all(off % 1000 == 0)


def test_a_figure_knows_on_which_side_of_its_target_it_lies() -> None:
    assert Figure("bytes", 2.3, "B", 2.4).met is True
    assert Figure("bytes", 2.5, "B", 2.4).met is False
    assert Figure("encode", 16.0, "Mrow/s", 15, at_least=True).met is True
    assert Figure("encode", 14.0, "Mrow/s", 15, at_least=True).met is False
    assert Figure("only told", 1.0, "s").met is None


def test_a_table_is_put_between_its_marks_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text("utf-8"), "utf-8")
    monkeypatch.setattr("bench.storage_figures.README", copy)
    before = copy.read_text("utf-8")
    for mark in ("storage", "week"):
        report = Report(mark, {})
        report.add(f"a figure of {mark}", 1.5, "B", 2)
        report.publish(mark)
    after = copy.read_text("utf-8")
    assert "| a figure of storage | 1.5 B | ≤ 2 | yes |" in after
    assert "| a figure of week | 1.5 B | ≤ 2 | yes |" in after

    def outside(text: str) -> list[str]:
        return [part.partition(": end -->")[2] for part in text.split(": written by scripts/bench -->")]

    assert outside(before) == outside(after)
    with pytest.raises(ValueError, match="no marks"):
        Report("x", {}).publish("no such mark")


def test_every_benchmark_the_script_names_exists() -> None:
    script = (BENCH.parent / "scripts" / "bench").read_text("utf-8")
    listed = re.findall(r"^    ([\w |]+)\) module=([\w.${}]+)", script, re.MULTILINE)
    assert len(listed) > 2
    for names, module in listed:
        for name in names.split(" | "):
            path = module.replace("${1}", name).replace(".", "/") + ".py"
            assert (BENCH.parent / path).exists(), path


def test_two_answers_are_the_same_only_if_all_but_the_last_digits_are() -> None:
    one = {"rows": 3, "values": 1e9, "least": 0.5}
    assert same(one, one | {"values": 1e9 + 0.1})
    assert not same(one, one | {"values": 1e9 + 10})
    assert not same(one, one | {"least": 0.4})
