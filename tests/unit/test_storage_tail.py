"""The tail in memory and the feed over it: what is read from memory is what the disk would give."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from storage.journal import (
    Journal,
    JournalCorrupt,
    JournalReader,
    Record,
)
from storage.records import RecordType
from storage.segment import RECORD_HEAD, SEGMENT_HEAD
from storage.tail import Feed, Tail
from tests.journals import SMALL, Bodies, contents, control, filled, flip, last_segment


def records(first: int, last: int, size: int = 10) -> list[Record]:
    return [Record(seq, RecordType.CONTROL, bytes(size)) for seq in range(first, last + 1)]


def test_the_tail_keeps_the_newest_records_within_its_bytes() -> None:
    tail = Tail(bytes_max=50)
    tail.append(records(1, 4))
    tail.append(records(5, 8))
    assert tail.bytes_held == 50
    assert tail.read(3) is None
    assert [r.seq for r in tail.read(4) or []] == [4, 5, 6, 7, 8]
    assert [r.seq for r in tail.read(6, upto_seq=7) or []] == [6, 7]
    assert tail.read(9) == []
    tail.append(records(9, 9, size=51))
    assert tail.bytes_held == 0
    assert tail.read(9) is None
    assert tail.durable_seq == 9


def test_the_tail_takes_no_record_twice_and_forgets_across_a_jump() -> None:
    tail = Tail(bytes_max=1000, durable_seq=7)
    with pytest.raises(ValueError, match="record 7"):
        tail.append(records(7, 7))
    tail.append(records(8, 9))
    tail.append(records(12, 13))
    assert tail.read(9) is None
    assert [r.seq for r in tail.read(12) or []] == [12, 13]


def test_the_feed_reads_memory_and_falls_back_to_disk_without_a_seam(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    tail = Tail(bytes_max=2000)
    bodies: Bodies = [control(str(i), 100) for i in range(100)]
    for i in range(0, 100, 4):
        last = journal.commit(bodies[i : i + 4])
        tail.append([Record(last - 3 + k, kind, body) for k, (kind, body) in enumerate(bodies[i : i + 4])])
    feed = Feed(JournalReader(tmp_path, 1), tail)
    assert tail.read(1) is None
    found: list[Record] = []
    while len(found) < 100:
        found += feed.read(len(found) + 1, bytes_max=700)
    assert contents(found) == [(i + 1, body) for i, (_, body) in enumerate(bodies)]
    assert {type(r.body) for r in found} == {bytes, memoryview}, "both ways were taken"
    assert tail.bytes_held > 0
    assert feed.read(101) == []
    assert tail.bytes_held == 0, "what is done with is given back"
    assert contents(feed.read(50, upto_seq=51)) == [(50, bodies[49][1]), (51, bodies[50][1])]
    feed.close()


def test_the_feed_wakes_when_a_record_becomes_durable(tmp_path: Path) -> None:
    tail = Tail(bytes_max=1000)
    feed = Feed(JournalReader(tmp_path, 1), tail)
    found: list[Record] = []
    judge = threading.Thread(target=lambda: found.extend(feed.read(1, timeout_s=30)))
    judge.start()
    tail.append(records(1, 2))
    judge.join(timeout=60)
    assert [r.seq for r in found] == [1, 2]
    waiting = threading.Thread(target=lambda: feed.read(3, timeout_s=30))
    waiting.start()
    tail.close()
    waiting.join(timeout=60)
    assert not waiting.is_alive()


def test_the_feed_goes_on_behind_damage_when_asked_from_there(tmp_path: Path) -> None:
    held = filled(tmp_path, 5, size=40)
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 2 * (RECORD_HEAD.size + 40) + 30)
    feed = Feed(JournalReader(tmp_path, 1), Tail(bytes_max=100, durable_seq=10))
    assert contents(feed.read(1)) == held[:2]
    with pytest.raises(JournalCorrupt) as corrupt:
        feed.read(3)
    assert contents(feed.read(corrupt.value.next_seq)) == held[corrupt.value.next_seq - 1 :]
