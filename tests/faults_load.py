"""A gateway for fault runs: publishes at QoS 1 to whatever port it is told, keeps what is not acknowledged,
sends it again after every loss of connection, and writes what it did to a ledger.

Owns the honest publisher's duty and the shape of what it says: readings with late ones, repeats and revisions
among them, and levels that rise and fall so that alerts fire. Knows nothing of engines or faults.
"""

from __future__ import annotations

import itertools
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from ingest.mqtt.codec import decode, encode, frame_at
from ingest.mqtt.packets import LEVEL_5, LEVEL_311, Ack, Connack, Connect, Kind, Pingreq, Publish
from ingest.simulate.ledger import ACKED, REFUSED, Chunk, Ledger, write_points

STEP_S = 0.05
RETRY_S = 0.05
"""Engines die often here; a gateway in a city would wait longer."""
KEEPALIVE_S = 60
PING_S = 5.0
KEPT_MAX = 4_000
"""Messages a gateway keeps; while it has so many it measures nothing. Dead engines would leave hours to catch up."""
LATE_S = 45.0
LATE_SHIFT_MS = 7
"""Steps are whole multiples of 50 ms, so no late reading has the time of another."""
PERIOD_STEPS = 80
"""Of a level from low over red and back: four seconds."""
LOW, HIGH = 5.0, 45.0
REFUSAL = 0x80
LATELY = 8
"""The newest of these is repeated, the oldest revised: never one after the other, so the ledger knows who was last."""


