"""The demo city's registry: devices over its districts, their points, gateways and rivers, from a seed.

Owns what stands where and how it is named. How values move is ingest.simulate.city_kinds; limits are
[kinds.NAME] of the city's config, except a river station's own, which are made here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.simulate.city_kinds import DevicePlan, KindPlan, KindSim, load_kinds, load_plans
from ingest.simulate.city_places import (
    CITY_POINTS,
    District,
    Stations,
    apportion,
    load_districts,
    names,
    stations,
)
from ingest.simulate.city_places import spot as spots
from storage.batch import F64, I64
from storage.fsync import replace_durably

__all__ = ["CITY_POINTS", "COLUMNS", "KindSim", "generate", "load_kinds", "write"]

GATEWAY_POINTS = 100
"""Points of one gateway: 1,162 gateways for the whole city, and a few for the rest of each district."""
GATEWAY_OVERFULL = 0.2
"""Share of GATEWAY_POINTS that a gateway takes on top before another one is put up."""
LEVEL_DECIMALS = 2

COLUMNS = (
    "point_id",
    "name",
    "device_id",
    "gateway_id",
    "source",
    "kind",
    "unit",
    "district",
    "lon",
    "lat",
    "topic",
    "expected_interval_s",
    "time_from",
    "range_min",
    "range_max",
    "level_blue",
    "level_yellow",
    "level_orange",
    "level_red",
    "level_gap",
    "upstream",
)


@dataclass(slots=True)
class _Devices:
    """n devices in the order plan, district, number.

    plan, district  int64 [n]   index into the plans and the districts
    number          int64 [n]   1 … within its plan
    lon, lat        float64 [n]
    station         int64 [n]   row of the river stations, -1 elsewhere
    """

    plan: I64
    district: I64
    number: I64
    lon: F64
    lat: F64
    station: I64


def generate(
    city_dir: Path, points: int = CITY_POINTS, seed: int = 0, interval_s: float | None = None
) -> pl.DataFrame:
    """The registry of a city of ``points`` points, in the columns of COLUMNS; the same for the same seed.

    Units and the limits of a kind are left empty: the config's kinds fill them. Other sizes than the whole
    city have every type of device in proportion.

    interval_s  expected interval of every point instead of its kind's own (1 in the demo)
    Raises ValueError, OSError for wrong or missing tables in ``city_dir``.
    """
    rng = np.random.default_rng(seed)
    kinds, plans = load_plans(city_dir)
    districts = load_districts(city_dir)
    river_plan = next((i for i, plan in enumerate(plans) if plan.by == "river"), -1)
    counts = _device_counts(plans, points)
    rivers = stations(city_dir, districts, int(counts[river_plan]) if river_plan >= 0 else 0, rng)
    devices = _place(plans, counts, districts, rivers, rng)
    gateway = _gateways(devices, plans, len(districts))
    return _rows(devices, gateway, plans, kinds, districts, rivers, rng, interval_s)


def write(table: pl.DataFrame, out: Path) -> None:
    """Put a registry into ``out`` (Parquet by its suffix, else CSV), whole or not at all. Raises OSError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    tmp = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        if out.suffix == ".parquet":
            table.write_parquet(tmp)
        else:
            table.write_csv(tmp)
        replace_durably(tmp, out)
    finally:
        tmp.unlink(missing_ok=True)


def _device_counts(plans: list[DevicePlan], points: int) -> I64:
    """Devices of each plan so that all their points are exactly ``points``. int64 [plans]."""
    if points < 0:
        raise ValueError(f"a city has 0 points or more, not {points}")
    width = np.array([len(plan.kinds) for plan in plans])
    wanted = np.array([plan.count for plan in plans], np.float64)
    scale = points / float((wanted * width).sum())
    counts = np.floor(wanted * scale + 1e-9).astype(np.int64)
    # Devices of several points leave a rest that those of one point fill.
    missing = points - int((counts * width).sum())
    single = np.flatnonzero(width == 1)
    if not len(single) and missing:
        raise ValueError("sensors.toml: some device must hold a single kind")
    counts[single] += apportion(missing, wanted[single])
    return counts


def _place(
    plans: list[DevicePlan],
    counts: I64,
    districts: list[District],
    rivers: Stations,
    rng: np.random.Generator,
) -> _Devices:
    weight = {
        "people": np.array([d.people for d in districts]),
        "land": np.array([d.land for d in districts]),
    }
    plan_of, district_of, number, station = [], [], [], []
    for index, plan in enumerate(plans):
        count = int(counts[index])
        if plan.by == "river":
            district_of.append(rivers.district)
            station.append(np.arange(count, dtype=np.int64))
        else:
            share = apportion(count, weight[plan.by])
            district_of.append(np.repeat(np.arange(len(districts), dtype=np.int64), share))
            station.append(np.full(count, -1, np.int64))
        plan_of.append(np.full(count, index, np.int64))
        number.append(np.arange(1, count + 1, dtype=np.int64))
    district, along = np.concatenate(district_of), np.concatenate(station)
    lon, lat = spots(districts, district, rng)
    at_river = along >= 0
    lon[at_river], lat[at_river] = rivers.lon[along[at_river]], rivers.lat[along[at_river]]
    return _Devices(np.concatenate(plan_of), district, np.concatenate(number), lon, lat, along)


