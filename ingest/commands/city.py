"""`yuzui city`: the whole demo city, 365 systems that speak as their devices do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ingest.cli import json_option

_scale = click.option(
    "--scale", default=1.0, show_default=True, help="Share of each system's devices; at least one of each."
)
_seed = click.option("--seed", default=1, show_default=True)


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
@click.option("--port", default=1883, show_default=True, help="Of the engine's MQTT listener.")
@click.option("--ops-port", default=9180, show_default=True)
@click.option("--port-first", default=21_200, show_default=True, help="First of the ports for plain TCP.")
@click.option("--interval", "interval_s", type=float, help="Seconds between a device's readings, for all.")
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
@click.option("--seconds", default=60, show_default=True)
@_scale
@_seed
@click.option("--port", default=1883, show_default=True, help="Of the engine's MQTT listener.")
@click.option("--events", default=1.0, show_default=True, help="Cases a day, in times the city's own.")
@json_option
def speak(
    folder: Path, seconds: int, scale: float, seed: int, port: int, events: float, as_json: bool
) -> None:
    """Be all systems of FOLDER, with --scale and --seed as they were made; note what the lake must hold."""
    from ingest.commands.demo import city_folder
    from ingest.simulate.systems.speak import report
    from ingest.simulate.systems.speak import speak as spoken

    _needs(folder, "yuzui.toml", "make it: yuzui city make")
    said = asyncio.run(
        spoken(folder, city_folder(), seconds=seconds, scale=scale, seed=seed, port=port, events=events)
    )
    _show(report(said), as_json)


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Hold the lake of FOLDER against the ledger. Exit code 1 where they differ."""
    from ingest.simulate.systems.check import check as checked

    _needs(folder, "yuzui.toml", "make it: yuzui city make")
    _needs(folder, "data/lake.sql", "run the engine on it, then yuzui city speak")
    found = checked(folder)
    _show(asdict(found), as_json)
    if not found.good:
        raise SystemExit(1)


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
