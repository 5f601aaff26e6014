"""F0: engines with a mistake built in. The harness that passes the true engine must notice each of them.

Each sabotage is met by the course of events that shows it; the true engine goes through the same course first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from tests.engines import until
from tests.faults_broker import TinyBroker
from tests.faults_disk import LoopDisk
from tests.faults_judge import Findings, judge
from tests.faults_load import Load
from tests.faults_trial import Faults, Impossible, Trial, steady

HELD_S = 0.7
BEHIND = 500
"""Readings that come while a disk is slow; at 2,000 a second they are there within HELD_S."""
CALM = (
    "[journal]\nsegment_bytes = 1048576\nreserve_bytes = 1048576\n"
    "[sealed]\nseal_s = 3600\ngrace_s = 60\n[snapshot]\nevery_s = 3600\n"
)
"""Nothing but the journal syncs anything: on ext4 any sync of a file carries the names of all others with it."""


def findings_of(trial: Trial) -> Findings:
    """The harness's verdict, also on an engine that ends by itself or whose lake cannot be read."""
    try:
        assert trial.engine.running
        trial.hush()
        found = judge(trial.engine, trial.ledger)
    except duckdb.Error as unreadable:
        found = Findings(faults=[f"a query failed: {str(unreadable)[:200]}"])
    except AssertionError:
        if trial.engine.running:
            raise  # the harness waited in vain: that shows nothing of the engine
        found = Findings(faults=[f"the engine ended: {trial.tail()[-200:]}"])
    if trial.engine.running:
        trial.engine.kill()
    for one in trial.gateways:
        one.give_up()
    trial.forget()
    return found


def slow_disk(trial: Trial, gate: Path) -> None:
    """The disk is slow from now on, for a moment and until readings came behind it."""
    was = received(trial)
    gate.touch()
    time.sleep(HELD_S)  # how long the disk is slow
    until(lambda: received(trial) > was + BEHIND, "readings behind a slow disk")


def held_and_killed(faults: Faults, orders: dict[str, Any]) -> Findings:
    """The disk is slow for a moment and the engine dies in it."""
    gate = faults.ledger() / "gate"
    trial = Trial(faults, orders={**orders, "gate": str(gate)}).start()
    until(lambda: trial.acked, "gateways that are acknowledged")
    slow_disk(trial, gate)
    trial.engine.kill()
    gate.unlink()
    trial.start()
    return findings_of(trial)


def held(faults: Faults, orders: dict[str, Any]) -> Findings:
    """The disk is slow for a moment, and then goes on."""
    gate = faults.ledger() / "gate"
    trial = Trial(faults, orders={**orders, "gate": str(gate)}).start()
    until(lambda: trial.acked, "gateways that are acknowledged")
    slow_disk(trial, gate)
    gate.unlink()
    return findings_of(trial)


def said_again(faults: Faults, orders: dict[str, Any]) -> Findings:
    """Late readings, repeats, revisions, and a kill between."""
    # So many late ones that half a second brings one for certain.
    load = steady(faults.rng.randrange(1 << 30), late=0.8)
    trial = Trial(faults, orders=orders, loads=[load]).start()
    time.sleep(2.5)  # late readings come after two seconds of load
    trial.engine.kill()
    trial.start()
    time.sleep(1.0)  # a span of load
    return findings_of(trial)


def sealed_and_killed(faults: Faults, orders: dict[str, Any]) -> Findings:
    """A seal, a kill, and the next seal."""
    trial = Trial(faults, orders=orders).start()
    for _ in range(2):
        until(lambda: trial.engine.vitals()["seals"] > 0, "a seal")
        trial.engine.kill()
        trial.start()
    until(lambda: trial.engine.vitals()["seals"] > 0, "a seal after the last start")
    return findings_of(trial)


