"""One case from end to end: load in, everything on, every reading counted at the end.

Caveats first. Everything shares the machine's cores: load, instruments, broker and receiver too; what each used is
said apart. CPU is what the kernel charged to the engine's process and all it started (sealer, delivery), from the
first reading until the last is judged, and of the sealer until the load's own hour is compacted. Readings a second
count until the last reading is judged, not until it is taken. ``python -m bench.end_to_end CASE…`` runs cases alone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from anomaly.checks import all_checks
from anomaly.rules import row_rules
from bench.case import CASES, Case, all_cases, load_cases
from bench.family import Family, machine_busy_s
from bench.lake_count import count_lake, expected, numbers_of
from bench.load.generator import connect_packet
from bench.load.pulse import payload
from bench.load.registry import CLOCK, PULSE
from bench.load.streams import publish_head
from bench.rig import CHILD_S_MAX, CannotMeasure, Rig, end_in_order
from ingest.simulate.child import Child, listen
from ingest.simulate.encode import MQTT_311
from ingest.simulate.fleet import load_fleet
from ingest.simulate.publisher import DISCONNECT

SCRATCH: Final = Path(__file__).resolve().parent.parent / "data" / "bench"
STILL_S: Final = 5.0
"""Nothing more came in for this long: what is missing is missing."""
SETTLE_S_MAX: Final = 180.0
COMPACT_S_MAX: Final = 240.0
LOOK_S: Final = 0.05
HOUR_MS: Final = 3_600_000
OTHERS_MAX: Final = 0.2
"""Cores. Beyond it the machine was not quiet, and figures say so."""
LATENESS_S: Final = 600.0
"""The engine's default: an hour is over this long after its end."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Result:
    """Figures of one case. CPU is µs a reading; latencies are seconds; None where it was not measured.

    accepted_per_s   readings a second until the last was taken in; readings_per_s until the last was judged
    cpu_us           engine with all its processes, compaction included; by_process: the same, apart
    instructions     executed for a reading, without compaction: the figure that neighbours hardly change
    lost             sent and not in the lake; surplus: in the lake and not sent; wrong: points with other values
    peak_mb          sum of the proportional set sizes at its largest; peak_rss_mb: the sum of resident sizes
    others_cores     cores that processes which are none of ours used meanwhile; quiet: fewer than OTHERS_MAX
    """

    name: str
    title: str
    options: dict[str, Any]
    sent: int = 0
    stored: int = 0
    lost: int = 0
    surplus: int = 0
    wrong: int = 0
    seconds: float = 0.0
    accepted_per_s: float = 0.0
    readings_per_s: float = 0.0
    cpu_us: float = 0.0
    cpu_cores: float = 0.0
    cpu_us_by_process: dict[str, float] = field(default_factory=dict)
    compact_us: float | None = None
    instructions: float | None = None
    compacted_rows: int = 0
    generator_cpu_us: float = 0.0
    generator_busy_share: float = 0.0
    broker_cpu_us: float | None = None
    instruments_cpu_s: float = 0.0
    peak_mb: float = 0.0
    peak_mb_by_process: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0
    journal_p50_s: float | None = None
    journal_p99_s: float | None = None
    query_p50_s: float | None = None
    query_p99_s: float | None = None
    webhook_p50_s: float | None = None
    webhook_p99_s: float | None = None
    bulk_ack_p99_s: float | None = None
    alerts_raised: int = 0
    webhooks: int = 0
    start_s: float = 0.0
    at: str = ""
    load_before: float = 0.0
    others_cores: float = 0.0
    quiet: bool = True
    window: tuple[float, float] = (0.0, 0.0)
    checks: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def checks_on() -> tuple[list[str], list[str]]:
    """Names of the checks (score among them) and of the row rules: all are always on."""
    return sorted({check.name for check in all_checks()} | {"score"}), sorted(r.name for r in row_rules())


