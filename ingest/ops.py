"""For whoever keeps the engine running: /metrics, /livez, /readyz, /healthz, /sources on a local port.

Owns the HTTP face of telemetry. Every number comes from the engine's one ``vitals()``, so the log line,
the metric and `yuzui status` cannot disagree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingest.commands.common import SOCKET_FILE
from ingest.readiness import RUNBOOK
from storage.certificates import ServerTls

Vitals = dict[str, Any]
LIVE_TURN_S_MAX = 10.0
"""A loop that has not turned for this long is not alive: a thousand of its normal turns."""

# name, labels of nested dicts, help. A key of vitals that is not here is shown in /healthz only.
COUNTERS: dict[str, str] = {
    "messages": "MQTT PUBLISH messages received",
    "received": "readings received; a message that cannot be decoded counts as one",
    "quarantined": "readings refused, kept with their reason",
    "quarantined_not_kept": "refusals beyond the bound a minute: counted only",
    "retained_ignored": "retained messages without a time of their own",
    "untimed": "readings timed on receipt (at least once, never deduplicated)",
    "acknowledged_messages": "messages acknowledged after fsync",
    "main": "readings newer than any before of their point",
    "late_pending": "readings not newer, kept apart until compaction resolves them",
    "repeats": "exact repeats, dropped",
    "events": "events beside readings: steps of appeals, inspections, findings, alarms",
    "late_new": "late readings that a compaction found to be new",
    "late_revised": "late readings that a compaction found to revise an earlier value",
    "late_repeats": "late readings that a compaction found to repeat an earlier one",
    "compactions": "hours compacted or gathered",
    "retired_rows": "readings that retention took away",
    "files_set_aside": "damaged files found at the start and renamed .bad",
    "rows_lost_to_damage": "rows of damaged files that stood nowhere else",
    "commits": "journal group commits",
    "alerts_fired": "alerts that fired",
    "check_errors": "checks that raised; their readings are flagged 2",
    "webhooks_delivered": "notifications answered with 2xx",
    "webhooks_failed": "attempts that failed",
    "webhooks_dead": "notifications given up, in the dead letters",
    "console_clients_dropped": "maps let go because they took nothing",
    "console_clients_refused": "maps refused because too many were open",
    "console_ticks": "frames of the map made",
    "console_deltas": "frames sent as changes",
    "console_keyframes": "frames sent whole",
    "console_bytes": "bytes sent to maps",
    "console_requests_refused": "requests refused: foreign Host or Origin, no login, no role, too many guesses",
    "console_requests": "requests that came, refused ones too",
    "console_logins_failed": "wrong passwords and links",
    "console_lake_questions": "histories and pages of supervision asked of the lake",
    "console_lake_refused": "those that had no answer in time",
    "console_queries": "saved queries, and statements people typed",
    "console_queries_refused": "those that had no answer in time",
    "station_frames": "frames of stations on plain TCP",
    "station_noise": "pieces of their streams that were no frames",
    "station_answers": "answers sent to them after fsync",
    "station_answers_stale": "answers not sent because their station was gone",
    "nodes_asked": "requests published to nodes for what only they can say, such as a Sparkplug BIRTH",
    "nodes_asks_held": "requests not sent because the node was asked a moment ago",
    "nodes_asks_unheard": "requests not sent because the peer takes no messages",
    "nodes_points_left": "points whose device or node said farewell",
    "sparkplug_births": "Sparkplug NBIRTH and DBIRTH heard",
    "sparkplug_deaths": "Sparkplug NDEATH and DDEATH heard",
    "sparkplug_deaths_stale": "wills of an earlier birth, which say nothing of now",
    "sparkplug_seq_gaps": "gaps in the sequence numbers of Sparkplug nodes",
    "sparkplug_data_before_birth": "Sparkplug messages before their node's BIRTH",
    "sparkplug_historical": "Sparkplug readings marked as historical",
    "clock_jumps": "jumps of our wall clock by more than a minute",
    "delivery_restarts": "times the delivery process died and was started again",
    "stale_receipts": "acknowledgements not sent because their connection was gone",
}
GAUGES: dict[str, str] = {
    "readings_per_s": "readings received in the last second",
    "connections": "MQTT connections open",
    "stations": "stations connected on plain TCP",
    "journal_pending_bytes": "received, not yet on disk",
    "journal_oldest_s": "age of the oldest reading not on disk",
    "journal_bytes": "journal on disk",
    "judge_lag_records": "journal records on disk and not yet judged",
    "judge_lag_s": "age of the newest judged tick",
    "conservation_gap": "readings unaccounted for; anything but 0 is our mistake",
    "alerts_open": "alerts firing now",
    "outbox_waiting": "notifications not yet delivered",
    "outbox_oldest_s": "age of the oldest notification not delivered",
    "disk_free_bytes": "free on the data folder's disk",
    "disk_bytes_a_day": "what a day of this city costs on disk, from hours that have settled",
    "disk_days_left": "at that rate; before an hour has settled at the rate of the last hour",
    "points": "points in the registry",
    "points_dead": "points that are dead now",
    "hot_rows": "readings in hot files, not yet sealed",
    "console_clients": "maps open",
    "console_clients_stalled": "maps that have not read for a second",
    "console_lake_ms": "median of the newest answers to histories",
    "console_queries_ms": "median of the newest answers to queries",
    "console_encode_ms": "median of making one frame for all maps",
    "console_lag_s": "age of what the map shows",
    "uptime_s": "since this engine was up",
    "after_kill": "1 where the engine before this one did not stop by itself",
    "links_down": "connections to brokers that are not up",
    "reload_faults": "faults of the last reload; beyond 0 the old rules and registry go on",
    "certificate_days_left": "until the first of our certificates ends; below 0 it has",
    "certificate_faults": "certificates the last reload refused; there the old ones go on",
    "rss_bytes": "resident memory",
    "cpu_s": "CPU seconds used since start",
}
LABELLED: dict[str, tuple[str, tuple[str, ...]]] = {
    "refused": ("readings refused by source and reason", ("source", "reason")),
    "station_refusals": ("connections of stations refused by reason", ("reason",)),
    "connection_refusals": ("connections refused by reason", ("reason",)),
}


LABELLED_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "not_ready_by_reason": ("1 where this reason of /readyz holds, see docs/runbook.md", ("reason",)),
    "video_channels": ("channels of cameras by source and district", ("source", "district")),
    "video_online": ("those of them that are online", ("source", "district")),
}

OF_SOURCE: dict[str, tuple[str, bool]] = {
    "received": ("readings received of a source, refused ones included", True),
    "stored": ("readings of a source on their way to the journal", True),
    "per_s": ("readings a second of a source, over ten seconds", False),
    "lateness_s": ("mean of received less measured, over the last minute or two", False),
    "skew_s": ("least of received less measured: below 0 the source's clock is ahead", False),
    "online": ("share of a source's points that speak", False),
}
"""Of each row of ingest.sourcestats: help, and whether it only grows."""


class _FromVitals(Collector):
    def __init__(self, vitals: Callable[[], Vitals], sources: Callable[[], list[Vitals]]) -> None:
        self._vitals = vitals
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        now = self._vitals()
        for key, text in COUNTERS.items():
            yield CounterMetricFamily(f"yuzui_{key}", text, value=float(now.get(key, 0)))
        for key, text in GAUGES.items():
            gauge = GaugeMetricFamily(f"yuzui_{key}", text)
            if now.get(key) is not None:
                gauge.add_metric([], float(now[key]))
            yield gauge
        for key, (text, labels) in (LABELLED | LABELLED_GAUGES).items():
            metric = GaugeMetricFamily if key in LABELLED_GAUGES else CounterMetricFamily
            family = metric(f"yuzui_{key}", text, labels=labels)
            for label, value in now.get(key, {}).items():
                family.add_metric(list(label) if isinstance(label, tuple) else [label], float(value))
            yield family
        rows = self._sources()
        for key, (text, grows) in OF_SOURCE.items():
            kind = CounterMetricFamily if grows else GaugeMetricFamily
            of_source = kind(f"yuzui_source_{key}", text, labels=("source",))
            for row in rows:
                if row[key] is not None:
                    of_source.add_metric([row["source"]], float(row[key]))
            yield of_source


def ops_app(vitals: Callable[[], Vitals], sources: Callable[[], list[Vitals]] = list) -> web.Application:
    """The five routes; ``vitals`` and ``sources`` are called once a request."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FromVitals(vitals, sources))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def livez(_: web.Request) -> web.Response:
        alive = vitals()["turned_s_ago"] < LIVE_TURN_S_MAX
        return web.Response(
            text="ok\n" if alive else "the loop does not turn\n", status=200 if alive else 503
        )

    async def readyz(_: web.Request) -> web.Response:
        now = vitals()
        text = "".join(f"{reason}\n" for reason in now["not_ready"])
        if text:
            text += "".join(f"what to do: {RUNBOOK}#{code}\n" for code in now["not_ready_codes"])
        return web.Response(text=text or "ready\n", status=503 if text else 200)

    async def healthz(_: web.Request) -> web.Response:
        now = vitals()
        for key in (*LABELLED, *LABELLED_GAUGES):
            now[key] = {"/".join(k) if isinstance(k, tuple) else k: v for k, v in now.get(key, {}).items()}
        body = orjson.dumps(now, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
        return web.Response(
            body=body, content_type="application/json", status=503 if now["not_ready"] else 200
        )

    async def of_sources(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(sources()), content_type="application/json")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/sources", of_sources)
    return app


async def serve(
    app: web.Application, host: str, port: int, tls: ServerTls | None = None
) -> tuple[web.AppRunner, int]:
    """Listen on ``host`` (never every interface unless named); returns the runner and the port taken."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=tls.context if tls is not None else None)
    await site.start()
    taken: int = runner.addresses[0][1]
    return runner, taken


async def serve_here(runner: web.AppRunner, folder: Path) -> None:
    """Also answer on a socket in the data folder: the commands of whoever may enter it need no certificate."""
    path = folder / SOCKET_FILE
    path.unlink(missing_ok=True)
    # Through the folder's descriptor: the kernel takes no path longer than 107 bytes.
    within = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        await web.UnixSite(runner, f"/proc/self/fd/{within}/{SOCKET_FILE}").start()
        path.chmod(0o600)
    finally:
        os.close(within)
