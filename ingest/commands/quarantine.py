"""`yuzui quarantine`: what was refused and why, one of them in full, and sent through again once that is mended."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import Number, data_dir, engine_vitals, load_or_fail, plain
from ingest.decode.reasons import REASONS

if TYPE_CHECKING:
    import duckdb

    from ingest.replayspool import Spooled

FILE_MESSAGES_MAX: Final = 10_000
"""Messages in one file of the spool: at 64 KiB each it fits any memory the engine has."""
BYTES_SHOWN: Final = 4096
INT64_MAX: Final = (1 << 63) - 1
WIDTH: Final = 200
"""Of a table in a file or pipe: there is no window it must fit."""
LOOK_S: Final = 0.2
OUTCOME_S_MAX: Final = 10.0
"""For the lake to show what is on disk; it takes a second or two."""
NEVER: Final = ("not_allowed", "oversized")
"""Not sent again unless named: the first was forbidden, of the second only the head was kept."""

_MESSAGES = """
    SELECT holder, list(id ORDER BY id) AS ids, any_value(received_at) AS at, any_value(source) AS source,
           any_value(topic) AS topic, any_value(client) AS client, any_value(bytes) AS raw
    FROM (
        SELECT *, last_value(CASE WHEN octet_length(raw) > 0 THEN id END IGNORE NULLS) OVER message AS holder,
               last_value(CASE WHEN octet_length(raw) > 0 THEN raw END IGNORE NULLS) OVER message AS bytes
        FROM quarantine
        WINDOW message AS (PARTITION BY received_at, source, topic, client ORDER BY id
                           ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    )
    WHERE replayed_at IS NULL AND holder IS NOT NULL
    GROUP BY holder HAVING count(*) FILTER (WHERE {chosen}) > 0 ORDER BY holder
"""
"""Refusals of one message keep its bytes once: the others lean on the one before that has them."""


@click.group()
def command() -> None:
    """Refused messages: list them, show one, send them through again after a mapping is mended."""


def _filters(function: Any) -> Any:
    for option in reversed(
        (
            click.option("--source", help="Only of this source."),
            click.option("--reason", help="Only for this reason."),
            click.option("--topic", help="Only of topics like this; * stands for anything."),
            click.option("--since", help="Only received at or after this time, such as 2026-07-01 08:00."),
            click.option("--until", help="Only received before this time."),
        )
    ):
        function = option(function)
    return function


def _chosen(
    source: str | None, reason: str | None, topic: str | None, since: str | None, until: str | None
) -> tuple[str, list[Any]]:
    """A condition in SQL, and what stands for its question marks."""
    parts, values = ["true"], []
    for condition, value in (
        ("source = ?", source),
        ("reason = ?", reason),
        ("topic GLOB ?", topic),
        ("received_at >= CAST(? AS TIMESTAMPTZ)", since),
        ("received_at < CAST(? AS TIMESTAMPTZ)", until),
    ):
        if value is not None:
            parts.append(condition)
            values.append(value)
    return " AND ".join(parts), values


def _lake(root: Path) -> duckdb.DuckDBPyConnection:
    from storage import query

    if not (root / "lake.sql").is_file():
        raise click.ClickException(f"no lake in {root}: nothing was received yet")
    return query.connect(root)


def _asked(lake: duckdb.DuckDBPyConnection, sql: str, values: list[Any]) -> list[dict[str, Any]]:
    import duckdb

    try:
        answer = lake.execute(sql, values)
    except duckdb.ConversionException as fault:
        raise click.ClickException(f"no time: {str(fault).splitlines()[0]}") from None
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@command.command("list")
@config_option
@_filters
@click.option(
    "--each", is_flag=True, help="One line a refusal, the newest first, instead of one a source and reason."
)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@json_option
def list_(config_path: str, each: bool, limit: int, as_json: bool, **chosen: str | None) -> None:
    """Refusals by source and reason, the most first."""
    condition, values = _chosen(**chosen)
    columns = (
        "id, received_at, source, reason, topic, detail, replayed_at" if each else
        "source, reason, count(*) AS refusals, count(replayed_at) AS replayed, sum(octet_length(raw)) AS bytes,"
        " max(received_at) AS newest, max(id) AS newest_id"
    )  # fmt: skip
    order = "ORDER BY id DESC" if each else "GROUP BY ALL ORDER BY refusals DESC"
    rows = _asked(
        _lake(data_dir(config_path)),
        f"SELECT {columns} FROM quarantine WHERE {condition} {order} LIMIT {limit}",
        values,
    )
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row, default=str).decode())
        return
    if not rows:
        click.echo("nothing was refused")
        return
    _table(rows)
    if not each:
        click.echo("yuzui quarantine show NEWEST_ID says what one is and what to do")


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        # As text: brackets in what strangers sent are no markup of rich.
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    Console(soft_wrap=False, width=None if sys.stdout.isatty() else WIDTH).print(table)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return "" if value is None else plain(value)


@command.command()
@config_option
@click.argument("number", type=click.IntRange(0, INT64_MAX))
@json_option
def show(config_path: str, number: int, as_json: bool) -> None:
    """One refusal in full: its bytes, what to do, and what the config of now would make of it."""
    config = load_or_fail(config_path)
    lake = _lake(Path(config.data.dir))
    rows = _asked(lake, "SELECT * FROM quarantine WHERE id = ?", [number])
    if not rows:
        raise click.ClickException(f"no refusal {number}; `yuzui quarantine list --each` shows them")
    row = rows[0]
    held = _asked(lake, _MESSAGES.format(chosen="id = ?").replace("replayed_at IS NULL AND", ""), [number])
    raw = bytes(held[0]["raw"]) if held else b""
    reason = REASONS.get(row["reason"])
    row |= {"raw": _readable(raw), "advice": reason.advice if reason else ""}
    now = _now(config, row, raw) if raw else "its bytes were not kept"
    if as_json:
        click.echo(orjson.dumps(row | {"now": now}, default=str).decode())
        return
    for name, value in row.items():
        if value not in (None, ""):
            click.echo(f"{name:16}{value if name == 'raw' else _cell(value)}")
    click.echo(f"{'now':16}{now}")


def _readable(raw: bytes) -> str:
    """As text where it is some, else in hexadecimal digits."""
    shown = raw[:BYTES_SHOWN]
    text = shown.decode(errors="replace")
    plain = "\N{REPLACEMENT CHARACTER}" not in text and all(c.isprintable() or c in "\r\n\t" for c in text)
    cut = f" … {len(raw):,} bytes" if len(raw) > BYTES_SHOWN else ""
    return (text if plain else shown.hex(" ")) + cut


def _now(config: Any, row: dict[str, Any], raw: bytes) -> str:
    """What the config of now would make of a message, in a few words."""
    from ingest.sourcetrial import try_message

    settings = next((one for one in config.source if one.name == row["source"]), None)
    if settings is None:
        return "its source is not in the config"
    trial = try_message(config, settings, None if settings.port else row["topic"], raw)
    refused = ", ".join(sorted({one.reason for one in trial.refusals}))
    return (
        f"{len(trial.readings)} readings, {len(trial.refusals)} refusals{f': {refused}' if refused else ''}"
    )


@command.command()
@config_option
@_filters
@click.option(
    "--id",
    "numbers",
    type=click.IntRange(0, INT64_MAX),
    multiple=True,
    help="Only this refusal. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Say how many messages would be sent, and send none.")
@click.option(
    "--wait-s",
    default=600.0,
    show_default=True,
    type=Number(0),
    help="How long to wait for the engine; 0 does not wait.",
)
@json_option
def replay(
    config_path: str,
    numbers: tuple[int, ...],
    dry_run: bool,
    wait_s: float,
    as_json: bool,
    **chosen: str | None,
) -> None:
    """Send refused messages through the running engine again, each once, with its topic and the time it was received.

    Mend the mapping or the registry first, and `yuzui reload`. What comes through is stored, what does not is refused
    anew; both are marked as replayed. not_allowed and oversized are left alone unless --reason or --id names them.
    Where no engine runs the messages wait for its next start.
    """
    from ingest.replayspool import spool

    root = data_dir(config_path)
    condition, values = _chosen(**chosen)
    if numbers:
        condition += f" AND id IN ({', '.join(map(str, numbers))})"
    elif chosen["reason"] is None:
        condition += f" AND reason NOT IN {NEVER}"
    spooled = list(_spoolable(root, condition, values))
    ids = [number for one in spooled for number in one.ids]
    if dry_run or not spooled:
        report = {"messages": len(spooled), "refusals": len(ids)}
        words = (
            f"{len(spooled):,} messages with {len(ids):,} refusals would be sent"
            if spooled
            else "nothing to send"
        )
        click.echo(orjson.dumps(report).decode() if as_json else words)
        return
    files = [
        spool(root, spooled[begin : begin + FILE_MESSAGES_MAX])
        for begin in range(0, len(spooled), FILE_MESSAGES_MAX)
    ]
    report = {"messages": len(spooled), "refusals": len(ids), "done": _gone(root, files, wait_s)}
    if report["done"]:
        report |= _outcome(root, spooled, wait_s)
    click.echo(orjson.dumps(report).decode() if as_json else _words(report))
    if not report["done"]:
        raise click.exceptions.Exit(1)


def _spoolable(root: Path, condition: str, values: list[Any]) -> Iterator[Spooled]:
    """Messages whose bytes are whole; the others are told."""
    from ingest.replayspool import Spooled
    from storage.records import RAW_BYTES_MAX

    cut = 0
    for row in _asked(_lake(root), _MESSAGES.format(chosen=condition), values):
        raw = bytes(row["raw"])
        if len(raw) >= RAW_BYTES_MAX:
            cut += 1
            continue
        at = row["at"].astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        us = (at.days * 86_400 + at.seconds) * 1_000_000 + at.microseconds
        yield Spooled(row["ids"], us, row["source"], row["topic"], row["client"], raw)
    if cut:
        click.echo(
            f"{cut} messages are left out: of more than {RAW_BYTES_MAX:,} bytes only the head was kept",
            err=True,
        )


def _gone(root: Path, files: list[Path], wait_s: float) -> bool:
    """Wait until the engine has taken every file; whether it has."""
    if engine_vitals(root) is None:
        click.echo("no engine answers for this data folder: the messages wait for its next start", err=True)
        return False
    end = time.monotonic() + wait_s
    left = len(files)
    shown = left
    while left and time.monotonic() < end:
        time.sleep(LOOK_S)
        left = sum(file.exists() for file in files)
        if left != shown:
            click.echo(f"{len(files) - left} of {len(files)} files of messages are through", err=True)
            shown = left
    return not left


def _outcome(root: Path, spooled: list[Spooled], wait_s: float) -> dict[str, int]:
    """What came of the messages, once the lake shows the last mark. One refusal of each stands for its message."""
    end = time.monotonic() + min(wait_s, OUTCOME_S_MAX)
    sql = """
        SELECT count(replayed_at) AS marked, coalesce(sum(replay_stored), 0)::BIGINT AS stored,
               coalesce(sum(replay_refused), 0)::BIGINT AS refused
        FROM quarantine WHERE id IN (SELECT unnest(?::BIGINT[]))
    """
    while True:
        row = _asked(_lake(root), sql, [[one.ids[0] for one in spooled]])[0]
        if row["marked"] == len(spooled) or time.monotonic() > end:
            return {"stored": row["stored"], "refused_again": row["refused"]}
        time.sleep(LOOK_S)


def _words(report: dict[str, Any]) -> str:
    sent = f"{report['messages']:,} messages with {report['refusals']:,} refusals"
    if not report["done"]:
        return f"{sent} wait for the engine"
    return f"{sent} were sent: {report['stored']:,} readings stored, {report['refused_again']:,} refused anew"
