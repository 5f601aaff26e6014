"""A hash of every file that lasts: what a disk gave back years later can be told from what was written.

Owns lake/hashes: the list of SHA-256 by file name, its durability and its own checksums. Knows nothing of what
the files hold. Page checksums of Parquet cover pages only; headers, footers, Delta's JSON and lake.sql have
nothing else. SHA-256 because two cores of the class this runs on do 1.7 GB/s of it in hardware.

The list is text, a line for each call: ``crc32c [[name, bytes, sha256], …]``. Only its last line can be torn
(each is on disk before the next), and a line that does not fit its checksum costs only hashes: ``sweep`` of
storage.scrub keeps them anew from the page checksums. Several processes write it, one at a time by a lock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
from crc32c import crc32c

from storage.fsync import fsync_dir, replace_durably

log = logging.getLogger(__name__)

LIST_NAME: Final = "kept"
LOCK_NAME: Final = "lock"
FORMAT: Final = 1
FORMAT_NAME: Final = "#format"
"""Stands where a file's name does in the first line of a list, its number where the length does: versions that
know of no format read it as a file that is gone."""
NAMES_PER_LINE: Final = 256
"""Bounds a line to some 40 KiB: what one flipped bit in the list can cost."""
REWRITE_BYTES_MIN: Final = 4 << 20
"""Below this the list is never rewritten. A city's hot files alone add 26 MB of lines a day, nearly all of files
long gone; it is rewritten whenever it is twice as long as after the last time."""
SUMS_PER_NAME: Final = 2
"""A file that is replaced whole has its new hash kept before the rename: until then the older one is right."""
READ_BYTES: Final = 4 << 20
FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Sum:
    """What a file must be: its length in bytes and its SHA-256 as hex."""

    size: int
    sha256: str


@dataclass(slots=True)
class KeptSums:
    """The list as read.

    sums     by file name below the data folder with "/", newest last; at most SUMS_PER_NAME
    damaged  numbers (from 1) of lines that do not fit their checksum
    """

    sums: dict[str, list[Sum]] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)


def hashes_dir(root: Path) -> Path:
    """Where the list stands below the data folder."""
    return root / "lake" / "hashes"


def sum_of(path: Path, on_block: Callable[[int], None] | None = None) -> Sum:
    """Read a file whole and hash it; ``on_block`` is told the bytes of each block read. Raises OSError.

    With ``on_block`` what the kernel remembers of the file is forgotten first: the disk itself is asked.
    """
    found = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        if on_block:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(READ_BYTES):
            found.update(block)
            size += len(block)
            if on_block:
                on_block(len(block))
    return Sum(size, found.hexdigest())


def root_of(folder: Path) -> Path | None:
    """The data folder of a folder directly in its lake; None for one that is in no lake."""
    return folder.parent.parent if folder.parent.name == "lake" else None


def name_of(root: Path, path: Path) -> str:
    """A file's name in the list."""
    return path.relative_to(root).as_posix()


def keep_hashes(root: Path, paths: Iterable[Path]) -> None:
    """Keep the hash of files that are whole and will not change; on disk on return.

    Call it after their fsync: what is hashed is what was written then. Files that are gone meanwhile are left
    out. Files without a kept hash are no fault: scrub adds them. Raises OSError.
    """
    rows: list[tuple[str, Sum]] = []
    for path in paths:
        try:
            rows.append((name_of(root, path), sum_of(path)))
        except FileNotFoundError:
            continue
    keep_sums(root, rows)


def keep_sums(root: Path, rows: Iterable[tuple[str, Sum]]) -> None:
    """Append (name, sum) to the list; on disk on return. Raises OSError.

    Without room on the disk nothing is kept and nothing raised: a hash is no reading, and scrub adds it later.
    """
    waiting = list(rows)
    if not waiting:
        return
    try:
        _append(root, waiting)
    except OSError as full:
        if full.errno not in FULL_ERRNOS:
            raise
        log.warning("no room for the hashes of %d files; the next scrub keeps them", len(waiting))


