"""`yuzui audit`: who did what."""

from __future__ import annotations

from datetime import datetime

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import data_dir
from storage import audit


@click.command()
@config_option
@click.option("--what", multiple=True, type=click.Choice(audit.KINDS), help="Only these; default all.")
@click.option("--who", help="Only of this person.")
@click.option("--since", help="Only from this time on, ISO 8601; UTC where it says no offset.")
@click.option("--verify", is_flag=True, help="Also say whether any line was changed; exit code 1 if so.")
@json_option
def command(
    config_path: str, what: tuple[str, ...], who: str | None, since: str | None, verify: bool, as_json: bool
) -> None:
    """Acknowledgements, silences, reloads and logins, the oldest first.

    \b
    yuzui audit --what login_refused --since 2026-07-01
    yuzui audit --verify
    """
    after = _time(since) if since else None
    count = 0
    try:
        for row in audit.read(data_dir(config_path), verify=verify):
            count += 1
            wanted = (not what or row["what"] in what) and (who is None or row["who"] == who)
            if not wanted or (after is not None and datetime.fromisoformat(row["at"]) < after):
                continue
            if as_json:
                click.echo(orjson.dumps(row).decode())
            else:
                words = (row["who"], row["what"], row["subject"], row["detail"], f"({row['through']})")
                click.echo("  ".join([row["at"], *(word for word in words if word)]))
    except audit.AuditFault as fault:
        click.echo(str(fault), err=True)
        raise click.exceptions.Exit(1) from None
    if verify and not as_json:
        click.echo(f"{count} lines, none changed, taken out or put in between")


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f'expected a time such as "2026-07-01T08:00", got "{text}"') from None
    return found if found.tzinfo else datetime.fromisoformat(f"{found.isoformat()}+00:00")
