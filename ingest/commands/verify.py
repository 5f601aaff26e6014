"""`yuzui verify`: is a backup what it was when it was made."""

from __future__ import annotations

from pathlib import Path

import click

from ingest.cli import json_option
from ingest.commands.reading import reading_bar

MIB = 1 << 20


@click.command()
@json_option
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--at", help="Name of one backup in FOLDER; the newest otherwise.")
@click.option("--all", "every", is_flag=True, help="Every backup in FOLDER.")
def command(folder: Path, at: str | None, every: bool, as_json: bool) -> None:
    """Every hash of a backup, every Parquet file opened, tables, journal, snapshots and outbox looked through.

    FOLDER is what `yuzui backup` was given, or one backup in it. Exit code 1 if anything is damaged.
    """
    from storage.backup_manifest import ManifestBad, backups, chosen, read
    from storage.backup_verify import verify

    try:
        wanted = backups(folder) if every else [chosen(folder, at)]
        well = True
        for path in wanted or [chosen(folder)]:
            with reading_bar("verify", read(path).size, shown=not as_json) as on_bytes:
                found = verify(path, on_bytes)
            well &= not found.faults
            if as_json:
                import orjson

                said = {
                    "backup": str(path), "files": len(found.manifest), "bytes": found.manifest.size,
                    "parquet": found.parquet, "rows": found.rows, "seq": found.manifest.seq,
                    "made_at": found.manifest.made_at, "faults": found.faults, "notes": found.notes,
                    "seconds": round(found.seconds, 3),
                }  # fmt: skip
                click.echo(orjson.dumps(said).decode())
                continue
            for fault in found.faults:
                click.echo(f"DAMAGED  {fault}")
            for note in found.notes:
                click.echo(f"note: {note}")
            click.echo(
                f"{path}: {len(found.manifest)} files, {found.manifest.size / MIB:.1f} MiB, {found.parquet} Parquet "
                f"files with {found.rows:,} rows, journal up to {found.manifest.seq}: "
                f"{f'{len(found.faults)} DAMAGED' if found.faults else 'all whole'}"
            )
    except ManifestBad as bad:
        raise click.ClickException(str(bad)) from None
    if not well:
        click.echo(
            "A file that did not change is one file in all backups, and the next one would link it again: make one "
            "with `yuzui backup --anew`",
            err=True,
        )
        raise click.exceptions.Exit(1)
