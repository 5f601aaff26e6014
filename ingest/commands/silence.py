"""`yuzui silence`: mute what is known, for a time, by a name, with a reason."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from ingest.cli import config_option, json_option
from ingest.commands.alert import SEVERITIES, echo_json, moment, open_outbox
from ingest.commands.common import load_or_fail, noted
from storage import audit

UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
INT64_MAX = (1 << 63) - 1
YEARS = (1971, 9000)
"""Of times that are typed: what lies beyond is a slip, and no clock shows it in every zone."""
_SPAN = re.compile(r"(\d+)([mhd])")


def span_us(text: str) -> int:
    """ "90m", "2h" or "1d" in µs. Raises click.BadParameter."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise click.BadParameter(f'expected a span such as "90m", "2h" or "1d", got "{text}"')
    return int(found[1]) * UNITS_S[found[2]] * 1_000_000


def time_us(text: str, zone: str) -> int:
    """An ISO time in µs since 1970 UTC; without an offset it is the city's. Raises click.BadParameter."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f'expected a time such as "2026-07-01T08:00", got "{text}"') from None
    if not YEARS[0] <= at.year <= YEARS[1]:
        raise click.BadParameter(f'expected a time of the years {YEARS[0]} to {YEARS[1]}, got "{text}"')
    return round((at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))).timestamp() * 1e6)


@click.group()
def command() -> None:
    """Mute alerts for a time: who and why are kept, an end is needed."""


@command.command()
@config_option
@click.option("--rule", default="", help="Only of this rule.")
@click.option("--kind", default="", help="Only of points of this kind.")
@click.option("--district", default="", help="Only in this district.")
@click.option("--point", default="", help="Only of this point.")
@click.option("--gateway", default="", help="Only of this gateway.")
@click.option(
    "--severity-max", default=3, show_default=True, type=click.IntRange(1, 4), help="Worse ones are told."
)
@click.option("--for", "span", help='How long: "90m", "2h", "1d".')
@click.option("--until", "until_", help="Or until when, ISO; the city's time zone where it says none.")
@click.option("--by", required=True, help="Who.")
@click.option("--why", required=True, help="Why.")
def add(config_path: str, span: str | None, until_: str | None, by: str, why: str, **matchers: Any) -> None:
    """Silence alerts that agree in all that is named. Prints the silence's number."""
    from anomaly.alerts import people

    if (span is None) == (until_ is None):
        raise click.ClickException("say --for or --until: a silence needs an end")
    config = load_or_fail(config_path)
    now = time.time_ns() // 1000
    ends = now + span_us(span) if span else time_us(until_ or "", config.city.time_zone)
    matcher = people.Matcher(
        matchers["rule"],
        matchers["kind"],
        matchers["district"],
        matchers["point"],
        matchers["gateway"],
        matchers["severity_max"],
    )
    try:
        number = people.silence(open_outbox(config), matcher, by, why, now, ends, now)
    except ValueError as fault:
        raise click.ClickException(str(fault)) from None
    noted(Path(config.data.dir), audit.SILENCED, by, str(number), f"{matcher.said()}: {why}")
    click.echo(f"silence {number} until {moment(ends, config)}")


@command.command("list")
@config_option
@click.option("--all", "every", is_flag=True, help="Those that are over too.")
@json_option
def list_(config_path: str, every: bool, as_json: bool) -> None:
    """Silences that hold."""
    from anomaly.alerts import people

    config = load_or_fail(config_path)
    rows = people.silences(open_outbox(config), time.time_ns() // 1000, over=every)
    for row in rows:
        if as_json:
            echo_json(row)
            continue
        names = ("rule", "kind", "district", "point_id", "gateway_id")
        what = " ".join(f"{name}={row[name]}" for name in names if row[name])
        colour = SEVERITIES[row["severity_max"]]
        click.echo(
            f"{row['id']}  {what} ≤ {colour}  until {moment(row['ends'], config)}  {row['who']}: {row['why']}"
        )
    if not rows and not as_json:
        click.echo("no silences")


@command.command()
@config_option
@click.argument("number", type=click.IntRange(1, INT64_MAX))
@click.option("--by", required=True, help="Who.")
@click.option("--why", required=True, help="Why.")
def end(config_path: str, number: int, by: str, why: str) -> None:
    """End a silence now; what it held and still stands is told within seconds."""
    from anomaly.alerts import people

    try:
        config = load_or_fail(config_path)
        people.unsilence(open_outbox(config), number, by, why, time.time_ns() // 1000)
    except ValueError as fault:
        raise click.ClickException(str(fault)) from None
    noted(Path(config.data.dir), audit.UNSILENCED, by, str(number), why)
    click.echo(f"silence {number} is over")
