"""What every baseline does with a message: orjson, three lists, a Parquet file a second. No more.

Owns the part the three clients share, so that they differ in nothing but the client.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.simulate.speaker import cpu_s, say

FILE_S = 1.0


@dataclass(slots=True)
class BaselineReport:
    """What it did; ``cpu_s`` from its subscription on."""

    received: int = 0
    files: int = 0
    cpu_s: float = 0.0


class Keeper:
    """Keeps readings and writes them; ``report`` when it is over."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._topic: list[str] = []
        self._time: list[int] = []
        self._value: list[float] = []
        self._written_at = time.monotonic()
        self._cpu_s = cpu_s()
        self.made = BaselineReport()

    def keep(self, topic: str, payload: bytes) -> None:
        """One message."""
        body = orjson.loads(payload)
        self._topic.append(topic)
        self._time.append(body["ts"])
        self._value.append(body["v"])
        self.made.received += 1

    def write(self, *, now: bool = False) -> None:
        """A file, when it is time for one."""
        if not self._topic or (not now and time.monotonic() - self._written_at < FILE_S):
            return
        self._written_at = time.monotonic()
        table = pa.table(
            {
                "topic": pa.array(self._topic),
                "time": pa.array(self._time, pa.timestamp("ms", "UTC")),
                "value": pa.array(self._value, pa.float64()),
            }
        )
        pq.write_table(table, self._folder / f"{self.made.files:06d}.parquet")
        self.made.files += 1
        self._topic, self._time, self._value = [], [], []

    def finish(self) -> None:
        """The last file, and the report to the parent."""
        self.write(now=True)
        self.made.cpu_s = cpu_s() - self._cpu_s
        say(report=asdict(self.made))


def options() -> dict[str, Any]:
    """``port``, ``folder`` and ``qos`` from the first line of stdin."""
    found: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    return found
