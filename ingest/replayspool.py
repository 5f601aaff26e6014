"""Refused messages on their way through the engine again: files in a folder, written by a command, taken by Wire.

Owns the folder and its files' format (storage/FORMAT.md). Knows no decoding and no engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from storage.fsync import fsync_dir, replace_durably
from storage.schema import with_metadata

SUFFIX: Final = ".replay"
SCHEMA: Final = pa.schema(
    [
        pa.field("ids", pa.list_(pa.int64()), nullable=False),
        pa.field("received_at", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("client", pa.string()),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Spooled:
    """A message to be sent through again.

    ids          of the refusals in quarantine that came of it
    received_at  µs since 1970 UTC, when it came the first time
    """

    ids: list[int]
    received_at: int
    source: str
    topic: str
    client: str | None
    raw: bytes


def folder_of(root: Path) -> Path:
    """Where the files stand below the data folder."""
    return root / "replay"


def spool(root: Path, messages: Sequence[Spooled]) -> Path:
    """Write a file of messages, whole and durable or not at all. Raises OSError."""
    folder = folder_of(root)
    if not folder.is_dir():
        folder.mkdir()
        fsync_dir(root)
    columns = {name: [getattr(one, name) for one in messages] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA)
    name = f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
    tmp = folder / f".{name}.tmp"
    schema = with_metadata(SCHEMA)
    with pa.OSFile(str(tmp), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))
    replace_durably(tmp, folder / name)
    return folder / name


def waiting(root: Path) -> list[Path]:
    """Files not yet sent through, the oldest first."""
    folder = folder_of(root)
    return sorted(folder.glob(f"[0-9]*{SUFFIX}")) if folder.is_dir() else []


def read(path: Path) -> list[Spooled]:
    """The messages of a file. Raises OSError, ValueError for a file that is no such."""
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            rows = reader.read_all().cast(SCHEMA).to_pylist()
    except pa.ArrowException as fault:
        raise ValueError(f"{path.name} cannot be read: {fault}") from fault
    return [Spooled(**row) for row in rows]
