"""Sorted rows of one hour become files of a Delta table: whole row groups, a new file when one is large.

Owns the writing of compacted and gathered files and their fsync. Knows nothing of merging or of commits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from storage.compact_plan import FILE_ROWS_MAX
from storage.fsync import fsync_file
from storage.schema import ROW_GROUP_SEALED, reading_options
from storage.seal_plan import FileStats, partition_of
from storage.sealed import add_action, sync_folders


class PartFiles:
    """The files of one commit, written one after the other.

    folder  of the table
    name    gives the name of part 0, 1, …
    schema  of the rows, with the metadata the files carry
    moved   the rows stood in the table before, only elsewhere
    lasting they will stay for years: smaller, a little slower to write
    Raises OSError or pyarrow.ArrowException; ``discard`` then.
    """

    def __init__(
        self,
        folder: Path,
        hour: int,
        name: Callable[[int], str],
        schema: pa.Schema,
        *,
        moved: bool,
        lasting: bool = True,
    ) -> None:
        date, hour_of_day = partition_of(hour)
        self._folder = folder
        self._partition = folder / f"date={date}" / f"hour={hour_of_day:02d}"
        self._hour = hour
        self._name = name
        self._schema = schema
        self._moved = moved
        self._options = reading_options(schema, lasting=lasting)
        self._writer: pq.ParquetWriter | None = None
        self._stats = FileStats()
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self.paths: list[Path] = []
        self.rows = 0
        self._actions: list[AddAction] = []

    def write(self, table: pa.Table) -> None:
        """The next rows; what does not fill a row group waits."""
        if table.num_rows == 0:
            return
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        if self._waiting_rows < ROW_GROUP_SEALED:
            return
        whole = self._waiting_rows - self._waiting_rows % ROW_GROUP_SEALED
        waiting = pa.concat_tables(self._waiting)
        self._put(waiting.slice(0, whole))
        rest = waiting.slice(whole)
        self._waiting, self._waiting_rows = [rest] if rest.num_rows else [], rest.num_rows

    def _put(self, table: pa.Table) -> None:
        while table.num_rows:
            if self._writer is None:
                self._open_part()
            taken = table.slice(0, FILE_ROWS_MAX - self._stats.rows)
            table = table.slice(taken.num_rows)
            assert self._writer is not None
            self._writer.write_table(
                taken.replace_schema_metadata(self._schema.metadata), row_group_size=ROW_GROUP_SEALED
            )
            self._stats.add(taken)
            self.rows += taken.num_rows
            if self._stats.rows >= FILE_ROWS_MAX:
                self._close_part()

    def _open_part(self) -> None:
        self._partition.mkdir(parents=True, exist_ok=True)
        self.paths.append(self._partition / self._name(len(self.paths)))
        self._writer = pq.ParquetWriter(self.paths[-1], self._schema, **self._options)
        self._stats = FileStats()

    def _close_part(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        fsync_file(self.paths[-1])
        self._actions.append(
            add_action(self._folder, self.paths[-1], self._hour, self._stats, moved=self._moved)
        )

    def finish(self) -> list[AddAction]:
        """Write the rest; files and folders are on disk on return. The actions that add the files."""
        if self._waiting:
            self._put(pa.concat_tables(self._waiting))
            self._waiting, self._waiting_rows = [], 0
        self._close_part()
        sync_folders(self._folder, self.paths)
        return self._actions

    def discard(self) -> None:
        """Remove what was written: it is not committed and never will be."""
        if self._writer is not None:
            self._writer.close()
        for path in self.paths:
            path.unlink(missing_ok=True)
