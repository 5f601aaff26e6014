"""The sealer's process compacts between seals, says what it did, and no fault of a compaction stops a seal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from ingest.sealing import CompactFault, SealProcess
from storage.compact import CompactReport
from storage.compact_plan import MERGE_FILES_MAX
from storage.deltalog import checkpoint
from storage.sealed import SealReport, ensure_tables, table_dir
from storage.settings import CompactionSettings, RetentionSettings, SealedSettings
from tests.engines import ROOT, until
from tests.storage_compact_memory import readings, seal_directly
from tests.storage_oracle import Stream, city, late_files, main_files, view
from tests.storage_rows import HOUR, T0

FILES = 150
AT_REST_MAX = 24
"""Descriptors it has besides what it merges: pipes, the lock, its libraries', a file it writes."""
THREADS_MAX = 40
"""Its own, one a pool, jemalloc's, and what Delta's library starts when it opens a table just after a checkpoint. After
a kill up to a hundred entries may be behind the last one; the threads for them end ten seconds later."""
COMMITS = 60
COUNT_THREADS = f"""
import os, sys
from pathlib import Path
from storage.deltatable import TableHandle
from storage.sealed import ensure_tables, table_dir
root = Path(sys.argv[1])
ensure_tables(root)
handle = TableHandle(table_dir(root, late=False))
for version in range({COMMITS}):
    assert handle.commit("a", version, [])
    assert (handle.version_of("a"), handle.version_of("b")) == (version, -1)
print(len(os.listdir("/proc/self/task")))
"""

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
        said: list[Said] = []

        def done() -> bool:
            while (one := process.result()) is not None:
                said.append(one)
            return any(isinstance(one, SealReport) for one in said) and not late_files(tmp_path)

        # An hour that was compacted just before the kill is not reported again.
        until(done, "sealed, and every hour compacted")
    assert sum(isinstance(one, SealReport) for one in said) == 1
    assert sum(isinstance(one, CompactReport) for one in said) <= 3
    assert view(tmp_path) == stream.rows()


def test_a_merge_of_many_files_has_few_open_and_starts_no_threads(tmp_path: Path) -> None:
    """Watched from outside, as an operator would."""
    ensure_tables(tmp_path)
    rng = np.random.default_rng(5)
    span = HOUR // FILES
    for number in range(FILES):
        seal_directly(tmp_path, number, readings(500, 5_000, T0 + number * span, rng))
    seal_directly(tmp_path, FILES, readings(1, 1, T0 + 2 * HOUR, rng))
    folder = table_dir(tmp_path, late=False)
    checkpoint(DeltaTable(str(folder)), folder, clean=False)
    most = {"fd": 0, "task": 0}
    said: list[Said] = []
    with sealer(tmp_path) as process:

        def heard() -> bool:
            for what in most:
                most[what] = max(most[what], len(os.listdir(f"/proc/{process.pid}/{what}")))
            while (one := process.result()) is not None:
                said.append(one)
            return any(isinstance(one, CompactReport) and one.kind == "compact" for one in said)

        until(heard, "the hour is compacted", 120)
    print(
        f"{[(one.kind, one.files_before) for one in said]}; at most {most['fd']} open, {most['task']} threads"
    )
    assert all(isinstance(one, CompactReport) and one.files_before <= MERGE_FILES_MAX for one in said)
    assert said[-1].rows == FILES * 5_000
    assert most["fd"] <= MERGE_FILES_MAX + AT_REST_MAX
    assert most["task"] <= THREADS_MAX


def test_commits_since_the_last_checkpoint_cost_no_thread_each(tmp_path: Path) -> None:
    """Asked how far an application came, Delta's library reads all entries at once, each in a thread of its own."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=400,
    )  # fmt: skip
    print(f"{done.stdout.strip()} threads after {COMMITS} commits")
    assert int(done.stdout) < COMMITS * 2 // 3
