"""`yuzui drill`: a made-up alert goes the whole way to whoever is called, and says that it is a drill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingest.cli import config_option
from ingest.commands.alert import LOOK_S, moment, open_outbox
from ingest.commands.common import Number, engine_vitals, load_or_fail

if TYPE_CHECKING:
    from anomaly.alerts.outbox import Outbox
    from ingest.config import Config


@click.command()
@config_option
@click.option("--severity", default=3, show_default=True, type=click.IntRange(1, 4), help="1 blue … 4 red.")
@click.option(
    "--kind", default="waterlogging", show_default=True, help="Of the made-up point; routes go by it."
)
@click.option("--district", default="演练区", show_default=True, help="Where; routes go by it.")
@click.option("--name", default="演练点", show_default=True, help="What the made-up point is called.")
@click.option("--by", required=True, help="Who holds the drill.")
@click.option(
    "--answer-s", default=0, type=click.IntRange(0, 86_400), help="Wait this long for `yuzui alert ack`."
)
@click.option("--wait-s", default=20.0, show_default=True, type=Number(0), help="For deliveries.")
def command(
    config_path: str,
    severity: int,
    kind: str,
    district: str,
    name: str,
    by: str,
    answer_s: int,
    wait_s: float,
) -> None:
    """Fire a drill, wait for its deliveries and, if asked, for an answer, then end it. Exit code 1 unless all came."""
    from anomaly.alerts import drill

    config = load_or_fail(config_path)
    if engine_vitals(Path(config.data.dir)) is None:
        raise click.ClickException(
            "no engine answers for this data folder, so nobody would be called: `yuzui run`"
        )
    outbox = open_outbox(config)
    where = drill.subject(kind, district, name)
    event = drill.begin(outbox, where, severity, by, time.time_ns() // 1000)
    try:
        click.echo(f"drill {event.id} fired")
        right = _delivered(outbox, event.id, 1, wait_s)
        if answer_s:
            right &= _answered(outbox, event.id, answer_s, config)
    finally:
        # Ctrl-C too: a drill that nobody ends would stand among the open alerts for ever.
        drill.end(outbox, event, time.time_ns() // 1000)
    click.echo("drill over")
    right &= _delivered(outbox, event.id, 2, wait_s)
    if not right:
        raise click.exceptions.Exit(1)


def _delivered(outbox: Outbox, alert_id: str, revision: int, wait_s: float) -> bool:
    """Say what became of each notification from ``revision`` on; True where each arrived and there was one."""
    end = time.monotonic() + wait_s
    while True:
        found = outbox.show(alert_id)
        assert found is not None
        rows = [row for row in found["deliveries"] if row["revision"] >= revision]
        late = time.monotonic() >= end
        if late or all(row["state"] != "queued" for row in rows):
            break
        time.sleep(LOOK_S)
    for row in rows:
        took = f" after {(row['done_at'] - row['created_at']) / 1e6:.2f} s" if row["done_at"] else ""
        click.echo(
            f"  {row['target']}: {row['type']} {row['state']}{took} {row['last_error'] or ''}".rstrip()
        )
    if not rows:
        click.echo("  nobody is called for this: see [[route]] and severity_min")
    return bool(rows) and all(row["state"] in ("sent", "superseded") for row in rows)


def _answered(outbox: Outbox, alert_id: str, answer_s: int, config: Config) -> bool:
    click.echo(f"waiting for: yuzui alert ack {alert_id} --by NAME")
    end = time.monotonic() + answer_s
    sql = "SELECT answered_by, answered_at FROM alert_group WHERE id = ? AND answered > 0"
    while time.monotonic() < end:
        for row in outbox.rows(sql, (alert_id,)):
            click.echo(f"  answered by {row['answered_by']} at {moment(row['answered_at'], config)}")
            return True
        time.sleep(LOOK_S)
    click.echo(f"  nobody answered in {answer_s} s")
    return False
