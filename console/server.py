"""Console: the map's server, put together, in the engine's own loop.

Owns the order of starting and stopping, the loop that turns the judge's pictures into frames, and the console's own
numbers. Knows the engine only by what it is given: the live picture, an outbox, the lake's folder, a count of messages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from anomaly.alerts.outbox import Outbox
from anomaly.live import Live
from console import frames
from console.board import Board, taken_mask
from console.display import City, Display, display
from console.feed import Feed, Tick
from console.frames import DRILL, REPLAY
from console.guard import Guard, Refused, is_loopback
from console.lake import Lake
from console.logins import Logins, Session
from console.pointbook import PointBook
from console.pulse import Pulse
from console.queries import Library
from console.replay import Replay
from console.settings import Options
from console.shown import Painter, Shown
from console.static_files import StaticFiles
from storage.batch import US_PER_S
from storage.certificates import ServerTls, server_files

log = logging.getLogger("yuzui.console")

LOOK_S: Final = 0.25
"""Between two looks at the outbox: an answer given in one browser stands in every other within half a second."""
REQUEST_BYTES_MAX: Final = 64 * 1024
ENCODED_KEPT: Final = 512
STOP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Marks:
    """What every output says of this engine: its clock is that of events, it is a drill; and its version."""

    replay: bool = False
    drill: bool = False
    engine_version: str = ""

    @property
    def mode(self) -> str:
        """One word for people."""
        return "replay" if self.replay else "drill" if self.drill else "live"


class Console:
    """The server of one engine. ``async with Console(...)``; ``port`` is known then.

    live      the judge's side; told here whom to call
    outbox    a connection of our own
    messages  how many messages the engine received so far
    """

    def __init__(
        self,
        options: Options,
        root: Path,
        city: City,
        live: Live,
        outbox: Outbox,
        messages: Callable[[], int],
        marks: Marks = Marks(),
    ) -> None:
        """Raises console.logins.UsersFault, OSError, ssl.SSLError, ValueError for what cannot be served safely."""
        _refuse_unsafe(options)
        self.options = options
        self.root = root
        self.city = city
        self.marks = marks
        self.logins = Logins(root, options.users_file, options.session_hours * 3600)
        self.guard = Guard(options, self.logins)
        self.board = Board(outbox)
        self.pulse = Pulse(messages)
        self.lake = Lake.for_histories(root, options)
        self.asker = Lake.for_queries(root, options)
        self.library = Library(Path(options.queries_dir) if options.queries_dir else None)
        self.logins_failed = 0
        self.files = StaticFiles()
        self.feed = Feed(
            self._hello, self._keyframe, {"kpi": self.pulse.topic, "alerts": self.board.topic}, self.logins.holds,
            clients_max=options.clients_max, stalled_s_max=options.stalled_s_max,
        )  # fmt: skip
        self.port = 0
        self.shown: Shown | None = None
        self.book: PointBook | None = None
        self.seq = 0
        self._live = live
        files = server_files(options.tls_cert_file, options.tls_key_file, options.tls_client_ca_file)
        self.tls = ServerTls(files) if files is not None else None
        self._flags = REPLAY * marks.replay | DRILL * marks.drill
        self.replay = Replay(self.lake, city.time_zone, self._seen, self._judged_s, self._flags)
        self._painter: Painter | None = None
        self._key: tuple[int, Future[bytes]] | None = None
        self._encode_ms: deque[float] = deque(maxlen=ENCODED_KEPT)
        self._news = asyncio.Event()
        self._drawn = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        # One thread each, so that what they own is touched by one at a time.
        self._encoder = ThreadPoolExecutor(1, "console-encode")
        self._clerk = ThreadPoolExecutor(1, "console-outbox")

    async def __aenter__(self) -> Console:
        from console.api import application  # it needs this class

        loop = asyncio.get_running_loop()
        self._live.on_picture = lambda: _tell(loop, self._news)
        self._news.set()
        self._runner = web.AppRunner(
            application(self), access_log=None, handle_signals=False, shutdown_timeout=STOP_S
        )
        await self._runner.setup()
        try:
            context = self.tls.context if self.tls is not None else None
            site = web.TCPSite(self._runner, self.options.host, self.options.port, ssl_context=context)
            await site.start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        self._tasks = [
            asyncio.create_task(self._draw(), name="console frames"),
            asyncio.create_task(self._watch(), name="console alerts"),
            asyncio.create_task(self.feed.sweep(), name="console sweep"),
        ]
        if self._live.picture is not None:
            await self._drawn.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._live.on_picture = lambda: None
        await self.feed.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lake.close()
        await self.asker.close()
        if self._runner is not None:
            await self._runner.cleanup()
        for pool in (self._encoder, self._clerk):
            pool.shutdown(wait=True, cancel_futures=True)
        self.board.outbox.close()

    @property
    def display(self) -> Display | None:
        """The display of the newest frame."""
        return self.shown.display if self.shown is not None else None

    @property
    def address(self) -> str:
        """Where the page is."""
        scheme = "https" if self.tls is not None else "http"
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"{scheme}://{host}:{self.port}/"

    def vitals(self) -> dict[str, Any]:
        """The console's own numbers, named as ingest.ops knows them."""
        now = self.shown.picture if self.shown is not None else None
        return {
            "console_clients": len(self.feed),
            "console_clients_stalled": self.feed.stalled,
            "console_clients_dropped": self.feed.counts["clients_stalled"],
            "console_clients_refused": self.feed.counts["clients_refused"],
            "console_ticks": self.seq,
            "console_deltas": self.feed.counts["deltas"],
            "console_keyframes": self.feed.counts["keyframes"],
            "console_bytes": self.feed.counts["bytes"],
            "console_requests_refused": self.guard.refused,
            "console_requests": self.guard.asked,
            "console_logins_failed": self.logins_failed,
            "console_lake_questions": self.lake.asked,
            "console_lake_refused": self.lake.refused,
            "console_lake_ms": _middle(self.lake.took_ms),
            "console_queries": self.asker.asked,
            "console_queries_refused": self.asker.refused,
            "console_queries_ms": _middle(self.asker.took_ms),
            "console_encode_ms": _middle(self._encode_ms),
            "console_lag_s": max(0.0, time.time() - now.now_us / 1e6)
            if now and not self.marks.replay
            else None,
        }

    def _seen(self) -> Shown:
        if self.shown is None:
            raise Refused(503, "the first picture is not there yet", {"Retry-After": "1"})
        return self.shown

    def _judged_s(self) -> float:
        """Up to when everything received is judged; where events are the clock, that cannot be told and now counts."""
        return time.time() if self.marks.replay else self._seen().picture.now_us / US_PER_S

    async def act(self, what: Callable[[Outbox], Any]) -> Any:
        """Something a person does to alerts, on the thread that owns the outbox; everybody sees it at once."""
        loop = asyncio.get_running_loop()
        done = await loop.run_in_executor(self._clerk, what, self.board.outbox)
        await self._look(anew=True)
        return done

    async def read(self, what: Callable[[Outbox], Any]) -> Any:
        """What stands in the outbox, on the thread that owns it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._clerk, what, self.board.outbox)

    async def _draw(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                drawn = await loop.run_in_executor(self._encoder, self._encode)
            except Exception:
                log.exception("a picture could not be shown")
                continue
            if drawn is not None:
                # On the loop, in one step for whoever looks there.
                self.book, self.shown, tick = drawn
                self.seq = tick.seq
                self.feed.publish(tick)
                self._drawn.set()

    def _encode(self) -> tuple[PointBook, Shown, Tick] | None:
        """The newest picture as a frame; on the encoder's thread."""
        picture, before = self._live.picture, self.shown
        if picture is None or (before is not None and picture is before.picture):
            return None
        painter, book = self._painter, self.book
        if painter is None or book is None or book.display.points is not picture.engine.points:
            book = PointBook(display(picture.engine.points, self.city), self.city)
            painter = self._painter = Painter(book.display, picture)
        of = book.display
        began = time.perf_counter()
        groups = self.board.groups
        shown = painter.paint(picture, taken_mask(groups, of))
        follows = before is not None and before.display is of
        delta = (
            frames.delta(before, shown, self.seq + 1, self._flags)
            if follows and before and len(self.feed)
            else None
        )
        self._encode_ms.append((time.perf_counter() - began) * 1000)
        self.pulse.beat(shown, self.seq + 1, groups)
        return book, shown, Tick(self.seq + 1, of.version, delta)

    async def _keyframe(self) -> tuple[int, bytes] | None:
        shown, seq = self.shown, self.seq
        if shown is None:
            return None
        if self._key is None or self._key[0] != seq:
            self._key = seq, self._encoder.submit(frames.keyframe, shown, seq, self._flags)
        return seq, await asyncio.wrap_future(self._key[1])

    def _hello(self, session: Session) -> str:
        of = self.display
        body = {
            "t": "hello", "registry": of.version if of else None, "now": time.time(), "mode": self.marks.mode,
            "engine_version": self.marks.engine_version,
            "user": {"name": session.name, "role": session.role, "anonymous": not session.key},
            "history": {"step_s": 1, "kpi": list(self.pulse.seconds)},
        }  # fmt: skip
        return orjson.dumps(body).decode()

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("alerts could not be read for the map")
            await asyncio.sleep(LOOK_S)

    async def _look(self, *, anew: bool = False) -> None:
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._clerk, lambda: self.board.look(self.display, anew=anew)):
            self.feed.wake()


def _middle(took_ms: deque[float]) -> float | None:
    """The median, ms; None of none."""
    ordered = sorted(took_ms)
    return round(ordered[len(ordered) // 2], 3) if ordered else None


def _tell(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    """From the judge's thread; a loop that has ended is told nothing."""
    try:
        loop.call_soon_threadsafe(news.set)
    except RuntimeError:
        pass


def _refuse_unsafe(options: Options) -> None:
    if options.users_file is None and not options.anonymous_view:
        raise ValueError("nobody could log in: name a users_file, or allow anonymous_view on loopback")
    if options.behind_proxy and options.anonymous_view:
        raise ValueError(
            "behind a proxy everybody comes from this machine: no anonymous_view with behind_proxy"
        )
    if is_loopback(options.host):
        return
    if options.users_file is None or options.anonymous_view:
        raise ValueError(f"{options.host} is not loopback: it needs a users_file, and no anonymous_view")
    if options.tls_cert_file is None and not options.behind_proxy:
        raise ValueError(
            f"{options.host} is not loopback: it needs tls_cert_file, or behind_proxy and a proxy with TLS"
        )
