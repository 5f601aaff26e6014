"""What the devices of one system measure, second by second.

Owns the numbers: a calm value of each point's own, the day's sine and noise, in the decimals the kind has. Vectorised
over a system; deterministic by seed, system and second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

import numpy as np

from ingest.simulate.city_kinds import KindSim
from ingest.simulate.systems.table import Archetype, System
from storage.batch import F64

DAY_S: Final = 86_400
LOCAL_S: Final = 8 * 3_600
"""The demo city's clock, for the day's course."""
RIVER_M: Final = 500.0
"""Where a level's calm value would be its registry row's: these stations stand here."""


@dataclass(frozen=True, slots=True)
class Unit:
    """From the value stored to the value sent: stored = sent x factor + offset."""

    factor: float
    offset: float


class SystemValues:
    """Values of a system's points, [devices, quantities]."""

    def __init__(
        self,
        system: System,
        archetype: Archetype,
        kinds: dict[str, KindSim],
        devices: int,
        seed: int,
        decimals: int,
    ) -> None:
        """``decimals``: digits behind the point that the codec's form can carry."""
        self._seed = (seed, crc32(system.id.encode()))
        sims = [kinds[name] for name in archetype.quantities.values()]
        own = np.random.default_rng(self._seed).random((devices, len(sims)))
        base = _column(sims, lambda sim: sim.base if sim.below_level is None else RIVER_M - sim.below_level)
        self._calm = base + _column(sims, lambda sim: sim.spread) * (2 * own - 1)
        self._noise = _column(sims, lambda sim: sim.noise)
        self._daily = _column(sims, lambda sim: sim.daily)
        self._peak_h = _column(sims, lambda sim: sim.daily_peak_h)
        self._low = _column(sims, lambda sim: sim.low if sim.below_level is None else -np.inf)
        self._high = _column(sims, lambda sim: sim.high if sim.below_level is None else np.inf)
        self._scale = 10.0 ** _column(sims, lambda sim: sim.decimals)
        self._decimals = decimals
        self.units = [unit_of(archetype.body, word) for word in archetype.quantities]

    def sent(self, second: int, devices: np.ndarray[Any, np.dtype[np.intp]]) -> F64:
        """What those devices send at a second, float64[devices, quantities], in the source's own units."""
        rng = np.random.default_rng((*self._seed, second))
        hour = ((second + LOCAL_S) % DAY_S) / 3_600
        day = self._daily * np.cos((hour - self._peak_h) * (2 * np.pi / 24))
        value = self._calm[devices] + day + self._noise * rng.standard_normal((len(devices), len(self.units)))
        value = np.round(np.clip(value, self._low, self._high) * self._scale) / self._scale
        factor, offset = (
            np.array([getattr(unit, name) for unit in self.units]) for name in ("factor", "offset")
        )
        return np.asarray(np.round((value - offset) / factor, self._decimals) + 0.0)

    def stored(self, sent: F64) -> F64:
        """What the lake must hold of values sent."""
        factor, offset = (
            np.array([getattr(unit, name) for unit in self.units]) for name in ("factor", "offset")
        )
        return np.asarray(sent * factor + offset)


def unit_of(body: dict[str, Any], word: str) -> Unit:
    """How the source's word for a quantity is converted."""
    how = body.get("quantities", {}).get(word, {})
    return Unit(float(how.get("factor", 1.0)), float(how.get("offset", 0.0)))


def _column(sims: Sequence[KindSim], of: Any) -> F64:
    return np.array([float(of(sim)) for sim in sims])
