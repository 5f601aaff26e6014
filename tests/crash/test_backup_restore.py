"""Back up under load, lose the data folder, restore: every row acknowledged before is there, nobody is called twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ingest.simulate.judge_ledger import verdict
from ingest.simulate.ledger import ACKED, Ledger
from storage.backup_manifest import PART, backups, read
from storage.restore import NotFinished, refuse_unfinished
from tests.engines import ROOT, EngineProcess, site_config, until, yuzui_here
from tests.faults_disk import SmallDisk
from tests.faults_load import Gateway, Load, gateways
from tests.golden_folder import engine_on, releases, unpack
from tests.talk import Talker
from tests.webhook_ids import Receiver

EARLY = Load("early", [f"e{i}" for i in range(40)], [f"el{i}" for i in range(6)], seed=3)
LONG = Load("long", [f"l{i}" for i in range(40)], [f"ll{i}" for i in range(6)], seed=4)
MORE = "[sealed]\nseal_s = 1\ngrace_s = 10\n[snapshot]\nevery_s = 2\n"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One for both lives of the engine."""
    with Receiver() as running:
        yield running
        running.shutdown()


def acknowledged(gateway: Gateway, folder: Path) -> Path:
    """A ledger of what is acknowledged at this moment."""
    chunks = list(gateway._ledger._chunks)
    ledger = Ledger(folder, "now")
    for chunk in chunks:
        done = np.flatnonzero(chunk.state == ACKED)
        if len(done):
            copy = ledger.open_chunk(chunk.number[done], chunk.time_us[done], chunk.value[done])
            copy.sent_us[:] = chunk.sent_us[done]
            copy.state[:] = ACKED
    ledger.close()
    return folder


def backup(engine: EngineProcess, target: Path, *more: str) -> dict[str, int]:
    """One backup as a person makes it; what it says of itself."""
    done = yuzui_here("backup", str(target), "-c", str(engine.config), "--full-speed", "--json", *more)
    assert done.returncode == 0, done.stderr
    said: dict[str, int] = json.loads(done.stdout)
    return said


def verified(target: Path, code: int = 0, *more: str) -> dict[str, list[str]]:
    """What `yuzui verify` says of the newest backup."""
    done = yuzui_here("verify", str(target), "--json", *more)
    assert done.returncode == code, done.stdout + done.stderr
    said: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return said


def killed_in_the_middle(engine: EngineProcess, target: Path) -> None:
    """kill -9 of a backup that has written something and has no name yet."""
    command = [sys.executable, "-m", "ingest.cli", "backup", str(target), "-c", str(engine.config)]
    one = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        until(lambda: any(target.glob(f"{PART}*/data/snapshot/*")), "a backup under way")
        assert one.poll() is None, "it was too fast to be killed"
        one.send_signal(signal.SIGKILL)
    finally:
        one.wait()
    assert any(target.glob(f"{PART}*")), "it left what it had"


