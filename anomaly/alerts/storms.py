"""Storms: which alerts lie so near in place and onset that people should hear of them together.

Owns the index that answers that, in memory. Knows nothing of alerts but where and when they began, and nothing of
files: anomaly.alerts.grouping keeps the truth and fills this from it.

Two alerts are linked when their places are at most ``reach_km`` and their onsets at most ``reach_us`` apart; a storm is
what links connect (single linkage). So which alerts end up together does not depend on the order they come in.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

EARTH_KM: Final = 6371.0
_AROUND: Final = tuple(sorted(product((-1, 0, 1), repeat=4), key=lambda step: sum(map(abs, step))))
"""A cell's neighbours, itself first: where the storm is thickest it is found at once."""

Cell = tuple[Hashable, int, int, int, int]


@dataclass(slots=True)
class Spot:
    """One alert: place on the sphere in km, onset in µs."""

    x: float
    y: float
    z: float
    onset: int


class Storms:
    """Alerts by cells as wide as the reach, in place and time: neighbours lie in a cell or the ones around it."""

    def __init__(self, reach_km: float, reach_us: int) -> None:
        # The chord of an arc: on 3 km they differ by less than a tenth of a millimetre.
        self._reach_km = reach_km
        self._reach_us = reach_us
        self._cells: dict[Cell, dict[str, list[Spot]]] = {}
        self._into: dict[str, str] = {}

    def group(self, name: str) -> str:
        """The group that ``name`` has become part of; itself where it has not."""
        while name in self._into:
            name = self._into[name]
        return name

    def near(self, key: Hashable, lon: float, lat: float, onset: int) -> set[str]:
        """The groups under ``key`` that an alert there and then is linked to."""
        x, y, z = _on_sphere(lon, lat)
        found: set[str] = set()
        for cell in self._around(key, x, y, z, onset):
            for name, spots in self._cells.get(cell, {}).items():
                # One link is enough: of a storm of thousands one alert is looked at, not each.
                group = self.group(name)
                if group not in found and self._linked(spots, x, y, z, onset):
                    found.add(group)
        return found

    def _linked(self, spots: list[Spot], x: float, y: float, z: float, onset: int) -> bool:
        limit = self._reach_km**2
        # Newest first: in a growing storm the last ones to come are the likeliest links.
        return any(
            abs(spot.onset - onset) <= self._reach_us
            and (spot.x - x) ** 2 + (spot.y - y) ** 2 + (spot.z - z) ** 2 <= limit
            for spot in reversed(spots)
        )

    def add(self, key: Hashable, lon: float, lat: float, onset: int, group: str) -> None:
        """An alert there and then is of ``group``."""
        x, y, z = _on_sphere(lon, lat)
        cell = (key, *self._cell(x, y, z, onset))
        self._cells.setdefault(cell, {}).setdefault(group, []).append(Spot(x, y, z, onset))

    def merge(self, group: str, into: str) -> None:
        """What was ``group`` is part of ``into`` from now on."""
        self._into[group] = into

    def keep(self, groups: set[str]) -> None:
        """Forget alerts of all other groups."""
        for cell in list(self._cells):
            kept = {name: spots for name, spots in self._cells[cell].items() if self.group(name) in groups}
            if kept:
                self._cells[cell] = kept
            else:
                del self._cells[cell]
        self._into = {one: into for one, into in self._into.items() if self.group(into) in groups}

    def _cell(self, x: float, y: float, z: float, onset: int) -> tuple[int, int, int, int]:
        reach = self._reach_km
        return math.floor(x / reach), math.floor(y / reach), math.floor(z / reach), onset // self._reach_us

    def _around(self, key: Hashable, x: float, y: float, z: float, onset: int) -> Iterator[Cell]:
        i, j, k, t = self._cell(x, y, z, onset)
        return ((key, i + a, j + b, k + c, t + d) for a, b, c, d in _AROUND)


def _on_sphere(lon: float, lat: float) -> tuple[float, float, float]:
    east, north = math.radians(lon), math.radians(lat)
    r = EARTH_KM * math.cos(north)
    return r * math.cos(east), r * math.sin(east), EARTH_KM * math.sin(north)
