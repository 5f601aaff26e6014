"""What a fault run does inside the engine's processes: count steps, die at one, wait at a gate, be sabotaged.

On PYTHONPATH of an engine under test only (tests/faults_engine.py), so that no product file knows of it.
Python imports it first in every process of that engine. YUZUI_FAULT is a JSON object:

    record    a file that gets one line a step: "role operation place"
    step, nth, after   die at the nth such step, before it is done or after it
    errno     instead of dying the step fails with this error, once
    only      with "child" only the process that takes the step dies, not its engine
    gate      while this file exists no group is committed; "<gate>.held" says that one waits, "<gate>.one" lets it pass
    sleep     sleep by select(): libfaketime, told to leave the monotonic clock alone, breaks clock_nanosleep
    sabotage  a name in SABOTAGES: a mistake an engine could make, which the harness must notice
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROLES = {"ingest.cli": "engine", "ingest.sealing": "sealer", "ingest.delivering": "delivery"}
"""By the module python was started with."""
POLL_S = 0.002
QUEUE_GROUPS_MAX = 4
"""Of the sabotage that drops: three polls of a disk that is busy."""


def place_of(path: object) -> str:
    """Where in the data folder, with numbers and partitions made alike."""
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
    text = f"{text}/".rpartition("/data/")[2].rstrip("/")
    text = re.sub(r"date=[^/]+/hour=\d+", "PARTITION", text)
    text = re.sub(r"date=[^/]+", "DATE", text)
    return re.sub(r"-?\d+", "N", text)


class Steps:
    """Counts the steps of this process and dies at the one it was told."""

    def __init__(self, role: str, orders: dict[str, Any]) -> None:
        self.role = role
        self.orders = orders
        self._seen = 0
        self._record = -1
        if "record" in orders:
            self._record = os.open(orders["record"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def around(self, name: str, place: Callable[..., object], call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` as a step called ``name`` at what ``place`` makes of its arguments."""

        def stepped(*args: Any, **kwargs: Any) -> Any:
            step = f"{self.role} {name} {place_of(place(*args))}".rstrip()
            if self._record >= 0:
                os.write(self._record, f"{step}\n".encode())
            mine = step == self.orders.get("step") and self._is_the_one()
            if mine and "errno" in self.orders:
                raise OSError(self.orders["errno"], os.strerror(self.orders["errno"]))
            if mine and not self.orders.get("after"):
                self._die()
            result = call(*args, **kwargs)
            if mine:
                self._die()
            return result

        return stepped

    def _is_the_one(self) -> bool:
        self._seen += 1
        return self._seen == self.orders["nth"]

    def _die(self) -> None:
        engine = os.getpid() if self.role == "engine" or self.orders.get("only") else os.getppid()
        os.kill(engine, signal.SIGKILL)
        while True:  # this process falls with its engine
            time.sleep(1)


def path_of(fd: int, *_: object) -> str:
    """Of an open file."""
    return os.readlink(f"/proc/self/fd/{fd}")


def first(path: object, *_: object) -> object:
    """The first argument: of unlink."""
    return path


def second(_: object, path: object, *__: object) -> object:
    """The second argument: of rename."""
    return path


def nowhere(*_: object) -> str:
    """For steps that have no place."""
    return ""


def count_steps(steps: Steps) -> None:
    """Make every durable act of this process a step."""
    os.fsync = steps.around("fsync", path_of, os.fsync)
    os.fdatasync = steps.around("fdatasync", path_of, os.fdatasync)
    os.replace = steps.around("rename", second, os.replace)
    os.rename = steps.around("rename", second, os.rename)
    os.unlink = steps.around("unlink", first, os.unlink)
    os.remove = steps.around("unlink", first, os.remove)
    os.pwritev = steps.around("pwritev", path_of, os.pwritev)
    if steps.role == "engine":
        from anomaly.alerts.outbox import Outbox
        from ingest.mqtt.connection import Connection
        from ingest.sealing import SealProcess

        Outbox.record = steps.around("alerts", nowhere, Outbox.record)  # type: ignore[method-assign]
        Outbox.mark = steps.around("mark", nowhere, Outbox.mark)  # type: ignore[method-assign]
        Connection.acknowledge = steps.around("ack", nowhere, Connection.acknowledge)  # type: ignore[method-assign]
        SealProcess.begin = steps.around("send-seal", nowhere, SealProcess.begin)  # type: ignore[method-assign]
    elif steps.role == "sealer":
        from deltalake import DeltaTable

        DeltaTable.create_write_transaction = steps.around(
            "delta-commit", lambda table, *_: str(table.table_uri), DeltaTable.create_write_transaction
        )
    elif steps.role == "delivery":
        from anomaly.alerts.letters import Letters

        Letters.settle = steps.around("settle", nowhere, Letters.settle)  # type: ignore[method-assign]


