"""Reading and writing many plain sockets at once.

Owns the arrays around the kernels of ingest.kernels.sockets. Knows connections by descriptor only. Needs numba.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ingest.kernels.sockets import receive, send_all
from storage.batch import U8


def read_all(fds: Sequence[int], longest: Sequence[int], buffer: U8, used: int, stop: int) -> list[int]:
    """Read each once into ``buffer[used:stop]``, one behind the other; what came of each as in ``receive``."""
    sizes = np.zeros(len(fds), np.int64)
    receive(
        np.array(fds, np.int32),
        np.array(longest, np.int64),
        len(fds),
        int(buffer.ctypes.data) + used,
        stop - used,
        sizes,
    )
    return sizes.tolist()


def write_all(fds: Sequence[int], pieces: Sequence[bytes]) -> list[int]:
    """Send each its piece; bytes taken of each as in ``send_all``."""
    together = np.frombuffer(b"".join(pieces), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
    sent = np.zeros(len(fds), np.int64)
    send_all(np.array(fds, np.int32), int(together.ctypes.data), ends, len(fds), sent)
    return sent.tolist()
