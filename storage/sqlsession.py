"""A caged DuckDB session over the lake that answers one statement after the other: for SQL of whoever it is.

Owns the session's limits and the form of answers. ``answer_lines`` reads one JSON object a line on stdin and writes to
stdout a JSON line (``status``, ``type``, ``bytes``) and that many bytes. It does not know who asks.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
import pyarrow as pa
import pyarrow.csv

from storage.batch import US_PER_S
from storage.query import refresh
from storage.sqlcage import enclose
from storage.sqlrules import NotAllowed, check, macros_of

BATCH_ROWS: Final = 8192
DOUBLE_DIGITS: Final = 15
"""Decimal digits that a double holds whatever they are."""
TRIAL: Final = "trial"
"""Instead of a format: is this a statement that could be answered?"""
TYPES: Final = {
    TRIAL: "text/plain",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}


class TooMuch(ValueError):  # noqa: N818 - says what happened
    """The answer is larger than the door gives."""


class Session:
    """A session over ``root`` that can read the lake's files only, for good; so can this process from now on."""

    def __init__(self, root: Path, limits: dict[str, Any]) -> None:
        self._limits = limits
        self._root = root
        text = (root / "lake.sql").read_text(encoding="utf-8")
        self._macros = macros_of(text)
        _warm_up(text)
        # Before DuckDB has threads, which it would not bind.
        self.enclosed = enclose(root / "lake")
        self._con = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
                "python_enable_replacements": False,
                "threads": limits["threads"],
                "memory_limit": f"{limits['memory_bytes']}B",
                # Spilling would be writing.
                "temp_directory": "",
                "max_temp_directory_size": "0B",
            }
        )
        self._con.execute(text)
        lake = str(root / "lake").replace("'", "''")
        self._con.execute(f"SET allowed_directories = ['{lake}/']")
        self._con.execute("SET enable_external_access = false")
        self._con.execute("SET lock_configuration = true")

    def answer(self, sql: str, form: str, parameters: dict[str, Any] | None = None) -> bytes:
        """The rows of ``sql`` as JSON, CSV or an Arrow stream; of TRIAL nothing, after it was only planned.

        parameters  bound to $names of the statement; never part of its text
        Raises NotAllowed, TooMuch, duckdb.Error.
        """
        check(self._con, sql, self._macros)
        refresh(self._con, self._root)
        timer = threading.Timer(self._limits["time_s_max"], self._con.interrupt)
        timer.start()
        try:
            if form == TRIAL:
                self._con.execute(f"EXPLAIN {sql}", parameters or {})
                return b""
            # Read once: a relation runs again at every fetch.
            reader = self._con.sql(sql, params=parameters or None).to_arrow_reader(BATCH_ROWS)
            return self._render(reader, form)
        finally:
            timer.cancel()

    def _render(self, reader: pa.RecordBatchReader, form: str) -> bytes:
        batches, rows, size = [], 0, 0
        for batch in reader:
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > self._limits["rows_max"]:
                raise TooMuch(f"more than {self._limits['rows_max']} rows: aggregate, or add LIMIT")
            if size > self._limits["bytes_max"]:
                raise TooMuch(f"more than {self._limits['bytes_max']} bytes: fewer columns or rows, please")
            batches.append(batch)
        table = pa.Table.from_batches(batches, reader.schema)
        body = {"json": _json, "csv": _csv, "arrow": _arrow}[form](table)
        if len(body) > self._limits["bytes_max"]:
            raise TooMuch(
                f"more than {self._limits['bytes_max']} bytes as {form}: fewer columns or rows, please"
            )
        return body


def _warm_up(lake_sql: str) -> None:
    """Import what is imported late, and read the city's time zone, while files can still be opened."""
    found = re.search(r"^SET TimeZone = '(.*)';$", lake_sql, re.MULTILINE)
    zone = found[1] if found else "UTC"
    table = pa.table({"time": pa.array([0], pa.timestamp("us", zone)), "day": pa.array([0], pa.date32())})
    for render in (_json, _csv, _arrow):
        render(table)
    duckdb.connect().close()


def plain_json(value: Any) -> Any:
    """What JSON has no word for: times as ISO 8601, bytes as hex, NaN and infinities as null, intervals as P0M1DT0S.

    A sum is a number, though DuckDB's is wider than 64 bits; what no number of JSON's readers holds becomes text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if value == (whole := int(value)) and value.as_tuple().exponent == 0:
            return whole if abs(whole) < 1 << 63 else str(value)
        return float(value) if len(value.as_tuple().digits) <= DOUBLE_DIGITS else str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9:g}S"
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain_json(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)


def _json(table: pa.Table) -> bytes:
    columns = [{"name": field.name, "type": str(field.type)} for field in table.schema]
    lists = [column.to_pylist() for column in table.columns]
    rows = [[plain_json(value) for value in row] for row in zip(*lists, strict=True)]
    return orjson.dumps({"columns": columns, "rows": rows}, default=str)


def _csv(table: pa.Table) -> bytes:
    out = io.BytesIO()
    try:
        pyarrow.csv.write_csv(table, out)
    except pa.ArrowException as fault:
        raise NotAllowed(
            f"CSV cannot hold this ({fault}): ask for json or arrow, or cast to VARCHAR"
        ) from None
    return out.getvalue()


def _arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def _bound(value: Any) -> Any:
    """A parameter's value; of a time its microseconds stand in an object."""
    return datetime.fromtimestamp(value["us"] / US_PER_S, UTC) if isinstance(value, dict) else value


def _one(session: Session, asked: dict[str, Any]) -> tuple[int, str, bytes]:
    """(HTTP status, media type, body) of one question."""
    try:
        bound = {name: _bound(value) for name, value in asked.get("parameters", {}).items()}
        return 200, TYPES[asked["format"]], session.answer(asked["sql"], asked["format"], bound)
    except NotAllowed as fault:
        status, text = 400, str(fault)
    except TooMuch as fault:
        status, text = 413, str(fault)
    except duckdb.InterruptException:
        status, text = (
            408,
            f"stopped after {session._limits['time_s_max']:g} s: ask for a shorter time or fewer points",
        )
    except duckdb.OutOfMemoryException:
        status, text = (
            413,
            "the statement needs more memory than the door gives: aggregate in steps, or less time",
        )
    except (duckdb.Error, pa.ArrowException, RecursionError, ValueError, TypeError) as fault:
        status, text = 400, f"{fault}"
    return status, TYPES["json"], orjson.dumps({"error": text})


def answer_lines() -> None:
    """Until stdin ends: its first line says root and limits, each later one is a question.

    A question is ``sql``, ``format`` and, for a statement with names such as $district, ``parameters``.
    """
    first = orjson.loads(sys.stdin.buffer.readline())
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(2, 1)  # nothing a library prints may pass for an answer
    session = Session(Path(first["root"]), first["limits"])
    out.write(orjson.dumps({"ready": True, "enclosed": session.enclosed}) + b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        status, kind, body = _one(session, orjson.loads(line))
        out.write(orjson.dumps({"status": status, "type": kind, "bytes": len(body)}) + b"\n" + body)
        out.flush()
