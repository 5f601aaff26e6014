"""`yuzui restore`: a data folder out of a backup."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingest.cli import json_option
from ingest.commands.reading import reading_bar

if TYPE_CHECKING:
    from anomaly.alerts.heldback import HeldBack
    from storage.restore import Restored

MIB = 1 << 20


@click.command()
@json_option
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--to", "target", required=True, type=click.Path(file_okay=False, path_type=Path),
    help="The data folder to be: the [data] dir of the config. Must be empty or not there.",
)  # fmt: skip
@click.option("--at", help="Name of one backup in FOLDER; the newest otherwise.")
@click.option(
    "--resend", is_flag=True,
    help="Send what waited to be sent when the backup was made. It may have gone out since; ids are the same.",
)  # fmt: skip
@click.option(
    "--damaged-too", is_flag=True,
    help="Restore also where files are damaged: the engine sets them aside when it starts and goes on.",
)  # fmt: skip
def command(
    folder: Path, target: Path, at: str | None, resend: bool, damaged_too: bool, as_json: bool
) -> None:
    """Make the data folder of a backup, every file held against its hash; then start the engine on it.

    Never overwrites: the target must be empty. Notifications that were under way are held back unless --resend is
    given. Exit code 1 if files are damaged.
    """
    from storage.backup_manifest import ManifestBad, chosen, read
    from storage.restore import NotEmpty, restore

    held: list[HeldBack] = []

    def finish(root: Path) -> None:
        from anomaly.alerts.heldback import hold_back

        if not resend and (root / "outbox.db").exists():
            held.append(hold_back(root / "outbox.db", time.time_ns() // 1000))

    try:
        backup = chosen(folder, at)
        with reading_bar("restore", read(backup).size, shown=not as_json) as on_bytes:
            done = restore(backup, target, finish=finish, damaged_too=damaged_too, on_bytes=on_bytes)
    except (ManifestBad, NotEmpty) as why:
        raise click.ClickException(str(why)) from None
    except OSError as fault:
        where = f" ({fault.filename})" if fault.filename else ""
        raise click.ClickException(
            f"nothing was restored: {fault.strerror}{where}. {target} is no data folder yet; run the command again"
        ) from None
    _show(backup, done, held, as_json)
    if done.faults:
        raise click.exceptions.Exit(1)


def _show(backup: Path, done: Restored, held: list[HeldBack], as_json: bool) -> None:
    made = done.manifest
    back = held[0] if held else None
    if as_json:
        import orjson

        said = {
            "backup": str(backup), "to": str(done.folder), "files": done.files, "bytes": done.bytes, "seq": made.seq,
            "made_at": made.made_at, "faults": done.faults, "held_back": back.notifications if back else 0,
            "groups_held": back.groups if back else 0,
        }  # fmt: skip
        click.echo(orjson.dumps(said).decode())
        return
    for fault in done.faults:
        click.echo(f"DAMAGED  {fault}", err=True)
    if done.faults:
        click.echo(
            "see `yuzui verify`; another backup may be whole (--at), or --damaged-too takes it as it is",
            err=True,
        )
    click.echo(
        f"{done.folder}: {done.files} files, {done.bytes / MIB:.1f} MiB, as of {made.made_at}, journal up to {made.seq}"
    )
    if back:
        click.echo(
            f"{back.open_alerts} alerts are open. Held back, since it may have gone out meanwhile: "
            f"{back.notifications} notifications (yuzui outbox list --state dead), what is next of {back.groups} groups"
        )
    click.echo(f"the config of that time: {backup / 'config'}")
    click.echo("next: yuzui check, yuzui run, yuzui status")
