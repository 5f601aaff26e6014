"""The data folder of a release, small and whole, kept for the releases after it: how it is made and what it must hold.

``scripts/golden`` makes one with a real engine: readings on time, late, revised and repeated, of an hour that was
compacted, of sealed files and of the journal's tail alone; refusals, steps of a case, alerts that ended, that stand,
that were told and that wait.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage import snapshot
from storage.hot import list_hot
from storage.segment import list_segments
from tests.engines import EngineProcess, free_port, site_config, until
from tests.talk import Talker
from tests.webhook_ids import Receiver

FOLDER = Path(__file__).resolve().parent / "golden"
POINTS = {"g0": ["p0", "p1", "p2", "l0", "l1"]}
KINDS = {"l0": "level", "l1": "level"}
CASES = (
    'topics = ["cases"]\n[event]\ntype = "finding"\nid = "no"\nstate = "is"\ntime = "at"\n'
    'states = { "open" = "accepted", "done" = "closed" }\n'
)
SETTINGS = (
    "[sealed]\nseal_s = 1\n[snapshot]\nevery_s = 1\n[compaction]\nlateness_s = 0\nfold_s = 0\n"
    "[journal]\nsegment_bytes = 1048576\nreserve_bytes = 0\n"
)
BYTES_MAX = 300_000
HOUR_MS = 3_600_000
READINGS = "SELECT point_id, epoch_ms(time), value, flag FROM readings ORDER BY ALL"
ALERTS = "SELECT id, point_id, state, severity, epoch_us(onset) FROM alerts ORDER BY ALL"
REFUSALS = "SELECT source, topic, reason, count(*) FROM quarantine GROUP BY ALL ORDER BY ALL"
STEPS = "SELECT source, id, state, epoch_ms(time) FROM event_log ORDER BY ALL"


def engine_on(folder: Path, room: int, gone: int) -> EngineProcess:
    """An engine for such a data folder; ``room`` and ``gone`` are ports of two receivers."""
    hooks = "".join(
        f'[[webhook]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/"\n'
        for name, port in (("room", room), ("gone", gone))
    )
    config = site_config(folder, POINTS, kinds=KINDS, more=SETTINGS + hooks)
    (folder / "sources.d").mkdir(exist_ok=True)
    (folder / "sources.d" / "cases.toml").write_text(CASES)
    return EngineProcess(folder, config)


class _Ledger:
    """What was acknowledged, by key; the last value stands."""

    def __init__(self, gateway: Talker) -> None:
        self.rows: dict[tuple[str, int], float] = {}
        self._gateway = gateway

    def say(self, point: str, time_ms: int, value: float) -> None:
        self._gateway.say(f"t/g0/{point}", json.dumps({"ts": time_ms, "v": value}).encode())
        self.rows[point, time_ms] = value


def _a_life(engine: EngineProcess, receiver: Receiver) -> _Ledger:
    now = time.time_ns() // 1_000_000
    past = now - now % HOUR_MS - 2 * HOUR_MS
    with Talker(engine.port) as gateway:
        said = _Ledger(gateway)
        for step in range(60):
            for point in ("p0", "p1", "p2"):
                said.say(point, past + step * 1000, step + 0.25)
        for point in ("p0", "p1"):
            said.say(point, past - 500, -1.0)  # late
            said.say(point, past + 5000, 500.0)  # revised
            said.say(point, past + 6000, 6.25)  # repeated
        gateway.say("t/g0/nobody", b"{}")
        gateway.say("t/g0/p0", b'{"ts": 1, "v": NaN}')
        for no, state in (("1", "open"), ("2", "open"), ("1", "done")):
            gateway.say("cases", json.dumps({"no": no, "is": state, "at": now + (state == "done")}).encode())
        for point, values in (("l0", (1.0, 20.0, 1.0)), ("l1", (1.0, 30.0))):
            for step, value in enumerate(values):
                said.say(point, now + step, value)
        until(lambda: engine.vitals()["compactions"] >= 1, "an hour compacted")
        until(lambda: len(receiver.heard) >= 2, "somebody was called")
        seals = engine.vitals()["seals"]
        said.say("p2", now + 100, 7.0)
        until(lambda: engine.vitals()["seals"] > seals, "sealed once more")
        for step in range(10):
            said.say("p2", now + 200 + step, float(step))
        said.say("l1", now + 300, 45.0)
        engine.kill()
    return said


def build() -> tuple[Path, Path]:
    """Make the golden folder of this release; its archive and what it must hold."""
    with tempfile.TemporaryDirectory() as room, Receiver() as receiver:
        folder = Path(room)
        engine = engine_on(folder, receiver.server_port, free_port()).start()
        try:
            said = _a_life(engine, receiver)
        finally:
            if engine.running:
                engine.kill()
        data = engine.data
        seq = max(at for at, _ in snapshot.list_snapshots(data / "snapshot"))
        # As after a power cut: hot files nobody had synced are gone, and their rows are in the journal alone.
        for late in (False, True):
            for file in list_hot(data, late):
                if file.last > seq or file.last <= _sealed(data):
                    file.path.unlink()
        (data / "lake" / "hot" / "list.json").unlink()
        for name in ("engine.json", "LOCK", "SEALING", "lake.sql"):
            (data / name).unlink(missing_ok=True)
        facts: dict[str, Any] = {
            "yuzui": version("yuzui"),
            "readings": sorted([point, at, value] for (point, at), value in said.rows.items()),
            "snapshot_seq": seq,
            "journal_first": list_segments(data / "journal")[0][0],
            "heard": sorted(receiver.heard),
        }
        receiver.shutdown()
        return _pack(data, facts)


def _sealed(data: Path) -> int:
    from deltalake import DeltaTable

    return int(DeltaTable(str(data / "lake" / "readings")).transaction_version("yuzui") or -1)


def _pack(data: Path, facts: dict[str, Any]) -> tuple[Path, Path]:
    FOLDER.mkdir(exist_ok=True)
    archive, told = FOLDER / f"{facts['yuzui']}.tar.xz", FOLDER / f"{facts['yuzui']}.json"
    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted(data.rglob("*")):
            tar.add(path, f"data/{path.relative_to(data)}", recursive=False, filter=_nobody)
    told.write_text(json.dumps(facts, indent=None, separators=(",", ":")) + "\n")
    assert archive.stat().st_size <= BYTES_MAX, f"{archive.stat().st_size} bytes"
    return archive, told


def _nobody(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def unpack(release: str, folder: Path) -> Path:
    """The data folder of a release, for a test to open."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    with tarfile.open(FOLDER / f"{release}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    return folder / "data"


def facts_of(release: str) -> dict[str, Any]:
    """What it must hold."""
    found: dict[str, Any] = json.loads((FOLDER / f"{release}.json").read_text())
    return found


def releases() -> list[str]:
    """Every release there is a folder of, oldest first."""
    return sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))


if __name__ == "__main__":
    for made in build():
        print(f"{made}: {made.stat().st_size} bytes", file=sys.stderr)
