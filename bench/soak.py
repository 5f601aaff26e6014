"""scripts/soak: the engine for long, and whether anything of it grows; every acknowledged reading is counted.

Two forms. Compressed (the default): seven days of a city, a storm each day, in a few minutes, on the clock of events;
hours are sealed, compacted and rolled up as in seven real days. Real (--real SECONDS): the city's nominal rate on the
wall clock. Memory, files, descriptors and threads of all of the engine's processes are looked at all the time; the
verdict compares the last third with the first after the warm-up. Exit code 1 where something grew or a reading is lost.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import numpy as np
import polars as pl

from bench.case import CITY_POINTS, Case
from bench.end_to_end import SCRATCH, Result, _count, settle
from bench.lake_count import Count, count_lake
from bench.load.registry import CLOCK, bench_registry
from bench.markdown import grid
from bench.rig import CHILD_S_MAX, CITY_DIR, ROOT, CannotMeasure, Rig, end_in_order
from bench.soak_watch import NAMES, Sample, Verdict, Watch, verdicts
from bench.soak_week import Week
from bench.storage_figures import machine
from ingest.simulate.child import ChildDiedError, listen
from ingest.simulate.city import write
from ingest.simulate.fleet import load_fleet

DOCS: Final = ROOT / "docs" / "soak.md"
RESULTS: Final = ROOT / "bench" / "results"
LOOKS: Final = 400
"""Of a run: enough for a trend, few enough to cost nothing."""
LOOK_S_MIN: Final = 0.5
WEEK_GRACE_S: Final = 30
REAL_GRACE_S: Final = 60
"""[sealed] grace_s here: at the default of two hours replaced files would pile up by design for longer than the run."""
SEEN_S_MAX: Final = 20.0
"""From judged to seen by a query: a hot file a second. Only then is what is missing missing."""
PULSES: Final = 300
BEGIN_MS: Final = 1_790_000_000_000 // 86_400_000 * 86_400_000
"""Midnight UTC, the first of the compressed days."""
SETTLE_S: Final = 120.0

Counted = TypeVar("Counted", Count, Result)


@dataclass(slots=True)
class Soak:
    """What came of one run; times in s."""

    form: str
    at: str = ""
    machine: str = ""
    seconds: float = 0.0
    days: float = 0.0
    points: int = 0
    sent: int = 0
    acked: int = 0
    stored: int = 0
    lost: int = 0
    surplus: int = 0
    wrong: int = 0
    alerts: int = 0
    compactions: int = 0
    hour_files: int = 0
    conservation_gap: int = 0
    not_ready: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Nothing grew and nothing is lost."""
        counted = self.lost == self.surplus == self.wrong == self.conservation_gap == 0
        return counted and not self.faults and all(v.flat for v in self.verdicts)


class WeekRig(Rig):
    """A rig whose points speak once a minute."""

    def _registry(self) -> Path:
        made = self.folder / "points.parquet"
        table = bench_registry(CITY_DIR, self.case.points, 0)
        write(table.with_columns(expected_interval_s=pl.lit(60.0)), made)
        return made


def week(days: float, seconds: float, points: int, folder: Path) -> Soak:
    """The compressed form. Raises CannotMeasure, ChildDiedError, OSError."""
    case = Case("soak-week", "", points=points, seal_s=5, compact=False)
    more = f"grace_s = {WEEK_GRACE_S}\n[snapshot]\nevery_s = 10\n"
    soak = Soak(f"{days:g} days in {seconds / 60:.0f} minutes", points=points, days=days)
    with WeekRig(case, folder / "case", folder, ("--clock", "events"), more) as rig:
        whole = load_fleet(rig.points_file)
        fleet = whole.take(np.array([r for r, p in enumerate(whole.point_id) if p != CLOCK], np.intp))
        publisher = Week((rig.host, rig.port), fleet, CITY_DIR, BEGIN_MS, seed=1)
        watch = _watch(rig, seconds)
        begun = time.monotonic()
        publisher.run(days, seconds, lambda day, acked: _say(f"day {day:.2f}, {acked:,} acknowledged"))
        settle(rig, publisher.sent)
        soak.seconds = round(time.monotonic() - begun, 1)
        _finish(soak, rig, watch.end())
        soak.sent, soak.acked = publisher.sent, publisher.acked
        _say("counting every reading in DuckDB ...")
        found = _seen(lambda: count_lake(rig.data, publisher.expected(), CLOCK))
        soak.stored, soak.lost, soak.surplus, soak.wrong = (
            found.stored,
            found.lost,
            found.surplus,
            found.wrong,
        )
    shutil.rmtree(folder / "case", ignore_errors=True)
    return soak


