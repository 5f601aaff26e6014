"""What writing costs: bytes a reading, encoding, sorting, hot files, seals, compaction, commits.

Owns the cases of the write side. All of them take the same rows (storage_city) and the engine's own writers.
"""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.storage_city import CITY_POINTS, City, city, sorted_hour
from bench.storage_figures import Report, took
from storage.batch import RawBatch, ReadingBatch
from storage.compact import Compactor
from storage.hot import HotTier
from storage.journal import Journal
from storage.records import RecordType, encode_readings
from storage.schema import READINGS, ROW_GROUP_SEALED, reading_options, to_arrow
from storage.seal_plan import point_time_order
from storage.sealed import Sealer
from storage.settings import CompactionSettings, JournalSettings, SealedSettings

THREE: Final = ("point", "time", "value")
SEAL_S: Final = 34
"""At the city's rate four million rows are sealed this often."""


def bytes_a_reading(report: Report, map_file: Path, work: Path, every: int) -> None:
    """A sealed hour at 1 Hz: the three columns every store has, and all of them."""
    for jitter_ms, three_max, all_max in ((0, 1.5, 2.6), (20, 2.4, 4.5)):
        place = city(map_file, every=every, jitter_ms=jitter_ms)
        table = to_arrow(sorted_hour(place, 3600), late=False)
        path = work / "hour.parquet"
        encode(table, path, lasting=True)
        size = path.stat().st_size
        by_column = column_bytes(path)
        name = "aligned" if jitter_ms == 0 else f"±{jitter_ms} ms"
        how = f"{len(place):,} points × 3,600 s, all kinds in proportion; as compacted"
        three = sum(by_column[c] for c in THREE) / table.num_rows
        report.add(f"bytes a reading, point + time + value, {name}", three, "B", three_max, how=how)
        report.add(f"bytes a reading, all columns, {name}", size / table.num_rows, "B", all_max, how=how)
        cost = took(lambda t=table, p=path: encode(t, p), 5).cpu_s  # type: ignore[misc]
        report.add(
            f"encode, {name}", table.num_rows / cost / 1e6, "Mrow/CPU-s", 15, at_least=True,
            how="sorted columns to a sealed file, all of them",
        )  # fmt: skip
        shares = ", ".join(f"{c} {b / table.num_rows:.3f}" for c, b in by_column.items())
        report.note(f"bytes by column, {name}: {shares}")


def encode(table: pa.Table, path: Path, *, lasting: bool = False) -> None:
    """Write ``table`` as a sealed file is written, or with ``lasting`` as a compacted one."""
    with pq.ParquetWriter(path, READINGS, **reading_options(READINGS, lasting=lasting)) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_SEALED)


def column_bytes(path: Path) -> dict[str, int]:
    """Compressed bytes of each column of a Parquet file."""
    meta = pq.read_metadata(path)
    return {
        meta.schema.column(c).name: sum(
            meta.row_group(g).column(c).total_compressed_size for g in range(meta.num_row_groups)
        )
        for c in range(meta.num_columns)
    }


def sort_and_encode(report: Report, map_file: Path, work: Path, every: int) -> None:
    """A minute of one point in four, in order of arrival: sorted by (point, time) and written."""
    place = city(map_file, every=every)
    whole = ReadingBatch.concat(list(place.seconds(0, 60)))
    path = work / "minute.parquet"

    def turn() -> None:
        order = point_time_order(whole.point, whole.time, late=False)
        encode(to_arrow(whole.take(order), late=False), path)

    cost = took(turn, 5, warm=True).cpu_s
    report.add(
        "sort + encode", len(whole) / cost / 1e6, "Mrow/CPU-s", 6, at_least=True,
        how=f"{len(whole):,} rows in memory, from arrival order to a sorted file",
    )  # fmt: skip


