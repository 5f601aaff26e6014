"""What a start does about a disk that lost or changed what was written: named, set aside, and the rest goes on.

Owns the names of files set aside, the words about them, and from which state rows can be derived again. What a
damaged file of each kind means stands with that kind (storage.hot, storage.logs, storage.deltarepair).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from storage import hashes, snapshot
from storage.fsync import fsync_dir
from storage.segment import list_segments

log = logging.getLogger(__name__)

BAD_SUFFIX = ".bad"


@dataclass(slots=True)
class Damage:
    """What starts found and did, for metrics and for whoever reads the log.

    set_aside  files renamed to end in ``.bad``
    lost_rows  rows that stand nowhere else
    said       a sentence each, as logged
    """

    set_aside: list[Path] = field(default_factory=list)
    lost_rows: int = 0
    said: list[str] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        """Log it as an error and keep it."""
        self.said.append(sentence)
        log.error("%s", sentence)

    def add(self, other: Damage) -> None:
        """Take over what another part found."""
        self.set_aside += other.set_aside
        self.lost_rows += other.lost_rows
        self.said += other.said

    def put_aside(self, path: Path, why: str) -> Path:
        """Rename ``path`` to end in ``.bad``, durably, and say why; a file of that name is replaced."""
        bad = path.with_name(path.name + BAD_SUFFIX)
        os.replace(path, bad)
        fsync_dir(path.parent)
        self.set_aside.append(bad)
        self.say(f"{path}: {why}; set aside as {bad.name}")
        return bad


class States:
    """Which states of Judge a start can go back to, and what vouches for a file. Reads names, and the list of
    hashes when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "snapshot"

    @cached_property
    def _sums(self) -> dict[str, list[hashes.Sum]]:
        return hashes.kept(self._root).sums

    def was_synced(self, path: Path) -> bool:
        """The file was on disk once, whole: it has a kept hash."""
        return hashes.name_of(self._root, path) in self._sums

    def fits(self, path: Path) -> bool:
        """The file is what was written; True also for one without a kept hash. False where it is gone."""
        sums = self._sums.get(hashes.name_of(self._root, path))
        try:
            return sums is None or hashes.sum_of(path) in sums
        except FileNotFoundError:
            return False

    def presumed(self, seq: int) -> bool:
        """A snapshot presumes that the rows of record ``seq`` stand in a file."""
        return any(at >= seq for at, _ in snapshot.list_snapshots(self._folder))

    def reach(self, seq: int) -> bool:
        """Whether the rows of record ``seq`` and all after it can be derived again: a whole state before it, and the
        journal from there on."""
        segments = list_segments(self._root / "journal")
        if not segments:
            return False
        journal_first = segments[0][0]
        for at, path in reversed(snapshot.list_snapshots(self._folder)):
            if at < seq and at + 1 >= journal_first and _whole(path):
                return True
        return journal_first == 1

    def forget_above(self, seq: int) -> None:
        """Go back to a state at or before ``seq``; durable on return, so a second crash comes to the same end."""
        snapshot.forget_above(self._folder, seq)


def _whole(path: Path) -> bool:
    try:
        snapshot.load(path)
    except (snapshot.SnapshotError, OSError):
        return False
    return True
