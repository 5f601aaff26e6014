"""The journal's writer: groups of records, on disk when ``commit`` returns; the cut; the reserve.

Owns the segment files and the order of fsyncs in which they come to be. Knows nothing of what a body
holds. Once a write or an fsync has failed the object is dead and its file is never written
again: ``Journal.open`` looks at what the disk really has and goes on in a new file.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.fsync import fsync_dir
from storage.journal_reader import JournalCorrupt, JournalCut, JournalReader
from storage.journal_recovery import Recovery, recover
from storage.records import RecordType
from storage.segment import (
    SEGMENT_HEAD,
    JournalError,
    JournalNewer,
    Record,
    group_size,
    list_segments,
    pack_group,
    pack_head,
    segment_path,
)
from storage.settings import JournalSettings

__all__ = [
    "Journal",
    "JournalCorrupt",
    "JournalCut",
    "JournalError",
    "JournalFailed",
    "JournalFull",
    "JournalNewer",
    "JournalReader",
    "Record",
    "Recovery",
]

log = logging.getLogger(__name__)

PREPARED_NAME: Final = "next.prepared"
RESERVE_NAME: Final = "reserve"
PREPARE_SHARE: Final = 0.5
"""The next segment is made when this share of the current one is used: a full disk is known of early."""
FILL_BYTES: Final = 1 << 20
FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IOV_MAX: Final = min(os.sysconf("SC_IOV_MAX"), 1024)


class JournalFailed(JournalError):  # noqa: N818 - says what happened
    """Nothing of this commit may be acknowledged.

    errno  of the system call, None where none failed
    dead   True: this Journal takes no more commits; open the folder again or leave the process
    """

    def __init__(self, message: str, errno: int | None = None, dead: bool = True) -> None:
        super().__init__(message)
        self.errno = errno
        self.dead = dead


class JournalFull(JournalFailed):
    """No room (full disk, quota, file size limit). With ``dead`` False nothing was written: try again."""


@dataclass(slots=True)
class _Blank:
    """A segment file that has its room and no head yet, under the prepared name."""

    fd: int
    capacity: int


class Journal:
    """The one writer of a journal folder (storage.lock keeps it the one).

    ``commit`` is for one thread; ``cut``, ``prepare_next``, ``release_reserve``, ``restore_reserve`` and
    the properties may be used from others.
    """

    def __init__(self, folder: Path, settings: JournalSettings, recovered: Recovery, next_seq: int) -> None:
        """Use ``Journal.open``."""
        self.recovered = recovered
        self._folder = folder
        self._settings = settings
        self._last_seq = next_seq - 1
        self._segments = [first for first, _ in list_segments(folder)]
        self._guard = threading.Lock()
        self._blank_guard = threading.Lock()
        self._blank: _Blank | None = None
        self._blank_asked = False
        self._preparing: threading.Thread | None = None
        self._fd = -1
        self._salt = 0
        self._offset = 0
        self._capacity = 0
        self._failure: OSError | None = None

    @classmethod
    def open(cls, dir: Path, settings: JournalSettings, next_seq_min: int = 1) -> Journal:  # noqa: A002
        """Open or make the journal of a folder; afterwards all that ``recovered`` speaks of is on disk.

        An unfinished group at the end is cut off. Writing goes on in a new segment, made by the first
        commit, so a full disk does not keep an engine from starting. ``next_seq_min``: no record written
        from now on gets a number below this, even if the folder was lost (pass what a snapshot has seen,
        plus one). Raises JournalNewer, JournalFailed.
        """
        try:
            dir.mkdir(parents=True, exist_ok=True)
            (dir / PREPARED_NAME).unlink(missing_ok=True)
            (dir / f"{RESERVE_NAME}.tmp").unlink(missing_ok=True)
            recovered = recover(dir)
            fsync_dir(dir)
            fsync_dir(dir.parent)
        except OSError as error:
            raise _failed(error, f"{dir} cannot be recovered", dead=True) from error
        journal = cls(dir, settings, recovered, max(recovered.last_seq + 1, next_seq_min))
        if recovered.cut_bytes:
            log.warning("cut %d bytes of an unfinished group from the journal", recovered.cut_bytes)
        for sentence in recovered.damage:
            log.error("%s", sentence)
        journal.restore_reserve()
        journal._prepare_beside()
        return journal

    # -- what is there ---------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """The last record on disk; 0 in a new journal."""
        return self._last_seq

    @property
    def first_seq(self) -> int:
        """The first record still there; last_seq + 1 where there is none."""
        with self._guard:
            return min(self._segments[0], self._last_seq + 1) if self._segments else self._last_seq + 1

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all segments, the prepared one included, the reserve not."""
        with self._guard:
            paths = [segment_path(self._folder, first) for first in self._segments]
        return sum(_size(path) for path in [*paths, self._folder / PREPARED_NAME])

    # -- writing ---------------------------------------------------------------------------------

    def commit(self, bodies: Sequence[tuple[RecordType, bytes]]) -> int:
        """Append ``bodies`` as one group, on disk when this returns; the seq of its last record.

        After a crash either the whole group is there or nothing of it. No bodies: nothing is done.
        Raises JournalFull, JournalFailed, ValueError for a body above storage.segment.BODY_BYTES_MAX.
        """
        if self._failure is not None:
            raise JournalFailed("this journal failed before and is dead; open it again", self._failure.errno)
        if not bodies:
            return self._last_seq
        size = group_size(bodies)
        if self._fd < 0 or self._offset + size > self._capacity:
            self._begin_segment(size)
        try:
            _write_all(self._fd, pack_group(self._last_seq + 1, bodies, self._salt), self._offset)
            os.fdatasync(self._fd)
        except OSError as error:
            self._failure = error
            raise _failed(error, f"segment {self._segments[-1]} cannot be written", dead=True) from error
        self._offset += size
        self._last_seq += len(bodies)
        if self._offset > PREPARE_SHARE * self._capacity and not self._blank_asked:
            self._prepare_beside()
        return self._last_seq

    def _begin_segment(self, size: int) -> None:
        """Go over to a new segment with room for ``size`` bytes, on disk by name before it is used."""
        first_seq = self._last_seq + 1
        salt = int.from_bytes(os.urandom(4), "little")
        # Held until the blank has its own name. Whoever prepares the next one writes zeros to a file of the blank's
        # first name: in between that would be this segment, groups and all.
        with self._blank_guard:
            blank = self._named_blank(first_seq, salt, SEGMENT_HEAD.size + size)
        if self._fd >= 0:
            # Seldom read again, and then in sequence: the memory is worth more to queries.
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(self._fd)
        self._fd, self._salt = blank.fd, salt
        self._offset, self._capacity = SEGMENT_HEAD.size, blank.capacity
        with self._guard:
            # A crash may have left a segment of this name without a record: it was replaced just now.
            if not self._segments or self._segments[-1] != first_seq:
                self._segments.append(first_seq)

    def _named_blank(self, first_seq: int, salt: int, capacity_min: int) -> _Blank:
        try:
            blank = self._take_blank(capacity_min)
        except OSError as error:
            raise _failed(error, "no room for a new segment", dead=False) from error
        try:
            _write_all(blank.fd, [pack_head(first_seq, blank.capacity, salt)], 0)
            os.fsync(blank.fd)
            os.replace(self._folder / PREPARED_NAME, segment_path(self._folder, first_seq))
            fsync_dir(self._folder)
        except OSError as error:
            os.close(blank.fd)
            self._failure = error
            raise _failed(error, "a new segment cannot be put on disk", dead=True) from error
        return blank

    def _take_blank(self, capacity_min: int) -> _Blank:
        self._blank_asked = False
        blank, self._blank = self._blank, None
        if blank is not None and blank.capacity >= capacity_min:
            return blank
        if blank is not None:
            os.close(blank.fd)
        return self._make_blank(max(self._settings.segment_bytes, capacity_min))

    def _make_blank(self, capacity: int) -> _Blank:
        fd = _file_with_room(self._folder / PREPARED_NAME, capacity)
        try:
            if capacity <= self._settings.segment_bytes:
                _fill_with_zeros(fd, capacity)
            os.fsync(fd)
        except OSError:
            os.close(fd)
            (self._folder / PREPARED_NAME).unlink(missing_ok=True)
            raise
        return _Blank(fd, capacity)

    def prepare_next(self) -> None:
        """Have the room of the next segment, making it now where that is not done. Any thread.

        ``commit`` sees to it in a thread of its own once PREPARE_SHARE of a segment is used. Raises
        JournalFull, JournalFailed; the journal can still be written.
        """
        with self._blank_guard:
            if self._blank is None:
                try:
                    self._blank = self._make_blank(self._settings.segment_bytes)
                except OSError as error:
                    raise _failed(error, "no room for the next segment", dead=False) from error

    def _prepare_beside(self) -> None:
        self._blank_asked = True
        self._preparing = threading.Thread(target=self._prepare_quietly, name="journal-room", daemon=True)
        self._preparing.start()

    def _prepare_quietly(self) -> None:
        try:
            self.prepare_next()
        except JournalFailed as failure:
            log.warning("%s; what is left of the current one is used first", failure)

    # -- room ------------------------------------------------------------------------------------

    def release_reserve(self) -> int:
        """Give the reserve's room back to the file system; bytes freed (0 where it was not held)."""
        path = self._folder / RESERVE_NAME
        freed = _size(path)
        path.unlink(missing_ok=True)
        fsync_dir(self._folder)
        return freed

    def restore_reserve(self) -> bool:
        """Have the reserve again; False where the disk has no room to spare for it.

        To spare: a reserve taken from the last free bytes would stop the very writes it is there for, so
        it is only made where two more segments fit beside it.
        """
        size, path = self._settings.reserve_bytes, self._folder / RESERVE_NAME
        if _size(path) >= size:
            return True
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < size + 2 * self._settings.segment_bytes:
            log.warning("no room for the journal's reserve of %d bytes", size)
            return False
        tmp = self._folder / f"{RESERVE_NAME}.tmp"
        try:
            fd = _file_with_room(tmp, size)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(tmp, path)
            fsync_dir(self._folder)
        except OSError as error:
            tmp.unlink(missing_ok=True)
            log.warning("no reserve for the journal: %s", error)
            return False
        return True

    def cut(self, below_seq: int) -> int:
        """Remove the segments all of whose records are below ``below_seq``; bytes freed.

        The last segment always stays: its name keeps the numbers from starting again. Raises OSError.
        """
        with self._guard:
            gone = [
                first
                for first, after in zip(self._segments, self._segments[1:], strict=False)
                if after <= below_seq
            ]
        freed = 0
        # Oldest first, so that a crash on the way leaves no hole. Without the guard: on a disk that stalls an unlink
        # waits for long, and whoever asks for sizes meanwhile must not.
        for first in gone:
            path = segment_path(self._folder, first)
            freed += _size(path)
            path.unlink(missing_ok=True)
            with self._guard:
                self._segments.remove(first)
        if gone:
            fsync_dir(self._folder)
        return freed

    def close(self) -> None:
        """Give up the files. All that was committed is on disk already; closing twice does nothing."""
        if self._preparing is not None:
            self._preparing.join()
        with self._blank_guard:
            blank, self._blank = self._blank, None
            if blank is not None:
                os.close(blank.fd)
                (self._folder / PREPARED_NAME).unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._failure = self._failure or OSError(errno.EBADF, "closed")


