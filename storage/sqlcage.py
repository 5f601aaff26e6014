"""The kernel's part of the cage for SQL: a process that can read one folder and write nothing.

Owns Landlock (Linux 5.13 and later; man 7 landlock) and the resource limits. Knows no SQL. Where the kernel has no
Landlock the limits still hold: no file can be given a byte.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444  # these three have one number on every architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_RIGHTS: Final = {1: 13, 2: 14, 3: 15}
"""ABI -> how many of the rights on files it knows, from bit 0; later ones add none that opens a file."""
_RIGHTS_NEWEST: Final = 15
_NO_NEW_PRIVS: Final = 38
OF_THE_MACHINE: Final = (
    "/sys/devices/system/cpu", "/sys/fs/cgroup", "/proc/self/cgroup", "/proc/stat", "/proc/meminfo",
)  # fmt: skip
"""DuckDB counts processors and memory when it starts."""


def enclose(folder: Path) -> bool:
    """From now on this process, for good, may open files below ``folder`` to read and nothing else on any disk.

    (What Linux tells of processors and memory is no disk.)
    Landlock binds the calling thread and those it makes later: call it before a library has started threads, and
    after everything is imported.
    What is open already stays open. Returns whether the kernel has Landlock; without it only writing is prevented.
    Raises OSError where the kernel has it and refuses.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if version < 1:
        return False
    handled = (1 << _RIGHTS.get(version, _RIGHTS_NEWEST)) - 1
    attributes = struct.pack("=Q", handled)
    ruleset = _checked(
        libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    )
    for path in (folder, *(Path(p) for p in OF_THE_MACHINE if Path(p).exists())):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
        rule = struct.pack("=Qi", rights, fd)
        _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, ctypes.c_uint32(0)))
        os.close(fd)
    _checked(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    os.close(ruleset)
    return True


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
