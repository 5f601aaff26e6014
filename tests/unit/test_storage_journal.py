"""The journal: what commit said is on disk is read back, nothing else is, whatever happened to the file."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.journal import (
    Journal,
    JournalCorrupt,
    JournalCut,
    JournalFailed,
    JournalFull,
    JournalNewer,
    JournalReader,
    Record,
)
from storage.records import RecordType, Tick, encode
from storage.segment import RECORD_HEAD, SEGMENT_HEAD, list_segments, pack_group, padded
from storage.settings import JournalSettings
from storage.tail import Feed, Tail

# Segments far below what an operator may set, so that a test crosses many of them.
SMALL = JournalSettings(reserve_bytes=0).model_copy(update={"segment_bytes": 4096})
ROOT = Path(__file__).resolve().parents[2]
Bodies = list[tuple[RecordType, bytes]]


def control(text: str, size: int = 0) -> tuple[RecordType, bytes]:
    return RecordType.CONTROL, text.encode().ljust(size, b".")


def contents(records: Sequence[Record]) -> list[tuple[int, bytes]]:
    return [(r.seq, bytes(r.body)) for r in records]


def read_all(folder: Path, from_seq: int = 1) -> list[tuple[int, bytes]]:
    reader = JournalReader(folder, from_seq)
    found: list[tuple[int, bytes]] = []
    while records := reader.read():
        found += contents(records)
    reader.close()
    return found


def read_over_damage(folder: Path) -> tuple[list[tuple[int, bytes]], list[JournalCorrupt]]:
    """All that can be read, and what was said of the rest."""
    reader = JournalReader(folder, 1)
    found: list[tuple[int, bytes]] = []
    corrupt: list[JournalCorrupt] = []
    while True:
        try:
            records = reader.read()
        except JournalCorrupt as error:
            corrupt.append(error)
        else:
            if not records:
                return found, corrupt
            found += contents(records)


def last_segment(folder: Path) -> Path:
    return list_segments(folder)[-1][1]


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def filled(
    folder: Path, groups: int, size: int = 300, settings: JournalSettings = SMALL
) -> list[tuple[int, bytes]]:
    """A journal of ``groups`` groups of two records, closed; what it holds."""
    journal = Journal.open(folder, settings)
    held: list[tuple[int, bytes]] = []
    for i in range(groups):
        bodies = [control(f"{i}a", size), control(f"{i}b", size)]
        last = journal.commit(bodies)
        held += [(last - 1, bodies[0][1]), (last, bodies[1][1])]
    journal.close()
    return held


def test_records_are_numbered_from_one_and_read_back_across_segments(tmp_path: Path) -> None:
    held = filled(tmp_path, 40)
    assert [seq for seq, _ in held] == list(range(1, 81))
    assert len(list_segments(tmp_path)) > 5
    assert read_all(tmp_path) == held
    assert read_all(tmp_path, 37) == held[36:]


def test_an_empty_commit_writes_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    assert journal.commit([]) == 0
    assert (journal.first_seq, journal.last_seq) == (1, 0)
    assert list_segments(tmp_path) == []


def test_the_type_and_an_empty_body_survive(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    journal.commit([(RecordType.TICK, b""), (RecordType.GAP, b"x" * 9)])
    found = JournalReader(tmp_path, 1).read()
    assert [(r.type, bytes(r.body)) for r in found] == [(RecordType.TICK, b""), (RecordType.GAP, b"x" * 9)]
    assert found[0].type is RecordType.TICK


def test_a_record_larger_than_a_segment_gets_a_segment_of_its_own_size(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    bodies = [control("small"), control("large", 50_000), control("after")]
    for body in bodies:
        journal.commit([body])
    assert [b for _, b in read_all(tmp_path)] == [b for _, b in bodies]
    assert max(p.stat().st_size for _, p in list_segments(tmp_path)) >= 50_000


def test_a_group_of_more_buffers_than_one_system_call_takes_is_whole(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    bodies = [control(str(i)) for i in range(3000)]
    assert journal.commit(bodies) == 3000
    assert [b for _, b in read_all(tmp_path)] == [b for _, b in bodies]


def test_short_writes_of_the_kernel_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes_a_little(fd: int, buffers: Sequence[bytes], offset: int) -> int:
        return os.pwrite(fd, b"".join(buffers)[:37], offset)

    monkeypatch.setattr("storage.journal.os.pwritev", writes_a_little)
    assert read_all(tmp_path) == []
    held = filled(tmp_path, 8, size=75)
    assert read_all(tmp_path) == held


def test_truncation_at_every_byte_of_the_last_group_keeps_exactly_the_earlier_groups(tmp_path: Path) -> None:
    folder = tmp_path / "j"
    held = filled(folder, 3, size=61)
    path = last_segment(folder)
    whole = path.read_bytes()
    group = 2 * padded(RECORD_HEAD.size + 61)
    end = SEGMENT_HEAD.size + 3 * group
    assert not any(whole[end:])
    body_end = end - (padded(61) - 61)  # the padding behind the last body is zeros whether written or not
    for cut_at in range(end - group, body_end):
        for left in (whole[:cut_at], whole[:cut_at].ljust(len(whole), b"\0")):
            path.write_bytes(left)
            journal = Journal.open(folder, SMALL)
            assert journal.recovered.last_seq == 4, cut_at
            assert journal.recovered.cut_bytes <= cut_at - (end - group)
            assert read_all(folder) == held[:4], cut_at
            assert journal.commit([control("after")]) == 5
            journal.close()
            assert read_all(folder) == [*held[:4], (5, b"after")], cut_at
            last_segment(folder).unlink()


def test_a_clean_end_reports_nothing_cut(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    recovered = Journal.open(tmp_path, SMALL).recovered
    assert (recovered.last_seq, recovered.cut_bytes, recovered.cut_records, recovered.damage) == (6, 0, 0, ())


def test_what_was_cut_is_reported_in_bytes_and_records(tmp_path: Path) -> None:
    filled(tmp_path, 2, size=64)
    record = RECORD_HEAD.size + 64
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 3 * record + RECORD_HEAD.size)
    recovered = Journal.open(tmp_path, SMALL).recovered
    assert (recovered.last_seq, recovered.cut_bytes, recovered.cut_records) == (2, 2 * record, 1)


def test_a_flipped_byte_anywhere_in_the_last_group_cuts_that_group_only(tmp_path: Path) -> None:
    folder = tmp_path / "j"
    held = filled(folder, 2, size=40)
    path = last_segment(folder)
    whole = path.read_bytes()
    group = 2 * (RECORD_HEAD.size + 40)
    for offset in range(SEGMENT_HEAD.size + group, SEGMENT_HEAD.size + 2 * group):
        path.write_bytes(whole)
        flip(path, offset)
        assert Journal.open(folder, SMALL).recovered.last_seq == 2, offset
        assert read_all(folder) == held[:2], offset


def test_append_after_recovery_never_brings_back_what_was_cut(tmp_path: Path) -> None:
    """The cut group's second record is whole and numbered 4; once 3 is written anew it must not return."""
    journal = Journal.open(tmp_path, SMALL)
    journal.commit([control("kept"), control("kept too")])
    journal.commit([control("torn", 64), control("stale", 64)])
    journal.close()
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 2 * 32 + RECORD_HEAD.size)
    for text in ("new", "newer"):
        journal = Journal.open(tmp_path, SMALL)
        journal.commit([control(text, 64)])
        journal.close()
    assert [b.rstrip(b".") for _, b in read_all(tmp_path)] == [b"kept", b"kept too", b"new", b"newer"]
    assert all(b"stale" not in path.read_bytes() for _, path in list_segments(tmp_path))


