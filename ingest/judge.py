"""Judge: reads the journal by position and derives everything else. The second half of the engine.

Owns the judge thread, the borders of a replay (what is already written is never written again) and the
proof of the conservation identity at every TICK. Knows nothing of sockets; the network is delivery's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from anomaly.alerts.event import FIRING, AlertEvent
from anomaly.alerts.outbox import Outbox
from anomaly.engine import Engine
from anomaly.live import Live
from anomaly.rules.base import Forecast
from ingest.fulldisk import FullDisk
from ingest.lakelogs import events_table, forecasts_table, quarantine_table
from storage.batch import POS_ROW_BITS, RawBatch, ReadingBatch
from storage.hot import HotTier
from storage.journal_reader import JournalCorrupt, JournalCut
from storage.logs import ParquetLog
from storage.records import (
    LEFT,
    REPLAYED,
    Body,
    Control,
    Event,
    Gap,
    RecordType,
    Refusal,
    Tick,
    decode,
    decode_events,
    decode_quarantine,
    decode_readings,
)
from storage.segment import Record
from storage.tail import Feed

log = logging.getLogger("yuzui.judge")

TICK_MS = 50
"""Half of what the plan said: an alert waits a tick, and a smaller batch of alerts leaves the loop sooner."""
ROWS_PER_TICK = 20_000
ROWS_PER_TICK_BEHIND = 200_000
"""Under backlog: the fixed cost of a tick is spread over more rows."""
BEHIND_RECORDS = 200
"""About two seconds of groups: from here Judge is behind."""
FULL_RETRY_S = 1.0
"""Between two attempts to write to a full disk."""
TICKS_MISSED_S = 1.0
"""Without a TICK for a flush and this long, rows are flushed by the machine's clock."""
ROWS_HELD_MAX = 2_000_000
"""Judged and not written for want of room; from here Judge reads no further. Some 120 MB, minutes of a city."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a restart goes on.

    snapshot_seq  the state restored; records after it are read again
    hot_seq       rows of records up to here are already in hot or sealed files
    effects_seq   alerts of records up to here are already in the outbox
    journal_seq   the journal's last record when this engine started
    """

    snapshot_seq: int
    hot_seq: int
    effects_seq: int
    journal_seq: int

    def border_after(self, seq: int) -> int | None:
        """The next position at which something changes from "already written" to "to be written"."""
        borders = (self.hot_seq, self.effects_seq, self.journal_seq)
        ahead = [b for b in borders if b > seq]
        return min(ahead) if ahead else None


@dataclass(slots=True)
class JudgeCounts:
    """Readings of records after the start, and what was found; read by telemetry, written by the thread."""

    total: Counter[str] = field(default_factory=Counter)
    conservation_gap: int = 0
    ticked_at: int = 0
    judged_seq: int = 0
    tick_s: float = 0.0