def _failed(error: OSError, what: str, dead: bool) -> JournalFailed:
    kind = JournalFull if error.errno in FULL_ERRNOS else JournalFailed
    return kind(f"{what}: {error}", error.errno, dead)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _file_with_room(path: Path, size: int) -> int:
    """A new file of ``size`` zeros whose blocks are set aside, as an open descriptor. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        if size:
            os.posix_fallocate(fd, 0, size)
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


def _fill_with_zeros(fd: int, size: int) -> None:
    """Write every byte once. Room that is only set aside is marked as written by the first write to it, so
    each commit would wait for the file system's own journal too: twice as long, and one more thing that
    must not go wrong. In small steps, each on disk before the next, so that commits get their turn."""
    step = bytes(min(size, FILL_BYTES))
    for offset in range(0, size, FILL_BYTES):
        os.pwrite(fd, step[: size - offset], offset)
        os.fdatasync(fd)


def _write_all(fd: int, buffers: Sequence[bytes], offset: int) -> None:
    """pwritev until all is written: the kernel takes at most _IOV_MAX buffers, and may take a part."""
    left: list[bytes | memoryview] = list(buffers)
    at = 0
    while at < len(left):
        written = os.pwritev(fd, left[at : at + _IOV_MAX], offset)
        if written == 0:
            raise OSError(errno.ENOSPC, "nothing could be written")
        offset += written
        while at < len(left) and written >= len(left[at]):
            written -= len(left[at])
            at += 1
        if written:
            left[at] = memoryview(left[at])[written:]
