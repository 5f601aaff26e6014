"""`yuzui city`: the whole demo city, 365 systems that speak as their devices do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ingest.cli import json_option
from ingest.commands.common import Number

_scale = click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=Number(0, 10, min_open=True),
    help="Share of each system's devices; at least one of each.",
)
_seed = click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
_port = click.option(
    "--port",
    default=1883,
    show_default=True,
    type=click.IntRange(1, 65_535),
    help="Of the engine's MQTT listener.",
)


@click.group()
def command() -> None:
    """The whole demo city: 116,200 sensors and 97,200 cameras of 365 systems, each in its own protocol.

    \b
    yuzui city make data/city              # config, one file a system, registry
    yuzui run -c data/city/yuzui.toml      # the engine, elsewhere
    yuzui city speak data/city             # be all 365 systems
    yuzui city check data/city             # the lake against what was said
    """


@command.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_scale
@_seed
@_port
@click.option("--ops-port", default=9180, show_default=True, type=click.IntRange(0, 65_535))
@click.option(
    "--port-first",
    default=21_200,
    show_default=True,
    type=click.IntRange(1, 65_000),
    help="First of the ports for plain TCP.",
)
@click.option(
    "--interval", "interval_s", type=Number(1), help="Seconds between a device's readings, for all."
)
def make(
    folder: Path, scale: float, seed: int, port: int, ops_port: int, port_first: int, interval_s: float | None
) -> None:
    """Generate FOLDER: yuzui.toml, sources.d with 365 files, points.parquet."""
    from ingest.commands.demo import city_folder
    from ingest.simulate.systems.make import make as made

    try:
        found = made(
            folder, city_folder(), scale=scale, seed=seed, port=port, ops_port=ops_port, port_first=port_first,
            interval_s=interval_s,
        )  # fmt: skip
    except ValueError as wrong:
        raise click.ClickException(str(wrong)) from None
    click.echo(f"{folder}: {found.systems} systems, {found.devices:,} devices, {found.points:,} points")
    click.echo(f"next: yuzui run -c {folder / 'yuzui.toml'}, and beside it yuzui city speak {folder}")


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(1))
@_scale
@_seed
@_port
@click.option(
    "--events", default=1.0, show_default=True, type=Number(0), help="Cases a day, in times the city's own."
)
@json_option
def speak(
    folder: Path, seconds: int, scale: float, seed: int, port: int, events: float, as_json: bool
) -> None:
    """Be all systems of FOLDER, with --scale and --seed as they were made; note what the lake must hold."""
    from ingest.commands.demo import city_folder
    from ingest.simulate.systems.speak import report
    from ingest.simulate.systems.speak import speak as spoken

    _needs(folder, "yuzui.toml", "make it: yuzui city make")
    try:
        said = asyncio.run(
            spoken(folder, city_folder(), seconds=seconds, scale=scale, seed=seed, port=port, events=events)
        )
    except ExceptionGroup as faults:
        raise click.ClickException(_first(faults, port)) from None
    _show(report(said), as_json)


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Hold the lake of FOLDER against the ledger. Exit code 1 where they differ."""
    from ingest.simulate.systems.check import check as checked

    _needs(folder, "yuzui.toml", "make it: yuzui city make")
    _needs(folder, "data/lake.sql", "run the engine on it, then yuzui city speak")
    _needs(folder, "ledger/readings.parquet", "be the city first: yuzui city speak")
    found = checked(folder)
    _show(asdict(found), as_json)
    if not found.good:
        raise click.exceptions.Exit(1)


def _first(faults: ExceptionGroup[Exception], port: int) -> str:
    """Why the systems could not speak: one answer, for all 365 met the same. Re-raises what is our own mistake."""
    import aiomqtt

    told, others = faults.split((OSError, aiomqtt.MqttError))
    if told is None or others is not None:
        raise faults
    first: BaseException = told
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return (
        f"not all systems could speak to the engine at 127.0.0.1:{port} and its ports for plain TCP: {first}. "
        "Is it up, on this folder?"
    )


def _needs(folder: Path, name: str, what_to_do: str) -> None:
    if not (folder / name).is_file():
        raise click.ClickException(f"{folder} has no {name}: {what_to_do} {folder}")


def _show(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(said))
        return
    for name, value in said.items():
        shown = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
        click.echo(f"{name.replace('_', ' '):>18}  {shown}")
