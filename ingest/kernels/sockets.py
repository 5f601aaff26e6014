"""recv and send over many sockets in one call.

Owns the loop around the two system calls, without the interpreter's lock: given up and taken back for each of a
thousand sockets, it would be waited for a thousand times while another thread judges.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from ingest.kernels.compiling import compiled
from ingest.kernels.words import i32
from storage.batch import I32, I64

_types: Any = import_module("numba").types
_recv: Any = _types.ExternalFunction(
    "recv", _types.intp(_types.int32, _types.intp, _types.uintp, _types.int32)
)
_send: Any = _types.ExternalFunction(
    "send", _types.intp(_types.int32, _types.intp, _types.uintp, _types.int32)
)
_errno_at: Any = _types.ExternalFunction("__errno_location", _types.intp())

CLOSED: Final = -1
"""The peer closed."""
BROKEN: Final = -2
"""The connection is no more."""
_DONTWAIT_NOSIGNAL: Final = 0x40 | 0x4000
_EINTR, _EAGAIN = 4, 11


@compiled
def receive(fds: I32, longest: I64, count: int, at: int, room: int, sizes: I64) -> None:
    """Read each of ``fds[:count]`` once, one behind the other from address ``at`` on, ``room`` bytes in all.

    longest  int64: bytes at most of each; sizes: bytes read, 0 where none are there or there is no room,
             CLOSED, BROKEN
    """
    for k in range(count):
        asked = min(longest[k], room)
        sizes[k] = 0
        if asked <= 0:
            continue
        got = _recv(fds[k], at, asked, _DONTWAIT_NOSIGNAL)
        if got > 0:
            sizes[k] = got
            at += got
            room -= got
        elif got == 0:
            sizes[k] = CLOSED
        else:
            why = i32(_errno_at())
            sizes[k] = 0 if why in (_EAGAIN, _EINTR) else BROKEN


@compiled
def send_all(fds: I32, at: int, ends: I64, count: int, sent: I64) -> None:
    """Send to each of ``fds[:count]`` its bytes, which stand one behind the other from address ``at`` on.

    ends  int64: where each one's end, counted from ``at``; sent: bytes the kernel took, BROKEN
    """
    begin = 0
    for k in range(count):
        size = ends[k] - begin
        took = _send(fds[k], at + begin, size, _DONTWAIT_NOSIGNAL)
        if took < 0:
            why = i32(_errno_at())
            took = 0 if why in (_EAGAIN, _EINTR) else BROKEN
        sent[k] = took
        begin = ends[k]