def _gateways(devices: _Devices, plans: list[DevicePlan], districts: int) -> I64:
    """The gateway of each device, 1 … : one district, one source, neighbours together. int64 [devices]."""
    if not len(devices.plan):
        return np.empty(0, np.int64)
    sources = {name: i for i, name in enumerate(dict.fromkeys(plan.source for plan in plans))}
    source = np.array([sources[plan.source] for plan in plans])[devices.plan]
    width = np.array([len(plan.kinds) for plan in plans])[devices.plan]
    cell = source * districts + devices.district
    order = np.lexsort((_along_curve(devices.lon, devices.lat), cell))
    in_cell = np.bincount(cell, weights=width, minlength=len(sources) * districts)
    needed = np.maximum(np.ceil(in_cell / GATEWAY_POINTS - GATEWAY_OVERFULL), in_cell > 0).astype(np.int64)
    begin = np.cumsum(width[order]) - width[order]
    begin -= (np.cumsum(in_cell) - in_cell).astype(np.int64)[cell[order]]
    first = np.cumsum(needed) - needed
    gateway = np.empty(len(cell), np.int64)
    gateway[order] = (
        1 + first[cell[order]] + (begin * needed[cell[order]] // in_cell[cell[order]]).astype(np.int64)
    )
    return gateway


def _along_curve(lon: F64, lat: F64) -> I64:
    """Place on a Z-order curve of 2**16 steps a side: near on it is mostly near on the ground."""
    z = np.zeros(len(lon), np.int64)
    for axis, value in enumerate((lon, lat)):
        span = float(np.ptp(value)) or 1.0
        step = ((value - value.min()) / span * 65_535).astype(np.int64)
        for bit in range(16):
            z |= ((step >> bit) & 1) << (2 * bit + axis)
    return z


def _rows(
    devices: _Devices,
    gateway: I64,
    plans: list[DevicePlan],
    kinds: dict[str, KindPlan],
    districts: list[District],
    rivers: Stations,
    rng: np.random.Generator,
    interval_s: float | None,
) -> pl.DataFrame:
    """One row a point: each device as often as it has kinds."""
    width = np.array([len(plan.kinds) for plan in plans], np.int64)[devices.plan]
    device = np.repeat(np.arange(len(devices.plan)), width)
    nth = np.arange(len(device)) - np.repeat(np.cumsum(width) - width, width)
    kind_names = list(kinds)
    kind_of = {name: i for i, name in enumerate(kind_names)}
    first_kind = np.cumsum([0, *(len(plan.kinds) for plan in plans)])[:-1]
    flat = np.array([kind_of[name] for plan in plans for name in plan.kinds], np.int64)
    kind = flat[first_kind[devices.plan][device] + nth] if len(device) else np.empty(0, np.int64)
    plan, district = devices.plan[device], devices.district[device]
    place = names(plans, devices.plan, rng)
    at_river = np.flatnonzero(devices.station >= 0)
    place = place.scatter(at_river, [f"{rivers.name[i]}水位站" for i in devices.station[at_river]])
    intervals = [k.interval_s if interval_s is None else interval_s for k in kinds.values()]
    table = pl.DataFrame(
        {
            "kind": _chosen(kind_names, kind),
            "code": _chosen([k.code for k in kinds.values()], kind),
            "what": _chosen([k.name for k in kinds.values()], kind),
            "source": _chosen([p.source for p in plans], plan),
            "device_code": _chosen([p.code for p in plans], plan),
            "district": _chosen([d.name for d in districts], district),
            "pinyin": _chosen([d.code for d in districts], district),
            "place": place.gather(device),
            "gateway": gateway[device],
            "device_number": devices.number[device],
            "number": _number_in_kind(kind),
            "lon": np.round(devices.lon[device], 6),
            "lat": np.round(devices.lat[device], 6),
            "expected_interval_s": np.array(intervals, np.float64)[kind],
        }
    ).with_columns(
        point_id=pl.format("cd-{}-{}-{}", "pinyin", "code", pl.col("number").cast(pl.String).str.zfill(6)),
        device_id=pl.format("{}-{}", "device_code", pl.col("device_number").cast(pl.String).str.zfill(6)),
        gateway_id=pl.format("gw{}", pl.col("gateway").cast(pl.String).str.zfill(4)),
        name=pl.concat_str("district", "place", pl.lit(" "), "what"),
        unit=pl.lit(None, pl.String),
        time_from=pl.lit("device"),
        level_gap=pl.lit(None, pl.Float64),
    )
    table = table.with_columns(topic=pl.format("cd/{}/{}", "gateway_id", "point_id"))
    return table.with_columns(_river_columns(rivers, devices.station[device], table["point_id"])).select(
        COLUMNS
    )


def _number_in_kind(kind: I64) -> I64:
    """1, 2, … within each kind, in row order."""
    order = np.argsort(kind, kind="stable")
    size = np.bincount(kind)
    number = np.empty(len(kind), np.int64)
    number[order] = np.arange(len(kind)) - np.repeat(np.cumsum(size) - size, size) + 1
    return number


def _river_columns(rivers: Stations, station: I64, point_id: pl.Series) -> list[pl.Series]:
    """Range, levels and upstream point of river stations; null in every other row."""
    at_river = station >= 0
    row_of = np.full(len(rivers.lon), -1, np.int64)
    row_of[station[at_river]] = np.flatnonzero(at_river)
    columns = []
    for name, values in rivers.limits.items():
        cells = np.full(len(station), np.nan)
        cells[at_river] = np.round(values[station[at_river]], LEVEL_DECIMALS)
        columns.append(pl.Series(name, cells, pl.Float64).fill_nan(None))
    above = np.full(len(station), -1, np.int64)
    before = rivers.upstream[station[at_river]]
    above[at_river] = np.where(before >= 0, row_of[before], -1)
    index = pl.Series(above).replace(-1, None)
    return [*columns, point_id.gather(index).alias("upstream")]


def _chosen(texts: list[str], index: npt.NDArray[np.int64]) -> pl.Series:
    return pl.Series(texts, dtype=pl.String).gather(index)
