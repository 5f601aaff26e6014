"""What the map costs the engine: CPU of a second without it, with it, and with 50 maps open of which 5 do not read.

    python -m bench.map_feed [--points 116200] [--seconds 15]

All points change each second, the worst there is. The clients are a process of their own and are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench.load.maps import MapsOptions
from console.server import Console
from ingest.simulate.child import Child
from tests.console_city import MadeUp, made_up

SETTLE_S = 5.0
OPEN_S_MAX = 60.0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _second_ms(city: MadeUp, seconds: int) -> float:
    """CPU of this process for one second, ms."""
    before = _cpu_s()
    for _ in range(seconds):
        city.tick(1.0)
        await asyncio.sleep(1)
    return round((_cpu_s() - before) / seconds * 1000, 1)


async def _measure(console: Console, city: MadeUp, seconds: int) -> dict[str, object]:
    city.tick(1.0)
    found: dict[str, object] = {"points": len(city.value), "ms_without": await _second_ms(city, seconds)}
    async with console:
        await asyncio.sleep(SETTLE_S)
        found["ms_no_map_open"] = await _second_ms(city, seconds)
        with Child("bench.load.maps", json.dumps(asdict(MapsOptions(console.address)))) as others:
            await asyncio.to_thread(others.until_ready, OPEN_S_MAX)
            found["ms_50_maps"] = await _second_ms(city, seconds)
            vitals = console.vitals()
            told = await asyncio.to_thread(others.finish, OPEN_S_MAX)
    names = ("console_encode_ms", "console_clients_stalled", "console_bytes")
    return {**found, **{name: vitals[name] for name in names}, "maps": told}


def main() -> None:
    """Body of the command."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--points", type=int, default=116_200)
    ask.add_argument("--seconds", type=int, default=15)
    given = ask.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="map-feed-"))
    try:
        console, city = made_up(folder, given.points)
        print(json.dumps(asyncio.run(_measure(console, city, given.seconds))))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
