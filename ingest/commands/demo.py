"""`yuzui demo`: the whole city in one command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from ingest.cli import json_option
from ingest.commands.common import Number, batch_option, hz_option, qos_option
from ingest.shipped import command as called
from ingest.shipped import shipped

if TYPE_CHECKING:
    from rich.table import Table

    from ingest.demo import DemoResult
    from ingest.demonight import NightFigures

SQL = (
    "SELECT district, count(*) AS points, round(avg(value), 1) AS level_cm\n"
    "      FROM latest WHERE kind = 'waterlogging' GROUP BY district ORDER BY level_cm DESC LIMIT 5"
)


def city_folder() -> Path:
    """The demo city's tables."""
    return shipped("chengdu")


@click.command()
@click.option("--seconds", default=60.0, show_default=True, type=Number(1), help="How long the city speaks.")
@click.option("--points", default=116_200, show_default=True, type=click.IntRange(10))
@hz_option
@qos_option
@batch_option
@click.option(
    "--broker", help="mqtt://host:port: speak through this broker instead of straight to the engine."
)
@click.option(
    "--scenario",
    default="storm",
    show_default=True,
    type=click.Choice(["steady", "storm", "outage", "stuck", "storm-city"]),
    help="storm-city: a storm, 400 stuck sensors and 3 dead gateways at once; the whole city wants 120 seconds.",
)
@click.option(
    "--kill-at",
    type=Number(0, 1),
    help="kill -9 of the engine after this share of the run; with --scenario storm-city.",
)
@click.option("--map/--no-map", default=True, show_default=True, help="Show the map in a browser.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option(
    "--folder",
    default="data/demo",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Emptied first.",
)
@json_option
def command(as_json: bool, folder: str, **options: Any) -> None:
    """Engine, 1,200 simulated gateways, a storm over the city and a webhook receiver, all on this machine.

    At the end every reading is counted with DuckDB against what the gateways sent.
    """
    from rich.console import Console
    from rich.live import Live

    from ingest.demo import DemoFailed, DemoOptions, is_demos, run_demo
    from ingest.simulate.child import ChildDiedError
    from storage.lock import DataLock, DataLocked

    if options["kill_at"] is not None and (options["scenario"] != "storm-city" or options["broker"]):
        raise click.UsageError("--kill-at goes with --scenario storm-city and without --broker")
    console = Console(stderr=as_json)
    home = Path(folder)
    if home.exists() and any(home.iterdir()) and not is_demos(home):
        raise click.ClickException(
            f"{folder} is not a demo's folder and would be emptied; name another with --folder"
        )
    if (home / "data").is_dir():
        try:
            with DataLock(home / "data"):
                pass
        except DataLocked:
            raise click.ClickException(
                f"another demo runs in {folder}; end it, or name another with --folder"
            ) from None
    demo = DemoOptions(folder=home.absolute(), city_dir=city_folder(), **options)
    try:
        if console.is_terminal:
            with Live(console=console, refresh_per_second=2) as live:
                result = run_demo(
                    demo, lambda line: live.console.print(line), lambda v: live.update(_picture(v))
                )
        else:
            result = run_demo(
                demo, lambda line: click.echo(line, err=True), lambda v: click.echo(_line(v), err=True)
            )
    except (DemoFailed, ChildDiedError) as failure:
        raise click.ClickException(str(failure)) from None
    if as_json:
        click.echo(orjson.dumps(asdict(result)).decode())
    else:
        _summary(console, result, home)
    if not result.well:
        raise click.exceptions.Exit(1)


def _line(now: dict[str, Any]) -> str:
    return (
        f"{now.get('sim_seconds', 0):5.0f} s  sent {now.get('sim_sent', 0):>11,}  main {now.get('main', 0):>11,}  "
        f"{now.get('readings_per_s', 0):>9,.0f}/s  alerts {now.get('alerts_fired', 0):>5}  "
        f"webhooks {now.get('webhooks_delivered', 0):>5}  rss {now.get('rss_bytes', 0) / 1e6:4.0f} MB"
    )


def _picture(now: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    rows = (
        ("gateways", f"{now.get('sim_connected', 0):,} connected, {now.get('sim_sent', 0):,} readings sent"),
        ("engine", f"{now.get('readings_per_s', 0):,.0f} readings/s, lag {now.get('judge_lag_s', 0):.1f} s, "
                   f"oldest unacknowledged {now.get('journal_oldest_s', 0) * 1000:.0f} ms"),
        ("memory", f"{now.get('rss_bytes', 0) / 1e6:,.0f} MB, {now.get('cpu_s', 0):.1f} CPU s"),
        ("lake", f"{now.get('main', 0):,} readings, {now.get('sealed_rows', 0):,} sealed"),
        ("storm", f"{now.get('alerts_open', 0):,} alerts open, {now.get('alerts_fired', 0):,} fired, "
                  f"{now.get('webhooks_delivered', 0):,} webhooks"),
    )  # fmt: skip
    for name, text in rows:
        table.add_row(f"[bold]{name}", text)
    return table


def _summary(console: Any, result: DemoResult, home: Path) -> None:
    told = f"{result.stored:,} of {result.sent:,} readings stored, {result.lost} lost, {result.duplicates} doubled"
    console.print(f"\n[bold]{'✔' if result.well else '✘'} {told}[/bold], counted with DuckDB")
    console.print(
        f"  engine {result.engine_cores:.2f} cores, {result.engine_rss_mb:.0f} MB · "
        f"query after {result.publish_to_query_p99_s} s (p99) · "
        f"webhook after {result.publish_to_webhook_p99_s} s (p99) · "
        f"{result.alerts_fired} alerts, {result.webhooks_delivered} webhook calls"
    )
    if (said := result.offices) is not None:
        console.print(
            f"  offices: {said.stored:,} of {said.sent:,} messages stored whole, {said.acked:,} acknowledged, "
            f"{said.lost} lost, {said.doubled} steps doubled, {said.invented} made up"
        )
    if result.storm is not None:
        _night(console, result.storm)
    for note in result.notes:
        console.print(f"  note: {note}")
    # To be copied: neither wrapped nor coloured.
    console.print(
        f'\nAsk it yourself:\n  {called()} sql --data {home}/data "\n      {SQL}"\n'
        f"or in any DuckDB:  duckdb -init {home}/data/lake.sql",
        soft_wrap=True,
        highlight=False,
    )


def _night(console: Any, night: NightFigures) -> None:
    told, against = night.told, night.against
    console.print(
        f"  people: {told.notifications} notifications for {night.flooded:,} flooded points in {told.storm_groups} "
        f"groups, {night.stuck_found} of {told.stuck} stuck sensors and {told.outages} outages; "
        f"called twice for the same {told.steps_repeated}, outages named once {told.outages_once}; p99 {told.p99_s} s"
    )
    console.print(
        f"  against an engine nobody killed: {against.alerts} alerts, {against.lost} lost, {against.invented} made up; "
        f"{against.notifications} notifications, {against.untold + against.unheard} missing, "
        f"{against.overtold + against.misheard} too many"
    )
    for example in told.examples:
        console.print(f"  note: {example}")
