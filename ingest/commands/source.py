"""`yuzui source`: upstream systems, one file each: a new one, a captured message tried on it, and how they all do."""

from __future__ import annotations

import binascii
import math
import re
import sys
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import engine_answer, load_or_fail, plain

if TYPE_CHECKING:
    from ingest.config import Config, SourceSettings
    from ingest.sourcetrial import Trial

CODECS: Final = ("json", "hj212", "sl651", "senml", "senml-cbor", "csv", "sparkplug", "influx", "msgpack")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RAW_CHARS_SHOWN: Final = 100


@click.group()
def command() -> None:
    """One file a system in sources.d: write one, try a captured message on it, see what each sends."""


@command.command()
@config_option
@click.argument("name")
@click.option("--codec", type=click.Choice(CODECS), default="json", show_default=True)
@click.option(
    "--topic", "topics", multiple=True, help="Topic filter of it; {device} names a level. May be repeated."
)
@click.option(
    "--message", type=click.Path(), help="A captured JSON message (- is standard input): guess the mapping."
)
@click.option("--owner", default="", help="Who answers for it.")
@click.option("--field", "city_field", default="", help="The city's field of work, such as 环保.")
@click.option("--kind", default="", help="What its points are, such as river_level.")
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Write here instead of into sources.d; - shows it."
)
def new(
    config_path: str, name: str, codec: str, topics: tuple[str, ...], message: str | None, owner: str,
    city_field: str, kind: str, out: str | None,
) -> None:  # fmt: skip
    """Write a commented file for the system NAME; nothing is overwritten and nothing is asked."""
    from ingest.sourceproposal import guess, written

    if not NAME.fullmatch(name):
        raise click.ClickException(f'"{name}": a name has small letters, digits, - and _, at most 64')
    found = None
    if message is not None:
        found = guess(_payload(message, False))
        if found is None:
            click.echo(
                f"no mapping could be guessed from {message}: it is no JSON with numbers in it", err=True
            )
    text = written(
        codec=codec, topics=list(topics) or [f"{name}/{{device}}/data"], owner=owner, city_field=city_field, kind=kind,
        found=found, captured=message or "",
    )  # fmt: skip
    if out == "-":
        click.echo(text, nl=False)
        return
    path = Path(out) if out else Path(load_or_fail(config_path).sources.dir) / f"{name}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as there:
        raise click.ClickException(f"{there.filename} is there already: nothing was changed") from None
    tried = message if message is not None and message != "-" else "CAPTURED"
    click.echo(f"wrote {path}; try it: yuzui source test {quote(str(path))} --message {quote(tried)}")


@command.command()
@config_option
@click.argument("file")
@click.option("--message", required=True, help="What was captured: a file, or - for standard input.")
@click.option("--topic", help="Where it was published; needed where the source's filters have wildcards.")
@click.option("--hex", "is_hex", is_flag=True, help="The capture is written in hexadecimal digits.")
@json_option
def test(config_path: str, file: str, message: str, topic: str | None, is_hex: bool, as_json: bool) -> None:
    """Put a captured message through a source and show its readings and every refusal.

    FILE is a source's file, or the name of a source of the config. Where there is a config its registry is asked whose
    the readings are. Exit code 0: all of it was taken; 1: something was refused; 2: the file has faults.
    """
    from ingest.sourcetrial import try_message

    config, settings = _source_of(config_path, file)
    payload = _payload(message, is_hex)
    if topic is None and any(set("+#{") & set(pattern) for pattern in settings.topics):
        topic = _only_topic(settings)
    trial = try_message(config, settings, topic, payload)
    zone = ZoneInfo(settings.time_zone or config.city.time_zone)
    if as_json:
        click.echo(orjson.dumps(_as_json(trial), default=str).decode())
    else:
        _show(trial, settings, zone)
    if trial.refusals or not (trial.readings or trial.events):
        raise click.exceptions.Exit(1)


def _only_topic(settings: SourceSettings) -> str:
    """A topic is needed where it says something; else any that fits does."""
    from ingest.simulate.encoders.base import topic_of

    says = (
        any("{" in pattern for pattern in settings.topics)
        or "topic:" in f"{settings.device} {settings.quantity}"
    )
    if says:
        raise click.ClickException(
            f"the topic says whose the readings are: give --topic, one that fits {', '.join(settings.topics)}"
        )
    return topic_of(settings, "", "")


def _source_of(config_path: str, file: str) -> tuple[Config, SourceSettings]:
    """The config with the source in it. Without a config the file stands alone."""
    from ingest.configfile import ConfigFaults, load, load_source

    path = Path(file)
    if not path.is_file():
        config = load_or_fail(config_path)
        named = [one for one in config.source if one.name == file]
        if not named:
            raise click.ClickException(f'no file "{file}", and no source of that name in {config_path}')
        return config, named[0]
    try:
        main = Path(config_path)
        config = load(main, source=path) if main.is_file() else load_source(path)
    except ConfigFaults as faults:
        lines = "\n".join(f"  {fault}" for fault in faults.faults)
        raise click.ClickException(f"{len(faults.faults)} fault(s)\n{lines}") from None
    return config, config.source[-1]


