"""What was sent against what the lake holds: by point, counts, times and values, exactly.

Owns the verdict of a measurement. Asks the lake as anybody would, with DuckDB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from ingest.simulate.fleet import Fleet
from storage.query import connect


@dataclass(slots=True)
class Count:
    """Readings, summed over points. ``wrong``: points whose number is right and whose times or values are not."""

    sent: int = 0
    stored: int = 0
    lost: int = 0
    surplus: int = 0
    wrong: int = 0


def expected(files: Sequence[tuple[Path, Fleet]]) -> dict[str, list[float]]:
    """Of each point id: readings, sum of times in ms since 1970 (exact), sum of values."""
    wanted: dict[str, list[float]] = {}
    for path, fleet in files:
        with np.load(path) as saved:
            values = saved["value_sum"] / np.power(10.0, saved["decimals"].astype(np.float64))
            times = saved["ms_sum"] + saved["count"] * int(saved["since_ms"])
            columns = (saved["row"].tolist(), saved["count"].tolist(), times.tolist(), values.tolist())
        for row, count, ms, value in zip(*columns, strict=True):
            found = wanted.setdefault(fleet.point_id[row], [0, 0, 0.0])
            found[0] += count
            found[1] += ms
            found[2] += value
    return wanted


def count_lake(data: Path, wanted: dict[str, list[float]], leave_out: str) -> Count:
    """Compare with every reading of the lake but those of the point ``leave_out``."""
    con = connect(data)
    rows = con.execute(
        """SELECT p.point_id, r.n, r.ms, r.v FROM
           (SELECT point, count(*) AS n, sum(epoch_ms(time)::HUGEINT) AS ms, sum(value) AS v
            FROM readings GROUP BY point) r JOIN points p USING (point)"""
    ).fetchall()
    con.close()
    found = Count(sent=round(sum(w[0] for w in wanted.values())))
    here = {point_id: (n, int(ms), v) for point_id, n, ms, v in rows if point_id != leave_out}
    for point_id in wanted.keys() | here.keys():
        n, ms, value = wanted.get(point_id, (0, 0, 0.0))
        stored, stored_ms, stored_value = here.get(point_id, (0, 0, 0.0))
        found.stored += stored
        found.lost += max(0, int(n) - stored)
        found.surplus += max(0, stored - int(n))
        found.wrong += stored == n and (stored_ms != ms or abs((stored_value or 0.0) - value) > 0.004)
    return found


def numbers_of(data: Path, prefix: str) -> list[int]:
    """The engine's numbers of the points whose id begins with ``prefix``. Raises duckdb.Error."""
    con: duckdb.DuckDBPyConnection = connect(data)
    rows = con.execute("SELECT point FROM points WHERE starts_with(point_id, $1)", [prefix]).fetchall()
    con.close()
    return [int(row[0]) for row in rows]
