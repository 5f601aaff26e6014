"""The engine, put together: the only file that knows all parts.

Owns the order of starting (lock, registry, recovery, judge, then sockets) and of stopping (sockets,
journal, judge, tiers, delivery). Holds no logic of any part.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from anomaly.alerts.outbox import Outbox
from anomaly.alerts.outboxfile import SCHEMA_VERSION
from anomaly.alerts.signature import keys_of
from anomaly.engine import Engine
from anomaly.live import Live
from anomaly.warm import warm
from ingest import mapdoor, ops, replayspool
from ingest.brokerlinks import BrokerLinks
from ingest.commands.common import ENGINE_FILE
from ingest.committer import Committer
from ingest.config import Config, OpsSettings
from ingest.credentials import Credentials, CredentialsFault
from ingest.delivering import Delivery
from ingest.judge import Judge, Resume
from ingest.memory import give_back
from ingest.modes import FOLDER_MODE, too_open
from ingest.mqtt.poller import Poller
from ingest.outboxrecovery import bring_back, continue_numbers, set_aside_if_damaged
from ingest.registering import Registering, RegistryUnread
from ingest.reloading import Prepared, Reloader
from ingest.replaying import Replays, kept_bytes, marked_in
from ingest.routes import Routes
from ingest.sealing import SealProcess
from ingest.sqldoor import SqlDoor
from ingest.tiers import Tiers
from ingest.vitals import Vitals
from ingest.warmwire import warm_wire
from ingest.wire import Wire
from storage import pointmap, query, snapshot
from storage.certificates import Certificates, ServerTls, server_files
from storage.formats import FolderNewer, refuse_newer_files
from storage.growth import LakeNewer, refuse_newer
from storage.hot import HotTier
from storage.journal_reader import JournalReader
from storage.latest import last_of_all
from storage.lock import DataLock
from storage.logs import ParquetLog
from storage.points import PointTable
from storage.records import Control, Gap
from storage.recovery import Damage
from storage.restore import NotFinished, refuse_unfinished
from storage.schema import ALERT_LOG, ALERTS, EVENTS, FORECASTS, QUARANTINE
from storage.segment import JournalNewer, list_segments
from storage.snapshot import SnapshotNewer
from storage.tail import Feed

log = logging.getLogger("yuzui.engine")

STOP_S_MAX = 20.0
"""A stop that needs longer is ended; the journal brings the rest back."""
WATCH_S = 1.0
SWITCH_S = 0.0005
"""The loop gives up the interpreter at every recv and send; at Python's own 5 ms a busy judge or seal thread would
make it wait that long each time to get it back: seconds, over a thousand sockets."""


class EngineFailed(RuntimeError):  # noqa: N818 - says what happened
    """A part ended on its own; the text says which and why."""


class CannotStart(RuntimeError):  # noqa: N818 - says what happened
    """Something a person mends before the engine starts: a port in use, a certificate that is missing."""


@contextmanager
def _mendable(where: str) -> Iterator[None]:
    """Say where the config's fault lies that only shows when its files and addresses are used."""
    try:
        yield
    except (OSError, ValueError, CredentialsFault) as fault:
        raise CannotStart(f"{where}: {fault}") from fault


def _begins_at_first(journal: Path) -> bool:
    """Whether nothing was cut from the journal yet: read from there it gives all there is to know, open alerts too."""
    segments = list_segments(journal)
    return bool(segments) and segments[0][0] <= 1


@dataclass(frozen=True, slots=True)
class RunMarks:
    """What every output of this run carries: ``replay`` under --clock events, ``drill`` when asked."""

    events_clock: bool = False
    drill: bool = False


