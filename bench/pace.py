"""What a reading costs at the city's pace, by part, in instructions.

Run: python -m bench.pace [--poll-ms 20] [--tick-ms 50] [--seconds 6] [--json FILE]. Linux with perf events.

At a pace an engine mostly sleeps, so on a machine that others use its seconds say how long it waited for them. Here the
clock moves only when everything due by it is done: so many turns of Wire, commits, turns of Judge, TICKs and hot files
a second, over real sockets and files, however long they take. Counted are this thread's instructions and cycles in each
part, in user mode and in the kernel. Not here: the hand-over between threads, sealer, delivery, map. Counting itself
costs some ten instructions a reading.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import click
import numpy as np

from bench.case import CASES, load_cases
from bench.end_to_end import SCRATCH
from bench.load.generator import connect_packet, raise_open_files
from bench.load.registry import CLOCK, PULSE
from bench.load.streams import Shape, Stream, by_gateway, compose, wordings
from bench.rig import CITY_DIR, Rig
from ingest import app as composition
from ingest import judge, wire
from ingest.configfile import load
from ingest.kernelcache import settle
from ingest.mqtt import arena, bulk
from ingest.simulate.encode import MQTT_5, MQTT_311
from ingest.simulate.fleet import load_fleet
from storage.journal_reader import JournalReader
from storage.tail import Feed

EVENTS: Final = ("instructions", "instructions, kernel", "cycles", "cycles, kernel")
STEP_S: Final = 0.004
SETTLE_S: Final = 3.0
"""Seconds of the city before it is counted: every point has been seen by then."""
HANDSHAKES: Final = 64
_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
_CYCLES, _INSTRUCTIONS, _NO_USER, _NO_KERNEL, _NO_HYPERVISOR, _GROUP = 0, 1, 1 << 4, 1 << 5, 1 << 6, 8


class Counters:
    """The four EVENTS of the thread that makes it. Raises OSError where the kernel has no such counters for us."""

    def __init__(self) -> None:
        libc, call = ctypes.CDLL(None, use_errno=True), _PERF_EVENT_OPEN[os.uname().machine]
        self.fd = -1
        for config, flags in (
            (_INSTRUCTIONS, _NO_KERNEL), (_INSTRUCTIONS, _NO_USER), (_CYCLES, _NO_KERNEL), (_CYCLES, _NO_USER),
        ):  # fmt: skip
            asked = struct.pack("=IIQQQQQ", 0, 112, config, 0, 0, _GROUP, flags | _NO_HYPERVISOR).ljust(
                112, b"\0"
            )
            fd = libc.syscall(call, asked, 0, -1, self.fd, 0)
            if fd < 0:
                raise OSError(ctypes.get_errno(), "no perf events: see /proc/sys/kernel/perf_event_paranoid")
            self.fd = fd if self.fd < 0 else self.fd

    def now(self) -> np.ndarray:
        """int64[4] since the start."""
        return np.frombuffer(os.read(self.fd, 40), np.int64, 4, 8)


class Parts:
    """By name: calls, and what was counted in them but not in other parts they called."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = defaultdict(int)
        self.counted: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(EVENTS), np.int64))
        self._counters = Counters()
        self._open: list[np.ndarray] = []

    def clear(self) -> None:
        """Begin anew."""
        self.calls.clear()
        self.counted.clear()

    def count(self, owner: Any, name: str, part: str) -> None:
        """From now on ``owner.name`` is a part."""
        call = getattr(owner, name)

        def counted(*args: Any, **named: Any) -> Any:
            self._open.append(np.zeros(len(EVENTS), np.int64))
            before = self._counters.now()
            try:
                return call(*args, **named)
            finally:
                spent = self._counters.now() - before
                self.counted[part] += spent - self._open.pop()
                self.calls[part] += 1
                if self._open:
                    self._open[-1] += spent

        setattr(owner, name, counted)


class Clock:
    """What Wire takes for ``time``, and for its loop."""

    def __init__(self) -> None:
        self.begun = self.at = time.time()
        self._later: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def monotonic(self) -> float:
        """Seconds."""
        return self.at - self.begun + SETTLE_S

    def time_ns(self) -> int:
        """Since 1970."""
        return int(self.at * 1e9)

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """As a loop's."""
        self._later.append((call, args))

    call_soon_threadsafe = call_soon

    def run(self) -> None:
        """Everything that was to be called soon."""
        while self._later:
            call, args = self._later.pop(0)
            call(*args)


