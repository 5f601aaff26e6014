"""The log folder of a Delta table: what must be on disk, what a power cut may have torn, checkpoints.

Owns _delta_log as files. Knows nothing of readings or of what a commit means. The library that writes the
log makes no fsync at all, so each entry is synced here before anything relies on it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from storage.fsync import fsync_dir, fsync_file
from storage.hashes import keep_hashes, root_of

CHECKPOINT_EVERY: Final = 100
"""Commits between checkpoints: replaying 100 entries costs a query 14 ms, 1,440 cost 126. More often gains nothing: a
query cannot choose, it reads every checkpoint of the last two hours (44 ms a refresh with 100, 46 with 30)."""

_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")


def log_dir(folder: Path) -> Path:
    """Where the log of the table in ``folder`` stands."""
    return folder / "_delta_log"


def sync_entries(folder: Path, first: int, last: int) -> None:
    """Put log entries first … last and their folder on disk, then keep their hashes. Raises OSError."""
    paths = [log_dir(folder) / f"{version:020d}.json" for version in range(first, last + 1)]
    for path in paths:
        fsync_file(path)
    fsync_dir(log_dir(folder))
    if root := root_of(folder):
        keep_hashes(root, paths)


def last_checkpoint(folder: Path) -> int | None:
    """The version of the newest checkpoint, None where there is none."""
    try:
        return int(json.loads((log_dir(folder) / "_last_checkpoint").read_bytes())["version"])
    except FileNotFoundError:
        return None


def checkpoint(table: DeltaTable, folder: Path, *, clean: bool) -> None:
    """Write a checkpoint of ``table`` as it is and put it on disk; then, with ``clean``, forget old entries.

    Entries older than the table's log retention go, and only after the checkpoint is on disk. Readers keep
    working throughout: they start from whichever checkpoint is named when they look. Raises OSError.
    """
    table.create_checkpoint()
    log = log_dir(folder)
    made = log / f"{table.version():020d}.checkpoint.parquet"
    fsync_file(made)
    fsync_file(log / "_last_checkpoint")
    fsync_dir(log)
    if root := root_of(folder):
        keep_hashes(root, [made])
    if clean:
        table.cleanup_metadata()
        fsync_dir(log)


def set_aside_torn(folder: Path) -> list[str]:
    """Rename what a power cut tore, so that the table opens; the new names.

    Only the newest entry can be torn (each is on disk before the next is begun), and only the newest
    checkpoint. A torn entry was never relied on: its rows are still hot or in the journal.
    """
    log = log_dir(folder)
    if not log.exists():
        return []
    torn = []
    entries = sorted(name for name in os.listdir(log) if _ENTRY.fullmatch(name))
    if entries and not _whole_entry(log / entries[-1]):
        torn.append(log / entries[-1])
    torn += _torn_checkpoint(log)
    for path in torn:
        os.replace(path, path.with_name(path.name + ".torn"))
    if torn:
        fsync_dir(log)
    return [path.name + ".torn" for path in torn]


def _whole_entry(path: Path) -> bool:
    lines = path.read_bytes().splitlines()
    try:
        return bool(lines) and all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False


def _torn_checkpoint(log: Path) -> list[Path]:
    """The newest checkpoint if it is torn, and the pointer to the newest if it leads to no whole one."""
    found = sorted(name for name in os.listdir(log) if _CHECKPOINT.fullmatch(name))
    torn = [log / found.pop()] if found and not _whole_parquet(log / found[-1]) else []
    pointer = log / "_last_checkpoint"
    if pointer.exists():
        try:
            version = int(json.loads(pointer.read_bytes())["version"])
        except (ValueError, KeyError, TypeError):
            version = -1
        if f"{version:020d}.checkpoint.parquet" not in found:
            torn.append(pointer)
    return torn


def _whole_parquet(path: Path) -> bool:
    try:
        pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError):
        return False
    return True
