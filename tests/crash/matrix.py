"""The fault matrix F0-F18: what is run, how often, side by side; progress, results as JSON, and the table.

Owns the list of faults and how they are run. `python -m tests.crash.matrix --help`; scripts/faults calls it, and so
does tests/crash/test_fault_matrix.py. Each fault runs in a process of its own: a fault may unshare its network.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import platform
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ingest.family import PR_SET_PDEATHSIG
from tests.engines import ROOT
from tests.faults_trial import Faults, Impossible, Result

DOCS = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
COLUMNS = ("acked", "lost", "invented", "duplicated", "wrong", "alerts", "alerts_lost", "alerts_duplicated")


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: where its function is, what its count counts, and how much is done in each kind of run.

    every, long  count of the run in scripts/test, and of the long run
    before       words before its process, such as a network of its own
    """

    name: str
    title: str
    where: str
    unit: str
    every: int
    long: int
    before: tuple[str, ...] = ()

    def call(self, faults: Faults) -> None:
        """Run it."""
        module, _, function = self.where.partition(":")
        body: Callable[[Faults], None] = getattr(importlib.import_module(f"tests.crash.{module}"), function)
        body(faults)


OWN_NETWORK = ("unshare", "--net")
OWN_NAMES = ("unshare", "--net", "--mount")

# fmt: off
FAULTS: tuple[Fault, ...] = (
    Fault("F0", "sabotage on purpose: each is caught", "sabotage:sabotages", "sabotages", 4, 7),
    Fault("F1", "soak at 11,620/s", "soak:soak", "seconds", 45, 180),
    Fault("F2", "kill -9 at random under load", "kills:random_kills", "kills", 10, 100),
    Fault("F2b", "kill -9 behind mosquitto and NATS", "kills:broker_kills", "kills", 2, 10),
    Fault("F3", "kill at syncs, renames, commits, acks, compaction, outbox", "kills:step_kills", "kills", 20, 100),
    Fault("F3b", "no PUBACK before its fdatasync (strace)", "kills:ack_order", "acks", 40, 400),
    Fault("F4", "kill between commit and ack", "kills:kills_before_ack", "kills", 4, 20),
    Fault("F5 ext4", "power cut on ext4", "cuts:ext4_cuts", "cuts", 5, 50),
    Fault("F5 xfs", "power cut on XFS", "cuts:xfs_cuts", "cuts", 2, 20),
    Fault("F6", "fsync fails, no room, disk full then freed, file size limit", "disks:failing_disks", "trials", 4, 12),
    Fault("F7", "broker ends, broker killed", "networks:broker_ends", "ends", 2, 10),
    Fault("F8", "network down, broker hangs, slow link", "networks:links_fail", "times", 1, 3, OWN_NETWORK),
    Fault("F9", "disk stalls with a backlog of 500,000", "disks:stalls", "stalls", 1, 3),
    Fault("F10", "clock -1 h, +1 h, 1970, 2100; running and at a start", "clocks:jumping_clocks", "clocks", 4, 4),
    Fault("F11", "webhooks that refuse, fail, stall, flood, redirect; killed mid-send", "webhooks:misbehaving_targets",
          "notifications", 1, 5),
    Fault("F12", "poison among good traffic", "poison:poisoned", "messages", 1_000, 50_000),
    Fault("F13", "rogue broker", "poison:rogue_broker", "packets", 500, 3_000),
    Fault("F14", "names that want to be paths, unknown points", "hostile:paths_and_floods", "messages",
          100_000, 1_000_000),
    Fault("F15", "SQL attacks at the door and in the API", "hostile:sql_attacks", "attacks", 1, 1),
    Fault("F16", "addresses no webhook may reach, rebinding names", "hostile_addresses:addresses", "calls", 1, 1,
          OWN_NAMES),
    Fault("F17", "spoofed ids; wrong, expired, missing certificates", "hostile_identities:identities",
          "attempts", 1, 1),
    Fault("F18", "flipped bits", "hostile:bit_flips", "flips", 150, 2_000),
)
# fmt: on
LONGEST_FIRST = ("F3", "F2", "F0", "F13", "F5 ext4", "F1", "F6", "F10", "F2b", "F5 xfs")
"""So that no lane stands idle at the end; the others follow in order."""


def matching(names: Iterable[str]) -> list[Fault]:
    """The faults of these names; "F5" means both of its rows. All where no name is given."""
    wanted = [name.upper() for name in names]
    found = [f for f in FAULTS if not wanted or any(_is(f, name) for name in wanted)]
    unknown = [name for name in wanted if not any(_is(f, name) for f in FAULTS)]
    if unknown:
        raise SystemExit(
            f"no such fault: {', '.join(unknown)}; there are {', '.join(f.name for f in FAULTS)}"
        )
    return found


def _is(fault: Fault, name: str) -> bool:
    return name in (fault.name.upper(), fault.name.split()[0].rstrip("b").upper())


def run_here(fault: Fault, count: int, seed: int) -> Result:
    """Run one fault in this process."""
    result = Result(fault.name, fault.title, unit=fault.unit, seed=seed)
    begun = time.monotonic()
    faults = Faults(result, count)
    faults.say(f"seed {seed}, {count} {fault.unit}")
    try:
        fault.call(faults)
    except Impossible as why:
        result.skipped = str(why)
    except Exception as failure:  # told with the result; other faults go on
        result.failures.append(f"{type(failure).__name__}: {str(failure)[-2000:]}")
        traceback.print_exc()
    finally:
        faults.close()
    result.seconds = round(time.monotonic() - begun, 1)
    return result


