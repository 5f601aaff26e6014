"""The newest journal records in memory, and the one call by which Judge reads the journal.

Owns the cache, the number of the last durable record, and waiting for new ones. The cache is never the
truth: what is not in it is read from disk. Knows nothing of what a record holds but its number of readings.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from storage.journal_reader import BYTES_MAX, JournalReader, readings_in
from storage.segment import Record


class Tail:
    """Records that are on disk, newest last, bounded in bytes. Thread-safe.

    Only the thread that commits appends, and only after fdatasync: so ``durable_seq`` is the last record
    that may be judged.
    """

    def __init__(self, bytes_max: int, durable_seq: int = 0) -> None:
        """``bytes_max``: of bodies held. ``durable_seq``: the journal's last record at the start."""
        self._bytes_max = bytes_max
        self._records: deque[Record] = deque()
        self._changed = threading.Condition()
        self._durable_seq = durable_seq
        self._closed = False
        self._size = 0

    @property
    def durable_seq(self) -> int:
        """The last record on disk."""
        return self._durable_seq

    @property
    def bytes_held(self) -> int:
        """Bytes of the bodies in memory."""
        return self._size

    def append(self, records: Sequence[Record]) -> None:
        """Add records whose fdatasync has returned, and wake who waits for them.

        A jump in the numbers (the journal was opened again meanwhile) empties the cache: what lies between
        is on disk. Raises ValueError where numbers go back: that is our own mistake.
        """
        if not records:
            return
        with self._changed:
            if records[0].seq <= self._durable_seq:
                raise ValueError(f"record {records[0].seq} is appended after {self._durable_seq}")
            if records[0].seq != self._durable_seq + 1:
                self._records.clear()
                self._size = 0
            self._records.extend(records)
            self._size += sum(len(record.body) for record in records)
            while self._size > self._bytes_max:
                self._size -= len(self._records.popleft().body)
            self._durable_seq = records[-1].seq
            self._changed.notify_all()

    def release(self, below_seq: int) -> None:
        """Forget the records below ``below_seq``: who needs them again reads the disk."""
        with self._changed:
            while self._records and self._records[0].seq < below_seq:
                self._size -= len(self._records.popleft().body)

    def read(
        self,
        from_seq: int,
        upto_seq: int | None = None,
        bytes_max: int = BYTES_MAX,
        rows_max: int | None = None,
    ) -> list[Record] | None:
        """Records from ``from_seq`` on, limited as JournalReader.read does; [] when there is nothing new.

        None: ``from_seq`` is durable but no longer in memory.
        """
        with self._changed:
            if from_seq > self._durable_seq:
                return []
            if not self._records or from_seq < self._records[0].seq:
                return None
            upto = self._durable_seq if upto_seq is None else min(upto_seq, self._durable_seq)
            first = self._records[0].seq
            found: list[Record] = []
            size = rows = 0
            for seq in range(from_seq, upto + 1):
                record = self._records[seq - first]
                size += len(record.body)
                rows += readings_in(record)
                if found and (size > bytes_max or (rows_max is not None and rows > rows_max)):
                    break
                found.append(record)
            return found

    def wait(self, seq: int, timeout_s: float) -> bool:
        """Wait until record ``seq`` is durable; False after ``timeout_s`` or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._durable_seq >= seq, timeout_s)
            return self._durable_seq >= seq

    def close(self) -> None:
        """Wake all who wait, for good. Reading goes on as before."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Feed:
    """Judge's view of the journal: memory while it keeps up, the disk while it is behind. For one thread."""

    def __init__(self, reader: JournalReader, tail: Tail) -> None:
        self._reader = reader
        self._tail = tail

    @property
    def durable_seq(self) -> int:
        """The last record that can be read."""
        return self._tail.durable_seq

    def read(
        self,
        from_seq: int,
        rows_max: int | None = None,
        timeout_s: float = 0.0,
        upto_seq: int | None = None,
        bytes_max: int = BYTES_MAX,
    ) -> list[Record]:
        """The records from ``from_seq`` on, as soon as there is one; [] after ``timeout_s``.

        Asking for ``from_seq`` says that all before it is done with: the memory for it is given back.
        Limits are those of JournalReader.read. Raises JournalCorrupt and JournalCut (go on at their
        ``next_seq``), JournalNewer, OSError.
        """
        self._tail.release(from_seq)
        if (upto_seq is not None and upto_seq < from_seq) or not self._tail.wait(from_seq, timeout_s):
            return []
        found = self._tail.read(from_seq, upto_seq, bytes_max, rows_max)
        if found is not None:
            return found
        durable = self._tail.durable_seq
        upto = durable if upto_seq is None else min(upto_seq, durable)
        self._reader.seek(from_seq)
        return self._reader.read(upto, bytes_max, rows_max)

    def close(self) -> None:
        """Give up the reader's file, once its thread has ended (Tail.close wakes a ``read`` that waits)."""
        self._reader.close()
