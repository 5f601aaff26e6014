"""The verdict: the ledger of what was sent, against what stands in the lake, by plain DuckDB.

Owns the comparison and nothing else. Runs ``lake.sql`` as its text and imports nothing of the engine, so
what it says is what any analyst's DuckDB would see. Bounded in memory: it goes through time in windows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import duckdb

ROWS_PER_WINDOW = 2_000_000
"""Ledger rows compared at once: some 200 MB."""
MEMORY = "1GB"
EXAMPLES_MAX = 10


@dataclass(slots=True)
class Verdict:
    """Counts of keys (point, time) unless they say otherwise.

    sent        handed to a connection; acked, refused: of those
    stored      keys of the ledger that stand in ``readings``
    lost        acked and not in ``readings``
    missing     sent and not in ``readings``: what QoS 0 must be judged by
    duplicates  rows of ``readings`` beyond one for a key
    wrong       stored with another value than the one sent last
    invented    keys in ``readings`` that were never sent
    readings    rows of the view
    examples    a few of the keys that are lost, doubled, wrong or invented
    """

    sent: int = 0
    acked: int = 0
    refused: int = 0
    stored: int = 0
    lost: int = 0
    missing: int = 0
    duplicates: int = 0
    wrong: int = 0
    invented: int = 0
    readings: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing acknowledged is lost, doubled, changed or made up."""
        return not (self.lost or self.duplicates or self.wrong or self.invented)


def verdict(
    data_dir: Path, ledger_dir: Path, missing_values: Sequence[float] = (), others: bool = False
) -> Verdict:
    """Compare the lake in ``data_dir`` with the ledger in ``ledger_dir``.

    missing_values  codes such as -9999 that must stand as NULL
    others          the lake also holds points that are not in the ledger; they are not looked at

    A key sent several times with different values must hold the last one. Raises OSError, duckdb.Error.
    """
    begun = time.monotonic()
    found = Verdict()
    # Without files a ledger of nothing was sent; the comparison still finds what was made up.
    files = sorted(str(path) for path in ledger_dir.glob("readings-*.parquet"))
    with duckdb.connect() as con:
        con.execute((data_dir / "lake.sql").read_text(encoding="utf-8"))
        con.execute(f"SET memory_limit = '{MEMORY}'")
        con.execute("SET preserve_insertion_order = false")
        _load_ledger(con, ledger_dir, files, missing_values)
        for begin, end in _windows(con):
            _compare(con, begin, end, found, others)
    found.seconds = round(time.monotonic() - begun, 3)
    return found


def _load_ledger(
    con: duckdb.DuckDBPyConnection, ledger_dir: Path, files: list[str], missing_values: Sequence[float]
) -> None:
    """Views ``ledger`` (point, time_us, value, sent_us, state) and table ``known`` (number, point)."""
    con.execute(
        """CREATE TEMP TABLE known AS
           SELECT l.number, coalesce(p.point, -1 - l.number) AS point, l.point_id
           FROM read_parquet($1) l
           LEFT JOIN (SELECT DISTINCT point, point_id FROM points) p USING (point_id)""",
        [str(ledger_dir / "points.parquet")],
    )
    con.execute("CREATE TEMP TABLE code AS SELECT unnest($1::DOUBLE[]) AS value", [list(missing_values)])
    if files:
        con.execute("SET VARIABLE ledger_files = $1", [files])
        con.execute(
            """CREATE TEMP VIEW ledger AS
               SELECT number, time_us, sent_us, state,
                      CASE WHEN value IN (FROM code) THEN NULL ELSE value END AS value
               FROM read_parquet(getvariable('ledger_files'))"""
        )
    else:
        con.execute(
            """CREATE TEMP TABLE ledger
               (number INTEGER, time_us BIGINT, value DOUBLE, sent_us BIGINT, state UTINYINT)"""
        )


