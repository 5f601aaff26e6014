"""Brokers that misbehave: one connection at a time, says exactly what a test wants, keeps an honest account.

Owns the broker's side of MQTT as far as a subscriber needs it. Knows nothing of faults.
"""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import numpy as np
import orjson

from ingest.mqtt.codec import decode, encode, frame_at
from ingest.mqtt.packets import (
    LEVEL_5,
    Ack,
    Connack,
    Connect,
    Kind,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
)
from ingest.simulate.ledger import ACKED, Ledger, write_points
from tests.faults_load import Load, Said


class TinyBroker(threading.Thread):
    """Delivers what ``offer`` makes, numbers packets from 1 on every connection, and keeps what is not
    acknowledged for the next one. A context manager; its ledger stands in ``ledger``.
    """

    def __init__(self, ledger: Path, load: Load) -> None:
        super().__init__(name="tiny broker", daemon=True)
        self._points = [*load.plain, *load.levels]
        self._topic = f"t/{load.gateway}"
        write_points(ledger, np.arange(len(self._points), dtype=np.int32), self._points)
        self._ledger = Ledger(ledger, "broker")
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.1)
        self.port = int(self._server.getsockname()[1])
        self._lock = threading.RLock()
        self._peer: socket.socket | None = None
        self._v5 = False
        self._subscribed = False
        self._queue: list[Said] = []
        self._withheld: list[Said] = []
        self._inflight: dict[int, Said] = {}
        self._pid = 0
        self._ended = False
        self._time_ms = (time.time_ns() // 1_000_000_000) * 1000
        self._closed = False
        self.strange: list[str] = []

    def __enter__(self) -> TinyBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self.hang_up()
        self.join(10)
        self._server.close()
        self.close_ledger()

    def close_ledger(self) -> None:
        """Write it; nothing is offered afterwards."""
        if not self._closed:
            self._closed = True
            self._ledger.close()

    @property
    def open(self) -> int:
        """Messages not acknowledged."""
        with self._lock:
            return len(self._queue) + len(self._inflight) + len(self._withheld)

    @property
    def subscribed(self) -> bool:
        """Someone listens."""
        return self._subscribed

    def offer(self, messages: int, value: float = 1.0) -> None:
        """New readings, one a message."""
        with self._lock:
            for _ in range(messages):
                self._time_ms += 1
                number = self._time_ms % len(self._points)
                chunk = self._ledger.open_chunk(
                    np.array([number], np.int32),
                    np.array([self._time_ms * 1000], np.int64),
                    np.array([value], np.float64),
                )
                body = orjson.dumps([{"id": self._points[number], "ts": self._time_ms, "v": value}])
                self._queue.append(Said(self._topic, body, chunk, 0, 1))
        self._deliver()

    def withhold_old(self) -> None:
        """What was unacknowledged so far waits until ``release_old``: numbers go to new messages first."""
        with self._lock:
            self._withheld += [*self._inflight.values(), *self._queue]
            self._inflight, self._queue = {}, []

    def release_old(self) -> None:
        """It is delivered again."""
        with self._lock:
            self._queue = [*self._withheld, *self._queue]
            self._withheld = []
        self._deliver()

    def hang_up(self, *, forget: bool = False) -> None:
        """Close the connection; ``forget``: the session too."""
        with self._lock:
            if self._peer is not None:
                try:
                    self._peer.shutdown(socket.SHUT_RDWR)
                except OSError:
                    self._peer.close()
            self._lost()
            if forget:
                self._queue = []

    def send_raw(self, raw: bytes) -> bool:
        """Say these bytes to the peer; False where there is none."""
        with self._lock:
            if self._peer is None or not self._subscribed:
                return False
            try:
                self._peer.sendall(raw)
            except OSError:
                return False
            return True

    def run(self) -> None:
        """Serve one connection after the other."""
        while not self._ended:
            try:
                peer, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(peer)

    def _serve(self, peer: socket.socket) -> None:
        rest = b""
        with self._lock:
            self._peer, self._pid = peer, 0
        try:
            while heard := peer.recv(1 << 16):
                rest += heard
                at = 0
                while at < len(rest):
                    body, end = frame_at(rest, at)
                    if not end or end > len(rest):
                        break
                    self._hear(peer, rest[at], rest[body:end])
                    at = end
                rest = rest[at:]
        except OSError:
            pass  # a connection that ends is what these tests are about
        finally:
            with self._lock:
                if self._peer is peer:
                    self._lost()
            peer.close()

    def _lost(self) -> None:
        self._peer, self._subscribed = None, False
        self._queue = [*self._inflight.values(), *self._queue]
        self._inflight = {}

    def _hear(self, peer: socket.socket, head: int, body: bytes) -> None:
        if head >> 4 == Kind.CONNECT:
            connect = decode(head, body, False)
            assert isinstance(connect, Connect)
            self._v5 = connect.level == LEVEL_5
            peer.sendall(encode(Connack(False, 0), self._v5))
            return
        packet = decode(head, body, self._v5)
        if isinstance(packet, Subscribe):
            peer.sendall(encode(Suback(packet.pid, [one.qos for one in packet.filters]), self._v5))
            with self._lock:
                self._subscribed = True
            self._deliver()
        elif isinstance(packet, Pingreq):
            peer.sendall(encode(Pingresp(), self._v5))
        elif isinstance(packet, Ack) and packet.kind is Kind.PUBACK:
            with self._lock:
                said = self._inflight.pop(packet.pid, None)
                if said is None:
                    self.strange.append(f"PUBACK {packet.pid} for nothing")
                else:
                    said.chunk.settle(said.begin, said.end, ACKED)

    def _deliver(self) -> None:
        with self._lock:
            if self._peer is None or not self._subscribed:
                return
            out = bytearray()
            while self._queue:
                said = self._queue.pop(0)
                self._pid += 1
                self._inflight[self._pid] = said
                if not said.tries:
                    said.chunk.sent(said.begin, said.end, time.time_ns() // 1000)
                out += encode(
                    Publish(said.topic, said.payload, 1, pid=self._pid, dup=said.tries > 0), self._v5
                )
                said.tries += 1
            if out:
                try:
                    self._peer.sendall(bytes(out))
                except OSError:
                    return
