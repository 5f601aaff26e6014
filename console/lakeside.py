"""One process that asks the lake for the console: a DuckDB session with a roof over its memory and time.

Owns the questions it answers, ``QUESTIONS`` by name, each a function of a session and JSON arguments. It reads one JSON
object a line on stdin and writes to stdout a JSON line (``status``, ``type``, ``bytes``) and that many bytes. It ends
with its stdin, so with the engine.
"""

from __future__ import annotations

import csv
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson

from console import pastasked, superviseside
from storage.query import connect, refresh

JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
RAW_MAX: Final = 5_000
BUCKETS: Final = 500
BUCKETS_MAX: Final = 2_000
MINUTE_S: Final = 60
HOUR_S: Final = 3600
RAW_SPAN_S: Final = 2 * HOUR_S
"""Above it minutes answer, and above DAYS hours, where no step is asked for."""
STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
FORECASTS_MAX: Final = 50
ALERTS_MAX: Final = 200

Answer = tuple[str, bytes]
Question = Callable[[duckdb.DuckDBPyConnection, dict[str, Any]], Answer]


def step_of(span_s: float, asked: float | None) -> int:
    """The width of buckets, s: what is asked, wider where that were too many; 0 for raw readings."""
    if asked is not None and asked <= 0:
        return 0
    most = BUCKETS if asked is None else BUCKETS_MAX
    wanted = max(asked or 0.0, span_s / most)
    return next((step for step in STEPS if step >= wanted), math.ceil(wanted / HOUR_S) * HOUR_S)


