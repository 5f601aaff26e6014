"""When a query shows a reading: the demo's probe, over the pulse's points.

Owns nothing but its process: what is measured, and how, is ingest.simulate.probe. Run as
``python -m bench.load.query_watch`` with options as JSON on the first line of stdin.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import duckdb

from bench.load.registry import PULSE
from ingest.simulate.probe import WATCH_S, NewFile, Probe
from ingest.simulate.speaker import cpu_s, forget_signals, say
from storage.hot import hot_dir

EVERY_S = 1.0


def main() -> None:
    """Look at each new hot file and every second until SIGTERM; report."""
    options = json.loads(sys.stdin.buffer.readline())
    root = Path(options["data_dir"])
    stopped: list[bool] = []
    forget_signals(lambda: stopped.append(True))
    names = [f"{PULSE}{n}" for n in range(options["points"])]
    probe = Probe(root, names, time.time_ns() // 1000)
    new_file = NewFile(hot_dir(root, late=False))
    say(ready=True)
    cpu = cpu_s()
    faults: list[str] = []
    while not stopped:
        try:
            probe.look()
        except duckdb.Error as fault:
            faults.append(str(fault)[:200])
        limit = time.monotonic() + EVERY_S
        while not stopped and time.monotonic() < limit and not new_file.seen():
            time.sleep(WATCH_S)
    report = probe.report()
    report.cpu_s, report.faults = cpu_s() - cpu, faults[:20]
    say(report=asdict(report))


if __name__ == "__main__":
    main()
