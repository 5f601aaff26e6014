"""What only looks at the engine must never end it: numbers of the disk, the watchdog, the journal's callbacks."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ingest.committer import EXIT_JOURNAL_FAILED, Committer, Group
from ingest.servicenotes import ServiceNotes
from ingest.vitals import Vitals
from storage.records import RecordType
from storage.settings import JournalSettings

SMALL = JournalSettings(segment_bytes=1 << 20, reserve_bytes=0)


def test_a_file_that_the_sealer_takes_away_under_the_count_of_the_disk_ends_nothing(tmp_path: Path) -> None:
    hour = tmp_path / "lake" / "readings" / "date=2026-07-01" / "hour=08"
    hour.mkdir(parents=True)
    # As it looks between the listing of a folder and the question for a file's size.
    (hour / "c0000001-0.parquet").symlink_to(tmp_path / "gone")
    wire = SimpleNamespace(
        messages=SimpleNamespace(counts=Counter(received=5)), sources=SimpleNamespace(sample=lambda _: None)
    )
    app: Any = SimpleNamespace(root=tmp_path, wire=wire)
    Vitals(app).sample()


async def test_the_watchdog_is_fed_though_no_status_can_be_had() -> None:
    address = f"\0yuzui-watch-{os.getpid()}"

    def line() -> str:
        raise OSError(24, "Too many open files")

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        notes = ServiceNotes({"NOTIFY_SOCKET": "@" + address[1:], "WATCHDOG_USEC": "60000"})
        task = asyncio.create_task(notes.while_running(lambda: True, line))
        loop, heard = asyncio.get_running_loop(), []
        async with asyncio.timeout(60):
            while not heard or heard[-1] != b"WATCHDOG=1":
                heard.append(await loop.sock_recv(manager, 4096))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert heard[0].startswith(b"READY=1")
    assert b"Too many open files" in heard[0]


async def test_what_fails_behind_one_group_takes_no_acknowledgement_of_another(tmp_path: Path) -> None:
    committer = Committer(tmp_path, SMALL, 1, asyncio.get_running_loop())
    acknowledged = asyncio.Event()

    def fails() -> None:
        raise PermissionError("a file that cannot be removed")

    for then in (fails, acknowledged.set):
        committer.submit(Group([(RecordType.QUARANTINE, b"x")], then))
    committer.start()
    async with asyncio.timeout(60):
        await acknowledged.wait()
    committer.stop()
    committer.join()


def test_a_journal_thread_that_falls_over_ends_the_engine_and_does_not_leave_it_deaf(tmp_path: Path) -> None:
    program = """
        import asyncio, logging, pathlib, sys, time
        from ingest.committer import Committer, Group
        from storage.records import RecordType
        from storage.settings import JournalSettings

        logging.basicConfig()
        settings = JournalSettings(segment_bytes=1 << 20, reserve_bytes=0)
        committer = Committer(pathlib.Path(sys.argv[1]), settings, 1, asyncio.new_event_loop())
        committer.submit(Group([("no such type", b"")]))
        committer.start()
        committer.join(20)
        print("still there, deaf")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (EXIT_JOURNAL_FAILED, ""), done.stderr
    assert "journal thread fell over" in done.stderr
