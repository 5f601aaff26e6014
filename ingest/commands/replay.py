"""`yuzui replay`: recorded readings as MQTT, with their own times."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from ingest.cli import json_option
from ingest.commands.common import Number, qos_option


@click.command()
@click.argument("readings", type=click.Path(exists=True, dir_okay=False))
@click.argument("target")
@click.option(
    "--points-file", required=True, type=click.Path(exists=True, dir_okay=False), help="Registry: the topics."
)
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=Number(0),
    help="1 real time, N times faster; 0: as fast as acknowledged.",
)
@click.option(
    "--rate-max",
    default=0.0,
    show_default=True,
    type=Number(0),
    help="Messages a second at most; 0: no limit.",
)
@qos_option
@click.option("--protocol", default="5", show_default=True, type=click.Choice(["5", "3.1.1"]))
@click.option(
    "--ledger",
    "ledger_dir",
    default="data/replay-ledger",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Where to note what was sent and acknowledged.",
)
@click.option("--user")
@click.option("--password", envvar="YUZUI_PASSWORD")
@click.option("--drill", is_flag=True, help="The target may be another machine: its alerts are meant.")
@json_option
def command(readings: str, target: str, as_json: bool, **options: Any) -> None:
    """Publish READINGS (Parquet or CSV with point_id, time, value) to TARGET (mqtt://host:port).

    Times are those of the recording: run the engine with --clock events, so that the newest of them is "now".
    """
    from ingest.simulate.replay import ReplayOptions, replay
    from ingest.simulate.run import TargetRefusedError

    for name in ("points_file", "ledger_dir"):
        options[name] = Path(options[name])
    chosen = ReplayOptions(target=target, readings=Path(readings), **options)

    def progress(now: dict[str, Any]) -> None:
        click.echo(f"{now.get('sent', 0):>12,} sent  {now.get('acked', 0):>12,} acknowledged", err=True)

    try:
        report = replay(chosen, progress)
    except (TargetRefusedError, ValueError) as fault:
        raise click.ClickException(str(fault)) from None
    if as_json:
        click.echo(orjson.dumps(asdict(report)).decode())
        return
    click.echo(
        f"{report.sent:,} readings of {report.points:,} points from {report.first} to {report.last} sent in "
        f"{report.seconds:.1f} s, {report.acked:,} acknowledged; ledger in {chosen.ledger_dir}"
    )
