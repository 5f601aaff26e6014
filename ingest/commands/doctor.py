"""`yuzui doctor`: measures what the engine stands on before someone relies on it."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import engine_answer, engine_vitals, load_or_fail
from ingest.config import Config
from ingest.modes import certificate_files, too_open
from storage.diskuse import disk_use

if TYPE_CHECKING:
    from ingest.mqtt.queueprobe import Kept

FSYNCS = 200
FSYNC_BYTES = 340_000
"""One group at the city's nominal rate: 116,200 readings/s × 29 bytes × 0.1 s."""
FSYNC_P99_MS_MAX = 100.0
"""Slower and a PUBACK takes noticeably longer than the network."""
CLOCK_STEP_S_MAX = 0.5
OPEN_FILES_PER_CONNECTION = 1
RATE_LOOK_S = 1.0
RESTART_S_MIN = 30.0
"""A restart takes seconds; one with a look at the log half a minute."""
AHEAD_S_MAX = 10.0
"""A reading cannot come before it was measured: a source this far below 0 has another clock than we."""
SOURCES_SHOWN = 5
DISK_DAYS_MIN = 14.0
CERTIFICATE_DAYS_MIN = 14.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is well, the figure, what to do if not."""

    subject: str
    well: bool
    figure: str
    advice: str = ""


def fsync_ms(folder: Path) -> list[float]:
    """How long write + fdatasync of one group took, in the data folder itself; sorted, in ms."""
    folder.mkdir(parents=True, exist_ok=True)
    took = []
    block = os.urandom(FSYNC_BYTES)
    with tempfile.TemporaryFile(dir=folder) as probe:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            os.pwrite(probe.fileno(), block, 0)
            os.fdatasync(probe.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return sorted(took)


def disk_speed(took_ms: list[float]) -> Finding:
    """p50 and p99 of ``fsync_ms``."""
    p50, p99 = statistics.median(took_ms), took_ms[int(len(took_ms) * 0.99)]
    advice = "put the data folder on a faster or less busy disk"
    return Finding("disk fsync", p99 < FSYNC_P99_MS_MAX, f"p50 {p50:.2f} ms, p99 {p99:.2f} ms", advice)


def disk_room(folder: Path) -> Finding:
    """Free bytes and inodes."""
    stat = os.statvfs(folder)
    free_gib, inodes = stat.f_bavail * stat.f_frsize / (1 << 30), stat.f_favail
    return Finding("disk room", free_gib > 2 and inodes != 0, f"{free_gib:.1f} GiB free", "make room")


def clock() -> Finding:
    """Whether the wall clock runs with the monotonic one over a short look."""
    wall, mono = time.time(), time.monotonic()
    time.sleep(0.2)
    drift = abs((time.time() - wall) - (time.monotonic() - mono))
    return Finding("clock", drift < CLOCK_STEP_S_MAX, f"stepped {drift * 1000:.1f} ms in 0.2 s", "check NTP")


def open_files(config: Config) -> Finding:
    """The limit of open files against the connections the listener may hold."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = (
        config.listener.connections_max * OPEN_FILES_PER_CONNECTION + 256 if config.listener.enabled else 256
    )
    advice = f"raise the limit of open files: LimitNOFILE={need} in the unit, or ulimit -n {need} (hard limit {hard})"
    return Finding("open files", hard >= need, f"limit {soft} (hard {hard}), {need} may be wanted", advice)


def links(config: Config, fsync_p50_ms: float, per_s: float) -> Iterator[Finding]:
    """A real CONNECT to every broker of the config, with client ids of its own; its window, and what it keeps for us.

    ``per_s``: messages a second that come in or should.
    """
    from ingest.mqtt.probe import probe_broker
    from ingest.mqtt.queueprobe import probe_queue

    # A message waits for the next poll, then for the disk.
    commit_s = (config.wire.poll_ms + fsync_p50_ms) / 1000
    for subscriber in config.subscriber:
        answer = probe_broker(subscriber, commit_s)
        yield Finding(f"broker {subscriber.name}", answer.well, answer.figure, answer.advice)
        if answer.well:
            yield queue(f"queue {subscriber.name}", probe_queue(subscriber, per_s), per_s)


def queue(subject: str, found: Kept, per_s: float) -> Finding:
    """How long we may be away from a broker that kept so much for us."""
    if found.fault:
        return Finding(subject, True, f"what it keeps for us was not measured: {found.fault}")
    covered = (
        f"a restart of {found.kept / per_s:,.0f} seconds is covered" if per_s else "nothing comes in now"
    )
    rate = f" at {per_s:,.0f} messages/s" if per_s else ""
    if not found.limited:
        return Finding(
            subject,
            True,
            f"keeps {found.kept:,} messages and more while we are away: at least {covered}{rate}",
        )
    advice = "raise max_queued_messages at the broker (configs/mosquitto.conf has it), or be away for less"
    well = not per_s or found.kept / per_s >= RESTART_S_MIN
    return Finding(subject, well, f"keeps {found.kept:,} messages while we are away: {covered}{rate}", advice)


