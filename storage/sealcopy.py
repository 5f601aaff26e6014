"""A large hot file becomes the sealed file: copied and looked through, neither sorted nor encoded again.

Owns when that is right, the copy, and the look at all of it. Knows nothing of Delta and of the order of commits.

At full rate a second brings millions of rows in one hot file, sorted by point, the times of each point growing: a seal
would make the same file of it, for five times the work. A copy, not a second name of the same bytes: until the end of
the grace a rotten sealed file is made again from hot ones (storage.repair).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from storage.hot import HotFile
from storage.schema import READINGS
from storage.seal_plan import RANGE_ROWS

LARGE_SHARE: Final = 4
"""A file that holds a fourth of what one commit may take. Smaller ones are merged: a reader opens each file."""


def is_large(file: HotFile, rows: int, rows_max: int) -> bool:
    """Whether ``file``, of so many rows, is worth a commit of its own, of at most ``rows_max`` rows."""
    return not file.late and file.hour_min == file.hour_max and rows * LARGE_SHARE >= rows_max


def copy_of(file: HotFile, target: Path) -> bool:
    """Copy ``file`` to ``target``; False where its rows have not the shape of today: then the copy is of no use.

    Raises OSError, and pyarrow.ArrowException for a torn footer.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file.path, target)
    return bool(pq.read_schema(target).equals(READINGS))


def rows_of(path: Path) -> Iterator[pa.Table]:
    """The rows of a file in pieces, every page held against its checksum. Raises OSError or pyarrow.ArrowException."""
    with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
        for rows in file.iter_batches(RANGE_ROWS, use_threads=False):
            yield pa.Table.from_batches([rows])
