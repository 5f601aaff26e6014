"""One journal segment: its bytes, and how they are read back without being believed.

Owns the layout of a segment file, what counts as a whole group, and finding the next whole record behind
damage. Knows nothing of other segments, of who writes, or of what a body holds. FORMAT.md has every byte.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
from crc32c import crc32c

from storage.records import RecordType

MAGIC: Final = b"YUZUIJ"
SEGMENT_VERSION: Final = 1
RECORD_VERSION: Final = 1
FIRST: Final = 2
LAST: Final = 1
"""Flag bits of a record: it begins, it ends its group."""

SEGMENT_HEAD = struct.Struct("<6sHQQII")
"""magic, version, first seq, bytes set aside, salt, CRC32C of the bytes before."""
RECORD_HEAD = struct.Struct("<IIBBB5xQ")
"""length of the body, CRC32C of all that follows here, type, version, flags, zeros, seq."""
_RECORD_LEAD = struct.Struct("<II")
_RECORD_REST = struct.Struct("<BBB5xQ")
BODY_BYTES_MAX: Final = 1 << 30
"""Far above any group Wire gathers, far below what the 32-bit length can say."""

READ_BYTES: Final = 1 << 20
"""One pread of a reader in sequence: three groups of a full-rate city."""
SEARCH_BYTES: Final = 4 << 20
"""One pread of the search behind damage."""

_TYPES: Final = {int(kind): kind for kind in RecordType}
_NAME = re.compile(r"(\d{20})\.journal")


class JournalError(Exception):
    """Anything wrong with the journal on disk."""


class JournalNewer(JournalError):  # noqa: N818 - says what happened
    """Whole, but written by a later version: nothing is cut or skipped, that version must read it."""


@dataclass(slots=True)
class Record:
    """One journal record.

    seq   1, 2, 3 … over all segments
    body  its bytes (storage.records encodes and decodes); read from disk it is a view of a larger buffer
    """

    seq: int
    type: RecordType
    body: bytes | memoryview


class Ending(Enum):
    """Why no whole group stands at a position."""

    END = "zeros or the end of the file"
    TORN = "bytes that are no whole group"


def segment_path(folder: Path, first_seq: int) -> Path:
    """Where the segment that begins with ``first_seq`` stands."""
    return folder / f"{first_seq:020d}.journal"


def list_segments(folder: Path) -> list[tuple[int, Path]]:
    """(first seq, path) of every segment of a folder, in order; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = (_NAME.fullmatch(name) for name in names)
    return sorted((int(match[1]), folder / match[0]) for match in found if match)


