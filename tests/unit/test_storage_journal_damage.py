"""Torn ends and damage: what is cut, what is named as lost, and what is read behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.journal import (
    Journal,
    JournalCorrupt,
    JournalNewer,
    JournalReader,
)
from storage.records import RecordType
from storage.segment import RECORD_HEAD, SEGMENT_HEAD, list_segments, pack_group, padded
from tests.journals import (
    SMALL,
    Bodies,
    contents,
    control,
    filled,
    flip,
    last_segment,
    read_all,
    read_over_damage,
)


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
