"""The table of systems and their archetypes: what stands in configs/chengdu/systems.csv and archetypes/.

Owns their reading and the devices of one system. Knows nothing of payloads; those are the archetype's codec's.
"""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SYSTEMS: Final = 365
CITY_SENSORS: Final = 116_200
CITY_VIDEO: Final = 97_200
EVERYWHERE: Final = "全市"
EVENT: Final = "event-"
"""Archetypes of this prefix are files of events/, and bring no points."""
CITY_TABLE: Final = "\n[city]\n"
"""Ends the source's own part of an archetype; what follows is read by the simulator alone, and stands last."""


@dataclass(frozen=True, slots=True)
class System:
    """One row of systems.csv. ``points`` sensor points, ``videos`` video channels: one of them is 0."""

    id: str
    name: str
    owner: str
    field: str
    archetype: str
    district: str
    points: int
    videos: int

    @property
    def has_events(self) -> bool:
        """It tells of events and measures nothing."""
        return self.archetype.startswith(EVENT)

    @property
    def districts(self) -> tuple[str, ...]:
        """Where its devices stand; none named means all over the city."""
        return () if self.district == EVERYWHERE else tuple(self.district.split(";"))


@dataclass(frozen=True, slots=True)
class Archetype:
    """How the systems of one make speak.

    text        the source's part, as it stands in the file, with {system} for the system's id
    device      what the nth device is called, with {n}
    quantities  the source's word for a quantity to the kind it is, one for each point of a device
    together    devices that speak in one message, at most
    """

    name: str
    text: str
    body: dict[str, Any] = field(repr=False)
    device: str = "d{n}"
    quantities: dict[str, str] = field(default_factory=dict)
    together: int = 1

    @property
    def interval_s(self) -> float:
        """How often a device speaks."""
        return float(self.body["interval_s"])


def load_systems(city_dir: Path) -> list[System]:
    """All rows, in the table's order. Raises ValueError naming a row that does not fit, OSError."""
    lines = (city_dir / "systems.csv").read_text("utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    systems = []
    for row in rows:
        try:
            points, videos = int(row.pop("points")), int(row.pop("videos"))
            systems.append(System(**row, points=points, videos=videos))
        except (KeyError, TypeError, ValueError) as wrong:
            raise ValueError(f"systems.csv, {row.get('id')}: {wrong}") from None
    return systems


def load_archetype(city_dir: Path, name: str) -> Archetype:
    """Raises ValueError naming the file that is wrong, OSError."""
    if name.startswith(EVENT):
        text = (city_dir / "events" / f"{name.removeprefix(EVENT)}.toml").read_text("utf-8")
        return Archetype(name, text, tomllib.loads(text))
    path = city_dir / "archetypes" / f"{name}.toml"
    whole = path.read_text("utf-8")
    text, found, _ = whole.partition(CITY_TABLE)
    try:
        body = tomllib.loads(whole)
        own = body.pop("city")
        if not found or set(own) - {"device", "quantities", "together"} or "{n" not in own["device"]:
            raise ValueError("expected [city] last, with device, quantities and perhaps together")
        return Archetype(name, text, body, own["device"], own["quantities"], own.get("together", 1))
    except (KeyError, tomllib.TOMLDecodeError, ValueError) as wrong:
        raise ValueError(f"archetypes/{name}.toml: {wrong}") from None


def devices_of(system: System, archetype: Archetype, scale: float = 1.0) -> int:
    """How many devices the system has; at least one at any scale. Raises ValueError where points do not divide."""
    if system.has_events:
        return 0
    count, rest = divmod(system.points + system.videos, len(archetype.quantities))
    if rest:
        raise ValueError(f"systems.csv, {system.id}: {system.points} points are no whole devices")
    return max(1, round(count * scale))