@dataclass(slots=True)
class Said:
    """One message until it is acknowledged: rows begin … end of the chunk."""

    topic: str
    payload: bytes
    chunk: Chunk
    begin: int
    end: int
    pid: int = 0
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What a gateway says.

    plain, levels   its points, without and with warning levels
    rate            readings a second
    per_message     readings in one message
    age_s, pace     the first reading is this old, and each second brings so many of event time: hours pass in seconds
    port            of a broker; 0 is the engine's own
    late, repeated, revised  shares of steps that bring one such message; late ones come after two seconds
    """

    gateway: str
    plain: Sequence[str]
    levels: Sequence[str] = ()
    rate: float = 2_000.0
    per_message: int = 25
    late: float = 0.2
    repeated: float = 0.1
    revised: float = 0.1
    seconds: float = 3_600.0
    seed: int = 1
    v5: bool = False
    age_s: float = 0.0
    pace: float = 1.0
    port: int = 0


@dataclass(slots=True)
class Wire:
    """The connection of now."""

    sock: socket.socket
    rest: bytes = b""
    out: bytearray = field(default_factory=bytearray)
    inflight: dict[int, Said] = field(default_factory=dict)
    heard_at: float = 0.0
    pinged_at: float = 0.0


class Gateway(threading.Thread):
    """Speaks until ``stop`` or its seconds are over, then until all is acknowledged or ``give_up``.

    port  asked at every connect: engines come back on other ports; None while there is none
    """

    def __init__(
        self, load: Load, port: Callable[[], int | None], ledger: Path, first_number: int = 0
    ) -> None:
        super().__init__(name=f"gateway {load.gateway}", daemon=True)
        self.load = load
        self._port = port
        self.points = [*load.plain, *load.levels]
        self._number = {point: first_number + i for i, point in enumerate(self.points)}
        self._ledger = Ledger(ledger, load.gateway)
        self._rng = random.Random(load.seed)
        self._phase = [self._rng.randrange(PERIOD_STEPS) for _ in self.points]
        self._waiting: deque[Said] = deque()
        self._wire: Wire | None = None
        self._pids = itertools.cycle(range(1, 65_536))
        self._ending = threading.Event()
        self._gone = threading.Event()
        self._step = 0
        self._sent_us = 0
        self._next_point = 0
        self._begun_ms = round((time.time() - load.age_s) / STEP_S) * round(STEP_S * 1000)
        self._lately: deque[Said] = deque(maxlen=LATELY)
        self.said = self.acked = self.resent = self.connects = self.refused = 0
        self.failure: BaseException | None = None

    @property
    def open(self) -> int:
        """Messages said or to be said that are not acknowledged."""
        return len(self._waiting) + (len(self._wire.inflight) if self._wire else 0)

    def end(self) -> None:
        """Say nothing new."""
        self._ending.set()

    def finish(self, timeout_s: float = 60.0) -> None:
        """Say nothing new, wait until all is acknowledged, write the ledger. AssertionError if it is not."""
        self._ending.set()
        self.join(timeout_s)
        if self.is_alive():
            self._gone.set()
            self.join(10)
            raise AssertionError(f"{self.name}: {self.open} messages not acknowledged in {timeout_s:g} s")
        if self.failure is not None:
            raise AssertionError(f"{self.name} failed: {self.failure!r}") from self.failure

    def give_up(self) -> None:
        """Hang up at once; the ledger says what was not acknowledged."""
        self._ending.set()
        self._gone.set()
        self.join(20)

    def run(self) -> None:
        """Thread body."""
        try:
            self._speak()
        except BaseException as failure:
            self.failure = failure
        finally:
            if self._wire:
                self._wire.sock.close()
            self._ledger.close()

    def _speak(self) -> None:
        begun = time.monotonic()
        due = begun
        while not self._gone.is_set():
            now = time.monotonic()
            if not self._ending.is_set() and now - begun < self.load.seconds:
                # A step missed is said later: what a gateway measured does not vanish with its connection.
                while due <= now and now - begun < self.load.seconds:
                    if self.open < KEPT_MAX:
                        self._produce()
                    due += STEP_S
            elif not self.open:
                return
            if self._wire is None:
                self._connect()
            if self._wire is None:
                time.sleep(RETRY_S)
                continue
            self._exchange(max(0.0, min(due - time.monotonic(), STEP_S)))

    # -- what is said --------------------------------------------------------------------------------

    def _produce(self) -> None:
        self._step += 1
        time_ms = self._begun_ms + self._step * round(STEP_S * 1000 * self.load.pace)
        # No point twice in a step: each reading has a time of its own.
        count = min(max(1, round(self.load.rate * STEP_S)), len(self.points))
        while count > 0:
            take = min(count, self.load.per_message, len(self.points) - self._next_point)
            points = self.points[self._next_point : self._next_point + take]
            self._next_point = (self._next_point + take) % len(self.points)
            self._say(points, time_ms, [self._value(point) for point in points])
            count -= take
        if self._step * STEP_S > 2 and self._rng.random() < self.load.late:
            chosen = self._rng.sample(list(self.load.plain), min(3, len(self.load.plain)))
            self._say(chosen, time_ms - round(LATE_S * 1000) + LATE_SHIFT_MS, [-1.0] * len(chosen))
        if self._lately and self._rng.random() < self.load.repeated:
            again = self._lately[-1]
            self._waiting.append(Said(again.topic, again.payload, Chunk(*_none()), 0, 0))
        if len(self._lately) == LATELY and self._rng.random() < self.load.revised:
            self._revise(self._lately[0])

    def _value(self, point: str) -> float:
        number = self._number[point] - self._number[self.points[0]]
        if number < len(self.load.plain):
            return round(self._rng.uniform(0.0, 100.0), 2)
        place = (self._step + self._phase[number]) % PERIOD_STEPS / PERIOD_STEPS
        return round(LOW + (HIGH - LOW) * (1 - abs(2 * place - 1)), 2)

    def _revise(self, old: Said) -> None:
        rows = range(old.begin, old.end)
        chosen = [row for row in rows if self._is_plain(int(old.chunk.number[row]))][:2]
        if chosen:
            first = self._number[self.points[0]]
            points = [self.points[int(old.chunk.number[row]) - first] for row in chosen]
            self._say(points, int(old.chunk.time_us[chosen[0]]) // 1000, [-2.0] * len(points), keep=False)

    def _is_plain(self, number: int) -> bool:
        return number - self._number[self.points[0]] < len(self.load.plain)

    def _say(self, points: Sequence[str], time_ms: int, values: Sequence[float], keep: bool = True) -> None:
        numbers = np.array([self._number[point] for point in points], np.int32)
        times = np.full(len(points), time_ms * 1000, np.int64)
        chunk = self._ledger.open_chunk(numbers, times, np.array(values, np.float64))
        body = [{"id": p, "ts": time_ms, "v": v} for p, v in zip(points, values, strict=True)]
        said = Said(f"t/{self.load.gateway}", orjson.dumps(body), chunk, 0, len(points))
        self.said += len(points)
        self._waiting.append(said)
        if keep and values[0] >= 0:
            self._lately.append(said)

    # -- the connection ------------------------------------------------------------------------------

    def _connect(self) -> None:
        port = self.load.port or self._port()
        if port is None:
            return
        try:
            sock = socket.create_connection(("127.0.0.1", port), timeout=5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            level = LEVEL_5 if self.load.v5 else LEVEL_311
            sock.sendall(encode(Connect(f"load-{self.load.gateway}", True, KEEPALIVE_S, level), self.load.v5))
            heard = b""
            while True:
                body, end = frame_at(heard, 0) if heard else (0, 0)
                if end and end <= len(heard):
                    break
                part = sock.recv(4096)
                if not part:
                    raise ConnectionError("closed before CONNACK")
                heard += part
            connack = decode(heard[0], heard[body:end], self.load.v5)
            if not isinstance(connack, Connack) or connack.code:
                raise ConnectionError(f"refused: {connack}")
        except OSError:
            return
        sock.setblocking(False)
        self._wire = Wire(sock, heard[end:], heard_at=time.monotonic(), pinged_at=time.monotonic())
        self.connects += 1

    def _hang_up(self) -> None:
        assert self._wire is not None
        self._wire.sock.close()
        # In the order they were first said, before anything new.
        again = list(self._wire.inflight.values())
        self._waiting.extendleft(reversed(again))
        self._wire = None

    def _exchange(self, wait_s: float) -> None:
        wire = self._wire
        assert wire is not None
        now = time.monotonic()
        while self._waiting and len(wire.out) < 1 << 18 and len(wire.inflight) < 30_000:
            said = self._waiting.popleft()
            said.pid = next(self._pids)
            while said.pid in wire.inflight:
                said.pid = next(self._pids)
            wire.inflight[said.pid] = said
            wire.out += encode(
                Publish(said.topic, said.payload, 1, pid=said.pid, dup=said.tries > 0), self.load.v5
            )
            self.resent += said.tries > 0
            said.tries += 1
            if said.tries == 1:
                # Never twice the same: what was said last of a key is what must stand.
                self._sent_us = max(self._sent_us + 1, time.time_ns() // 1000)
                said.chunk.sent(said.begin, said.end, self._sent_us)
        if now - wire.pinged_at > PING_S:
            wire.out += encode(Pingreq(), self.load.v5)
            wire.pinged_at = now
        try:
            readable, writable, _ = select.select([wire.sock], [wire.sock] if wire.out else [], [], wait_s)
            if writable:
                sent = wire.sock.send(memoryview(wire.out)[: 1 << 16])
                del wire.out[:sent]
            if readable:
                heard = wire.sock.recv(1 << 16)
                if not heard:
                    raise ConnectionError("closed")
                self._hear(wire, heard)
        except BlockingIOError:
            return
        except OSError:
            self._hang_up()

    def _hear(self, wire: Wire, heard: bytes) -> None:
        wire.rest += heard
        at = 0
        while at < len(wire.rest):
            body, end = frame_at(wire.rest, at)
            if not end or end > len(wire.rest):
                break
            packet = decode(wire.rest[at], wire.rest[body:end], self.load.v5)
            at = end
            if isinstance(packet, Ack) and packet.kind is Kind.PUBACK:
                said = wire.inflight.pop(packet.pid)
                said.chunk.settle(said.begin, said.end, REFUSED if packet.code >= REFUSAL else ACKED)
                self.acked += said.end - said.begin
                self.refused += packet.code >= REFUSAL
        wire.rest = wire.rest[at:]


def _none() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float64)


def gateways(
    loads: Sequence[Load], port: Callable[[], int | None], ledger: Path, start: bool = True
) -> list[Gateway]:
    """One gateway for each load, with the ledger's own map of points written first."""
    names = [point for load in loads for point in (*load.plain, *load.levels)]
    write_points(ledger, np.arange(len(names), dtype=np.int32), names)
    found, first = [], 0
    for load in loads:
        found.append(Gateway(load, port, ledger, first))
        first += len(load.plain) + len(load.levels)
    for one in found if start else ():
        one.start()
    return found
