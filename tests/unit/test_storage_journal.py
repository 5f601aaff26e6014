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

import storage.journal as journal_module
from storage.journal import (
    Journal,
    JournalCut,
    JournalFailed,
    JournalFull,
    JournalReader,
)
from storage.records import RecordType, Tick, encode
from storage.segment import SEGMENT_HEAD, list_segments, pack_group
from tests.journals import SMALL, contents, control, filled, last_segment, read_all

ROOT = Path(__file__).resolve().parents[2]


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


def test_whoever_prepares_the_next_segment_never_writes_to_the_one_being_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow machine the thread that prepares wakes when a commit has already made its own: its zeros must not
    go into that one, under the groups."""
    journal = Journal.open(tmp_path, SMALL)
    preparing: list[threading.Thread] = []
    pack_head = journal_module.pack_head

    def beside(*head: int) -> bytes:
        """Between taking a blank and giving it its name."""
        thread = threading.Thread(target=journal.prepare_next)
        thread.start()
        thread.join(0.5)  # it may not get on, and then waits for us
        preparing.append(thread)
        return pack_head(*head)

    monkeypatch.setattr(journal_module, "pack_head", beside)
    written = []
    for number in range(4):
        written.append(control(f"{number}", 3000))  # each fills a segment
        journal.commit([written[-1]])
    for thread in preparing:
        thread.join(60)
        assert not thread.is_alive()
    assert len(preparing) == 4
    journal.close()
    assert read_all(tmp_path) == [(i + 1, body) for i, (_, body) in enumerate(written)]


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
