"""`yuzui reload`: new rules and a new registry without a restart."""

from __future__ import annotations

import json
import os
import signal
import time

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import ENGINE_FILE, data_dir, engine_vitals, noted
from ingest.commands.status import EXIT_NOT_RUNNING
from storage import audit

ANSWER_S_MAX = 60.0
"""A million points take ten seconds to read and check."""
LOOK_S = 0.1


@click.command()
@config_option
@json_option
def command(config_path: str, as_json: bool) -> None:
    """Have the running engine read its rules and its registry again.

    Certificates too: new connections get the new ones. A fault is shown and the old ones go on (exit code 2).
    The same as SIGHUP to the engine, with an answer.
    """
    folder = data_dir(config_path)
    before = engine_vitals(folder)
    if before is None:
        click.echo("no engine answers for this data folder: it reads everything when it starts", err=True)
        raise click.exceptions.Exit(EXIT_NOT_RUNNING)
    old = (before.get("reload") or {}).get("at", 0)
    noted(folder, audit.RELOAD_ASKED)
    os.kill(json.loads((folder / ENGINE_FILE).read_text())["pid"], signal.SIGHUP)
    end = time.monotonic() + ANSWER_S_MAX
    while time.monotonic() < end:
        report = (engine_vitals(folder) or {}).get("reload") or {}
        if report.get("at", 0) > old:
            _show(report, as_json)
            return
        time.sleep(LOOK_S)
    raise click.ClickException(f"the engine has not answered within {ANSWER_S_MAX:.0f} s; see its log")


def _show(report: dict[str, object], as_json: bool) -> None:
    faults, refused = report["faults"], report["certificate_faults"]
    assert isinstance(faults, list)
    assert isinstance(refused, list)
    if as_json:
        click.echo(orjson.dumps(report).decode())
    elif faults:
        click.echo("refused; the old rules and registry go on:", err=True)
        for line in faults:
            click.echo(f"  {line}", err=True)
    else:
        click.echo(f"in force: {report['points']:,} points, rules and registry {report['digest']}")
        for name in report["needs_restart"] or ():  # type: ignore[attr-defined]
            click.echo(f"  changes of [{name}] wait for a restart")
    if not as_json:
        for name in report["certificates"]:  # type: ignore[attr-defined]
            click.echo(f"  certificates read again: {name}")
        for line in refused:
            click.echo(f"  certificate refused, the old one goes on: {line}", err=True)
    if faults or refused:
        raise click.exceptions.Exit(2)
