"""State on disk: named arrays and a little JSON, at one position of the journal.

Owns the snapshot files of a folder and their bytes. Knows nothing of what the arrays mean. A snapshot is
a shortcut, never the truth: without one the journal is read from its beginning. FORMAT.md has every byte.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from crc32c import crc32c

from storage.fsync import fsync_dir, fsync_file

log = logging.getLogger(__name__)

MAGIC: Final = b"YUZUIS"
VERSION: Final = 1
HEAD = struct.Struct("<6sHQQQ")
"""magic, version, seq, bytes of the JSON part, bytes of the whole file."""
CRC = struct.Struct("<I")
ALIGN: Final = 64
"""Arrays begin on borders of this many bytes, a cache line, counted from the start of the file."""
KEEP: Final = 2
"""The newest, and one to fall back on should the newest not be readable. Beside them the newest from which every
row that is not sealed yet can be derived again (``base_seq`` of ``save``)."""
KINDS: Final = frozenset("biufSUmM")
"""numpy kinds whose bytes mean the same in another process: no objects, no records of fields."""

Array = npt.NDArray[Any]

TMP: Final = ".tmp"
_NAME = re.compile(r"(\d{20})\.snapshot")


class SnapshotError(Exception):
    """A snapshot that cannot be used: damaged, or of a later version."""


class SnapshotNewer(SnapshotError):  # noqa: N818 - says what happened
    """Written by a later version, which must read it; it is left as it is."""


@dataclass(slots=True)
class Snapshot:
    """State after every journal record up to ``seq``. The arrays may be written to: they are the caller's."""

    seq: int
    arrays: dict[str, Array]
    meta: dict[str, Any]


def snapshot_path(folder: Path, seq: int) -> Path:
    """Where the snapshot at ``seq`` stands."""
    return folder / f"{seq:020d}.snapshot"


def list_snapshots(folder: Path) -> list[tuple[int, Path]]:
    """(seq, path) of the snapshots of a folder, oldest first; those set aside as bad are not among them.

    The journal is still needed from the oldest one's seq + 1: cut no further.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = (_NAME.fullmatch(name) for name in names)
    return sorted((int(match[1]), folder / match[0]) for match in found if match)


@dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot written to a file that counts for nothing yet: it may not be on disk, and has no name."""

    seq: int
    path: Path


