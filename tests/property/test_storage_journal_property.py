"""Whatever is committed, torn, cut, reopened and read in any steps: the journal is a list of whole groups."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage.journal import Journal, JournalReader
from storage.records import RecordType
from storage.segment import SEGMENT_HEAD, list_segments, pack_group
from storage.settings import JournalSettings

SMALL = JournalSettings(reserve_bytes=0).model_copy(update={"segment_bytes": 2048})
TYPES = st.sampled_from(sorted(RecordType))
Body = tuple[RecordType, bytes]
# Mostly small bodies, some above a whole segment; zeros at the end of a body must not be taken for padding.
BODIES = st.tuples(
    TYPES,
    st.one_of(
        st.binary(max_size=40),
        st.integers(0, 3000).map(lambda n: bytes([n % 251 + 1]) * n),
        st.integers(0, 50).map(bytes),
    ),
)
GROUPS = st.lists(st.lists(BODIES, min_size=1, max_size=5), max_size=12)


@given(groups=GROUPS, limits=st.lists(st.integers(1, 5000), min_size=1), from_seq=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_any_groups_read_back_equal_in_any_steps_from_any_position(
    groups: list[list[Body]], limits: list[int], from_seq: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal.open(folder, SMALL)
        held = [body for group in groups for body in group]
        for group in groups:
            journal.commit(group)
        assert journal.last_seq == len(held)
        reader = JournalReader(folder, from_seq)
        found: list[Body] = []
        turn = 0
        while records := reader.read(bytes_max=limits[turn % len(limits)]):
            assert [r.seq for r in records] == list(
                range(from_seq + len(found), from_seq + len(found) + len(records))
            )
            found += [(r.type, bytes(r.body)) for r in records]
            turn += 1
        assert found == held[from_seq - 1 :]
        journal.close()
        reader.close()


class JournalLife(RuleBasedStateMachine):
    """A journal against a list: restarts, torn writes, cuts, a reader that never misses or repeats."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.journal = Journal.open(self.folder, SMALL)
        self.held: list[Body] = []
        self.reader = JournalReader(self.folder, 1)
        self.read = 0

    @rule(group=st.lists(BODIES, min_size=1, max_size=5))
    def commit(self, group: list[Body]) -> None:
        self.held += group
        assert self.journal.commit(group) == len(self.held)

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = Journal.open(self.folder, SMALL)
        assert self.journal.recovered.cut_bytes == 0
        assert self.journal.recovered.damage == ()

    @rule(group=st.lists(BODIES, min_size=1, max_size=4), data=st.data())
    def die_in_the_middle_of_a_write(self, group: list[Body], data: st.DataObject) -> None:
        """Any part of a group, short of all its bytes that are not zero, stands behind the last group."""
        if self.journal._fd < 0:
            return
        path = list_segments(self.folder)[-1][1]
        salt = SEGMENT_HEAD.unpack_from(path.read_bytes())[4]
        image = b"".join(pack_group(len(self.held) + 1, group, salt))
        written = image[: data.draw(st.integers(0, len(image.rstrip(b"\0")) - 1))]
        with path.open("r+b") as file:
            file.seek(self.journal._offset)
            file.write(written)
        self.journal.close()
        self.journal = Journal.open(self.folder, SMALL)
        assert self.journal.recovered.cut_bytes == len(written.rstrip(b"\0"))
        assert self.journal.recovered.damage == ()

    @rule(limit=st.integers(1, 4000))
    def read_some(self, limit: int) -> None:
        records = self.reader.read(bytes_max=limit)
        assert bool(records) == (self.read < len(self.held))
        for record in records:
            assert (record.seq, record.type, bytes(record.body)) == (self.read + 1, *self.held[self.read])
            self.read += 1

    @rule()
    def cut_what_was_read(self) -> None:
        self.journal.cut(self.read + 1)
        assert self.journal.first_seq <= self.read + 1

    @rule(back=st.integers(0, 10))
    def seek_back(self, back: int) -> None:
        self.read = max(self.read - back, self.journal.first_seq - 1)
        self.reader.seek(self.read + 1)

    @invariant()
    def numbers_go_on(self) -> None:
        assert self.journal.last_seq == len(self.held)

    def teardown(self) -> None:
        self.journal.close()
        self.reader.close()
        shutil.rmtree(self.folder)


JournalLife.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJournalLife = JournalLife.TestCase
