"""`yuzui outbox`: notifications on their way, and the dead letters."""

from __future__ import annotations

import click

from ingest.cli import config_option, json_option
from ingest.commands.alert import echo_json, moment, open_outbox
from ingest.commands.common import load_or_fail


@click.group()
def command() -> None:
    """Notifications: queued, sent, superseded, dead, dropped."""


@command.command("list")
@config_option
@click.option("--state", type=click.Choice(["queued", "sent", "superseded", "dead", "dropped"]))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@json_option
def list_(config_path: str, state: str | None, limit: int, as_json: bool) -> None:
    """Notifications, newest first, and how many there are in each state."""
    config = load_or_fail(config_path)
    outbox = open_outbox(config)
    for row in outbox.deliveries(state, limit=limit):
        if as_json:
            echo_json(row)
        else:
            error = row["last_error"] or ""
            click.echo(
                f"{row['webhook_id']:40} {row['state']:10} {row['attempts']} attempts, "
                f"next {moment(row['next_at'], config)}  {error}"
            )
    if not as_json:
        click.echo(", ".join(f"{n} {name}" for name, n in outbox.counts().items()))


@command.command()
@config_option
@click.argument("webhook_ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All dead letters.")
def retry(config_path: str, webhook_ids: tuple[str, ...], every: bool) -> None:
    """Queue dead letters again, under the same webhook-id."""
    if not webhook_ids and not every:
        raise click.ClickException("name webhook ids, or --all")
    outbox = open_outbox(load_or_fail(config_path))
    count = outbox.retry(None if every else list(webhook_ids))
    if not every and not count:
        raise click.ClickException(
            "none of them is a dead letter that can be sent: `yuzui outbox list --state dead`"
        )
    click.echo(f"{count} queued again")


@command.command()
@config_option
@click.argument("webhook_ids", nargs=-1, required=True)
def drop(config_path: str, webhook_ids: tuple[str, ...]) -> None:
    """Give up notifications for good; they stay listed as dropped."""
    count = open_outbox(load_or_fail(config_path)).drop(list(webhook_ids))
    if not count:
        raise click.ClickException("none of them is queued or dead: `yuzui outbox list`")
    click.echo(f"{count} dropped")
