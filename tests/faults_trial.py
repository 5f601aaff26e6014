"""A trial: one engine on a folder, gateways that speak to it, a ledger elsewhere, and what came of it.

Owns the shape of a fault's result and the common course: start, speak, break, heal, wait, judge. Knows nothing
of any particular fault.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.engines import ROOT, EngineProcess, site_config
from tests.faults_judge import Findings, Watcher, judge
from tests.faults_load import Gateway, Load, gateways

INSIDE = ROOT / "tests" / "crash" / "inside"
SMALL = (
    "[journal]\nsegment_bytes = 1048576\nreserve_bytes = 1048576\n"
    "[sealed]\nseal_s = 2\ngrace_s = 60\n[snapshot]\nevery_s = 1\n"
)
"""Small, so that every fault meets seals, snapshots, new segments and journal cuts too."""
COMPACTED = "[compaction]\nlateness_s = 0\nfold_s = 0\nfiles_per_hour_max = 3\n"
FAST: Mapping[str, float] = {"age_s": 6 * 86_400.0, "pace": 300.0}
"""With these an hour of event time takes twelve seconds, and hours that are over are compacted meanwhile. Sources
take readings up to seven days old: it lasts for half an hour."""
PLAIN, LEVELS = 180, 20
FRESH = "[checks]\nfresh_s = 864000.0\n"
"""Readings are days old here and engines stand still: an alert for them is asked for all the same."""


class Impossible(RuntimeError):  # noqa: N818 - says what it is
    """This machine cannot show this fault; the text says what is missing."""


@dataclass(slots=True)
class Result:
    """What one fault came to. ``unit``: what ``trials`` counts."""

    fault: str
    title: str
    trials: int = 0
    unit: str = ""
    seed: int = 0
    seconds: float = 0.0
    skipped: str = ""
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    @property
    def passed(self) -> bool:
        """Done, and nothing was lost, doubled, wrong or made up."""
        return not self.skipped and not self.failures and self.findings.clean

    def to_json(self) -> str:
        """For whoever started this fault's process."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The other way."""
        fields = json.loads(text)
        return cls(**{**fields, "findings": Findings(**fields["findings"])})


class Faults:
    """What a fault function is given: folders, chance, and where to put what it found.

    folder  for this fault alone, on a real disk; ledgers: on another file system where there is one
    """

    def __init__(self, result: Result, count: int) -> None:
        self.result = result
        self.count = count
        self.rng = random.Random(result.seed)
        self._folder = Path(
            tempfile.mkdtemp(prefix=f"yuzui-{result.fault}-", dir=os.environ.get("YUZUI_FAULT_DIR"))
        )
        memory = Path("/dev/shm")
        self._ledgers = Path(
            tempfile.mkdtemp(prefix=f"yuzui-{result.fault}-", dir=memory if memory.is_dir() else None)
        )
        self._homes = 0
        self._begun = time.monotonic()
        self.engines: list[EngineProcess] = []

    @property
    def findings(self) -> Findings:
        """Of all trials so far."""
        return self.result.findings

    def home(self) -> Path:
        """A new folder for an engine."""
        self._homes += 1
        folder = self._folder / f"home{self._homes}"
        folder.mkdir()
        return folder

    def ledger(self) -> Path:
        """A new folder for a ledger."""
        self._homes += 1
        folder = self._ledgers / f"ledger{self._homes}"
        folder.mkdir()
        return folder

    def say(self, text: str) -> None:
        """One line of progress."""
        spent = time.monotonic() - self._begun
        print(f"{self.result.fault} {spent:6.1f} s  {text}", file=sys.stderr, flush=True)

    def expect(self, holds: object, what: str) -> None:
        """Note a failure where something does not hold."""
        if not holds:
            self.result.failures.append(what)
            self.say(f"FAILED: {what}")

    def close(self) -> None:
        """End what still runs and remove the folders (kept where YUZUI_FAULT_KEEP is set)."""
        for engine in self.engines:
            if engine.running:
                engine.kill()
        if not os.environ.get("YUZUI_FAULT_KEEP"):
            shutil.rmtree(self._folder, ignore_errors=True)
            shutil.rmtree(self._ledgers, ignore_errors=True)


