"""Projects of the demo city: building sites of its registry, each with a plan, a pace and what stands on the site.

Owns which sites they are and how far one is at a time. Names, plans and paces are invented; deterministic by a seed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from ingest.simulate.event_words import DAY_US, Site

PROJECTS: Final = 30
"""As many as an office walks through in an hour."""
SITE_KINDS: Final = ("dust_pm10", "site_noise")
CAMERA: Final = "video"
CAMERAS: Final = 4
"""Of one site."""
POST: Final = "lamp_power"
CLASSES: Final = ("轨道交通", "市政道路", "房屋建筑", "水利工程", "医院学校")
WORKS: Final = ("地铁站点", "快速路改造", "安置房", "河道整治", "学校新建")


@dataclass(frozen=True, slots=True)
class Project:
    """One project. begin_us, end_us: as planned, µs since 1970; pace: of its work in times the plan's.

    devices  ids of devices and points on its site
    """

    number: str
    name: str
    kind: str
    site: Site
    devices: tuple[str, ...]
    begin_us: int
    end_us: int
    pace: float

    def planned(self, at_us: int) -> float:
        """Share of the work that should be done, 0 to 1."""
        return round(min(1.0, max(0.0, (at_us - self.begin_us) / (self.end_us - self.begin_us))), 3)

    def done(self, at_us: int) -> float:
        """Share of the work that is done, 0 to 1; never quite all: it is reported as closed then."""
        share = (at_us - self.begin_us) * self.pace / (self.end_us - self.begin_us)
        return round(min(0.99, max(0.0, share)), 3)


def projects_of(table: pl.DataFrame, now_us: int, seed: int, count: int = PROJECTS) -> list[Project]:
    """Up to ``count`` projects at building sites of a registry, spread over its districts; none without such sites."""
    rng = random.Random(f"{seed}/projects")
    sites = _sites(table)
    if not len(sites):
        return []
    chosen = sites[np.unique(np.linspace(0, len(sites) - 1, min(count, len(sites))).astype(int)).tolist()]
    cameras = _cameras(table, chosen)
    made = []
    for number, (device, district, lon, lat) in enumerate(chosen.iter_rows(), 1):
        begin = now_us - rng.randrange(60, 700) * DAY_US
        which = rng.randrange(len(CLASSES))
        made.append(
            Project(
                f"CD-{number:04d}", f"{district}{WORKS[which]}{number}标段", CLASSES[which],
                Site(district, lon, lat), (device, *cameras[number - 1]), begin,
                begin + rng.randrange(300, 900) * DAY_US, rng.uniform(0.7, 1.05),
            )
        )  # fmt: skip
    return made


def with_cameras(table: pl.DataFrame, seed: int, count: int = PROJECTS) -> pl.DataFrame:
    """A registry whose lamp posts nearest to its projects' sites carry a camera instead of a meter: as many points.

    For a city without video; one that has cameras, or no posts, stays as it is.
    """
    posts = table.filter(pl.col("kind") == POST)
    chosen = projects_of(table, 0, seed, count)
    if (table["kind"] == CAMERA).any() or len(posts) < CAMERAS * len(chosen):
        return table
    free = posts.select("point_id", "lon", "lat")
    names = {
        post: f"{one.name}摄像头{place}"
        for one in chosen
        for place, post in enumerate(_nearest(free, one.site.lon, one.site.lat), 1)
    }
    turned = pl.col("point_id").is_in(list(names))
    limits = [name for name in table.columns if name.startswith(("level_", "range_"))]
    return table.with_columns(
        pl.when(turned).then(pl.lit(CAMERA)).otherwise(pl.col("kind")).alias("kind"),
        pl.when(turned).then(pl.lit(None)).otherwise(pl.col("unit")).alias("unit"),
        pl.when(turned).then(pl.col("point_id").replace_strict(names, default=None)).otherwise(pl.col("name"))
        .alias("name"),
        *(pl.when(turned).then(None).otherwise(pl.col(name)).alias(name) for name in limits),
    )  # fmt: skip


def places_of(table: pl.DataFrame, seed: int, count: int) -> list[Site]:
    """Up to ``count`` places of a registry's sensors, where something may happen."""
    sensors = table.filter(pl.col("kind") != CAMERA)
    some = sensors.sample(min(count, len(sensors)), seed=seed)
    return [Site(*row) for row in some.select("district", "lon", "lat").iter_rows()]


def _sites(table: pl.DataFrame) -> pl.DataFrame:
    """device_id, district, lon, lat of each device that measures a building site, by district and id."""
    found = table.filter(pl.col("kind").is_in(SITE_KINDS) & (pl.col("device_id") != ""))
    return (
        found.group_by("device_id")
        .agg(pl.col("district", "lon", "lat").first())
        .select("device_id", "district", "lon", "lat")
        .sort("district", "device_id")
    )


def _cameras(table: pl.DataFrame, chosen: pl.DataFrame) -> list[list[str]]:
    """Point ids of the cameras nearest to each site; one camera may see two of them."""
    free = table.filter(pl.col("kind") == CAMERA).select("point_id", "lon", "lat")
    return [_nearest(free, lon, lat) for _, _, lon, lat in chosen.iter_rows()]


def _nearest(points: pl.DataFrame, lon: float, lat: float) -> list[str]:
    far: Any = (points["lon"].to_numpy() - lon) ** 2 + (points["lat"].to_numpy() - lat) ** 2
    found: list[str] = points["point_id"][np.argsort(far, kind="stable")[:CAMERAS].tolist()].to_list()
    return found
