"""Webhook targets that misbehave at the first call for each notification and are well afterwards.

Owns their ways of misbehaving and what each target heard. Speaks HTTP by hand: no server library sends half a
status line. Knows nothing of the engine.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from tests.engines import free_port

HUGE_BYTES = 1 << 30
"""Announced as the length of an answer; nobody should wait for the end of it."""
CHUNK = bytes(1 << 16)
DRIP_S = 0.1
RETRY_AFTER_S = 2
CLOSED_S = 2.5
ModeOf = Callable[["Targets", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _status(writer: asyncio.StreamWriter, line: str, *headers: str) -> None:
    text = "\r\n".join([f"HTTP/1.1 {line}", "Content-Length: 0", "Connection: close", *headers])
    writer.write(f"{text}\r\n\r\n".encode())
    await writer.drain()


async def _hang(_: Targets, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await reader.read()  # until the caller has had enough


async def _drip(_: Targets, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n" + b"X-Slow: y\r\n" * 100_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(DRIP_S)


async def _huge(_: Targets, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 500 No\r\nContent-Length: {HUGE_BYTES}\r\n\r\n".encode())
    for _n in range(HUGE_BYTES // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()


async def _redirect(targets: Targets, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _status(
        writer, "307 Temporary Redirect", f"Location: http://127.0.0.1:{targets.inside_port}/inside"
    )


async def _500(_: Targets, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _status(writer, "500 No")


async def _429(_: Targets, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _status(writer, "429 Too Many", f"Retry-After: {RETRY_AFTER_S}")


MODES: dict[str, ModeOf | None] = {
    "refused": None,
    "error": _500,
    "busy": _429,
    "hang": _hang,
    "drip": _drip,
    "huge": _huge,
    "redirect": _redirect,
    "killed": _hang,
}
"""refused: its port is closed at first. killed: it hangs while the engine is killed."""
WELL = "well"
"""A target that takes every call."""


class Targets(threading.Thread):
    """One target a mode, each on a port of its own. A context manager.

    modes   of MODES, or WELL
    heard   mode → how often each alert id was taken
    calls   mode → calls in all; inside: calls of the address a redirect leads to, which must stay 0
    early   calls that came before their Retry-After
    """

    def __init__(self, modes: Sequence[str] = tuple(MODES)) -> None:
        super().__init__(name="webhook targets", daemon=True)
        self.modes = list(modes)
        self.ports: dict[str, int] = {}
        self.heard: dict[str, Counter[str]] = {mode: Counter() for mode in modes}
        self.calls: Counter[str] = Counter()
        self.inside = 0
        self.inside_port = 0
        self.early = 0
        self._seen: dict[str, float] = {}
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self.hanging = 0

    def __enter__(self) -> Targets:
        self.start()
        self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self.join(10)

    def run(self) -> None:
        """Thread body."""
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        servers = []
        for mode in self.modes:
            # The one that goes and comes back has a port that nobody else is lent meanwhile.
            port = free_port() if mode == "refused" else 0
            server = await asyncio.start_server(lambda r, w, m=mode: self._answer(m, r, w), "127.0.0.1", port)
            self.ports[mode] = server.sockets[0].getsockname()[1]
            servers.append(server)
        inside = await asyncio.start_server(self._inside, "127.0.0.1", 0)
        self.inside_port = inside.sockets[0].getsockname()[1]
        if "refused" in self.modes:
            servers[self.modes.index("refused")].close()
        self._ready.set()
        if "refused" in self.modes:
            await asyncio.wait([asyncio.ensure_future(self._ended.wait())], timeout=CLOSED_S)
            again = await asyncio.start_server(
                lambda r, w: self._answer("refused", r, w), "127.0.0.1", self.ports["refused"]
            )
            servers.append(again)
        await self._ended.wait()
        for server in [*servers, inside]:
            server.close()

    def config(self, more: str = "") -> str:
        """The engine's tables for all of them; ``more``: lines of each."""
        return "".join(
            f'[[webhook]]\nname = "{mode}"\nurl = "http://127.0.0.1:{port}/hook"\n{more}\n'
            for mode, port in self.ports.items()
        )

    async def _inside(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.inside += 1
        writer.close()

    async def _answer(self, mode: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                self.calls[mode] += 1
                now, key = time.monotonic(), f"{mode} {fields['webhook-id']}"
                first = key not in self._seen
                since = now - self._seen.setdefault(key, now)
                misbehave = MODES.get(mode)
                if first and misbehave is not None:
                    self.hanging += mode == "killed"
                    await misbehave(self, reader, writer)
                    return
                self.early += mode == "busy" and since < RETRY_AFTER_S
                self.heard[mode][str(body["data"].get("id"))] += 1
                await _status(writer, "200 OK")
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the caller hung up, which is part of it
        finally:
            writer.close()
