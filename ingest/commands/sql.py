"""`yuzui sql`: the lake, in plain DuckDB SQL."""

from __future__ import annotations

import sys
from typing import IO, Any

import click

from ingest.cli import config_option
from ingest.commands.common import data_dir

CELL_CHARS_MAX = 60
"""Wider text is cut on a terminal; --format csv or json shows all of it."""
ROWS_SHOWN_MAX = 200


@click.command()
@click.argument("query", required=False)
@config_option
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True
)
@click.option(
    "--data", "folder", type=click.Path(file_okay=False), help="A data folder, instead of the config's."
)
def command(query: str | None, config_path: str, form: str, folder: str | None) -> None:
    """Run QUERY, or statements typed at a prompt (or piped in). Views are refreshed before each.

    \b
    yuzui sql "SELECT district, count(*) FROM latest JOIN points USING (point_id) GROUP BY 1"
    """
    from pathlib import Path

    import duckdb

    from storage import query as lake

    root = Path(folder) if folder else data_dir(config_path)
    if not (root / "lake.sql").is_file():
        raise click.ClickException(
            f"no lake.sql in {root}: start the engine once, or name a data folder with --data"
        )
    con = lake.connect(root)
    statements = [query] if query else _typed(sys.stdin)
    for statement in statements:
        lake.refresh(con, root)
        try:
            answer = con.sql(statement)
            if answer is not None:
                # Once: a relation runs again at every fetch.
                _show(answer.to_arrow_table(), form)
        except duckdb.Error as fault:
            if query:
                raise click.ClickException(str(fault)) from None
            click.echo(f"error: {fault}", err=True)


def _typed(lines: IO[str]) -> Any:
    """Statements ended by a semicolon, from a prompt or a pipe."""
    at_terminal = lines.isatty()
    if at_terminal:
        click.echo(
            "views: readings readings_good latest points alerts quarantine · end with ; · Ctrl-D leaves"
        )
    buffer = ""
    while True:
        if at_terminal:
            click.echo("yuzui> " if not buffer else "   ...> ", nl=False)
        line = lines.readline()
        buffer += line
        if buffer.rstrip().endswith(";") or (not line and buffer.strip()):
            yield buffer
            buffer = ""
        if not line:
            return


def _show(table: Any, form: str) -> None:
    if form == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(table, sys.stdout.buffer)
        return
    if form == "json":
        import orjson

        for row in table.to_pylist():
            click.echo(orjson.dumps(row, default=str).decode())
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(*table.column_names)
    for row in table.slice(0, ROWS_SHOWN_MAX).to_pylist():
        shown.add_row(*("" if v is None else str(v)[:CELL_CHARS_MAX] for v in row.values()))
    console = Console()
    console.print(shown)
    if len(table) > ROWS_SHOWN_MAX:
        console.print(f"{ROWS_SHOWN_MAX} of {len(table)} rows; --format csv shows all")
