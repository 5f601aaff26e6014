"""Where things stand in the demo city: districts, rivers with their stations, invented street names.

Owns the reading of ``districts.csv`` and ``rivers.csv`` and all geometry. Longitudes and latitudes are
WGS 84 degrees. Knows nothing of kinds, gateways or topics.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ingest.simulate.city_kinds import DevicePlan
from storage.batch import F64, I64

CITY_POINTS = 116_200
"""Sensor points of the city this engine is measured by."""

KM_PER_DEGREE = 111.2
SPREAD_MAX = 2.0
"""A device lies at most this many spreads from its district's centre."""

# Invented: none of these is meant as a street of the city.
_ROAD_FIRST = "望听临青芙沙桂梅竹柳云晴晓暖清静远和安宁"
_ROAD_SECOND = "溪岸桥坊园塘渡井林坡湾屏泉汀田亭"
_ROAD_LAST = ("路", "街", "巷", "大道", "横街")
_HOUSE_NUMBERS = 400


@dataclass(frozen=True, slots=True)
class District:
    """A division of the city. ``spread_km``: most of it lies this near; ``people``, ``land``: weights."""

    name: str
    code: str
    lon: float
    lat: float
    spread_km: float
    people: float
    land: float


@dataclass(slots=True)
class Stations:
    """n river stations, each river's from its source down.

    name      text [n]    "岷江3号"
    lon, lat  float64 [n]
    district  int64 [n]   index into the districts
    upstream  int64 [n]   the station before it on its river, -1 for the first
    limits    float64 [n] by registry column, metres above sea level
    """

    name: list[str]
    lon: F64
    lat: F64
    district: I64
    upstream: I64
    limits: dict[str, F64]


def load_districts(city_dir: Path) -> list[District]:
    """The divisions in the file's order. Raises ValueError, OSError."""
    return [
        District(
            row["name"],
            row["code"],
            *(float(row[key]) for key in ("lon", "lat", "spread_km", "people", "land")),
        )
        for row in _table(city_dir / "districts.csv")
    ]


def apportion(count: int, weight: F64) -> I64:
    """``count`` whole things by weight, none over: shares rounded down, the largest rests first.

    >>> apportion(7, np.array([1.0, 1.0, 2.0])).tolist()
    [2, 2, 3]
    """
    exact = count * weight / weight.sum()
    share: I64 = np.floor(exact).astype(np.int64)
    rest = count - int(share.sum())
    share[np.argsort(share - exact, kind="stable")[:rest]] += 1
    return share


def spot(districts: list[District], district: I64, rng: np.random.Generator) -> tuple[F64, F64]:
    """(lon, lat) of a device in each given district: dense in its middle. float64 [len(district)]."""
    spread = np.array([d.spread_km for d in districts])[district] / KM_PER_DEGREE
    off = rng.standard_normal((2, len(district)))
    far = np.maximum(np.hypot(*off) / SPREAD_MAX, 1.0)
    east, north = off / far**4 * 0.6  # who would lie outside is folded back in: no edge is seen on a map
    lat = np.array([d.lat for d in districts])[district] + north * spread
    lon = np.array([d.lon for d in districts])[district] + east * spread / np.cos(np.radians(lat))
    return lon, lat


