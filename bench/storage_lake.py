"""A lake of whole hours, laid down as compaction leaves it: sorted files, rollups, one Delta commit an hour.

Owns the short cut from rows that are sorted already to a lake. Files and commits are made by the compactor's own
writers; only its merge has nothing to do here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bench.storage_hours import MINUTES, CityHours, Hour
from storage.deltatable import TableHandle
from storage.latest import Latest, latest_dir
from storage.parts import PartFiles
from storage.pointmap import points_file
from storage.query import write_lake_sql
from storage.rollups import HourRollup
from storage.schema import META_FOLDED_POS, META_REPLACES, READINGS, to_arrow, with_metadata
from storage.seal_plan import COMPACT_APP, RANGE_ROWS
from storage.sealed import APP_ID, ensure_tables, table_dir

TIME_ZONE: Final = "Asia/Shanghai"
GRACE_S: Final = 7200.0


def new_lake(root: Path, map_file: Path) -> None:
    """An empty lake with the city's points and its lake.sql; what stood in ``root`` is removed."""
    if root.exists():
        shutil.rmtree(root)
    points_file(root).parent.mkdir(parents=True)
    shutil.copy(map_file, points_file(root))
    ensure_tables(root)
    write_lake_sql(root, TIME_ZONE, GRACE_S)


class Layer:
    """Lays hours into the lake of ``root``, one after the other, each a compaction of its own number."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows = 0
        self._main = TableHandle(table_dir(root, late=False))
        self._latest = Latest()
        self._number = 0

    def fill(self, city: CityHours, hours: int, also: Callable[[Hour], None] | None = None) -> None:
        """Lay down the first ``hours`` hours. ``also`` sees each hour's rows.

        Rows of the next hour are made, and rollups computed, beside the writing of an hour: numpy and pyarrow let
        go of the interpreter.
        """
        with ThreadPoolExecutor(2) as beside:
            coming = beside.submit(city.hour, 0)
            for number in range(hours):
                hour = coming.result()
                if number + 1 < hours:
                    coming = beside.submit(city.hour, number + 1)
                self._lay(hour, beside)
                if also is not None:
                    also(hour)
        self._main.commit(APP_ID, self._number, [])
        self._latest.seq = self._number
        latest_dir(self.root).mkdir(exist_ok=True)
        self._latest.save(self.root)

    def _lay(self, rows: Hour, beside: ThreadPoolExecutor) -> None:
        self._number += 1
        number = self._number
        schema = with_metadata(READINGS, "", {META_FOLDED_POS: b"-1", META_REPLACES: b"[]"})
        files = PartFiles(
            self._main.folder,
            rows.hour,
            lambda part: f"c{number:020d}-{part:04d}.parquet",
            schema,
            moved=False,
        )
        rollup = HourRollup(self.root, rows.hour, number, number - 1)
        step = RANGE_ROWS // MINUTES
        for begin in range(0, len(rows.point), step):
            table = to_arrow(rows.sorted(begin, begin + step), late=False)
            rolled = beside.submit(rollup.add, table)
            files.write(table)
            self._latest.fold(table, late=False)
            rolled.result()
        adds = files.finish()
        for _ in rollup.finish():
            pass
        self._main.commit(COMPACT_APP, number, adds)
        for path in rollup.replaced:
            path.unlink()
        self.rows += files.rows
