"""What belongs in a backup of a data folder, seen at one instant while an engine writes there.

Owns which files these are and in which order they are looked at. Copies nothing (storage.backup does) and changes
nothing. The order is what makes a look whole, see FORMAT.md: segments of the journal are opened before snapshots
are listed, snapshots before the tables' logs, these before hot files. What is derived then never goes beyond the
journal that is copied last, and no range of rows is missing between a snapshot, the tables and the hot files.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from storage import snapshot
from storage.deltalog import log_dir
from storage.deltastate import CHECKPOINT, ENTRY, LogState, log_files, read_log
from storage.hot import list_hot
from storage.lock import LOCK_NAME
from storage.sealed import APP_ID
from storage.segment import SEGMENT_HEAD as HEAD
from storage.segment import Ending, SegmentFile, list_segments

LOOKS_MAX: Final = 40
"""A seal a second would still leave a moment in which both logs stand still."""
LOOK_S: Final = 0.1
POINTER: Final = "_last_checkpoint"
OUTBOX: Final = "outbox.db"
TABLES: Final = ("readings", "late")
MADE_AT_START: Final = frozenset(
    {LOCK_NAME, "SEALING", "engine.json", "lake.sql", "console-sessions.json", "RESTORING", "ops.sock"}
)
"""Files of the data folder that mean nothing elsewhere; logins are not carried over."""
FOLDERS_APART: Final = frozenset({"journal", "snapshot", "lake", "console-links"})
"""Looked at in ways of their own, or (links to log in with) not at all."""
LAKE_APART: Final = frozenset({"readings", "late", "hot", "latest", "hashes"})
LEFT_OUT: Final = (".tmp", ".bad", ".torn", ".aside", ".part")
LATEST: Final = re.compile(r"(\d{20})\.parquet")


class NotWhole(RuntimeError):  # noqa: N818 - says what happened
    """The data folder is damaged, or never stands still: nothing that could be restored can be made of it."""


class Moved(Exception):  # noqa: N818 - says what happened
    """A file went away between the look and its copy; look again."""


@dataclass(slots=True)
class TableLook:
    """One Delta table at one version.

    seq      journal seq up to which its rows are in it, -1 for none
    files    paths below the table's folder
    log      its log from the checkpoint it begins at
    pointer  what _last_checkpoint has to say, None where there is no checkpoint
    """

    name: str
    version: int
    seq: int
    files: list[str]
    log: list[Path]
    pointer: bytes | None


@dataclass(slots=True)
class Pinned:
    """A file that is held open: it can be read although its name may go."""

    name: str
    fd: int
    first_seq: int


@dataclass(slots=True)
class Look:
    """One instant of a data folder; a context manager, for files are held open.

    rest  small logs, rollups, the newest readings, refused messages to be sent again, and what else is there
    """

    root: Path
    segments: list[Pinned] = field(default_factory=list)
    snapshots: list[Pinned] = field(default_factory=list)
    tables: list[TableLook] = field(default_factory=list)
    hot: list[Path] = field(default_factory=list)
    rest: list[Path] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def pin(self, name: str, path: Path, first_seq: int) -> Pinned:
        """Hold a file open until the look is over. Raises FileNotFoundError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open.callback(os.close, fd)
        return Pinned(name, fd, first_seq)


def look(root: Path) -> Look:
    """See the data folder ``root`` at one instant. Close it. Raises NotWhole, OSError."""
    for _ in range(LOOKS_MAX):
        found = Look(root)
        try:
            if _look(found):
                return found
        except (FileNotFoundError, ValueError):
            pass  # cut, sealed or merged while we looked; or a pointer that is just being replaced
        found.__exit__()
        time.sleep(LOOK_S)
    raise NotWhole(
        f"{root} never stood still or is damaged: the logs of lake/readings and lake/late have holes or change at "
        "every look. See `yuzui scrub`"
    )


def _look(found: Look) -> bool:
    root = found.root
    found.segments = [
        found.pin(f"journal/{path.name}", path, first) for first, path in list_segments(root / "journal")
    ]
    found.snapshots = [
        found.pin(f"snapshot/{path.name}", path, seq)
        for seq, path in snapshot.list_snapshots(root / "snapshot")
    ]
    states = {name: read_log(root / "lake" / name) for name in ("late", "readings")}
    if any(state.bad or state.missing for state in states.values()):
        return False
    found.tables = [_table(root / "lake" / name, name, states[name]) for name in TABLES]
    main_seq, late_seq = (table.seq for table in found.tables)
    found.hot = [f.path for f in list_hot(root, late=False, above_seq=main_seq)]
    found.hot += [f.path for f in list_hot(root, late=True, above_seq=min(main_seq, late_seq))]
    found.rest = list(_rest(root, main_seq))
    # Nothing was sealed or compacted meanwhile, so all of it is of one instant.
    return all(_newest(root / "lake" / name) == state.version for name, state in states.items())


def _newest(folder: Path) -> int:
    return max([*log_files(folder, ENTRY), *log_files(folder, CHECKPOINT)], default=-1)


def _table(folder: Path, name: str, state: LogState) -> TableLook:
    pointer = None
    log = [
        path for version, path in log_files(folder, ENTRY).items() if state.base < version <= state.version
    ]
    if state.base >= 0:
        checkpoint = log_files(folder, CHECKPOINT)[state.base]
        log.insert(0, checkpoint)
        said = (log_dir(folder) / POINTER).read_bytes()
        ours = json.loads(said).get("version") == state.base
        pointer = said if ours else json.dumps({"version": state.base, "size": len(state.adds)}).encode()
    return TableLook(name, state.version, state.txns.get(APP_ID, -1), sorted(state.adds), log, pointer)


def _rest(root: Path, main_seq: int) -> Iterator[Path]:
    for entry in sorted(os.scandir(root), key=lambda e: e.name):
        if entry.is_dir() and entry.name not in FOLDERS_APART:
            yield from _files(Path(entry.path))
        elif entry.is_file() and entry.name not in MADE_AT_START and not entry.name.startswith(OUTBOX):
            yield from _lasting([Path(entry.path)])
    for entry in sorted(os.scandir(root / "lake"), key=lambda e: e.name):
        if entry.is_dir() and entry.name not in LAKE_APART:
            yield from _files(Path(entry.path))
    # A newer one would speak of rows that are in no table of this look.
    latest = {int(m[1]): p for p in _files(root / "lake" / "latest") if (m := LATEST.fullmatch(p.name))}
    yield from [latest[max(at)]] if (at := [seq for seq in latest if seq <= main_seq]) else []


def _files(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "tmp")
        yield from _lasting(Path(at) / name for name in sorted(names))


def _lasting(paths: Iterator[Path] | list[Path]) -> Iterator[Path]:
    return (p for p in paths if not p.name.endswith(LEFT_OUT) and not p.name.startswith("."))


def end_of_records(path: Path, first_seq: int, upto: int | None) -> tuple[int, int]:
    """(bytes, last seq) of a segment up to and with the group that holds record ``upto``; None is all that is whole.

    Damage is stepped over as a reader does. Raises JournalNewer, OSError.
    """
    segment = SegmentFile(path, first_seq)
    try:
        end, seq = HEAD.size, first_seq
        at = end
        while upto is None or seq <= upto:
            found = segment.group(at, seq)
            if isinstance(found, Ending):
                behind = segment.search(seq, first_only=False)
                if behind is None:
                    break
                at, seq = behind
                continue
            records, at = found
            seq, end = records[-1].seq + 1, at
        return end, seq - 1
    finally:
        segment.close()
