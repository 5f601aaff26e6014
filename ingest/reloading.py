"""A new registry and new rules while the engine runs.

Owns what may change without a restart, and the order of the change. A config or registry with a fault is refused whole
and the old goes on. The change has a place in the journal: a CONTROL record. Judge takes up the new engine when it
reads that record, Wire the new routes when it has written it; so readings of new points come only after both.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from anomaly.engine import Engine
from ingest.config import Config
from ingest.configfile import ConfigFaults, load
from ingest.registering import Registering, RegistryUnread
from ingest.registryfaults import RegistryFaults
from ingest.routes import Routes
from storage import audit
from storage.points import PointTable
from storage.records import Control
from storage.texts import Texts

log = logging.getLogger("yuzui.reload")

LIVE_TABLES: Final = ("kinds", "checks", "rules", "source", "sources")
"""Tables of the config that a reload takes up, beside the registry. Others need a restart; the report names them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything new, made and checked before anything is changed. ``waits``: as in ReloadReport.needs_restart."""

    config: Config
    points: PointTable
    engine: Engine
    routes: Routes
    digest: str
    waits: list[str]


@dataclass(slots=True)
class ReloadReport:
    """What came of one reload. ``faults`` are lines for a person; empty where it was taken up.

    at             µs since 1970 UTC, when it was over
    digest         of the rules and registry in force
    points         now in the registry, retired ones included
    needs_restart  tables of the config that were changed and wait for one
    certificates   sides whose certificates were read again and are in force for new connections
    certificate_faults  a line for each that was refused: there the old one goes on
    """

    at: int
    digest: str = ""
    points: int = 0
    faults: list[str] = field(default_factory=list)
    needs_restart: list[str] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    certificate_faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For /healthz and `yuzui reload`."""
        return asdict(self)


def digest_of(config: Config, points: PointTable) -> str:
    """16 hex digits that change when a live table of the config or a point does."""
    tables = {name: config.model_dump()[name] for name in LIVE_TABLES}
    found = sha256(orjson.dumps(tables, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))
    for texts in (Texts.of(points.point_id), Texts.of(points.topic)):
        found.update(texts.at.data)
        found.update(texts.pool.data)
    for column in (points.level, points.retired):
        found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()[:16]


def needs_restart(old: Config, new: Config) -> list[str]:
    """Tables that differ and that only a restart takes up."""
    was, now = old.model_dump(), new.model_dump()
    # Another file of the registry is read as well.
    return [name for name in was if name not in (*LIVE_TABLES, "points") and was[name] != now[name]]


def prepare(
    path: Path, running: Config, root: Path, make_engine: Callable[[Config, PointTable], Engine]
) -> Prepared:
    """Read and check everything; only the point map on disk is changed, and only after all else is right.

    Raises ConfigFaults, RegistryFaults, RegistryUnread, or ValueError for settings that a rule refuses. Takes a
    second or two for a city: call it off the loop.
    """
    # Read once: somebody may be writing the files, and each table would be of another moment.
    found = load(path)
    # What needs a restart stays as it runs: a mixture of both would be a third config that nobody wrote.
    new = running.model_copy(update={name: getattr(found, name) for name in (*LIVE_TABLES, "points")})
    points = Registering(root, Path(new.points.file), new).points()
    engine, waits = make_engine(new, points), needs_restart(running, found)
    return Prepared(new, points, engine, Routes(points, new), digest_of(new, points), waits)


class Reloader:
    """One reload at a time; every method on the loop thread.

    take_up  puts what was prepared in force: routes, engine, points
    journal  writes the CONTROL record at whose position that happens
    renew    reads all certificates again, whatever becomes of the rest
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        config: Config,
        make_engine: Callable[[Config, PointTable], Engine],
        take_up: Callable[[Prepared], None],
        journal: Callable[[Control], None],
        renew: Callable[[], tuple[list[str], list[str]]] = lambda: ([], []),
    ) -> None:
        self._path = path
        self._root = root
        self._config = config
        self._make_engine = make_engine
        self._take_up = take_up
        self._journal = journal
        self._renew = renew
        self._asked = asyncio.Event()
        self.last: ReloadReport | None = None

    def ask(self) -> None:
        """Have the files read again soon; what comes of it stands in ``last`` and in the log."""
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled: reload whenever it was asked for."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            taken, refused = self._renew()
            report = await self._reload()
            report.certificates, report.certificate_faults = taken, refused
            await asyncio.get_running_loop().run_in_executor(None, self._note, report)
            self.last = report

    def _note(self, report: ReloadReport) -> None:
        """To the audit log: rules and registry, and each certificate that was refused."""
        refused = [*report.faults, *report.certificate_faults]
        what = audit.RELOAD_REFUSED if refused else audit.RELOADED
        audit.note(self._root, audit.Act(what, "", "signal", report.digest, "; ".join(refused)))

    async def _reload(self) -> ReloadReport:
        loop = asyncio.get_running_loop()
        try:
            ready = await loop.run_in_executor(
                None, prepare, self._path, self._config, self._root, self._make_engine
            )
        except Exception as refused:  # whatever it is, the engine that runs is worth more
            ours = not isinstance(
                refused, ConfigFaults | RegistryFaults | RegistryUnread | ValueError | OSError
            )
            lines = [f"{type(refused).__name__}: {refused}"] if ours else _lines(refused)
            if ours:
                log.critical("reload fell over: a mistake of ours", exc_info=refused)
            log.error("reload refused, the old rules and registry stay: %s", "; ".join(lines[:5]))
            return ReloadReport(time.time_ns() // 1000, faults=lines)
        # The engine before the record: Judge must find it when it reads that.
        self._take_up(ready)
        self._journal(Control("reload", {"digest": ready.digest, "points": len(ready.points)}))
        self._config = ready.config
        if ready.waits:
            log.warning("reload: changes of %s wait for a restart", ", ".join(ready.waits))
        log.info("reload: %d points, rules and registry %s", len(ready.points), ready.digest)
        return ReloadReport(time.time_ns() // 1000, ready.digest, len(ready.points), [], ready.waits)


def _lines(refused: Exception) -> list[str]:
    if isinstance(refused, ConfigFaults):
        return [str(fault) for fault in refused.faults]
    if isinstance(refused, RegistryFaults):
        return refused.registry.report()
    return [str(refused)]
