"""F6, F9: disks that fail an fsync, have no room, allow no larger file, or stall with a city waiting."""

from __future__ import annotations

import errno
import resource
import time
import urllib.error
from collections.abc import Callable
from contextlib import ExitStack

from tests.crash.kills import died
from tests.engines import EngineProcess, until
from tests.faults_disk import Filler, LoopDisk, SmallDisk
from tests.faults_load import Load
from tests.faults_trial import SMALL, Faults, Impossible, Trial

EXIT_JOURNAL_FAILED = 74
DISK_BYTES = 40 << 20
FILE_BYTES_MAX = 400_000
"""Less than a segment: the next one cannot be made."""
BACKLOG = 500_000
STALL_S = 15.0
GATEWAYS = ("g1", "g2", "g3", "g4", "g5")
"""Several, for each connection may only have so many bytes unanswered."""


def readyz(engine: EngineProcess) -> str:
    """What /readyz says, also while it is a refusal."""
    try:
        return engine.page("/readyz")
    except urllib.error.HTTPError as refused:
        return refused.read().decode()


def failing_disks(faults: Faults) -> None:
    """F6: one way after the other, ``count`` in all."""
    ways: list[Callable[[Faults], None]] = [sync_fails, no_room_for_a_sync, disk_fills, file_size_limit]
    for number in range(faults.count):
        way = ways[number % len(ways)]
        try:
            way(faults)
        except Impossible as why:
            faults.result.notes.append(f"{way.__name__} was skipped: {why}")
            continue
        faults.result.trials += 1


def sync_fails(faults: Faults) -> None:
    """EIO at an fdatasync of the journal: the engine leaves, acknowledging nothing of that group."""
    order = {
        "step": "engine fdatasync journal/N.journal",
        "nth": faults.rng.randint(3, 80),
        "errno": errno.EIO,
    }
    trial = Trial(faults, orders=order).start()
    faults.expect(died(trial, 30), "the engine went on after a failed fsync")
    faults.expect(trial.engine.code == EXIT_JOURNAL_FAILED, f"exit code {trial.engine.code}: {trial.tail()}")
    trial.order(None)
    trial.start()
    found = trial.judge()
    faults.say(f"EIO: {found}")
    faults.findings.__iadd__(found)


def no_room_for_a_sync(faults: Faults) -> None:
    """ENOSPC at an fdatasync of the journal: it waits, goes on by itself, and no group stands twice."""
    order = {
        "step": "engine fdatasync journal/N.journal",
        "nth": faults.rng.randint(3, 80),
        "errno": errno.ENOSPC,
    }
    trial = Trial(faults, orders=order).start()
    log = trial.engine.log
    until(lambda: "disk has room again" in log.read_text(), "the engine goes on by itself")
    found = trial.judge()
    faults.say(f"ENOSPC: {found}")
    faults.findings.__iadd__(found)


def disk_fills(faults: Faults) -> None:
    """A small disk fills up under load and is freed: acknowledgements wait, then go on."""
    home = faults.home()
    with SmallDisk(home / "data", DISK_BYTES):
        trial = Trial(faults, home=home).start()
        until(lambda: trial.acked > 1_000, "gateways that are acknowledged")
        filler = Filler(trial.engine.data / "filler")
        filler.start()
        until(lambda: "acknowledgements are held" in readyz(trial.engine), "acknowledgements held")
        was = trial.engine.vitals()
        until(lambda: trial.engine.vitals()["received"] > was["received"], "readings taken in meanwhile")
        now = trial.engine.vitals()["acknowledged_messages"]
        faults.expect(now == was["acknowledged_messages"], "acknowledged on a full disk")
        filler.let_go()
        until(lambda: trial.engine.get("/readyz") == 200, "ready again by itself")
        held = trial.engine.log.read_text().count("acknowledgements held until there is room")
        faults.expect(held == 1, f"said {held} times that acknowledgements are held")
        found = trial.judge()
        faults.say(f"full disk: {found}")
    faults.findings.__iadd__(found)


def file_size_limit(faults: Faults) -> None:
    """No file may grow beyond a limit set while the engine runs, and then lifted."""
    trial = Trial(faults).start()
    until(lambda: trial.acked > 1_000, "gateways that are acknowledged")
    unlimited = resource.prlimit(trial.engine.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(trial.engine.pid, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, unlimited[1]))
    until(
        lambda: "disk full, ack" in trial.engine.log.read_text() or not trial.engine.running,
        "it is noticed",
        60,
    )
    if trial.engine.running:
        resource.prlimit(trial.engine.pid, resource.RLIMIT_FSIZE, unlimited)
    else:
        faults.result.notes.append("the engine left at the file size limit")
        trial.start()
    until(lambda was=trial.acked: trial.acked > was, "acknowledgements go on")
    found = trial.judge()
    faults.say(f"file size limit: {found}")
    faults.findings.__iadd__(found)


def stalls(faults: Faults) -> None:
    """F9: the file system is frozen for ``count`` × 15 s while half a million readings arrive."""
    home = faults.home()
    rate = BACKLOG / STALL_S * 1.1 / len(GATEWAYS)
    loads = [
        Load(
            name,
            [f"{name}-p{i}" for i in range(480)],
            rate=rate,
            per_message=400,
            late=0.0,
            repeated=0.0,
            revised=0.0,
        )
        for name in GATEWAYS
    ]
    with ExitStack() as stack:
        disk = stack.enter_context(LoopDisk(home, home / "data", "ext4", size=400 << 20))
        trial = Trial(faults, home=home, loads=loads, more=SMALL.replace("1048576", "16777216")).start()
        for _ in range(faults.count):
            until(lambda was=trial.acked: trial.acked > was, "gateways that are acknowledged")
            disk.freeze()
            stack.callback(thaw_quietly, disk)
            begun = time.monotonic()
            acked, received = settled(trial), trial.engine.vitals()["received"]
            time.sleep(max(0.0, begun + STALL_S - time.monotonic()))  # the stall
            waiting = trial.engine.vitals()["received"] - received
            said = sum(one.said for one in trial.gateways) - acked
            faults.expect(trial.acked == acked, f"{trial.acked - acked} acknowledged on a stalled disk")
            faults.expect(trial.engine.get("/readyz") == 503, "ready on a stalled disk")
            disk.thaw()
            faults.say(f"{waiting} readings taken in while it stalled, {said} waited in all")
            faults.result.notes.append(f"{said:,} waited, {waiting:,} of them taken in meanwhile")
            until(lambda: trial.engine.get("/readyz") == 200, "ready again")
        found = trial.judge(alerts=False)
        faults.say(str(found))
    faults.findings.__iadd__(found)
    faults.result.trials += faults.count


def settled(trial: Trial) -> int:
    """Readings acknowledged once what was on its way when the disk stood still is, or the last number."""
    acked = trial.acked
    for _ in range(5):
        time.sleep(1.0)
        was, acked = acked, trial.acked
        if acked == was:
            break
    return acked


def thaw_quietly(disk: LoopDisk) -> None:
    """Where a test failed in between: a frozen file system cannot be unmounted."""
    try:
        disk.thaw()
    except Impossible:
        return
