"""`yuzui rules`: the rules there are with the sources of their numbers, and why a reading was judged as it was."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from ingest.cli import config_option, json_option
from ingest.commands.common import load_or_fail


@click.group()
def command() -> None:
    """The city's rules: list them, or explain one judgement."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Rules by name, then every table of their numbers with its source."""
    from anomaly.rules import row_rules, tick_rules
    from anomaly.rules.tables import entries, names

    rules: list[dict[str, Any]] = [
        {"rule": rule.name, "of": of, "zh": rule.title_zh, "en": rule.title_en, "unit": rule.unit}
        for of, found in (("readings", row_rules()), ("areas", tick_rules()))
        for rule in found
    ]
    tables: list[dict[str, Any]] = [
        {
            "table": f"{file}.{name}",
            "numbers": dict(entry.numbers),
            "source": entry.source + (" (verify)" if entry.verify else ""),
            "from": str(entry.effective_from or ""),
            "to": str(entry.effective_to or ""),
        }
        for file, name in names()
        for entry in entries(file, name)
    ]
    if as_json:
        _echo_json([*rules, *tables])
        return
    for row in rules:
        click.echo(f"{row['rule']:<14} {row['of']:<9} {row['zh']}  {row['en']} {row['unit']}".rstrip())
    click.echo()
    for row in tables:
        dates = f"  [{row['from']} … {row['to']}]" if row["from"] or row["to"] else ""
        numbers = "  ".join(f"{key}={value}" for key, value in row["numbers"].items())
        click.echo(f"{row['table']:<20} {numbers}{dates}\n{'':<20} {row['source']}")


@command.command()
@click.argument("point")
@click.argument("time")
@config_option
@json_option
def explain(point: str, time: str, config_path: str, as_json: bool) -> None:
    """What every check and rule says of POINT's newest reading at TIME, and the numbers it saw.

    TIME is ISO 8601; without an offset it is the city's. Judged again over the stored readings of the day before,
    with the limits of the config as it is now. What is learned over longer, and rules across points, are left out.
    """
    from ingest.explain import NoReadings
    from ingest.explain import as_json as to_json
    from ingest.explain import explain as why

    config = load_or_fail(config_path)
    zone = ZoneInfo(config.city.time_zone)
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        raise click.ClickException(f'"{time}" is no time; write it like 2026-07-01T03:00:00') from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    try:
        found = why(config, point, moment)
    except NoReadings as nothing:
        raise click.ClickException(str(nothing)) from None
    if as_json:
        _echo_json([to_json(found)])
        return
    at = datetime.fromtimestamp(found.time / 1e6, zone).isoformat(sep=" ", timespec="seconds")
    stored = ", ".join(found.checks) or "no check objected"
    click.echo(f"{point} at {at}: {found.value:g}, stored with flag {found.flag} ({stored})")
    click.echo(f"judged again over {found.seen} readings:")
    for one in found.verdicts:
        numbers = f"{_number(one.value)} {one.unit}".strip() + f", limit {_number(one.limit)}"
        click.echo(f"  {one.name:<16} class {one.objects}  {numbers}  {one.title}".rstrip())
    click.echo("held to:")
    for name, number in found.held_to.items():
        click.echo(f"  {name:<22} {number:g}")


def _number(value: float) -> str:
    return "-" if value != value else f"{value:g}"


def _echo_json(rows: list[dict[str, Any]]) -> None:
    import orjson

    for row in rows:
        click.echo(orjson.dumps(row, default=str).decode())
