"""Compacts an hour of many rows and prints what memory that took beyond what was taken before. Run as a module.

Arguments: an empty folder, points, files, rows in each file; then, in another process, the folder and memory_bytes.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.batch import ReadingBatch
from storage.compact import Compactor
from storage.deltatable import TableHandle
from storage.schema import READINGS, ROW_GROUP_SEALED, reading_options, to_arrow, with_metadata
from storage.seal_plan import FileStats, partition_of
from storage.sealed import APP_ID, add_action, ensure_tables, table_dir
from storage.settings import CompactionSettings
from tests.storage_oracle import finish
from tests.storage_rows import HOUR, T0


def readings(points: int, rows: int, begin_us: int, rng: np.random.Generator) -> pa.Table:
    """``rows`` readings from ``begin_us`` on, spread evenly over the points, sorted."""
    each = rows // points
    n = each * points
    time = begin_us + np.tile(np.arange(each), points) * 1000 + rng.integers(0, 900, n)
    return to_arrow(
        ReadingBatch(
            point=np.repeat(np.arange(points, dtype=np.int32), each), time=time, received_at=time + 50_000,
            value=np.round(rng.normal(20, 2, n), 1), device_flag=np.zeros(n, np.uint8), flag=np.ones(n, np.uint8),
            checks=np.zeros(n, np.uint32), score=np.zeros(n, np.float32), pos=np.zeros(n, np.int64),
        ),
        late=False,
    )  # fmt: skip


def seal_directly(root: Path, number: int, table: pa.Table) -> None:
    """One sealed file of one hour, without hot files before it."""
    handle = TableHandle(table_dir(root, late=False))
    hour = table["time"].cast(pa.int64())[0].as_py() // HOUR
    date, hour_of_day = partition_of(hour)
    first, last = number * 10, number * 10 + 9
    path = handle.folder / f"date={date}" / f"hour={hour_of_day:02d}" / f"{first:020d}-{last:020d}-0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = with_metadata(READINGS)
    with pq.ParquetWriter(path, schema, **reading_options(schema)) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=ROW_GROUP_SEALED)
    stats = FileStats()
    stats.add(table)
    handle.commit(APP_ID, last, [add_action(handle.folder, path, hour, stats)])


def peak_bytes() -> int:
    """The most this process had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make(root: Path, points: int, files: int, rows: int) -> None:
    """An hour of sealed files, and a reading two hours later."""
    rng = np.random.default_rng(3)
    ensure_tables(root)
    span = HOUR // files
    for number in range(files):
        seal_directly(root, number, readings(points, rows, T0 + number * span, rng))
    seal_directly(root, files, readings(1, 1, T0 + 2 * HOUR, rng))


def main() -> None:
    """See the module."""
    root, words = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    if len(words) == 3:
        make(root, *words)
        return
    compactor = Compactor(root, CompactionSettings(memory_bytes=words[0]))
    before = peak_bytes()
    (report,) = finish(compactor)
    print(
        json.dumps({"rows": report.rows, "files_after": report.files_after, "bytes": peak_bytes() - before})
    )


if __name__ == "__main__":
    main()
