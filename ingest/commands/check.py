"""`yuzui check`: is this config right, without connecting anywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import load_or_fail


@click.command()
@config_option
@json_option
def command(config_path: str, as_json: bool) -> None:
    """Validate the config, its drop-in folder and the registry, offline; every fault at once."""
    from ingest.points import read_registry

    config = load_or_fail(config_path)
    registry = read_registry(Path(config.points.file), config)
    kinds = Counter(registry.table["kind"].to_list())
    found = {
        "config": config_path,
        "points": registry.table.height,
        "faults": registry.faults_count,
        "kinds": dict(kinds.most_common()),
        "sources": [s.name for s in config.source],
        "listener": f"{config.listener.host}:{config.listener.port}" if config.listener.enabled else None,
        "subscribers": [s.name for s in config.subscriber],
        "webhooks": [w.name for w in config.webhook],
        "data": config.data.dir,
        "deletes": "nothing: retention is not configured",
    }
    if as_json:
        click.echo(orjson.dumps(found | {"fault_lines": registry.report()}).decode())
    else:
        for line in registry.report():
            click.echo(line, err=True)
        click.echo(
            f"{'config is right' if not registry.faults_count else 'registry has faults'}: "
            f"{registry.table.height:,} points of {len(kinds)} kinds, {len(config.source)} sources, "
            f"{len(config.subscriber)} brokers, "
            f"{'listener on ' + str(found['listener']) if found['listener'] else 'no listener'}, "
            f"{len(config.webhook)} webhooks; data in {config.data.dir}; deletes nothing"
        )
    if registry.faults_count:
        raise click.exceptions.Exit(2)