class App:
    """One engine on one data folder. ``async with App(config) as app: await app.wait()``."""

    def __init__(
        self, config: Config, marks: RunMarks = RunMarks(), config_path: Path = Path("yuzui.toml")
    ) -> None:
        self.config = config
        self._config_path = config_path
        self.events_clock = marks.events_clock
        self._marks = marks
        self.drill = marks.drill
        self.root = Path(config.data.dir).absolute()
        self.started = False
        self.after_kill = False
        """Whether the engine before this one left without taking its file with it."""
        self._threads_run = False
        self.ops_port = 0
        self.listening_on: tuple[str, int] | None = None
        self.points: PointTable
        self.engine: Engine
        self.hot: HotTier
        self.committer: Committer
        self.judge: Judge
        self.tiers: Tiers
        self.links: BrokerLinks
        self.poller: Poller
        self.wire: Wire
        self.deliverer: Delivery
        self.certificates = Certificates()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ops: web.AppRunner | None = None
        self._sql_door: SqlDoor | None = None
        self.console: mapdoor.Door | None = None
        self._live = Live(lambda: time.time_ns() // 1000) if config.console.enabled else None
        self.damage = Damage()
        """What this start found damaged: files set aside and rows lost, with a sentence each."""

    async def __aenter__(self) -> App:
        with _mendable("$.data.dir"):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._lock = DataLock(self.root)
            self._lock.__enter__()
        for line in too_open(self.config):
            log.warning("%s", line)
        self.after_kill = (self.root / ENGINE_FILE).exists()
        try:
            refuse_unfinished(self.root)
            refuse_newer_files(self.root, SCHEMA_VERSION)
            refuse_newer(self.root)
        except (LakeNewer, FolderNewer, NotFinished) as newer:
            self._lock.__exit__(None, None, None)
            raise CannotStart(str(newer)) from newer
        # First of all: it starts beside the reading of the registry.
        self._sealer = SealProcess(
            self.root, self.config.sealed, self.config.compaction, self.config.retention
        )
        try:
            await self._start()
        except (JournalNewer, SnapshotNewer) as newer:
            await self._give_up()
            raise CannotStart(str(newer)) from newer
        except BaseException:
            await self._give_up()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.wait_for(self._shut_down(), STOP_S_MAX)
        finally:
            gc.unfreeze()
            self._sealer.close()
            (self.root / ENGINE_FILE).unlink(missing_ok=True)
            self._lock.__exit__(None, None, None)

    def stop(self) -> None:
        """Ask ``wait`` to return."""
        self._stop.set()

    async def _give_up(self) -> None:
        """A start that failed leaves no thread or task behind that would speak to a closed loop or socket."""
        if self._tasks:
            await self.deliverer.stop()
            if self._sql_door is not None:
                await self._sql_door.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._ops is not None:
                await self._ops.cleanup()
        if self._threads_run:
            self.judge.stop_at(0)
            self.tiers.stop()
            self.committer.stop()
            loop = asyncio.get_running_loop()
            for part in (self.judge, self.tiers, self.committer):
                await loop.run_in_executor(None, part.join)
            self.poller.close()
            self.wire.stations.close()
        self._sealer.close()
        self._lock.__exit__(None, None, None)

    async def wait(self) -> None:
        """Until ``stop``; raises EngineFailed if a part ends on its own."""
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), WATCH_S)
            except TimeoutError:
                self._watch()

    async def _start(self) -> None:
        began = time.monotonic()
        sys.setswitchinterval(SWITCH_S)
        loop = asyncio.get_running_loop()
        self._load_points()
        self._open_tiers()
        resume = self._restore(loop)
        for number, webhook in enumerate(self.config.webhook):
            with _mendable(f"$.webhook[{number}].secret"):
                keys_of(webhook)  # found wrong now, not at the first alert of a night
        with _mendable("TLS of a target"):
            self.deliverer = Delivery(self.root / "outbox.db", self.config)
        reader = JournalReader(self.root / "journal", resume.snapshot_seq + 1)
        feed = Feed(reader, self.committer.tail)
        self._threads(feed, resume)
        self._sockets()
        for part in (self.committer, self.tiers, self.judge):
            part.start()
        self._threads_run = True
        query.write_lake_sql(self.root, self.config.city.time_zone, self.config.sealed.grace_s)
        self._first_records()
        await self._caught_up(resume.journal_seq)
        self.wire.replays = Replays(self.root, self._replayed())
        self.wire.messages.kept_bytes.update(kept_bytes(self._quarantine.folder))
        self._open_sockets()
        self._tasks.append(asyncio.create_task(self.wire.run(), name="wire"))
        self._tasks.append(asyncio.create_task(self.deliverer.run(), name="delivery"))
        self.reloader = Reloader(
            self._config_path, self.root, self.config, self._make_engine, self._take_up, self.wire.journal,
            self.certificates.renew,
        )  # fmt: skip
        self._tasks.append(asyncio.create_task(self.reloader.run(), name="reload"))
        await self._serve_ops()
        self.started = True
        self._write_engine_file()
        gc.collect()
        gc.freeze()
        give_back()
        log.info(
            "engine is up in %.1f s: %d points, journal at %d, listening on %s",
            time.monotonic() - began, len(self.points), resume.journal_seq, self.listening_on or "no port",
        )  # fmt: skip

    def _load_points(self) -> None:
        """Reading them takes a process of its own meanwhile: what this one compiles and loads takes as long."""
        try:
            pointmap.restore(self.root, self.damage)
        except pointmap.PointsLost as lost:
            raise CannotStart(str(lost)) from lost
        registering = Registering(self.root, Path(self.config.points.file), self.config)
        try:
            warm()
            warm_wire()
            self.points = registering.points()
        except RegistryUnread as unread:
            raise CannotStart(str(unread)) from unread
        finally:
            registering.close()
        # Now, and not when the map is opened at the end of the start, with the city connected.
        if faults := mapdoor.users_faults(self.config):
            raise CannotStart("; ".join(faults))
        with _mendable("$.listener.credentials_file (made by `yuzui credential add`)"):
            self._credentials = Credentials.load(self.config.listener.credentials_file)

    def _open_tiers(self) -> None:
        self._main_seq, late_seq = self._sealer.ready()
        self.hot = HotTier(self.root)
        self._hot_seq = self.hot.recover(self._main_seq, late_seq)
        self._quarantine = ParquetLog(self.root / "lake" / "quarantine", QUARANTINE)
        self._alerts = ParquetLog(self.root / "lake" / "alerts", ALERTS)
        self._alert_log = ParquetLog(self.root / "lake" / "alert_log", ALERT_LOG)
        self._forecasts = ParquetLog(self.root / "lake" / "forecasts", FORECASTS)
        self._events = ParquetLog(self.root / "lake" / "events", EVENTS)
        small = (self._quarantine, self._alerts, self._alert_log, self._forecasts, self._events)
        for part in (self._sealer, self.hot, *small):
            self.damage.add(part.damage)

    def _restore(self, loop: asyncio.AbstractEventLoop) -> Resume:
        self.engine = self._make_engine(self.config, self.points)
        fresh = set_aside_if_damaged(self.root / "outbox.db", self.damage)
        self._outbox = self._open_outbox()
        if fresh:
            last = {"alert_event": self._alerts.last, "alert_log": self._alert_log.last}
            continue_numbers(self.root / "outbox.db", last)
        bring_back(self._alerts, self._outbox, self.damage)
        kept = snapshot.load_newest(self.root / "snapshot")
        if kept is not None:
            self.engine.restore(kept.arrays, kept.meta)
        elif not _begins_at_first(self.root / "journal"):
            self._remember_last()
        snapshot_seq, effects_seq = kept.seq if kept else 0, self._outbox.judged_seq()
        # A journal that was lost must not begin again at numbers the lake already holds.
        logs = max(log_.last for log_ in (self._quarantine, self._forecasts, self._events))
        known = max(snapshot_seq, self._hot_seq, effects_seq, logs)
        self.committer = Committer(self.root / "journal", self.config.journal, known + 1, loop)
        return Resume(
            snapshot_seq=snapshot_seq,
            hot_seq=self._hot_seq,
            effects_seq=effects_seq,
            journal_seq=self.committer.journal.last_seq,
        )

    def _remember_last(self) -> None:
        """Without a snapshot the lake knows each point's newest reading: what comes again must not count as new."""
        newer = [(file.path, file.late) for file in self.hot.pending(self._main_seq)]
        last = last_of_all(self.root, newer)
        if last.num_rows:
            time_us = last["time"].cast("int64").to_numpy()
            columns = (last[name].to_numpy() for name in ("value", "device_flag"))
            self.engine.remember(last["point"].to_numpy(), time_us, *columns)
            log.warning(
                "no snapshot is left: checks begin anew, %d points keep their place in time", last.num_rows
            )

    def _make_engine(self, config: Config, points: PointTable) -> Engine:
        return Engine(
            points, config.kinds, config.checks,
            clock="events" if self._marks.events_clock else "wall", drill=self._marks.drill,
            rules=config.rules.model_dump(), time_zone=config.city.time_zone,
        )  # fmt: skip

    def _open_outbox(self) -> Outbox:
        """Each thread has a connection of its own."""
        return Outbox(
            self.root / "outbox.db", self.config.targets, self.config.alerts,
            routes=self.config.route, inhibits=self.config.inhibit,
        )  # fmt: skip

    def _threads(self, feed: Feed, resume: Resume) -> None:
        self.tiers = Tiers(
            self.root, self.config.sealed, self.config.retention, self.hot, self._sealer, self._main_seq,
            self._quarantine, self._alerts, self._alert_log, self._forecasts, self._events, self._open_outbox(),
            lambda below: self.committer.journal.cut(below),
        )  # fmt: skip
        self.judge = Judge(
            self.engine, feed, self.hot, self._quarantine, self._outbox, resume,
            flush_s=self.config.hot.flush_s, snapshot_s=self.config.snapshot.every_s,
            notify=self.deliverer.wake, keep_snapshot=self.tiers.offer_snapshot,
            forecasts=self._forecasts, live=self._live, steps=self._events,
        )  # fmt: skip

    def _sockets(self) -> None:
        self.links = BrokerLinks(self.config.subscriber, lambda gap: self.wire.journal(gap))
        self.poller = Poller(self.config.wire, on_event=self.links.heard)
        self.wire = Wire(
            self.config, Routes(self.points, self.config), self._credentials, self.poller, self.committer,
            events_clock=self._marks.events_clock, known_us=self._last_alive_us(),
        )  # fmt: skip

    def _replayed(self) -> set[int]:
        """Refusals sent through again already, where a file of such waits: a kill may have come in its middle."""
        if not replayspool.waiting(self.root):
            return set()
        return marked_in(self._quarantine.folder) | self.judge.replayed

    def _take_up(self, new: Prepared) -> None:
        """New rules and a new registry, at the CONTROL record that is written next."""
        self.judge.adopt(new.digest, new.engine)
        self.wire.adopt(new.routes)
        for fault in self.wire.stations.serve(new.config.source):
            log.error("reload: no port for stations: %s", fault)
        self.points = new.points

    def _last_alive_us(self) -> int:
        """When an engine last lived on this folder, by its snapshot and by the journal's files; 0 where none did."""
        written = [path.stat().st_mtime_ns // 1000 for path in (self.root / "journal").glob("*.journal")]
        return max(0, self.engine.received_us, *written)

    def _open_sockets(self) -> None:
        """Last of all: from here on the city speaks."""
        listener = self.config.listener
        if listener.enabled:
            with _mendable(f"listener on {listener.host}:{listener.port}"):
                self.listening_on = self.poller.listen(listener, self._credentials)
        for settings in self.config.subscriber:
            with _mendable(f"subscriber {settings.name}"):
                self.poller.subscribe(settings)
        if faults := self.wire.stations.serve(self.config.source):
            raise CannotStart("; ".join(faults))

    def _first_records(self) -> None:
        """Our downtime is a gap that no point is blamed for; begin 0 means since the last TICK."""
        now = self.wire.now()
        self.wire.journal(Gap("downtime", 0, now))
        self.wire.journal(Control("start", {"pid": os.getpid(), "points": len(self.points), "at": now}))

    async def _caught_up(self, seq: int) -> None:
        while self.judge.counts.judged_seq < seq:
            self._watch()
            await asyncio.sleep(0.02)

    def _watch(self) -> None:
        for part in (self.judge, self.tiers):
            if isinstance(part.failure, JournalNewer):
                raise CannotStart(str(part.failure)) from part.failure
            if part.failure is not None:
                raise EngineFailed(f"{part.name} ended: {part.failure!r}")
        for task in self._tasks:
            if task.done() and not self._stop.is_set():
                raise EngineFailed(f"{task.get_name()} ended: {task.exception()!r}")

    async def _serve_ops(self) -> None:
        self.vitals = Vitals(self)
        self._tasks.append(asyncio.create_task(self._sample(), name="vitals"))
        for of in (self.poller.certificates, self.wire.stations.certificates, self.deliverer.certificates):
            self.certificates.add(of)
        if self.config.ops.enabled:
            await self._open_ops(self.config.ops)
        if self.config.sql.enabled:
            with _mendable("the SQL door"):
                self._sql_door = door = SqlDoor(self.root, self.config.sql, self.config.log)
            self.certificates.add(lambda: door.certificates)
            self._tasks.append(asyncio.create_task(self._sql_door.run(), name="SQL door"))
        if self._live is not None:
            with _mendable(f"the map on {self.config.console.host}:{self.config.console.port}"):
                self.console = console = await mapdoor.opened(self, self._live, self._open_outbox())
            self.certificates.add(lambda: {"console": console.tls} if console.tls is not None else {})

    async def _open_ops(self, settings: OpsSettings) -> None:
        host, port = settings.host, settings.port
        with _mendable(f"operators' port {host}:{port}"):
            files = server_files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
            tls = ServerTls(files) if files is not None else None
            app = ops.ops_app(self.vitals.take, self.vitals.sources)
            self._ops, self.ops_port = await ops.serve(app, host, port, tls)
            if tls is not None:
                await ops.serve_here(self._ops, self.root)
                self.certificates.add(lambda: {"operators' port": tls})

    async def _sample(self) -> None:
        while True:
            self.vitals.sample()
            await asyncio.sleep(WATCH_S)

    def _write_engine_file(self) -> None:
        found = {
            "pid": os.getpid(),
            "ops_host": self.config.ops.host,
            "ops_port": self.ops_port,
            "ops_tls": self.config.ops.tls_cert_file is not None,
            "listener": self.listening_on,
            "stations": self.wire.stations.addresses,
            "sealer_pid": self._sealer.pid,
            "console": self.console.address if self.console is not None else None,
        }
        tmp = self.root / f"{ENGINE_FILE}.tmp"
        tmp.write_text(json.dumps(found))
        tmp.replace(self.root / ENGINE_FILE)

    async def _shut_down(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop.set()
        self.wire.stop()
        # Wire ended by itself? What it received stands in the journal all the same.
        await asyncio.gather(self._tasks[0], return_exceptions=True)
        self.poller.close()
        self.wire.stations.close()
        self.judge.stop_at(self.committer.journal.last_seq)
        await loop.run_in_executor(None, self.judge.join)
        self.tiers.stop()
        await loop.run_in_executor(None, self.tiers.join)
        await self.deliverer.stop()
        if self._sql_door is not None:
            await self._sql_door.stop()
        if self.console is not None:
            await self.console.__aexit__()
        self.committer.stop()
        await loop.run_in_executor(None, self.committer.join)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ops is not None:
            await self._ops.cleanup()
        log.info("engine has stopped: everything acknowledged is on disk")
