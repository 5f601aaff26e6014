"""Small journals of a test: written, read whole, read over damage, damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storage.journal import (
    Journal,
    JournalCorrupt,
    JournalReader,
    Record,
)
from storage.records import RecordType
from storage.segment import list_segments
from storage.settings import JournalSettings

# Segments far below what an operator may set, so that a test crosses many of them.
SMALL = JournalSettings(reserve_bytes=0).model_copy(update={"segment_bytes": 4096})
Bodies = list[tuple[RecordType, bytes]]


def control(text: str, size: int = 0) -> tuple[RecordType, bytes]:
    return RecordType.CONTROL, text.encode().ljust(size, b".")


def contents(records: Sequence[Record]) -> list[tuple[int, bytes]]:
    return [(r.seq, bytes(r.body)) for r in records]


def read_all(folder: Path, from_seq: int = 1) -> list[tuple[int, bytes]]:
    reader = JournalReader(folder, from_seq)
    found: list[tuple[int, bytes]] = []
    while records := reader.read():
        found += contents(records)
    reader.close()
    return found


def read_over_damage(folder: Path) -> tuple[list[tuple[int, bytes]], list[JournalCorrupt]]:
    """All that can be read, and what was said of the rest."""
    reader = JournalReader(folder, 1)
    found: list[tuple[int, bytes]] = []
    corrupt: list[JournalCorrupt] = []
    while True:
        try:
            records = reader.read()
        except JournalCorrupt as error:
            corrupt.append(error)
        else:
            if not records:
                return found, corrupt
            found += contents(records)


def last_segment(folder: Path) -> Path:
    return list_segments(folder)[-1][1]


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def filled(
    folder: Path, groups: int, size: int = 300, settings: JournalSettings = SMALL
) -> list[tuple[int, bytes]]:
    """A journal of ``groups`` groups of two records, closed; what it holds."""
    journal = Journal.open(folder, settings)
    held: list[tuple[int, bytes]] = []
    for i in range(groups):
        bodies = [control(f"{i}a", size), control(f"{i}b", size)]
        last = journal.commit(bodies)
        held += [(last - 1, bodies[0][1]), (last, bodies[1][1])]
    journal.close()
    return held
