"""What compactions found among late readings, by source: how many were new, revised, repeats.

Owns lake/folds. A row counts once its compaction is committed; rows of one that never was are removed before its
number is given again. Each row says what that compaction added, so sums over committed rows are totals.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import pointmap
from storage.batch import I32, I64
from storage.fsync import fsync_dir
from storage.logs import ParquetLog
from storage.schema import FOLDS

log = logging.getLogger("yuzui.folds")

REVISED_SHARE_MAX: Final = 0.01
"""A source that takes back more than this of what it said is named: its values are not final when they come."""
REVISED_MIN: Final = 10
"""Fewer revised readings say nothing about a source."""
_COUNTS: Final = ("rows", "late_new", "revised", "repeats")


@dataclass(frozen=True, slots=True)
class FoldTotal:
    """Readings of compacted hours of one source: ``rows`` stand in the table, the other three came late.

    rows includes late_new; revised and repeats replaced a row that stood already.
    """

    source: str
    rows: int
    late_new: int
    revised: int
    repeats: int

    @property
    def suspicious(self) -> bool:
        """More is revised than a source should."""
        return self.revised >= REVISED_MIN and self.revised > REVISED_SHARE_MAX * self.rows


def folds_dir(root: Path) -> Path:
    """Where the counts stand."""
    return root / "lake" / "folds"


class FoldCounts:
    """The counts of one compaction: rows added by point number, summed by source at the end."""

    def __init__(self) -> None:
        self._by_point: dict[str, I64] = {name: np.zeros(0, np.int64) for name in _COUNTS}

    def add(self, name: str, point: I32, sign: int = 1) -> None:
        """Count one of ``name`` for each entry of ``point``; ``sign`` -1 takes it back.

        Rows of a point mostly stand together: their runs are counted, not they.
        """
        if len(point) == 0:
            return
        begin = np.flatnonzero(np.append(True, point[1:] != point[:-1]))
        of, rows = point[begin], np.diff(begin, append=len(point)) * sign
        have = self._by_point[name]
        if (most := int(of.max())) >= len(have):
            have = np.concatenate([have, np.zeros(most + 1 - len(have), np.int64)])
        np.add.at(have, of, rows)
        self._by_point[name] = have

    def total(self, name: str) -> int:
        """Over all points."""
        return int(self._by_point[name].sum())

    def table(self, number: int, hour: int, sources: list[str], folded_at_us: int) -> pa.Table:
        """As schema.FOLDS, a row for each source that has any count.

        sources       of each point, by number; points beyond it have the source ""
        folded_at_us  event time at which the hour was compacted
        """
        points = max(len(counts) for counts in self._by_point.values())
        names = np.array([*sources[:points], *[""] * (points - len(sources))], dtype=object)
        distinct, code = np.unique(names, return_inverse=True) if points else (names, np.zeros(0, np.intp))
        sums = {
            name: np.bincount(code[: len(c)], weights=c, minlength=len(distinct)).astype(np.int64)
            for name, c in self._by_point.items()
        }
        some = np.flatnonzero(np.any(np.stack(list(sums.values())) != 0, axis=0))
        columns = {
            "id": np.full(len(some), number, np.int64),
            "hour": np.full(len(some), hour, np.int64),
            "source": [str(distinct[i]) for i in some],
            **{name: sums[name][some] for name in _COUNTS},
            "folded_at": np.full(len(some), folded_at_us, np.int64),
        }
        return pa.table(columns).select(FOLDS.names).cast(FOLDS)


def sources_of(root: Path) -> list[str]:
    """The source of each point, by number; empty without a map of points. Raises as pointmap.load."""
    table = pointmap.load(root)
    if table is None or table.num_rows == 0:
        return []
    names = [""] * (pc.max(table["point"]).as_py() + 1)
    # Rows of one point are in the order of their validity: the last one is the current.
    for point, source in zip(table["point"].to_pylist(), table["source"].to_pylist(), strict=True):
        names[point] = source
    return names


class FoldLog:
    """The log of counts below the data folder ``root``; one thread. Raises OSError."""

    def __init__(self, root: Path) -> None:
        folds_dir(root).mkdir(parents=True, exist_ok=True)
        self._log = ParquetLog(folds_dir(root), FOLDS)

    def remove_above(self, committed: int) -> None:
        """Remove counts of compactions that were never committed, durably."""
        for path in self._log.folder.glob("*.parquet"):
            if int(path.stem.partition("-")[2]) > committed:
                path.unlink()
        fsync_dir(self._log.folder)

    def append(self, number: int, table: pa.Table) -> None:
        """Add the counts of compaction ``number``; on disk on return. Raises OSError, pyarrow.ArrowException."""
        self._log.append(number, number, table)
        self._log.sync()

    def tidy(self, grace_s: float, now: float) -> None:
        """Merge small files and drop merged ones, as ParquetLog. Only while no compaction is between its counts
        and its commit."""
        if self._log.crowded:
            self._log.merge()
        self._log.drop(grace_s, now)


def totals_upto(root: Path, committed: int) -> list[FoldTotal]:
    """Totals by source over all compactions up to number ``committed``, by name of the source.

    Raises OSError or pyarrow.ArrowException where a file cannot be read.
    """
    paths = sorted(folds_dir(root).glob("*.parquet")) if folds_dir(root).exists() else []
    tables = [pq.ParquetFile(p, page_checksum_verification=True).read(use_threads=False) for p in paths]
    rows = pa.concat_tables([FOLDS.empty_table(), *(table.cast(FOLDS) for table in tables)])
    rows = rows.filter(pc.field("id") <= committed)
    # A merged file and its parts may both stand.
    once = rows.group_by(["id", "hour", "source"], use_threads=False).aggregate([(n, "max") for n in _COUNTS])
    sums = once.group_by("source", use_threads=False).aggregate([(f"{n}_max", "sum") for n in _COUNTS])
    found = [
        FoldTotal(row["source"], *(row[f"{name}_max_sum"] for name in _COUNTS)) for row in sums.to_pylist()
    ]
    return sorted(found, key=lambda total: total.source)


def report_suspicious(totals: list[FoldTotal], told: Mapping[str, int]) -> dict[str, int]:
    """Warn of each source that revises too much; ``told`` and the result: revised readings when last told.

    A source is named again only when its number has grown.
    """
    now = dict(told)
    for total in totals:
        if total.suspicious and total.revised > told.get(total.source, 0):
            log.warning(
                "source %s revised %d of %d readings (%.1f %%): its values are not final when they come",
                total.source, total.revised, total.rows, 100 * total.revised / max(total.rows, 1),
            )  # fmt: skip
            now[total.source] = total.revised
    return now


assert tuple(f.name for f in fields(FoldTotal))[1:] == _COUNTS
