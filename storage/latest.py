"""The last reading of every point, as arrays and as one small file beside the sealed tables.

Owns lake/latest: what "last" means and how it is carried from seal to seal. Without it a point that fell
silent a month ago could only be found by scanning that month. Knows nothing of Delta or of hot files.

Last is the greatest time; a late reading of that same time replaces it, for it was received afterwards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage.fsync import fsync_dir, replace_durably
from storage.hashes import keep_hashes
from storage.schema import READINGS, TIME, reading_options, with_metadata

_NAME = re.compile(r"(\d{20})\.parquet")
_NEVER = np.iinfo(np.int64).min


class Latest:
    """Arrays by point number; ``seq`` is the journal seq up to which readings are folded in.

    time int64 µs (the least int64 where the point never spoke); lag_ms float64 and score float32 and
    value float64, NaN where NULL; device_flag, flag int8; checks int32
    """

    def __init__(self) -> None:
        self.seq = -1
        self.columns: dict[str, npt.NDArray[Any]] = {
            "time": np.empty(0, np.int64),
            "lag_ms": np.empty(0, np.float64),
            "value": np.empty(0, np.float64),
            "device_flag": np.empty(0, np.int8),
            "flag": np.empty(0, np.int8),
            "checks": np.empty(0, np.int32),
            "score": np.empty(0, np.float32),
        }

    def _grow(self, points: int) -> None:
        have = len(self.columns["time"])
        if points <= have:
            return
        for name, old in self.columns.items():
            new = np.full(points, _NEVER if name == "time" else 0, old.dtype)
            new[:have] = old
            self.columns[name] = new

    def fold(self, table: pa.Table, *, late: bool) -> None:
        """Take in rows sorted by (point, time), late ones further by ``pos``; main before late of a span."""
        if table.num_rows == 0:
            return
        point = table["point"].to_numpy()
        last = np.flatnonzero(np.append(point[1:] != point[:-1], True))
        point = point[last]
        self._grow(int(point[-1]) + 1)
        time = table["time"].cast(pa.int64()).to_numpy()[last]
        known = self.columns["time"][point]
        newer = time >= known if late else time > known
        rows, point = last[newer], point[newer]
        self.columns["time"][point] = time[newer]
        for name, column in self.columns.items():
            if name != "time":
                picked = table[name].take(pa.array(rows))
                if picked.null_count and pa.types.is_integer(picked.type):
                    picked = picked.cast(pa.float64())
                column[point] = picked.to_numpy()

    def table(self) -> pa.Table:
        """The points that ever spoke, as READINGS by point number."""
        spoke = np.flatnonzero(self.columns["time"] != _NEVER)
        picked = {name: column[spoke] for name, column in self.columns.items()}
        lag = picked["lag_ms"]
        arrays = [
            pa.array(spoke.astype(np.int32)),
            pa.array(picked["time"], TIME),
            pa.array(np.nan_to_num(lag).astype(np.int32), mask=np.isnan(lag)),
            pa.array(picked["value"], from_pandas=True),
            pa.array(picked["device_flag"]),
            pa.array(picked["flag"]),
            pa.array(picked["checks"]),
            pa.array(picked["score"], from_pandas=True),
        ]
        return pa.Table.from_arrays(arrays, schema=READINGS)

    def save(self, root: Path) -> None:
        """Write lake/latest/{seq}.parquet durably. Raises OSError."""
        folder = latest_dir(root)
        final = folder / f"{self.seq:020d}.parquet"
        tmp = folder / f"{self.seq:020d}.tmp"
        schema = with_metadata(READINGS)
        with pq.ParquetWriter(tmp, schema, **reading_options(schema)) as writer:
            writer.write_table(self.table().replace_schema_metadata(schema.metadata))
        replace_durably(tmp, final)
        keep_hashes(root, [final])


def latest_dir(root: Path) -> Path:
    """Where the files of last readings stand."""
    return root / "lake" / "latest"


def load_latest(root: Path) -> Latest:
    """The newest whole file's state, or one with nothing folded in (seq -1). Torn files are removed."""
    folder = latest_dir(root)
    if not folder.exists():
        folder.mkdir(parents=True)
        fsync_dir(folder.parent)
    for name in sorted(os.listdir(folder), reverse=True):
        path = folder / name
        named = _NAME.fullmatch(name)
        try:
            table = pq.ParquetFile(path, page_checksum_verification=True).read() if named else None
        except (pa.ArrowException, OSError):
            table = None
        if named is None or table is None:
            path.unlink()
            continue
        state = Latest()
        state.fold(table, late=False)
        state.seq = int(named.group(1))
        return state
    return Latest()


def last_of_all(root: Path, newer: Iterable[tuple[Path, bool]]) -> pa.Table:
    """The last reading of every point as READINGS: the newest file's, and those of files of readings since.

    newer  such files in journal order, and whether each holds late readings. Raises OSError or
           pyarrow.ArrowException where one cannot be read.
    """
    state = load_latest(root)
    for path, late in newer:
        table = pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)
        state.fold(table.sort_by([("point", "ascending"), ("time", "ascending")]), late=late)
    return state.table()


class LatestFiles:
    """Which files of last readings may go: all but the newest, a grace after they were replaced."""

    def __init__(self, root: Path) -> None:
        self._folder = latest_dir(root)
        self._replaced_since: dict[str, float] = {}

    def drop(self, grace_s: float, now: float) -> None:
        """Delete files replaced more than ``grace_s`` ago; ``now`` in seconds of a clock without jumps."""
        names = sorted(n for n in os.listdir(self._folder) if _NAME.fullmatch(n))
        for name in names[:-1]:
            since = self._replaced_since.setdefault(name, now)
            if now - since > grace_s:
                (self._folder / name).unlink(missing_ok=True)
                del self._replaced_since[name]