def test_damage_before_whole_later_groups_is_no_torn_end(tmp_path: Path) -> None:
    """Later groups were only begun after the damaged one was on disk: cutting there would lose them."""
    held = filled(tmp_path, 5, size=40)
    record = RECORD_HEAD.size + 40
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 3 * record + 30)  # the second record of its group
    journal = Journal.open(tmp_path, SMALL)
    assert journal.recovered.last_seq == 10
    assert len(journal.recovered.damage) == 1
    assert "records 4 to 4 are lost" in journal.recovered.damage[0]
    reader = JournalReader(tmp_path, 1)
    assert contents(reader.read()) == held[:2]
    assert contents(reader.read()) == held[2:3], "a whole record in front of the damage is not given up"
    with pytest.raises(JournalCorrupt) as corrupt:
        reader.read()
    assert (corrupt.value.first_seq, corrupt.value.last_seq) == (4, 4)
    assert contents(reader.read()) == held[4:]


def test_damage_and_a_torn_end_in_one_segment_are_told_apart(tmp_path: Path) -> None:
    held = filled(tmp_path, 5, size=40)
    record = RECORD_HEAD.size + 40
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 2 * record + 30)
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 9 * record + 30)
    journal = Journal.open(tmp_path, SMALL)
    recovered = journal.recovered
    assert (recovered.last_seq, recovered.cut_records, len(recovered.damage)) == (8, 1, 1)
    reader = JournalReader(tmp_path, 1)
    assert contents(reader.read()) == held[:2]
    with pytest.raises(JournalCorrupt, match="records 3 to 3 are lost"):
        reader.read()
    assert contents(reader.read()) == held[3:8]
    assert journal.commit([control("nine")]) == 9
    assert contents(reader.read()) == [(9, b"nine")]


