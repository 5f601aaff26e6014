"""`yuzui report`: pages for people who hand over."""

from __future__ import annotations

import time
from zoneinfo import ZoneInfo

import click

from ingest.cli import config_option, json_option
from ingest.commands.alert import echo_json, open_outbox
from ingest.commands.common import load_or_fail
from ingest.commands.silence import time_us

SHIFT_US = 12 * 3_600 * 1_000_000


@click.group()
def command() -> None:
    """Reports."""


@command.command()
@config_option
@click.option(
    "--since", help="ISO time, the city's zone where it says none; default 12 hours before --until."
)
@click.option("--until", "until_", help="ISO time; default now.")
@json_option
def shift(config_path: str, since: str | None, until_: str | None, as_json: bool) -> None:
    """One page: what is open, unanswered, silenced, out, undelivered; counts by severity and district."""
    from anomaly.alerts.shift import figures, page

    config = load_or_fail(config_path)
    zone = config.city.time_zone
    end = time_us(until_, zone) if until_ else time.time_ns() // 1000
    begin = time_us(since, zone) if since else end - SHIFT_US
    if begin >= end:
        raise click.ClickException("--since is not before --until")
    found = figures(open_outbox(config), begin, end)
    if as_json:
        echo_json(found)
    else:
        click.echo(page(found, config.city.name, ZoneInfo(zone)), nl=False)
