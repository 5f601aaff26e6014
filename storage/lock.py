"""One engine a data folder.

Owns the file LOCK in a data folder and who holds it. The kernel gives the lock back when the holder ends,
however it ends; the file itself is never removed, because removing a locked file lets two lock it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

LOCK_NAME: Final = "LOCK"


class DataLocked(RuntimeError):  # noqa: N818 - says what happened
    """Another engine uses this data folder. pid: its process, None where it did not say."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        stop = f"Stop it first (kill {pid})" if pid else "Stop it first"
        super().__init__(
            f"the data folder {folder} is in use by {who}. {stop}, or give this engine its own folder "
            f'([data] dir = "...").'
        )
        self.folder = folder
        self.pid = pid


def in_use(folder: Path) -> bool:
    """Whether an engine seems to hold the folder now. Takes no lock, so it never keeps one from starting."""
    try:
        text = (folder / LOCK_NAME).read_text().strip()
    except FileNotFoundError:
        return False
    return text.isdigit() and Path(f"/proc/{text}").exists()


class DataLock:
    """``with DataLock(folder):`` holds the folder for this process; makes the folder where it is missing.

    A lock holds between processes and between two DataLocks of one. A forked child would keep it: start
    children by spawning.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock, without waiting. Raises DataLocked, OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(fd, 20, 0).strip()
                raise DataLocked(self._folder, int(text) if text.isdigit() else None) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; releasing twice does nothing."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
