"""The tiers thread: everything behind the hot files that may take its time.

Owns when hot files are sealed (the work is ingest.sealing's), when snapshots reach the disk and small logs are
merged, and up to where the journal may be cut. Touches Judge's arrays only on Judge's thread, to write them down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from anomaly.alerts.outbox import Outbox
from ingest.fulldisk import FullDisk
from ingest.lakelogs import alert_log_table, alerts_table
from ingest.memory import give_back
from ingest.sealing import CompactFault, SealFailed, SealProcess
from storage import snapshot
from storage.compact import CompactReport
from storage.hot import HotTier
from storage.logs import ParquetLog
from storage.retire import RetireReport
from storage.sealed import SealReport
from storage.settings import RetentionSettings, SealedSettings

log = logging.getLogger("yuzui.tiers")

LOOK_S = 0.25
"""How often there is looked for work."""
EXPORT_S = 1.0
"""How late an alert may reach the lake's `alerts`, as late as a reading: in a storm a file a second and not four."""
DROP_S = 10.0
"""Between two looks for merged files whose grace is over."""
TRIM_S = 300.0
"""Between two looks at what the outbox need not keep any more. Small files are merged by their number, at no time."""
FULL_RETRY_S = 10.0
"""Between two attempts of what found the disk full: each takes room and time that Judge needs more."""


US_PER_DAY = 86_400 * 1_000_000
OPEN_MAX = 1_000_000
"""Alerts asked for as still open: more than the city has points."""
OUTBOX_KEPT_US = 30 * 86_400 * 1_000_000
"""Ended alerts and finished notifications stay in the outbox this long; the lake keeps the alerts for good."""


