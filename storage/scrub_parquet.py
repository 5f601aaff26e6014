"""Where in a Parquet file the damage is, by its page checksums: row groups, columns, points and times.

Owns reading a file that may be rotten. Knows nothing of tables, hashes or what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

READ_FAULTS = (pa.ArrowException, OSError, ValueError, MemoryError)
"""What pyarrow raises over damaged bytes; a damaged length asks for more memory than there is."""


@dataclass(frozen=True, slots=True)
class BadRows:
    """Rows of one file that cannot be trusted.

    row_group      number of the row group; -1 for the whole file
    columns        those whose pages do not fit; empty where the damage is outside of all pages
    rows           how many; -1 where it cannot be known
    points, times  least and greatest, None where that column is damaged too
    """

    row_group: int
    columns: tuple[str, ...]
    rows: int
    points: tuple[int, int] | None = None
    times: tuple[datetime, datetime] | None = None


def bad_rows(path: Path) -> list[BadRows]:
    """Read every page and check it; [] where the file reads well. Raises FileNotFoundError."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except FileNotFoundError:
        raise
    except READ_FAULTS:
        return [BadRows(-1, (), -1)]
    with file:
        found = []
        for group in range(file.num_row_groups):
            try:
                file.read_row_group(group, use_threads=False)
            except READ_FAULTS:
                found.append(_group(file, group))
        return found


def _group(file: pq.ParquetFile, group: int) -> BadRows:
    bad, whole = [], {}
    for name in file.schema_arrow.names:
        try:
            column = file.read_row_group(group, columns=[name], use_threads=False)[name]
        except READ_FAULTS:
            bad.append(name)
        else:
            whole[name] = column
    # From the rows and not from the footer's statistics: over a damaged footer pyarrow ends the process there.
    spans = {name: _span(whole[name]) for name in ("point", "time") if name in whole}
    rows = max((len(column) for column in whole.values()), default=-1)
    return BadRows(group, tuple(bad), rows, spans.get("point"), spans.get("time"))


def _span(column: pa.ChunkedArray) -> Any:
    span = pc.min_max(column)
    return (span["min"].as_py(), span["max"].as_py()) if len(column) > column.null_count else None