def hold_at_gate(gate: Path) -> None:
    """No group of the journal is committed while the gate stands."""
    from storage.journal import Journal

    commit = Journal.commit
    one, waits = gate.with_name(gate.name + ".one"), gate.with_name(gate.name + ".held")

    def held(journal: Journal, bodies: Any) -> int:
        while gate.exists():
            waits.touch()
            if one.exists():
                waits.unlink()
                one.unlink()
                break
            time.sleep(POLL_S)
        return commit(journal, bodies)

    Journal.commit = held  # type: ignore[method-assign]


def ack_on_receipt() -> None:
    """Acknowledge what was read, then write it."""
    from ingest.wire import Wire

    submit = Wire._submit

    def hasty(wire: Any, bodies: Any, receipts: Any, *more: Any, **named: Any) -> None:
        wire._poller.acknowledge(receipts)
        submit(wire, bodies, [], *more, **named)

    Wire._submit = hasty  # type: ignore[method-assign]


def no_fsync() -> None:
    """Believe that what is written is on disk."""
    os.fsync = os.fdatasync = lambda fd: None


def no_folder_fsync() -> None:
    """Sync files, and forget that a name is written elsewhere."""
    fsync = os.fsync

    def files_only(fd: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            fsync(fd)

    os.fsync = files_only  # type: ignore[assignment]


def stale_packet_ids() -> None:
    """Acknowledge on the connection of now what came on one before."""
    from dataclasses import replace

    from ingest.mqtt.poller import Poller

    acknowledge = Poller.acknowledge

    def epochless(poller: Any, receipts: Any) -> int:
        living = [
            conn for conn in poller._sockets.connections.values() if conn.epoch and not conn.from_publisher
        ]
        moved = [
            receipt if receipt.conn.epoch or not living
            else replace(receipt, conn=living[-1], epoch=living[-1].epoch)
            for receipt in receipts
        ]  # fmt: skip
        return acknowledge(poller, moved)

    Poller.acknowledge = epochless  # type: ignore[method-assign]


def no_late_split() -> None:
    """Every reading is main."""
    from anomaly.engine import Engine
    from anomaly.order import MAIN

    meet = Engine._meet

    def all_main(engine: Any, raw: Any) -> Any:
        met = meet(engine, raw)
        met.verdict[:] = MAIN
        return met

    Engine._meet = all_main  # type: ignore[method-assign]


def no_version_check() -> None:
    """Remember what was sealed instead of asking the table, and commit without looking."""
    from storage.deltatable import TableHandle
    from storage.sealed import APP_ID, Sealer

    committed: dict[str, int] = {}
    ask, seal, commit = TableHandle.version_of, Sealer.seal, TableHandle.commit
    sealing = threading.local()

    def remembered(table: Any, app: str) -> int:
        if app == APP_ID and getattr(sealing, "now", False):
            return committed.get(table.folder.name, -1)
        return int(ask(table, app))

    def sealed(sealer: Any, upto_seq: int) -> Any:
        sealing.now = True
        try:
            return seal(sealer, upto_seq)
        finally:
            sealing.now = False

    def trusting(table: Any, app: str, version: int, actions: Any) -> bool:
        done: bool = commit(table, app, version, actions)
        if done and app == APP_ID:
            committed[table.folder.name] = version
        return done

    TableHandle.version_of = remembered  # type: ignore[method-assign]
    TableHandle.commit = trusting  # type: ignore[method-assign]
    Sealer.seal = sealed  # type: ignore[method-assign]


def bounded_drop_queue() -> None:
    """A queue to the disk that drops what does not fit, so that nobody waits."""
    from ingest.committer import Committer

    submit = Committer.submit

    def dropping(committer: Any, group: Any) -> None:
        if len(committer._queue) > QUEUE_GROUPS_MAX:
            if group.then:
                group.then()
            return
        submit(committer, group)

    Committer.submit = dropping  # type: ignore[method-assign]


SABOTAGES: dict[str, tuple[str, Callable[[], None]]] = {
    "ack_on_receipt": ("engine", ack_on_receipt),
    "no_fsync": ("engine", no_fsync),
    "no_folder_fsync": ("engine", no_folder_fsync),
    "stale_packet_ids": ("engine", stale_packet_ids),
    "no_late_split": ("engine", no_late_split),
    "no_version_check": ("sealer", no_version_check),
    "bounded_drop_queue": ("engine", bounded_drop_queue),
}
"""name → (the process in which the mistake is made, how it is made)."""


def begin() -> None:
    """Look who this process is and do as ordered."""
    roles = [role for module, role in ROLES.items() if module in sys.orig_argv]
    if not roles or "YUZUI_FAULT" not in os.environ:
        return
    role, orders = roles[0], json.loads(os.environ["YUZUI_FAULT"])
    if "sabotage" in orders and SABOTAGES[orders["sabotage"]][0] == role:
        SABOTAGES[orders["sabotage"]][1]()
    if "gate" in orders and role == "engine":
        hold_at_gate(Path(orders["gate"]))
    if "sleep" in orders:
        time.sleep = lambda seconds: select.select([], [], [], seconds) and None  # type: ignore[assignment]
    if "record" in orders or "step" in orders:
        count_steps(Steps(role, orders))


begin()
