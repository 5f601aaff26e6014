"""Feed: one picture of the city a second to any number of WebSockets, encoded once for all of them.

Owns the clients, each with a task that writes and one flag that wakes it: who does not read is left behind alone, and
is sent a keyframe when it reads again. Knows nothing of what stands in a message.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import WSCloseCode, web

from console.logins import Session

log = logging.getLogger("yuzui.console")

SEND_BYTES: Final = 256 * 1024
"""Kept by the kernel for one client: a larger buffer would hold a minute of old pictures for who does not read."""
HEARTBEAT_S: Final = 20.0
MESSAGE_BYTES_MAX: Final = 4096
SESSION_ENDED: Final = 4401
STALLED: Final = 4408
SWEEP_S: Final = 1.0


@dataclass(slots=True)
class Tick:
    """What goes out at one second. ``delta`` applies to ``seq`` - 1; None where there is no such frame."""

    seq: int
    registry: int
    delta: bytes | None
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Client:
    """One WebSocket. seq: the frame it has, -1 for none; had: version of each text topic it has."""

    ws: web.WebSocketResponse
    session: Session
    transport: asyncio.Transport | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    seq: int = -1
    registry: int | None = None
    had: dict[str, int] = field(default_factory=dict)
    sending_since: float | None = None


Text = Callable[[int | None], tuple[int, str] | None]
"""A topic: given the version a client has (None for none), the newest and what brings it there; None for nothing."""


class Feed:
    """The clients and what is sent to them. All calls on the loop.

    hello     the first message of a client, and again when the registry changed
    keyframe  bytes of the newest frame, whole; encoded at most once a frame
    topics    texts beside the frames, by name
    """

    def __init__(
        self,
        hello: Callable[[Session], str],
        keyframe: Callable[[], Awaitable[tuple[int, bytes] | None]],
        topics: dict[str, Text],
        holds: Callable[[Session], bool],
        *,
        clients_max: int,
        stalled_s_max: float,
    ) -> None:
        self._hello = hello
        self._keyframe = keyframe
        self._topics = topics
        self._holds = holds
        self._clients_max = clients_max
        self._stalled_s_max = stalled_s_max
        self._clients: set[Client] = set()
        self._tick: Tick | None = None
        self._registry: int | None = None
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._clients)

    def publish(self, tick: Tick) -> None:
        """A new frame; wakes everybody."""
        self._tick = tick
        self._registry = tick.registry
        self.wake()

    def wake(self) -> None:
        """Something is new: each client looks what of it it has not."""
        for client in self._clients:
            client.wake.set()

    async def serve(self, request: web.Request, session: Session) -> web.WebSocketResponse | None:
        """Speak to one client until it goes; None where there are too many."""
        if len(self._clients) >= self._clients_max:
            self.counts["clients_refused"] += 1
            return None
        ws = web.WebSocketResponse(heartbeat=HEARTBEAT_S, compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await ws.prepare(request)
        _keep_little(request)
        client = Client(ws, session, request.transport)
        self._clients.add(client)
        self.counts["clients_seen"] += 1
        client.wake.set()
        writer = asyncio.create_task(self._write(client), name="console client")
        try:
            async for _ in ws:
                pass  # it has nothing to say; reading is how its end is noticed
        except ConnectionError:
            pass  # gone without a good-bye, while we wrote
        finally:
            self._clients.discard(client)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return ws

    async def _write(self, client: Client) -> None:
        try:
            while True:
                await client.wake.wait()
                client.wake.clear()
                await self._bring_up(client)
        except (ConnectionError, RuntimeError):
            pass  # gone; the reading side ends it
        except Exception:
            log.exception("a client of the map could not be served")
            _abort(client)

    async def _bring_up(self, client: Client) -> None:
        if client.registry is None or client.registry != self._registry:
            await self._text(client, self._hello(client.session))
            client.registry, client.seq = self._registry, -1
        tick = self._tick
        if tick is not None and tick.seq != client.seq and tick.registry == client.registry:
            if tick.delta is not None and client.seq == tick.seq - 1:
                await self._binary(client, tick.delta)
                client.seq = tick.seq
                self.counts["deltas"] += 1
            else:
                found = await self._keyframe()
                if found is not None:
                    await self._binary(client, found[1])
                    client.seq = found[0]
                    self.counts["keyframes"] += 1
        for name, topic in self._topics.items():
            news = topic(client.had.get(name))
            if news is not None:
                client.had[name] = news[0]
                await self._text(client, news[1])

    async def _binary(self, client: Client, body: bytes) -> None:
        client.sending_since = time.monotonic()
        await client.ws.send_bytes(body)
        client.sending_since = None
        self.counts["bytes"] += len(body)

    async def _text(self, client: Client, body: str) -> None:
        client.sending_since = time.monotonic()
        await client.ws.send_str(body)
        client.sending_since = None
        self.counts["bytes"] += len(body)

    @property
    def stalled(self) -> int:
        """Clients that have not read for more than a second."""
        now = time.monotonic()
        return sum(c.sending_since is not None and now - c.sending_since > SWEEP_S for c in self._clients)

    async def sweep(self) -> None:
        """For ever: let go of who does not read and of whose session has ended."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            for client in list(self._clients):
                since = client.sending_since
                if since is not None and now - since > self._stalled_s_max:
                    self.counts["clients_stalled"] += 1
                    _abort(client)
                elif not self._holds(client.session):
                    self._close_soon(client, SESSION_ENDED, b"log in again")

    def end_session(self, session: Session) -> None:
        """Its WebSockets are closed."""
        for client in list(self._clients):
            if client.session.key and client.session.key == session.key:
                self._close_soon(client, SESSION_ENDED, b"logged out")

    def _close_soon(self, client: Client, code: int, why: bytes) -> None:
        self._clients.discard(client)
        task = asyncio.create_task(_close(client, code, why))
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def close(self) -> None:
        """We stop: everybody is told."""
        gone = list(self._clients)
        self._clients.clear()
        await asyncio.gather(
            *(_close(client, WSCloseCode.GOING_AWAY, b"the engine stops") for client in gone)
        )


CLOSE_S_MAX: Final = 1.0
_closing: set[asyncio.Task[None]] = set()
"""The loop keeps only weak references of tasks."""


async def _close(client: Client, code: int, why: bytes) -> None:
    try:
        await asyncio.wait_for(client.ws.close(code=code, message=why), CLOSE_S_MAX)
    except (TimeoutError, ConnectionError, RuntimeError):
        _abort(client)


def _abort(client: Client) -> None:
    if client.transport is not None:
        client.transport.abort()


def _keep_little(request: web.Request) -> None:
    found = request.transport.get_extra_info("socket") if request.transport is not None else None
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
