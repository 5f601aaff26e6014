"""A city's past that never was: steps of alerts written into a lake's logs, as an engine would have written them."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.logs import ParquetLog
from storage.points import PointTable
from storage.schema import ALERT_LOG, ALERTS

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp\x07 '; DROP TABLE points; -- " + "长" * 500
HOUR_US = 3_600_000_000


def us(at: datetime) -> int:
    """µs since 1970."""
    return round(at.timestamp() * 1_000_000)


class Past:
    """Writes what happened into a lake's logs, as the engine would."""

    def __init__(self, root: Path, points: PointTable) -> None:
        self.root, self.points = root, points
        self.alerts = ParquetLog(root / "lake" / "alerts", ALERTS)
        self.log = ParquetLog(root / "lake" / "alert_log", ALERT_LOG)
        self.rows: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self.seq = -1

    def alert(self, name: str, number: int, at: int, revision: int, severity: int, **more: Any) -> None:
        points = self.points
        row = {
            "id": name, "revision": revision, "type": "resolved" if not severity else "updated",
            "rule": "level", "class": "event", "severity": max(1, severity), "point_id": points.point_id[number],
            "gateway_id": "", "kind": points.kinds[points.kind[number]],
            "district": points.districts[points.district[number]],
            "onset": at, "at": at, "recorded_at": at, "value": 31.0, "level": 30.0, "peak": 31.0, "unit": "cm",
            "summary_zh": f"{name} 第 {revision} 版", "summary_en": HOSTILE, "replay": False, "drill": False,
            "severity_now": severity, "pos": (1000 + len(self.rows)) << 24,
        }  # fmt: skip
        self.rows.append({**row, **more})

    def note(self, at: int, step: str, alert: str, **more: Any) -> None:
        self.steps.append({"id": len(self.steps) + 1, "at": at, "alert_id": alert, "step": step, **more})

    def storm(self, dice: random.Random, begin: int, end: int, alerts: int) -> None:
        """Alerts about points, up and down, some over midnight, some never over."""
        for one in range(alerts):
            number, at = dice.randrange(len(self.points)), dice.randrange(begin, end)
            for revision in range(1, dice.randint(2, 6)):
                self.alert(f"{begin:x}-{one}", number, at, revision, dice.randint(1, 4))
                at += dice.randrange(1, 4 * HOUR_US)
            if dice.random() < 0.8:
                self.alert(f"{begin:x}-{one}", number, at, revision + 1, 0)

    def write(self, files: int = 1) -> None:
        """What was told so far and is not in the future. The first file is of no journal record: an engine that starts
        over it goes on behind it."""
        now = us(datetime.now().astimezone())
        rows = [row for row in self.rows if row["recorded_at"] <= now]
        for part in range(files):
            some = rows[part::files]
            columns = {f.name: pa.array([row[f.name] for row in some], f.type) for f in ALERTS}
            self.seq += 1
            self.alerts.append(self.seq, self.seq, pa.table(columns, schema=ALERTS))
        if self.steps:
            columns = {f.name: pa.array([s.get(f.name) for s in self.steps], f.type) for f in ALERT_LOG}
            self.log.append(self.seq, self.seq, pa.table(columns, schema=ALERT_LOG))
        self.alerts.sync()
        self.log.sync()
        self.rows, self.steps = [], []
