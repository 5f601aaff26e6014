"""`yuzui scrub`: every byte of the data folder verified; what is damaged, what that costs, what to do."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingest.cli import config_option, json_option
from ingest.commands.common import data_dir

if TYPE_CHECKING:
    from storage.scrub import Finding, ScrubReport

IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""The number of a system call that Python has no name for. On other machines only the CPU's priority is lowered."""
IOPRIO_IDLE = 3 << 13
"""Class "idle": the disk is ours when nobody else wants it (where its scheduler knows classes)."""
NICEST = 19
MIB = 1 << 20


def give_way() -> None:
    """Let everybody else go first, on the CPU and at the disk."""
    os.nice(NICEST)
    number = IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0, IOPRIO_IDLE)


@click.command()
@config_option
@json_option
@click.option(
    "--data", "folder", type=click.Path(file_okay=False), help="A data folder, instead of the config's."
)
@click.option("--fast", is_flag=True, help="Tables and rollups by length only: seconds instead of minutes.")
@click.option("--full-speed", is_flag=True, help="Do not give way to the engine on the CPU and at the disk.")
@click.option(
    "--repair", is_flag=True, help="Mend what is found, where it can be. The engine must be stopped."
)
@click.option("--mib-per-s", type=click.FloatRange(min=0.1), help="Read no faster than this.")
def command(
    config_path: str,
    as_json: bool,
    folder: str | None,
    fast: bool,
    full_speed: bool,
    mib_per_s: float | None,
    repair: bool,
) -> None:
    """Verify journal, snapshots, tables, logs and hashes; say what is damaged and what that costs.

    Runs beside the engine and changes nothing (it keeps hashes of whole files that have none yet). Exit code 1
    if anything is damaged. Once a week is a good habit: docs say how with cron and with systemd.
    """
    from storage.scrub import scrub

    root = Path(folder) if folder else data_dir(config_path)
    if not (root / "lake").is_dir():
        raise click.ClickException(f"no lake in {root}: start the engine once, or name a data folder")
    if not full_speed:
        give_way()
    root = root.resolve()
    with _progress(root, shown=not as_json) as on_bytes:
        report = scrub(root, fast=fast, bytes_per_s=mib_per_s * MIB if mib_per_s else None, on_bytes=on_bytes)
    _show(report, as_json)
    if repair and report.findings:
        _repair(root, report, as_json)
    if report.findings:
        raise click.exceptions.Exit(1)


@contextmanager
def _progress(root: Path, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from storage.scrub import bytes_to_read

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield lambda _: None
        return
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("scrub", total=bytes_to_read(root))
        yield lambda count: bar.advance(task, count)


def _repair(root: Path, report: ScrubReport, as_json: bool) -> None:
    from storage.lock import DataLock, DataLocked
    from storage.repair import repair_files

    try:
        with DataLock(root):
            mended = repair_files(root, [root / finding.path for finding in report.findings])
    except DataLocked as locked:
        raise click.ClickException(str(locked)) from None
    for sentence in mended:
        click.echo(sentence, err=as_json)


def _show(report: ScrubReport, as_json: bool) -> None:
    if as_json:
        import orjson

        for finding in report.findings:
            click.echo(orjson.dumps({"finding": finding.json()}).decode())
        whole = {
            "files": report.files,
            "bytes": report.bytes,
            "hashed": report.hashed,
            "vanished": report.vanished,
            "seconds": round(report.seconds, 3),
            "findings": len(report.findings),
            "notes": report.notes,
        }
        click.echo(orjson.dumps(whole).decode())
        return
    for finding in report.findings:
        _show_finding(finding)
    for note in report.notes:
        click.echo(f"note: {note}")
    found = f"{len(report.findings)} DAMAGED" if report.findings else "all whole"
    click.echo(
        f"{report.files} files, {report.bytes / MIB:.1f} MiB in {report.seconds:.1f} s: {found}; "
        f"{report.hashed} hashed for the first time"
    )


def _show_finding(finding: Finding) -> None:
    click.echo(f"DAMAGED  {finding.path}")
    click.echo(f"  what      {finding.what}")
    click.echo(f"  affected  {finding.affected}")
    click.echo(f"  source    {finding.source or 'nowhere else'}")
    click.echo(f"  do        {finding.advice}")