def measure(case: Case, folder: Path, cache: Path, say: Say = print, profile: Path | None = None) -> Result:
    """Run one case; ``profile``: py-spy's stacks of the engine's process during the load go there.

    Raises CannotMeasure, ChildDiedError, OSError.
    """
    return measure_together([case], folder, cache, say, profile)[0]


def measure_together(
    cases: list[Case], folder: Path, cache: Path, say: Say = print, profile: Path | None = None
) -> list[Result]:
    """Run cases one after the other on one engine, made for the first; only the last may end the hour.

    Readings are counted over all of them: where some are lost, the last says so. Raises as ``measure``.
    """
    results = []
    with Rig(cases[0], folder, cache) as rig:
        for case in cases:
            rig.case = case
            result = Result(case.name, case.title, asdict(case), load_before=round(os.getloadavg()[0], 2))
            result.at = datetime.now(UTC).isoformat(timespec="seconds")
            result.checks, result.rules = checks_on()
            result.start_s = round(rig.warm_s, 2)
            results.append(result)
            if case.past_hour_s:
                _send_past(rig, say)
            began = time.time()
            _measure(rig, result, say, profile)
            result.window = (began, time.time())
        _until_told(rig)
    for result in results[:-1]:
        result.compact_us = results[-1].compact_us
        result.cpu_us = round(result.cpu_us + (result.compact_us or 0.0), 4)
    say("  counting every reading in DuckDB ...")
    _count(rig, results)
    for case, result in zip(cases, results, strict=True):
        _webhooks(rig, result)
        _judge_targets(case, result)
    shutil.rmtree(folder, ignore_errors=True)
    return results


def _send_past(rig: Rig, say: Say) -> None:
    past = rig.load(past=True)
    past.until_ready(CHILD_S_MAX)
    before = rig.vitals()["received"]
    past.tell("go")
    listen([past], lambda: past.report is not None, CHILD_S_MAX * 2)
    assert past.report is not None
    say(f"  {past.report['sent']:,} readings of the hour before are in")
    settle(rig, before + past.report["sent"])


def _measure(rig: Rig, result: Result, say: Say, profile: Path | None) -> None:
    case = rig.case
    numbers = numbers_of(rig.data, PULSE) if rig.broker else []
    load, pulse, queries = rig.load(), rig.pulse(), rig.query_watch()
    journal = rig.journal_watch(numbers) if rig.broker else None
    for child in (pulse, queries, load, *([journal] if journal else [])):
        child.until_ready(CHILD_S_MAX)
    before = rig.vitals()
    members = {m.pid: m for m in rig.engine.members()}
    broker_cpu = rig.broker.cpu_s() if rig.broker else 0.0
    if profile is not None:
        rig.profile(profile, case.seconds)
    ours, executed = Family(os.getpid()), rig.count_instructions()
    others_s = machine_busy_s() - ours.cpu_s()
    pulse.tell("go")
    load.tell("go")
    begun = time.time()

    def watch(_: Child) -> None:
        rig.engine.sample()

    listen([load], lambda: load.report is not None, case.seconds + CHILD_S_MAX, watch)
    assert load.report is not None
    felt = pulse.finish(CHILD_S_MAX)
    sent = load.report["sent"] + felt["sent"]
    taken_at, judged_at = settle(rig, before["received"] + sent)
    others_s = machine_busy_s() - ours.cpu_s() - others_s
    result.others_cores = round(max(0.0, others_s / (time.time() - begun)), 2)
    result.quiet = result.others_cores < OTHERS_MAX
    rig.engine.sample()
    after = {m.pid: m for m in rig.engine.members()}
    executed_n = executed()
    result.instructions = None if executed_n is None else round(executed_n / sent)
    result.sent = sent
    result.accepted_per_s = round(sent / max(1e-9, taken_at - begun))
    result.readings_per_s = round(sent / max(1e-9, judged_at - begun))
    result.seconds = round(judged_at - begun, 2)
    used = {pid: m.cpu_s - (members[pid].cpu_s if pid in members else 0.0) for pid, m in after.items()}
    if rig.broker:
        result.broker_cpu_us = round((rig.broker.cpu_s() - broker_cpu) / sent * 1e6, 3)
    compacted_s = _compact(rig, result, after, say) if case.compact else 0.0
    by_name: dict[str, float] = {}
    for pid, seconds in used.items():
        by_name[after[pid].name] = by_name.get(after[pid].name, 0.0) + seconds
    result.cpu_us_by_process = {name: round(s / sent * 1e6, 4) for name, s in by_name.items()}
    total_s = sum(used.values()) + compacted_s
    result.cpu_us = round(total_s / sent * 1e6, 4)
    result.cpu_cores = round(total_s / result.seconds, 4)
    result.peak_mb, result.peak_rss_mb = round(rig.engine.peak_pss_mb, 1), round(rig.engine.peak_rss_mb, 1)
    result.peak_mb_by_process = rig.engine.at_peak
    _felt(rig, result, load.report, felt, queries, journal)


