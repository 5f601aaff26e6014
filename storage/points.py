"""PointTable: what is known of every point, as arrays by dense number, and the map of numbers on disk.

Owns the dense numbers (generations, never reused) and the lake's ``points`` table. Knows nothing of
the registry file's format (ingest.points reads that) or of what checks do with a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from storage.batch import F64, I32, U8, Bool
from storage.texts import Numbers, Texts

LEVELS = 4
TIME_FROM_DEVICE = 0
TIME_FROM_RECEIVE = 1


@dataclass(slots=True)
class PointTable:
    """n points by dense number 0 … n-1; every array has n rows. Retired points keep their row.

    level        float64 [4, n]   blue, yellow, orange, red; NaN where there is none
    falling      bool             the levels alarm on low values
    upstream     int32            point number, -1 where none
    gateway, source, kind, district  int32 codes into gateways, sources, kinds, districts

    Texts of a registry are columns (storage.texts): a str is made for whoever asks for one.
    """

    point_id: Sequence[str]
    name: Sequence[str]
    device_id: Sequence[str]
    topic: Sequence[str]
    unit: Sequence[str]
    gateway: I32
    source: I32
    kind: I32
    district: I32
    gateways: list[str]
    sources: list[str]
    kinds: list[str]
    districts: list[str]
    lon: F64
    lat: F64
    interval_s: F64
    time_from: U8
    range_min: F64
    range_max: F64
    level: F64
    level_gap: F64
    falling: Bool
    upstream: I32
    retired: Bool
    _numbers: Mapping[str, int] | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.point_id)

    def number_of(self) -> Mapping[str, int]:
        """point_id to dense number; made when first asked for, the same for all who ask."""
        if self._numbers is None:
            self._numbers = Numbers(Texts.of(self.point_id))
        return self._numbers


NO_POINT = np.int32(-1)
