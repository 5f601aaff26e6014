"""Trial of saved queries without an engine: could each be answered by a lake of ours?

Owns the lake without readings that they are planned over, for as long as it lasts. For `yuzui check`.
"""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from console.queries import Broken, Library
from storage.pointmap import merge
from storage.query import connect, write_lake_sql
from storage.schema import REGISTRY
from storage.sqlrules import NotAllowed, check, macros_of

GRACE_S = 3600.0


def try_queries(own: Path | None, time_zone: str) -> tuple[int, list[Broken]]:
    """How many queries can be asked, and what is wrong with the others. Raises OSError."""
    library = Library(own)
    library.look()
    broken = list(library.broken)
    with tempfile.TemporaryDirectory(prefix="yuzui-check-") as folder:
        root = Path(folder)
        merge(root, pa.Table.from_pylist([], schema=REGISTRY), 0)
        lake_sql = write_lake_sql(root, time_zone, GRACE_S)
        macros, con = macros_of(lake_sql.read_text("utf-8")), connect(root)
        now = datetime.now(ZoneInfo(time_zone))
        for query in library.queries.values():
            try:
                check(con, query.sql, macros)
                con.execute(f"EXPLAIN {query.sql}", query.arguments({}, now))
            except (NotAllowed, duckdb.Error) as fault:
                broken.append(Broken(f"{query.name}.sql", str(fault)))
        con.close()
    faulty = {one.file for one in broken}
    return sum(f"{name}.sql" not in faulty for name in library.queries), broken