def history(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> Answer:
    """A point's past: ``point_id``, ``since``, ``until`` s, ``step`` s or None, ``format``; ``about`` is passed on."""
    since, until, point = float(asked["since"]), float(asked["until"]), _text(asked["point_id"])
    step = step_of(until - since, asked.get("step"))
    columns = _raw(con, point, since, until) if step == 0 else _buckets(con, point, since, until, step)
    if asked.get("format") == "csv":
        return CSV, _as_csv(columns)
    body: dict[str, Any] = {**asked["about"], "since": since, "until": until, "step_s": step, **columns}
    body["forecasts"] = _rows(
        con,
        'SELECT epoch(made_at) AS made_at, epoch("at") AS "at", value, method, "limit", eta_s FROM forecasts '
        f'WHERE point_id = {point} AND "at" >= {_time(since)} AND made_at < {_time(until)} '
        f'ORDER BY made_at DESC, "at" LIMIT {FORECASTS_MAX}',
    )
    body["alerts"] = _rows(
        con,
        'SELECT id, rule, "class", severity, epoch(onset) AS onset, epoch(ended_at) AS ended_at, summary_zh, '
        "summary_en "
        f"FROM alerts WHERE point_id = {point} AND onset < {_time(until)} "
        f"AND coalesce(ended_at, TIMESTAMPTZ 'infinity') >= {_time(since)} ORDER BY onset DESC LIMIT {ALERTS_MAX}",
    )
    return JSON, orjson.dumps(body, default=str)


def _raw(con: duckdb.DuckDBPyConnection, point: str, since: float, until: float) -> dict[str, Any]:
    """The newest RAW_MAX readings, oldest first."""
    rows = con.execute(
        f"SELECT epoch(time), value, flag, score FROM history({point}, {_time(since)}, {_time(until)}) "
        f"ORDER BY time DESC LIMIT {RAW_MAX + 1}"
    ).fetchall()
    kept = rows[:RAW_MAX][::-1]
    names = ("t", "value", "flag", "score")
    return {**{name: [row[i] for row in kept] for i, name in enumerate(names)}, "more": len(rows) > RAW_MAX}


def _buckets(
    con: duckdb.DuckDBPyConnection, point: str, since: float, until: float, step: int
) -> dict[str, Any]:
    """Minutes, hours or readings in buckets of ``step`` that begin at its multiples since 1970."""
    first = math.floor(since / step) * step
    span = f"{_time(first)}, {_time(until)}"
    own = f"(SELECT DISTINCT point FROM yuzui_points WHERE point_id = {point})"
    if step % MINUTE_S == 0:
        source = f"{'yuzui_hours' if step % HOUR_S == 0 else 'yuzui_minutes'}({span})"
        # The name of a table function is ours, the rest are numbers and a quoted text.
        parts = f'SELECT time, "count" AS n, good, "sum", "min", "max" FROM {source} SEMI JOIN {own} USING (point)'
    else:
        parts = (
            "SELECT time, 1 AS n, CASE WHEN flag IN (1, 2) AND value IS NOT NULL THEN 1 ELSE 0 END AS good, "
            'CASE WHEN flag IN (1, 2) THEN value END AS "sum", "sum" AS "min", "sum" AS "max" '
            f"FROM history({point}, {span})"
        )
    rows = con.execute(
        f'SELECT epoch_us(time) // {step * 1_000_000} * {step} AS t, min("min"), max("max"), '
        f'sum("sum") / nullif(sum(good), 0), CAST(sum(n) AS BIGINT), 1 - sum(good) / sum(n) '
        f"FROM ({parts}) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    names = ("t", "min", "max", "mean", "count", "bad")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def counts(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> Answer:
    """``map_counts`` at journal position ``pos``, or ``map_counts_at`` a moment ``t`` in s."""
    where = (
        f"map_counts({int(asked['pos'])})" if "pos" in asked else f"map_counts_at({_time(float(asked['t']))})"
    )
    return JSON, orjson.dumps({"rows": con.execute(f"FROM {where}").fetchall()})


QUESTIONS: Final[dict[str, Question]] = {
    "history": history,
    "counts": counts,
    "replay_days": pastasked.days,
    "replay_day": pastasked.day,
    "replay_levels": pastasked.levels,
    **superviseside.QUESTIONS,
}


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    found = con.execute(sql)
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _as_csv(columns: dict[str, Any]) -> bytes:
    lists = {name: column for name, column in columns.items() if isinstance(column, list)}
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(lists)
    writer.writerows(zip(*lists.values(), strict=True))
    return out.getvalue().encode()


def _time(seconds: float) -> str:
    """A moment as an SQL constant."""
    return f"make_timestamptz({round(seconds * 1e6)}::BIGINT)"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''").replace("\0", "") + "'"


class Session:
    """DuckDB over ``root``; one question at a time."""

    def __init__(self, root: Path, memory_bytes: int, time_s_max: float) -> None:
        self._root = root
        self._time_s_max = time_s_max
        self._con = connect(root)
        for name, value in (
            ("threads", "1"),
            ("memory_limit", f"'{memory_bytes}B'"),
            ("temp_directory", "''"),
        ):
            self._con.execute(f"SET {name} = {value}")

    def ask(self, question: Question, arguments: dict[str, Any]) -> Answer:
        """Raises duckdb.Error; InterruptException after the time limit."""
        refresh(self._con, self._root)
        timer = threading.Timer(self._time_s_max, self._con.interrupt)
        timer.start()
        try:
            return question(self._con, arguments)
        finally:
            timer.cancel()


def _one(session: Session, asked: dict[str, Any]) -> tuple[int, str, bytes]:
    """(HTTP status, media type, body) of one question."""
    try:
        return 200, *session.ask(QUESTIONS[asked["ask"]], asked)
    except duckdb.InterruptException:
        status, text = 503, "the lake did not answer in time: ask for a shorter span"
    except duckdb.OutOfMemoryException:
        status, text = 503, "the answer needs more memory than is allowed: ask for a shorter span"
    except (duckdb.Error, ValueError, OverflowError) as fault:
        status, text = 500, f"the lake cannot be asked: {fault}"
    return status, JSON, orjson.dumps({"error": text})


def main() -> None:
    """Body of the process: the first line says root and limits, each later one is a question."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = orjson.loads(sys.stdin.buffer.readline())
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(2, 1)  # nothing a library prints may pass for an answer
    session = Session(Path(first["root"]), first["memory_bytes"], first["time_s_max"])
    out.write(b'{"ready": true}\n')
    out.flush()
    for line in sys.stdin.buffer:
        status, kind, body = _one(session, orjson.loads(line))
        out.write(orjson.dumps({"status": status, "type": kind, "bytes": len(body)}) + b"\n" + body)
        out.flush()


if __name__ == "__main__":
    main()
