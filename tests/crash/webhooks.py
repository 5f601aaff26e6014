"""F11: targets that refuse, fail, stall, flood and mislead, and a kill while calls are in the air."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict

from tests.engines import until
from tests.faults_judge import Findings
from tests.faults_load import Load
from tests.faults_trial import Faults, Trial
from tests.faults_webhook import Targets

ALERTS = 10
TIMEOUT_S = 2.5
"""Longer than a target on a busy machine takes to say when it may be called again: who hangs up does not hear it."""
RSS_GROWTH_BYTES_MAX = 300 << 20
"""A huge answer that was read would be a gigabyte."""


def misbehaving_targets(faults: Faults) -> None:
    """F11: ``count`` rounds of ten alerts to eight targets; every target hears of every alert under one id."""
    for _ in range(faults.count):
        with Targets() as targets:
            load = Load("g1", ["g1-p0"], [f"g1-l{i}" for i in range(ALERTS)], rate=220.0, late=0.0, repeated=0.0,
                        revised=0.0, seconds=5.0, seed=faults.rng.randrange(1 << 30))  # fmt: skip
            trial = Trial(faults, loads=[load], extra=targets.config(f"timeout_s = {TIMEOUT_S}")).start()
            until(lambda targets=targets: targets.hanging, "a call in the air")
            trial.engine.kill()
            trial.start()
            rss = trial.engine.vitals()["rss_bytes"]
            trial.hush()
            until(lambda trial=trial: nothing_open(trial), "everything delivered")
            grown = trial.engine.vitals()["rss_bytes"] - rss
            told = delivered(trial)
            found = trial.judge()
        compare(faults, found, told, targets)
        faults.expect(targets.inside == 0, f"a redirect was followed {targets.inside} times")
        faults.expect(targets.early == 0, f"{targets.early} calls before their Retry-After")
        faults.expect(grown < RSS_GROWTH_BYTES_MAX, f"memory grew by {grown >> 20} MiB")
        faults.say(f"{targets.calls.total()} calls, {sum(len(ids) for ids in told.values())} due; {found}")
        faults.findings.__iadd__(found)
        faults.result.trials += sum(len(ids) for ids in told.values())


def compare(faults: Faults, found: Findings, told: dict[str, set[str]], targets: Targets) -> None:
    """Add to ``found`` what targets did not hear of, or heard of without there being such an alert."""
    for mode in targets.modes:
        heard, due = set(targets.heard[mode]), told.get(mode, set())
        found.alerts_lost += len(due - heard)
        found.alerts_duplicated += len(heard - due)
        faults.expect(due, f"{mode}: there was nothing to tell")
        faults.expect(due <= heard, f"{mode}: {len(due - heard)} of {len(due)} never heard")


def rows(trial: Trial, sql: str) -> list[tuple[str, str]]:
    """Of the outbox, read by a stranger."""
    with sqlite3.connect(f"file:{trial.engine.data}/outbox.db?mode=ro", uri=True, timeout=10) as db:
        return db.execute(sql).fetchall()


def nothing_open(trial: Trial) -> bool:
    """No notification is queued; none went to the dead letters in vain."""
    time.sleep(0.1)
    return not rows(trial, "SELECT target, alert_id FROM delivery WHERE state = 'queued'")


def delivered(trial: Trial) -> dict[str, set[str]]:
    """Target → ids of what it was to be told."""
    found: dict[str, set[str]] = defaultdict(set)
    for target, alert in rows(
        trial, "SELECT DISTINCT target, alert_id FROM delivery WHERE state <> 'dropped'"
    ):
        found[target].add(alert)
    return found
