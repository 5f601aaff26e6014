"""Delivery: the loop that carries queued notifications to their targets, and makes the rounds.

Owns the calls in the air and the counters. Order and retries are anomaly.alerts.lane's, the ways to targets
anomaly.alerts.carriers', what is durable anomaly.alerts.letters', what time brings anomaly.alerts.rounds'.
A target that hangs holds up only its own lane; SQLite works on a thread of its own, so the loop waits for no disk.

Waits and ages are told by a clock that no one sets: lanes live by ``steady_us``, the wall clock is what files and
receivers are told. So a clock that jumps ahead makes no dead letter, and one that jumps back delays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from anomaly.alerts.carriers import Carrier, carrier_of
from anomaly.alerts.lane import RETRY_S, Answer, Lane, Notice, Settlement
from anomaly.alerts.letters import Letters, Loaded
from anomaly.alerts.outbox import Outbox
from anomaly.alerts.outboxfile import DEAD, QUEUED, SENT, SUPERSEDED
from anomaly.alerts.rounds import Rounds
from anomaly.settings import AlertSettings, InhibitSettings, RouteSettings, TargetSettings
from storage.units import US_PER_S

log = logging.getLogger("yuzui.delivery")
T = TypeVar("T")

POLL_S: Final = 1.0
"""How often there is looked for what other processes did: `yuzui outbox retry`, `yuzui alert test`."""
STORE_PAUSE_S: Final = 1.0
"""After an error of the outbox's file, before the next try."""
STOP_S_MAX: Final = 3.0
"""Calls in the air when the engine stops get this long; what has no answer then is sent again later."""
LATENCIES_KEPT: Final = 10_000
PER_MINUTE_ROBOT: Final = 18
"""Robots stop listening for minutes above 20 messages a minute; what waits meanwhile is told in its newest state."""
ROBOTS: Final = frozenset({"wecom", "dingtalk", "feishu"})


@dataclass(slots=True)
class Target:
    """One target: its name, its lane and the way to it."""

    name: str
    lane: Lane
    carrier: Carrier