def real(seconds: float, rate: float, points: int, folder: Path) -> Soak:
    """The form on the wall clock: one reading a message, QoS 1. Raises CannotMeasure, ChildDiedError, OSError."""
    case = Case(
        "soak-real", "", points=points, rate=rate, seconds=seconds, qos=1, batch=1, pulses=PULSES,
        connections=max(1, points // 100), compact=False,
    )  # fmt: skip
    soak = Soak(f"{seconds:g} s at {rate:,.0f} readings/s", points=points, days=seconds / 86_400)
    result = Result(case.name, "", {})
    with Rig(case, folder / "case", folder, (), f"grace_s = {REAL_GRACE_S}\n") as rig:
        load, pulse = rig.load(), rig.pulse()
        for child in (load, pulse):
            child.until_ready(CHILD_S_MAX)
        watch = _watch(rig, seconds)
        begun = told = time.monotonic()
        pulse.tell("go")
        load.tell("go")

        def news(_: object) -> None:
            nonlocal told
            if time.monotonic() - told > 10:
                told = time.monotonic()
                _say(f"{told - begun:.0f} s, {load.latest.get('sent', 0):,} sent{_looked(watch.samples)}")

        listen([load], lambda: load.report is not None, seconds + CHILD_S_MAX, news)
        assert load.report is not None
        felt = pulse.finish(CHILD_S_MAX)
        soak.faults += load.report["faults"] + felt["faults"]
        soak.sent = result.sent = load.report["sent"] + felt["sent"]
        settle(rig, soak.sent)
        soak.seconds = round(time.monotonic() - begun, 1)
        _finish(soak, rig, watch.end())
        soak.acked = int(load.report["acked"]) + felt["acked"]
        _say("counting every reading in DuckDB ...")

        def count() -> Result:
            result.stored = 0
            _count(rig, [result])
            return result

        _seen(count)
        soak.stored, soak.lost, soak.surplus, soak.wrong = (
            result.stored, result.lost, result.surplus, result.wrong,
        )  # fmt: skip
    shutil.rmtree(folder / "case", ignore_errors=True)
    return soak


def _seen(count: Callable[[], Counted]) -> Counted:
    """Count until nothing is missing, or for SEEN_S_MAX."""
    end = time.monotonic() + SEEN_S_MAX
    while (found := count()).lost and time.monotonic() < end:
        time.sleep(1.0)
    return found


def _watch(rig: Rig, seconds: float) -> Watch:
    watch = Watch(rig.engine, rig.data, max(LOOK_S_MIN, seconds / LOOKS))
    watch.start()
    return watch


def _looked(samples: list[Sample]) -> str:
    """The newest look, for a line of progress."""
    if not samples:
        return ""
    now = samples[-1]
    return f", {now.memory_mb:,.0f} MB, {now.descriptors:,} descriptors, {now.threads} threads"


def _finish(soak: Soak, rig: Rig, samples: list[Sample]) -> None:
    """The engine's own account, and the verdict."""
    now = rig.vitals()
    soak.at = datetime.now(UTC).isoformat(timespec="seconds")
    on = machine()
    soak.machine = f"{on['cores']} cores of {on['cpu']}"
    soak.alerts, soak.compactions = now["alerts_fired"], now["compactions"]
    soak.conservation_gap, soak.not_ready = now["conservation_gap"], now["not_ready"]
    soak.hour_files = samples[-1].hour_files if samples else 0
    if soak.not_ready:
        soak.faults.append(f"not ready at the end: {'; '.join(soak.not_ready)}")
    soak.verdicts = verdicts(samples)


def _say(text: str) -> None:
    click.echo(f"  {text}", err=True)


def table(soak: dict[str, Any]) -> str:
    """What stands in the docs of one run, from its JSON."""
    head = (
        f"{soak['at'][:16].replace('T', ' ')} UTC, {soak['machine']}: {soak['form']}, {soak['points']:,} points; "
        f"{soak['sent']:,} readings sent, {soak['acked']:,} acknowledged, {soak['stored']:,} stored, "
        f"**{soak['lost']:,} lost**, {soak['surplus']:,} doubled, {soak['wrong']:,} points wrong; "
        f"{soak['alerts']:,} alerts, "
        f"{soak['compactions']:,} compactions, {soak['hour_files']:,} files that stay. "
        f"Took {soak['seconds']:,.0f} s."
    )
    rows = [
        (NAMES[one["what"]], f"{one['early']:,.0f}", f"{one['late']:,.0f}", f"{one['largest']:,.0f}",
         "flat" if one["flat"] else "**GROWS**")
        for one in soak["verdicts"]
    ]  # fmt: skip
    columns = ("what", "first third after the warm-up, median", "last third, median", "largest", "verdict")
    parts = [head, grid(columns, rows)]
    if soak["faults"]:
        parts.append("Faults: " + "; ".join(soak["faults"]))
    return "\n\n".join(parts)


def publish(soak: dict[str, Any], mark: str, docs: Path = DOCS) -> None:
    """Put a run's table between its marks. Raises ValueError where they are missing."""
    text = docs.read_text("utf-8")
    begin, end = f"<!-- soak-{mark}: begin -->", f"<!-- soak-{mark}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"{docs.name} has no marks for {mark}")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    docs.write_text(pattern.sub(lambda _: f"{begin}\n{table(soak)}\n{end}", text), encoding="utf-8")


@click.command(help=__doc__)
@click.option("--real", "real_s", type=float, help="Seconds on the wall clock at --rate, instead of days.")
@click.option(
    "--rate", type=float, help="Readings a second with --real; a reading a second a point if left out."
)
@click.option("--points", type=int, help="Of the city; 116200 with --real, else 2000.")
@click.option("--days", type=float, default=7.0, show_default=True, help="Of the compressed form.")
@click.option("--minutes", type=float, default=20.0, show_default=True, help="Those days take so long.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=SCRATCH / "soak", help="Scratch folder."
)
@click.option("--docs", is_flag=True, help="Write the figures to bench/results and docs/soak.md.")
@click.option("--json", "as_json", is_flag=True, help="The result as one line of JSON on standard output.")
def main(
    real_s: float | None, rate: float | None, points: int | None, days: float, minutes: float, folder: Path,
    docs: bool, as_json: bool,
) -> None:  # fmt: skip
    """See the module's words."""
    end_in_order()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if real_s is not None:
            points = points or CITY_POINTS
            soak = real(real_s, rate or float(points), points, folder)
        else:
            soak = week(days, minutes * 60, points or 2_000, folder)
    except (CannotMeasure, ChildDiedError, ValueError) as fault:
        raise click.ClickException(str(fault)) from None
    said = asdict(soak)
    click.echo(table(said), err=True)
    if docs:
        mark = "real" if real_s is not None else "week"
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"soak-{mark}.json").write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n")
        publish(said, mark)
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False))
    click.echo("flat, and nothing lost" if soak.passed else "NOT as it should be", err=True)
    sys.exit(0 if soak.passed else 1)


if __name__ == "__main__":
    main()
