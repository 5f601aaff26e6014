"""Is a backup what it was when it was made, and would an engine start on it.

Owns the comparison of a backup with its manifest and the opening of every file in it. Changes nothing. Runs on any
machine: the data folder it was made of is not needed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from storage import hashes, snapshot
from storage.backup_look import TABLES
from storage.backup_manifest import MANIFEST, Entry, Manifest, read
from storage.deltastate import read_log
from storage.scrub_journal import check_segment
from storage.scrub_parquet import READ_FAULTS, bad_rows
from storage.segment import JournalNewer, list_segments


@dataclass(slots=True)
class Verified:
    """What was found: a sentence for each file that is damaged, missing or too many."""

    folder: Path
    manifest: Manifest
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parquet: int = 0
    rows: int = 0
    seconds: float = 0.0


def verify(folder: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Verified:
    """Every hash, every Parquet file, the tables, the journal, snapshots and the outbox of one backup.

    Raises ManifestBad where there is nothing to compare with, OSError.
    """
    began = time.monotonic()
    found = Verified(folder, read(folder))
    for entry in found.manifest.entries:
        fault = compare(folder / entry.name, entry, on_bytes) or _opened(folder / entry.name, entry, found)
        if fault:
            found.faults.append(f"{entry.name}: {fault}")
    found.faults += _surplus(folder, found.manifest)
    data = folder / "data"
    for check in (_tables, _journal, _snapshots, _outbox):
        found.faults += check(data, found)
    found.notes += [f"{name}: it was damaged in the data folder already" for name in found.manifest.damaged]
    found.seconds = time.monotonic() - began
    return found


def compare(path: Path, entry: Entry, on_bytes: Callable[[int], None]) -> str:
    """What is wrong with a file of a backup by its length and hash; "" for nothing. Raises OSError."""
    try:
        if (size := path.stat().st_size) != entry.size:
            return f"it has {size} bytes of {entry.size}"
        made = hashes.sum_of(path, on_bytes)
    except FileNotFoundError:
        return "it is missing"
    return "" if made.sha256 == entry.sha256 else "it is not what was copied: its hash differs"


def _opened(path: Path, entry: Entry, found: Verified) -> str:
    if path.suffix != ".parquet":
        return ""
    found.parquet += 1
    try:
        rows = int(pq.read_metadata(path).num_rows)
    except READ_FAULTS as bad:
        return f"it cannot be opened as Parquet: {bad}"
    found.rows += rows
    # Whatever fits its hash is what was copied; pages are asked where it was damaged then.
    if entry.name in found.manifest.damaged and bad_rows(path):
        return "pages of it do not fit their checksums: it was damaged when it was copied"
    return "" if entry.rows in (None, rows) else f"it has {rows} rows of {entry.rows}"


def _surplus(folder: Path, manifest: Manifest) -> Iterator[str]:
    known = {entry.name for entry in manifest.entries} | {MANIFEST}
    for at, _, names in os.walk(folder):
        for name in names:
            path = (Path(at) / name).relative_to(folder).as_posix()
            if path not in known:
                yield f"{path}: it is no part of this backup"


def _tables(data: Path, found: Verified) -> Iterator[str]:
    for name in TABLES:
        folder, said = data / "lake" / name, found.manifest.tables.get(name)
        if said is None:
            yield f"data/lake/{name}: the manifest does not say what it must be"
            continue
        state = read_log(folder)
        if state.version != said["version"] or state.missing:
            yield f"data/lake/{name}: its log ends at {state.version} or has a hole, not whole at {said['version']}"
        entries = {entry.name: entry for entry in found.manifest.entries}
        rows = 0
        for path, add in state.adds.items():
            entry = entries.get(f"data/lake/{name}/{path}")
            if entry is None or entry.size != add["size"]:
                yield f"data/lake/{name}/{path}: the table names it, and it is not in the backup as it must be"
            else:
                rows += entry.rows or 0
        if rows != said["rows"]:
            yield f"data/lake/{name}: its files hold {rows} rows, the manifest says {said['rows']}"


def _journal(data: Path, found: Verified) -> Iterator[str]:
    segments = list_segments(data / "journal")
    nexts = [*(first for first, _ in segments[1:]), None]
    for (first, path), after in zip(segments, nexts, strict=True):
        try:
            for damage in check_segment(path, first, after, False, lambda _: None):
                yield f"data/journal/{path.name}: at byte {damage.offset}: {damage.what}"
        except JournalNewer as newer:
            found.notes.append(str(newer))


def _snapshots(data: Path, found: Verified) -> Iterator[str]:
    for _, path in snapshot.list_snapshots(data / "snapshot"):
        try:
            snapshot.load(path)
        except snapshot.SnapshotNewer as newer:
            found.notes.append(str(newer))
        except snapshot.SnapshotError as bad:
            yield str(bad)


def _outbox(data: Path, _: Verified) -> Iterator[str]:
    path = data / "outbox.db"
    if not path.exists():
        return
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as db:
            said = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as bad:
        said = [str(bad)]
    if said != ["ok"]:
        yield f"data/outbox.db: SQLite says: {'; '.join(said)[:300]}"