def _windows(con: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """Spans [begin, end) of µs since 1970 that cover all time, each of about ROWS_PER_WINDOW ledger rows."""
    least, most = -(1 << 62), 1 << 62
    seconds = con.execute(
        "SELECT time_us // 1000000 AS second, count(*) FROM ledger GROUP BY second ORDER BY second"
    ).fetchall()
    bounds = [least]
    rows = 0
    for second, count in seconds:
        if rows + count > ROWS_PER_WINDOW and rows:
            bounds.append(second * 1_000_000)
            rows = 0
        rows += count
    bounds.append(most)
    return list(pairwise(bounds))


def _compare(con: duckdb.DuckDBPyConnection, begin: int, end: int, found: Verdict, others: bool) -> None:
    only = "SEMI JOIN known k ON k.point = r.point" if others else ""
    # The bounds as times too: files outside them are not opened. DuckDB's own range is narrower than int64.
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE compared AS
        WITH said AS (
            SELECT k.point, l.time_us, arg_max(struct_pack(v := l.value), l.sent_us).v AS value,
                   bool_or(l.state >= 1) AS sent, bool_or(l.state = 2) AS acked,
                   bool_or(l.state = 3) AS refused
            FROM ledger l JOIN known k USING (number)
            WHERE l.time_us >= $begin AND l.time_us < $end
            GROUP BY k.point, l.time_us
        ), kept AS (
            SELECT r.point, epoch_us(r.time) AS time_us, count(*) AS n,
                   any_value(struct_pack(v := r.value)).v AS value
            FROM readings r {only}
            WHERE r.time >= make_timestamptz($from_us) AND r.time < make_timestamptz($to_us)
            GROUP BY r.point, r.time
        )
        SELECT point, time_us, coalesce(said.sent, false) AS sent, coalesce(said.acked, false) AS acked,
               coalesce(said.refused, false) AS refused, coalesce(kept.n, 0) AS n,
               said.value AS said, kept.value AS kept
        FROM said FULL JOIN kept USING (point, time_us)
        """,
        {"begin": begin, "end": end, "from_us": max(begin, -(10**16)), "to_us": min(end, 10**16)},
    )
    tallies = {
        "sent": "sent",
        "acked": "acked",
        "refused": "refused",
        "stored": "sent AND n > 0",
        "lost": "acked AND n = 0",
        "missing": "sent AND n = 0",
        "wrong": "sent AND n > 0 AND said IS DISTINCT FROM kept",
        "invented": "NOT sent AND n > 0",
    }
    columns = ", ".join(f"count(*) FILTER ({condition})" for condition in tallies.values())
    row = con.execute(
        f"SELECT {columns}, coalesce(sum(greatest(n - 1, 0)), 0), coalesce(sum(n), 0) FROM compared"
    ).fetchone()
    assert row is not None
    for name, count in zip((*tallies, "duplicates", "readings"), row, strict=True):
        setattr(found, name, getattr(found, name) + int(count))
    if len(found.examples) < EXAMPLES_MAX and not found.clean:
        found.examples += _examples(con, EXAMPLES_MAX - len(found.examples))


def _examples(con: duckdb.DuckDBPyConnection, limit: int) -> list[str]:
    rows = con.execute(
        """SELECT CASE WHEN NOT sent THEN 'invented' WHEN n = 0 THEN 'lost' WHEN n > 1 THEN 'doubled'
                       ELSE 'wrong' END, coalesce(k.point_id, 'point ' || c.point), c.time_us, c.said, c.kept
           FROM compared c LEFT JOIN known k USING (point)
           WHERE (acked AND n = 0) OR n > 1 OR (NOT sent AND n > 0)
                 OR (sent AND n > 0 AND said IS DISTINCT FROM kept)
           LIMIT $1""",
        [limit],
    ).fetchall()
    return [
        f"{what} {point} at {time_us} µs: sent {said}, stored {kept}"
        for what, point, time_us, said, kept in rows
    ]
