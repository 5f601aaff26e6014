"""The simulator's own reading of the registry: who publishes what, as columns.

Owns the Fleet (the columns a simulated gateway needs) and how it is cut down and dealt out. Reads the
registry file by itself: the engine's reader is under test and must not vouch for itself. Knows
nothing of sockets, time or how values move.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from storage.batch import F64, I32

NO_GATEWAY = "direct"
"""Points without a gateway speak through one connection of this name."""
HOPS_MAX = 12
"""Links followed upstream; a ring in the registry ends there too."""


@dataclass(slots=True)
class Fleet:
    """n points in one order; every array and list has n rows.

    number       int32    row among the registry's live points: the ledger's name for the point
    gateway      int32    code into ``gateways``
    kind         int32    code into ``kinds``
    hops         int32    points upstream of it, by the registry's links
    level_blue   float64  NaN where the registry says nothing; so too range_min, range_max
    lon, lat     float64  degrees; NaN where unknown
    """

    point_id: list[str]
    topic: list[str]
    number: I32
    gateway: I32
    kind: I32
    gateways: list[str]
    kinds: list[str]
    lon: F64
    lat: F64
    level_blue: F64
    range_min: F64
    range_max: F64
    hops: I32

    def __len__(self) -> int:
        return len(self.point_id)

    def take(self, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Fleet:
        """The points at ``rows`` in that order."""
        return Fleet(
            point_id=[self.point_id[r] for r in rows],
            topic=[self.topic[r] for r in rows],
            number=self.number[rows],
            gateway=self.gateway[rows],
            kind=self.kind[rows],
            gateways=self.gateways,
            kinds=self.kinds,
            lon=self.lon[rows],
            lat=self.lat[rows],
            level_blue=self.level_blue[rows],
            range_min=self.range_min[rows],
            range_max=self.range_max[rows],
            hops=self.hops[rows],
        )

    def box(self) -> tuple[float, float, float, float]:
        """West, south, east and north edge in degrees; a point at 0, 0 where no place is known."""
        if np.isnan(self.lon).all() or np.isnan(self.lat).all():
            return (0.0, 0.0, 0.0, 0.0)
        return (
            float(np.nanmin(self.lon)),
            float(np.nanmin(self.lat)),
            float(np.nanmax(self.lon)),
            float(np.nanmax(self.lat)),
        )


def load_fleet(points_file: Path) -> Fleet:
    """All points of a registry file (CSV or Parquet) that are not retired, in the file's order.

    Needs point_id, kind and topic; takes gateway_id, lon, lat, level_blue, range_min, range_max and
    upstream where they stand. Raises ValueError naming a missing column, OSError.
    """
    table = (
        pl.read_parquet(points_file)
        if points_file.suffix == ".parquet"
        else pl.read_csv(points_file, infer_schema=False, null_values=[""], comment_prefix="#")
    )
    if missing := [name for name in ("point_id", "kind", "topic") if name not in table.columns]:
        raise ValueError(f"{points_file}: no column {', '.join(missing)}")
    if "retired" in table.columns:
        said = pl.col("retired").cast(pl.String).str.to_lowercase().fill_null("")
        table = table.filter(~said.is_in(["true", "1"]))
    point_id = [str(p) for p in table["point_id"].to_list()]
    gateway, gateways = _codes(_texts(table, "gateway_id", NO_GATEWAY))
    kind, kinds = _codes(_texts(table, "kind", ""))
    row_of = {p: i for i, p in enumerate(point_id)}
    return Fleet(
        point_id=point_id,
        topic=_texts(table, "topic", ""),
        number=np.arange(len(table), dtype=np.int32),
        gateway=gateway,
        kind=kind,
        gateways=gateways,
        kinds=kinds,
        lon=_numbers(table, "lon"),
        lat=_numbers(table, "lat"),
        level_blue=_numbers(table, "level_blue"),
        range_min=_numbers(table, "range_min"),
        range_max=_numbers(table, "range_max"),
        hops=hops_upstream(np.array([row_of.get(u, -1) for u in _texts(table, "upstream", "")], np.int32)),
    )


def choose(fleet: Fleet, points: int | None, seed: int) -> Fleet:
    """``points`` of the fleet, chosen by seed with the gateways whole as far as they go; None takes all.

    Whole gateways keep the traffic of one connection as it is in the full city.
    """
    if points is None or points >= len(fleet):
        return fleet
    turn = np.random.default_rng(seed).permutation(len(fleet.gateways))
    order = np.argsort(turn[fleet.gateway], kind="stable")
    return fleet.take(np.sort(order[:points]))


def deal(fleet: Fleet, aiomqtt_share: float) -> tuple[Fleet, Fleet]:
    """The fleet in two: the raw speakers' gateways, and ``aiomqtt_share`` of the gateways evenly apart.

    One gateway in ten at 0.1: every tenth by name, so that all districts and kinds are among them.
    """
    present = np.unique(fleet.gateway)
    chosen = np.zeros(len(fleet.gateways), bool)
    count = round(len(present) * aiomqtt_share)
    if count:
        chosen[present[(np.arange(count) * len(present)) // count]] = True
    mask = chosen[fleet.gateway]
    return fleet.take(np.flatnonzero(~mask)), fleet.take(np.flatnonzero(mask))


def hops_upstream(upstream: I32) -> I32:
    """How many points lie upstream of each: ``upstream`` holds rows, -1 where none. At most HOPS_MAX."""
    hops = np.zeros(len(upstream), np.int32)
    at = upstream
    for _ in range(HOPS_MAX):
        there = at >= 0
        hops += there
        at = np.where(there, upstream[at], np.int32(-1))
    return hops


def _texts(table: pl.DataFrame, column: str, absent: str) -> list[str]:
    if column not in table.columns:
        return [absent] * len(table)
    return [absent if value is None else str(value) for value in table[column].to_list()]


def _numbers(table: pl.DataFrame, column: str) -> F64:
    if column not in table.columns:
        return np.full(len(table), np.nan)
    return table[column].cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()


def _codes(texts: list[str]) -> tuple[I32, list[str]]:
    """Each text as a code, and the texts by code in the order of their first appearance."""
    code_of: dict[str, int] = {}
    codes = np.array([code_of.setdefault(text, len(code_of)) for text in texts], np.int32)
    return codes, list(code_of)
