"""The load generator: ready-made packets to up to thousands of sockets, from one process, never the bottleneck.

Owns sockets, pace, windows and exact counts. The bytes are bench.load.streams', the loops over them compiled in
bench.load.kernels: a message costs some tens of nanoseconds and the kernel's copy. It makes no attempt to
reconnect: a connection that is lost is a fault, and said. Run as ``python -m bench.load.generator`` with a
LoadPlan on the first line of stdin; ``go`` on the second begins.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.load.kernels import fly, in_flight_ahead, land
from bench.load.plan import LoadPlan, LoadReport
from bench.load.streams import Shape, Stream, by_gateway, compose, wordings
from ingest.openfiles import raise_open_files
from ingest.simulate.encode import MQTT_5, MQTT_311, remaining_length
from ingest.simulate.fleet import load_fleet
from ingest.simulate.publisher import DISCONNECT, receive_maximum
from ingest.simulate.speaker import forget_signals, say
from storage.batch import I64

SLICE_BYTES = 128 << 10
"""Handed to one socket at a time: few calls, and the second-level cache still holds what was just stamped."""
SEND_BUFFER_BYTES = 16 << 20
"""Of all sockets together: what a flat-out load may have on its way. More would only be delay."""
SEND_BUFFER_MIN = 32 << 10
HEAR_BYTES = 1 << 18
PACE_S = 0.01
"""A paced load speaks this often."""
WAIT_S = 0.05
CONNECTING_MAX = 200
"""Handshakes at once: below any listener's backlog."""
ANSWER_S_MAX = 30.0
KEEPALIVE_S = 300
EVERYTHING = 1 << 60
"""Readings owed by a load without a pace."""
LATENCIES_MAX = 200_000


class Conn:
    """One connection: its messages of the round, what it owes, and what is in flight.

    at      its next message; ``pending``: stamped bytes the kernel has not taken yet
    owed    messages due by the pace and not yet stamped
    """

    __slots__ = (
        "acked", "at", "begin", "carry", "end", "flying", "lost", "marks", "next_id", "owed", "pending", "sent",
        "sock", "version", "watched", "window",
    )  # fmt: skip

    def __init__(self, begin: int, end: int, version: int) -> None:
        self.begin, self.end, self.at = begin, end, begin
        self.version = version
        self.sock = socket.socket()
        self.owed = 0
        self.pending: memoryview | None = None
        self.next_id = 1
        self.window = 0
        self.flying = np.zeros(8192, np.uint8)
        self.sent = self.acked = 0
        self.marks: deque[tuple[int, float]] = deque()
        self.carry = b""
        self.watched = 0
        self.lost = False


