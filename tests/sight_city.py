"""A small city's lake with all that people ask about: readings, alerts, answers, forecasts, refusals, events, projects.

Owns what is in it, so that tests can say what must come out.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anomaly.engine import Engine
from anomaly.live import Live
from anomaly.rules.base import Forecast
from console.display import City
from console.server import Console, Marks
from console.settings import Options
from ingest.lakelogs import alert_log_table, alerts_table, forecasts_table, quarantine_table
from storage.compact import Compactor
from storage.hot import HotTier
from storage.logs import ParquetLog
from storage.pointmap import merge
from storage.points import PointTable
from storage.query import write_lake_sql
from storage.records import Event, Refusal
from storage.schema import ALERT_LOG, ALERTS, FORECASTS, QUARANTINE, REGISTRY
from storage.sealed import Sealer
from storage.settings import CompactionSettings, SealedSettings
from tests.console_city import ZONE, MadeUp, config_of, outbox_of
from tests.console_client import users_toml
from tests.events_city import DAY, keep, received, steps_of
from tests.storage_oracle import finish
from tests.storage_rows import HOUR, S, batch, registry

KINDS = ("dust_pm10", "rain_gauge", "river_level", "site_noise", "video", "waterlogging")
DISTRICTS = ("武侯区", "金牛区")
POINTS = 48
HOURS = 6
STEP_S = 300
HOSTILE = (
    "<img src=x onerror=alert(1)>", "\u202egnp.exe 右到左", "nul\x07bell\x1b[31m", "长" * 500, "=cmd|'/c calc'!A1",
)  # fmt: skip
"""Names to fear, of the first projects."""
PROJECTS = 12


def point_of(kind: str, n: int) -> str:
    """The id of the n-th point of a kind."""
    return f"{kind}-{n:02d}"


def table() -> pa.Table:
    """Eight points of each kind, four a district; the n-th of dust, noise and video stand on one site."""
    each = POINTS // len(KINDS)
    rows = [(kind, n) for kind in KINDS for n in range(each)]
    columns: dict[str, list[Any]] = {
        "point_id": [point_of(kind, n) for kind, n in rows],
        "name": [
            HOSTILE[n] if kind == "waterlogging" and n < len(HOSTILE) else f"{kind} {n}号" for kind, n in rows
        ],
        "kind": [kind for kind, _ in rows],
        "district": [DISTRICTS[n % 2] for _, n in rows],
        "source": [f"system-{kind}" for kind, _ in rows],
        "device_id": [
            f"D{n:02d}" if kind in ("dust_pm10", "site_noise") else f"{kind}{n}" for kind, n in rows
        ],
        "lon": [104.0 + n * 0.01 for _, n in rows],
        "lat": [30.6] * POINTS,
        "interval_s": [float(STEP_S)] * POINTS,
        "level_yellow": [25.0] * POINTS,
    }
    made = registry(POINTS)
    for name, values in columns.items():
        made = made.set_column(
            made.column_names.index(name), REGISTRY.field(name), pa.array(values, REGISTRY.field(name).type)
        )
    return made


def value_of(kind: str, n: int, step: int) -> float:
    """What a point reads in a step; camera 0 is offline."""
    if kind == "video":
        return 0.0 if n == 0 else 2.0
    return float(n * 10 + step % 7)


def projects_of(now: int) -> list[Event]:
    """Projects P-0 …: the first ones have names to fear; P-1's devices are D01 and a camera."""
    begun, made = now - 90 * DAY, []
    for n in range(PROJECTS):
        said: dict[str, str | float | None] = {"progress": n / PROJECTS, "planned": 0.5}
        if n < 8:
            said["devices"] = f"D{n:02d} {point_of('video', n)}"
        place = {"district": DISTRICTS[n % 2], "category": "轨道交通", "lon": 104.0, "lat": 30.6}
        name = HOSTILE[n] if n < len(HOSTILE) else f"示范项目 {n}"
        more = {"attributes": said, "name": name, "due_us": now + (n - 2) * DAY, "received_at": begun}
        made.append(
            Event(f"P-{n}", "project-register", "project", "accepted", begun + n * S, **place, **more)  # type: ignore[arg-type]
        )
    return made


