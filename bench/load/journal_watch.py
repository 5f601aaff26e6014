"""When a reading behind a broker is on our disk: the journal, read by position while it is written.

Owns one measurement, for where no acknowledgement of ours reaches the publisher: from the reading's own time to the
moment at which a *later* group of the journal can be read. That group is only written once the one before it is
synced, so this is an upper bound. Run as ``python -m bench.load.journal_watch`` with options as JSON on stdin.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ingest.simulate.speaker import cpu_s, forget_signals, say
from storage.journal_reader import JournalReader
from storage.records import RecordType, decode_readings
from storage.segment import Record

LOOK_S = 0.002


class JournalWatch:
    """Follows the journal in ``folder`` from record ``from_seq`` on; ``points`` are the numbers that count."""

    def __init__(self, folder: Path, from_seq: int, points: list[int]) -> None:
        self._reader = JournalReader(folder, from_seq)
        self._points = np.array(points, np.int32)
        self._waiting: list[np.ndarray[Any, Any]] = []
        self._seq = 0
        self.waits_s: list[float] = []

    def look(self) -> None:
        """Take what is new."""
        records = self._reader.read()
        if not records:
            return
        now_us = time.time_ns() // 1000
        for times in self._waiting:
            self.waits_s += ((now_us - times) / 1e6).tolist()
        self._waiting = [times for record in records if len(times := self._times(record))]

    def _times(self, record: Record) -> np.ndarray[Any, Any]:
        if record.type is not RecordType.READINGS:
            return np.empty(0, np.int64)
        batch = decode_readings(record.body)
        return batch.time[np.isin(batch.point, self._points)]


def main() -> None:
    """Follow until SIGTERM; report."""
    options = json.loads(sys.stdin.buffer.readline())
    stopped: list[bool] = []
    forget_signals(lambda: stopped.append(True))
    watch = JournalWatch(Path(options["folder"]), options["from_seq"], options["points"])
    say(ready=True)
    cpu = cpu_s()
    while not stopped:
        watch.look()
        time.sleep(LOOK_S)
    waits = watch.waits_s
    p50, p99 = np.quantile(waits, (0.5, 0.99)).tolist() if waits else (None, None)
    say(report={"seen": len(waits), "p50_s": p50, "p99_s": p99, "cpu_s": cpu_s() - cpu})


if __name__ == "__main__":
    main()
