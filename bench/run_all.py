"""scripts/bench: every end-to-end case, the baselines beside them, the generator alone and the kernels; in one run.

Progress goes to standard error, ending with a table; the last line of standard output is one JSON object with the
headline figures. A full run takes the better part of an hour, writes bench/results/*.json and fills the tables and
plots of bench/README.md; --quick takes less than 50 s on small sets and changes no table. Measure on a machine that
does nothing else: what others used meanwhile is noted with each figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from bench import markdown, tables
from bench.case import CASES, Case, CaseFault, all_cases
from bench.end_to_end import SCRATCH, measure, measure_together, summary
from bench.generator_alone import measure_generator
from bench.peers import CLIENTS, measure_peer
from bench.rig import CannotMeasure, end_in_order, mosquitto
from bench.storage_figures import RESULTS, machine
from ingest.simulate.child import ChildDiedError

QUICK_S: Final = 50.0
QUICK_LAST_S: Final = 34.0
"""A quick run begins nothing new after this long."""
PEER_S: Final = (10.0, 1.5)
GENERATOR_S: Final = (5.0, 1.0)
TABLE_CHARS: Final = 130
"""Width of the table where nobody says how wide the terminal is."""


class Run:
    """One run: what is measured goes to ``results`` by name, and to bench/results unless it is quick."""

    def __init__(self, quick: bool, folder: Path) -> None:
        self.quick = quick
        self.folder = folder
        self.began = time.monotonic()
        self.results: dict[str, Any] = {}
        self.skipped: list[str] = []
        self.failed: list[str] = []

    @property
    def elapsed_s(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        """To people."""
        click.echo(text, err=True)

    def step(self, name: str, what: Callable[[], Any]) -> None:
        """Measure one thing; a fault is said and the others go on."""
        if self.quick and self.elapsed_s > QUICK_LAST_S:
            self.skipped.append(name)
            self.say(f"{name}: skipped, a quick run ends within {QUICK_S:g} s")
            return
        self.say(f"[{self.elapsed_s:5.0f} s] {name}")
        try:
            measured = what()
        except (CannotMeasure, ChildDiedError, OSError) as fault:
            self.failed.append(name)
            self.say(f"  FAILED: {fault}")
            return
        self.results[name] = measured
        if not self.quick:
            self._save(name, measured)

    def _save(self, name: str, measured: Any) -> None:
        RESULTS.mkdir(exist_ok=True)
        kept = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "result": measured,
        }
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _case(run: Run, case: Case) -> dict[str, Any]:
    result = measure(case, run.folder / "case", run.folder, run.say)
    run.say("  " + summary(result))
    return asdict(result)


def _together(run: Run, cases: list[Case]) -> None:
    """Cases of a quick run that can share an engine do: starting one takes as long as measuring."""
    say = run.say
    say(f"[{run.elapsed_s:5.0f} s] {', '.join(case.name for case in cases)}, on one engine")
    for result in measure_together(cases, run.folder / "case", run.folder, say):
        say(f"  {result.name}: {summary(result)}")
        run.results[result.name] = asdict(result)


def _peer(run: Run, name: str, seconds: float) -> dict[str, Any]:
    found = asdict(measure_peer(name, seconds, run.folder / "peer", run.folder))
    run.say(
        f"  {found['cpu_us']:.1f} µs of CPU a message, {found['received']:,} of {found['sent']:,} arrived"
    )
    return found


def _generator(run: Run, seconds: float) -> dict[str, Any]:
    found = measure_generator(seconds, run.folder, quick=run.quick)
    for one in found["runs"]:
        run.say(f"  {one['what']}: {one['messages_per_cpu_s'] / 1e6:.1f} million messages a CPU second")
    return found


def _kernels(run: Run) -> dict[str, Any]:
    """pytest-benchmark over bench/, its medians by name. Raises CannotMeasure."""
    out = run.folder / "kernels.json"
    command = [
        sys.executable, "-m", "pytest", "bench", "-q", "-x", "--benchmark-only", "--benchmark-disable-gc",
        f"--benchmark-json={out}", "-p", "no:cacheprovider",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=CASES.parent.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(f"pytest bench ended with {done.returncode}:\n{done.stdout[-1500:]}")
    found = json.loads(out.read_text())["benchmarks"]
    return {
        "benchmarks": [
            {
                "name": one["name"],
                "file": one["fullname"].partition("::")[0],
                "median_s": one["stats"]["median"],
                "min_s": one["stats"]["min"],
                "rounds": one["stats"]["rounds"],
                "extra": one["extra_info"],
            }
            for one in found
        ]
    }


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Small sets, less than 50 s in all, no table is changed.")
@click.option(
    "--only",
    default="",
    help="Comma-separated names: cases, generator, peers, kernels, or the beginning of case names.",
)
@click.option(
    "--tables", "only_tables", is_flag=True, help="Measure nothing; make tables and plots from bench/results."
)
@click.option("--list", "only_list", is_flag=True, help="Name the cases.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=SCRATCH, help="Scratch folder.")
def main(quick: bool, only: str, only_tables: bool, only_list: bool, folder: Path) -> None:
    """Measure, save, fill tables, print the headline; exit 1 where a reading was lost or a part failed."""
    try:
        cases = all_cases()
    except CaseFault as fault:
        raise click.ClickException(str(fault)) from None
    if only_list:
        for case in cases:
            click.echo(f"{case.name:<28} {case.title}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    end_in_order()
    run = Run(quick, folder)
    if not only_tables:
        _measure_all(run, cases, [word for word in only.split(",") if word])
    results = run.results if quick else tables.load_results()
    if not quick:
        markdown.publish(results)
    else:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "end-to-end-quick.json").write_text(
            json.dumps(results, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    Console(stderr=True, width=None if sys.stderr.isatty() else TABLE_CHARS).print(tables.for_people(results))
    headline = tables.headline(results) | {
        "quick": quick, "seconds": round(run.elapsed_s, 1), "skipped": run.skipped, "failed": run.failed,
    }  # fmt: skip
    _warn(run, results)
    click.echo(json.dumps(headline, ensure_ascii=False))
    if run.failed or headline["lost"]:
        sys.exit(1)


def _measure_all(run: Run, cases: list[Case], only: list[str]) -> None:
    def wanted(part: str, name: str = "") -> bool:
        return not only or part in only or any(name.startswith(word) for word in only if name)

    broker = mosquitto() is not None
    if not broker:
        run.say("mosquitto is not installed: cases through it and the baselines are left out")
    long = not run.quick
    if run.quick:
        _quick(run, [c.quick() for c in cases if wanted("cases", c.name) and c.quick_seconds])
    for case in cases if long else ():
        if not wanted("cases", case.name):
            continue
        if case.through == "mosquitto" and not broker:
            run.skipped.append(case.name)
            continue
        run.step(case.name, lambda case=case: _case(run, case))
    for name in CLIENTS if broker else ():
        if wanted("peers", f"peer-{name}"):
            run.step(f"peer-{name}", lambda name=name: _peer(run, name, PEER_S[run.quick]))
    if wanted("generator"):
        run.step("generator", lambda: _generator(run, GENERATOR_S[run.quick]))
    if wanted("kernels") and long:
        run.step("kernels", lambda: _kernels(run))


def _quick(run: Run, cases: list[Case]) -> None:
    """Those through the listener on one engine, then those through mosquitto."""
    for through in ("listener", "mosquitto"):
        some = [case for case in cases if case.through == through]
        if not some or (through == "mosquitto" and mosquitto() is None):
            run.skipped += [case.name for case in some]
        elif run.elapsed_s > QUICK_LAST_S:
            run.skipped += [case.name for case in some]
            run.say(f"{through}: skipped, a quick run ends within {QUICK_S:g} s")
        else:
            try:
                _together(run, [*(replace(case, compact=False) for case in some[:-1]), some[-1]])
            except (CannotMeasure, ChildDiedError, OSError) as fault:
                run.failed += [case.name for case in some]
                run.say(f"  FAILED: {fault}")


def _warn(run: Run, results: dict[str, Any]) -> None:
    loud = [name for name, one in results.items() if isinstance(one, dict) and one.get("quiet") is False]
    if loud:
        run.say(f"WARNING: other work used this machine during {', '.join(loud)}: these figures are too bad")


if __name__ == "__main__":
    main()
