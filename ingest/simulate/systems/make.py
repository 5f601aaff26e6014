"""A folder in which the whole city can be run: its config, one file a system in sources.d, its registry.

Owns what is generated and never committed. The same seed and scale make the same folder.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from ingest.simulate.city import write
from ingest.simulate.city_kinds import load_plans
from ingest.simulate.city_places import apportion, load_districts, spot
from ingest.simulate.systems.table import Archetype, System, devices_of, load_archetype, load_systems
from storage.batch import F64, I64

PORT_FIRST: Final = 21_200
"""Of systems on plain TCP: some thirty ports from here on, one each."""
GATEWAY_DEVICES: Final = 48
"""Devices behind one pole, switch or concentrator: they fall silent together."""
CONFIG = """# Generated: the whole city of 365 systems.

[city]
name = "成都(示范)"
time_zone = "Asia/Shanghai"

[data]
dir = "data"

[points]
file = "points.parquet"

[listener]
enabled = true
host = "127.0.0.1"
port = {port}

[ops]
port = {ops_port}
"""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where a system's devices stand: district number, longitude and latitude of each."""

    district: I64
    lon: F64
    lat: F64


@dataclass(frozen=True, slots=True)
class Made:
    """What stands in the folder."""

    systems: int
    points: int
    devices: int


def make(
    folder: Path,
    city_dir: Path,
    *,
    scale: float = 1.0,
    seed: int = 1,
    port: int = 1883,
    ops_port: int = 9180,
    port_first: int = PORT_FIRST,
    interval_s: float | None = None,
) -> Made:
    """Write yuzui.toml, yuzui.d, sources.d and points.parquet into ``folder``.

    scale       share of each system's devices, at least one of each
    interval_s  of every device, in place of its archetype's own
    Raises ValueError for tables that do not fit, or a folder that holds somebody's config; OSError.
    """
    refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "yuzui.toml").write_text(CONFIG.format(port=port, ops_port=ops_port), "utf-8")
    for name in ("yuzui.d", "sources.d"):
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(city_dir / "yuzui.d", folder / "yuzui.d")
    (folder / "sources.d").mkdir()
    frames: list[pl.DataFrame] = []
    devices = 0
    rng = np.random.default_rng(seed)
    names = _Names(city_dir)
    next_port = port_first
    for system in load_systems(city_dir):
        archetype = load_archetype(city_dir, system.archetype)
        text = source_text(system, archetype, next_port, interval_s)
        next_port += "port" in archetype.body
        (folder / "sources.d" / f"{system.id}.toml").write_text(text, "utf-8")
        count = devices_of(system, archetype, scale)
        devices += count
        if count:
            frames.append(_rows(system, archetype, names.spread(system, count, rng), names, interval_s))
    table = pl.concat(frames)
    write(table, folder / "points.parquet")
    return Made(len(list((folder / "sources.d").iterdir())), len(table), devices)


def refuse_foreign(folder: Path) -> None:
    """Raise ValueError where files of ``folder`` that would be replaced were not made here."""
    config = folder / "yuzui.toml"
    if config.is_file() and config.read_bytes().startswith(CONFIG.partition("\n")[0].encode()):
        return
    if there := [name for name in ("yuzui.toml", "yuzui.d", "sources.d") if (folder / name).exists()]:
        raise ValueError(f"{folder} has {', '.join(there)} of another config: name another folder")


def source_text(system: System, archetype: Archetype, port: int, interval_s: float | None = None) -> str:
    """The body of the system's [[source]], as its file in sources.d holds it."""
    text = archetype.text.replace("{system}", system.id)
    head = f'name = "{system.id}"\n'
    if not system.has_events:
        head += f'owner = "{system.owner}"\nfield = "{system.field}"\n'
        head += 'point_id = "{source}-{device}-{quantity}"\n'
        text = text.replace("port = 0\n", f"port = {port}\n")
        if interval_s is not None:
            text = text.replace(f"interval_s = {archetype.interval_s}\n", f"interval_s = {interval_s}\n")
    return f"# {system.name}\n{head}{text}".rstrip() + "\n"


class _Names:
    """Districts and kinds of the city, by name."""

    def __init__(self, city_dir: Path) -> None:
        self.districts = load_districts(city_dir)
        self.number = {one.name: i for i, one in enumerate(self.districts)}
        self.kinds, _ = load_plans(city_dir)

    def spread(self, system: System, count: int, rng: np.random.Generator) -> Spread:
        named = system.districts
        where = np.array([self.number[name] for name in named] or range(len(self.districts)))
        share = apportion(count, np.array([self.districts[i].people for i in where], np.float64))
        district = np.repeat(where, share)
        lon, lat = spot(self.districts, district, rng)
        return Spread(district, np.round(lon, 6), np.round(lat, 6))


def _rows(
    system: System, archetype: Archetype, spread: Spread, names: _Names, interval_s: float | None
) -> pl.DataFrame:
    count, width = len(spread.district), len(archetype.quantities)
    said = {
        word: archetype.body.get("quantities", {}).get(word, {}).get("as", word)
        for word in archetype.quantities
    }
    devices = [archetype.device.format(n=n + 1) for n in range(count)]
    districts = [names.districts[i].name for i in spread.district.tolist()]
    device = np.repeat(np.arange(count), width)
    kinds = list(archetype.quantities.values()) * count
    words = list(said.values()) * count
    called = system.name.removesuffix("系统").removesuffix("平台")
    return pl.DataFrame(
        {
            "point_id": [
                f"{system.id}-{devices[d]}-{word}" for d, word in zip(device.tolist(), words, strict=True)
            ],
            "name": [
                f"{districts[d]}{called} {devices[d]} {names.kinds[kind].name}"
                for d, kind in zip(device.tolist(), kinds, strict=True)
            ],
            "device_id": [f"{system.id}-{devices[d]}" for d in device.tolist()],
            "gateway_id": [f"{system.id}-g{d // GATEWAY_DEVICES + 1:03}" for d in device.tolist()],
            "source": [system.id] * len(device),
            "kind": kinds,
            "district": [districts[d] for d in device.tolist()],
            "lon": spread.lon[device],
            "lat": spread.lat[device],
            "topic": [""] * len(device),
            "expected_interval_s": [archetype.interval_s if interval_s is None else interval_s] * len(device),
            "time_from": ["device"] * len(device),
        }
    )
