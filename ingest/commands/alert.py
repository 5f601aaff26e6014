"""`yuzui alert`: what is firing, what was, who answered, and does the webhook work."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import engine_vitals, load_or_fail, noted
from storage import audit

if TYPE_CHECKING:
    from anomaly.alerts.outbox import Outbox
    from ingest.config import Config

SEVERITIES = {1: "蓝 blue", 2: "黄 yellow", 3: "橙 orange", 4: "红 red"}
ANSWER_S_MAX = 20.0
LOOK_S = 0.1


def open_outbox(config: Config) -> Outbox:
    """The outbox of the config's data folder, beside a running engine or without one."""
    from anomaly.alerts.outbox import Outbox

    path = Path(config.data.dir) / "outbox.db"
    if not path.is_file():
        raise click.ClickException(f"no outbox in {config.data.dir}: start the engine once")
    return Outbox(path, config.targets, config.alerts, routes=config.route, inhibits=config.inhibit)


def moment(us: int | None, config: Config) -> str:
    """µs since 1970 as a person reads it, on the city's clock: that of the map, the report and SQL."""
    if us is None:
        return "-"
    return datetime.fromtimestamp(us / 1e6, ZoneInfo(config.city.time_zone)).strftime("%m-%d %H:%M:%S")


def echo_json(row: dict[str, Any]) -> None:
    """One JSON line."""
    click.echo(orjson.dumps(row, default=str).decode())


@click.group()
def command() -> None:
    """Alerts, newest first; --json for machines."""


@command.command("list")
@config_option
@click.option("--open", "open_only", is_flag=True, help="Only those still firing.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@json_option
def list_(config_path: str, open_only: bool, limit: int, as_json: bool) -> None:
    """Alerts with their newest state."""
    config = load_or_fail(config_path)
    rows = open_outbox(config).alerts(open_only=open_only, limit=limit)
    for row in rows:
        if as_json:
            echo_json(row)
        else:
            severity = SEVERITIES[row["severity"]]
            click.echo(
                f"{row['id']}  {row['type']:8} {severity:10} {moment(row['onset'], config)}  {row['summary_zh']}"
            )
    if not rows and not as_json:
        click.echo("no alerts")


@command.command()
@config_option
@click.argument("alert_id")
@json_option
def show(config_path: str, alert_id: str, as_json: bool) -> None:
    """One alert: its course, and who was told."""
    config = load_or_fail(config_path)
    found = open_outbox(config).show(alert_id)
    if found is None:
        raise click.ClickException(f"no alert {alert_id}; see `yuzui alert list`")
    if as_json:
        echo_json(found)
        return
    for row in found["revisions"]:
        click.echo(
            f"{moment(row['at'], config)}  {row['type']:8} {SEVERITIES[row['severity']]:10} {row['summary_en']}"
        )
    if found["group"] != alert_id:
        click.echo(f"  told with its group {found['group']}")
    if found["held"]:
        click.echo(f"  not told: {found['held']}")
    for row in found["deliveries"]:
        click.echo(
            f"  to {row['target']}: {row['state']} after {row['attempts']} attempts {row['last_error'] or ''}"
        )


@command.command()
@config_option
@click.argument("alert_id")
@click.option("--by", required=True, help="Who answers.")
@click.option("--note", default="", help="What is done about it.")
def ack(config_path: str, alert_id: str, by: str, note: str) -> None:
    """Answer for an alert, and so for its group: nobody else is called unless it becomes worse."""
    from anomaly.alerts.people import acknowledge

    try:
        config = load_or_fail(config_path)
        done = acknowledge(open_outbox(config), alert_id, by, time.time_ns() // 1000, note)
    except ValueError as fault:
        raise click.ClickException(str(fault)) from None
    noted(Path(config.data.dir), audit.ACKNOWLEDGED, by, done["id"], note)
    click.echo(f"{done['id']} answered by {by} after {done['took_s']:.0f} s")


@command.command()
@config_option
@click.argument("alert_id", required=False)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="The newest so many.")
@json_option
def log(config_path: str, alert_id: str | None, limit: int, as_json: bool) -> None:
    """Every step, of one alert and its group or of all: fired, sent, answered, escalated, silenced …"""
    from anomaly.alerts.people import steps

    config = load_or_fail(config_path)
    rows = steps(open_outbox(config), 0, time.time_ns() // 1000, alert_id)[-limit:]
    for row in rows:
        if as_json:
            echo_json(row)
            continue
        words = (
            row["alert_id"],
            row["step"],
            row["target"] and f"to {row['target']}",
            row["who"],
            row["detail"],
        )
        click.echo("  ".join([moment(row["at"], config), *(str(word) for word in words if word)]))


@command.command()
@config_option
@click.option("--target", multiple=True, help="A target by name; default all.")
def test(config_path: str, target: tuple[str, ...]) -> None:
    """Send a test notification through a running engine and say what was answered. Exit code 1 unless all is 2xx."""
    config = load_or_fail(config_path)
    names = list(target) or [one.name for one in config.targets]
    if not names:
        raise click.ClickException("the config has no [[webhook]] and no other target")
    if unknown := sorted(set(names) - {one.name for one in config.targets}):
        raise click.ClickException(f"no target named {', '.join(unknown)}")
    outbox = open_outbox(config)
    if engine_vitals(Path(config.data.dir)) is None:
        raise click.ClickException(
            "no engine answers for this data folder, so nobody would send it: `yuzui run`"
        )
    sent = dict(zip(outbox.send_test(names), names, strict=True))
    told: dict[str, str] = {}
    end = time.monotonic() + ANSWER_S_MAX
    while len(told) < len(sent) and time.monotonic() < end:
        for row in outbox.deliveries():
            if row["webhook_id"] in sent and (row["state"] != "queued" or row["attempts"]):
                told[sent[row["webhook_id"]]] = (
                    "" if row["state"] == "sent" else row["last_error"] or row["state"]
                )
        time.sleep(LOOK_S)
    for name in names:
        if name not in told:
            click.echo(f"{name}: no answer in {ANSWER_S_MAX:g} s; see `yuzui outbox list`")
        else:
            click.echo(
                f"{name}: {told[name] + '; see `yuzui outbox list`' if told[name] else 'answered 2xx'}"
            )
    if any(told.get(name, "not sent") for name in names):
        raise click.exceptions.Exit(1)
