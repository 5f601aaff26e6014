"""What the parts do that meet a full disk; an engine whose disk fills and is freed is F6 of the fault matrix."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from anomaly.alerts.outbox import Outbox
from ingest.committer import Committer, Group
from ingest.fulldisk import FullDisk, is_full
from storage.hot import HotTier, list_hot
from storage.journal_reader import JournalReader
from storage.records import RecordType
from storage.settings import JournalSettings
from tests.anomaly_events import event
from tests.faults_disk import SmallDisk
from tests.faults_trial import Impossible
from tests.storage_rows import T0, batch

pytestmark = pytest.mark.crash


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    try:
        with SmallDisk(tmp_path / "disk", 24 << 20) as made:
            yield made.at
    except Impossible as why:
        pytest.skip(f"NOT TESTED: {why}")


def fill(disk: Path, leave: int) -> Path:
    """Take all room but ``leave`` bytes; the file that does, to be removed."""
    found = os.statvfs(disk)
    path = disk / "filler"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave)
    return path


def test_hot_rows_that_found_no_room_stand_once_after_a_longer_range_was_written(disk: Path) -> None:
    rng = np.random.default_rng(1)
    main = batch(7, [(i, T0, float(v)) for i, v in enumerate(rng.random(60_000))])
    late = batch(8, [(0, T0 - 1, 9.0)])
    hot, gate = HotTier(disk), FullDisk("test")
    filler = fill(disk, 64 << 10)
    assert not gate.attempt("hot files", lambda: hot.write(7, 8, main, late)), "the late file alone fits"
    assert gate.why == "no room for hot files"
    assert list((disk / "lake").rglob("*.parquet")) == []
    filler.unlink()
    assert gate.attempt("hot files", lambda: hot.write(7, 12, main, late))
    assert gate.why == ""
    assert [(f.first, f.last, f.late, f.rows) for f in hot.pending(-1)] == [
        (7, 12, False, 60_000),
        (7, 12, True, 1),
    ]
    assert [len(list_hot(disk, is_late)) for is_late in (False, True)] == [1, 1]
    assert HotTier(disk).recover(-1, -1) == 12


def test_alerts_that_found_no_room_are_recorded_later_by_the_same_connection(disk: Path) -> None:
    outbox = Outbox(disk / "outbox.db")
    outbox.record([event(0)], 3)
    filler = fill(disk, 0)
    events = [event(number) for number in range(1, 2_000)]
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError) as failure:
            outbox.record(events, 9)
        assert is_full(failure.value)
    assert outbox.judged_seq() == 3
    filler.unlink()
    assert outbox.record(events, 9).events == len(events)
    assert outbox.judged_seq() == 9
    assert len(outbox.export_since(0)) == 2_000
    outbox.close()


def test_an_error_that_is_not_about_room_is_not_held_back() -> None:
    gate = FullDisk("test")

    def broken() -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise OSError(5, "Input/output error")  # noqa: B904 - the two merely met

    with pytest.raises(OSError, match="Input/output"):
        gate.attempt("hot files", broken)
    assert not gate.full


@pytest.mark.parametrize("left", [5 << 20, 0], ids=["no room for a segment", "no room at all"])
def test_groups_held_by_a_full_disk_stand_in_the_journal_once_and_in_order(disk: Path, left: int) -> None:
    settings = JournalSettings(segment_bytes=6 << 20, reserve_bytes=2 << 20)
    bodies = [bytes([number]) * (1 << 18) for number in range(40)]
    acknowledged: list[int] = []

    async def speak() -> Committer:
        loop = asyncio.get_running_loop()
        committer = Committer(disk / "journal", settings, 1, loop)
        committer.journal.prepare_next()
        filler = fill(disk, left)
        committer.start()

        def submit(number: int) -> None:
            """One by one, for what is submitted at once may be one group larger than a segment."""

            def then() -> None:
                acknowledged.append(number)
                if number + 1 < len(bodies):
                    submit(number + 1)

            committer.submit(Group([(RecordType.EVENT, bodies[number])], then))

        submit(0)
        async with asyncio.timeout(60):
            while not committer.full:  # noqa: ASYNC110 - a counter of a thread
                await asyncio.sleep(0.01)
            assert len(acknowledged) < len(bodies)
            assert not (disk / "journal" / "reserve").exists()
            filler.unlink()
            while len(acknowledged) < len(bodies):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        committer.stop()
        await loop.run_in_executor(None, committer.join)
        return committer

    committer = asyncio.run(speak())
    assert acknowledged == list(range(len(bodies)))
    assert not committer.full
    reader = JournalReader(disk / "journal", 1)
    found = []
    while records := reader.read():
        found += records
    assert [record.seq for record in found] == list(range(1, len(bodies) + 1))
    assert [record.body for record in found] == bodies
