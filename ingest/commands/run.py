"""`yuzui run`: the engine."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import uvloop

from ingest.cli import config_option
from ingest.commands.common import load_or_fail


@click.command()
@config_option
@click.option(
    "--clock",
    type=click.Choice(["wall", "events"]),
    default="wall",
    show_default=True,
    help="events: the newest event time is now (recordings, drills); every output says replay.",
)
@click.option("--drill", is_flag=True, help="Every notification says 演练 (drill).")  # fmt: skip
def command(config_path: str, clock: str, drill: bool) -> None:
    """Run until Ctrl-C or SIGTERM; then drain, commit, acknowledge and stop. SIGHUP: as `yuzui reload`."""
    from ingest import oplog
    from ingest.app import App, CannotStart, EngineFailed, RunMarks
    from ingest.openfiles import raise_open_files
    from ingest.points import RegistryFaults
    from storage.lock import DataLocked

    config = load_or_fail(config_path)
    raise_open_files()
    oplog.set_up(config.log.level, config.log.format)

    async def engine() -> None:
        async with App(config, RunMarks(clock == "events", drill), Path(config_path)) as app:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, app.stop)
            loop.add_signal_handler(signal.SIGHUP, app.reloader.ask)
            await app.wait()

    try:
        uvloop.run(engine())
    except (DataLocked, RegistryFaults, CannotStart) as fault:
        raise click.ClickException(str(fault)) from None
    except EngineFailed as failure:
        click.echo(f"Error: {failure}", err=True)
        raise click.exceptions.Exit(1) from None
