"""`yuzui points`: the registry, from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ingest.cli import config_option
from ingest.commands.common import alone, load_or_fail
from ingest.shipped import is_installed, shipped

SAMPLE_BYTES_SHOWN = 200
PROPOSED_MAX = 10_000
"""More unknown points than this are a scan or a wrong config, not points to add."""

_UNKNOWN = f"""
    SELECT source, topic, point_id, count(*) AS n, any_value(raw)[:{SAMPLE_BYTES_SHOWN}] AS sample
    FROM quarantine WHERE reason IN ('unknown_topic', 'unknown_point') AND replayed_at IS NULL
    GROUP BY ALL ORDER BY n DESC LIMIT {PROPOSED_MAX}
"""


@click.group()
def command() -> None:
    """Add, retire, propose or generate points. A running engine takes a new registry with `yuzui reload`."""


@command.command()
@config_option
@click.option("--point-id", required=True)
@click.option("--source", required=True, help="A [[source]] of the config.")
@click.option(
    "--kind", required=True, help="What it measures: river_level, rain_gauge ... decides limits and unit."
)
@click.option("--topic", required=True, help="Where it publishes one reading a message.")
@click.option("--name", default="")
@click.option("--device-id", default="")
@click.option("--gateway-id", default="")
@click.option("--unit", default="")
@click.option("--district", default="")
@click.option("--lon", default="")
@click.option("--lat", default="")
@click.option("--expected-interval-s", default="0", show_default=True, help="0: never dead.")
@click.option("--time-from", type=click.Choice(["device", "receive"]), default="device", show_default=True)
@click.option("--range-min", default="")
@click.option("--range-max", default="")
@click.option("--level-blue", default="")
@click.option("--level-yellow", default="")
@click.option("--level-orange", default="")
@click.option("--level-red", default="")
@click.option("--level-gap", default="")
@click.option("--upstream", default="", help="point_id of the next point upstream.")
def add(config_path: str, **row: str) -> None:
    """Append one point to the registry, making the file where there is none. All or nothing."""
    from ingest.points import RegistryFaults, add_points

    config = load_or_fail(config_path)
    path = Path(config.points.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with alone(path):
            registry = add_points(path, config, [row])
    except RegistryFaults as faults:
        raise click.ClickException(f"nothing was changed:\n{faults}") from None
    click.echo(f"added {row['point_id']}; {registry.table.height:,} points in {path}")


@command.command()
@config_option
@click.argument("point_ids", nargs=-1, required=True)
def retire(config_path: str, point_ids: tuple[str, ...]) -> None:
    """Mark POINT_IDS as retired: numbers and readings stay, new readings are refused as retired_point."""
    from ingest.points import RegistryFaults, retire_points

    config = load_or_fail(config_path)
    path = Path(config.points.file)
    try:
        with alone(path):
            registry = retire_points(path, config, set(point_ids))
    except RegistryFaults as faults:
        raise click.ClickException(f"nothing was changed:\n{faults}") from None
    click.echo(
        f"retired {len(set(point_ids))}; {registry.table.height:,} live points in {config.points.file}"
    )


@command.command()
@config_option
@click.option("--out", type=click.Path(dir_okay=False), help="Write the CSV here instead of to the terminal.")
def propose(config_path: str, out: str | None) -> None:
    """Unknown topics and ids in quarantine, as rows to complete and add to the registry."""
    from ingest.pointproposal import Seen
    from ingest.pointproposal import propose as proposal
    from storage import query

    config = load_or_fail(config_path)
    root = Path(config.data.dir)
    if not (root / "lake.sql").is_file():
        raise click.ClickException(f"no lake in {root}: nothing was received yet")
    rows = query.connect(root).execute(_UNKNOWN).fetchall()
    text = proposal((Seen(*row) for row in rows), config)
    if out:
        Path(out).write_text(text, "utf-8")
        click.echo(f"{len(rows)} unknown points proposed in {out}")
    else:
        sys.stdout.write(text)


@command.command()
@click.option(
    "--city",
    "city_dir",
    default=lambda: str(shipped("chengdu")),
    show_default="the demo city",
    type=click.Path(file_okay=False),
)
@click.option("--points", default=116_200, show_default=True, type=click.IntRange(1))
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="Another seed, another city."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="Default: points.parquet, in a checkout in the city's folder, else here; .csv writes CSV.",
)
def generate(city_dir: str, points: int, seed: int, out: str | None) -> None:
    """Make the demo city's registry: invented sensors, real districts."""
    from ingest.simulate.city import generate as city
    from ingest.simulate.city import write

    path = Path(out) if out else (Path() if is_installed() else Path(city_dir)) / "points.parquet"
    write(city(Path(city_dir), points, seed), path)
    click.echo(f"{points:,} points in {path}")