def test_a_zeroed_page_before_whole_later_groups_loses_only_its_own_records(tmp_path: Path) -> None:
    held = filled(tmp_path, 5, size=40)
    record = RECORD_HEAD.size + 40
    with last_segment(tmp_path).open("r+b") as file:
        file.seek(SEGMENT_HEAD.size + 2 * record)
        file.write(bytes(3 * record))
    assert Journal.open(tmp_path, SMALL).recovered.last_seq == 10
    reader = JournalReader(tmp_path, 1)
    assert contents(reader.read(upto_seq=10)) == held[:2]
    with pytest.raises(JournalCorrupt, match="records 3 to 5 are lost"):
        reader.read(upto_seq=10)
    assert contents(reader.read(upto_seq=10)) == held[5:]


@pytest.mark.parametrize("part", ["head", "first record", "a later record", "the last record"])
def test_a_damaged_earlier_segment_is_named_with_what_is_lost_and_reading_goes_on(
    tmp_path: Path, part: str
) -> None:
    held = filled(tmp_path, 20, size=500)
    first_seq, path = list_segments(tmp_path)[1]
    next_first = list_segments(tmp_path)[2][0]
    record = padded(RECORD_HEAD.size + 500)
    index = {"first record": 0, "a later record": 2, "the last record": next_first - first_seq - 1}.get(part)
    if index is None:
        flip(path, 9)
        lost = range(first_seq, next_first)
    else:
        flip(path, SEGMENT_HEAD.size + index * record + 100)
        lost = range(first_seq + index, first_seq + index + 1)
    assert Journal.open(tmp_path, SMALL).recovered.damage == ()
    found, corrupt = read_over_damage(tmp_path)
    assert [(e.path, e.first_seq, e.last_seq) for e in corrupt] == [(path, lost[0], lost[-1])]
    assert found == [(seq, body) for seq, body in held if seq not in lost]


def test_a_seek_behind_damage_says_nothing_of_it(tmp_path: Path) -> None:
    held = filled(tmp_path, 5, size=40)
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 30)
    assert read_all(tmp_path, 5) == held[4:]