def message_rate(folder: Path) -> float:
    """Messages a second that a running engine takes in, else what the points of the registry should send; 0 unknown."""
    first = engine_vitals(folder)
    if first is not None:
        began = time.monotonic()
        time.sleep(RATE_LOOK_S)
        then = engine_vitals(folder) or first
        return max(0.0, float(then["messages"] - first["messages"]) / (time.monotonic() - began))
    from storage import pointmap

    table = pointmap.load(folder)
    if table is None:
        return 0.0
    return float(sum(1 / interval for interval in table["expected_interval_s"].to_pylist() if interval))


def source_clocks(folder: Path) -> Iterator[Finding]:
    """The clock of each source that spoke in the last minute or two, against ours; the worst are named."""
    rows = [row for row in engine_answer(folder, "/sources") or [] if row["skew_s"] is not None]
    if not rows:
        return
    rows.sort(key=lambda row: (row["skew_s"] >= -AHEAD_S_MAX, -abs(row["skew_s"])))
    worst = ", ".join(f"{row['source']} {row['skew_s']:+.1f} s" for row in rows[:SOURCES_SHOWN])
    ahead = [row["source"] for row in rows if row["skew_s"] < -AHEAD_S_MAX]
    yield Finding(
        "clocks of sources", not ahead, f"received less measured, at least: {worst}",
        f"ahead of ours by more than {AHEAD_S_MAX:g} s: {', '.join(ahead[:SOURCES_SHOWN])}; set their clocks, or ours",
    )  # fmt: skip


def disk_days(folder: Path) -> Iterator[Finding]:
    """How long the disk lasts, from hours that have settled."""
    use = disk_use(folder) if (folder / "lake").is_dir() else None
    if use is None or use.days_left is None:
        yield Finding("disk days", True, "not known before an hour has settled")
        return
    per_day = f" at {use.bytes_a_day / 1e9:.2f} GB a day" if use.bytes_a_day else ""
    advice = "a larger disk, or [retention]"
    yield Finding(
        "disk days", use.days_left >= DISK_DAYS_MIN, f"{use.days_left:,.0f} days left{per_day}", advice
    )


def certificates(config: Config) -> Iterator[Finding]:
    """When the first of our own certificates ends."""
    from storage.certificates import expires_at

    ends = [(at, place) for place, file in certificate_files(config) if (at := expires_at(file)) is not None]
    if ends:
        at, place = min(ends)
        days = (at - time.time()) / 86_400
        advice = "renew the file, then `yuzui reload`"
        yield Finding(
            "certificates", days >= CERTIFICATE_DAYS_MIN, f"{place} ends in {days:,.0f} days", advice
        )


def untimed_sources(folder: Path) -> Iterator[Finding]:
    """Sources with points timed on receipt: their readings are at least once, not exactly once."""
    from storage import pointmap

    table = pointmap.load(folder)
    if table is None:
        return
    rows = zip(table["source"].to_pylist(), table["time_from"].to_pylist(), strict=True)
    names = sorted({source for source, time_from in rows if time_from == "receive"})
    if names:
        yield Finding(
            "times", True, f"timed on receipt, so a redelivery is a second reading: {', '.join(names)}"
        )


@click.command()
@config_option
@json_option
def command(config_path: str, as_json: bool) -> None:
    """Measure disk, clock, limits and connections; say what to mend. Exit code 1 if anything is not well."""
    config = load_or_fail(config_path)
    folder = Path(config.data.dir)
    try:
        took_ms = fsync_ms(folder)
    except OSError as fault:
        raise click.ClickException(
            f"nothing can be written in the data folder {folder}: {fault.strerror}; run this as the engine's user"
        ) from None
    findings = [disk_speed(took_ms), disk_room(folder), clock(), open_files(config)]
    findings += links(config, statistics.median(took_ms), message_rate(folder))
    findings += untimed_sources(folder)
    findings += source_clocks(folder)
    findings += disk_days(folder)
    findings += certificates(config)
    findings += [Finding("file modes", True, line) for line in too_open(config)]
    vitals = engine_vitals(folder)
    state = "; ".join(vitals["not_ready"]) or "ready" if vitals else "not running"
    findings.append(Finding("engine", not vitals or not vitals["not_ready"], state, "see the log"))
    for finding in findings:
        if as_json:
            click.echo(orjson.dumps(asdict(finding)).decode())
        else:
            click.echo(f"{'ok ' if finding.well else 'BAD'}  {finding.subject:18} {finding.figure}")
            if not finding.well:
                click.echo(f"     {'':18} {finding.advice}")
    if not all(f.well for f in findings):
        raise click.exceptions.Exit(1)
