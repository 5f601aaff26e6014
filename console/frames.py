"""Frames: the binary messages of the feed (console/FORMAT.md).

Owns their header and their deflated planes. Pure: bytes of arrays.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from console.shown import Shown

VERSION: Final = 1
KEYFRAME: Final = 1
DELTA: Final = 2
REPLAY: Final = 1
DRILL: Final = 2
HEADER: Final = struct.Struct("<BBHIqQII")
"""type, wire version, flags, frame seq, event time µs, journal position, registry version, n."""
_LEVEL: Final = 1
_MEMORY: Final = 7
"""zlib's memLevel: 9 would save 0.4 % of the bytes, and cost a tenth of the time for larger tables."""


@dataclass(frozen=True, slots=True)
class FrameHead:
    """A header as numbers; see HEADER."""

    type: int
    version: int
    flags: int
    seq: int
    time_us: int
    pos: int
    registry: int
    n: int


def keyframe(shown: Shown, seq: int, flags: int) -> bytes:
    """Everything, for whoever has nothing."""
    return _head(KEYFRAME, shown, seq, flags) + _deflated(shown.level.tobytes(), shown.state.tobytes())


def delta(before: Shown, shown: Shown, seq: int, flags: int) -> bytes:
    """What became of ``before``, the frame ``seq`` - 1 of the same display."""
    level, state = shown.level - before.level, shown.state ^ before.state
    return _head(DELTA, shown, seq, flags) + _deflated(level.tobytes(), state.tobytes())


def head_of(frame: bytes) -> FrameHead:
    """The header of a frame. Raises struct.error where it is shorter than one."""
    return FrameHead(*HEADER.unpack_from(frame))


def planes_of(frame: bytes) -> tuple[np.ndarray, np.ndarray]:
    """level and state as sent, uint8[n] each."""
    n = head_of(frame).n
    raw = np.frombuffer(zlib.decompress(frame[HEADER.size :], -zlib.MAX_WBITS), np.uint8)
    return raw[:n], raw[n:]


def _head(kind: int, shown: Shown, seq: int, flags: int) -> bytes:
    picture, display = shown.picture, shown.display
    return HEADER.pack(kind, VERSION, flags, seq, picture.now_us, picture.seq, display.version, len(display))


def _deflated(level: bytes, state: bytes) -> bytes:
    # Runs and single bytes are all there is to find: as small as matches would make it, in half the time.
    squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, _MEMORY, zlib.Z_RLE)
    return squeeze.compress(level) + squeeze.compress(state) + squeeze.flush()
