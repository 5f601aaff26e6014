"""The soak's verdict finds what grows and nothing else; the sizing table is arithmetic over what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench import sizing, soak
from bench.soak_watch import SLACKS, Sample, count_files, verdicts

STEADY = Sample(0.0, 300.0, 80, 60, 3, 200, 10)
LOOKS = 400


def course(**growth: float) -> list[Sample]:
    """Samples every two seconds; each figure named grows by so much over the whole run, in a straight line."""
    found = []
    for n in range(LOOKS):
        grown = {
            name: type(getattr(STEADY, name))(getattr(STEADY, name) + much * n / LOOKS)
            for name, much in growth.items()
        }
        found.append(replace(STEADY, at_s=2.0 * n, hour_files=n, **grown))
    return found


@pytest.mark.parametrize("what", SLACKS)
def test_what_grows_is_named_and_only_that(what: str) -> None:
    slack = SLACKS[what]
    bound = max(slack.absolute, slack.share * getattr(STEADY, what))
    assert [v.what for v in verdicts(course(**{what: 4 * bound + 8})) if not v.flat] == [what]
    assert all(v.flat for v in verdicts(course(**{what: 0.5 * bound})))


def test_a_warm_up_is_not_growth_and_files_that_keep_hours_may_grow() -> None:
    cold = [replace(one, memory_mb=100.0, threads=10) for one in course()[: LOOKS // 5]]
    assert all(v.flat for v in verdicts([*cold, *course()[LOOKS // 5 :]]))


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="too few"):
        verdicts(course()[:8])


def test_files_of_hours_and_of_the_logs_are_counted_apart(tmp_path: Path) -> None:
    lasting = (
        "lake/readings/date=2026-01-01/hour=00/c00000000000000000001-0000.parquet", "lake/rollup_1m/1-1.parquet",
        "lake/folds/1.parquet", "lake/readings/_delta_log/00000000000000000001.json",
    )  # fmt: skip
    working = (
        "lake/hot/main/1-2.parquet",
        "journal/1.journal",
        "lake/readings/date=2026-01-01/hour=00/1-2-3.parquet",
    )
    for name in (*lasting, *working):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert count_files(tmp_path) == (len(working), len(lasting))


def test_a_run_fails_for_a_loss_as_for_growth_and_its_table_stands_between_its_marks(tmp_path: Path) -> None:
    found = soak.Soak(
        "a day", at="2026-01-01T00:00:00+00:00", sent=10, acked=10, stored=10, verdicts=verdicts(course())
    )
    assert found.passed
    assert not replace(found, lost=1).passed
    assert not replace(found, verdicts=verdicts(course(threads=40))).passed
    page = tmp_path / "soak.md"
    page.write_text("a\n<!-- soak-week: begin -->\nold\n<!-- soak-week: end -->\nb\n")
    soak.publish(asdict(replace(found, verdicts=verdicts(course(threads=40)))), "week", page)
    assert "**0 lost**" in page.read_text()
    assert "**GROWS**" in page.read_text()
    assert page.read_text().startswith("a\n")
    assert page.read_text().endswith("<!-- soak-week: end -->\nb\n")
    with pytest.raises(ValueError, match="no marks"):
        soak.publish(asdict(found), "real", page)


def test_the_sizing_page_says_what_was_measured() -> None:
    of = sizing.measured_bytes()
    kept = sizing.load_kept()
    assert sizing.table(kept, of) in sizing.DOCS.read_text("utf-8"), "run scripts/bench sizing"
    assert all(run["lost"] == 0 for run in kept["runs"])
    a_day = of.a_day(116_200, 60)
    week = json.loads((sizing.RESULTS / "week.json").read_text("utf-8"))["figures"]
    measured = sum(
        one["value"] for one in week if one["what"].endswith("bytes a reading") and one["unit"] == "B"
    )
    assert a_day == pytest.approx(116_200 * 1440 * measured, rel=0.001)
