"""Reading the journal by position, while another thread or process appends to it and cuts it.

Owns a reader's position, its way from segment to segment, and what is said of damage. Writes nothing.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from storage.records import RecordError, RecordType, rows_of
from storage.segment import (
    SEGMENT_HEAD,
    Ending,
    JournalError,
    Record,
    SegmentFile,
    list_segments,
)

BYTES_MAX = 16 << 20
"""Bodies one ``read`` returns unless told otherwise: half a minute of a city in a few reads."""


class JournalCorrupt(JournalError):  # noqa: N818 - says what happened
    """Records that were on disk cannot be read. The reader already stands behind them: read on.

    path, offset         the file, and where in it the damage begins
    first_seq, last_seq  the records lost
    next_seq             where the reader goes on
    """

    def __init__(self, path: Path, offset: int, first_seq: int, last_seq: int) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: records {first_seq} to {last_seq} are lost")
        self.path = path
        self.offset = offset
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.next_seq = last_seq + 1


class JournalCut(JournalError):  # noqa: N818 - says what happened
    """The records asked for were cut away. ``next_seq`` is the first one that is there: seek to it."""

    def __init__(self, wanted_seq: int, next_seq: int) -> None:
        super().__init__(f"record {wanted_seq} was cut from the journal; the first there is {next_seq}")
        self.wanted_seq = wanted_seq
        self.next_seq = next_seq


class JournalReader:
    """A position in a journal folder. For one thread; any number of readers may stand beside the writer."""

    def __init__(self, folder: Path, from_seq: int) -> None:
        """Stand before record ``from_seq`` (≥ 1). Opens nothing yet."""
        self._folder = folder
        self._segment: SegmentFile | None = None
        self._offset = 0
        self._seq = 0
        self._from = from_seq
        self._ready: deque[Record] = deque()

    @property
    def next_seq(self) -> int:
        """The record the next ``read`` begins with."""
        return self._ready[0].seq if self._ready else max(self._seq, self._from)

    def close(self) -> None:
        """Give up the open file but not the position: a later ``read`` opens it again."""
        self._from, self._seq = self.next_seq, 0
        self._ready.clear()
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def seek(self, seq: int) -> None:
        """Stand before record ``seq``. Forwards within the open segment this costs no second reading."""
        if seq == self.next_seq:
            return
        if self._segment is None or not self._segment_leads_to(seq, self._segment):
            self.close()
        self._ready.clear()
        self._from = seq

    def _segment_leads_to(self, seq: int, segment: SegmentFile) -> bool:
        if seq < self._seq or segment.unlinked():
            return False
        return not any(segment.first_seq < first <= seq for first, _ in list_segments(self._folder))

    def read(
        self, upto_seq: int | None = None, bytes_max: int = BYTES_MAX, rows_max: int | None = None
    ) -> list[Record]:
        """The next records in order; [] when there is nothing new.

        upto_seq   the last record known to be on disk, never passed; None takes whole groups as they
                   stand, for a process beside the engine
        bytes_max  of bodies returned, and rows_max of readings in them; a single larger record is
                   returned alone
        Raises JournalCorrupt (go on reading), JournalCut (seek first), JournalNewer, OSError.
        """
        found: list[Record] = []
        size = rows = 0
        while self._ready or self._fill(upto_seq, may_wait=bool(found)):
            record = self._ready[0]
            if upto_seq is not None and record.seq > upto_seq:
                break
            size += len(record.body)
            rows += readings_in(record)
            if found and (size > bytes_max or (rows_max is not None and rows > rows_max)):
                break
            found.append(self._ready.popleft())
        return found

    def _fill(self, upto: int | None, may_wait: bool) -> bool:
        """Make the next group ready. ``may_wait``: an open question is left to the next read."""
        while upto is None or self.next_seq <= upto:
            if self._segment is None and not self._open():
                return False
            assert self._segment is not None
            found = self._segment.group(self._offset, self._seq)
            if isinstance(found, Ending):
                if may_wait or not self._go_on(self._segment, found, upto):
                    return False
                if self._ready:
                    return True
                continue
            self._take(*found)
            if self._ready:
                return True
        return False

    def _take(self, records: list[Record], offset: int) -> None:
        self._ready.extend(r for r in records if r.seq >= self._from)
        self._offset, self._seq = offset, records[-1].seq + 1

    def _open(self) -> bool:
        """Open the segment that holds ``next_seq``; False while there is none at all."""
        wanted = self.next_seq
        while segments := list_segments(self._folder):
            if segments[0][0] > wanted:
                raise JournalCut(wanted, segments[0][0])
            first_seq, path = next(s for s in reversed(segments) if s[0] <= wanted)
            try:
                self._enter(SegmentFile(path, first_seq))
            except FileNotFoundError:
                continue  # cut between the listing and the opening: list again
            return True
        return False

    def _enter(self, segment: SegmentFile) -> None:
        self._from = self.next_seq
        if self._segment is not None:
            self._segment.close()
        self._segment = segment
        self._seq = segment.first_seq
        self._offset = SEGMENT_HEAD.size

    def _go_on(self, segment: SegmentFile, ending: Ending, upto: int | None) -> bool:
        """No whole group stands here. True: look again, perhaps elsewhere; False: nothing new yet.

        Every question put to the disk is followed by looking at the same place again before damage is
        spoken of: the writer may have finished the group meanwhile.
        """
        following = self._following(segment)
        if following is not None:
            # A listing made while names are added may show the second next and not the next. What the
            # first listing shows had its forerunners by then, so the second one has them all.
            following = self._following(segment)
        # Asked after the listing: while this one stands no later one was cut, so the listing has no hole.
        if segment.unlinked():
            self._segment = None
            segment.close()
            return self._open()
        if following is None:
            return self._at_live_end(segment, ending, upto)
        if not isinstance(segment.group(self._offset, self._seq), Ending):
            return True
        first_seq, path = following
        if self._seq < first_seq:
            behind = segment.search(self._seq, first_only=False)
            if segment.torn or behind is not None:
                return self._step_over(segment, behind)
        offset, seq = self._offset, self._seq
        try:
            self._enter(SegmentFile(path, first_seq))
        except FileNotFoundError:
            return True  # the cut has overtaken us: the next look finds this segment unlinked too
        if seq < first_seq:
            self._say_lost(segment, offset, seq, first_seq - 1)
        return True

    def _following(self, segment: SegmentFile) -> tuple[int, Path] | None:
        return next((s for s in list_segments(self._folder) if s[0] > segment.first_seq), None)

    def _at_live_end(self, segment: SegmentFile, ending: Ending, upto: int | None) -> bool:
        if ending is Ending.END and upto is None:
            return False  # the usual case, asked many times a second: no search
        behind = segment.search(self._seq, first_only=upto is None)
        if not isinstance(segment.group(self._offset, self._seq), Ending):
            return True
        if behind is not None:
            # Certain now; what is whole of the damaged group itself is not given up.
            return self._step_over(segment, segment.search(self._seq, first_only=False))
        if upto is None or self._seq > upto:
            return False
        if segment.torn:
            return self._step_over(segment, None)
        # Known to be on disk, and nowhere to be found: whatever is appended next stands behind it.
        seq, self._seq = self._seq, upto + 1
        self._say_lost(segment, self._offset, seq, upto)
        return True

    def _step_over(self, segment: SegmentFile, behind: tuple[int, int] | None) -> bool:
        """The group here is damaged for certain: take its whole records, then go to the one behind."""
        if segment.torn:
            self._take(segment.torn, segment.torn_at)
        elif behind is not None:
            damaged_at, first_lost = self._offset, self._seq
            self._offset, self._seq = behind
            if first_lost < self._seq:
                self._say_lost(segment, damaged_at, first_lost, self._seq - 1)
        return True

    def _say_lost(self, segment: SegmentFile, offset: int, first_seq: int, last_seq: int) -> None:
        """Raise JournalCorrupt, unless nobody asked for the lost records (they lie before a ``seek``)."""
        if last_seq >= self._from:
            raise JournalCorrupt(segment.path, offset, max(first_seq, self._from), last_seq)


def readings_in(record: Record) -> int:
    """Readings a record says it holds; 0 for other types and for a body too short to say."""
    if record.type is not RecordType.READINGS:
        return 0
    try:
        return rows_of(record.body)
    except RecordError:
        return 0  # its reader decodes it and says what is wrong
