"""`yuzui simulate`: be the city's gateways."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from ingest.cli import json_option
from ingest.commands.common import Number, batch_option, hz_option, qos_option

if TYPE_CHECKING:
    from ingest.simulate.run import SimulateReport


@click.command()
@click.argument("target")
@click.option(
    "--points-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The registry the gateways speak for (see `yuzui points generate`).",
)
@click.option(
    "--city",
    "city_dir",
    type=click.Path(exists=True, file_okay=False),
    help="Kinds' values; default Chengdu.",
)
@click.option(
    "--ledger",
    "ledger_dir",
    default="data/ledger",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Where to note what was sent and acknowledged, taken before encoding.",
)
@click.option("--seconds", default=60.0, show_default=True, type=Number(0, min_open=True))
@click.option("--points", type=click.IntRange(1), help="Only this many points, whole gateways first.")
@hz_option
@qos_option
@batch_option
@click.option(
    "--scenario",
    default="steady",
    show_default=True,
    type=click.Choice(["steady", "storm", "outage", "stuck", "storm-city"]),
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option(
    "--aiomqtt-share",
    default=0.1,
    show_default=True,
    type=Number(0, 1),
    help="Gateways that speak through aiomqtt.",
)
@click.option(
    "--inflight-max", type=click.IntRange(1, 65_535), help="Messages a gateway leaves unacknowledged."
)
@click.option("--user")
@click.option("--password", envvar="YUZUI_PASSWORD")
@click.option("--drill", is_flag=True, help="The target may be another machine: made-up readings are meant.")
@json_option
def command(
    target: str, as_json: bool, city_dir: str | None, inflight_max: int | None, **options: Any
) -> None:
    """Publish a simulated city's readings to TARGET (mqtt://host:port), a listener or a broker.

    Ends when all is acknowledged; the ledger then tells what a lossless system must hold. Exit code 1 where readings
    were not sent or not acknowledged.
    """
    from ingest.commands.demo import city_folder
    from ingest.simulate.child import ChildDiedError
    from ingest.simulate.run import SimulateOptions, TargetRefusedError, simulate

    if inflight_max is not None:
        options["inflight_max"] = inflight_max
    for name in ("points_file", "ledger_dir"):
        options[name] = Path(options[name])
    chosen = SimulateOptions(target=target, city_dir=Path(city_dir) if city_dir else city_folder(), **options)

    def progress(now: dict[str, Any]) -> None:
        click.echo(
            f"{now['seconds']:6.0f} s  {now['sent']:>12,} sent  {now['acked']:>12,} acknowledged", err=True
        )

    try:
        report = simulate(chosen, progress)
    except (TargetRefusedError, ValueError, ChildDiedError) as fault:
        raise click.ClickException(str(fault)) from None
    if as_json:
        sys.stdout.write(orjson.dumps(asdict(report)).decode() + "\n")
    else:
        _show(report, chosen.ledger_dir)
    if report.sent < report.produced or (chosen.qos and report.acked < report.sent):
        raise click.exceptions.Exit(1)


def _show(report: SimulateReport, ledger_dir: Path) -> None:
    click.echo(
        f"{report.sent:,} readings of {report.points:,} points sent by {report.gateways:,} gateways in "
        f"{report.seconds:.1f} s, {report.acked:,} acknowledged, {report.refused:,} refused, {report.not_sent:,} never "
        f"sent; ledger in {ledger_dir}"
    )
    for fault in dict.fromkeys(fault for speaker in report.speakers for fault in speaker.faults):
        click.echo(f"  {fault}", err=True)
