"""`yuzui warm`: machine code made before it is needed, so that an engine starts in its usual second."""

from __future__ import annotations

import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console

from ingest import kernelcache


@click.command("warm")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing when all goes well.")
def command(quiet: bool) -> None:
    """Compile the wire's kernels, the checks' loops and the map's, and keep their machine code.

    Once for each version of Yuzui and each environment; scripts/setup.sh does it, and an engine that finds
    nothing kept does it itself before it listens, which then takes it half a minute. Without numba (the extra
    "fast") there is nothing to do.
    """
    from ingest.kernels.compiling import IS_COMPILED

    if not IS_COMPILED:
        if not quiet:
            click.echo('numba is not installed (extra "fast"): the engine works without it, slower')
        return
    began = time.monotonic()
    where = kernelcache.folder()
    with Console(file=sys.stderr).status("Compiling (half a minute the first time) …") as status:
        from ingest.warmwire import warm_wire

        warm_wire()
        status.update("Compiling the checks …")
        from anomaly.warm import warm

        warm()
        if find_spec("console") is not None:
            from console.shown import warm as warm_map

            warm_map()
    _forget_others(where)
    if not quiet:
        click.echo(f"warm in {time.monotonic() - began:.1f} s, kept in {where or 'the cache of numba'}")


def _forget_others(ours: Path | None) -> None:
    """Machine code of other versions in the same environment is nobody's any more."""
    if ours is None or not ours.name.startswith("numba-"):
        return
    for other in ours.parent.glob("numba-*"):
        if other != ours:
            shutil.rmtree(other, ignore_errors=True)
