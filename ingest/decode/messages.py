"""All messages of one poll to one batch of columns: the hot loop of decoding.

Owns the short way for the common message and the counting of what became of every message.
Everything the short way does not cover goes, message by message, to the general decoder. There are two short
ways: ``feed_arena``, a kernel over all connections at once, and ``feed``, plain Python for one connection,
which takes what does not come through an arena, and everything where there is no numba.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from ingest.codecs.base import Common
from ingest.decode.by_codec import decode_common
from ingest.decode.columns import BEHIND, UNTIMED, Columns
from ingest.decode.discreet import masked_refusal, reason_and_hash
from ingest.decode.json_readings import JsonReadings
from ingest.decode.message import Message, Outcome, refusal_of
from ingest.decode.refused import Refused
from ingest.kernels.compiling import IS_COMPILED
from ingest.nodes import Nodes
from ingest.routes import Route, Routes, RouteTable
from storage.batch import I32, RawBatch
from storage.records import Event, Refusal

if TYPE_CHECKING:
    from ingest.decode.shortway import ShortWay
    from ingest.mqtt.arena import Arena

RETAIN = 0x01
"""Bit of a PUBLISH's first byte (MQTT 3.3.1.3)."""
US_PER_MINUTE = 60_000_000
BOUNDED_REASONS = frozenset({"unknown_topic", "unknown_point", "not_allowed"})
"""Refusals whose number is the sender's choice, not the registry's: kept up to a bound, counted beyond it."""


@dataclass(slots=True)
class Chunk:
    """One connection's messages, in the order received, as the decoder wants them.

    heads      first byte of each PUBLISH
    client     who sent them, for the quarantine
    oversized  indices of messages of which only the beginning is here
    """

    topics: Sequence[bytes]
    payloads: Sequence[bytes]
    heads: Sequence[int]
    client: str | None
    from_broker: bool = False
    oversized: Sequence[int] = ()


TableOf = Callable[[str | None], RouteTable]
"""The routes of a credential."""


