"""One poll's bytes in one buffer, and the messages a kernel finds in them.

Owns the arrays: segments (one a connection that was read), messages, acknowledgements; all preallocated and
grown where a poll brings more. What they say holds until ``clear``. Knows no socket and no meaning of a
message. Needs numba: made only where ``ingest.kernels.compiling.IS_COMPILED``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np

from ingest.kernels.scan import (
    ACKS,
    DONE,
    END,
    FIRST,
    LAST,
    LOAD_AT,
    LOAD_BYTES,
    MESSAGE_FIELDS,
    PARTIAL,
    PID,
    SEGMENT,
    START,
    TOPIC_AT,
    TOPIC_BYTES,
    V5,
    new_segments,
    scan_segments,
)
from ingest.kernels.words import SLACK
from storage.batch import I32, I64, U8

MESSAGES_BEGIN = 16_384
"""Room at first: a poll of the city brings 1,162 messages."""
SEGMENTS_BEGIN = 1_024

P = TypeVar("P")


class Arena(Generic[P]):
    """``owners[s]`` is whoever segment ``s`` belongs to; columns are those of ingest.kernels.scan.

    messages  int32 [count, MESSAGE_FIELDS]; heads uint8 [count]: as in ingest.frames.Frames
    acks      uint8: PUBACK or PUBREC of each message that has one, segment after segment
    """

    def __init__(self, bytes_max: int) -> None:
        self.buffer: U8 = np.zeros(bytes_max + SLACK, np.uint8)
        self.view = self.buffer.data[:bytes_max]
        self.bytes_max = bytes_max
        self.used = 0
        self.owners: list[P] = []
        self.segments: I64 = new_segments(SEGMENTS_BEGIN)
        self.messages: I32 = np.zeros((MESSAGES_BEGIN, MESSAGE_FIELDS), np.int32)
        self.heads: U8 = np.zeros(MESSAGES_BEGIN, np.uint8)
        self.acks: U8 = np.zeros(4 * MESSAGES_BEGIN, np.uint8)
        self._comps: U8 = np.zeros(4 * MESSAGES_BEGIN, np.uint8)
        self._ends: list[int] = []
        self._v5: list[bool] = []
        self._scanned = 0
        self.count = self.acked = self._comped = 0

    def clear(self) -> None:
        """Forget everything: the next poll begins."""
        self.owners.clear()
        self._ends.clear()
        self._v5.clear()
        self.used = self._scanned = self.count = self.acked = self._comped = 0

    @property
    def room(self) -> int:
        """Bytes that still fit."""
        return self.bytes_max - self.used

    def segment(self, owner: P, size: int, v5: bool) -> int:
        """The next ``size`` bytes, written to ``view[used:]`` already, belong to ``owner``; its number."""
        self.owners.append(owner)
        self.used += size
        self._ends.append(self.used)
        self._v5.append(v5)
        return len(self.owners) - 1

    def segments_of(self, owners: Sequence[P], sizes: Sequence[int], v5: Sequence[bool]) -> None:
        """``segment`` for many: each one's bytes, one behind the other, are written already."""
        self.owners += owners
        ends = list(accumulate(sizes, initial=self.used))
        self.used = ends[-1]
        self._ends += ends[1:]
        self._v5 += v5

    def scan(self, bytes_max: int) -> None:
        """Find the messages of all segments not scanned yet; ``bytes_max`` bounds a packet."""
        count = len(self.owners)
        self._lay_out(count)
        while True:
            self._scanned, self.count, self.acked, self._comped = scan_segments(
                self.buffer,
                self.segments,
                count,
                self._scanned,
                bytes_max,
                self.messages,
                self.heads,
                self.count,
                self.acks,
                self.acked,
                self._comps,
                self._comped,
            )
            if self._scanned == count:
                return
            self._grow()

    def _lay_out(self, count: int) -> None:
        """Rows for the segments that came since the last scan."""
        if count > len(self.segments):
            self.segments = np.concatenate([self.segments, new_segments(2 * count - len(self.segments))])
        begin = self._scanned
        new = self.segments[begin:count]
        new[:] = 0
        new[:, FIRST] = -1
        new[:, END] = self._ends[begin:]
        new[:, START] = [self._ends[begin - 1] if begin else 0, *self._ends[begin:-1]]
        new[:, DONE] = new[:, START]
        new[:, V5] = self._v5[begin:]

    def _grow(self) -> None:
        self.messages = np.concatenate([self.messages, np.zeros_like(self.messages)])
        self.heads = np.concatenate([self.heads, np.zeros_like(self.heads)])
        self.acks = np.concatenate([self.acks, np.zeros_like(self.acks)])
        self._comps = np.concatenate([self._comps, np.zeros_like(self._comps)])

    def topic(self, message: int) -> bytes:
        """A message's topic."""
        at, size = self.messages[message, TOPIC_AT : TOPIC_BYTES + 1].tolist()
        return bytes(self.view[at : at + size])

    def payload(self, message: int) -> bytes:
        """A message's payload."""
        at, size = self.messages[message, LOAD_AT : LOAD_BYTES + 1].tolist()
        return bytes(self.view[at : at + size])

    def pid(self, message: int) -> bytes:
        """A message's packet id as on the wire; empty where it has none."""
        pid = int(self.messages[message, PID])
        return pid.to_bytes(2, "big") if pid else b""

    def segment_of(self, message: int) -> int:
        """Whose message it is."""
        return int(self.messages[message, SEGMENT])

    def outcomes(self) -> Iterator[tuple[int, int, bytes, bytes, int]]:
        """By segment: messages to be acknowledged; bytes they and those without were; PUBCOMPs, answers to
        the PUBRELs met; the bytes left, and how many their PUBLISH needs in all (0: what is left is odd)."""
        comps, at = self._comps[: 4 * self._comped].tobytes(), 0
        kept = self.segments[: len(self.owners)].tolist()
        for start, end, done, need, stop, first, last, acks, comped, _ in kept:
            if done == end and not comped:
                # Whole messages and nothing else, as nearly always.
                yield acks, done - start if last > first else 0, b"", b"", 0
                continue
            rest = bytes(self.view[done:end]) if done < end else b""
            size = done - start if last > first else 0
            yield acks, size, comps[at : at + 4 * comped], rest, need if stop == PARTIAL else 0
            at += 4 * comped

    def spans(self) -> I64:
        """int64 [n, 5] by segment: first and last message, where its acknowledgements begin and end in ``acks``,
        bytes they were."""
        kept = self.segments[: len(self.owners)]
        spans = np.empty((len(kept), 5), np.int64)
        spans[:, 0], spans[:, 1] = kept[:, FIRST], kept[:, LAST]
        spans[:, 3] = 4 * np.cumsum(kept[:, ACKS])
        spans[:, 2] = spans[:, 3] - 4 * kept[:, ACKS]
        spans[:, 4] = kept[:, DONE] - kept[:, START]
        return spans
