"""Open maps: some that read every frame, some that never read. One process, and cheap: it shares the engine's cores.

Owns the connections and the count of what came. Run as ``python -m bench.load.maps`` with MapsOptions as JSON on the
first line of stdin.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import sys
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

import aiohttp

from ingest.simulate.speaker import cpu_s, say

GOOD: Final = 45
STALLED: Final = 5
PING: Final = b"\x89\xfd\0\0\0\0" + bytes(125)
"""The largest there is, under a mask of zeros."""
PINGS: Final = 12_000
"""Their answers are more than SEND_BYTES of console.feed, and what the kernel adds to it."""
PING_S_MAX: Final = 2.0
OVER: Final = (
    aiohttp.WSMsgType.CLOSE,
    aiohttp.WSMsgType.CLOSING,
    aiohttp.WSMsgType.CLOSED,
    aiohttp.WSMsgType.ERROR,
)


@dataclass(frozen=True, slots=True)
class MapsOptions:
    """``address`` of a map that anybody may look at; how many read and how many do not."""

    address: str
    good: int = GOOD
    stalled: int = STALLED


@dataclass(slots=True)
class MapsReport:
    """What came. frames: of those that read, the fewest and the most; gaps: frames that one of them missed."""

    good: int = 0
    stalled: int = 0
    frames_min: int = 0
    frames_max: int = 0
    gaps: int = 0
    bytes: int = 0
    cpu_s: float = 0.0
    faults: list[str] = field(default_factory=list)


class Reader:
    """One map that reads. seqs: of each frame; begun is set with the first."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.bytes = 0
        self.begun = asyncio.Event()

    async def run(self, session: aiohttp.ClientSession, address: str) -> None:
        """Read until the other side ends. Raises aiohttp.ClientError where it may not."""
        url, origin = address.rstrip("/") + "/ws", address.rstrip("/")
        async with session.ws_connect(url, origin=origin, max_msg_size=0) as ws:
            while (message := await ws.receive()).type not in OVER:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.seqs.append(struct.unpack_from("<I", message.data, 4)[0])
                    self.bytes += len(message.data)
                    self.begun.set()

    @property
    def gaps(self) -> int:
        """Frames that did not follow the one before."""
        return sum(after - before != 1 for before, after in pairwise(self.seqs))


def stalled(address: str) -> socket.socket:
    """One that asks for the feed and never reads it, with a small buffer of the kernel's.

    It pings first, until the answers it does not read fill what the server's kernel keeps for it: frames alone might
    take a minute.
    """
    host = address.split("/")[2]
    name, _, port = host.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((name, int(port)))
    sock.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    sock.settimeout(PING_S_MAX)
    try:
        sock.sendall(PING * PINGS)
    except TimeoutError:
        pass  # it is not read any more: all the better
    return sock


async def _run(options: MapsOptions) -> MapsReport:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)  # its end: who started us is gone
    kept = [stalled(options.address) for _ in range(options.stalled)]
    readers = [Reader() for _ in range(options.good)]
    report = MapsReport(options.good, options.stalled)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(one.run(session, options.address)) for one in readers]
        begun = [asyncio.create_task(one.begun.wait()) for one in readers]
        for task, first in zip(tasks, begun, strict=True):
            await asyncio.wait([task, first], return_when=asyncio.FIRST_COMPLETED)
        say(ready=True)
        before = cpu_s()
        await stop.wait()
        report.cpu_s = round(cpu_s() - before, 3)
        report.faults = [f"a map was closed: {task.exception()!r}" for task in tasks if task.done()]
        for task in (*tasks, *begun):
            task.cancel()
        await asyncio.gather(*tasks, *begun, return_exceptions=True)
    for sock in kept:
        sock.close()
    counts = [len(one.seqs) for one in readers] or [0]
    report.frames_min, report.frames_max = min(counts), max(counts)
    report.gaps = sum(one.gaps for one in readers)
    report.bytes = sum(one.bytes for one in readers)
    return report


def main() -> None:
    """Open all, say so, read until SIGTERM, report."""
    options: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    report = asyncio.run(_run(MapsOptions(**options)))
    say(report=asdict(report))


if __name__ == "__main__":
    main()