class Messages:
    """Decodes what connections received into one growing batch.

    counts: messages, received (readings; an unreadable message counts as one), quarantined,
    quarantined_not_kept (counted only, beyond the bound a minute), retained_ignored, untimed.
    """

    def __init__(self, routes: Routes, kept_per_minute: int) -> None:
        self._kept_per_minute = kept_per_minute
        self._kept: Counter[tuple[str, str]] = Counter()
        self._minute = 0
        self._columns = Columns()
        self._credentials: dict[str | None, int] = {None: 0}
        self._refusals: list[Refusal] = []
        self._events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.refused_by_reason: Counter[tuple[str, str]] = Counter()
        self._outside: Counter[str] = Counter()
        self.nodes = Nodes()
        self.kept_bytes: Counter[str] = Counter()
        """Of each source, in quarantine: what the lake holds already is set at the start."""
        self._window: tuple[int, bool, bool] = (0, False, False)
        self._window_set = True
        self._short: ShortWay | None = None
        self.adopt(routes)

    def adopt(self, routes: Routes) -> None:
        """Decode by another registry from here on; between two polls."""
        self._routes = routes
        self._general = JsonReadings(routes.points, routes.number_of)
        if IS_COMPILED:
            from ingest.decode.shortway import ShortWay
            from ingest.kernels.arrange import Arrange

            self._short = ShortWay(routes)
            self._columns.arranging = Arrange(len(routes.points))

    def set_window(self, now_us: int, *, open_ended: bool = False, lenient: bool = False) -> None:
        """Move every source's time window; called once a poll. ``lenient`` as in ingest.routes.Source."""
        self._window = (now_us, open_ended, lenient)
        self._window_set = False

    def _set_general_window(self) -> None:
        """For the ways in plain Python: not before something takes them in this poll."""
        if not self._window_set:
            now_us, open_ended, lenient = self._window
            self._routes.set_window(now_us, open_ended=open_ended, lenient=lenient)
            self._window_set = True

    def feed_arena(
        self,
        arena: Arena[Any],
        table_of: TableOf,
        received_at: int,
        heard: Callable[[Any], None] = lambda _owner: None,
    ) -> dict[int, str]:
        """Decode all messages of an arena; returns message index to reason where any of it was refused.

        Its owners have ``client_id``, ``credential`` and ``from_publisher`` (ingest.mqtt.receipts.Segment);
        ``heard`` is told of one after each message of its that the general decoder took.
        """
        assert self._short is not None, "arenas need kernels"
        now_us, open_ended, _ = self._window
        self._short.set_window(now_us, open_ended=open_ended)
        columns = self._columns
        credentials = self._credentials
        facts = np.array(
            [
                (credentials.setdefault(peer.credential, len(credentials)), not peer.from_publisher)
                for peer in arena.owners
            ],
            np.int32,
        ).reshape(-1, 2)
        everything = np.arange(arena.count, dtype=np.int32)
        left, asked = self._short.decode(arena, facts, everything, columns)
        if asked.any():
            left = self._ask(arena, facts, left, asked, table_of)
        strange: Sequence[bool] = ()
        timed = 0
        if len(left):
            left, unheard, timed = self._short.packs.decode(arena, facts, left, received_at, columns)
            strange = unheard.tolist()
        self.counts["messages"] += arena.count
        self.counts["received"] += columns.filled
        untimed = timed + int(np.count_nonzero(columns.rows.time[: columns.filled] == UNTIMED))
        if untimed:
            self.counts["untimed"] += untimed
        if not len(left):
            return {}
        return self._feed_left(arena, left.tolist(), strange, table_of, received_at, heard)

    def _ask(self, arena: Arena[Any], facts: I32, left: I32, asked: I32, table_of: TableOf) -> I32:
        """Ask for each topic a credential uses for the first time; decode what it may say. What is left then."""
        assert self._short is not None
        credentials, routes, permitted = [], [], []
        for message, route in zip(left[asked > 0].tolist(), asked[asked > 0].tolist(), strict=True):
            segment = arena.segment_of(message)
            if not table_of(arena.owners[segment].credential)[arena.topic(message)].refusal:
                permitted.append(message)
                credentials.append(int(facts[segment, 0]))
                routes.append(route - 1)
        if not permitted:
            return left
        self._short.permit(credentials, routes)
        again, _ = self._short.decode(arena, facts, np.array(permitted, np.int32), self._columns)
        self._columns.mixed = True
        return np.array(sorted({*left.tolist()} - {*permitted} | {*again.tolist()}), np.int32)

    def _feed_left(
        self,
        arena: Arena[Any],
        left: Sequence[int],
        strange: Sequence[bool],
        table_of: TableOf,
        received_at: int,
        heard: Callable[[Any], None],
    ) -> dict[int, str]:
        """``strange``: of each, whether the kernels learn from it once it was read."""
        assert self._short is not None
        self._set_general_window()
        refused: dict[int, str] = {}
        for index, unheard in zip(left, strange, strict=True):
            peer = arena.owners[arena.segment_of(index)]
            topic, payload = arena.topic(index), arena.payload(index)
            route = table_of(peer.credential)[topic]
            self._columns.place(index)
            if self._commonly(route, payload) is None:
                message = Message(
                    topic,
                    payload,
                    peer.client_id,
                    received_at,
                    retained=not peer.from_publisher and bool(arena.heads[index] & RETAIN),
                )
                reason = self._decode_slowly(route, message)
                if reason:
                    refused[index] = reason
                elif unheard:
                    self._short.packs.learn(route, topic, self._credentials[peer.credential], payload)
            heard(peer)
        self._columns.place(BEHIND)
        return refused

    def feed(self, table: RouteTable, chunk: Chunk, received_at: int) -> dict[int, str]:
        """Decode one connection's messages; returns message index to reason where any of it was refused."""
        self._set_general_window()
        loads = orjson.loads
        columns = self._columns
        add_point, add_time, add_value = columns.point.append, columns.time.append, columns.value.append
        topics, payloads = chunk.topics, chunk.payloads
        before = len(columns)
        slow: list[int] = []
        for index, topic in enumerate(topics):
            route = table[topic]
            if route.fast:
                try:
                    body = loads(payloads[index])
                    if len(body) == 2:
                        source = route.source
                        time = body[source.settings.time_field]
                        value = body[source.settings.value_field]
                        form = type(value)
                        if (
                            (form is float or form is int)
                            and type(time) is int
                            and source.oldest <= time <= source.newest
                        ):
                            add_point(route.point)
                            add_time(time * source.time_scale)
                            add_value(value)
                            continue
                except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
                    pass  # not the common form: the general decoder says what it is
            slow.append(index)
        self.counts["messages"] += len(topics)
        self.counts["received"] += len(columns) - before
        return self._feed_slowly(table, chunk, received_at, slow) if slow else {}

    def _feed_slowly(
        self, table: RouteTable, chunk: Chunk, received_at: int, indices: Sequence[int]
    ) -> dict[int, str]:
        refused: dict[int, str] = {}
        for index in indices:
            topic, payload, oversized = chunk.topics[index], chunk.payloads[index], index in chunk.oversized
            route = table[topic]
            if not oversized and self._commonly(route, payload) is not None:
                continue
            message = Message(
                topic,
                payload,
                chunk.client,
                received_at,
                retained=chunk.from_broker and bool(chunk.heads[index] & RETAIN),
                oversized=oversized,
            )
            reason = self._decode_slowly(route, message)
            if reason:
                refused[index] = reason
        return refused

    def _commonly(self, route: Route, payload: bytes) -> Common | None:
        """A message of which nothing is to be told but its readings; None, and nothing done, for any other."""
        common = decode_common(route, payload, self._columns)
        if common is not None:
            self.counts["received"] += len(common.keys)
        return common

    def _decode_slowly(self, route: Route, message: Message) -> str:
        """One message to the general decoder; why any of it was refused, or ""."""
        outcome = self._general.decode(route, message, self._columns)
        self._account(route, outcome)
        return outcome.refusals[-1].reason if outcome.refusals else ""

    def feed_frames(
        self, route: Route, frames: Sequence[bytes | Refused], client: str, received_at: int
    ) -> list[bytes]:
        """Decode what one station said on its source's own port; what it expects to hear once that is on disk."""
        self._set_general_window()
        answers = []
        for frame in frames:
            if isinstance(frame, Refused):
                message = Message(b"", frame.raw, client, received_at)
                outcome = Outcome(refusals=[refusal_of(route.source, message, frame, frame.raw)])
            else:
                self.counts["messages"] += 1
                common = self._commonly(route, frame)
                if common is not None:
                    if common.answer:
                        answers.append(common.answer)
                    continue
                message = Message(b"", frame, client, received_at)
                outcome = self._general.decode(route, message, self._columns)
            self._account(route, outcome)
            answers += outcome.answers
        return answers

    def again(self, route: Route, message: Message) -> tuple[RawBatch, list[Refusal], list[Event]]:
        """A message that was in quarantine: what came of it. Between two polls, when nothing else is under way."""
        outcome = self._general.decode(route, message, self._columns)
        self._account(route, outcome)
        self.counts["messages"] += 1
        # Its times are old by nature and say nothing of our clock.
        self._outside.clear()
        batch, refusals = self.take(message.received_at)
        return batch, refusals, self.take_events()

    def _account(self, route: Route, outcome: Outcome) -> None:
        """Count what became of one message; keep its events and refusals."""
        if outcome.outside:
            self._outside[route.source.name] += outcome.outside
        read = outcome.readings + len(outcome.events)
        self.counts["received"] += read + len(outcome.refusals) + outcome.retained_ignored
        self._events += outcome.events
        self.counts["untimed"] += outcome.untimed
        self.counts["retained_ignored"] += outcome.retained_ignored
        self._refuse_all(outcome)
        if outcome.offline or outcome.online or outcome.asks:
            self.nodes.said(route, outcome)

    def _refuse_all(self, outcome: Outcome) -> None:
        """The bytes of a message are kept once; further refusals of it have none: the first one kept has them."""
        has_whole = False
        for refusal in outcome.refusals:
            whole = refusal.raw is outcome.whole
            kept = self.refuse(replace(refusal, raw=b"") if whole and has_whole else refusal)
            has_whole = has_whole or (whole and kept)

    def refuse(self, refusal: Refusal) -> bool:
        """Count a refusal and keep it, unless the bound of its source is reached; whether it was kept.

        The bounds: refusals of some reasons a minute, and bytes of a source in all.
        """
        refusal = self._discreet(refusal)
        self.counts["quarantined"] += 1
        self.refused_by_reason[refusal.source, refusal.reason] += 1
        if refusal.reason == "time_window":
            self._outside[refusal.source] += 1
        if refusal.reason in BOUNDED_REASONS:
            minute = refusal.received_at // US_PER_MINUTE
            if minute != self._minute:
                self._minute = minute
                self._kept.clear()
            key = (refusal.source, refusal.reason)
            self._kept[key] += 1
            if self._kept[key] > self._kept_per_minute:
                self.counts["quarantined_not_kept"] += 1
                return False
        held = self.kept_bytes[refusal.source] + len(refusal.raw)
        if held > self._routes.settings_of(refusal.source).quarantine_bytes_max:
            self.counts["quarantined_not_kept"] += 1
            return False
        self.kept_bytes[refusal.source] = held
        self._refusals.append(refusal)
        return True

    def _discreet(self, refusal: Refusal) -> Refusal:
        """Without what may be of persons, where that can be."""
        if self._routes.settings_of(refusal.source).personal:
            return reason_and_hash(refusal, known_point=refusal.point_id in self._routes.number_of)
        if self._routes.some_personal and refusal.source == self._routes.nowhere.name:
            return masked_refusal(refusal)
        return refusal

    def take_outside(self) -> Counter[str]:
        """Readings outside their time window by source, refused or not, since the last take."""
        outside, self._outside = self._outside, Counter()
        return outside

    def take_events(self) -> list[Event]:
        """Events read since the last take, in the order received."""
        events, self._events = self._events, []
        return events

    def take(self, received_at: int) -> tuple[RawBatch, list[Refusal]]:
        """What was decoded and refused since the last take."""
        refusals, self._refusals = self._refusals, []
        return self._columns.take(received_at), refusals
