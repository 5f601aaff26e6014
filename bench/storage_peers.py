"""What the lake is measured against: arrival-order minute files, and ClickHouse inside this process (chdb).

Owns how the peers hold the same rows. Both get every column the lake has; ClickHouse gets its own best layout, a
MergeTree ordered by (point, time), and the codecs its manual recommends for such columns.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from bench.storage_hours import MINUTES, Hour
from storage.schema import to_arrow

CLICKHOUSE_TABLE: Final = """
CREATE TABLE readings (
    point Int32 CODEC(Delta, ZSTD(1)), time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    lag_ms Nullable(Int32) CODEC(ZSTD(1)), value Nullable(Float64) CODEC(Gorilla, ZSTD(1)),
    device_flag Int8 CODEC(ZSTD(1)), flag Int8 CODEC(ZSTD(1)),
    checks Int32 CODEC(ZSTD(1)), score Nullable(Float32) CODEC(ZSTD(1))
) ENGINE = MergeTree ORDER BY (point, time)
"""


class MinuteFiles:
    """A Parquet file a minute, rows as they arrived: pyarrow's own defaults, no order, no compaction."""

    def __init__(self, folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        self.folder = folder

    def add(self, hour: Hour) -> None:
        """Write the sixty files of an hour."""
        for minute in range(MINUTES):
            path = self.folder / f"{hour.seq:06d}-{minute:02d}.parquet"
            pq.write_table(to_arrow(hour.minute(minute), late=False), path)

    @property
    def pattern(self) -> str:
        """For DuckDB's read_parquet."""
        return str(self.folder / "*.parquet")


class ClickHouse:
    """A chdb session over its own folder. Needs the bench requirements."""

    def __init__(self, folder: Path) -> None:
        from chdb.session import Session

        if folder.exists():
            shutil.rmtree(folder)
        self.folder = folder
        self._session: Any = Session(str(folder))  # type: ignore[no-untyped-call]
        self.run("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
        self.run("USE bench")

    def load(self, minutes: MinuteFiles, hours: int) -> None:
        """Take in the minute files of the first hours and merge all parts, as a table is after a quiet night."""
        self.run("DROP TABLE IF EXISTS readings")
        self.run(CLICKHOUSE_TABLE)
        files = minutes.folder / f"{{{1:06d}..{hours:06d}}}-*.parquet"
        self.run(f"INSERT INTO readings SELECT * FROM file('{files}', Parquet)")
        self.run("OPTIMIZE TABLE readings FINAL")

    def run(self, sql: str) -> str:
        """The answer as CSV."""
        return str(self._session.query(sql, "CSV"))

    def bytes(self) -> int:
        """Compressed bytes of the table's columns."""
        return int(
            self.run(
                "SELECT sum(data_compressed_bytes) FROM system.parts WHERE active AND table = 'readings'"
            )
        )

    def close(self) -> None:
        """End the session and remove its folder."""
        self._session.close()
        shutil.rmtree(self.folder, ignore_errors=True)