def stations(city_dir: Path, districts: list[District], count: int, rng: np.random.Generator) -> Stations:
    """``count`` stations along the rivers of the city, evenly by length, with levels of their own.

    Blue lies somewhat below 警戒水位 (yellow); orange is 保证水位; red a highest flood that is made up too.
    """
    legs = _legs(city_dir, districts)
    rivers = list(dict.fromkeys(leg.river for leg in legs))
    length = np.array([sum(leg.km for leg in legs if leg.river == river) for river in rivers])
    parts = [
        _along([leg for leg in legs if leg.river == river], int(n))
        for river, n in zip(rivers, apportion(count, length), strict=True)
    ]
    lon, lat, bed, district = (np.concatenate([part[i] for part in parts]) for i in range(4))
    upstream = np.arange(-1, count - 1, dtype=np.int64)
    sizes = [len(part[0]) for part in parts]
    heads = (np.cumsum(sizes) - sizes)[np.array(sizes) > 0]
    upstream[heads] = -1
    warning = bed + rng.uniform(3.0, 5.5, count)
    guaranteed = warning + rng.uniform(1.0, 1.8, count)
    highest = guaranteed + rng.uniform(0.6, 1.2, count)
    limits = {
        "range_min": bed - 0.5,
        "range_max": highest + 6.0,
        "level_blue": warning - 0.5,
        "level_yellow": warning,
        "level_orange": guaranteed,
        "level_red": highest,
    }
    named = {leg.river: leg.name for leg in legs}
    name = [f"{named[river]}{i}号" for river, n in zip(rivers, sizes, strict=True) for i in range(1, n + 1)]
    return Stations(name, lon, lat, district.astype(np.int64), upstream, limits)


@dataclass(frozen=True, slots=True)
class _Leg:
    """A straight stretch of a river between two way points: (lon, lat, bed height, district) of its ends."""

    river: str
    name: str
    begin: tuple[float, float, float, int]
    end: tuple[float, float, float, int]

    @property
    def km(self) -> float:
        east = (self.end[0] - self.begin[0]) * np.cos(np.radians(self.begin[1]))
        return float(np.hypot(east, self.end[1] - self.begin[1]) * KM_PER_DEGREE)


def _legs(city_dir: Path, districts: list[District]) -> list[_Leg]:
    code = {district.code: i for i, district in enumerate(districts)}
    legs: list[_Leg] = []
    before: tuple[str, tuple[float, float, float, int]] | None = None
    for row in _table(city_dir / "rivers.csv"):
        if row["district"] not in code:
            raise ValueError(f"rivers.csv: {row['code']} {row['seq']}: no district {row['district']}")
        here = (float(row["lon"]), float(row["lat"]), float(row["bed_m"]), code[row["district"]])
        if before is not None and before[0] == row["code"]:
            legs.append(_Leg(row["code"], row["river"], before[1], here))
        before = (row["code"], here)
    return legs


def _along(legs: list[_Leg], count: int) -> tuple[F64, F64, F64, F64]:
    """(lon, lat, bed, district) of ``count`` places evenly along the legs of one river."""
    at = np.concatenate([[0.0], np.cumsum([leg.km for leg in legs])])
    place = (np.arange(count) + 0.5) / max(count, 1) * at[-1]
    way = [legs[0].begin, *(leg.end for leg in legs)]
    lon, lat, bed = (np.interp(place, at, [point[axis] for point in way]) for axis in range(3))
    nearest = np.abs(place[:, None] - at[None, :]).argmin(axis=1)
    return lon, lat, bed, np.array([point[3] for point in way], np.float64)[nearest]


def names(plans: list[DevicePlan], plan: I64, rng: np.random.Generator) -> pl.Series:
    """An invented place for each device: a street, a number, and what it is. text [len(plan)]."""
    n = len(plan)
    places = [place for p in plans for place in p.places]
    first = np.cumsum([0, *(len(p.places) for p in plans)])[:-1]
    offered = np.array([len(p.places) for p in plans])
    place = first[plan] + (rng.random(n) * offered[plan]).astype(np.int64)
    roads = [a + b + c for a in _ROAD_FIRST for b in _ROAD_SECOND for c in _ROAD_LAST]
    table = pl.DataFrame(
        {
            "road": pl.Series(roads).gather(rng.integers(0, len(roads), n)),
            "number": rng.integers(1, _HOUSE_NUMBERS, n),
            "place": pl.Series(places, dtype=pl.String).gather(place),
        }
    )
    return table.select(pl.concat_str("road", "number", pl.lit("号"), "place"))["road"]


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))
