"""The night judged again by an engine nobody killed: what alerts and notifications there should have been.

Owns the keeping of a running engine's journal beside it, its judgement in one go, and the comparison of two outboxes.
Reads the killed engine's files only after its end.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anomaly.alerts.event import AlertEvent
from anomaly.alerts.outbox import Outbox
from anomaly.alerts.rounds import Rounds
from anomaly.engine import Engine
from ingest.config import Config
from storage import pointmap
from storage.batch import POS_ROW_BITS, RawBatch
from storage.journal_reader import JournalReader
from storage.records import Gap, RecordType, Tick, decode, decode_events, decode_readings
from storage.segment import Record, list_segments

ROWS_MAX = 50_000
"""Rows judged at once. Findings do not depend on it; a running engine takes fewer."""


def keep_journal(data: Path, kept: Path) -> None:
    """Hold on to segments an engine will cut: a second name for each, on the same disk. Call it every few seconds."""
    kept.mkdir(exist_ok=True)
    for _, path in list_segments(data / "journal"):
        try:
            os.link(path, kept / path.name)
        except (FileExistsError, FileNotFoundError):
            continue  # held already, or cut just now after it was held


_NOTIFICATIONS = "SELECT DISTINCT alert_id, revision FROM delivery WHERE type LIKE 'alert.%'"


@dataclass(frozen=True, slots=True)
class Told:
    """What an outbox holds: alert events and notifications as (id, revision), group of each alert."""

    events: frozenset[tuple[str, int]]
    notifications: frozenset[tuple[str, int]]
    groups: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, outbox: Outbox) -> Told:
        """All of it; heartbeats apart."""
        return cls(
            frozenset((row[0], row[1]) for row in outbox.rows("SELECT id, revision FROM alert_event")),
            frozenset((row[0], row[1]) for row in outbox.rows(_NOTIFICATIONS)),
            frozenset((row[0], row[1]) for row in outbox.rows("SELECT id, grp FROM member")),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A killed engine's outbox against one that was not.

    alerts          of the engine that was not killed; lost, invented: alert events only one of them has
    notifications   of the engine that was not killed; untold, overtold: those only one of them has
    regrouped       alerts that stand in another group
    unheard         groups whose last word never came to the receiver; misheard: what came and should not have
    """

    alerts: int
    lost: int
    invented: int
    notifications: int
    untold: int
    overtold: int
    regrouped: int
    unheard: int
    misheard: int

    @property
    def same(self) -> bool:
        """Nobody can tell that one of them was killed."""
        told = self.untold or self.overtold or self.unheard or self.misheard
        return not (self.lost or self.invented or self.regrouped or told)


def rejudged(
    kept: Path, data: Path, config: Config, out: Path, heard: Collection[tuple[str, int]]
) -> Comparison:
    """Judge the journal in ``kept`` into a new outbox ``out`` and compare it with that of the ended engine in ``data``.

    heard  (id, revision) of the notifications a receiver got; superseded ones may be missing
    Raises JournalCut where the journal's begin is gone, OSError, sqlite3.Error.
    """
    ended = Outbox(data / "outbox.db")
    ours, upto = Told.of(ended), ended.judged_seq()
    ended.close()
    outbox, clock = _outbox(out, config)
    judge = _Judge(_engine(data, config), outbox, clock)
    reader = JournalReader(kept, 1)
    while records := reader.read(upto, rows_max=ROWS_MAX):
        judge.take(records)
    reader.close()
    theirs = Told.of(outbox)
    outbox.close()
    last = dict(sorted(theirs.notifications))
    return Comparison(
        alerts=len({name for name, _ in theirs.events}),
        lost=len(theirs.events - ours.events),
        invented=len(ours.events - theirs.events),
        notifications=len(theirs.notifications),
        untold=len(theirs.notifications - ours.notifications),
        overtold=len(ours.notifications - theirs.notifications),
        regrouped=len({name for name, _ in theirs.groups ^ ours.groups}),
        unheard=len(last.items() - set(heard)),
        misheard=len(set(heard) - theirs.notifications),
    )


def _engine(data: Path, config: Config) -> Engine:
    table = pointmap.load(data)
    assert table is not None, f"{data} has no points"
    return Engine(
        pointmap.point_table(table),
        config.kinds,
        config.checks,
        rules=config.rules.model_dump(),
        time_zone=config.city.time_zone,
    )


def _outbox(out: Path, config: Config) -> tuple[Outbox, list[int]]:
    """The outbox and its clock: the journal's own time."""
    clock = [0]
    outbox = Outbox(
        out,
        config.targets,
        config.alerts,
        routes=config.route,
        inhibits=config.inhibit,
        now_us=lambda: clock[0],
    )
    # Nobody relies on it after a power cut.
    outbox.rows("PRAGMA synchronous = OFF")
    return outbox, clock


class _Judge:
    """Takes records in order, as the judge thread does (ingest.judge), and records what it finds."""

    def __init__(self, engine: Engine, outbox: Outbox, clock: list[int]) -> None:
        self._engine = engine
        self._outbox = outbox
        self._clock = clock
        self._rounds = Rounds(outbox, outbox.policy, outbox.link)

    def take(self, records: list[Record]) -> None:
        events: list[AlertEvent] = []
        run: list[Record] = []
        for record in [*records, None]:
            if record is not None and record.type is RecordType.READINGS:
                run.append(record)
                continue
            if run:
                parts = [decode_readings(one.body) for one in run]
                places = [
                    (one.seq << POS_ROW_BITS) + np.arange(len(part), dtype=np.int64)
                    for one, part in zip(run, parts, strict=True)
                ]
                events += self._engine.judge(RawBatch.concat(parts), np.concatenate(places)).events
                run = []
            if record is not None and record.type is RecordType.EVENT:
                self._engine.hear(decode_events(record.body))
            spoken = record is not None and record.type in (RecordType.TICK, RecordType.GAP)
            body = decode(record.type, record.body) if record is not None and spoken else None
            if isinstance(body, Tick):
                self._clock[0] = body.now
                events += self._engine.tick(body.now, drained=body.drained)
                self._engine.take_forecasts()
                self._outbox.record(events, record.seq if record is not None else None)
                events = []
                self._rounds.make(body.now)
            elif isinstance(body, Gap):
                begin = body.begin or max(self._clock[0], self._engine.received_us)
                events += self._engine.gap(replace(body, begin=begin))
        self._outbox.record(events, records[-1].seq)
