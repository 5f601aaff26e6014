"""`yuzui check`: is this config right, without connecting anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import load_or_fail
from ingest.config import Config
from ingest.configfile import ConfigFaults, load
from ingest.mapdoor import users_faults
from ingest.modes import too_open
from storage import retention

if TYPE_CHECKING:
    import polars as pl


def credential_faults(config: Config) -> list[str]:
    """What is wrong with the listener's credentials file, a line each."""
    from ingest.credentials import Credentials, CredentialsFault

    file = config.listener.credentials_file
    try:
        Credentials.load(file)
    except CredentialsFault as wrong:
        return [f"{file}: {fault}" for fault in wrong.faults]
    except OSError as fault:
        return [f"$.listener.credentials_file: {file}: {fault.strerror}; make it with `yuzui credential add`"]
    return []


def query_faults(config: Config) -> tuple[int, list[str]]:
    """How many saved queries can be asked, and which files are broken, a line each; nothing without a console."""
    if not config.console.enabled:
        return 0, []
    try:
        from console.querytrial import try_queries
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "console":
            raise
        return 0, []
    own = Path(config.console.queries_dir) if config.console.queries_dir else None
    good, broken = try_queries(own, config.city.time_zone)
    return good, [f"query {one.file}: {' '.join(one.fault.split())}" for one in broken]


def _loaded(config_path: str, as_json: bool) -> Config:
    """The config; its faults as JSON where a machine asks."""
    if as_json and Path(config_path).is_file():
        try:
            return load(Path(config_path))
        except ConfigFaults as wrong:
            lines = [str(fault) for fault in wrong.faults]
            found = {"config": config_path, "faults": len(lines), "fault_lines": lines}
            click.echo(orjson.dumps(found).decode())
            raise click.exceptions.Exit(2) from None
    return load_or_fail(config_path)


def routes_to_nothing(config: Config, points: pl.DataFrame) -> Iterator[str]:
    """What a route names and no point is: most often a slip, and on the night the wrong people are called."""
    here = {"kinds": set(points["kind"]), "districts": set(points["district"])}
    for number, route in enumerate(config.route if points.height else ()):
        for key, known in here.items():
            for name in getattr(route, key):
                if name not in known:
                    yield f'$.route[{number}].{key}: no point of the registry has "{name}"'


@click.command()
@config_option
@json_option
def command(config_path: str, as_json: bool) -> None:
    """Validate config, drop-in folder, registry, credentials and saved queries, offline; every fault at once."""
    from ingest.points import read_registry

    config = _loaded(config_path, as_json)
    registry = read_registry(Path(config.points.file), config)
    queries, broken = query_faults(config)
    credentials = [*credential_faults(config), *users_faults(config)]
    fault_lines = [*registry.report(), *credentials, *broken]
    kinds = Counter(registry.table["kind"].to_list())
    found = {
        "config": config_path,
        "points": registry.table.height,
        "faults": registry.faults_count + len(credentials) + len(broken),
        "kinds": dict(kinds.most_common()),
        "sources": [s.name for s in config.source],
        "listener": f"{config.listener.host}:{config.listener.port}" if config.listener.enabled else None,
        "subscribers": [s.name for s in config.subscriber],
        "webhooks": [w.name for w in config.webhook],
        "queries": queries,
        "data": config.data.dir,
        "deletes": retention.says(config.retention),
        "warnings": (warnings := [*too_open(config), *routes_to_nothing(config, registry.table)]),
    }
    if as_json:
        click.echo(orjson.dumps(found | {"fault_lines": fault_lines}).decode())
    else:
        for line in fault_lines:
            click.echo(line, err=True)
        verdict = (
            "config is right"
            if not found["faults"]
            else "registry, credentials, users or queries have faults"
        )
        listener = f"listener on {found['listener']}" if found["listener"] else "no listener"
        click.echo(
            f"{verdict}: {found['points']:,} points of {len(kinds)} kinds, {len(config.source)} sources, "
            f"{len(config.subscriber)} brokers, {listener}, {len(config.webhook)} webhooks; "
            f"data in {config.data.dir}"
        )
        for line in retention.says(config.retention):
            click.echo(line)
        for line in warnings:
            click.echo(f"warning: {line}", err=True)
    if found["faults"]:
        raise click.exceptions.Exit(2)
