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
import socket
import struct
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import aiohttp

from console.server import Console
from tests.console_city import MadeUp, made_up

GOOD = 45
STALLED = 5
SETTLE_S = 5.0


async def _good(address: str, seqs: list[int]) -> None:
    async with aiohttp.ClientSession() as session:
        ws = await session.ws_connect(address + "ws", origin=address.rstrip("/"), max_msg_size=0)
        while (message := await ws.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
            if message.type is aiohttp.WSMsgType.BINARY:
                seqs.append(struct.unpack_from("<I", message.data, 4)[0])


def _stalled(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    host = f"127.0.0.1:{port}"
    sock.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return sock


async def _clients(address: str) -> None:
    """The other process: open all, count frames until the server ends."""
    port = int(address.rstrip("/").rpartition(":")[2])
    kept = [_stalled(port) for _ in range(STALLED)]
    seen: list[list[int]] = [[] for _ in range(GOOD)]
    await asyncio.gather(*(_good(address, seqs) for seqs in seen))
    gaps = sum(after - before != 1 for seqs in seen for before, after in pairwise(seqs))
    print(json.dumps({"frames_min": min(map(len, seen)), "frames_max": max(map(len, seen)), "gaps": gaps}))
    for sock in kept:
        sock.close()


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
        others = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.map_feed", "--clients", console.address, stdout=subprocess.PIPE
        )
        while len(console.feed) < GOOD + STALLED:  # noqa: ASYNC110 - another process connects
            await asyncio.sleep(0.1)
        found["ms_50_maps"] = await _second_ms(city, seconds)
        vitals = console.vitals()
    told, _ = await others.communicate()
    names = ("console_encode_ms", "console_clients_stalled", "console_bytes")
    return {**found, **{name: vitals[name] for name in names}, **json.loads(told)}


def main() -> None:
    """Body of the command."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--points", type=int, default=116_200)
    ask.add_argument("--seconds", type=int, default=15)
    ask.add_argument("--clients", help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.clients:
        asyncio.run(_clients(given.clients))
        return
    folder = Path(tempfile.mkdtemp(prefix="map-feed-"))
    try:
        console, city = made_up(folder, given.points)
        print(json.dumps(asyncio.run(_measure(console, city, given.seconds))))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