def test_numbers_are_not_used_again_when_the_last_head_is_unreadable(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    flip(last_segment(tmp_path), 20)
    journal = Journal.open(tmp_path, SMALL)
    assert len(journal.recovered.damage) == 1
    assert journal.commit([control("after")]) > 6
    reader = JournalReader(tmp_path, 1)
    with pytest.raises(JournalCorrupt) as corrupt:
        reader.read()
    assert corrupt.value.first_seq == 1
    assert contents(reader.read()) == [(corrupt.value.next_seq, b"after")]


def test_a_forged_record_inside_a_torn_body_is_never_taken_for_a_record(tmp_path: Path) -> None:
    """Raw bytes of strangers stand in the journal: they may look like whole groups of any number."""
    forged = b"".join(b"".join(pack_group(seq, [control("forged")], salt=0)) for seq in range(1, 40))
    journal = Journal.open(tmp_path, SMALL)
    journal.commit([control("good")])
    journal.commit([(RecordType.QUARANTINE, forged), control("end")])
    journal.close()
    # Tear the second group behind the forged bytes.
    flip(last_segment(tmp_path), SEGMENT_HEAD.size + 32 + RECORD_HEAD.size + len(forged) + 2)
    journal = Journal.open(tmp_path, SMALL)
    assert journal.recovered.last_seq == 1
    journal.commit([control("after")])
    assert [b for _, b in read_all(tmp_path)] == [b"good", b"after"]


def test_records_of_a_later_version_are_refused_not_cut(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    path = last_segment(tmp_path)
    whole = path.read_bytes()
    salt = SEGMENT_HEAD.unpack_from(whole)[4]
    unknown: Bodies = [(200, b"what is this")]  # type: ignore[list-item]
    path.write_bytes(whole[: SEGMENT_HEAD.size] + b"".join(pack_group(1, unknown, salt)))
    before = path.read_bytes()
    with pytest.raises(JournalNewer, match="type 200"):
        Journal.open(tmp_path, SMALL)
    assert path.read_bytes() == before


def test_an_unfinished_group_is_not_shown_to_a_reader_beside_the_engine(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    journal.commit([control("one")])
    path = last_segment(tmp_path)
    salt = SEGMENT_HEAD.unpack_from(path.read_bytes())[4]
    group = b"".join(pack_group(2, [control("two", 80), control("three", 80)], salt))
    reader = JournalReader(tmp_path, 1)
    assert contents(reader.read()) == [(1, b"one")]
    with path.open("r+b") as file:
        for written in range(len(group)):
            file.seek(SEGMENT_HEAD.size + 32)
            file.write(group[:written])
            file.flush()
            if written % 7 == 0:
                assert reader.read() == []
        file.seek(SEGMENT_HEAD.size + 32)
        file.write(group)
    assert [seq for seq, _ in contents(reader.read())] == [2, 3]


def test_a_reader_never_passes_the_durable_record(tmp_path: Path) -> None:
    held = filled(tmp_path, 10)
    reader = JournalReader(tmp_path, 1)
    assert contents(reader.read(upto_seq=5)) == held[:5]
    assert reader.read(upto_seq=5) == []
    assert contents(reader.read(upto_seq=20, bytes_max=700)) == held[5:7]
    assert contents(reader.read(bytes_max=1)) == held[7:8]


def test_rows_max_counts_readings_and_always_lets_one_record_through(tmp_path: Path) -> None:
    def readings(n: int) -> tuple[RecordType, bytes]:
        return RecordType.READINGS, n.to_bytes(4, "little") + bytes(4 + 29 * n)

    journal = Journal.open(tmp_path, SMALL)
    journal.commit([readings(6), readings(4), encode(Tick(1, True)), readings(90), readings(1)])
    reader = JournalReader(tmp_path, 1)
    assert [[r.seq for r in reader.read(rows_max=10)] for _ in range(4)] == [[1, 2, 3], [4], [5], []]


def test_a_body_read_from_disk_stands_on_an_eight_byte_border(tmp_path: Path) -> None:
    """numpy reads unaligned columns, but several times slower."""
    np = pytest.importorskip("numpy")
    journal = Journal.open(tmp_path, SMALL)
    journal.commit([control("x" * n) for n in range(1, 40)])
    addresses = [np.frombuffer(r.body, "u1").ctypes.data % 8 for r in JournalReader(tmp_path, 1).read()]
    assert set(addresses) == {0}


def test_cut_removes_only_whole_segments_below_and_never_the_last(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    for i in range(30):
        journal.commit([control(str(i), 500)])
    segments = list_segments(tmp_path)
    before = journal.bytes_on_disk
    first_size = segments[0][1].stat().st_size
    assert journal.cut(segments[2][0] - 1) == first_size
    assert list_segments(tmp_path)[0] == segments[1]
    assert journal.first_seq == segments[1][0]
    freed = journal.cut(10_000)
    assert freed > 0
    assert list_segments(tmp_path) == segments[-1:]
    assert journal.bytes_on_disk < before
    assert journal.commit([control("on")]) == 31
    journal.close()
    assert Journal.open(tmp_path, SMALL).recovered.last_seq == 31


def test_a_reader_whose_next_segment_was_cut_is_told_where_to_go_on(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    for i in range(30):
        journal.commit([control(str(i), 500)])
    reader = JournalReader(tmp_path, 1)
    assert [r.seq for r in reader.read(bytes_max=1)] == [1]
    journal.cut(journal.last_seq)
    rest = [r.seq for r in reader.read()]
    assert rest == list(range(2, rest[-1] + 1)), "what was open stays readable to its end"
    with pytest.raises(JournalCut) as cut:
        reader.read()
    assert cut.value.next_seq == journal.first_seq
    reader.seek(cut.value.next_seq)
    assert [r.seq for r in reader.read()] == list(range(journal.first_seq, 31))
    with pytest.raises(JournalCut):
        JournalReader(tmp_path, 1).read()


def test_a_reader_beside_a_writer_that_commits_and_cuts_sees_every_group_whole_and_in_order(
    tmp_path: Path,
) -> None:
    journal = Journal.open(tmp_path, SMALL)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    done = threading.Event()

    def write() -> None:
        for i in range(1500):
            n = rng.randrange(1, 5)
            journal.commit([control(f"{i}/{n}", rng.randrange(0, 400)) for _ in range(n)])
            if i % 50 == 49:
                journal.cut(journal.last_seq - 200)
        done.set()

    writer = threading.Thread(target=write)
    reader = JournalReader(tmp_path, 1)
    writer.start()
    expected, jumped = 1, list[int]()
    group: list[bytes] = []
    while True:
        ended = done.is_set()
        try:
            records = reader.read()
        except JournalCut as cut:
            jumped.append(cut.next_seq - expected)
            expected, group = cut.next_seq, []
            reader.seek(cut.next_seq)
            continue
        if ended and not records:
            break
        for record in records:
            assert record.seq == expected
            expected += 1
            group.append(bytes(record.body))
            if len(group) == int(group[0].split(b"/")[1].rstrip(b".")):
                assert len({b.rstrip(b".") for b in group}) == 1
                group = []
    writer.join()
    assert all(jump > 0 for jump in jumped)
    assert expected == journal.last_seq + 1
    assert group == []


def test_an_empty_segment_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    """Killed between the new segment's rename and its first record: the name is there, no record is."""
    held = filled(tmp_path, 2)
    path = tmp_path / f"{5:020d}.journal"
    path.write_bytes(bytes(4096))
    assert Journal.open(tmp_path, SMALL).recovered.last_seq >= 4
    path.unlink()
    journal = Journal.open(tmp_path, SMALL)
    journal._begin_segment(10)
    reader = JournalReader(tmp_path, 1)
    assert contents(reader.read()) == held
    assert reader.read() == []
    journal.close()
    journal = Journal.open(tmp_path, SMALL)
    assert journal.recovered.last_seq == 4
    journal.commit([control("five")])
    assert contents(reader.read()) == [(5, b"five")]
    assert len(list_segments(tmp_path)) == 2
    journal.cut(6)
    assert [first for first, _ in list_segments(tmp_path)] == [5]


def test_opening_puts_on_disk_what_a_killed_writer_left_in_memory_and_reads_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group may be whole in the page cache only, and be gone after a power cut that follows."""
    filled(tmp_path, 1)
    calls: list[tuple[str, str]] = []
    real_sync, real_advise = os.fdatasync, os.posix_fadvise

    def fdatasync(fd: int) -> None:
        calls.append(("fdatasync", Path(os.readlink(f"/proc/self/fd/{fd}")).name))
        real_sync(fd)

    def advise(fd: int, offset: int, size: int, advice: int) -> None:
        calls.append((f"advise {advice}", Path(os.readlink(f"/proc/self/fd/{fd}")).name))
        real_advise(fd, offset, size, advice)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    Journal.open(tmp_path, SMALL).close()
    segment = f"{1:020d}.journal"
    assert [call for call in calls if call[1] != "next.prepared"] == [
        ("fdatasync", segment),
        (f"advise {os.POSIX_FADV_DONTNEED}", segment),
    ]


def test_numbers_go_on_behind_what_a_snapshot_has_seen_even_if_the_folder_was_lost(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL, next_seq_min=1001)
    assert journal.commit([control("x")]) == 1001
    with pytest.raises(JournalCut) as cut:
        JournalReader(tmp_path, 1).read()
    assert cut.value.next_seq == 1001


def test_after_a_failed_fsync_the_journal_is_dead_and_its_file_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(tmp_path, SMALL)
    journal.commit([control("one")])
    old = last_segment(tmp_path)

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("storage.journal.os.fdatasync", fails)
        with pytest.raises(JournalFailed) as failed:
            journal.commit([control("two")])
    assert (failed.value.errno, failed.value.dead) == (errno.EIO, True)
    assert not isinstance(failed.value, JournalFull)
    assert journal.last_seq == 1
    size = old.stat().st_size
    with pytest.raises(JournalFailed, match="dead"):
        journal.commit([control("three")])
    assert old.stat().st_size == size
    journal.close()
    again = Journal.open(tmp_path, SMALL)
    again.commit([control("four")])
    assert last_segment(tmp_path) != old


def test_no_room_for_a_new_segment_leaves_a_journal_that_can_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(tmp_path, SMALL)
    journal.commit([control("one", 1000)])

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("storage.journal.os.posix_fallocate", full)
        for _ in range(2):
            with pytest.raises(JournalFull) as failed:
                journal.commit([control("two", 8000)])
            assert (failed.value.errno, failed.value.dead) == (errno.ENOSPC, False)
        assert journal.commit([control("two", 10)]) == 2, "what still fits is written"
    assert journal.commit([control("three", 8000)]) == 3
    assert [seq for seq, _ in read_all(tmp_path)] == [1, 2, 3]


def test_a_file_size_limit_is_told_as_no_room(tmp_path: Path) -> None:
    """A real limit of the kernel, in a process of its own."""
    program = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
from pathlib import Path
from storage.journal import Journal, JournalFull
from storage.records import RecordType
from storage.settings import JournalSettings
journal = Journal.open(Path({str(tmp_path)!r}), JournalSettings(segment_bytes=1 << 20, reserve_bytes=0))
journal.commit([(RecordType.CONTROL, b"fits")])
try:
    journal.commit([(RecordType.CONTROL, bytes(3 << 20))])
except JournalFull as full:
    print("full", full.errno, full.dead)
print(journal.commit([(RecordType.CONTROL, b"fits too")]))
"""
    out = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert out.stdout.split() == ["full", str(errno.EFBIG), "False", "2"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_the_reserve_is_held_released_and_made_again(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"reserve_bytes": 1 << 16})
    journal = Journal.open(tmp_path, settings)
    reserve = tmp_path / "reserve"
    assert reserve.stat().st_size == 1 << 16
    assert reserve.stat().st_blocks * 512 >= 1 << 16
    assert journal.release_reserve() == 1 << 16
    assert journal.release_reserve() == 0
    assert not reserve.exists()
    assert journal.restore_reserve()
    assert reserve.stat().st_size == 1 << 16


def test_the_reserve_is_not_taken_from_the_last_free_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL.model_copy(update={"reserve_bytes": 1 << 16})
    free = ((1 << 16) + SMALL.segment_bytes) // 512
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free, f_frsize=512))
    journal = Journal.open(tmp_path, settings)
    assert not journal.restore_reserve()
    assert not (tmp_path / "reserve").exists()
    assert journal.commit([control("still")]) == 1


def test_the_next_segment_is_set_aside_before_it_is_needed_and_is_no_segment_yet(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SMALL)
    journal.prepare_next()
    prepared = tmp_path / "next.prepared"
    assert prepared.stat().st_size == SMALL.segment_bytes
    assert list_segments(tmp_path) == []
    journal.commit([control("a", 1000)])
    assert not prepared.exists()
    journal.commit([control("b", 1500)])
    journal._preparing.join()  # type: ignore[union-attr]
    assert prepared.stat().st_size == SMALL.segment_bytes
    assert len(list_segments(tmp_path)) == 1
    journal.close()
    assert not prepared.exists()


def test_a_segment_is_on_disk_by_name_before_its_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    journal = Journal.open(folder, SMALL)
    journal.prepare_next()
    calls: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "fdatasync", "replace", "pwritev")}

    def seen(name: str) -> Callable[..., object]:
        def call(first: int | Path, *rest: object) -> object:
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else first
            calls.append((name, Path(path).name))
            return real[name](first, *rest)

        return call

    for name in real:
        monkeypatch.setattr(os, name, seen(name))
    journal.commit([control("one")])
    journal.commit([control("two")])
    segment = f"{1:020d}.journal"
    assert calls == [
        ("pwritev", "next.prepared"),
        ("fsync", "next.prepared"),
        ("replace", "next.prepared"),
        ("fsync", "journal"),
        ("pwritev", segment),
        ("fdatasync", segment),
        ("pwritev", segment),
        ("fdatasync", segment),
    ]


WRITER = """
import sys
from pathlib import Path
from storage.journal import Journal
from storage.records import RecordType
from storage.settings import JournalSettings
settings = JournalSettings(reserve_bytes=0).model_copy(update={"segment_bytes": 1 << 18})
journal = Journal.open(Path(sys.argv[1]), settings)
while True:
    seq = journal.last_seq + 1
    n = seq % 4 + 1
    last = journal.commit([(RecordType.CONTROL, b"%d/%d/%d." % (seq + i, i, n) * 900) for i in range(n)])
    print(last, flush=True)
"""


def test_what_a_killed_writer_said_it_committed_is_there_and_groups_are_whole(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        said = 0
        for _ in range(rng.randrange(20, 120)):
            said = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        said = int((writer.stdout.read().rpartition("\n")[0] or str(said)).split()[-1])
        writer.wait()
        journal = Journal.open(tmp_path, SMALL)
        journal.close()
        assert journal.recovered.last_seq >= said
        found = read_all(tmp_path)
        assert [seq for seq, _ in found] == list(range(1, journal.recovered.last_seq + 1))
        i, n = 0, 1
        for seq, body in found:
            said_seq, said_i, said_n = (int(x) for x in body.split(b".")[0].split(b"/"))
            assert said_seq == seq
            assert said_i == (i if i < n else 0)
            i, n = said_i + 1, said_n
        assert i == n, "the last group is whole"


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