def _payload(message: str, is_hex: bool) -> bytes:
    try:
        raw = sys.stdin.buffer.read() if message == "-" else Path(message).read_bytes()
    except OSError as fault:
        raise click.ClickException(f"{message}: {fault.strerror}") from None
    if not is_hex:
        return raw
    try:
        return binascii.unhexlify(re.sub(rb"0x|[\s:,]", b"", raw))
    except binascii.Error as fault:
        raise click.ClickException(f"{message}: not hexadecimal: {fault}") from None


def _as_json(trial: Trial) -> dict[str, Any]:
    return {
        "topic": trial.topic,
        "readings": [
            {
                "point_id": one.point_id, "time": _at(one.time_us, UTC),
                "value": None if math.isnan(one.value) else one.value, "unit": one.unit,
                "flag": one.flag, "in_window": one.in_window,
            }
            for one in trial.readings
        ],
        "refusals": [
            {"reason": one.reason, "detail": one.detail, "point_id": one.point_id, "advice": trial.advice(one)}
            for one in trial.refusals
        ],
        "events": trial.events,
        "left_over": trial.left_over,
    }  # fmt: skip


def _at(us: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).astimezone(zone).isoformat(timespec="milliseconds")


def _show(trial: Trial, settings: SourceSettings, zone: tzinfo) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True)
    if trial.readings:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("point", "time", "value", "unit", "flag", ""):
            table.add_column(
                name, justify="right" if name == "value" else "left", overflow="fold", no_wrap=name == "time"
            )
        for one in trial.readings:
            value = "no value" if math.isnan(one.value) else repr(one.value)
            note = "" if one.in_window else "outside the time window now"
            cells = (one.point_id, _at(one.time_us, zone), value, one.unit, str(one.flag or ""), note)
            table.add_row(*(Text(plain(cell)) for cell in cells))
        console.print(table)
    for event in trial.events:
        click.echo(f"event {event.type} {plain(event.id)}: {event.state} at {_at(event.at_us, zone)}")
    for refusal in trial.refusals:
        whose = f" {plain(refusal.point_id)}" if refusal.point_id else ""
        click.echo(
            f"refused: {refusal.reason}{whose}  {plain(refusal.detail)}\n    {_advice(trial, refusal, settings)}"
        )
    if trial.left_over:
        click.echo(f"not mapped: {plain(', '.join(trial.left_over))}")
    if not trial.registry and trial.readings:
        click.echo(
            "no registry was asked: each point needs a row in it, or its device a [devices] table in the file"
        )
    events = f", {len(trial.events)} events" if trial.events else ""
    click.echo(f"{len(trial.readings)} readings{events}, {len(trial.refusals)} refusals")


def _advice(trial: Trial, refusal: Any, settings: SourceSettings) -> str:
    if refusal.reason == "unknown_topic":
        return f"the source's filters are {', '.join(settings.topics) or 'none: give it topics'}"
    if refusal.reason == "unknown_point":
        return "give it a row in the registry, or its device a [devices] table in the source's file"
    return trial.advice(refusal)


@command.command("list")
@config_option
@click.option("--all", "every", is_flag=True, help="Also sources that have never sent.")
@json_option
def list_(config_path: str, every: bool, as_json: bool) -> None:
    """Every source, with what the running engine has counted since its start."""
    config = load_or_fail(config_path)
    counted = {one["source"]: one for one in engine_answer(Path(config.data.dir), "/sources") or []}
    rows = [
        {
            "source": one.name, "field": one.field, "owner": one.owner, "codec": one.codec,
            "door": f"port {one.port}" if one.port else ", ".join(one.topics) or one.gateway_topic or "points' topics",
            **counted.get(one.name, {}),
        }
        for one in config.source
    ]  # fmt: skip
    rows += [dict(one) for name, one in counted.items() if name not in {row["source"] for row in rows}]
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row).decode())
        return
    show_sources([row for row in rows if every or not counted or row.get("received")], config)
    silent = sum(not row.get("received") for row in rows)
    if not counted:
        click.echo("no engine answers for this data folder: nothing is counted")
    elif silent and not every:
        click.echo(f"{silent} sources have sent nothing; --all shows them")


def show_sources(rows: list[dict[str, Any]], config: Config) -> None:
    """A table of sources and their counts; times are the city's."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    zone = ZoneInfo(config.city.time_zone)
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = (
        "source",
        "field",
        "codec",
        "points",
        "online",
        "received",
        "per s",
        "quarantined",
        "late",
        "skew",
        "heard",
        "door",
    )
    for name in names:
        left = name in ("source", "field", "codec", "door")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows:
        refused = row.get("quarantined") or {}
        worst = max(refused, key=lambda reason: refused[reason], default="")
        cells = (
            row["source"], row.get("field", ""), row.get("codec", ""),
            _count(row.get("points")), _share(row.get("online")), _count(row.get("received")),
            _count(row.get("per_s"), 1),
            f"{sum(refused.values()):,} {worst}" if refused else "",
            _span(row.get("lateness_s")), _span(row.get("skew_s")), _heard(row.get("last_received_us"), zone),
            str(row.get("door", "")),
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))
    Console(soft_wrap=False, width=None if sys.stdout.isatty() else 200).print(table)


def _heard(us: int | None, zone: tzinfo) -> str:
    return "" if us is None else datetime.fromtimestamp(us / 1e6, zone).strftime("%m-%d %H:%M:%S")


def _count(number: float | None, digits: int = 0) -> str:
    return "" if number is None else f"{number:,.{digits}f}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _span(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f} s"
