"""The journal thread: groups in, one write and one fdatasync, receipts out.

Owns the only writer of the journal and what happens when the disk says no. Knows nothing of sockets
or of what a record holds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.journal import Journal, JournalFailed, JournalFull
from storage.records import RecordType
from storage.segment import Record
from storage.settings import JournalSettings
from storage.tail import Tail

log = logging.getLogger("yuzui.journal")

EXIT_JOURNAL_FAILED = 74
"""sysexits EX_IOERR: the disk failed an fsync; nothing that was not acknowledged is claimed."""
FULL_RETRY_S = 1.0
"""Between two attempts to write to a full disk: soon enough to resume by itself, rare enough to be quiet."""
ROOM_LOOK_S = 1.0
ROOM_BYTES_MIN = 4 << 20
"""With less free the disk counts as full. The journal's own room was set aside long ago, so it would notice
last of all: what it takes in now, hot files and alerts must find room for a moment later."""


@dataclass(slots=True)
class Group:
    """What must be on disk together, and what is done once it is (on the loop)."""

    bodies: Sequence[tuple[RecordType, bytes]]
    then: Callable[[], None] | None = None
    size: int = field(init=False)
    submitted: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.size = sum(len(body) for _, body in self.bodies)


class Committer(threading.Thread):
    """Groups that arrive while one fdatasync runs share the next.

    Counters (read anywhere): pending_bytes, commits, committed_records, full (the disk is full now),
    room_bytes_min (free bytes it then waits for), commit_s (durations of the newest commits), oldest_s
    (age of the oldest group not on disk).
    """

    def __init__(
        self, folder: Path, settings: JournalSettings, next_seq_min: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(name="journal", daemon=True)
        self._folder = folder
        self._settings = settings
        self._journal = Journal.open(folder, settings, next_seq_min)
        self.tail = Tail(settings.tail_bytes_max, self._journal.last_seq)
        self._loop = loop
        self._queue: deque[Group] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self.pending_bytes = 0
        self.commits = 0
        self.committed_records = 0
        self.full = False
        self.room_bytes_min = 0
        self._looked_at = 0.0
        self.commit_s: deque[float] = deque(maxlen=1024)

    @property
    def journal(self) -> Journal:
        """For the cut below what is sealed, and for sizes."""
        return self._journal

    @property
    def oldest_s(self) -> float:
        """Age in seconds of the oldest group that is not yet on disk; 0 when all are."""
        try:
            return time.monotonic() - self._queue[0].submitted
        except IndexError:
            return 0.0

    def submit(self, group: Group) -> None:
        """Queue a group; ``group.then`` is called on the loop after its fdatasync."""
        with self._changed:
            self._queue.append(group)
            self.pending_bytes += group.size
            self._changed.notify()

    def stop(self) -> None:
        """Commit what is queued, then end. Join the thread afterwards."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Thread body; a failed fsync, or whatever else ends it, ends the process, unacknowledged, with
        EXIT_JOURNAL_FAILED."""
        try:
            while groups := self._next_groups():
                self._commit(groups)
        except JournalFailed as failure:
            log.critical("journal failed, leaving unacknowledged: %s", failure)
            _leave()
        except BaseException as failure:
            # Without this thread nothing is acknowledged any more, and nobody would know why.
            log.critical("journal thread fell over, leaving unacknowledged", exc_info=failure)
            _leave()
        finally:
            self._journal.close()

    def _next_groups(self) -> list[Group]:
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            return list(self._queue)

    def _commit(self, groups: Sequence[Group]) -> None:
        bodies = [body for group in groups for body in group.bodies]
        began = time.perf_counter()
        last = self._commit_when_there_is_room(bodies)
        self.commit_s.append(time.perf_counter() - began)
        self.commits += 1
        self.committed_records += len(bodies)
        first = last - len(bodies) + 1
        self.tail.append([Record(first + i, kind, body) for i, (kind, body) in enumerate(bodies)])
        with self._changed:
            for group in groups:
                self._queue.popleft()
                self.pending_bytes -= group.size
        self._loop.call_soon_threadsafe(_run_all, [g.then for g in groups if g.then])

    def _commit_when_there_is_room(self, bodies: Sequence[tuple[RecordType, bytes]]) -> int:
        """Commit, waiting as long as the disk is full: acknowledgements are held, alerts use the reserve."""
        if self._room_is_low():
            self._hold(f"fewer than {ROOM_BYTES_MIN} bytes are free")
            self._wait_for_room(bodies)
        while True:
            before = self._journal.last_seq
            try:
                last = self._journal.commit(bodies)
            except JournalFull as full:
                self._hold(str(full))
                self._wait_for_room(bodies)
                self._reopen_when_possible(before + 1)
                if self._journal.last_seq != before + len(bodies):
                    continue
                # Only the sync found no room: the group stands, and opening has put it on disk.
                last = self._journal.last_seq
            if self.full:
                self.full = False
                self._journal.restore_reserve()
                log.warning("disk has room again, acknowledgements go on")
            return last

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def _room_is_low(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at < ROOM_LOOK_S:
            return False
        self._looked_at = now
        return self._free_bytes() < ROOM_BYTES_MIN

    def _hold(self, why: str) -> None:
        self._journal.release_reserve()
        if not self.full:
            log.error("disk full, acknowledgements held until there is room: %s", why)
        self.full = True

    def _wait_for_room(self, bodies: Sequence[tuple[RecordType, bytes]]) -> None:
        """Until the reserve fits again beside two segments: going on earlier would take the reserve's own
        room from the alerts and hot files it was given to."""
        segment = self._settings.segment_bytes
        group = sum(len(body) for _, body in bodies)
        self.room_bytes_min = max(
            self._settings.reserve_bytes + segment + max(segment, group), ROOM_BYTES_MIN
        )
        while True:
            self._pause()
            if self._free_bytes() >= self.room_bytes_min:
                return

    def _reopen_when_possible(self, next_seq_min: int) -> None:
        self._journal.close()
        while True:
            try:
                self._journal = Journal.open(self._folder, self._settings, next_seq_min)
            except JournalFull:
                self._pause()
                continue
            return

    def _pause(self) -> None:
        time.sleep(FULL_RETRY_S)
        if self._stopping:
            raise JournalFailed("the disk is full and the engine was told to stop")


def _leave() -> None:
    logging.shutdown()
    os._exit(EXIT_JOURNAL_FAILED)


def _run_all(calls: Sequence[Callable[[], None]]) -> None:
    """Each, whatever becomes of the others: what one of them cannot do must not cost the next its acknowledgements."""
    for call in calls:
        try:
            call()
        except Exception:
            log.exception("a group is on disk, and what was to follow failed")