class Deliverer:
    """``run`` delivers until ``stop``; ``wake`` says that there is something new, from any thread.

    counters     webhooks_delivered, webhooks_failed (and by reason), webhooks_dead, webhooks_superseded,
                 webhooks_disabled, outbox_errors
    latencies_s  of the newest deliveries, from queued to answered
    """

    def __init__(
        self,
        path: Path,
        targets: Sequence[TargetSettings],
        alerts: AlertSettings | None = None,
        *,
        routes: Sequence[RouteSettings] = (),
        inhibits: Sequence[InhibitSettings] = (),
        retry_s: tuple[float, ...] = RETRY_S,
        spread: Callable[[], float] = random.random,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        steady_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        self._settings = tuple(targets)
        self._alerts = alerts or AlertSettings()
        self._retry_s = retry_s
        self._spread = spread
        self._now_us = now_us
        self._steady_us = steady_us
        self.counters: Counter[str] = Counter()
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._targets: dict[str, Target] = {}
        outbox = Outbox(path, targets, alerts, routes=routes, inhibits=inhibits, now_us=now_us)
        self._letters = Letters(outbox)
        self._rounds = Rounds(outbox, outbox.policy, outbox.link)
        self._store = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._landed = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._unsettled: list[Settlement] = []
        self._settling: set[int] = set()

    @property
    def waiting(self) -> int:
        """Notifications not delivered."""
        return sum(len(target.lane) for target in self._targets.values())

    @property
    def oldest_s(self) -> float:
        """Age of the oldest of them; 0 where there is none."""
        oldest = [at for target in self._targets.values() if (at := target.lane.oldest) is not None]
        return (self._steady_us() - min(oldest)) / US_PER_S if oldest else 0.0

    def renew(self) -> None:
        """Read the certificates of all targets again. On the loop."""
        for target in self._targets.values():
            target.carrier.renew()

    def wake(self) -> None:
        """The outbox holds something new. From any thread, at any time; does not wait."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Deliver until ``stop``. Raises ValueError or OSError at once for an unusable secret or template."""
        self._loop = asyncio.get_running_loop()
        books: list[asyncio.Task[None]] = []
        try:
            await self._open()
            books.append(asyncio.create_task(self._keep_books(), name="delivery books"))
            if self._alerts.heartbeat_s:
                books.append(asyncio.create_task(self._beat(), name="heartbeat"))
            for book in books:
                book.add_done_callback(self._task_ended)
            looked = -POLL_S
            more = True
            while not self._stopping:
                if self._failure is not None:
                    raise self._failure
                self._woken.clear()
                if self._loop.time() - looked >= POLL_S:
                    looked = self._loop.time()
                    await self._look_for_changes()
                    await self._make_rounds()
                more = await self._take_in()
                for target in self._targets.values():
                    self._launch(target)
                if not more:
                    await self._rest()
        finally:
            try:
                await self._close(books)
            finally:
                # Whoever stops us waits for this, whatever could not be closed.
                self._ended.set()

    async def stop(self) -> None:
        """End: calls in the air may land, what came of them is kept. Returns when all is closed."""
        if self._loop is None:
            self._letters.close()
            return
        self._stopping = True
        self._woken.set()
        await self._ended.wait()

    async def _open(self) -> None:
        await self._believe()
        disabled = await self._on_store(self._letters.disabled)
        for target in self._settings:
            per_minute = target.per_minute_max
            if per_minute is None:
                per_minute = PER_MINUTE_ROBOT if target.format in ROBOTS else 0
            lane = Lane(
                target.concurrency_max,
                round(target.give_up_s * US_PER_S),
                self._spread,
                self._retry_s,
                per_minute,
            )
            lane.disabled = target.name in disabled
            carrier = carrier_of(target, self._alerts.sender)
            self._targets[target.name] = Target(target.name, lane, carrier)
            if carrier.refused or lane.disabled:
                log.warning("target %s is not called: %s", target.name, carrier.refused or "it answered 410")

    async def _believe(self) -> None:
        try:
            strange = await self._on_store(lambda: self._letters.believe(self._now_us()))
        except sqlite3.Error as failure:
            self._store_failed(failure)
            return
        if strange:
            log.warning("a clock was set while nobody ran: %d times of notifications count from now", strange)

    async def _on_store(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._store, work)

    def _ahead(self) -> int:
        """Of the lanes' clock, the wall clock as it is now, µs."""
        return self._now_us() - self._steady_us()

    async def _take_in(self) -> bool:
        """Take in what is newly queued; whether there is more."""
        try:
            loaded, more = await self._on_store(self._letters.new)
        except sqlite3.Error as failure:
            self._store_failed(failure)
            await asyncio.sleep(STORE_PAUSE_S)
            return True
        self._add(loaded)
        return more

    async def _look_for_changes(self) -> None:
        try:
            if not await self._on_store(self._letters.touched):
                return
            loaded = await self._on_store(self._letters.again)
            disabled = await self._on_store(self._letters.disabled)
        except sqlite3.Error as failure:
            self._store_failed(failure)
            return
        queued = {one.notice.rowid for one in loaded}
        for name, target in self._targets.items():
            target.lane.keep(queued)
            target.lane.disabled = name in disabled
        self._add([one for one in loaded if one.notice.rowid not in self._settling])

    async def _make_rounds(self) -> None:
        try:
            self.counters["alerts_rounds_queued"] += await self._on_store(
                lambda: self._rounds.make(self._now_us())
            )
        except sqlite3.Error as failure:
            self._store_failed(failure)
        except Exception:
            # What is queued goes out all the same: digests and escalations are not worth tonight's first call.
            self.counters["alerts_rounds_failed"] += 1
            log.exception("the rounds of alerts failed")

    def _add(self, loaded: Sequence[Loaded]) -> None:
        now, ahead = self._steady_us(), self._ahead()
        for one in loaded:
            target, notice = self._targets.get(one.target), one.notice
            if target is None:
                self._settle(
                    [Settlement(notice.rowid, DEAD, notice.attempts, now, "no such target any more")]
                )
            else:
                notice.created_at = min(notice.created_at - ahead, now)
                notice.next_at -= ahead
                self._settle(target.lane.add(notice, now))

    async def _rest(self) -> None:
        """Until woken, until a retry is due, or for the next look at what others did."""
        now = self._steady_us()
        due = [at for target in self._targets.values() if (at := target.lane.wakes_at(now)) is not None]
        rest_s = min([POLL_S, *(max(at - now, 0) / US_PER_S for at in due)])
        try:
            await asyncio.wait_for(self._woken.wait(), rest_s)
        except TimeoutError:
            return

    def _launch(self, target: Target) -> None:
        """Send all that may go to a target now."""
        while not self._stopping and (notice := target.lane.take(self._steady_us())) is not None:
            call = asyncio.create_task(self._call(target, notice), name=f"target {target.name}")
            self._calls.add(call)
            call.add_done_callback(self._task_ended)

    def _task_ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (failure := call.exception()) is not None:
            self._failure = failure
            self._woken.set()

    async def _call(self, target: Target, notice: Notice) -> None:
        """One call and what comes of it."""
        answer = await self._send(target, notice)
        now = self._steady_us()
        if answer.error is None:
            self.latencies_s.append((now - notice.created_at) / US_PER_S)
        else:
            self.counters["webhooks_failed"] += 1
            self.counters[f"webhooks_failed_{answer.error}"] += 1
        settlements = target.lane.land(notice, answer, now)
        if answer.gone:
            log.error("target %s answered 410: it is not called again until retried", target.name)
            self.counters["webhooks_disabled"] += 1
        self._settle(settlements)
        self._launch(target)
        # What became due only now, a retry or a pause, is the run loop's to wait for.
        if answer.error is not None:
            self._woken.set()

    async def _send(self, target: Target, notice: Notice) -> Answer:
        body = notice.body
        if body is None:
            try:
                body = await self._on_store(lambda: self._letters.body(notice.rowid))
            except sqlite3.Error as failure:
                self._store_failed(failure)
                return Answer("outbox")
        try:
            return await target.carrier.send(notice, body, self._now_us())
        except Exception:
            # One notification that cannot be put into a target's words must not end the calls to all others.
            log.exception("target %s: a mistake of ours with %s", target.name, notice.webhook_id)
            return Answer("mistake")

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        counted = {SENT: "webhooks_delivered", DEAD: "webhooks_dead", SUPERSEDED: "webhooks_superseded"}
        for one in settlements:
            if one.state != QUEUED:
                self.counters[counted[one.state]] += 1
            self._unsettled.append(one)
            self._settling.add(one.rowid)
        if settlements:
            self._landed.set()

    async def _keep_books(self) -> None:
        """Write what became of notifications: whatever landed while the last write was on its way."""
        while True:
            await self._landed.wait()
            self._landed.clear()
            if not await self._write_books():
                await asyncio.sleep(STORE_PAUSE_S)
                self._landed.set()

    async def _write_books(self) -> bool:
        batch = list(self._unsettled)
        gone = [name for name, target in self._targets.items() if target.lane.disabled]
        now, ahead = self._now_us(), self._ahead()

        def write() -> None:
            self._letters.settle(batch, now, ahead)
            for name in set(gone) - self._letters.disabled():
                self._letters.disable(name, now)

        try:
            await self._on_store(write)
        except sqlite3.Error as failure:
            self._store_failed(failure)
            return False
        del self._unsettled[: len(batch)]
        self._settling = {one.rowid for one in self._unsettled}
        return True

    def _store_failed(self, failure: sqlite3.Error) -> None:
        self.counters["outbox_errors"] += 1
        log.error("outbox: %s", failure)

    async def _beat(self) -> None:
        # A robot's readers are people: silence is noticed by machines.
        names = [target.name for target in self._settings if target.format not in ROBOTS]
        while True:
            await asyncio.sleep(self._alerts.heartbeat_s)
            try:
                await self._on_store(lambda: self._letters.heartbeat(names))
            except sqlite3.Error as failure:
                self._store_failed(failure)
            self._woken.set()

    async def _close(self, books: Sequence[asyncio.Task[None]]) -> None:
        if self._calls:
            await asyncio.wait(self._calls, timeout=STOP_S_MAX)
        for task in (*self._calls, *books):
            task.cancel()
        await asyncio.gather(*self._calls, *books, return_exceptions=True)
        if self._unsettled:
            await self._write_books()
        for target in self._targets.values():
            await target.carrier.close()
        await self._on_store(self._letters.close)
        self._store.shutdown(wait=False)
