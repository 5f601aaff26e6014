"""One picture of the engine's health: what /metrics, /healthz and `yuzui status` all show.

Owns the names of the numbers and what makes the engine "not ready". Reads counters; changes nothing.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ingest.ops import COUNTERS
from ingest.readiness import as_vitals, reasons
from storage.diskuse import DiskUse, disk_use

if TYPE_CHECKING:
    from ingest.app import App

log = logging.getLogger("yuzui.vitals")

RATE_WINDOW_S = 5.0
DISK_WINDOW_S = 3600.0
DISK_SAMPLE_S_MIN = 60.0
SECONDS_A_DAY = 86_400.0


def rss_bytes() -> int:
    """Resident memory of this process, from the kernel."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Vitals:
    """Samples the engine; ``take`` may be called at any time from the loop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._begun = time.monotonic()
        self._received: deque[tuple[float, int]] = deque(maxlen=64)
        self._disk: deque[tuple[float, int]] = deque(maxlen=128)
        self._use: DiskUse | None = None

    def sample(self) -> None:
        """Once a second: the basis of rates."""
        now = time.monotonic()
        self._received.append((now, self._app.wire.messages.counts["received"]))
        self._app.wire.sources.sample(now)
        if not self._disk or now - self._disk[-1][0] >= DISK_SAMPLE_S_MIN:
            self._look_at_disk(now)

    def _look_at_disk(self, now: float) -> None:
        """What was known stays where the sealer takes a file away under our eyes, or the disk does not answer."""
        try:
            self._disk.append((now, shutil.disk_usage(self._app.root).free))
            self._use = disk_use(self._app.root)
        except OSError as fault:
            log.info("the use of the disk was not counted, in a minute again: %s", fault)

    def _rate(self) -> float:
        newest = self._received[-1] if self._received else (0.0, 0)
        for oldest in self._received:
            if newest[0] - oldest[0] <= RATE_WINDOW_S:
                break
        else:
            return 0.0
        span = newest[0] - oldest[0]
        return (newest[1] - oldest[1]) / span if span > 0 else 0.0

    def _disk_days_left(self, free: int) -> float | None:
        """What settled hours cost, repeated; before the first has settled, the rate of the last hour of ours.

        None until a minute was seen or while nothing is used.
        """
        if self._use is not None and self._use.bytes_a_day is not None:
            return self._use.days_left
        if len(self._disk) < 2:
            return None
        (then, free_then), (now, free_now) = self._disk[0], self._disk[-1]
        used_per_s = (free_then - free_now) / (now - then)
        return free / used_per_s / SECONDS_A_DAY if used_per_s > 0 else None

    def sources(self) -> list[dict[str, Any]]:
        """What each source has sent, see ingest.sourcestats."""
        wire, engine = self._app.wire, self._app.judge.engine
        return wire.sources.take(wire.messages.refused_by_reason, engine.speaks)

    def take(self) -> dict[str, Any]:
        """All numbers; keys are those of ingest.ops and a few that only /healthz shows."""
        app = self._app
        judge, committer, wire = app.judge.counts, app.committer, app.wire
        usage = resource.getrusage(resource.RUSAGE_SELF)
        free = shutil.disk_usage(app.root).free
        now: dict[str, Any] = {
            **dict.fromkeys(COUNTERS, 0),
            **wire.messages.counts,
            **wire.messages.nodes.counts,
            **wire.codec_counts,
            **judge.total,
            **app.deliverer.counters,
            **app.poller.counters,
            "connections": app.poller.counters["connections_open"],
            "connection_refusals": {
                k.removeprefix("refused."): v
                for k, v in app.poller.counters.items()
                if k.startswith("refused.")
            },
            **wire.stations.vitals(),
            "stale_receipts": app.poller.counters.get("receipts_stale", 0),
            "refused": dict(wire.messages.refused_by_reason),
            "replays_left": wire.replays.left if wire.replays else 0,
            "pid": os.getpid(),
            "uptime_s": time.monotonic() - self._begun,
            "after_kill": int(app.after_kill),
            "links_down": len(app.links.down),
            "acknowledged_messages": wire.acknowledged_messages,
            "commits": committer.commits,
            "readings_per_s": self._rate(),
            "journal_pending_bytes": committer.pending_bytes,
            "journal_oldest_s": committer.oldest_s,
            "journal_bytes": committer.journal.bytes_on_disk,
            "journal_seq": committer.journal.last_seq,
            "judged_seq": judge.judged_seq,
            "judge_lag_records": max(0, committer.journal.last_seq - judge.judged_seq),
            "judge_lag_s": max(0.0, (app.wire.now() - judge.ticked_at) / 1e6) if judge.ticked_at else 0.0,
            "conservation_gap": judge.conservation_gap,
            "alerts_open": app.judge.engine.alerts_open,
            "points": len(app.points),
            "points_dead": app.judge.engine.points_dead,
            **self._video(),
            "check_errors": app.judge.engine.counts["check_errors"],
            "hot_rows": app.tiers.hot_rows,
            "seals": app.tiers.seals,
            "sealed_rows": app.tiers.sealed_rows,
            "seal_s": app.tiers.seal_s,
            "compactions": app.tiers.compactions,
            "compacted_rows": app.tiers.compacted_rows,
            "compact_fault": app.tiers.compact_fault,
            "late_new": app.tiers.late_new,
            "late_revised": app.tiers.revised,
            "late_repeats": app.tiers.repeats,
            "retention_doubt": app.tiers.retention_doubt,
            "retired_rows": app.tiers.retired_rows,
            "delivery_restarts": app.deliverer.restarts,
            "outbox_waiting": app.deliverer.waiting,
            "outbox_oldest_s": app.deliverer.oldest_s,
            "disk_free_bytes": free,
            "disk_bytes_a_day": self._use.bytes_a_day if self._use else None,
            "disk_days_left": self._disk_days_left(free),
            "rss_bytes": rss_bytes(),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "turned_s_ago": time.monotonic() - wire.turned_at,
            "clock_jumps": app.wire.clock.jumps,
            "reload": (last := app.reloader.last) and last.as_json(),
            "reload_faults": len(last.faults) if last else 0,
            "certificate_days_left": app.certificates.days_left(time.time()),
            "certificate_faults": len(last.certificate_faults) if last else 0,
            "files_set_aside": len(app.damage.set_aside),
            "rows_lost_to_damage": app.damage.lost_rows,
            "damage": app.damage.said,
            "clock": "events" if app.events_clock else "wall",
        }
        if app.console is not None:
            now |= app.console.vitals()
        return now | as_vitals(reasons(app, now))

    def _video(self) -> dict[str, Any]:
        found = self._app.judge.engine.video_online()
        return {
            "video_channels": {where: of for where, (_, of) in found.items()},
            "video_online": {where: up for where, (up, _) in found.items()},
        }
