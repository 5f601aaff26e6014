"""How fast the load generator is by itself, into a server that throws everything away.

Owns that one measurement: what it shows is that the generator is not what limits the other figures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.case import CITY_POINTS
from bench.load.plan import LoadPlan
from bench.load.registry import CLOCK, PULSE, bench_registry
from bench.rig import CHILD_S_MAX, CITY_DIR
from ingest.simulate.child import Child, listen
from ingest.simulate.city import write

RUNS: Final[dict[str, dict[str, Any]]] = {
    "QoS 0, one reading a message, 64 connections": {"connections": 64},
    "the same over 1,162 connections": {"connections": 1_162},
    "a mix of four forms of JSON": {"connections": 64, "form": "mix"},
    "arrays of 100": {"connections": 64, "batch": 100},
}
QUICK_POINTS: Final = 20_000
PULSES: Final = 300


def measure_generator(seconds: float, cache: Path, *, quick: bool) -> dict[str, Any]:
    """Each of RUNS for ``seconds``; only the first with ``quick``. Raises ChildDiedError, OSError."""
    points = QUICK_POINTS if quick else CITY_POINTS
    points_file = cache / f"points-{points}-{PULSES}.parquet"
    if not points_file.exists():
        write(bench_registry(CITY_DIR, points, PULSES), points_file)
    plan = LoadPlan("127.0.0.1", 0, str(points_file), str(CITY_DIR), seconds, leave_out=f"{PULSE},{CLOCK}")
    runs = list(RUNS.items())[: 1 if quick else None]
    return {"runs": [_one(what, replace(plan, **changes)) for what, changes in runs]}


def _one(what: str, plan: LoadPlan) -> dict[str, Any]:
    with Child("bench.load.sink", "") as sink:
        plan = replace(plan, port=sink.until_ready(CHILD_S_MAX)["port"])
        with Child("bench.load.generator", plan.to_json(), "generator") as load:
            load.until_ready(CHILD_S_MAX)
            load.tell("go")
            listen([load], lambda: load.report is not None, plan.seconds + CHILD_S_MAX)
            report = load.report
        sink.finish(CHILD_S_MAX)
    assert report is not None
    return {
        "what": what,
        "messages_per_s": round(report["messages"] / report["seconds"]),
        "messages_per_cpu_s": round(report["messages"] / report["cpu_s"]),
        "readings_per_cpu_s": round(report["sent"] / report["cpu_s"]),
        "system_share": round(report["system_s"] / report["cpu_s"], 2),
    }