def settle(rig: Rig, received: int) -> tuple[float, float]:
    """Wait until so many readings are in and judged: when the last was taken in, and when judged."""
    end = time.monotonic() + SETTLE_S_MAX
    seen, moved = -1, time.monotonic()
    taken_at = seq = 0.0
    while time.monotonic() < end:
        vitals = rig.vitals()
        now = time.time()
        if vitals["received"] != seen:
            seen, moved, taken_at, seq = vitals["received"], time.monotonic(), now, vitals["journal_seq"]
        here = seen >= received or time.monotonic() - moved > STILL_S
        if here and vitals["judged_seq"] >= seq and not vitals["journal_pending_bytes"]:
            return taken_at, (now if seen >= received else taken_at)
        time.sleep(LOOK_S)
    raise CannotMeasure(
        f"not judged {SETTLE_S_MAX:g} s after the load: {seen:,} of {received:,} readings came in"
    )


def _compact(rig: Rig, result: Result, settled: dict[int, Any], say: Say) -> float:
    """End the hour, wait for its compaction; CPU seconds of the sealer for it."""
    say("  waiting for the load's hour to be sealed and compacted ...")
    before = rig.vitals()
    _end_the_hour(rig)
    end = time.monotonic() + rig.case.seal_s * 2 + COMPACT_S_MAX
    done = before["compacted_rows"]
    goal = 0.95 * result.sent
    vitals = before
    while time.monotonic() < end:
        vitals = rig.vitals()
        if vitals["compacted_rows"] - done >= goal or vitals["compact_fault"]:
            break
        time.sleep(0.2)
    else:
        result.faults.append(f"not compacted within {COMPACT_S_MAX:g} s")
    if vitals["compact_fault"]:
        result.faults.append(f"compaction: {vitals['compact_fault']}")
    time.sleep(0.5)
    rig.engine.sample()
    spent = sum(
        m.cpu_s - (settled[m.pid].cpu_s if m.pid in settled else 0.0)
        for m in rig.engine.members()
        if m.name == "sealing"
    )
    result.compacted_rows = rig.vitals()["compacted_rows"] - done
    # On a shared engine the rows of the cases before are among them.
    each_s = spent / max(1, result.compacted_rows)
    result.compact_us = round(each_s * 1e6, 4)
    return each_s * result.sent