def draft(folder: Path, seq: int, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Draft:
    """Write a snapshot array by array, without waiting for the disk; ``keep`` makes it count.

    The arrays, of any shape and of a kind in KINDS, may change again on return: whoever calls this needs no copy of
    them, the system's cache of files holds it. ``meta`` is JSON (a NaN in it comes back as None). Raises TypeError
    for what cannot be written, OSError (ENOSPC before anything is written); nothing then changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: another draft of the same position may be on its way to the disk.
    path = snapshot_path(folder, seq).with_suffix(f".{time.monotonic_ns()}{TMP}")
    head, size = _head(seq, arrays, meta)
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < size:
        # Not by filling the disk: what is left is for readings and alerts.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    try:
        with path.open("wb", buffering=0) as file:
            crc = 0
            for buffer in _buffers(head, arrays):
                crc = crc32c(buffer, crc)
                _write_all(file.fileno(), buffer)
            _write_all(file.fileno(), CRC.pack(crc))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Draft(seq, path)


def keep(folder: Path, drafted: Draft, base_seq: int | None = None) -> Path:
    """Make a draft the newest snapshot, on disk when this returns, then remove all but the newest KEEP.

    base_seq  the newest one at or below this position stays too
    Raises OSError: the draft then stands as it was.
    """
    final = snapshot_path(folder, drafted.seq)
    fsync_file(drafted.path)
    os.replace(drafted.path, final)
    fsync_dir(folder)
    older = list_snapshots(folder)[:-KEEP]
    base = max((at for at, _ in list_snapshots(folder) if at <= (base_seq or 0)), default=None)
    for at, old in older:
        if at != base:
            old.unlink(missing_ok=True)
    return final


def save(
    folder: Path, seq: int, arrays: Mapping[str, Array], meta: Mapping[str, Any], base_seq: int | None = None
) -> Path:
    """``draft`` and ``keep`` at once. Raises as they do; nothing then changed."""
    drafted = draft(folder, seq, arrays, meta)
    try:
        return keep(folder, drafted, base_seq)
    except BaseException:
        drafted.path.unlink(missing_ok=True)
        raise


def forget_drafts(folder: Path) -> None:
    """Remove what a kill left unfinished. Raises OSError."""
    for path in folder.glob(f"*{TMP}"):
        path.unlink(missing_ok=True)


def forget_above(folder: Path, seq: int) -> None:
    """Set aside the snapshots above ``seq``, on disk on return: what they presume has to be derived again."""
    above = [path for at, path in list_snapshots(folder) if at > seq]
    for path in above:
        os.replace(path, path.with_name(path.name + ".aside"))
        log.warning("%s presumes rows that must be derived again; set aside as %s.aside", path, path.name)
    if above:
        fsync_dir(folder)


def load_newest(folder: Path) -> Snapshot | None:
    """The newest readable snapshot, None where there is none.

    One that is damaged is renamed to end in ``.bad``, logged, and the one before it is tried. Raises
    SnapshotNewer, OSError.
    """
    for _, path in reversed(list_snapshots(folder)):
        try:
            return load(path)
        except SnapshotNewer:
            raise
        except SnapshotError as error:
            bad = path.with_name(path.name + ".bad")
            os.replace(path, bad)
            log.error("%s; set aside as %s, an older snapshot is tried", error, bad.name)
    return None


def load(path: Path) -> Snapshot:
    """Read and check one snapshot file. Raises SnapshotError, SnapshotNewer, OSError."""
    whole = np.fromfile(path, np.uint8)
    if len(whole) < HEAD.size + CRC.size:
        raise SnapshotError(f"{path} is cut short: {len(whole)} bytes")
    magic, version, seq, json_bytes, file_bytes = HEAD.unpack_from(whole.data)
    if magic != MAGIC:
        raise SnapshotError(f"{path} is no snapshot")
    if file_bytes != len(whole):
        raise SnapshotError(f"{path} has {len(whole)} bytes of {file_bytes}")
    if crc32c(whole[: -CRC.size]) != CRC.unpack_from(whole.data, len(whole) - CRC.size)[0]:
        raise SnapshotError(f"{path} is damaged: its checksum does not fit")
    if version != VERSION:
        raise SnapshotNewer(f"{path} has format {version}; this version reads {VERSION}")
    described = orjson.loads(whole[HEAD.size : HEAD.size + json_bytes].tobytes())
    arrays: dict[str, Array] = {}
    for name, dtype, shape, offset, size in described["arrays"]:
        arrays[name] = whole[offset : offset + size].view(np.dtype(dtype)).reshape(shape)
    return Snapshot(int(seq), arrays, described["meta"])


def _head(seq: int, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> tuple[bytes, int]:
    """Head and JSON, padded to where the first array begins, and the bytes of the whole file."""
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS or not array.dtype.isnative:
            raise TypeError(f"array {name} of type {array.dtype} cannot be kept in a snapshot")
    # Offsets stand in the JSON and depend on its length: leave room for the longest they can get.
    longest, _ = _describe(arrays, meta, 1 << 62)
    start = -(-(HEAD.size + len(longest) + ALIGN) // ALIGN) * ALIGN
    text, end = _describe(arrays, meta, start)
    text = text.ljust(start - HEAD.size)
    size = end + CRC.size
    return HEAD.pack(MAGIC, VERSION, seq, len(text), size) + text, size


def _describe(arrays: Mapping[str, Array], meta: Mapping[str, Any], start: int) -> tuple[bytes, int]:
    """The JSON of arrays that begin at ``start``, and where the last one ends."""
    rows = []
    end = start
    for name, array in arrays.items():
        end += -end % ALIGN
        rows.append([name, array.dtype.str, list(array.shape), end, array.nbytes])
        end += array.nbytes
    return orjson.dumps({"meta": dict(meta), "arrays": rows}, option=orjson.OPT_SERIALIZE_NUMPY), end


def _buffers(head: bytes, arrays: Mapping[str, Array]) -> Iterator[bytes | Array]:
    """The file in order, but for its checksum. An array that lies in another order is copied row by row."""
    yield head
    end = len(head)
    for array in arrays.values():
        yield bytes(-end % ALIGN)
        for part in (array,) if array.flags.c_contiguous or array.ndim < 2 else array:
            yield np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        end += -end % ALIGN + array.nbytes


def _write_all(fd: int, buffer: bytes | Array) -> None:
    left = memoryview(buffer) if isinstance(buffer, bytes) else buffer.data
    while left:
        left = left[os.write(fd, left) :]
