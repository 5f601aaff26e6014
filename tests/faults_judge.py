"""The harness's verdict on a fault: what was acknowledged against what stands, by those who know nothing of the engine.

Owns the quiet before judging, the numbers LOST, INVENTED, DUPLICATED, WRONG, ALERT_LOST, ALERT_DUPLICATED, and
the analyst who looks for doubled readings all the while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from anomaly.engine import Engine
from ingest.configfile import load
from ingest.simulate.judge_ledger import verdict
from storage import pointmap
from storage.batch import RawBatch
from tests.engines import EngineProcess, until

QUIET_S = 90.0
LOOK_S = 0.5
RULE = "level"


@dataclass(slots=True)
class Findings:
    """Counts over all trials of a fault; every one of the six verdicts must be 0.

    alerts  that a replay of the ledger by an engine that was never killed gives
    """

    acked: int = 0
    stored: int = 0
    lost: int = 0
    invented: int = 0
    duplicated: int = 0
    wrong: int = 0
    alerts: int = 0
    alerts_lost: int = 0
    alerts_duplicated: int = 0
    conservation_gap: int = 0
    looks: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing is lost, doubled, wrong or made up."""
        return not any(
            (self.lost, self.invented, self.duplicated, self.wrong, self.alerts_lost, self.alerts_duplicated,
             self.conservation_gap, self.faults)
        )  # fmt: skip

    def __iadd__(self, other: Findings) -> Findings:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def __str__(self) -> str:
        verdicts = " ".join(f"{k}={v}" for k, v in asdict(self).items() if k != "faults" and v)
        return f"{verdicts}{' ' + '; '.join(self.faults[:4]) if self.faults else ''}"


class Watcher(threading.Thread):
    """An analyst who counts doubled readings again and again while engines die."""

    def __init__(self, lake: Path, every_s: float = LOOK_S) -> None:
        super().__init__(daemon=True)
        self._lake = lake
        self._every_s = every_s
        self._ended = threading.Event()
        self.looks = 0
        self.doubled: list[int] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Count until told to stop."""
        con = duckdb.connect()
        con.execute("SET threads = 1")
        text = until(lambda: self._lake.is_file() and self._lake.read_text(), "lake.sql", 60)
        while not self._ended.wait(self._every_s):
            try:
                con.execute(text)
                row = con.execute("SELECT count(*) - count(DISTINCT (point, time)) FROM readings").fetchone()
                assert row is not None
                self.looks += 1
                if row[0]:
                    self.doubled.append(row[0])
            except duckdb.Error as fault:
                self.errors.append(str(fault)[:300])
        con.close()

    def finish(self) -> Findings:
        """Stop and wait; what was seen."""
        self._ended.set()
        self.join(60)
        found = Findings(looks=self.looks, duplicated=sum(self.doubled))
        found.faults = [f"a query failed: {error}" for error in self.errors]
        return found


def alerts_due(engine: EngineProcess, ledger: Path) -> set[str]:
    """Ids of the level alerts of an engine that was never killed and reads what was acknowledged once, by time.

    Points with levels must not have late readings: what is late for a replay may not have been for the engine.
    """
    config = load(engine.config)
    table = pointmap.load(engine.data)
    assert table is not None
    with duckdb.connect() as con:
        con.execute((engine.data / "lake.sql").read_text())
        said = con.sql(
            f"""SELECT p.point, l.time_us, l.value
                FROM read_parquet('{ledger}/readings-*.parquet') l
                JOIN read_parquet('{ledger}/points.parquet') k USING (number)
                JOIN (SELECT DISTINCT point, point_id FROM points) p USING (point_id)
                WHERE l.state = 2 ORDER BY l.time_us, l.number"""
        ).to_arrow_table()
    point, time_us = said["point"].to_numpy().astype(np.int32), said["time_us"].to_numpy()
    judge = Engine(pointmap.point_table(table), config.kinds, config.checks)
    raw = RawBatch(point, time_us, time_us, said["value"].to_numpy(), np.zeros(len(point), np.uint8))
    events = judge.judge(raw, np.arange(len(point), dtype=np.int64)).events
    return {event.id for event in events if event.rule == RULE}


def judge(
    engine: EngineProcess,
    ledger: Path,
    *,
    alerts: bool = True,
    heard: Callable[[], Collection[str]] | None = None,
    settle_s: float = 0.0,
) -> Findings:
    """Wait for quiescence, then compare.

    heard     ids of alerts that a webhook was called for
    settle_s  how long a broker may take to deliver again what a dead engine had not acknowledged
    """
    engine.quiet(QUIET_S)
    end = time.monotonic() + settle_s
    said = verdict(engine.data, ledger)
    while said.lost and time.monotonic() < end:
        time.sleep(LOOK_S)
        engine.quiet(QUIET_S)
        said = verdict(engine.data, ledger)
    until(lambda: engine.vitals()["outbox_waiting"] == 0, "every notification delivered", QUIET_S)
    found = Findings(
        acked=said.acked, stored=said.stored, lost=said.lost, invented=said.invented, duplicated=said.duplicates,
        wrong=said.wrong, conservation_gap=abs(int(engine.vitals()["conservation_gap"])), faults=said.examples[:4],
    )  # fmt: skip
    if alerts:
        due = alerts_due(engine, ledger)
        exported: set[str] = set()

        def all_told() -> bool:
            exported.update(row[0] for row in engine.lake(f"SELECT id FROM alerts WHERE rule = '{RULE}'"))
            return due <= exported

        try:
            until(all_told, "alerts in the lake", QUIET_S)
        except AssertionError:
            found.faults.append(f"{len(due - exported)} alerts never reached the lake")
        found.alerts = len(due)
        found.alerts_lost = len(due - exported)
        found.alerts_duplicated = len(exported - due)
        if heard is not None:
            found.alerts_lost += len(exported - set(heard()))
    return found


def accounted(vitals: dict[str, Any]) -> int:
    """received less what became of it: 0 when each reading is accounted for."""
    ways = ("main", "late_pending", "repeats", "events", "quarantined", "retained_ignored")
    return int(vitals["received"]) - sum(int(vitals.get(way, 0)) for way in ways)
