"""The demo city's kinds of sensor as the simulator needs them: how a value moves and who carries it.

Owns the reading of ``sensors.toml`` of a city folder (numbers of the generator only). Limits, units,
titles and checks are not there: they are [kinds.NAME] of the city's config, which the engine reads.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

Storm = Literal["rain", "rain_1h", "level", "waterlogging"]


@dataclass(frozen=True, slots=True)
class KindSim:
    """How the values of one kind move. All numbers are in the kind's own unit.

    base          a typical point's calm value. Where ``below_level`` is set, a point's calm value is
                  its registry row's ``level_blue - below_level`` instead (river stations differ in height).
    spread        a point's own calm value is uniform in base ± spread
    noise         standard deviation of the sensor's noise, each reading on its own
    daily         amplitude of the day's sine, greatest at ``daily_peak_h`` (local hour)
    decimals      digits after the point that the device sends
    low, high     a value without storm or fault never leaves this span (clip to it); ``high`` lies below
                  the kind's blue level, or ``low`` above a falling one, so a calm city raises no alert
    storm         what a storm overhead does, None for nothing:
                  rain          the value is the rain since the previous reading, in mm: 0 when dry, and at
                                the core of a storm it adds up to ``peak`` mm an hour (tips of the bucket)
                  rain_1h       sum of the last hour, mm, reaching ``peak`` under the core
                  level         rises by up to ``peak`` above its calm value, after the rain and downstream
                  waterlogging  rises from ``base`` to at most ``peak``
    peak          see storm; 0 without one
    """

    name: str
    base: float
    spread: float
    noise: float
    daily: float
    daily_peak_h: float
    decimals: int
    low: float
    high: float
    storm: Storm | None = None
    peak: float = 0.0
    below_level: float | None = None


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One type of device: how many of it the city has and the points each one holds.

    count   devices among 116,200 points; other sizes are scaled
    by      what a district's share follows: its people or its land; ``river`` stands along the rivers
    """

    code: str
    name: str
    source: str
    count: int
    by: Literal["people", "land", "river"]
    places: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KindPlan:
    """What the registry row says because of a point's kind: a short code, a name, the natural interval."""

    code: str
    name: str
    interval_s: float


def load_kinds(city_dir: Path) -> dict[str, KindSim]:
    """How each kind's values move, by kind. Raises ValueError naming a wrong or missing key, OSError."""
    return {name: _sim(name, table) for name, table in _tables(city_dir, "kind").items()}


def load_plans(city_dir: Path) -> tuple[dict[str, KindPlan], list[DevicePlan]]:
    """Names and intervals by kind, and the types of device in the file's order. Raises as load_kinds."""
    titles = _titles(city_dir)
    kinds = {
        name: KindPlan(str(table["code"]), titles.get(name, name), float(table["interval_s"]))
        for name, table in _tables(city_dir, "kind").items()
    }
    devices = []
    for code, table in _tables(city_dir, "device").items():
        plan = DevicePlan(
            code=code,
            name=table["name"],
            source=table["source"],
            count=table["count"],
            by=table["by"],
            places=tuple(table["places"]),
            kinds=tuple(table["kinds"]),
        )
        unknown = [kind for kind in plan.kinds if kind not in kinds]
        if unknown or plan.by not in ("people", "land", "river") or plan.count < 0:
            raise ValueError(f"sensors.toml: device.{code}: unknown kinds {unknown}, by or count")
        devices.append(plan)
    return kinds, devices


def _tables(city_dir: Path, head: str) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = tomllib.loads((city_dir / "sensors.toml").read_text("utf-8"))[head]
    return tables


def _titles(city_dir: Path) -> dict[str, str]:
    """What an alert calls each kind, from the config the engine reads: points are named the same way."""
    kinds = tomllib.loads((city_dir / "yuzui.d" / "kinds.toml").read_text("utf-8"))["kinds"]
    return {name: table["title_zh"] for name, table in kinds.items() if "title_zh" in table}


# Keys of [kind.NAME] that say who a point is, not how it moves.
_PLAN_KEYS = frozenset({"code", "interval_s"})


def _sim(name: str, table: dict[str, Any]) -> KindSim:
    known = {field.name for field in fields(KindSim)} - {"name"}
    moves = {key: value for key, value in table.items() if key not in _PLAN_KEYS}
    if wrong := sorted(moves.keys() - known):
        raise ValueError(f"sensors.toml: kind.{name}: unknown keys {wrong}")
    storm = moves.get("storm")
    if storm is not None and storm not in get_args(Storm):
        raise ValueError(f"sensors.toml: kind.{name}.storm: expected one of {get_args(Storm)}, got {storm!r}")
    try:
        return KindSim(name=name, **moves)
    except TypeError as missing:
        raise ValueError(f"sensors.toml: kind.{name}: {missing}") from None