class Tiers(threading.Thread):
    """All its work is restartable: what a kill interrupts is found and done again at the next start."""

    def __init__(
        self,
        root: Path,
        settings: SealedSettings,
        retention: RetentionSettings,
        hot: HotTier,
        sealer: SealProcess,
        main_seq: int,
        quarantine: ParquetLog,
        alerts: ParquetLog,
        alert_log: ParquetLog,
        forecasts: ParquetLog,
        events: ParquetLog,
        outbox: Outbox,
        cut: Callable[[int], int],
    ) -> None:
        super().__init__(name="tiers", daemon=True)
        self._root = root
        self._settings = settings
        self._retention = retention
        self._hot = hot
        self._sealer = sealer
        self._quarantine = quarantine
        self._alerts = alerts
        self._alert_log = alert_log
        self._forecasts = forecasts
        self._events = events
        self._small = (quarantine, alerts, alert_log, forecasts, events)
        self._merge_at = 0.0
        self._outbox = outbox
        self._cut = cut
        self._snapshots = root / "snapshot"
        snapshot.forget_drafts(self._snapshots)
        self._offer: snapshot.Draft | None = None
        self._offering = threading.Lock()
        self._offered = threading.Event()
        self._stopping = False
        self._begun_us = time.time_ns() // 1000 - round(time.monotonic() * 1e6)
        self._sealed_at = time.monotonic()
        self._trimmed_at = self._dropped_at = time.monotonic()
        self._exported_at = -EXPORT_S
        self.failure: BaseException | None = None
        self.seals = 0
        self.seal_s = 0.0
        self.sealed_rows = 0
        self.hot_rows = 0
        self.main_seq = main_seq
        self.late_seq = -1
        self.seal_fault = ""
        self.disk = FullDisk("tiers")
        self.compactions = 0
        self.compacted_rows = 0
        self.compact_cpu_s = 0.0
        self.late_new = 0
        self.revised = 0
        self.repeats = 0
        self.compact_fault = ""
        self.retention_doubt = ""
        self.retired_rows = 0
        self._retire_logs_before_day: int | None = None
        self._sealing = False
        self._listening = True
        self._save_at = 0.0

    def offer_snapshot(self, seq: int, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
        """Called on the judge thread; the arrays are written before it returns, and saved here when there is time.

        A newer offer replaces one not yet begun. Raises OSError.
        """
        drafted = snapshot.draft(self._snapshots, seq, arrays, meta)
        with self._offering:
            before, self._offer = self._offer, drafted
        if before is not None:
            before.path.unlink(missing_ok=True)
        self._offered.set()

    def stop(self) -> None:
        """Write the newest snapshot and what is exportable, then end. Join the thread afterwards."""
        self._stopping = True
        self._offered.set()

    def run(self) -> None:
        """Thread body; a failure is kept in ``failure`` and the engine stops."""
        try:
            while not self._stopping:
                self._offered.wait(LOOK_S)
                self._offered.clear()
                self.turn()
            self.turn()
        except BaseException as failure:
            self.failure = failure
            log.critical("tiers failed", exc_info=failure)

    def turn(self) -> None:
        """Whatever is due."""
        now = time.monotonic()
        if now - self._exported_at >= EXPORT_S or self._stopping:
            self._exported_at = now
            self.disk.attempt("the export of alerts", self._export_alerts)
            self.disk.attempt("the export of the log of alerts", self._export_alert_log)
        if self._keep_snapshot():
            give_back()
        waiting = self._hot.pending(self.main_seq)
        self.hot_rows = sum(f.rows for f in waiting)
        # After a fault only by the clock: many rows would have it tried again at every look.
        many = self.hot_rows >= self._settings.rows_max and not self.seal_fault
        due = many or now - self._sealed_at >= self._settings.seal_s
        if self._listening:
            self._hear_sealer(now)
        if waiting and due and not self._sealing and not self._stopping:
            self._begin_seal(now, max(f.last for f in waiting if not f.late))
        self._tidy_up(now)

    def _tidy_up(self, now: float) -> None:
        """Small logs, by how many files they have; the outbox, by the clock."""
        if now >= self._merge_at and any(small.crowded for small in self._small):
            done = self.disk.attempt("merges", self._merge)
            self._merge_at = now if done else now + FULL_RETRY_S
        if now - self._dropped_at >= DROP_S:
            self._dropped_at = now
            for small in self._small:
                small.drop(self._settings.grace_s, now)
        if now - self._trimmed_at >= TRIM_S:
            done = self.disk.attempt("a smaller outbox", lambda: self._trim(now))
            self._trimmed_at = now if done else now - TRIM_S + FULL_RETRY_S

    def _merge(self) -> None:
        """A bite of each log that is crowded: what a turn costs is bounded, alerts are exported between two."""
        for small in self._small:
            if small.crowded:
                small.merge()

    def _trim(self, now: float) -> None:
        if self._retire_logs_before_day is not None:
            self._retire_logs(self._retire_logs_before_day)
            self._retire_logs_before_day = None
        # A clock that jumps forward must not make all of it old.
        before_us = self._begun_us + round(now * 1e6) - OUTBOX_KEPT_US
        self._outbox.trim(before_us, self._alerts.last, self._alert_log.last)

    def _retire_logs(self, day: int) -> None:
        """Small logs by the day that retention counts from."""
        keep = self._retention
        open_now = {alert["id"] for alert in self._outbox.alerts(open_only=True, limit=OPEN_MAX)}
        for small, column, days, kept in (
            (self._quarantine, "received_at", keep.quarantine_days, ()),
            (self._alerts, "at", keep.alerts_days, open_now),
            (self._alert_log, "at", keep.alerts_days, ()),
            (self._forecasts, "made_at", keep.forecasts_days, ()),
            (self._events, "received_at", keep.events_days, ()),
        ):
            if days is not None:
                self.retired_rows += small.retire(column, (day - days) * US_PER_DAY, kept)

    def _export_alerts(self) -> None:
        rows = self._outbox.export_since(self._alerts.last)
        if rows:
            _append_whole(self._alerts, rows[-1]["rowid"], alerts_table(rows))

    def _export_alert_log(self) -> None:
        rows = self._outbox.export_log_since(self._alert_log.last)
        if rows:
            _append_whole(self._alert_log, rows[-1]["id"], alert_log_table(rows))

    def _keep_snapshot(self) -> bool:
        """Whether there was one to save, and it is saved."""
        if self._offer is None or (time.monotonic() < self._save_at and not self._stopping):
            return False
        with self._offering:
            offer, self._offer = self._offer, None
        # The snapshot presumes the files written before it: they must survive a power cut first.
        self._hot.sync()
        self._quarantine.sync()
        self._forecasts.sync()
        self._events.sync()
        if not self.disk.attempt("a snapshot", lambda: snapshot.keep(self._snapshots, offer, self.main_seq)):
            # Until it or a newer one is saved the journal is not cut.
            self._put_back(offer)
            self._save_at = time.monotonic() + FULL_RETRY_S
            return False
        self._cut_journal()
        return True

    def _put_back(self, offer: snapshot.Draft) -> None:
        with self._offering:
            newer = self._offer
            self._offer = newer or offer
        if newer is not None:
            offer.path.unlink(missing_ok=True)

    def _begin_seal(self, now: float, upto_seq: int) -> None:
        self._sealed_at = now
        try:
            self._sealer.begin(upto_seq, grace_s=self._settings.grace_s)
            self._sealing = self._listening = True
        except SealFailed as failed:
            self._seal_failed(failed)

    def _hear_sealer(self, now: float) -> None:
        """Everything it has to say: compactions are done unasked."""
        try:
            while (said := self._sealer.result()) is not None:
                match said:
                    case SealReport():
                        self._sealed(said, now)
                    case CompactReport():
                        self._compacted(said)
                    case RetireReport():
                        self._retired(said)
                    case CompactFault():
                        self._compaction_failed(said)
        except SealFailed as failed:
            # If the process ended, the next seal makes a new one.
            self._listening = self._sealer.lives
            self._sealing = False
            self._seal_failed(failed)

    def _sealed(self, report: SealReport, now: float) -> None:
        self._sealing = False
        self.seal_fault = ""
        self.disk.done("a seal")
        self.main_seq = report.main_seq
        self.late_seq = report.late_seq
        self.seals += 1
        self.seal_s = report.wall_s
        self.sealed_rows += report.main_rows + report.late_rows
        self._hot.drop(report.main_seq, report.late_seq, self._settings.grace_s, now)
        self._cut_journal()

    def _compacted(self, report: CompactReport) -> None:
        self.compact_fault = ""
        self.compactions += 1
        self.compacted_rows += report.rows
        self.compact_cpu_s += report.cpu_s
        self.late_new += report.late_new
        self.revised += report.revised
        self.repeats += report.repeats

    def _retired(self, report: RetireReport) -> None:
        if report.doubt and report.doubt != self.retention_doubt:
            log.error("retention stands still: %s", report.doubt)
        self.retention_doubt = report.doubt
        self.retired_rows += report.rows
        if report.raw_hours or report.thinned_hours or report.rollup_files:
            log.info(
                "retention took %d hours, thinned %d, %d readings and %d rollup files in all",
                report.raw_hours, report.thinned_hours, report.rows, report.rollup_files,
            )  # fmt: skip
        self._retire_logs_before_day = report.day if not report.doubt else None

    def _compaction_failed(self, fault: CompactFault) -> None:
        """Sealed and late files stand as they were and answer every query; only slower."""
        if fault.why != self.compact_fault:
            what = (
                "there is no room to compact" if fault.full else "a compaction failed, its hour is set aside"
            )
            log.error("%s: %s", what, fault.why)
        self.compact_fault = fault.why

    def _seal_failed(self, failed: SealFailed) -> None:
        """Hot files and journal stand, so nothing is lost; it is tried again when the next seal is due."""
        again = str(failed) == self.seal_fault
        self.seal_fault = str(failed)
        if failed.full:
            self.disk.failed("a seal", str(failed))
            self._sealed_at = min(self._sealed_at, time.monotonic() - self._settings.seal_s + FULL_RETRY_S)
        elif not again:
            log.error("sealing failed, trying again every %d s: %s", self._settings.seal_s, failed)

    def _cut_journal(self) -> None:
        """Everything below the oldest kept snapshot and below what is sealed can be made again."""
        kept = snapshot.list_snapshots(self._root / "snapshot")
        if len(kept) >= snapshot.KEEP:
            self._cut(min(kept[0][0], self.main_seq) + 1)


def _append_whole(log_: ParquetLog, last: int, table: pa.Table) -> None:
    """Rows up to number ``last`` at the end of a log, on disk at once.

    The names say how far the export came: a lost file would be a hole for ever.
    """
    before = log_.last
    written = log_.append(before + 1, last, table)
    try:
        log_.sync()
    except OSError:
        if written is not None:
            log_.take_back(written, before)
        raise
