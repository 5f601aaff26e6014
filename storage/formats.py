"""Which format each file of a data folder has, and the refusal of what a later version wrote.

Owns the look at the first bytes of one file of each kind before anything of the folder is opened, changed or believed.
Every kind says its format in itself; where it is above what this version knows, nothing starts. What is damaged says
nothing here: recovery and scrub deal with it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from storage import audit, hashes, hotlist, snapshot
from storage.hot import list_hot
from storage.schema import FORMAT_VERSION, META_FORMAT
from storage.scrub_parquet import READ_FAULTS
from storage.segment import MAGIC as SEGMENT_MAGIC
from storage.segment import SEGMENT_HEAD, SEGMENT_VERSION, list_segments

LOGS: Final = (
    "quarantine",
    "alerts",
    "alert_log",
    "events",
    "forecasts",
    "folds",
    "latest",
    "rollup_1m",
    "rollup_1h",
)
"""Folders of the lake whose newest file is asked."""
SAID: Final = (
    "{path} has format {found}; this version of Yuzui reads {known}. "
    "Run the version that wrote it, or a later one"
)


class FolderNewer(RuntimeError):  # noqa: N818 - says what happened
    """A later version wrote files of this data folder; a sentence for each kind."""


def refuse_newer_files(root: Path, outbox_known: int) -> None:
    """Raise FolderNewer if any file of ``root`` that is asked is of a later format. Reads a few small heads.

    outbox_known  the newest version of outbox.db this program knows
    """
    found = [
        SAID.format(path=path, found=version, known=known)
        for path, version, known in _versions(root, outbox_known)
        if version > known
    ]
    if found:
        raise FolderNewer("\n".join(found))


def _versions(root: Path, outbox_known: int) -> Iterator[tuple[Path, int, int]]:
    """(file, its format, the newest known)."""
    for _, path in list_segments(root / "journal"):
        yield path, _head(path, SEGMENT_HEAD.size, SEGMENT_MAGIC), SEGMENT_VERSION
    for _, path in snapshot.list_snapshots(root / "snapshot"):
        yield path, _head(path, snapshot.HEAD.size, snapshot.MAGIC), snapshot.VERSION
    yield root / "outbox.db", _outbox(root / "outbox.db"), outbox_known
    yield root / audit.FILE, audit.format_of(root), audit.FORMAT
    for path in _parquet(root):
        yield path, _parquet_format(path), FORMAT_VERSION
    listed = root / "lake" / "hot" / hotlist.LIST_NAME
    yield listed, _json_format(listed), hotlist.FORMAT
    kept = hashes.hashes_dir(root) / hashes.LIST_NAME
    yield kept, hashes.format_of(root), hashes.FORMAT
    for path in sorted((root / "replay").glob("*.replay"))[-1:]:
        yield path, _ipc_format(path), FORMAT_VERSION


def _parquet(root: Path) -> Iterator[Path]:
    lake = root / "lake"
    yield lake / "points.parquet"
    for late in (False, True):
        yield from (file.path for file in list_hot(root, late)[-1:])
    for name in LOGS:
        yield from sorted((lake / name).glob("*.parquet"))[-1:]
    for name in ("readings", "late"):
        # By date, hour and name: the newest event time, which is where a later version has written.
        hours = sorted((lake / name).glob("date=*/hour=*"))
        yield from sorted(hours[-1].glob("*.parquet"))[-1:] if hours else []


def _head(path: Path, size: int, magic: bytes) -> int:
    try:
        with path.open("rb") as file:
            head = file.read(size)
    except OSError:
        return 0
    return int.from_bytes(head[len(magic) : len(magic) + 2], "little") if head.startswith(magic) else 0


def _outbox(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0


def _parquet_format(path: Path) -> int:
    try:
        return _metadata_format(pq.read_metadata(path).metadata)
    except READ_FAULTS:
        return 0


def _ipc_format(path: Path) -> int:
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            return _metadata_format(reader.schema.metadata)
    except READ_FAULTS:
        return 0


def _metadata_format(words: dict[bytes, bytes] | None) -> int:
    text = (words or {}).get(META_FORMAT, b"0")
    return int(text) if text.isdigit() else 0


def _json_format(path: Path) -> int:
    try:
        return int(json.loads(path.read_bytes())["format"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