def _append(root: Path, waiting: list[tuple[str, Sum]]) -> None:
    with _locked(root) as lock:
        path = hashes_dir(root) / LIST_NAME
        new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            end = _drop_torn_end(fd)
            if end == 0:
                waiting = [(FORMAT_NAME, Sum(FORMAT, "")), *waiting]
            for at in range(0, len(waiting), NAMES_PER_LINE):
                line = _line(waiting[at : at + NAMES_PER_LINE])
                if os.pwrite(fd, line, end) < len(line):
                    raise OSError(errno.ENOSPC, "half a line found room")
                os.fsync(fd)
                end += len(line)
        finally:
            os.close(fd)
        if new:
            fsync_dir(hashes_dir(root))
        if end > max(REWRITE_BYTES_MIN, 2 * _rewritten_bytes(lock)):
            _rewrite(root, lock)


def replace_kept(root: Path, tmp: Path, final: Path) -> None:
    """``replace_durably`` for a file that is replaced whole again and again, its new hash kept first.

    A crash between the two leaves the old file and both hashes. Raises OSError, also where the hash finds no room:
    a new file beside an old hash would look damaged.
    """
    _append(root, [(name_of(root, final), sum_of(tmp))])
    replace_durably(tmp, final)


def kept(root: Path) -> KeptSums:
    """The list; empty where there is none. Lines that are damaged are numbered, not read. Raises OSError."""
    if not (hashes_dir(root) / LIST_NAME).exists():
        return KeptSums()
    with _locked(root):
        return _read(root)


def format_of(root: Path) -> int:
    """What the list says of its own format; 0 where it says nothing or there is none. Raises OSError."""
    try:
        with (hashes_dir(root) / LIST_NAME).open("rb") as file:
            line = file.readline().rstrip(b"\n")
    except FileNotFoundError:
        return 0
    if not _fits(line):
        return 0
    first = orjson.loads(line[9:])[0]
    return int(first[1]) if first[0] == FORMAT_NAME else 0


def mend(root: Path) -> None:
    """Write the list anew without damaged lines and without files that are gone. Raises OSError."""
    with _locked(root) as lock:
        _rewrite(root, lock)


def _read(root: Path) -> KeptSums:
    found = KeptSums()
    try:
        lines = (hashes_dir(root) / LIST_NAME).read_bytes().split(b"\n")
    except FileNotFoundError:
        return found
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not _fits(line):
            found.damaged.append(number)
            continue
        for name, size, sha256 in orjson.loads(line[9:]):
            if name == FORMAT_NAME:
                continue
            sums = found.sums.setdefault(name, [])
            new = Sum(size, sha256)
            if new in sums:
                sums.remove(new)
            sums.append(new)
            del sums[:-SUMS_PER_NAME]
    return found


def _line(rows: list[tuple[str, Sum]]) -> bytes:
    body = orjson.dumps([[name, sum_.size, sum_.sha256] for name, sum_ in rows])
    return f"{crc32c(body):08x} ".encode() + body + b"\n"


def _fits(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == f"{crc32c(line[9:]):08x}".encode()


def _drop_torn_end(fd: int) -> int:
    """Cut a last line that a power cut tore; the end of what is kept."""
    size = os.fstat(fd).st_size
    at, tail = size, b""
    # Backwards to the start of the last line: the list may be long, a line is not.
    while at and tail[:-1].find(b"\n") < 0:
        step = min(at, 1 << 16)
        at -= step
        tail = os.pread(fd, step, at) + tail
    begin = tail[:-1].rfind(b"\n") + 1
    if tail and not (tail.endswith(b"\n") and _fits(tail[begin:-1])):
        log.warning("cut %d bytes of an unfinished line from the list of hashes", len(tail) - begin)
        size = at + begin
        os.ftruncate(fd, size)
    return size


def _rewrite(root: Path, lock: int) -> None:
    found = _read(root)
    rows = [(name, s) for name, sums in found.sums.items() if (root / name).exists() for s in sums]
    rows.insert(0, (FORMAT_NAME, Sum(FORMAT, "")))
    tmp, final = hashes_dir(root) / "kept.tmp", hashes_dir(root) / LIST_NAME
    with tmp.open("wb") as file:
        for at in range(0, len(rows), NAMES_PER_LINE):
            file.write(_line(rows[at : at + NAMES_PER_LINE]))
        size = file.tell()
    replace_durably(tmp, final)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(size).encode(), 0)


def _rewritten_bytes(lock: int) -> int:
    text = os.pread(lock, 20, 0)
    return int(text) if text.isdigit() else 0


@contextmanager
def _locked(root: Path) -> Iterator[int]:
    """One process and thread at the list; the lock's file, which holds its length after the last rewrite."""
    folder = hashes_dir(root)
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fsync_dir(folder.parent)
    fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)
