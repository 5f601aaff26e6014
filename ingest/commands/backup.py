"""`yuzui backup`: a copy of everything from which an engine goes on, while the engine runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli import config_option, json_option
from ingest.commands.common import engine_vitals, load_or_fail
from ingest.commands.scrub import give_way

if TYPE_CHECKING:
    from storage.backup import Report, Telling

MIB = 1 << 20


@click.command()
@config_option
@json_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--keep", default=3, show_default=True, type=click.IntRange(1), help="Backups left in FOLDER.")
@click.option("--anew", is_flag=True, help="Link nothing, copy all: after `yuzui verify` found damage.")
@click.option("--full-speed", is_flag=True, help="Do not give way to the engine on the CPU and at the disk.")
def command(config_path: str, as_json: bool, folder: Path, keep: int, anew: bool, full_speed: bool) -> None:
    """Back up data folder and config into a new folder below FOLDER, whether the engine runs or not.

    All that was acknowledged before is in it, at one instant. Files that are in the backup before are linked, not
    copied again. Exit code 1 if a file was damaged in the data folder already, 2 if no backup could be made: then the
    ones before stand.
    """
    from ingest.backing import EngineSilent, config_files
    from storage.backup import BackupBusy
    from storage.backup_look import NotWhole
    from storage.lock import DataLocked

    config = load_or_fail(config_path)
    root, target = Path(config.data.dir).resolve(), folder.resolve()
    if not (root / "lake" / "readings").is_dir():
        raise click.ClickException(f"nothing to back up in {root}: start the engine once")
    if target.is_relative_to(root) or root.is_relative_to(target):
        raise click.ClickException(
            f"{folder} and the data folder {root} lie in each other: name a folder elsewhere"
        )
    if not full_speed:
        give_way()
    files = config_files(Path(config_path), config)
    try:
        with _progress(shown=not as_json) as telling:
            report = _made(root, target, keep, anew, files, telling)
    except (NotWhole, BackupBusy, EngineSilent, DataLocked) as why:
        raise click.ClickException(str(why)) from None
    except OSError as fault:
        where = f" ({fault.filename})" if fault.filename else ""
        raise click.ClickException(
            f"no backup was made: {os.strerror(fault.errno or 0)}{where}. The backups before stand as they were"
        ) from None
    _show(report, root, as_json)
    if report.manifest.damaged:
        raise click.exceptions.Exit(1)


def _made(
    root: Path, target: Path, keep: int, anew: bool, files: dict[str, Path], telling: Telling
) -> Report:
    from importlib.metadata import version

    from ingest.backing import settle
    from storage.backup import back_up
    from storage.lock import DataLock, in_use

    made: dict[str, Any] = {"config": files, "keep": keep, "anew": anew, "telling": telling}
    if engine_vitals(root) is not None or in_use(root):
        return back_up(root, target, version("yuzui"), settle=lambda: settle(root), **made)
    with DataLock(root):
        return back_up(root, target, version("yuzui"), settle=None, **made)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Telling]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from storage.backup import Telling

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield Telling()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking", total=None)
        yield Telling(
            total=lambda count: bar.update(task, total=count, completed=0),
            count=lambda count: bar.advance(task, count),
            phase=lambda words: bar.update(task, description=words),
        )


def _show(report: Report, root: Path, as_json: bool) -> None:
    made, rows = report.manifest, sum(table["rows"] for table in report.manifest.tables.values())
    same_disk = os.stat(report.folder).st_dev == os.stat(root).st_dev
    if as_json:
        import orjson

        found = {
            "backup": str(report.folder), "seq": made.seq, "files": len(made), "bytes": made.size,
            "copied": report.copied, "copied_bytes": report.copied_bytes, "linked": report.linked,
            "sealed_rows": rows, "seconds": round(report.seconds, 3), "damaged": made.damaged,
            "same_disk": same_disk, "removed": report.pruned,
        }  # fmt: skip
        click.echo(orjson.dumps(found).decode())
        return
    click.echo(
        f"{report.folder}: {len(made)} files, {made.size / MIB:.1f} MiB, journal up to {made.seq}; copied "
        f"{report.copied} ({report.copied_bytes / MIB:.1f} MiB), linked {report.linked}, in {report.seconds:.1f} s"
    )
    for name in made.damaged:
        click.echo(f"DAMAGED before it was copied: {name}; see `yuzui scrub`", err=True)
    if same_disk:
        click.echo(
            "note: it stands on the same disk as the data; copy it elsewhere, or the loss of that disk is both"
        )
    for name in report.pruned:
        click.echo(f"removed the older {name}")
