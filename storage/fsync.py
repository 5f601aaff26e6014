"""What "on disk" means: file contents, names in folders, and renames that outlive a power cut.

Owns the order of fsyncs for whole files. Knows nothing of what the files hold. A failed fsync is raised,
never retried: after one the kernel may have dropped the very pages it could not write and report success
the next time.
"""

from __future__ import annotations

import os
from pathlib import Path


def fsync_file(path: Path) -> None:
    """Put a closed file's contents on disk. Its name needs fsync_dir of its folder. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_dir(path: Path) -> None:
    """Put a folder's names on disk: what was made, renamed or removed in it so far. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_durably(folder: Path, mode: int = 0o777) -> None:
    """Make ``folder`` and what is missing above it, each name on disk: else a power cut takes all that was put into it.

    ``mode`` is that of ``folder`` where it is made. Raises OSError.
    """
    missing = []
    at = folder.absolute()
    while not at.exists():
        missing.append(at)
        at = at.parent
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for made in reversed(missing):
        fsync_dir(made.parent)


def replace_durably(tmp: Path, final: Path) -> None:
    """Give ``tmp`` the name ``final``: after a crash there is the old whole file or the new whole file.

    The contents go to disk before the rename and the folder after it; otherwise the name could outlive
    its bytes. Both must be on one file system. Raises OSError; ``tmp`` may then still stand.
    """
    fsync_file(tmp)
    os.replace(tmp, final)
    fsync_dir(final.parent)
    if tmp.parent != final.parent:
        fsync_dir(tmp.parent)
