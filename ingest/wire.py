"""Wire: from sockets to the journal, and acknowledgements back. The first half of the engine.

Owns the turn: poll sockets, decode, hand one group to the committer, acknowledge what is on disk.
Knows nothing of checks, Parquet or alerts; Judge reads the journal by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ingest.codecs.base import StreamCodec
from ingest.committer import Committer, Group
from ingest.config import Config
from ingest.credentials import Credentials
from ingest.decode.messages import Chunk, Messages
from ingest.decode.reasons import REASONS
from ingest.mqtt.poller import Poller
from ingest.mqtt.receipts import Receipt, Received, Segment, build_receipt, build_receipts
from ingest.ourclock import OurClock
from ingest.replaying import Replays
from ingest.routes import Routes, RouteTable
from ingest.slack import Slack
from ingest.sourcestats import SourceStats
from ingest.tcp.stations import Arrived, Stations
from storage.batch import I64, RawBatch
from storage.records import (
    Control,
    Gap,
    RecordType,
    Tick,
    encode,
    encode_events,
    encode_quarantine,
    encode_readings,
)

if TYPE_CHECKING:
    from ingest.mqtt.arena import Arena

log = logging.getLogger("yuzui.wire")

TICK_S = 1.0


class Wire:
    """Runs on the loop thread; every method is called there.

    Counts are those of its Messages (see there) and stand in every TICK record, as of the records
    before it: Judge proves the conservation identity at each.
    """

    def __init__(
        self,
        config: Config,
        routes: Routes,
        credentials: Credentials,
        poller: Poller,
        committer: Committer,
        *,
        events_clock: bool,
        known_us: int = 0,
    ) -> None:
        """``known_us``: when the engine last lived, for a clock that starts in the past."""
        self._config = config
        self._credentials = credentials
        self._routes = routes
        self._poller = poller
        self._committer = committer
        self.stations = Stations(self._stream_codec)
        self._events_clock = events_clock
        self.messages = Messages(routes, config.wire.unknown_kept_per_minute)
        self.sources = SourceStats(routes.points)
        self.replays: Replays | None = None
        """Set once Judge has read the whole journal."""
        self._pending_max = config.journal.pending_bytes_max
        self._due: list[Receipt] = []
        self._paused = False
        self._drained = True
        self._speakers: frozenset[int] = frozenset()
        self._next_tick = 0.0
        self._stopping = False
        self.clock = OurClock(known_us)
        self._clock_said = ""
        self._taken = np.zeros(len(routes.points.sources), np.int64)
        self.turned_at = time.monotonic()
        self.submitted = 0
        self.durable = 0
        self.acknowledged_messages = 0

    async def run(self) -> None:
        """Turn until ``stop``; returns when everything received is on disk and acknowledged."""
        slack = Slack(self._config.wire.poll_ms / 1000)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stopping:
            before = self.messages.counts["messages"]
            self.turn()
            brought, took_s = self.messages.counts["messages"] - before, time.monotonic() - self.turned_at
            commit_s = self._committer.commit_s[-1] if self._committer.commit_s else None
            wait_s = slack.wait_s(brought, self._speakers, took_s, commit_s, self._poller.backlog)
            due = max(due + wait_s, loop.time())
            await asyncio.sleep(max(0.0, due - loop.time()))
        await self._drain()

    def stop(self) -> None:
        """Ask ``run`` to end."""
        self._stopping = True

    def adopt(self, routes: Routes) -> None:
        """Take up another registry from the next turn on."""
        routes.keep(self._routes)
        self._tell_the_clock(self.now(), RawBatch.empty(), Counter())
        self._routes = routes
        self._taken = np.zeros(len(routes.points.sources), np.int64)
        self.messages.adopt(routes)
        self.sources.adopt(routes.points)

    def now(self) -> int:
        """µs since 1970 UTC, as far as our clock can be believed."""
        return self.clock.now(time.time_ns() // 1000, time.monotonic())

    def turn(self) -> None:
        """One poll of all sockets to one group for the journal."""
        self.turned_at = time.monotonic()
        self._press_back()
        now = self.now()
        if bool(self.clock.why) != bool(self._clock_said):
            log.critical("%s", self.clock.why or "our clock agrees with the city again")
        self._clock_said = self.clock.why
        bodies = [] if self._paused else self._replay(now)
        self.messages.set_window(now, open_ended=self._events_clock, lenient=bool(self._clock_said))
        arrivals = self._poller.poll(self.turned_at, now)
        self._speakers = arrivals.speakers
        receipts = self._decode_arena(arrivals.arena, now) if arrivals.arena is not None else []
        receipts += [self._decode(one, now) for one in arrivals.lots]
        answers = [(one, self._hear(one, now)) for one in self.stations.poll(self.turned_at)]
        bodies += self._bodies(now)
        backlog = self._poller.backlog or self.stations.backlog
        self._drained = self._drained and not self._paused and not backlog
        left = self.messages.nodes.take_left(self._routes.points, now)
        if left is not None:
            bodies.append(encode(left))
        if self.turned_at >= self._next_tick:
            bodies.append(self._tick(now))
        if bodies or receipts or answers:
            self._submit(bodies, receipts, answers)
        if self.replays is not None and (ended := self.replays.ended()) is not None:
            self._submit([], [], after=lambda: ended.unlink(missing_ok=True))

    def _replay(self, now: int) -> list[tuple[RecordType, bytes]]:
        if self.replays is None:
            return []
        return self.replays.turn(self._routes, self.messages, now, self._events_clock)

    @property
    def codec_counts(self) -> Counter[str]:
        """What the codecs of all sources count for themselves, "CODEC_NAME"."""
        found: Counter[str] = Counter()
        for source in self._routes.sources.values():
            for name, n in getattr(source.codec, "counts", {}).items():
                found[f"{source.settings.codec}_{name}"] += n
        return found

    def journal(self, record: Gap | Control) -> None:
        """Write a rare record: a gap, a deed."""
        self._submit([encode(record)], [])

    def _press_back(self) -> None:
        behind = self._committer.pending_bytes > self._pending_max
        if behind and not self._paused:
            log.warning("journal is behind by %d bytes: reading pauses", self._committer.pending_bytes)
            self._poller.pause()
            self.stations.pause()
        elif self._paused and not behind:
            self._poller.resume()
            self.stations.resume()
        self._paused = behind

    def _table(self, credential: str | None) -> RouteTable:
        return self._routes.table(credential, self._credentials.allows)

    def _decode_arena(self, arena: Arena[Segment], now: int) -> list[Receipt]:
        if not arena.count:
            return []
        refused = self.messages.feed_arena(arena, self._table, now, self._heard)
        return build_receipts(arena, *_told(refused))

    def _heard(self, segment: Segment) -> None:
        self.messages.nodes.ask(segment.conn.publish, self.turned_at)

    def _decode(self, received: Received, now: int) -> Receipt:
        conn = received.conn
        table = self._table(received.credential)
        chunk = Chunk(
            received.topics,
            received.payloads,
            received.heads,
            conn.client_id,
            not conn.from_publisher,
            received.oversized,
        )
        refused = self.messages.feed(table, chunk, now)
        self.messages.nodes.ask(conn.publish, self.turned_at)
        return build_receipt(received, *_told(refused))

    def _hear(self, arrived: Arrived, now: int) -> list[bytes]:
        """Decode what a station on plain TCP said; what it expects to hear once that is on disk."""
        route = self._routes.of_source(arrived.station.source)
        return self.messages.feed_frames(route, arrived.frames, arrived.station.client, now)

    def _stream_codec(self, source: str) -> StreamCodec | None:
        known = self._routes.sources.get(source)
        codec = known.codec if known is not None else None
        return codec if isinstance(codec, StreamCodec) else None

    def _bodies(self, now: int) -> list[tuple[RecordType, bytes]]:
        readings, refusals = self.messages.take(now)
        self._listen_for_the_time(readings, self.sources.took(readings), now)
        bodies = []
        if len(readings):
            bodies.append((RecordType.READINGS, encode_readings(readings)))
        if events := self.messages.take_events():
            bodies.append((RecordType.EVENT, encode_events(events)))
        if refusals:
            bodies.append((RecordType.QUARANTINE, encode_quarantine(refusals)))
        return bodies

    def _listen_for_the_time(self, readings: RawBatch, by_source: I64, now: int) -> None:
        """Whether the city agrees with our clock. Who spoke is added up and told once a second, or at once where
        something is outside its time window."""
        outside = self.messages.take_outside()
        if not self._events_clock:
            self._taken += by_source
        if outside or self.clock.why:
            self._tell_the_clock(now, readings, outside)

    def _tell_the_clock(self, now: int, readings: RawBatch, outside: Counter[str]) -> None:
        # While nothing is refused for its time, what is outside is among what was taken.
        kept = outside if self._clock_said and not self._events_clock else Counter[str]()
        names = self._routes.points.sources
        inside = {name: n - kept[name] for name, n in zip(names, self._taken.tolist(), strict=True) if n}
        self._taken[:] = 0
        self.clock.heard(now, readings.time, inside, outside)

    def _tick(self, now: int) -> tuple[RecordType, bytes]:
        self._next_tick = self.turned_at + TICK_S
        self._tell_the_clock(now, RawBatch.empty(), Counter())
        self.clock.look(self.turned_at)
        tick = encode(Tick(now, self._drained, dict(self.messages.counts)))
        self._drained = True
        return tick

    def _submit(
        self,
        bodies: Sequence[tuple[RecordType, bytes]],
        receipts: Sequence[Receipt],
        answers: Sequence[tuple[Arrived, list[bytes]]] = (),
        after: Callable[[], object] | None = None,
    ) -> None:
        """``after``: called when the group, and every one before it, is on disk."""
        self.submitted += 1

        def then() -> None:
            self.durable += 1
            if after is not None:
                after()
            if receipts:
                if not self._due:
                    asyncio.get_running_loop().call_soon(self._acknowledge)
                self._due += receipts
            self.stations.answer(answers)

        self._committer.submit(Group(bodies, then))

    def _acknowledge(self) -> None:
        """All groups of one commit together: one send a connection."""
        due, self._due = self._due, []
        self._poller.acknowledge(due)
        self.acknowledged_messages += sum(receipt.messages for receipt in due)

    async def _drain(self) -> None:
        """Everything read is journaled and acknowledged; nothing new is read."""
        self._submit([self._tick(self.now())], [])
        while self.durable < self.submitted:  # noqa: ASYNC110 - once, at the end; an Event a group would cost always
            await asyncio.sleep(self._config.wire.poll_ms / 1000)
        self._acknowledge()


def _told(refused: Mapping[int, str]) -> tuple[dict[int, int], dict[int, str]]:
    """MQTT 5 reason codes and words, by message, for reasons by message."""
    codes = {index: REASONS[reason].code for index, reason in refused.items()}
    return codes, {index: f"{why}: {REASONS[why].advice}" for index, why in refused.items()}