def test_every_row_acknowledged_before_the_backup_comes_back_and_no_alert_goes_out_twice(
    tmp_path: Path, receiver: Receiver
) -> None:
    hook = f'[[webhook]]\nname = "room"\nurl = "http://127.0.0.1:{receiver.server_port}/"\n'
    points = {load.gateway: [*load.plain, *load.levels] for load in (EARLY, LONG)}
    points["calm"] = ["calm"]  # was never over a level: nobody has been told of it, and it does not flap
    kinds = {point: "level" for load in (EARLY, LONG) for point in load.levels} | {"calm": "level"}
    engine = EngineProcess(tmp_path / "e", site_config(tmp_path / "e", points, kinds=kinds, more=MORE + hook))
    target = tmp_path / "backups"
    port = lambda: engine.port if engine.running and engine.ports() else None  # noqa: E731
    [early] = gateways([EARLY], port, tmp_path / "early", start=False)
    [long] = gateways([LONG], port, tmp_path / "long", start=False)
    try:
        engine.start()
        early.start()
        long.start()
        until(lambda: early.acked > 4_000, "an early ledger")
        early.finish()
        until(lambda: engine.vitals()["seals"] >= 3 and receiver.heard, "sealed, and somebody called")
        first = backup(engine, target)
        assert first["linked"] == 0
        killed_in_the_middle(engine, target)
        assert [path.name for path in backups(target)] == [Path(str(first["backup"])).name]
        assert verified(target)["faults"] == []

        before = acknowledged(long, tmp_path / "before")
        shutil.copy(tmp_path / "long" / "points.parquet", before)
        second = backup(engine, target)
        assert not any(target.glob(f"{PART}*")), "what the killed one left is gone"
        assert second["linked"] > 3
        assert second["seq"] > first["seq"]
        _same_file(*backups(target)[-2:])
        late = acknowledged(long, tmp_path / "late")
    finally:
        for gateway in (early, long):
            if gateway.is_alive():
                gateway.give_up()
        engine.kill()
    assert long.failure is None
    assert verified(target)["faults"] == []
    shutil.rmtree(engine.data)

    done = yuzui_here("restore", str(target), "--to", str(engine.data), "--json")
    assert done.returncode == 0, done.stderr
    print(f"first {first}\nsecond {second}\nrestored {done.stdout}")
    try:
        engine.start()
        engine.quiet()
        whole = verdict(engine.data, tmp_path / "early", others=True)
        assert (whole.lost, whole.duplicates, whole.wrong) == (0, 0, 0), whole
        assert whole.acked > 3_000
        then = verdict(engine.data, before, others=True)
        assert (then.lost, then.duplicates) == (0, 0), then
        shutil.copy(tmp_path / "long" / "points.parquet", late)
        assert verdict(engine.data, late, others=True).duplicates == 0
        print(f"{whole.acked + then.acked} acknowledged, 0 lost, 0 twice")
        # Whoever was called is not called again, and whatever happens from now on is told.
        heard = len(receiver.heard)
        with Talker(engine.port) as gateway:
            for value in (1.0, 100.0):
                body = json.dumps({"ts": time.time_ns() // 1_000_000, "v": value})
                gateway.say("t/calm/calm", body.encode())
                time.sleep(0.002)
        until(lambda: len(receiver.heard) > heard, "a new alert goes out")
        assert {name: n for name, n in receiver.heard.items() if n > 1} == {}
        assert engine.vitals()["conservation_gap"] == 0
    finally:
        engine.stop()


def _same_file(older: Path, newer: Path) -> None:
    """Sealed files that both backups hold are one file with two names."""
    both = [e.name for e in read(newer).entries if "/hour=" in e.name and (older / e.name).exists()]
    assert both, "a sealed file stands in both"
    assert all((older / name).samefile(newer / name) for name in both)


def test_one_flipped_bit_anywhere_is_found_and_named_and_nothing_is_restored_of_it_unasked(
    tmp_path: Path,
) -> None:
    engine, target = engine_on(tmp_path, 1, 1), tmp_path / "backups"
    unpack(releases()[-1], tmp_path)
    backup(engine, target)
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    newest = backups(target)[-1]
    entries = [entry for entry in read(newest).entries if entry.size]
    kinds = ("data/journal", "data/snapshot", "data/outbox", "data/lake/readings", "data/lake/late", "data/lake/alerts",
             "data/lake/points", "data/lake/hashes", "config")  # fmt: skip
    for kind in kinds:
        entry = rng.choice([one for one in entries if one.name.startswith(kind)])
        with Flipped(newest / entry.name, rng):
            assert any(entry.name in fault for fault in verified(target, 1)["faults"]), entry.name
    with Flipped(newest / "manifest.json", rng):
        done = yuzui_here("verify", str(target))
        assert done.returncode == 2
        assert "manifest.json is damaged" in done.stderr

    entry = rng.choice([one for one in entries if one.name.startswith("data/journal")])
    half = tmp_path / "half"
    with Flipped(newest / entry.name, rng):
        done = yuzui_here("restore", str(target), "--to", str(half))
        assert done.returncode == 1
        assert entry.name in done.stderr
    with pytest.raises(NotFinished, match="was interrupted or found damage"):
        refuse_unfinished(half)
    config = engine.config.read_text().replace('dir = "data"', f'dir = "{half}"')
    refused = EngineProcess(engine.folder, config).start(wait=False)
    until(lambda: not refused.running, "it does not start there")
    assert refused.code == 2
    assert "Run `yuzui restore` again" in refused.log.read_text()
    assert yuzui_here("restore", str(target), "--to", str(half)).returncode == 0, "it begins anew"
    refuse_unfinished(half)
    again = yuzui_here("restore", str(target), "--to", str(half))
    assert again.returncode == 2
    assert "never overwrites" in again.stderr


class Flipped:
    """One bit of a file the other way round, and back again."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._at = rng.randrange(path.stat().st_size)
        self._bit = 1 << rng.randrange(8)

    def _flip(self) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._at)
            byte = file.read(1)[0]
            file.seek(self._at)
            file.write(bytes([byte ^ self._bit]))

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *_: object) -> None:
        self._flip()


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: a full disk needs root for a small tmpfs")
def test_a_full_disk_leaves_the_backup_before_and_gives_its_room_back(tmp_path: Path) -> None:
    engine = engine_on(tmp_path, 1, 1)
    unpack(releases()[-1], tmp_path)
    with SmallDisk(tmp_path / "small", 2 << 20) as disk:
        target = tmp_path / "small" / "backups"
        backup(engine, target)
        free = shutil.disk_usage(target).free
        filler = tmp_path / "small" / "filler"
        filler.write_bytes(bytes(free - (64 << 10)))
        # Another file in place of each, so that all must be copied.
        for path in (engine.data / "lake").rglob("*.parquet"):
            os.utime(path)
        done = yuzui_here("backup", str(target), "-c", str(engine.config), "--full-speed")
        assert done.returncode == 2
        assert "No space left" in done.stderr
        assert not any(target.glob(f"{PART}*"))
        assert len(backups(target)) == 1
        assert verified(target)["faults"] == []
        filler.unlink()
        backup(engine, target)
        assert len(backups(target)) == 2
    assert disk is not None
