"""`yuzui sql`: the lake, in plain DuckDB SQL; a copied lake; and the door for others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ingest.cli import config_option
from ingest.commands.common import data_dir, load_or_fail, plain

if TYPE_CHECKING:
    import pyarrow as pa

CELL_CHARS_MAX = 60
"""Wider text is cut on a terminal; --format csv or json shows all of it."""
ROWS_SHOWN_MAX = 200
BATCH_ROWS = 8192


@click.command()
@click.argument("query", required=False)
@config_option
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True
)
@click.option(
    "--data", "folder", type=click.Path(file_okay=False), help="A data folder, instead of the config's."
)
@click.option(
    "--lake",
    type=click.Path(file_okay=False, exists=True),
    help="A copied lake folder, even on a read-only medium.",
)
@click.option(
    "--write", "out", type=click.Path(dir_okay=False), help="With --lake: write lake.sql for it here."
)
@click.option("--time-zone", default="Asia/Shanghai", show_default=True, help="With --lake: the city's.")
@click.option("--serve", is_flag=True, help="Answer read-only SQL over HTTP as [sql] of the config says.")
def command(
    query: str | None,
    config_path: str,
    form: str,
    folder: str | None,
    lake: str | None,
    out: str | None,
    time_zone: str,
    serve: bool,
) -> None:
    """Run QUERY, or statements typed at a prompt (or piped in). Views are refreshed before each.

    \b
    yuzui sql "SELECT district, count(*) FROM latest GROUP BY 1"
    yuzui sql --lake /media/copy/lake "SELECT count(*) FROM readings"
    """
    if out and not lake:
        raise click.ClickException("--write needs --lake: a data folder has its lake.sql already")
    if serve:
        _serve(config_path, folder)
    elif lake:
        with _copied(Path(lake), out, time_zone) as made:
            if query or not out:
                _answer(made, query, form)
    else:
        root = Path(folder) if folder else data_dir(config_path)
        if not (root / "lake.sql").is_file():
            raise click.ClickException(
                f"no lake.sql in {root}: start the engine once, or name a data folder with --data"
            )
        _answer(root / "lake.sql", query, form)


def _answer(lake_sql: Path, query: str | None, form: str) -> None:
    import duckdb
    import pyarrow as pa

    from storage import query as lake

    failed = False
    with duckdb.connect() as con:
        con.execute(lake_sql.read_text(encoding="utf-8"))
        for statement in [query] if query else _typed(sys.stdin):
            try:
                lake.refresh(con, lake_sql.parent)
                answer = con.sql(statement)
                if answer is not None:
                    # Once, for a relation runs again at every fetch; and in pieces: all of a lake fits no memory.
                    _show(answer.to_arrow_reader(BATCH_ROWS), form)
            except BrokenPipeError:
                raise
            except (duckdb.Error, pa.ArrowException, OSError) as fault:
                if query:
                    raise click.ClickException(str(fault)) from None
                click.echo(f"error: {fault}", err=True)
                failed = True
    # At a prompt a person has seen it; a script sees the code.
    if failed and not sys.stdin.isatty():
        raise click.exceptions.Exit(1)


@contextmanager
def _copied(lake: Path, out: str | None, time_zone: str) -> Iterator[Path]:
    """lake.sql over a copied lake: at ``out``, or somewhere for as long as it is needed."""
    import tempfile

    from storage.query import write_copy_sql

    try:
        if out:
            yield write_copy_sql(lake, Path(out), time_zone)
            click.echo(f"duckdb -init {out}", err=True)
            return
        with tempfile.TemporaryDirectory(prefix="yuzui-") as scratch:
            yield write_copy_sql(lake, Path(scratch) / "lake.sql", time_zone)
    except (OSError, ValueError) as fault:
        raise click.ClickException(str(fault)) from None


def _serve(config_path: str, folder: str | None) -> None:
    import asyncio
    import signal

    from ingest.sqldoor import serve

    config = load_or_fail(config_path)
    root = Path(folder) if folder else Path(config.data.dir)

    def up(port: int) -> None:
        click.echo(f"POST http://{config.sql.host}:{port}/sql", err=True)

    try:
        asyncio.run(serve(root, config.sql, up, (signal.SIGTERM, signal.SIGINT)))
    except (OSError, ValueError) as fault:
        raise click.ClickException(str(fault)) from None


def _typed(lines: IO[str]) -> Any:
    """Statements ended by a semicolon, from a prompt or a pipe."""
    at_terminal = lines.isatty()
    if at_terminal:
        click.echo("views and macros: docs/sql.md · end with ; · Ctrl-D leaves")
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


def _show(reader: pa.RecordBatchReader, form: str) -> None:
    names = _different(reader.schema.names)
    if form == "csv":
        _show_csv(reader, names)
    elif form == "json":
        _show_json(reader, names)
    else:
        _show_table(reader, names)


def _show_csv(reader: pa.RecordBatchReader, names: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.csv

    schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])
    try:
        writer = pyarrow.csv.CSVWriter(sys.stdout.buffer, schema)
    except pa.ArrowException as fault:
        raise click.ClickException(
            f"CSV cannot hold this ({fault}): ask for --format json, or cast to VARCHAR"
        ) from None
    with writer:
        for batch in reader:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def _show_json(reader: pa.RecordBatchReader, names: list[str]) -> None:
    import orjson

    from storage.sqlsession import plain_json

    for row in _rows(reader):
        said = {name: plain_json(value) for name, value in zip(names, row, strict=True)}
        click.echo(orjson.dumps(said, default=str).decode())


def _show_table(reader: pa.RecordBatchReader, names: list[str]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    shown = Table(*(Column(Text(name)) for name in names))
    for number, row in enumerate(_rows(reader)):
        if number == ROWS_SHOWN_MAX:
            break
        # As text: brackets in a cell are no markup of rich, and what strangers sent moves no cursor.
        cells = ("" if v is None else plain(str(v)[:CELL_CHARS_MAX], keep="\n\t") for v in row)
        shown.add_row(*(Text(cell) for cell in cells))
    else:
        number = -1
    console = Console()
    console.print(shown)
    if number == ROWS_SHOWN_MAX:
        console.print(f"the first {ROWS_SHOWN_MAX} rows; --format csv shows all")


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _different(names: list[str]) -> list[str]:
    """Names of columns as DuckDB's own shell has them: of two of one name the second is NAME_1."""
    found: list[str] = []
    for name in names:
        number, other = 1, name
        while other in found:
            number, other = number + 1, f"{name}_{number}"
        found.append(other)
    return found