class Engine:
    """The parts of an engine, none of them running by itself. ``rig``: whose config and registry it has."""

    def __init__(self, rig: Rig, clock: Clock) -> None:
        settle()
        path = rig._config(1)
        where = {
            "YUZUI_DATA": str(rig.data),
            "YUZUI_POINTS": str(rig._registry()),
            "YUZUI_LISTENER_PORT": "0",
        }
        config = load(path, {**os.environ, **where, "YUZUI_LISTENER": "true", "YUZUI_OPS_PORT": "0"})
        app = self.app = composition.App(config, config_path=path)
        app.root.mkdir(parents=True)
        app._sealer = composition.SealProcess(app.root, config.sealed, config.compaction, config.retention)
        wire.time, wire.asyncio = clock, SimpleNamespace(get_running_loop=lambda: clock)  # type: ignore[attr-defined]
        app._load_points()
        app._open_tiers()
        resume = app._restore(clock)  # type: ignore[arg-type]
        app.deliverer = SimpleNamespace(wake=lambda: None)  # type: ignore[assignment]
        self.feed = Feed(JournalReader(app.root / "journal", 1), app.committer.tail)
        app._threads(self.feed, resume)
        app._sockets()
        app._first_records()
        self.address = app.poller.listen(config.listener, app._credentials)
        self._clock = clock

    def turn(self) -> None:
        """One of Wire, and the commit and acknowledgements of what it brought."""
        self.app.wire.turn()
        while self.app.committer._queue:
            self.app.committer._commit(list(self.app.committer._queue))
        self._clock.run()

    def judge(self) -> None:
        """One of Judge."""
        self.app.judge._turn()

    def count_in(self, parts: Parts) -> None:
        """Which parts there are."""
        app = self.app
        for owner, name, part in (
            (app.wire, "turn", "wire: the rest of a turn"),
            (app.poller, "poll", "wire: connections, reading"),
            (bulk, "receive", "wire: recv"),
            (arena, "scan_segments", "wire: scan"),
            (app.wire, "_decode_arena", "wire: decode"),
            (app.committer, "_commit", "journal: commit"),
            (app.wire, "_acknowledge", "wire: acknowledgements"),
            (bulk, "send_all", "wire: send"),
            (app.judge, "_turn", "judge: the rest of a turn"),
            (app.engine, "judge", "judge: checks, rules, episodes"),
            (app.engine, "tick", "judge: TICK"),
            (app.hot, "write", "judge: hot files"),
        ):
            parts.count(owner, name, part)

    def close(self) -> None:
        """Nothing of it is wanted any more."""
        self.app._sealer.close()
        self.app.poller.close()


