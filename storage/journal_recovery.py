"""What the last segment of a journal holds after a crash, and where writing may go on.

Owns telling an unfinished group, which is cut off, from damage in front of whole groups, which is kept.
Runs once, before there is a writer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from storage.segment import RECORD_HEAD, SEGMENT_HEAD, Ending, SegmentFile, list_segments


@dataclass(frozen=True, slots=True)
class Recovery:
    """What ``Journal.open`` found.

    last_seq     the last record kept, 0 in a new journal; where the last segment's head cannot be read, a
                 number no record of it can have passed
    cut_bytes    bytes of an unfinished group taken off the end, and
    cut_records  how many whole records were among them; none of these was ever acknowledged
    damage       sentences about damage in front of groups that are whole; those groups are kept
    """

    last_seq: int
    cut_bytes: int
    cut_records: int
    damage: tuple[str, ...] = ()


def recover(folder: Path) -> Recovery:
    """Verify the last segment and cut an unfinished group off its end; numbers go on after ``last_seq``.

    Raises JournalNewer, OSError.
    """
    segments = list_segments(folder)
    if not segments:
        return Recovery(0, 0, 0)
    first_seq, path = segments[-1]
    segment = SegmentFile(path, first_seq)
    try:
        segment.drop_cache()
        size = segment.size()
        if segment.salt is None:
            # Which records it held cannot be known; no more than this, and their numbers are not used again.
            sentence = f"{path}: the head is damaged; records {first_seq} and after cannot be read"
            return Recovery(first_seq + size // RECORD_HEAD.size, 0, 0, (sentence,))
        recovered, end = _verify(segment)
    finally:
        segment.close()
    if size > end:
        _truncate(path, end)
    return recovered


def _verify(segment: SegmentFile) -> tuple[Recovery, int]:
    """What is kept, damage among it stepped over, and the offset behind the last whole group."""
    offset, seq = SEGMENT_HEAD.size, segment.first_seq
    damage: list[str] = []
    while True:
        found = segment.group(offset, seq)
        if not isinstance(found, Ending):
            records, offset = found
            seq = records[-1].seq + 1
            continue
        torn, torn_at = len(segment.torn), segment.torn_at
        # A later group can only have been written after this place was on disk: then this is no torn end.
        used_end = segment.used_end(offset)
        if used_end == offset or segment.search(seq, first_only=True) is None:
            return Recovery(seq - 1, used_end - offset, torn, tuple(damage)), offset
        behind = segment.search(seq, first_only=False)
        assert behind is not None, "the first search found one"
        lost = f"records {seq + torn} to {behind[1] - 1} are lost"
        damage.append(f"{segment.path} is damaged at byte {torn_at}: {lost}")
        offset, seq = behind


def _truncate(path: Path, end: int) -> None:
    """Truncated rather than overwritten with zeros: nothing behind the end can ever be read again, the
    unused room is given back, and the file is not written any more."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, end)
        os.fsync(fd)
    finally:
        os.close(fd)