def river(report: Report, map_file: Path, work: Path, seconds: int) -> float:
    """The city's own seconds through journal, hot files and a seal; CPU µs a reading."""
    root = work / "river"
    if root.exists():
        shutil.rmtree(root)
    (root / "lake").mkdir(parents=True)
    shutil.copy(map_file, root / "lake" / "points.parquet")
    place = city(map_file)
    journal_us = _journal(place, work)
    hot = HotTier(root)
    nothing = place.second(0, 1).take(np.empty(0, np.intp))
    cpu, wall = [], []
    for batch in place.seconds(0, seconds):
        seq = int(batch.pos[0]) >> 24
        began_cpu, began = time.process_time(), time.perf_counter()
        hot.write(seq, seq, batch, nothing)
        cpu.append(time.process_time() - began_cpu)
        wall.append(time.perf_counter() - began)
    hot_us = statistics.median(cpu) / len(place) * 1e6
    report.add(
        "hot flush, median",
        statistics.median(wall) * 1e3,
        "ms",
        25,
        how=f"one second, {len(place):,} readings",
    )
    sealer = Sealer(root, SealedSettings())
    began = time.process_time()
    sealed = sealer.seal(seconds)
    seal_us = (time.process_time() - began) / sealed.main_rows * 1e6
    report.add(
        "hot write", 1 / hot_us, "Mrow/CPU-s", how="from columns in memory to a hot file, sorted by point"
    )
    report.add(
        "seal", 1 / seal_us, "Mrow/CPU-s",
        how=f"{sealed.main_rows:,} rows: hot files read and checked, sorted, written, committed",
    )  # fmt: skip
    _commits(report, place, work)
    report.note(f"CPU µs a reading: journal {journal_us:.3f}, hot file {hot_us:.3f}, seal {seal_us:.3f}")
    shutil.rmtree(root)
    return journal_us + hot_us + seal_us


def compact(report: Report, map_file: Path, work: Path, every: int) -> float:
    """An hour of every n-th point, sealed as often as the whole city is, compacted; CPU µs a reading."""
    root = work / "hour"
    if root.exists():
        shutil.rmtree(root)
    place = city(map_file, every=every)
    hot, sealer = HotTier(root), Sealer(root, SealedSettings())
    nothing = place.second(0, 1).take(np.empty(0, np.intp))
    for first in range(1, 3600 + SEAL_S, SEAL_S):
        batch = ReadingBatch.concat(list(place.seconds(first, SEAL_S)))
        hot.write(first + 1, first + SEAL_S, batch, nothing)
        sealer.seal(first + SEAL_S)
    compactor = Compactor(root, CompactionSettings(lateness_s=0))
    rows, files, cpu = 0, 0, 0.0
    for job in compactor.look(0.0):
        began = time.process_time()
        for _ in compactor.run(job):
            pass
        cpu += time.process_time() - began
        rows, files = rows + job.rows, files + len(job.main)
    report.add(
        "compact", rows / cpu / 1e6, "Mrow/CPU-s", 7, at_least=True,
        how=f"{rows:,} rows of {files} sealed files into an hour's file and its rollups, committed",
    )  # fmt: skip
    shutil.rmtree(root)
    return cpu / rows * 1e6


def _journal(place: City, work: Path) -> float:
    """CPU µs a reading of a journal group of 100 ms."""
    second = place.second(0, 1)
    part = slice(0, CITY_POINTS // 10)
    raw = RawBatch(
        second.point[part],
        second.time[part],
        second.received_at[part],
        second.value[part],
        second.device_flag[part],
    )
    folder = work / "journal"
    if folder.exists():
        shutil.rmtree(folder)
    journal = Journal.open(folder, JournalSettings())
    cost = took(lambda: journal.commit([(RecordType.READINGS, encode_readings(raw))]), 30, warm=True).cpu_s
    journal.close()
    return cost / len(raw) * 1e6


def _commits(report: Report, place: City, work: Path) -> None:
    """The smallest seal: one reading. What it takes is the file, the fsyncs and the Delta commit."""
    root = work / "commits"
    if root.exists():
        shutil.rmtree(root)
    hot = HotTier(root)
    sealer = Sealer(root, SealedSettings())
    wall = []
    for batch in place.seconds(0, 12):
        seq = int(batch.pos[0]) >> 24
        hot.write(seq, seq, batch.take(np.arange(1)), batch.take(np.empty(0, np.intp)))
        began = time.perf_counter()
        sealer.seal(seq)
        wall.append(time.perf_counter() - began)
    report.add(
        "Delta commit, median", statistics.median(wall) * 1e3, "ms", 30,
        how="a seal of one reading: its file, every fsync, the commit, the file of last readings",
    )  # fmt: skip
    shutil.rmtree(root)