def power_cut(faults: Faults, orders: dict[str, Any]) -> Findings:
    """The power fails a moment after a new segment was begun."""
    home = faults.home()
    with LoopDisk(home, home / "data", "ext4") as disk:
        # Points without levels: an alert's own sync would carry the journal's names to the disk.
        load = Load(
            "g1",
            [f"p{i}" for i in range(400)],
            rate=8_000.0,
            per_message=100,
            seed=faults.rng.randrange(1 << 30),
        )
        trial = Trial(faults, home=home, loads=[load], orders=orders, more=CALM).start()
        journal = trial.engine.data / "journal"

        def segments() -> int:
            return len(list(journal.glob("*.journal")))

        was = segments()
        until(lambda: segments() > was, "a new segment")
        acked = trial.acked
        until(lambda: trial.acked > acked + 1_000, "readings in it")
        disk.cut()
        trial.engine.kill()
        disk.remount()
        trial.order(None)
        try:
            trial.start()
        except AssertionError:
            if trial.engine.running:
                raise
        return findings_of(trial)


def reconnected(faults: Faults, orders: dict[str, Any]) -> Findings:
    """A broker's connection is lost while the disk is slow; the new one uses the same packet ids; then a kill."""
    gate, ledger = faults.ledger() / "gate", faults.ledger()
    waits = gate.with_name("gate.held")
    load = Load("g1", [f"p{i}" for i in range(40)])
    with TinyBroker(ledger, load) as broker:
        subscriber = (
            f'[[subscriber]]\nname = "b"\nurl = "mqtt://127.0.0.1:{broker.port}"\nfilters = ["t/#"]\n'
            "qos = 1\nreconnect_s_max = 0.2\n"
        )
        trial = Trial(faults, loads=[load], orders={**orders, "gate": str(gate)}, extra=subscriber)
        trial.ledger = ledger
        trial.engine.start()
        broker.offer(50)
        until(lambda: broker.open == 0, "the first messages acknowledged")
        gate.touch()
        until(waits.exists, "a group that waits")
        broker.offer(50)
        until(lambda: received(trial) >= 100, "messages received behind it")
        let_one_pass(gate)
        until(waits.exists, "those messages wait, as one group")
        broker.hang_up()
        broker.withhold_old()
        broker.offer(100)  # numbered from 1 again, like the 50 + 50 before
        until(lambda: received(trial) >= 200, "new messages under the old numbers")
        let_one_pass(gate)
        time.sleep(0.3)  # for acknowledgements that must not come
        trial.engine.kill()
        gate.unlink()
        broker.release_old()
        trial.engine.start()
        until(lambda: broker.open == 0, "all acknowledged")
        broker.close_ledger()
        return findings_of(trial)


def let_one_pass(gate: Path) -> None:
    """The group that waits at the gate reaches the disk; returns once it is on its way."""
    one = gate.with_name("gate.one")
    one.touch()
    until(lambda: not one.exists(), "one group passes the gate")


def received(trial: Trial) -> int:
    """Readings the engine took in since its start."""
    return int(trial.engine.vitals()["received"])


COURSES: dict[str, Callable[[Faults, dict[str, Any]], Findings]] = {
    "ack_on_receipt": held_and_killed,
    "no_late_split": said_again,
    "no_version_check": sealed_and_killed,
    "bounded_drop_queue": held,
    "no_fsync": power_cut,
    "no_folder_fsync": power_cut,
    "stale_packet_ids": reconnected,
}


def chosen(faults: Faults) -> list[str]:
    """``count`` of the seven; which ones goes round with the days, the seed shifts it. YUZUI_SABOTAGE names some."""
    names = [n for n in os.environ.get("YUZUI_SABOTAGE", "").split(",") if n] or list(COURSES)
    first = (datetime.now(UTC).timetuple().tm_yday * faults.count + faults.result.seed) % len(names)
    return [names[(first + i) % len(names)] for i in range(min(faults.count, len(names)))]


def sabotages(faults: Faults) -> None:
    """F0: each course passes the true engine and catches the sabotaged one."""
    passed: dict[Callable[..., Findings], bool] = {}
    for name in chosen(faults):
        course = COURSES[name]
        try:
            if course not in passed:
                true = course(faults, {})
                passed[course] = true.clean
                faults.expect(true.clean, f"{course.__name__}: the true engine fails: {true}")
                faults.findings.__iadd__(true)
            caught = course(faults, {"sabotage": name})
        except Impossible as why:
            faults.result.notes.append(f"{name} was skipped: {why}")
            continue
        faults.say(f"{name}: {'not noticed' if caught.clean else 'caught'}: {caught}")
        faults.expect(not caught.clean, f"{name} was not noticed")
        faults.result.notes.append(name)
        faults.result.trials += 1