def _end_the_hour(rig: Rig) -> None:
    """One reading of the clock's own source, so far ahead that the present hour is over."""
    ms = (time.time_ns() // 1_000_000 // HOUR_MS + 1) * HOUR_MS + round((LATENESS_S + 5) * 1e3)
    body = payload(ms, 1.0)
    head, id_at = publish_head(f"cd/clock/{CLOCK}", len(body), 1, MQTT_311)
    with socket.create_connection((rig.host, rig.port), CHILD_S_MAX) as sock:
        sock.sendall(connect_packet("clock", MQTT_311))
        sock.recv(4)
        sock.sendall(head[:id_at] + b"\0\1" + head[id_at + 2 :] + body)
        if sock.recv(4) != b"\x40\x02\0\1":
            raise CannotMeasure("the clock's reading was not acknowledged")
        sock.sendall(DISCONNECT)


def _felt(
    rig: Rig,
    result: Result,
    load: dict[str, Any],
    felt: dict[str, Any],
    queries: Child,
    journal: Child | None,
) -> None:
    """What the instruments say."""
    seen = queries.finish(CHILD_S_MAX)
    result.generator_cpu_us = round(load["cpu_s"] / max(1, load["sent"]) * 1e6, 4)
    result.generator_busy_share = load["busy_share"]
    result.instruments_cpu_s = round(felt["cpu_s"] + seen["cpu_s"], 2)
    result.faults += load["faults"] + felt["faults"] + seen["faults"]
    if load["refused"] or load["strange"]:
        result.faults.append(f"{load['refused']} refused, {load['strange']} strange acknowledgements")
    result.query_p50_s, result.query_p99_s = _short(seen["p50_s"]), _short(seen["p99_s"])
    result.journal_p50_s, result.journal_p99_s = _short(felt["ack_p50_s"]), _short(felt["ack_p99_s"])
    if journal is not None:
        report = journal.finish(CHILD_S_MAX)
        result.journal_p50_s, result.journal_p99_s = _short(report["p50_s"]), _short(report["p99_s"])
        result.instruments_cpu_s += round(report["cpu_s"], 2)
    if load["ack_p99_ms"] is not None and not rig.broker:
        result.bulk_ack_p99_s = load["ack_p99_ms"] / 1e3
    result.alerts_raised = felt["raised"]


def _until_told(rig: Rig) -> None:
    end = time.monotonic() + STILL_S
    while time.monotonic() < end and rig.vitals()["outbox_waiting"]:
        time.sleep(LOOK_S)
    rig.receiver.finish(CHILD_S_MAX)


def _webhooks(rig: Rig, result: Result) -> None:
    """Calls about the pulse's points that arrived while the case ran."""
    began, ended = result.window
    waits = []
    for line in (rig.folder / "webhooks.jsonl").read_text("utf-8").splitlines():
        call = json.loads(line)
        about = call["type"] == "alert.firing" and str(call.get("point", "")).startswith(PULSE)
        if about and began <= call["arrived"] <= ended + STILL_S:
            waits.append(call["latency_s"])
    result.webhooks = len(waits)
    if waits:
        result.webhook_p50_s, result.webhook_p99_s = (
            round(float(q), 4) for q in np.quantile(waits, (0.5, 0.99))
        )
    if len(waits) < result.alerts_raised:
        result.faults.append(f"{result.alerts_raised} alerts were raised, {len(waits)} calls came")


def _count(rig: Rig, results: list[Result]) -> None:
    whole = load_fleet(rig.points_file)
    pulse = whole.take(np.array([r for r, p in enumerate(whole.point_id) if p.startswith(PULSE)], np.intp))
    files = []
    for result in results:
        files.append((rig.folder / f"load-{result.name}.npz", whole))
        files.append((rig.folder / f"pulse-{result.name}.npz", pulse))
    past = rig.folder / "past.npz"
    if past.exists():
        files.append((past, whole))
    found = count_lake(rig.data, expected(files), CLOCK)
    if found.stored == found.sent:
        for result in results:
            result.stored = result.sent
    last = results[-1]
    last.stored += found.stored - sum(result.stored for result in results)
    last.lost, last.surplus, last.wrong = found.lost, found.surplus, found.wrong


def _judge_targets(case: Case, result: Result) -> None:
    for target, bound in case.targets.items():
        name, _, side = target.rpartition("_")
        measured = getattr(result, name)
        met = measured is not None and (measured >= bound if side == "min" else measured <= bound)
        result.targets[target] = {"bound": bound, "measured": measured, "met": met}


def _short(number: float | None) -> float | None:
    return None if number is None or number != number else round(number, 4)


def summary(result: Result) -> str:
    """A line for people."""
    parts = [
        f"{result.readings_per_s:,} readings/s (taken in at {result.accepted_per_s:,})",
        f"{result.cpu_us:.3f} µs CPU ({', '.join(f'{k} {v:.3f}' for k, v in result.cpu_us_by_process.items())}"
        + (f", compaction {result.compact_us:.3f})" if result.compact_us is not None else ")"),
        f"{result.instructions or 0:,} instructions",
        f"generator {result.generator_cpu_us:.3f} µs, busy {result.generator_busy_share:.0%}",
        f"{result.peak_mb:.0f} MB ({', '.join(f'{k} {v:.0f}' for k, v in result.peak_mb_by_process.items())})",
        f"journal {result.journal_p50_s}/{result.journal_p99_s} s",
        f"query {result.query_p50_s}/{result.query_p99_s} s",
        f"webhook {result.webhook_p50_s}/{result.webhook_p99_s} s of {result.webhooks}",
        f"sent {result.sent:,} lost {result.lost} surplus {result.surplus} wrong {result.wrong}",
    ]
    if result.broker_cpu_us is not None:
        parts.insert(2, f"broker {result.broker_cpu_us:.2f} µs")
    if not result.quiet:
        parts.append(f"NOT QUIET: others used {result.others_cores} cores")
    return "; ".join(parts + result.faults)


@click.command(help=__doc__)
@click.argument("cases", nargs=-1, required=True)
@click.option("--quick", is_flag=True, help="Smaller and shorter.")
@click.option("--seconds", type=float, help="Of load, instead of the case's.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Another value of a case's key.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=SCRATCH, help="Scratch folder.")
@click.option(
    "--profile", type=click.Path(path_type=Path), help="Stacks of the engine, by py-spy if it is there."
)
@click.option("--json", "as_json", is_flag=True, help="The whole result as JSON on stdout.")
def main(
    cases: tuple[str, ...],
    quick: bool,
    seconds: float | None,
    changes: tuple[str, ...],
    folder: Path,
    profile: Path | None,
    as_json: bool,
) -> None:
    """Run the named cases (file names in bench/cases, or paths) one after the other."""
    end_in_order()
    for name in cases:
        for case in _named(name):
            case = _changed(case.quick() if quick else case, seconds, changes)
            click.echo(f"{case.name}: {case.title}", err=True)
            result = measure(case, folder / "case", folder, lambda text: click.echo(text, err=True), profile)
            click.echo("  " + summary(result), err=True)
            if as_json:
                click.echo(json.dumps(asdict(result), ensure_ascii=False))
            if result.lost or result.surplus or result.wrong:
                sys.exit(f"{case.name}: {result.lost} lost, {result.surplus} surplus, {result.wrong} wrong")


def _named(name: str) -> list[Case]:
    """Of a path, of a file of bench/cases, or one of a sweep by its own name ("points-1000000")."""
    if name.endswith(".toml"):
        return load_cases(Path(name))
    if (CASES / f"{name}.toml").exists():
        return load_cases(CASES / f"{name}.toml")
    found = [case for case in all_cases() if case.name == name]
    if not found:
        raise click.ClickException(f"no case {name}; scripts/bench --list names them")
    return found


def _changed(case: Case, seconds: float | None, changes: tuple[str, ...]) -> Case:
    if seconds is not None:
        case = replace(case, seconds=seconds)
    for change in changes:
        key, _, text = change.partition("=")
        value: Any = json.loads(text) if text and text[0] in "0123456789tf" else text
        case = replace(case, **{key: value})
    return case


if __name__ == "__main__":
    main()