class Generator:
    """One load, from its plan to its report."""

    def __init__(self, plan: LoadPlan) -> None:
        """Make the round and connect. Raises ValueError, OSError."""
        self._plan = plan
        fleet = load_fleet(Path(plan.points_file))
        if plan.leave_out:
            away = tuple(plan.leave_out.split(","))
            kept = [r for r, p in enumerate(fleet.point_id) if not p.startswith(away)]
            fleet = fleet.take(np.array(kept, np.intp))
        fleet = fleet.take(by_gateway(fleet))
        self.numbers = fleet.number
        shape = Shape(plan.qos, plan.batch, plan.form, plan.gateway_topic)
        versions = [
            MQTT_5 if (n * 7_919 % 1_000) / 1_000 < plan.mqtt5_share else MQTT_311
            for n in range(plan.connections)
        ]
        self._now_ms = lambda: time.time_ns() // 1_000_000 + plan.ahead_ms
        self.stream: Stream = compose(
            fleet, wordings(fleet, Path(plan.city_dir)), shape, versions, self._now_ms()
        )
        self._wire = memoryview(self.stream.wire.data)
        self._sizes: I64 = np.diff(self.stream.first)
        self._heard = np.zeros(HEAR_BYTES + 512, np.uint8)
        self._epoll = select.epoll()
        borders = self.stream.borders.tolist()
        self._conns = [
            Conn(begin, end, version)
            for begin, end, version in zip(borders, borders[1:], versions, strict=False)
        ]
        self._by_fd: dict[int, Conn] = {}
        self._stopped = False
        self._latencies: list[float] = []
        self.report = LoadReport(connections=len(self._conns))
        self._cursor = 0
        self._dealt = 0

    def stop(self) -> None:
        """End early: what is on its way is still waited for."""
        self._stopped = True

    def connect(self) -> None:
        """All connections up, a few hundred handshakes at a time. Raises OSError with the reason."""
        size = max(SEND_BUFFER_MIN, SEND_BUFFER_BYTES // len(self._conns))
        for first in range(0, len(self._conns), CONNECTING_MAX):
            some = self._conns[first : first + CONNECTING_MAX]
            for n, conn in enumerate(some, first):
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
                conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                conn.sock.settimeout(ANSWER_S_MAX)
                conn.sock.connect((self._plan.host, self._plan.port))
                conn.sock.sendall(connect_packet(f"{self._plan.client_prefix}-{n:05d}", conn.version))
            for conn in some:
                self._welcome(conn)

    def _welcome(self, conn: Conn) -> None:
        head = _exactly(conn.sock, 2)
        body = _exactly(conn.sock, head[1])
        if head[0] != 0x20 or body[1] != 0:
            raise OSError(f"the server answered CONNECT with {(head + body).hex()}")
        conn.window = self._plan.inflight_max
        if conn.version == MQTT_5:
            conn.window = min(conn.window, receive_maximum(body[2:]))
        conn.sock.setblocking(False)
        self._by_fd[conn.sock.fileno()] = conn
        self._epoll.register(conn.sock.fileno(), select.EPOLLIN)
        conn.watched = select.EPOLLIN

    def run(self) -> LoadReport:
        """Send for ``seconds`` (or ``rounds_max`` rounds), drain, close; the report."""
        plan, report = self._plan, self.report
        usage = resource.getrusage(resource.RUSAGE_SELF)
        begun = time.monotonic()
        report.begun_at = time.time()
        limit = len(self.stream) * plan.rounds_max if plan.rounds_max else 0
        told = begun
        if not plan.rate:
            for conn in self._conns:
                conn.owed = plan.rounds_max * (conn.end - conn.begin) or EVERYTHING
                self._pump(conn)
        messages_per_s = plan.rate / max(1.0, float(self._sizes.mean()))
        now = begun
        while not self._stopped and now - begun < plan.seconds:
            if plan.rate:
                due = int((now - begun) * messages_per_s)
                self._deal(min(due, limit) if limit else due)
                report.lag_s_max = max(report.lag_s_max, self._behind() / messages_per_s)
                self._look(PACE_S / 10)
                time.sleep(max(0.0, begun + (int((now - begun) / PACE_S) + 1) * PACE_S - time.monotonic()))
            else:
                self._look(WAIT_S)
            idle = limit and all(not conn.owed and conn.pending is None for conn in self._conns)
            if idle and (not plan.rate or self._dealt >= limit):
                break
            now = time.monotonic()
            if now - told >= 1:
                told = now
                say(seconds=round(now - begun, 1), sent=self._readings_sent())
            if all(conn.lost for conn in self._conns):
                break
        for conn in self._conns:
            conn.owed = 0
        self._drain()
        after = resource.getrusage(resource.RUSAGE_SELF)
        report.seconds = time.monotonic() - begun
        report.ended_at = time.time()
        report.system_s = after.ru_stime - usage.ru_stime
        report.cpu_s = after.ru_utime - usage.ru_utime + report.system_s
        self._close()
        return self._finish()

    def _behind(self) -> int:
        return sum(conn.owed for conn in self._conns)

    def _readings_sent(self) -> int:
        return int(self.stream.count.sum())

    def _deal(self, due: int) -> None:
        """Owe messages up to the ``due``-th of the load: in the round's order, connection by connection."""
        borders, conns = self.stream.borders, self._conns
        total = len(self.stream)
        while self._dealt < due:
            place = self._dealt % total
            if place == 0:
                self._cursor = 0
            conn = conns[self._cursor]
            n = min(due - self._dealt, int(borders[self._cursor + 1]) - place)
            conn.owed += n
            self._dealt += n
            if place + n == borders[self._cursor + 1]:
                self._cursor += 1
            self._pump(conn)

    def _look(self, wait_s: float) -> None:
        for fd, events in self._epoll.poll(wait_s, len(self._by_fd) or 1):
            conn = self._by_fd[fd]
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._hear(conn)
            if not conn.lost:
                self._pump(conn)

    def _pump(self, conn: Conn) -> None:
        """Hand one slice to the kernel: what waits, else what is owed and allowed. Then say what to wake for."""
        if conn.pending is None and conn.owed:
            self._stamp(conn)
        blocked = False
        while conn.pending is not None:
            try:
                taken = conn.sock.send(conn.pending)
            except BlockingIOError:
                blocked = True
                break
            except OSError as fault:
                self._lose(conn, str(fault))
                return
            self.report.bytes_sent += taken
            if taken < len(conn.pending):
                conn.pending = conn.pending[taken:]
                blocked = True
                break
            conn.pending = None
            if conn.owed and conn.owed < EVERYTHING // 2:
                self._stamp(conn)
        wants = blocked or (conn.owed and (not self._plan.qos or conn.sent - conn.acked < conn.window))
        watched = select.EPOLLIN | (select.EPOLLOUT if wants else 0)
        if watched != conn.watched:
            conn.watched = watched
            self._epoll.modify(conn.sock.fileno(), watched)

    def _stamp(self, conn: Conn) -> None:
        """Make the next slice ready, as far as window, slice and the end of the round allow."""
        stream, qos = self.stream, self._plan.qos
        n = min(conn.owed, conn.end - conn.at)
        if qos:
            n = min(n, conn.window - (conn.sent - conn.acked))
            if n <= 0:
                return
            n = in_flight_ahead(conn.flying, conn.next_id, n)
            if not n:
                return
        end = conn.at + n
        byte_max = int(stream.offsets[conn.at]) + SLICE_BYTES
        if stream.offsets[end] > byte_max:
            end = max(conn.at + 1, int(np.searchsorted(stream.offsets, byte_max, "right")) - 1)
            n = end - conn.at
        if qos:
            fly(conn.flying, conn.next_id, n)
        first, last, conn.next_id = stream.stamp(conn.at, end, self._now_ms(), conn.next_id)
        conn.pending = self._wire[first:last]
        conn.sent += n
        conn.owed -= n
        conn.at = end if end < conn.end else conn.begin
        if qos and len(self._latencies) < LATENCIES_MAX:
            conn.marks.append((conn.sent, time.monotonic()))

    def _hear(self, conn: Conn) -> None:
        """Take acknowledgements, many at once."""
        heard = self._heard
        kept = len(conn.carry)
        if kept:
            heard[:kept] = np.frombuffer(conn.carry, np.uint8)
        try:
            got = conn.sock.recv_into(memoryview(heard.data)[kept:], HEAR_BYTES)
        except BlockingIOError:
            return
        except OSError as fault:
            self._lose(conn, str(fault))
            return
        if not got:
            self._lose(conn, "closed by the server")
            return
        taken, acked, refused, strange, other = land(conn.flying, heard, kept + got)
        conn.carry = heard[taken : kept + got].tobytes() if taken < kept + got else b""
        conn.acked += acked
        self.report.refused += refused
        self.report.strange += strange
        if other:
            self._lose(conn, f"the server sent a packet of type {other >> 4}")
        now = time.monotonic()
        while conn.marks and conn.marks[0][0] <= conn.acked:
            self._latencies.append(now - conn.marks.popleft()[1])

    def _lose(self, conn: Conn, why: str) -> None:
        fault = f"a connection was lost: {why}"
        if fault not in self.report.faults:
            self.report.faults.append(fault)
        if not conn.lost:
            conn.lost = True
            conn.owed = 0
            self._epoll.unregister(conn.sock.fileno())

    def _drain(self) -> None:
        """Until everything stamped is taken and, at QoS 1, acknowledged."""
        limit = time.monotonic() + self._plan.drain_s_max
        while time.monotonic() < limit:
            left = [
                c
                for c in self._conns
                if not c.lost and (c.pending is not None or (self._plan.qos and c.acked < c.sent))
            ]
            if not left:
                return
            for conn in left:
                if conn.pending is not None:
                    self._pump(conn)
            self._look(WAIT_S)
        self.report.faults.append(f"not taken or acknowledged within {self._plan.drain_s_max:g} s")

    def _close(self) -> None:
        """DISCONNECT, and wait for the other side to have read it: closing sooner could throw bytes away."""
        for conn in self._conns:
            try:
                if not conn.lost:
                    conn.sock.settimeout(self._plan.drain_s_max)
                    conn.sock.sendall(DISCONNECT)
                    conn.sock.shutdown(socket.SHUT_WR)
            except OSError as fault:
                self._lose(conn, str(fault))
        for conn in self._conns:
            try:
                while not conn.lost and conn.sock.recv(1 << 16):
                    pass
            except OSError:
                pass  # it closes as it likes: everything was sent
            conn.sock.close()
        self._epoll.close()

    def _finish(self) -> LoadReport:
        plan, report = self._plan, self.report
        report.messages = sum(conn.sent for conn in self._conns)
        report.sent = self._readings_sent()
        acked = sum(conn.acked for conn in self._conns)
        report.acked = report.sent if acked == report.messages else round(acked * float(self._sizes.mean()))
        report.busy_share = round(report.cpu_s / max(report.seconds, 1e-9), 3)
        report.cpu_us_per_message = round(report.cpu_s / max(1, report.messages) * 1e6, 4)
        if self._latencies:
            report.ack_p50_ms, report.ack_p99_ms = (
                round(float(q) * 1e3, 2) for q in np.quantile(self._latencies, (0.5, 0.99))
            )
        if plan.counts_file:
            self.stream.row = self.numbers.astype(np.int64)
            self.stream.save(Path(plan.counts_file))
        return report


def connect_packet(client_id: str, version: int) -> bytes:
    """CONNECT with a clean session and no credentials."""
    name = client_id.encode()
    body = b"\x00\x04MQTT" + bytes([version, 0x02]) + KEEPALIVE_S.to_bytes(2, "big")
    body += (b"\0" if version == MQTT_5 else b"") + len(name).to_bytes(2, "big") + name
    return b"\x10" + remaining_length(len(body)) + body


def _exactly(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            raise OSError("the server closed before CONNACK")
        data += more
    return data


def main() -> None:
    """Read the plan, make the round, connect, wait for ``go``, send, report."""
    raise_open_files()
    plan = LoadPlan.from_json(sys.stdin.buffer.readline().decode())
    generator = Generator(plan)
    warm(generator)
    generator.connect()
    gc.collect()
    gc.freeze()
    forget_signals(generator.stop)
    say(ready=True, points=len(generator.numbers), connections=plan.connections)
    sys.stdin.buffer.readline()
    say(report=asdict(generator.run()))


def warm(generator: Generator) -> None:
    """Compile, or load from the cache, before the clock runs. Leaves no count behind."""
    stream = generator.stream
    stream.stamp(0, min(2, len(stream)), 1, 1)
    for counted in (stream.last_ms, stream.count, stream.ms_sum, stream.digit_sum):
        counted[:] = 0
    flying = np.zeros(8192, np.uint8)
    fly(flying, 1, 1)
    in_flight_ahead(flying, 1, 1)
    land(flying, np.frombuffer(b"\x40\x02\x00\x01", np.uint8), 4)


if __name__ == "__main__":
    main()