class City:
    """Its gateways, connected, each of which says all its points at once, one after the other."""

    def __init__(self, points_file: Path, connections: int, engine: Engine, now_ms: int) -> None:
        fleet = load_fleet(points_file)
        kept = [r for r, point in enumerate(fleet.point_id) if not point.startswith((PULSE, CLOCK))]
        fleet = fleet.take(np.array(kept, np.intp))
        fleet = fleet.take(by_gateway(fleet))
        versions = [MQTT_5 if n % 2 else MQTT_311 for n in range(connections)]
        self.stream: Stream = compose(fleet, wordings(fleet, CITY_DIR), Shape(qos=1), versions, now_ms)
        self._borders = self.stream.borders.tolist()
        self._ids = [1] * connections
        self._dealt = self._cursor = 0
        self._socks: list[socket.socket] = []
        self._spoke: set[int] = set()
        for number, version in enumerate(versions):
            sock = socket.create_connection(engine.address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            sock.sendall(connect_packet(f"load-{number:05d}", version))
            self._socks.append(sock)
            if number % HANDSHAKES == 0:
                self._until_welcome(engine)
        self._until_welcome(engine)

    def _until_welcome(self, engine: Engine) -> None:
        while engine.app.poller.counters["connections_admitted"] < len(self._socks):
            engine.turn()

    def speak(self, due: int, now_ms: int) -> None:
        """Send messages up to the ``due``-th."""
        while self._dealt < due:
            place = self._dealt % len(self.stream)
            self._cursor = 0 if place == 0 else self._cursor
            conn, end = self._cursor, self._borders[self._cursor + 1]
            n = min(due - self._dealt, end - place)
            # Packet ids begin again long before they end.
            self._ids[conn] = self._ids[conn] if self._ids[conn] < 60_000 else 1
            first, last, self._ids[conn] = self.stream.stamp(place, place + n, now_ms, self._ids[conn])
            self._socks[conn].sendall(self.stream.wire[first:last])
            self._spoke.add(conn)
            self._dealt += n
            self._cursor += place + n == end

    def hear(self) -> None:
        """Take what was acknowledged."""
        for conn in self._spoke:
            try:
                while self._socks[conn].recv(1 << 16):
                    pass
            except BlockingIOError:
                continue
        self._spoke.clear()


def play(
    engine: Engine, city: City, clock: Clock, rate: float, poll_s: float, tick_s: float
) -> Iterator[None]:
    """The city speaks and the engine turns; yields after each step of the clock."""
    begun = poll_at = tick_at = clock.at
    while True:
        clock.at += STEP_S
        city.speak(int((clock.at - begun) * rate), clock.time_ns() // 1_000_000)
        if clock.at >= poll_at:
            engine.turn()
            city.hear()
            poll_at += poll_s
        if clock.at >= tick_at:
            engine.judge()
            tick_at += tick_s
        yield


@contextmanager
def _folder() -> Iterator[Rig]:
    folder = SCRATCH / "pace"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield Rig(load_cases(CASES / "city-direct.toml")[0], folder, SCRATCH)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@click.command(help=__doc__)
@click.option("--poll-ms", default=20.0, show_default=True, help="Between two turns of Wire.")
@click.option(
    "--tick-ms", default=float(judge.TICK_MS), show_default=True, help="Between two turns of Judge."
)
@click.option("--seconds", default=6.0, show_default=True, help="Of the city's clock, counted.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write what was counted there, too.")
def main(poll_ms: float, tick_ms: float, seconds: float, file: Path | None) -> None:
    raise_open_files()
    with _folder() as rig:
        clock = Clock()
        engine = Engine(rig, clock)
        try:
            city = City(rig._registry(), rig.case.connections, engine, clock.time_ns() // 1_000_000)
            parts = Parts()
            engine.count_in(parts)
            run = play(engine, city, clock, rig.case.rate, poll_ms / 1000, tick_ms / 1000)
            begun = clock.at
            while clock.at - begun < SETTLE_S:
                next(run)
            parts.clear()
            before, since = engine.app.wire.messages.counts["received"], clock.at
            while clock.at - since < seconds:
                next(run)
            readings = engine.app.wire.messages.counts["received"] - before
            assert engine.app.judge.counts.conservation_gap == 0
            _say(parts, readings, clock.at - since, file)
        finally:
            engine.close()


def _say(parts: Parts, readings: int, seconds: float, file: Path | None) -> None:
    rows = sorted(parts.counted.items(), key=lambda row: row[0])
    total = sum((counted for _, counted in rows), np.zeros(len(EVENTS), np.int64))
    print(
        f"| of a reading at {readings / seconds:,.0f} a second | times a second | "
        + " | ".join(EVENTS)
        + " |"
    )
    print("| --- |" + " --- |" * (1 + len(EVENTS)))
    for name, counted in [*rows, ("all of these", total)]:
        often = f"{parts.calls[name] / seconds:.0f}" if name in parts.calls else ""
        print(f"| {name} | {often} | " + " | ".join(f"{n / readings:,.0f}" for n in counted.tolist()) + " |")
    if file is not None:
        made = {
            name: dict(zip(EVENTS, (counted / readings).round(1).tolist(), strict=True))
            for name, counted in rows
        }
        file.write_text(
            json.dumps({"readings": readings, "seconds": seconds, "parts": made}, indent=1) + "\n"
        )


if __name__ == "__main__":
    sys.exit(main())
