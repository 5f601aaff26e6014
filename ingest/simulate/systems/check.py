"""The lake held against the ledger of the whole city, reading by reading.

Owns the comparison; asks the lake by its own lake.sql, as an analyst would.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import duckdb

from storage.query import REFRESH

PATIENCE_S: Final = 60.0
"""Until the last acknowledged reading shows: a second or two where nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Readings by the ledger and in the lake. ``lost`` stands in the ledger alone, ``invented`` in the lake alone,
    ``wrong`` has another value, ``doubled`` comes more than once; the same of event steps."""

    ledger: int
    stored: int
    lost: int
    wrong: int
    invented: int
    doubled: int
    quarantined: int
    sources: int
    steps: int
    steps_lost: int
    steps_invented: int

    @property
    def good(self) -> bool:
        """Everything is there, once, and as it was."""
        return not (
            self.lost + self.wrong + self.invented + self.doubled + self.quarantined
            + self.steps_lost + self.steps_invented
        )  # fmt: skip


_READINGS = """
WITH stored AS (
    SELECT point_id, time, count(*) AS n, min(value) AS value FROM readings GROUP BY ALL
), met AS (
    SELECT l.point_id AS said, s.point_id AS kept, s.n, l.value AS sent, s.value
    FROM read_parquet(?) AS l FULL JOIN stored AS s ON l.point_id = s.point_id AND l.time = s.time
)
SELECT count(said), count(kept), count(*) FILTER (kept IS NULL),
    count(*) FILTER (said IS NOT NULL AND kept IS NOT NULL AND sent IS DISTINCT FROM value),
    count(*) FILTER (said IS NULL), count(*) FILTER (n > 1)
FROM met
"""
_STEPS = """
WITH met AS (
    SELECT l.id AS said, s.id AS kept
    FROM (SELECT DISTINCT source, id, state, make_timestamptz(time) AS at FROM read_parquet(?)) AS l
    FULL JOIN event_log AS s ON l.source = s.source AND l.id = s.id AND l.state = s.state AND l.at = s.time
)
SELECT count(said), count(*) FILTER (kept IS NULL), count(*) FILTER (said IS NULL) FROM met
"""


def check(folder: Path, patience_s: float = PATIENCE_S) -> Verdict:
    """Compare; asks again until nothing is lost or ``patience_s`` has passed. Raises duckdb.Error, OSError."""
    ledger = folder / "ledger"
    with duckdb.connect() as con:
        con.execute((folder / "data" / "lake.sql").read_text("utf-8"))
        end = time.monotonic() + patience_s
        while True:
            con.execute(REFRESH)
            readings = _one(con, _READINGS, str(ledger / "readings.parquet"))
            steps = _one(con, _STEPS, str(ledger / "steps.parquet"))
            if not (readings[2] or steps[1]) or time.monotonic() > end:
                break
            time.sleep(1.0)
        quarantined, sources = _one(
            con, "SELECT (SELECT count(*) FROM quarantine), (SELECT count(DISTINCT source) FROM readings)"
        )
    columns = [field.name for field in fields(Verdict)]
    return Verdict(**dict(zip(columns, (*readings, quarantined, sources, *steps), strict=True)))


def _one(con: duckdb.DuckDBPyConnection, sql: str, *given: str) -> tuple[int, ...]:
    row = con.execute(sql, list(given)).fetchone()
    assert row is not None
    return tuple(int(cell) for cell in row)
