"""Refused messages through the engine again, after what was wrong has been mended.

Owns the pace and the mark: in the group that holds what came of a message stands, for each of its refusals, a row of
quarantine with the reason ``replayed``. So a kill leaves both or neither, and after a restart what is marked is not
sent again. Readings that came through once before are repeats and drop out by their key (point, time).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from ingest import replayspool
from ingest.decode.message import Message
from ingest.decode.messages import Messages
from ingest.replayspool import Spooled
from ingest.routes import Route, Routes
from storage.batch import RawBatch
from storage.records import (
    REPLAYED,
    Event,
    RecordType,
    Refusal,
    encode_events,
    encode_quarantine,
    encode_readings,
)
from storage.schema import QUARANTINE

if TYPE_CHECKING:
    import pyarrow.dataset as ds

log = logging.getLogger("yuzui.replay")

PER_TURN: Final = 200
"""Messages in one turn of 10 ms: 20,000 a second pass while the city speaks, and a turn stays short."""
LOOK_TURNS: Final = 50
"""How often the folder is looked at while nothing waits: twice a second."""


class Replays:
    """Runs on the loop thread, once a turn before sockets are read.

    marked  refusals already replayed when the engine started: those whose file a kill left behind
    """

    def __init__(self, root: Path, marked: Iterable[int]) -> None:
        self._root = root
        self._marked = set(marked)
        self._waiting: list[Spooled] = []
        self._file: Path | None = None
        self._turns = 0
        self.messages = 0
        """Sent through since the start."""

    @property
    def left(self) -> int:
        """Messages of the file under way."""
        return len(self._waiting)

    def turn(
        self, routes: Routes, decoder: Messages, now: int, open_ended: bool
    ) -> list[tuple[RecordType, bytes]]:
        """Records of the next messages, for one group. Readings keep the time they were received at first."""
        if self._file is None and not self._open():
            return []
        done, self._waiting = self._waiting[:PER_TURN], self._waiting[PER_TURN:]
        batches: list[RawBatch] = []
        refusals: list[Refusal] = []
        events: list[Event] = []
        for one in done:
            route = _route(routes, one)
            if open_ended:
                route.source.open_window()
            else:
                route.source.set_window(one.received_at)
            message = Message(one.topic.encode(), one.raw, one.client, one.received_at, again=True)
            batch, refused, happened = decoder.again(route, message)
            batches.append(batch)
            refusals += refused
            events += happened
            refusals += [
                _mark(one, number, now, len(batch) + len(happened), len(refused)) for number in one.ids
            ]
            self._marked.update(one.ids)
        self.messages += len(done)
        bodies = []
        whole = (
            RawBatch.concat([batch for batch in batches if len(batch)]) if any(map(len, batches)) else None
        )
        if whole is not None:
            bodies.append((RecordType.READINGS, encode_readings(whole)))
        if events:
            bodies.append((RecordType.EVENT, encode_events(events)))
        if refusals:
            bodies.append((RecordType.QUARANTINE, encode_quarantine(refusals)))
        return bodies

    def ended(self) -> Path | None:
        """The file whose last message went into the group just made: to be removed when that is on disk."""
        if self._file is None or self._waiting:
            return None
        file, self._file = self._file, None
        return file

    def _open(self) -> bool:
        self._turns += 1
        if self._turns % LOOK_TURNS:
            return False
        for path in replayspool.waiting(self._root):
            try:
                self._waiting = [
                    one for one in replayspool.read(path) if not self._marked.issuperset(one.ids)
                ]
            except (OSError, ValueError) as fault:
                log.error("%s; it is set aside", fault)
                path.rename(path.with_suffix(".bad"))
                continue
            self._file = path
            log.info("replay of %d refused messages begins (%s)", len(self._waiting), path.name)
            return True
        return False


def _route(routes: Routes, one: Spooled) -> Route:
    """By its topic, or by its source where it came in by the source's own door."""
    source = routes.sources.get(one.source)
    if source is not None and source.settings.port is not None:
        return routes.of_source(one.source)
    return routes.table(None, lambda *_: True)[one.topic.encode()]


def _mark(one: Spooled, number: int, now: int, stored: int, refused: int) -> Refusal:
    return Refusal(now, one.source, one.topic, REPLAYED, f"{number} {stored} {refused}", b"")


def marked_in(folder: Path) -> set[int]:
    """Refusals whose marks stand in the files of the quarantine log."""
    rows = _log(folder).to_table(columns=["detail"], filter=pc.field("reason") == REPLAYED)
    return {int(detail.partition(" ")[0]) for detail in rows["detail"].to_pylist()}


def kept_bytes(folder: Path) -> dict[str, int]:
    """Bytes of refused messages that the quarantine log holds, by source."""
    held: Counter[str] = Counter()
    size = {"source": pc.field("source"), "bytes": pc.binary_length(pc.field("raw"))}
    for batch in _log(folder).to_batches(columns=size):
        for source, size_of in _sums(batch):
            held[source] += size_of
    return held


def _sums(batch: pa.RecordBatch) -> list[tuple[str, int]]:
    sums = pa.Table.from_batches([batch]).group_by("source").aggregate([("bytes", "sum")])
    return list(zip(sums["source"].to_pylist(), sums["bytes_sum"].to_pylist(), strict=True))


def _log(folder: Path) -> ds.Dataset:
    import pyarrow.dataset as ds  # some MB that only a log of refusals asks for

    return ds.dataset(
        [str(path) for path in sorted(folder.glob("*.parquet"))], schema=QUARANTINE, format="parquet"
    )