def end_with_parent() -> None:
    """A run that is ended ends this one too, and what it mounted and started: SIGTERM is an orderly exit here."""

    def leave(*_: object) -> None:
        sys.exit(1)

    signal.signal(signal.SIGTERM, leave)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_apart(fault: Fault, count: int, seed: int) -> Result:
    """Run one fault in a process of its own; its progress goes to standard error."""
    before = list(fault.before)
    if before and subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        why = f"`{' '.join(before)}` is not allowed here"
        return Result(fault.name, fault.title, unit=fault.unit, seed=seed, skipped=why)
    order = [*before, sys.executable, "-m", "tests.crash.matrix", "--one", fault.name, "--count", str(count),
             "--seed", str(seed)]  # fmt: skip
    begun = time.monotonic()
    done = subprocess.run(
        order, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        return Result.from_json(done.stdout.splitlines()[-1])
    except (IndexError, ValueError, KeyError, TypeError):
        result = Result(fault.name, fault.title, unit=fault.unit, seed=seed)
        result.failures.append(f"its process ended with code {done.returncode}: {done.stdout[-500:]}")
        result.seconds = round(time.monotonic() - begun, 1)
        return result


def run_all(
    chosen: Sequence[tuple[Fault, int]],
    seed: int,
    lanes: int,
    done: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Run faults side by side; ``done`` is called with each result as it comes. The results in the order given."""
    rng = random.Random(seed)
    seeds = {fault.name: rng.randrange(1 << 30) for fault in FAULTS}
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}

    def one(fault: Fault, count: int) -> Result:
        result = run_apart(fault, count, seeds[fault.name])
        done(result)
        return result

    with ThreadPoolExecutor(lanes) as pool:
        begun = {
            fault.name: pool.submit(one, fault, count)
            for fault, count in sorted(chosen, key=lambda pair: ranks.get(pair[0].name, len(ranks)))
        }
        return [begun[fault.name].result() for fault, _ in chosen]


def words(result: Result) -> str:
    """One line for people."""
    if result.skipped:
        return f"SKIPPED {result.fault}: {result.skipped}"
    verdict = "ok    " if result.passed else "FAILED"
    return (
        f"{verdict} {result.fault}: {result.trials} {result.unit} in {result.seconds:.0f} s, seed {result.seed}; "
        f"{result.findings} {'; '.join([*result.failures, *result.notes])}"
    )


def table(results: Sequence[Result]) -> str:
    """The rows for the docs."""
    head = (
        "| # | fault | done | acknowledged | lost | invented | doubled | wrong | alerts | lost | doubled | s | seed |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    rows = []
    for r in results:
        f = r.findings
        what = f"{r.title}; skipped: {r.skipped}" if r.skipped else r.title
        numbers = [getattr(f, name) for name in COLUMNS]
        done = f"{r.trials:,} {r.unit}{'' if r.passed or r.skipped else ' **FAILED**'}"
        cells = (r.fault, what, done, *(f"{n:,}" for n in numbers), f"{r.seconds:.0f}", str(r.seed))
        rows.append(f"| {' | '.join(cells)} |")
    total = [sum(getattr(r.findings, name) for r in results) for name in COLUMNS]
    rows.append(f"| | **together** | | {' | '.join(f'**{n:,}**' for n in total)} | | |")
    return "\n".join([head, *rows])


def machine() -> str:
    """What this ran on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}"


def write_docs(results: Sequence[Result], seed: int, how: str, seconds: float) -> None:
    """Put the table between the marks of docs/faults.md."""
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    facts = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Yuzui {version('yuzui')}, Python {platform.python_version()}, "
        f"{machine()}. `{how}`, seed {seed}, {seconds / 60:.0f} minutes."
    )
    notes = "".join(f"\n- {r.fault}: {'; '.join(r.notes)}" for r in results if r.notes)
    text = f"{facts}\n\n{table(results)}\n{notes}"
    DOCS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def counts(options: argparse.Namespace) -> list[tuple[Fault, int]]:
    """What is run and how often."""
    chosen = []
    for fault in matching(options.faults):
        count = fault.long if options.long else fault.every
        if fault.name == "F2" and options.kills is not None:
            count = options.kills
        if fault.name == "F5 ext4" and options.cuts_ext4 is not None:
            count = options.cuts_ext4
        if fault.name == "F5 xfs" and options.cuts_xfs is not None:
            count = options.cuts_xfs
        chosen.append((fault, count if options.count is None else options.count))
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 1 where a fault failed."""
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description="The fault matrix; see docs/faults.md."
    )
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="F0, F2, … (default: all)")
    parser.add_argument(
        "--long", action="store_true", help="the long column; rewrites the table in docs/faults.md"
    )
    parser.add_argument("--docs", action="store_true", help="rewrite the table after a short run too")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=None, help="of F2")
    parser.add_argument("--cuts-ext4", type=int, default=None)
    parser.add_argument("--cuts-xfs", type=int, default=None)
    parser.add_argument("--lanes", type=int, default=3, help="faults side by side")
    parser.add_argument("--json", type=Path, default=None, help="one result a line, as they come")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=None, help="of every fault named")
    options = parser.parse_args(arguments)
    if options.one:
        fault = next(f for f in FAULTS if f.name == options.one)
        end_with_parent()
        print(run_here(fault, options.count, options.seed).to_json(), flush=True)
        os._exit(0)  # gateways and watchers of a fault that failed may still run
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    begun = time.monotonic()

    def done(result: Result) -> None:
        print(words(result), file=sys.stderr, flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(result.to_json() + "\n")

    results = run_all(counts(options), seed, options.lanes, done)
    seconds = time.monotonic() - begun
    print(table(results))
    if (options.long or options.docs) and not options.faults:
        write_docs(results, seed, "scripts/faults --long" if options.long else "scripts/faults", seconds)
    failed = [r for r in results if not r.passed and not r.skipped]
    print(f"{len(results)} faults in {seconds:.0f} s, {len(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
