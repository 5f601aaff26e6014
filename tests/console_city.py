"""A city without an engine behind it: a real console over pictures that are made up, for the page and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.alerts.outbox import Outbox
from anomaly.engine import Engine
from anomaly.live import Live, Picture
from anomaly.settings import AlertSettings, RouteSettings, WebhookSettings
from console.display import City
from console.server import Console, Marks
from console.settings import Options
from ingest.config import Config
from ingest.configfile import load
from ingest.points import read_registry
from storage.pointmap import merge
from storage.points import PointTable
from storage.query import write_lake_sql
from tests.engines import city_config

ZONE = "Asia/Shanghai"


@dataclass
class MadeUp:
    """Pictures of one engine's points. ``tick`` makes the next."""

    engine: Engine
    live: Live
    seed: int = 1
    seq: int = 1000

    def __post_init__(self) -> None:
        n = len(self.engine.points)
        self.rng = np.random.default_rng(self.seed)
        points = self.engine.points
        low = np.where(np.isfinite(points.range_min), points.range_min, 0.0)
        high = np.where(np.isfinite(points.range_max), points.range_max, 100.0)
        self.low, self.width = low, np.maximum(high - low, 1e-6)
        self.value = low + self.width * self.rng.random(n) * 0.4
        self.time = np.full(n, 1_790_000_000_000_000, np.int64)
        self.flag = np.ones(n, np.uint8)
        self.silent = np.zeros(n, np.bool_)
        self.severity = np.zeros(n, np.uint8)
        self.fault = np.zeros(n, np.bool_)

    def tick(self, share: float = 0.3, now_us: int | None = None) -> Picture:
        """Values of a share of the points move; one TICK passes."""
        n = len(self.value)
        moved = self.rng.random(n) < share
        step = self.width * self.rng.normal(0, 0.02, n)
        self.value = np.where(moved, np.clip(self.value + step, self.low, self.low + self.width), self.value)
        self.seq += 20
        now = now_us if now_us is not None else int(self.time.max()) + 1_000_000
        self.time = np.where(moved, now, self.time)
        self.engine.now_us = now
        self.live.picture = picture = Picture(
            self.seq, now, self.engine, self.value.copy(), self.time.copy(), self.flag.copy(), self.silent.copy(),
            self.severity.copy(), self.fault.copy(), 84_000,
        )  # fmt: skip
        self.live.on_picture()
        return picture


def config_of(folder: Path, points: int, more: str = "") -> Config:
    """The demo city's config over a registry of ``points`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "yuzui.toml"
    path.write_text(city_config(folder, 0, points=points, more=more))
    return load(path)


def points_of(config: Config) -> PointTable:
    """The points of a config's registry, in its data folder."""
    root = Path(config.data.dir)
    root.mkdir(parents=True, exist_ok=True)
    points = merge(root, read_registry(Path(config.points.file), config).table.to_arrow(), 1)
    write_lake_sql(root, config.city.time_zone, 600.0)
    return points


def outbox_of(root: Path) -> Outbox:
    """An outbox with one target and a route whose alerts must be answered."""
    route = RouteSettings(name="night", targets=["room"], answer_s=300, answer_by=["值班长", "分管领导"])
    target = WebhookSettings(name="room", url="http://127.0.0.1:1/")
    return Outbox(root / "outbox.db", [target], AlertSettings(), routes=[route])


def made_up(folder: Path, points: int, **options: Any) -> tuple[Console, MadeUp]:
    """A console that is not started, and its made-up pictures."""
    config = config_of(folder, points)
    root = Path(config.data.dir)
    table = points_of(config)
    engine = Engine(table, config.kinds, config.checks, time_zone=ZONE)
    live = Live(lambda: 0)
    live.seed(engine)
    city = City("成都", ZONE, config.kinds)
    given = {"port": 0, "anonymous_view": True, **options}
    console = Console(
        Options(**given), root, city, live, outbox_of(root), lambda: int(live.picture.seq if live.picture else 0),
        Marks(engine_version="test"),
    )  # fmt: skip
    return console, MadeUp(engine, live)
