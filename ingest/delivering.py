"""Delivery in a process of its own: no call to a webhook waits for the sockets of a city, nor they for it.

Owns that process and the few words exchanged with it. What is to be delivered stands in the outbox
(anomaly.alerts.delivery reads it there), so the process may die at any moment: a new one goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import uvloop

from anomaly.alerts.carriers import tls_of
from anomaly.alerts.delivery import Deliverer
from ingest import oplog
from ingest.config import Config
from ingest.family import die_with_engine, end
from storage.certificates import Elsewhere

log = logging.getLogger("yuzui.delivery")

TELL_S: Final = 0.25
"""How old the counters may be that the engine shows."""
STOP_S_MAX: Final = 5.0
"""Calls in the air get three seconds (anomaly.alerts.delivery); then it is killed and they are sent again."""
RESTART_S: Final = 1.0
WAKE: Final = b"w"
CONCERNS: Final = ("alerts", "route", "inhibit", "webhook", "mqtt_target", "file_target", "log")
"""Tables of the config that it is told."""


class Delivery:
    """The engine's side: `wake` from any thread, all else on the loop.

    counters, waiting, oldest_s  as in anomaly.alerts.delivery.Deliverer, TELL_S old
    restarts  how often the process died and was made again
    """

    def __init__(self, path: Path, config: Config) -> None:
        """Raises CertificateFault."""
        said = config.model_dump(mode="json", include=set(CONCERNS))
        found = {f"target {target.name}": tls_of(target) for target in config.targets}
        self._certificates = {
            where: Elsewhere(tls, self._renew) for where, tls in found.items() if tls is not None
        }
        self._first = json.dumps({"path": str(path), "config": said}).encode()
        self.counters: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self.waiting = 0
        self.oldest_s = 0.0
        self.restarts = 0
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._wake_fd = -1

    def wake(self) -> None:
        """The outbox holds something new. Never waits: a full pipe wakes it just as well."""
        if self._wake_fd >= 0:
            try:
                os.write(self._wake_fd, WAKE)
            except (BlockingIOError, BrokenPipeError, OSError):
                return  # it looks by itself once a second

    async def run(self) -> None:
        """Keep the process alive until ``stop``."""
        while not self._stopping:
            try:
                await self._one_life()
            except (OSError, ValueError) as fault:
                # No room for a process now, or its last word was cut in two: what is queued waits in the outbox.
                log.error("delivery: %s: %s", type(fault).__name__, fault)
            if not self._stopping:
                self.restarts += 1
                log.error("delivery ended by itself; starting it again")
                await asyncio.sleep(RESTART_S)

    async def _one_life(self) -> None:
        read, self._wake_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ingest.delivering", str(read),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(read,),
            )  # fmt: skip
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(self._first + b"\n")
            self._process.stdin.close()
            while line := await self._process.stdout.readline():
                self._hear(json.loads(line))
            await self._process.wait()
        finally:
            os.close(read)
            fd, self._wake_fd = self._wake_fd, -1
            os.close(fd)
            self._before = Counter(self.counters)

    def _hear(self, said: dict[str, Any]) -> None:
        self.counters = self._before + Counter(said["counters"])
        self.waiting, self.oldest_s = said["waiting"], said["oldest_s"]

    def certificates(self) -> dict[str, Elsewhere]:
        """Those of all targets with TLS; they are the process's, which is told with SIGHUP."""
        return self._certificates

    def _renew(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Let calls in the air land, then end it."""
        self._stopping = True
        if self._process is not None:
            await end(self._process, STOP_S_MAX)


async def _deliver(first: dict[str, Any], wake_fd: int) -> None:
    config = Config.model_validate(first["config"])
    deliverer = Deliverer(
        Path(first["path"]), config.targets, config.alerts, routes=config.route, inhibits=config.inhibit
    )
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGHUP, deliverer.renew)
    os.set_blocking(wake_fd, False)

    def woken() -> None:
        os.read(wake_fd, 1 << 16)
        deliverer.wake()

    loop.add_reader(wake_fd, woken)
    running = asyncio.create_task(deliverer.run())
    ending = asyncio.create_task(ended.wait())
    while not ended.is_set() and not running.done():
        _say(deliverer)
        await asyncio.wait({running, ending}, timeout=TELL_S, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    await deliverer.stop()
    _say(deliverer)
    await running


def _say(deliverer: Deliverer) -> None:
    said = {"counters": deliverer.counters, "waiting": deliverer.waiting, "oldest_s": deliverer.oldest_s}
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Body of the process; its one argument is the descriptor that wakes it."""
    die_with_engine()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to renew
    first = json.loads(sys.stdin.buffer.readline())
    log_settings = Config.model_validate(first["config"]).log
    oplog.set_up(log_settings.level, log_settings.format)
    uvloop.run(_deliver(first, int(sys.argv[1])))


if __name__ == "__main__":
    main()
