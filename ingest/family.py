"""Processes that belong to the engine: they die with it, even by kill -9.

Owns that one bond. What such a process does and says is its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

PR_SET_PDEATHSIG: Final = 1


def die_with_engine() -> None:
    """Called first in such a process: the kernel kills it when its parent's thread ends; Ctrl-C is the parent's."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended between the two lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def end(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """Ask such a process to end and wait; after ``patience_s`` it is killed."""
    import asyncio  # who only calls the other has no loop

    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), patience_s)
    except TimeoutError:
        process.kill()
        await process.wait()
