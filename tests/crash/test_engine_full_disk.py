"""A disk that fills up under load and is freed: the engine waits, says so, goes on, and nothing is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from anomaly.alerts.outbox import Outbox
from ingest.committer import Committer, Group
from ingest.fulldisk import FullDisk, is_full
from ingest.simulate.judge_ledger import verdict
from ingest.simulate.run import SimulateOptions, SimulateReport, simulate
from storage.hot import HotTier, list_hot
from storage.journal_reader import JournalReader
from storage.records import RecordType
from storage.settings import JournalSettings
from tests.anomaly_events import event
from tests.engines import ROOT, EngineProcess, city_config, free_port, until
from tests.storage_rows import T0, batch

pytestmark = pytest.mark.crash

POINTS = 2_000
SECONDS = 12.0
DISK_BYTES = 48 << 20
SMALL = (
    "[journal]\nsegment_bytes = 1048576\nreserve_bytes = 4194304\n"
    "[sealed]\nseal_s = 2\ngrace_s = 60\n[snapshot]\nevery_s = 2\n"
)
"""Small, so that segments, snapshots and seals all meet the full disk."""


class Filler(threading.Thread):
    """Takes every free byte of a file system, also what the engine gives back, until told to let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._let_go = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        """Write until told to stop, then remove the file."""
        with self._path.open("wb", buffering=0) as file:
            while not self._let_go.is_set():
                try:
                    self.bytes += file.write(bytes(4096))
                except OSError:
                    self._let_go.wait(0.005)
        self._path.unlink()

    def let_go(self) -> None:
        """Free everything; returns when it is free."""
        self._let_go.set()
        self.join(30)
        assert not self.is_alive()


def readyz(engine: EngineProcess) -> str:
    """What /readyz says, also while it is a refusal."""
    try:
        return engine.page("/readyz")
    except urllib.error.HTTPError as refused:
        return refused.read().decode()


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """``folder`` as a file system of its own of ``size`` bytes."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk needs root, to mount a small tmpfs")
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "yuzui-test", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: no small tmpfs for a full disk: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The engine's folder, its data on a small disk."""
    with small_disk(tmp_path / "home" / "data", DISK_BYTES):
        yield tmp_path / "home"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    with small_disk(tmp_path / "disk", 24 << 20) as made:
        yield made


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
    assert [path for path in (disk / "lake").rglob("*") if path.is_file()] == []
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


@pytest.mark.timeout(200)
def test_a_disk_that_fills_and_is_freed_stops_acknowledgements_and_loses_and_doubles_nothing(
    home: Path, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    port = free_port()
    engine = EngineProcess(home, city_config(home, port, points=POINTS, more=SMALL))
    filler = Filler(engine.data / "filler")
    engine.start()
    try:
        pid = engine.pid
        reports: list[SimulateReport] = []
        chosen = SimulateOptions(
            target=f"mqtt://127.0.0.1:{port}", points_file=home / "points.parquet",
            city_dir=ROOT / "configs" / "chengdu", ledger_dir=tmp_path / "ledger", seconds=SECONDS, qos=1,
            seed=seed, scenario="storm", backlog_s_max=600.0, drain_s_max=60.0, connect_s_max=60.0,
        )  # fmt: skip
        speaking = threading.Thread(target=lambda: reports.append(simulate(chosen)), daemon=True)
        speaking.start()
        until(lambda: engine.vitals()["acknowledged_messages"] > POINTS, "a city that speaks", 60)
        filler.start()
        until(lambda: "acknowledgements are held" in readyz(engine), "acknowledgements held", 60)
        until(lambda: "no room for hot files" in readyz(engine), "hot files find no room either", 60)
        held = engine.vitals()
        assert "disk full: " in readyz(engine)
        assert engine.get("/readyz") == 503
        until(
            lambda: engine.vitals()["received"] > held["received"] + 2 * POINTS, "seconds of a full disk", 60
        )
        assert engine.vitals()["acknowledged_messages"] == held["acknowledged_messages"]
        filler.let_go()
        until(lambda: engine.get("/readyz") == 200, "ready again by itself", 60)
        speaking.join(120)
        assert reports, "the simulator did not end"
        vitals = engine.quiet(60)
        assert reports[0].acked == reports[0].produced, "after the disk was freed all is acknowledged"
        found = verdict(engine.data, tmp_path / "ledger")
        print(f"filler took {filler.bytes} bytes; {found}")
        assert (found.lost, found.duplicates, found.wrong, found.invented) == (0, 0, 0, 0), found.examples
        assert found.acked >= POINTS * (SECONDS - 1)
        assert vitals["conservation_gap"] == 0
        assert engine.running
        assert engine.vitals()["pid"] == engine.pid == pid
        assert engine.log.read_text().count("acknowledgements held until there is room") == 1
        assert engine.stop() == 0
    finally:
        if filler.is_alive():
            filler.let_go()
        if engine.running:
            engine.kill()
