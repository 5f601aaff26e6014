"""Every byte of a journal segment looked at: records, the zeros between them, the room not used yet.

Owns telling one flipped bit in a segment from a group that is just being written. Changes nothing and knows
nothing of what a record means; storage.scrub says what the damage costs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.segment import RECORD_HEAD, SEGMENT_HEAD, Ending, SegmentFile, padded

WRITING_S_MAX: Final = 3.0
"""Bytes that are no whole group yet are looked at again for this long: a group in the making takes milliseconds,
on a stalled disk a second or two."""
LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class SegmentDamage:
    """One place of a segment. first_seq > last_seq where no record is lost."""

    offset: int
    first_seq: int
    last_seq: int
    what: str


def check_segment(
    path: Path, first_seq: int, next_first: int | None, live: bool, on_bytes: Callable[[int], None]
) -> list[SegmentDamage]:
    """All damage of one segment; [] where every byte is as it was written.

    next_first  number of the first record of the segment behind it; None for the last one
    live        an engine may be writing to the last one
    Raises FileNotFoundError where it was cut meanwhile, JournalNewer, OSError.
    """
    segment = SegmentFile(path, first_seq)
    try:
        if segment.salt is None:
            return [SegmentDamage(0, first_seq, (next_first or first_seq + 1) - 1, "its head is damaged")]
        return _check_groups(segment, next_first, live, on_bytes)
    finally:
        segment.close()


def _check_groups(
    segment: SegmentFile, next_first: int | None, live: bool, on_bytes: Callable[[int], None]
) -> list[SegmentDamage]:
    found: list[SegmentDamage] = []
    offset, seq = SEGMENT_HEAD.size, segment.first_seq
    while True:
        group = segment.group(offset, seq)
        if not isinstance(group, Ending):
            records, end = group
            at = offset
            for record in records:
                filled = at + RECORD_HEAD.size + len(record.body)
                at += RECORD_HEAD.size + padded(len(record.body))
                if filled < at and any(segment.bytes_at(filled, at - filled)):
                    what = f"bytes between records {record.seq} and {record.seq + 1} are not zero"
                    found.append(SegmentDamage(filled, record.seq + 1, record.seq, what))
            on_bytes(end - offset)
            offset, seq = end, records[-1].seq + 1
            continue
        if live and next_first is None:
            grew = _grew(segment, offset, seq)
            if grew:
                continue
            if grew is None:
                on_bytes(segment.size() - offset)
                return found
        torn, torn_at = len(segment.torn), segment.torn_at
        behind = segment.search(seq, first_only=False)
        if behind is not None:
            found.append(
                SegmentDamage(torn_at, seq + torn, behind[1] - 1, "records do not fit their checksum")
            )
            on_bytes(behind[0] - offset)
            offset, seq = behind
            continue
        found += _check_end(segment, offset, seq, torn, torn_at, next_first)
        on_bytes(segment.size() - offset)
        return found


def _grew(segment: SegmentFile, offset: int, seq: int) -> bool | None:
    """Whether a group stands at the end of the last segment by now: it was just being written. None: nothing does.

    Asked in this order, and before anything behind the end is looked for: an engine writes on meanwhile.
    """
    until = time.monotonic() + WRITING_S_MAX
    while True:
        if not isinstance(segment.group(offset, seq), Ending):
            return True
        if segment.used_end(offset) == offset:
            return None
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_S)


def _check_end(
    segment: SegmentFile, offset: int, seq: int, torn: int, torn_at: int, next_first: int | None
) -> list[SegmentDamage]:
    used = segment.used_end(offset)
    if next_first is not None and seq + torn < next_first:
        what = "records do not fit their checksum" if used > offset else "records are missing at its end"
        return [SegmentDamage(torn_at, seq + torn, next_first - 1, what)]
    if used == offset:
        return []
    if next_first is not None:
        return [SegmentDamage(used - 1, seq, seq - 1, "its unused room is not zero")]
    what = "bytes behind the last whole group: an unfinished group, damaged room, or a damaged last group"
    return [SegmentDamage(offset, seq, seq - 1, what)]


def check_zeros(path: Path, skip: int, on_bytes: Callable[[int], None]) -> int | None:
    """Offset of the first byte from ``skip`` on that is not zero; None where all are. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at = skip
        while block := os.pread(fd, 4 << 20, at):
            left = block.lstrip(b"\0")
            if left:
                return at + len(block) - len(left)
            on_bytes(len(block))
            at += len(block)
    finally:
        os.close(fd)
    return None