class Trial:
    """One engine and its gateways.

    orders      those of tests/crash/inside/sitecustomize.py
    more        TOML in place of SMALL; extra: TOML behind it
    interval_s  expected interval of the points; 0 is never dead
    """

    def __init__(
        self,
        faults: Faults,
        *,
        home: Path | None = None,
        loads: Sequence[Load] | None = None,
        orders: Mapping[str, Any] | None = None,
        more: str = SMALL,
        env: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        extra: str = "",
        interval_s: float = 0.0,
        rate: float = 2_000.0,
    ) -> None:
        self.faults = faults
        self.home = home or faults.home()
        self.ledger = faults.ledger()
        self.loads = list(loads) if loads is not None else [steady(faults.rng.randrange(1 << 30), rate)]
        points = {one.gateway: [*one.plain, *one.levels] for one in self.loads}
        kinds = {point: "level" for one in self.loads for point in one.levels}
        fresh = "" if "[checks]" in more else FRESH
        self.engine = EngineProcess(
            self.home,
            site_config(self.home, points, kinds=kinds, more=more + fresh + extra, interval_s=interval_s),
            env=env,
            before=before,
        )
        faults.engines.append(self.engine)
        self.order(orders)
        self.gateways: list[Gateway] = []
        self.watcher: Watcher | None = None

    def order(self, orders: Mapping[str, Any] | None) -> None:
        """What the next start is told; None for a plain engine."""
        for name in ("YUZUI_FAULT", "PYTHONPATH"):
            self.engine.env.pop(name, None)
        if orders:
            self.engine.env["YUZUI_FAULT"] = json.dumps(dict(orders))
            self.engine.env["PYTHONPATH"] = f"{INSIDE}:{ROOT}"

    def listener(self) -> int | None:
        """The engine's port, None while it has none."""
        ports = self.engine.ports()
        return ports["listener"][1] if ports and ports["listener"] else None

    def start(self) -> Trial:
        """Start the engine, and the gateways at the first time."""
        self.engine.start()
        self.speak()
        return self

    def speak(self) -> None:
        """Start the gateways where they do not speak yet."""
        if not self.gateways:
            self.gateways = gateways(self.loads, self.listener, self.ledger)

    def watch(self) -> None:
        """Have an analyst count doubled readings from now on."""
        self.watcher = Watcher(self.engine.data / "lake.sql")
        self.watcher.start()

    @property
    def acked(self) -> int:
        """Readings acknowledged so far."""
        return sum(one.acked for one in self.gateways)

    def hush(self, timeout_s: float = 180.0) -> None:
        """The gateways say nothing new and wait until all is acknowledged."""
        for one in self.gateways:
            one.end()
        for one in self.gateways:
            one.finish(timeout_s)

    def judge(
        self, *, alerts: bool = True, heard: Callable[[], set[str]] | None = None, settle_s: float = 0.0
    ) -> Findings:
        """End the load, wait for quiet, compare (as faults_judge.judge), stop the engine, remove its data."""
        self.hush()
        found = judge(self.engine, self.ledger, alerts=alerts, heard=heard, settle_s=settle_s)
        if self.watcher:
            found += self.watcher.finish()
        self.faults.expect(self.engine.stop() == 0, f"the engine did not stop cleanly: {self.tail()}")
        self.forget()
        return found

    def tail(self) -> str:
        """The end of the engine's log."""
        return self.engine.log.read_text(errors="replace")[-1500:] if self.engine.log.exists() else ""

    def forget(self) -> None:
        """Remove the data: a million readings a trial add up."""
        if not os.environ.get("YUZUI_FAULT_KEEP"):
            shutil.rmtree(self.engine.data, ignore_errors=True)
            shutil.rmtree(self.ledger, ignore_errors=True)


def steady(seed: int, rate: float = 2_000.0, gateway: str = "g1", **more: Any) -> Load:
    """The common load: 180 plain points, 20 with levels that cross all four again and again."""
    plain = [f"{gateway}-p{i}" for i in range(PLAIN)]
    levels = [f"{gateway}-l{i}" for i in range(LEVELS)]
    return Load(gateway, plain, levels, rate=rate, seed=seed, **more)
