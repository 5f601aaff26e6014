"""The sealer's process compacts between seals, says what it did, and no fault of a compaction stops a seal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.sealing import CompactFault, SealProcess
from storage.compact import CompactReport
from storage.sealed import SealReport
from storage.settings import CompactionSettings, RetentionSettings, SealedSettings
from tests.engines import until
from tests.storage_oracle import Stream, city, late_files, main_files, view
from tests.storage_rows import HOUR, T0

Said = SealReport | CompactReport | CompactFault


@contextmanager
def sealer(root: Path) -> Iterator[SealProcess]:
    process = SealProcess(
        root, SealedSettings(), CompactionSettings(lateness_s=0, fold_s=0), RetentionSettings()
    )
    try:
        process.ready()
        yield process
    finally:
        process.close()


def hear(process: SealProcess, count: int) -> list[Said]:
    """The next things it says."""
    said: list[Said] = []

    def heard() -> bool:
        while len(said) < count and (one := process.result()) is not None:
            said.append(one)
        return len(said) == count

    until(heard, f"{count} reports", 60)
    return said


def test_hours_left_by_a_former_run_are_compacted_unasked(tmp_path: Path) -> None:
    stream, _ = city(tmp_path)
    with sealer(tmp_path) as process:
        said = hear(process, 2)
    assert [type(one) for one in said] == [CompactReport, CompactReport]
    assert late_files(tmp_path) == []
    assert view(tmp_path) == stream.rows()
    late = [sum(getattr(one, name) for one in said) for name in ("late_new", "revised", "repeats")]
    assert late == [stream.late_new, stream.revised, stream.repeats]


def test_a_seal_that_ends_an_hour_is_followed_by_its_compaction(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    with sealer(tmp_path) as process:
        stream.write([(0, T0, 1.0), (1, T0, 2.0)])
        process.begin(stream.seq, grace_s=100)
        (sealed,) = hear(process, 1)
        assert isinstance(sealed, SealReport)
        stream.write([(0, T0 + HOUR, 1.0), (0, T0, 3.0)])
        process.begin(stream.seq, grace_s=100)
        sealed, compacted = hear(process, 2)
        assert isinstance(sealed, SealReport)
        assert isinstance(compacted, CompactReport)
        assert (compacted.hour, compacted.rows, compacted.revised) == (T0 // HOUR, 3, 1)
    assert view(tmp_path) == stream.rows()


def test_a_damaged_file_is_named_and_seals_go_on(tmp_path: Path) -> None:
    stream, _ = city(tmp_path)
    victim = main_files(tmp_path)[2]
    content = bytearray(victim.read_bytes())
    content[len(content) // 3] ^= 4
    victim.write_bytes(bytes(content))
    with sealer(tmp_path) as process:
        fault, other = hear(process, 2)
        assert isinstance(fault, CompactFault)
        assert victim.name in fault.why
        assert isinstance(other, CompactReport)
        stream.write([(0, T0 + 5 * HOUR, 1.0)])
        process.begin(stream.seq, grace_s=100)
        assert any(isinstance(one, SealReport) for one in hear(process, 1))


def test_a_killed_sealer_is_made_again_and_finishes_the_work(tmp_path: Path) -> None:
    stream, _ = city(tmp_path)
    with sealer(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not process.lives, "the sealer is dead")
        stream.write([(0, T0 + 5 * HOUR, 1.0)])
        process.begin(stream.seq, grace_s=100)
        said = hear(process, 4)
    assert sum(isinstance(one, SealReport) for one in said) == 1
    assert sum(isinstance(one, CompactReport) for one in said) == 3
    assert view(tmp_path) == stream.rows()
