"""Display: the page's own order of points, their places as 16-bit numbers, and the registry it is sent once.

Owns Morton order, registry versions and the bytes of ``GET /api/registry`` (console/FORMAT.md). Knows no values.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from anomaly.settings import KindSettings
from storage.batch import F64, I32, U8, Bool
from storage.points import PointTable

U16 = npt.NDArray[np.uint16]
MAGIC: Final = b"YZR1"
PLACE_MAX: Final = 65_534
NO_PLACE: Final = 65_535
CODES_MAX: Final = 255
"""Kinds and districts are told in a byte; what is beyond shares the last entry."""
REST: Final = "…"


@dataclass(frozen=True, slots=True)
class City:
    """What the page is told of the city. ``kinds``: settings by kind, for their titles."""

    name: str
    time_zone: str
    kinds: Mapping[str, KindSettings]
    video_kinds: Collection[str] = ("video",)


@dataclass(slots=True)
class Display:
    """Points in display order, 0 … n-1, retired ones left out.

    number   int32[n]: point number of each display index
    index    int32[points]: display index of each point number, -1 where it is not shown
    district uint8[n], video bool[n]
    packed   the registry, gzipped
    """

    version: int
    points: PointTable
    number: I32
    index: I32
    kind: U8
    district: U8
    video: Bool
    districts: list[str]
    kinds: list[str]
    packed: bytes
    ids: Mapping[str, int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.number)

    def find(self, point_id: str) -> int | None:
        """Display index of a point, None where it is unknown or not shown."""
        number = self.ids.get(point_id)
        return None if number is None or self.index[number] < 0 else int(self.index[number])


def display(points: PointTable, city: City) -> Display:
    """The display of a registry; takes some 0.2 s for a city, call it off the loop."""
    shown = np.flatnonzero(~points.retired)
    x, y, frame = _places(points.lon[shown], points.lat[shown])
    nowhere = x == NO_PLACE
    order = np.lexsort((shown, _spread(x) | _spread(y) << np.uint64(1), nowhere))
    number, x, y = shown[order].astype(np.int32), x[order], y[order]
    index = np.full(len(points), -1, np.int32)
    index[number] = np.arange(len(number), dtype=np.int32)
    kind, kinds, kind_count = _coded(points.kind[number], points.kinds)
    district, districts, district_count = _coded(points.district[number], points.districts)
    source = points.source[number].astype(np.uint16)
    planes = [
        *_planes(_zigzag(x)),
        *_planes(_zigzag(y)),
        kind.tobytes(),
        district.tobytes(),
        *_planes(source),
    ]
    source_count = np.bincount(source, minlength=len(points.sources)).tolist()
    units = _units(points, kind, number, len(kinds))
    head: dict[str, Any] = {
        "n": len(number),
        "city": city.name,
        "time_zone": city.time_zone,
        "frame": frame,
        "kinds": [
            _kind(
                name, city, units[code], points, kind_count[code], _first_source(points, number, kind, code)
            )
            for code, name in enumerate(kinds)
        ],
        "districts": [
            {"id": name, "zh": name, "en": "", "n": n}
            for name, n in zip(districts, district_count, strict=True)
        ],
        "sources": [{"id": name, "n": n} for name, n in zip(points.sources, source_count, strict=True)],
    }
    version = zlib.crc32(b"".join([orjson.dumps(head), *planes, number.tobytes()]))
    text = orjson.dumps({"version": version, **head})
    text += b" " * (-len(text) % 8)
    start = b"".join(v.to_bytes(4, "little") for v in (version, len(number), len(text)))
    video = np.isin(np.array(kinds, dtype=object), list(city.video_kinds))[kind] if len(kinds) else kind == 1
    return Display(
        version, points, number, index, kind, district, video, districts, kinds,
        gzip.compress(b"".join([MAGIC, start, text, *planes]), 6, mtime=0), points.number_of(),
    )  # fmt: skip


def _places(lon: F64, lat: F64) -> tuple[U16, U16, dict[str, Any]]:
    """x, y as 0 … PLACE_MAX over the frame, NO_PLACE where a place is unknown; and the frame."""
    known = np.isfinite(lon) & np.isfinite(lat)
    frame: dict[str, Any] = {"lon0": 0.0, "lat0": 0.0, "lon1": 1.0, "lat1": 1.0, "crs": "WGS84"}
    found = []
    for name, degrees in (("lon", lon), ("lat", lat)):
        low, high = (float(degrees[known].min()), float(degrees[known].max())) if known.any() else (0.0, 1.0)
        high = high if high > low else low + 1e-6
        frame[f"{name}0"], frame[f"{name}1"] = low, high
        scaled = np.where(known, (np.nan_to_num(degrees) - low) / (high - low), 0.0) * PLACE_MAX
        found.append(np.where(known, np.rint(scaled), NO_PLACE).astype(np.uint16))
    return found[0], found[1], frame


def _spread(v: U16) -> npt.NDArray[np.uint64]:
    """Bits of each number, one place between each two: half of a Morton code."""
    w = v.astype(np.uint64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        w = (w | w << np.uint64(shift)) & np.uint64(mask)
    return w


def _zigzag(v: U16) -> U16:
    """Differences from the one before, small ones of either sign as small numbers."""
    step = np.diff(v, prepend=np.uint16(0)).astype(np.int16)
    return ((step << 1) ^ (step >> 15)).astype(np.uint16)


def _planes(v: U16) -> tuple[bytes, bytes]:
    return (v & 255).astype(np.uint8).tobytes(), (v >> 8).astype(np.uint8).tobytes()


def _coded(code: I32, names: list[str]) -> tuple[U8, list[str], list[int]]:
    """Codes of what is there, in a byte, with their names and counts."""
    present, dense = np.unique(code, return_inverse=True)
    found = [names[one] for one in present.tolist()]
    if len(found) > CODES_MAX:
        found = [*found[: CODES_MAX - 1], REST]
        dense = np.minimum(dense, CODES_MAX - 1)
    return dense.astype(np.uint8), found, np.bincount(dense, minlength=len(found)).tolist()


def _units(points: PointTable, kind: U8, number: I32, kinds: int) -> list[str]:
    units = [""] * kinds
    codes, first = np.unique(kind, return_index=True)
    for code, at in zip(codes.tolist(), first.tolist(), strict=True):
        units[code] = points.unit[number[at]] or ""
    return units


def _first_source(points: PointTable, number: I32, kind: U8, code: int) -> str:
    name: str = points.sources[points.source[number[int(np.argmax(kind == code))]]]
    return name


def _kind(name: str, city: City, unit: str, points: PointTable, n: int, group: str) -> dict[str, Any]:
    titles = city.kinds.get(name)
    return {
        "id": name,
        "zh": (titles and titles.title_zh) or name,
        "en": (titles and titles.title_en) or name,
        "unit": unit,
        "group": group,
        "class": "video" if name in city.video_kinds else "sensor",
        "n": n,
    }
