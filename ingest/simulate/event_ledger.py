"""The ledger of the city's offices: each message they handed over, its steps, and whether it was acknowledged.

Owns its one file, and the comparison of it with ``event_log`` as any analyst's DuckDB sees it. Knows nothing of sockets
or of the engine: a message that is told again because the engine was killed under it is still one message.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.simulate.events import Spoken
from storage.query import REFRESH

FILE: Final = "steps-offices.parquet"
SCHEMA: Final = pa.schema(
    [
        ("message", pa.int32()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("state", pa.string()),
        ("time_us", pa.int64()),
        ("acked", pa.bool_()),
    ]
)
ASK_AGAIN_S: Final = 0.5


class EventLedger:
    """What was told, in memory until ``write``: some thousand messages."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, bytes], Spoken] = {}
        self._acked: set[tuple[str, bytes]] = set()

    def sent(self, one: Spoken) -> None:
        """About to be handed to a connection; once more changes nothing."""
        self._said.setdefault((one.topic, one.payload), one)

    def acked(self, one: Spoken) -> None:
        """Its PUBACK came."""
        self._acked.add((one.topic, one.payload))

    def write(self, folder: Path) -> None:
        """One row a step. Raises OSError."""
        rows = [
            (number, step.source, step.id, step.state, step.at_us, key in self._acked)
            for number, (key, one) in enumerate(self._said.items())
            for step in one.steps
        ]
        columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)]
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(arrays, schema=SCHEMA), folder / FILE)


@dataclass(frozen=True, slots=True)
class EventVerdict:
    """Counts, and a few ``examples`` of what is wrong.

    Of messages: ``sent`` handed to a connection, ``acked`` of them, ``stored`` whole, ``lost`` acknowledged and not
    whole. Of steps: ``doubled`` beyond one, ``invented`` that no message held.
    """

    sent: int = 0
    acked: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    invented: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing acknowledged is lost, nothing doubled or made up."""
        return not (self.lost or self.doubled or self.invented)


_MET: Final = """
CREATE OR REPLACE TEMP TABLE met AS
WITH said AS (
    SELECT *, make_timestamptz(time_us) AS "time" FROM read_parquet(getvariable('offices'))
), kept AS (
    SELECT source, id, state, "time", count(*) AS n FROM event_log GROUP BY ALL
)
SELECT message, acked, coalesce(n, 0) AS n, source, id, state, "time"
FROM said FULL JOIN kept USING (source, id, state, "time")
"""
_COUNTS: Final = """
SELECT count(*), count(*) FILTER (acked), count(*) FILTER (whole), count(*) FILTER (acked AND NOT whole)
FROM (SELECT any_value(acked) AS acked, bool_and(n > 0) AS whole FROM met WHERE message IS NOT NULL GROUP BY message)
"""
_STEPS: Final = """
SELECT coalesce(sum(greatest(n - 1, 0)), 0), count(*) FILTER (message IS NULL) FROM met
"""
_EXAMPLES: Final = """
SELECT CASE WHEN message IS NULL THEN 'invented' WHEN n = 0 THEN 'lost' ELSE 'doubled' END || ' step ' || state
       || ' of ' || id || ' of ' || source || ' at ' || "time"
FROM met WHERE message IS NULL OR (acked AND n = 0) OR n > 1 LIMIT 5
"""


def event_verdict(data_dir: Path, ledger_dir: Path, patience_s: float = 0.0) -> EventVerdict:
    """Compare; asks again until nothing is lost or ``patience_s`` has passed. Raises duckdb.Error, OSError."""
    with duckdb.connect() as con:
        con.execute((data_dir / "lake.sql").read_text("utf-8"))
        con.execute("SET VARIABLE offices = $1", [str(ledger_dir / FILE)])
        end = time.monotonic() + patience_s
        while True:
            con.execute(_MET)
            counts, steps = con.execute(_COUNTS).fetchone(), con.execute(_STEPS).fetchone()
            assert counts is not None
            assert steps is not None
            if not counts[3] or time.monotonic() > end:
                examples = [str(row[0]) for row in con.execute(_EXAMPLES).fetchall()]
                sent, acked, stored, lost = map(int, counts)
                return EventVerdict(sent, acked, stored, lost, int(steps[0]), int(steps[1]), examples)
            time.sleep(ASK_AGAIN_S)
            con.execute(REFRESH)