def alerts_of(now: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the alerts log and of alert_log: a0 answered after two minutes, a1 after ten, a2 waits, a3 is over."""
    rows: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    for n in range(4):
        began = now - (n + 1) * HOUR
        base = {
            "id": f"a{n}", "rule": "level", "class": "event", "point_id": point_of("waterlogging", n),
            "gateway_id": None, "kind": "waterlogging", "district": DISTRICTS[n % 2], "onset": began, "value": 30.0,
            "level": 25.0, "peak": 31.0, "unit": "cm", "summary_zh": HOSTILE[n], "summary_en": HOSTILE[n],
            "replay": False, "drill": False, "pos": n,
        }  # fmt: skip
        fired = {"revision": 1, "type": "firing", "severity": n + 1, "severity_now": n + 1}
        rows.append({**base, **fired, "at": began, "recorded_at": began})
        if n == 3:
            over = {"revision": 2, "type": "resolved", "severity": 4, "severity_now": 0}
            rows.append({**base, **over, "at": now, "recorded_at": now})
        said = [(began, "fired", None), (began + S, "called", None)]
        if n < 2:
            said.append((began + S + (120, 600)[n] * S, "answered", "王"))
        if n == 2:
            said.append((began + 400 * S, "escalated", "分管领导"))
        more = {"alert_id": f"a{n}", "target": None, "detail": None}
        steps += [{"at": at, "step": step, "who": who, **more} for at, step, who in said]
    return rows, [{"id": number, **step} for number, step in enumerate(steps)]


def fill(root: Path, seed: int = 5) -> PointTable:
    """The whole lake below ``root``, up to now; its points."""
    now = int(time.time()) * S
    numbers = merge(root, table(), now - 2 * DAY)
    hot, sealer = HotTier(root), Sealer(root, SealedSettings())
    write_lake_sql(root, "Asia/Shanghai", 7200)
    at = {point: number for number, point in enumerate(numbers.point_id)}
    rng = np.random.default_rng(seed)
    for hour in range(HOURS):
        begin = now - (HOURS - hour) * HOUR
        rows = [
            (at[point_of(kind, n)], begin + step * STEP_S * S, value_of(kind, n, step))
            for step in range(1, HOUR // S // STEP_S + 1)
            for kind in KINDS
            for n in range(POINTS // len(KINDS))
            if (kind, n) != ("waterlogging", 7)
        ]
        part = batch(hour + 1, rows)
        part.flag[:] = rng.choice([1, 3], len(rows), p=[0.95, 0.05])
        hot.write(hour + 1, hour + 1, part, batch(hour + 1, []))
        if hour < HOURS - 1:
            sealer.seal(hour + 1)
    finish(Compactor(root, CompactionSettings(lateness_s=0, fold_s=0)))
    _logs(root, now, at)
    rng_events = random.Random(seed)
    keep(root, [*received(rng_events, steps_of(rng_events, 1500, now - 50 * DAY, 48)), *projects_of(now)])
    return numbers


def _logs(root: Path, now: int, at: dict[str, int]) -> None:
    alerts, steps = alerts_of(now)
    ParquetLog(root / "lake" / "alerts", ALERTS).append(1, len(alerts), alerts_table(alerts))
    ParquetLog(root / "lake" / "alert_log", ALERT_LOG).append(1, len(steps), alert_log_table(steps))
    refused = [
        (number, Refusal(now - HOUR, "system-video", "t", "unknown_point", "x", b"{}", None, "gw"))
        for number in range(3)
    ]
    ParquetLog(root / "lake" / "quarantine", QUARANTINE).append(1, 3, quarantine_table(refused))
    point = at[point_of("river_level", 2)]
    made = [Forecast(point, now - 60 * S, now + 3000 * S, 30.0, "trend", 25.0, 1800.0)]
    ids = {number: name for name, number in at.items()}
    log = forecasts_table([(1 << 24, one) for one in made], [ids[n] for n in range(len(ids))], False)
    ParquetLog(root / "lake" / "forecasts", FORECASTS).append(1, 1, log)


def sight_console(folder: Path, **options: Any) -> tuple[Console, MadeUp]:
    """A console over this lake and its points, not started, and the pictures it shows."""
    config = config_of(folder, 20)
    root = Path(config.data.dir)
    root.mkdir(parents=True)
    engine = Engine(fill(root), config.kinds, config.checks, time_zone=ZONE)
    live = Live(lambda: 0)
    live.seed(engine)
    users = folder / "users.toml"
    users.write_text(users_toml(wang="operate", lin="view"))
    given = {"port": 0, "users_file": str(users), **options}
    city = City("成都", ZONE, config.kinds)
    console = Console(
        Options(**given), root, city, live, outbox_of(root), lambda: 0, Marks(engine_version="test")
    )
    return console, MadeUp(engine, live)