def padded(size: int) -> int:
    """``size`` rounded up to the eight-byte border on which every record begins."""
    return -(-size // 8) * 8


def pack_head(first_seq: int, capacity: int, salt: int) -> bytes:
    """The first SEGMENT_HEAD.size bytes of a segment."""
    start = SEGMENT_HEAD.pack(MAGIC, SEGMENT_VERSION, first_seq, capacity, salt, 0)[:-4]
    return start + struct.pack("<I", crc32c(start))


def pack_group(seq: int, bodies: Sequence[tuple[RecordType, bytes]], salt: int) -> list[bytes]:
    """The buffers of one group whose first record is ``seq``, to be written one behind the other.

    Every checksum starts from the segment's ``salt``, so that bytes inside a body, which a stranger may
    have chosen, can never pass for a record.
    """
    buffers: list[bytes] = []
    last = len(bodies) - 1
    for i, (kind, body) in enumerate(bodies):
        flags = (FIRST if i == 0 else 0) | (LAST if i == last else 0)
        rest = _RECORD_REST.pack(kind, RECORD_VERSION, flags, seq + i)
        crc = crc32c(body, crc32c(rest, salt))
        buffers += (_RECORD_LEAD.pack(len(body), crc) + rest, body)
        if len(body) % 8:
            buffers.append(bytes(-len(body) % 8))
    return buffers


def group_size(bodies: Sequence[tuple[RecordType, bytes]]) -> int:
    """Bytes a group takes on disk. Raises ValueError for a body above BODY_BYTES_MAX."""
    for _, body in bodies:
        if len(body) > BODY_BYTES_MAX:
            raise ValueError(f"a record body of {len(body)} bytes; at most {BODY_BYTES_MAX}")
    return sum(RECORD_HEAD.size + padded(len(body)) for _, body in bodies)


class SegmentFile:
    """An open segment, read by position. Nothing is returned that is not a whole, checked group.

    salt     None where the head is damaged: then no record can be checked, and none is found
    torn     whole records of an unfinished or damaged group, in front of the place where the last
    torn_at  ``group`` call that found none had to stop; [] and that call's offset where there are none
    """

    def __init__(self, path: Path, first_seq: int) -> None:
        """Open for reading. Raises FileNotFoundError, JournalNewer."""
        self.path = path
        self.first_seq = first_seq
        self.torn: list[Record] = []
        self.torn_at = 0
        self._buffer = b""
        self._buffer_at = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.salt = self._read_head()
        except BaseException:
            self.close()
            raise

    def _read_head(self) -> int | None:
        head = os.pread(self._fd, SEGMENT_HEAD.size, 0)
        if len(head) < SEGMENT_HEAD.size:
            return None
        magic, version, first_seq, _, salt, crc = SEGMENT_HEAD.unpack(head)
        if magic != MAGIC or crc != crc32c(head[:-4]) or first_seq != self.first_seq:
            return None
        if version != SEGMENT_VERSION:
            raise JournalNewer(f"{self.path} has format {version}; this version reads {SEGMENT_VERSION}")
        return int(salt)

    def close(self) -> None:
        """Give up the file; bodies already returned stay valid."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def size(self) -> int:
        """Bytes of the file now."""
        return os.fstat(self._fd).st_size

    def bytes_at(self, offset: int, size: int) -> bytes:
        """The file's own bytes; fewer at its end."""
        return os.pread(self._fd, size, offset)

    def unlinked(self) -> bool:
        """The name is gone (cut) or stands for another file by now."""
        return os.fstat(self._fd).st_nlink == 0

    def group(self, offset: int, seq: int) -> tuple[list[Record], int] | Ending:
        """The whole group at ``offset`` whose first record is ``seq``, and where the next begins.

        END and TORN are said only of bytes read within this call: an older buffer may have been filled
        before the group was written. Raises JournalNewer, OSError.
        """
        self.torn, self.torn_at = [], offset
        if self.salt is None:
            return Ending.TORN
        if self._buffer:
            found = self._parse(offset, seq, self.salt)
            if not isinstance(found, Ending):
                return found
            self._buffer = b""
        # A reader that waits at the end asks often: it pays for one header of zeros, not for a megabyte.
        if not any(os.pread(self._fd, RECORD_HEAD.size, offset)):
            self.torn, self.torn_at = [], offset
            return Ending.END
        found = self._parse(offset, seq, self.salt)
        if isinstance(found, Ending):
            self._buffer = b""
        return found

    def _parse(self, offset: int, seq: int, salt: int) -> tuple[list[Record], int] | Ending:
        records: list[Record] = []
        at = offset
        while True:
            self.torn, self.torn_at = records, at
            if self._window(at, RECORD_HEAD.size) < RECORD_HEAD.size:
                return Ending.TORN
            length, crc, kind, version, flags, found_seq = RECORD_HEAD.unpack_from(
                self._buffer, at - self._buffer_at
            )
            if kind == 0 or found_seq != seq + len(records):
                return Ending.TORN
            size = RECORD_HEAD.size + length
            if self._window(at, size) < size:
                return Ending.TORN
            start = at - self._buffer_at
            view = memoryview(self._buffer)[start : start + size]
            if crc32c(view[_RECORD_LEAD.size :], salt) != crc:
                return Ending.TORN
            records.append(Record(found_seq, self._known(kind, version, found_seq), view[RECORD_HEAD.size :]))
            at += padded(size)
            if flags & LAST:
                return records, at

    def _known(self, kind: int, version: int, seq: int) -> RecordType:
        if version == RECORD_VERSION and kind in _TYPES:
            return _TYPES[kind]
        raise JournalNewer(f"{self.path}: record {seq} is of type {kind}, version {version}: not known here")

    def _window(self, at: int, size: int) -> int:
        """Have [at, at + size) in the buffer, if the file goes so far; returns the bytes held from ``at``."""
        held = self._buffer_at + len(self._buffer) - at
        if at >= self._buffer_at and held >= size:
            return held
        # A damaged length may ask for gigabytes: the file's own size says how much there can be.
        size = min(size, max(self.size() - at, 0))
        self._buffer = os.pread(self._fd, max(size, READ_BYTES), at)
        self._buffer_at = at
        return len(self._buffer)

    def search(self, seq: int, first_only: bool) -> tuple[int, int] | None:
        """(offset, seq) of the next whole record at or behind ``torn_at``.

        seq          of the first record of the ``group`` call that found none
        first_only   only a record that begins a group. One such record proves that whatever stands in
                     front of it was once on disk: groups are written one after the other.
        """
        if self.salt is None:
            return None
        seq_min = seq + len(self.torn)
        seq_end = seq_min + self.size() // RECORD_HEAD.size + 1
        at = self.torn_at
        while True:
            chunk = os.pread(self._fd, SEARCH_BYTES + RECORD_HEAD.size - 8, at)
            words = np.frombuffer(chunk, "<u8", len(chunk) // 8)
            if len(words) < 3:
                return None
            # Three words from each eight-byte border: length and crc, type to zeros, seq.
            kind, seqs = words[1:-1], words[2:]
            fits = (seqs >= seq_min) & (seqs < seq_end) & (kind >> 24 == 0) & (kind & 0xFF != 0)
            if first_only:
                fits &= kind >> 16 & FIRST != 0
            for i in np.flatnonzero(fits).tolist():
                if self._whole(at + 8 * i, self.salt):
                    return at + 8 * i, int(seqs[i])
            if len(chunk) < SEARCH_BYTES + RECORD_HEAD.size - 8:
                return None
            at += SEARCH_BYTES

    def _whole(self, at: int, salt: int) -> bool:
        length, crc = _RECORD_LEAD.unpack(os.pread(self._fd, _RECORD_LEAD.size, at))
        rest = _RECORD_REST.size + length
        if length > BODY_BYTES_MAX or at + _RECORD_LEAD.size + rest > self.size():
            return False
        found = os.pread(self._fd, rest, at + _RECORD_LEAD.size)
        return len(found) == rest and bool(crc32c(found, salt) == crc)

    def used_end(self, offset: int) -> int:
        """The end of the last byte from ``offset`` on that is not zero; ``offset`` where all are zero."""
        end = at = offset
        while chunk := os.pread(self._fd, SEARCH_BYTES, at):
            # Eight bytes at a look: nearly all of a segment that was set aside is zeros.
            words = np.frombuffer(chunk, "<u8", len(chunk) // 8)
            if words.any() or any(chunk[8 * len(words) :]):
                end = at + len(chunk.rstrip(b"\0"))
            at += len(chunk)
        return end

    def drop_cache(self) -> None:
        """Put what the kernel still holds on disk, then forget it, so that reading shows what the disk has.

        After a failed fsync the page cache holds bytes the disk never got. Raises OSError.
        """
        os.fdatasync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