class Judge(threading.Thread):
    """Ticks of 50 ms or 20,000 rows. All state is touched by this thread only.

    ``keep_snapshot`` is called on this thread with (seq, arrays, meta), the live arrays, after the hot files up to
    seq are written. Without a log of ``forecasts``, or of ``steps`` (of events beside readings), they are not kept.
    ``live`` is shown what was judged.
    """

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        hot: HotTier,
        quarantine: ParquetLog,
        outbox: Outbox,
        resume: Resume,
        *,
        flush_s: int,
        snapshot_s: int,
        notify: Callable[[], None],
        keep_snapshot: Callable[[int, dict[str, Any], dict[str, Any]], None],
        forecasts: ParquetLog | None = None,
        steps: ParquetLog | None = None,
        live: Live | None = None,
    ) -> None:
        super().__init__(name="judge", daemon=True)
        self._engine = engine
        self._feed = feed
        self._hot = hot
        self._quarantine = quarantine
        self._outbox = outbox
        self._resume = resume
        self._flush_us = flush_s * 1_000_000
        self._snapshot_us = snapshot_s * 1_000_000
        self._notify = notify
        self._keep_snapshot = keep_snapshot
        self._main: list[ReadingBatch] = []
        self._late: list[ReadingBatch] = []
        self._refusals: list[tuple[int, Refusal]] = []
        self.replayed: set[int] = set()
        """Refusals whose mark stood in the journal read so far."""
        self._forecast_log = forecasts
        self._live = live
        self._forecasts: list[tuple[int, Forecast]] = []
        self._step_log = steps
        self._steps: list[tuple[int, Event]] = []
        self._events: list[AlertEvent] = []
        self._prepared: dict[str, Engine] = {}
        self._hot_from = resume.hot_seq + 1
        self._last_flush = 0
        self._last_snapshot = 0
        self._stop_at: int | None = None
        self._flushed_at = time.monotonic()
        self.disk = FullDisk("judge")
        self.counts = JudgeCounts(judged_seq=resume.snapshot_seq)
        if live is not None:
            live.seed(engine)
        self.failure: BaseException | None = None

    @property
    def engine(self) -> Engine:
        """The one that judges now."""
        return self._engine

    def adopt(self, digest: str, engine: Engine) -> None:
        """Judge with ``engine``, which goes on from the state of the present one, from the CONTROL record on that names
        ``digest``. From any thread, before that record is written."""
        self._prepared[digest] = engine

    def stop_at(self, seq: int) -> None:
        """End once everything up to ``seq`` is judged and written. Join the thread afterwards."""
        self._stop_at = seq

    def run(self) -> None:
        """Thread body. A failure ends the thread and is kept in ``failure``: the engine then stops."""
        try:
            while self._stop_at is None or self.counts.judged_seq < self._stop_at:
                began = time.monotonic()
                if self._holds_too_much():
                    if self._stop_at is not None:
                        break
                    time.sleep(TICK_MS / 1000)
                else:
                    self._turn()
                self._flush_without_tick()
                left = TICK_MS / 1000 - (time.monotonic() - began)
                if left > 0 and self._stop_at is None and not self._behind():
                    time.sleep(left)
            self._record_effects()
            self._flush(self.counts.judged_seq)
            self._snapshot(self.counts.judged_seq)
            if self.disk.full:
                log.error("ending on a full disk; the journal keeps what is not written: %s", self.disk.why)
        except BaseException as failure:
            self.failure = failure
            log.critical("judge failed at record %d", self.counts.judged_seq, exc_info=failure)

    def _holds_too_much(self) -> bool:
        return self.disk.full and sum(map(len, self._main)) + sum(map(len, self._late)) > ROWS_HELD_MAX

    def _flush_without_tick(self) -> None:
        """While the journal is held back no TICK comes, and what it took in before shall be seen."""
        wait_s = FULL_RETRY_S if self.disk.full else TICKS_MISSED_S + self._flush_us / 1e6
        if time.monotonic() - self._flushed_at >= wait_s:
            self._record_effects()
            self._flush(self.counts.judged_seq)

    def _behind(self) -> bool:
        return self._feed.durable_seq - self.counts.judged_seq > BEHIND_RECORDS

    def _turn(self) -> None:
        began = time.perf_counter()
        rows_max = ROWS_PER_TICK_BEHIND if self._behind() else ROWS_PER_TICK
        seq = self.counts.judged_seq
        try:
            records = self._feed.read(
                seq + 1, upto_seq=self._resume.border_after(seq), rows_max=rows_max, timeout_s=TICK_MS / 1000
            )
        except (JournalCorrupt, JournalCut) as hole:
            log.error("journal has a hole, going on behind it: %s", hole)
            self.counts.total["journal_records_lost"] += hole.next_seq - (seq + 1)
            self.counts.judged_seq = hole.next_seq - 1
            return
        if records:
            self._judge_all(records)
            self.counts.judged_seq = records[-1].seq
            self._record_effects()
            self.counts.tick_s = time.perf_counter() - began

    def _judge_all(self, records: Sequence[Record]) -> None:
        run: list[Record] = []
        for record in records:
            if record.type is RecordType.READINGS:
                run.append(record)
                continue
            self._judge_readings(run)
            run = []
            if record.type is RecordType.QUARANTINE:
                self._keep_refusals(record)
            elif record.type is RecordType.EVENT:
                self._on_events(record)
            elif record.type is RecordType.TICK:
                self._on_tick(record)
            elif record.type is RecordType.GAP:
                self._on_gap(decode(record.type, record.body))
            elif record.type is RecordType.CONTROL:
                self._on_control(decode(record.type, record.body))
        self._judge_readings(run)

    def _judge_readings(self, run: Sequence[Record]) -> None:
        if not run:
            return
        parts = [decode_readings(record.body) for record in run]
        raw = RawBatch.concat(parts)
        pos = np.concatenate(
            [
                (r.seq << POS_ROW_BITS) + np.arange(len(p), dtype=np.int64)
                for r, p in zip(run, parts, strict=True)
            ]
        )
        judged = self._engine.judge(raw, pos)
        self._events += judged.events
        if self._live is not None:
            self._live.rows(judged.main)
            self._live.events(judged.events)
        if run[-1].seq > self._resume.journal_seq:
            total = self.counts.total
            total["main"] += len(judged.main)
            total["late_pending"] += len(judged.late)
            total["repeats"] += judged.repeats
        if run[-1].seq > self._resume.hot_seq:
            self._main.append(judged.main)
            self._late.append(judged.late)

    def _keep_refusals(self, record: Record) -> None:
        # Written again after a restart: their ids are the same, and the lake shows each id once.
        refusals = decode_quarantine(record.body)
        self.replayed.update(int(r.detail.partition(" ")[0]) for r in refusals if r.reason == REPLAYED)
        self._refusals += [((record.seq << POS_ROW_BITS) + row, r) for row, r in enumerate(refusals)]

    def _on_events(self, record: Record) -> None:
        events = decode_events(record.body)
        self._engine.hear(events)
        if record.seq > self._resume.journal_seq:
            self.counts.total["events"] += len(events)
        if self._step_log is not None:
            # As with refusals: written again after a restart under the same positions.
            self._steps += [((record.seq << POS_ROW_BITS) + row, e) for row, e in enumerate(events)]

    def _on_tick(self, record: Record) -> None:
        tick = decode(record.type, record.body)
        assert isinstance(tick, Tick)
        events = self._engine.tick(tick.now, drained=tick.drained)
        self._events += [replace(event, pos=record.seq << POS_ROW_BITS) for event in events]
        if self._live is not None:
            self._live.events(events)
            self._live.tick(self._engine, record.seq)
        self._keep_forecasts(record.seq)
        self.counts.ticked_at = tick.now
        if record.seq > self._resume.journal_seq:
            self._prove(tick)
        if tick.now - self._last_flush >= self._flush_us or tick.now < self._last_flush:
            self._last_flush = tick.now
            self._flush(record.seq)
            if not self._last_snapshot:
                self._last_snapshot = tick.now
            elif (
                abs(tick.now - self._last_snapshot) >= self._snapshot_us and record.seq > self._resume.hot_seq
            ):
                self._record_effects(record.seq)
                if self._snapshot(record.seq):
                    self._last_snapshot = tick.now

    def _keep_forecasts(self, seq: int) -> None:
        # As with refusals: written again after a restart under the same ids.
        made = self._engine.take_forecasts()
        if self._forecast_log is not None:
            self._forecasts += [((seq << POS_ROW_BITS) + row, f) for row, f in enumerate(made)]

    def _on_gap(self, body: Body) -> None:
        assert isinstance(body, Gap)
        # Who was down cannot know since when: the journal's last TICK, or the snapshot's, says it.
        begin = body.begin or max(self.counts.ticked_at, self._engine.received_us)
        self._events += self._engine.gap(replace(body, begin=begin))

    def _on_control(self, body: Body) -> None:
        """A reload takes its place here. After a restart there is nothing to take up: the engine was made with it."""
        assert isinstance(body, Control)
        if body.type == LEFT:
            self._on_left(body.body)
            return
        engine = self._prepared.pop(body.body.get("digest", ""), None) if body.type == "reload" else None
        if engine is None:
            return
        engine.restore(*self._engine.snapshot())
        engine.counts = self._engine.counts
        self._engine = engine
        if self._live is not None:
            self._live.seed(engine)

    def _on_left(self, body: Mapping[str, Any]) -> None:
        """Points of which a DEATH was received; those the registry has no more are nobody's."""
        left = set(body["points"])
        ids = self._engine.points.point_id
        points = np.array([number for number, name in enumerate(ids) if name in left], np.int32)
        self._engine.leave(points, int(body["at"]))

    def _prove(self, tick: Tick) -> None:
        """received = main + late + repeats + events + quarantined + retained_ignored, exactly, at every TICK."""
        total, wire = self.counts.total, tick.counts
        accounted = total["main"] + total["late_pending"] + total["repeats"] + total["events"]
        accounted += wire.get("quarantined", 0) + wire.get("retained_ignored", 0)
        gap = wire.get("received", 0) - accounted
        if gap != self.counts.conservation_gap:
            log.error(
                "conservation broken: %d readings unaccounted for",
                gap,
                extra={"wire": wire, "judge": dict(total)},
            )
        self.counts.conservation_gap = gap

    def _flush(self, last_seq: int) -> None:
        """Rows and refusals up to ``last_seq`` become files a query sees; kept where the disk is full."""
        self._flushed_at = time.monotonic()
        if self._main:
            main, late = ReadingBatch.concat(self._main), ReadingBatch.concat(self._late)
            self._main, self._late = [main], [late]
            if self.disk.attempt("hot files", lambda: self._hot.write(self._hot_from, last_seq, main, late)):
                if len(main) or len(late):
                    self._hot_from = last_seq + 1
                self._main, self._late = [], []
        if self._refusals:
            first, table = self._refusals[0][0] >> POS_ROW_BITS, quarantine_table(self._refusals)
            if self.disk.attempt("quarantine", lambda: self._quarantine.append(first, last_seq, table)):
                self._refusals = []
        if self._forecasts:
            self._flush_forecasts(last_seq)
        if self._steps:
            self._flush_steps(last_seq)

    def _flush_forecasts(self, last_seq: int) -> None:
        kept = self._forecast_log
        assert kept is not None
        ids, replay = self._engine.points.point_id, self._engine.clock == "events"
        first, table = self._forecasts[0][0] >> POS_ROW_BITS, forecasts_table(self._forecasts, ids, replay)
        if self.disk.attempt("forecasts", lambda: kept.append(first, last_seq, table)):
            self._forecasts = []

    def _flush_steps(self, last_seq: int) -> None:
        kept = self._step_log
        assert kept is not None
        first, table = self._steps[0][0] >> POS_ROW_BITS, events_table(self._steps)
        if self.disk.attempt("events", lambda: kept.append(first, last_seq, table)):
            self._steps = []

    def _record_effects(self, seq: int | None = None) -> None:
        """Alert events of records up to ``seq`` (default: all judged) are durable in one transaction.

        On a full disk they are kept, and none of them counts as recorded.
        """
        upto = self.counts.judged_seq if seq is None else seq
        if upto <= self._resume.effects_seq:
            self._events = []
        events = self._events
        if events and self.disk.attempt("alerts", lambda: self._outbox.record(events, judged_seq=upto)):
            self._events = []
            self.counts.total["alerts_fired"] += sum(e.type == FIRING for e in events)
            self._notify()

    def _snapshot(self, seq: int) -> bool:
        """False if it must be tried again: a snapshot presumes that all before it is written."""
        if seq <= self._resume.snapshot_seq:
            return True
        if self._main or self._refusals or self._forecasts or self._steps or self._events:
            return False
        if not self.disk.attempt("the judged position", lambda: self._outbox.mark(seq)):
            return False
        arrays, meta = self._engine.snapshot()
        return self.disk.attempt("a snapshot", lambda: self._keep_snapshot(seq, arrays, meta))
