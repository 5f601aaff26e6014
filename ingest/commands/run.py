"""`yuzui run`: the engine."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
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
    from ingest.memory import without_absent

    without_absent()
    from ingest import oplog
    from ingest.app import App, CannotStart, EngineFailed, RunMarks
    from ingest.commands.status import line_of
    from ingest.openfiles import raise_open_files
    from ingest.ops import LIVE_TURN_S_MAX
    from ingest.registryfaults import RegistryFaults
    from ingest.servicenotes import ServiceNotes
    from storage.lock import DataLocked

    config = load_or_fail(config_path)
    raise_open_files()
    oplog.set_up(config.log.level, config.log.format)

    async def engine() -> None:
        loop = asyncio.get_running_loop()
        early = asyncio.Event()
        # A reload asked for while we start, as by whoever renews certificates, must not end us: that is its default.
        loop.add_signal_handler(signal.SIGHUP, early.set)
        notes = ServiceNotes()
        start = asyncio.create_task(notes.while_starting())
        async with App(config, RunMarks(clock == "events", drill), Path(config_path)) as app:
            start.cancel()
            run = asyncio.create_task(
                notes.while_running(
                    lambda: time.monotonic() - app.wire.turned_at < LIVE_TURN_S_MAX,
                    lambda: line_of(app.vitals.take()),
                )
            )
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, app.stop)
            loop.add_signal_handler(signal.SIGHUP, app.reloader.ask)
            if early.is_set():
                app.reloader.ask()
            try:
                await app.wait()
            finally:
                run.cancel()
                notes.say(STOPPING=1, STATUS="draining, committing, acknowledging")

    try:
        uvloop.run(engine())
    except (DataLocked, RegistryFaults, CannotStart) as fault:
        raise click.ClickException(str(fault)) from None
    except EngineFailed as failure:
        click.echo(f"Error: {failure}", err=True)
        raise click.exceptions.Exit(1) from None
    except OSError:
        # Whoever mends it must see where: the line that other commands say is not enough here.
        logging.getLogger("yuzui.engine").exception("the engine ended")
        raise click.exceptions.Exit(1) from None
