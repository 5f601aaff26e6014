"""F10: our own clock jumps, while the engine runs and while it is down. Nothing is deleted, nobody is called for it."""

from __future__ import annotations

import time
from pathlib import Path

from tests.engines import until
from tests.faults_trial import SMALL, Faults, Impossible, Trial

OFFSETS = {"-1 h": "-3600", "+1 h": "+3600", "1970": "@1970-01-02 00:00:00", "2100": "@2100-01-01 00:00:00"}
LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1")
TRUE = "+0"
WATCHED = "[checks]\nfresh_s = 864000.0\ndead_s_min = 30.0\ndead_intervals = 3.0\n"
"""Points speak many times a second, so whoever is called dead here is called so by our clock."""
SPAN_S = 2.0


def library() -> str:
    """libfaketime. Raises Impossible."""
    for pattern in LIBRARIES:
        for found in Path("/").glob(pattern.lstrip("/")):
            return str(found)
    raise Impossible("libfaketime is not installed")


def jumping_clocks(faults: Faults) -> None:
    """F10: ``count`` of the four offsets; the wall clock jumps and comes back, then a restart under the wrong one."""
    preload = library()
    for name in list(OFFSETS)[: faults.count]:
        control = faults.ledger() / "clock"
        control.write_text(TRUE)
        env = {
            "LD_PRELOAD": preload,
            "FAKETIME_TIMESTAMP_FILE": str(control),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its older name
        }
        trial = Trial(
            faults, env=env, orders={"sleep": "select"}, interval_s=1.0, more=SMALL + WATCHED, rate=1_000.0
        ).start()
        until(lambda trial=trial: trial.acked > 1_000, "gateways that are acknowledged")
        control.write_text(OFFSETS[name])
        until(lambda trial=trial: trial.engine.vitals()["clock_jumps"] > 0, "the jump noticed")
        time.sleep(SPAN_S)  # a span of load under the wrong clock
        files = lake_files(trial)
        control.write_text(TRUE)
        until(lambda trial=trial: trial.engine.get("/readyz") == 200, "the clock believed again")
        trial.engine.kill()
        control.write_text(OFFSETS[name])
        trial.engine.start(wait=False)
        until(trial.listener, "the engine listens")
        until(
            lambda trial=trial, was=trial.acked: trial.acked > was + 1_000,
            "acknowledged under the wrong clock",
        )
        control.write_text(TRUE)
        until(lambda trial=trial: trial.engine.get("/readyz") == 200, "the clock believed again")
        false = trial.engine.lake("SELECT rule, count(*) FROM alerts WHERE rule <> 'level' GROUP BY rule")
        faults.expect(false == [], f"{name}: false alerts {false}")
        gone = files - lake_files(trial)
        faults.expect(not gone, f"{name}: deleted: {sorted(gone)[:3]}")
        found = trial.judge()
        faults.say(f"{name}: {found}")
        faults.findings.__iadd__(found)
        faults.result.trials += 1
        sweep()


def sweep() -> None:
    """libfaketime leaves what it shares between processes behind when they are killed."""
    for left in Path("/dev/shm").glob("*faketime_s*_*"):
        if not Path(f"/proc/{left.name.rpartition('_')[2]}").exists():
            left.unlink(missing_ok=True)


def lake_files(trial: Trial) -> set[str]:
    """Sealed files: what no clock may delete."""
    lake = trial.engine.data / "lake"
    return {
        str(path) for late in ("readings", "late") for path in (lake / late).glob("date=*/hour=*/*.parquet")
    }
