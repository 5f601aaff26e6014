"""`yuzui version`."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from ingest.cli import json_option

_SHOWN = ("yuzui", "numpy", "pyarrow", "duckdb", "deltalake", "orjson", "uvloop", "aiomqtt")


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Versions of Yuzui and of what decides its files and speed."""
    found = {"python": platform.python_version()} | {name: version(name) for name in _SHOWN}
    if as_json:
        import orjson

        click.echo(orjson.dumps(found).decode())
    else:
        click.echo("\n".join(f"{name:10} {number}" for name, number in found.items()))
