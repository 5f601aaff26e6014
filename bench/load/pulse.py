"""The pulse: a few hundred points beside the load, by which delays are felt.

Owns one connection at QoS 1: every point speaks once a second, evenly over it, with its own clock's time; how long
each PUBACK took is kept; and one point after the other steps over its blue level, once, so that somebody is called.
Run as ``python -m bench.load.pulse`` with PulseOptions as JSON on the first line of stdin; ``go`` begins.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

import numpy as np

from bench.load.generator import connect_packet
from bench.load.registry import PULSE, PULSE_LEVEL
from bench.load.streams import publish_head
from ingest.simulate.encode import MQTT_311
from ingest.simulate.publisher import DISCONNECT
from ingest.simulate.speaker import cpu_s, forget_signals, say

SLOTS = 50
"""Of a second: a slot's points are sent together."""
CALM = 2.0
DECIMALS = 1


@dataclass(frozen=True, slots=True)
class PulseOptions:
    """``alerts_per_s`` points step over their level each second, from ``calm_s`` on."""

    host: str
    port: int
    points: int
    alerts_per_s: float = 5.0
    calm_s: float = 1.0
    counts_file: str = ""
    drain_s_max: float = 120.0


@dataclass(slots=True)
class PulseReport:
    """What was felt; seconds are from handing a reading to the kernel until its PUBACK."""

    sent: int = 0
    acked: int = 0
    raised: int = 0
    ack_p50_s: float | None = None
    ack_p99_s: float | None = None
    ack_max_s: float | None = None
    cpu_s: float = 0.0
    faults: list[str] = field(default_factory=list)


class Pulse:
    """One run, from connecting to the report."""

    def __init__(self, options: PulseOptions) -> None:
        self._options = options
        self._sock = socket.create_connection((options.host, options.port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(connect_packet("pulse", MQTT_311))
        if self._sock.recv(4) != b"\x20\x02\x00\x00":
            raise OSError("the server did not take the pulse's CONNECT")
        self._sock.setblocking(False)
        self._heads = [
            publish_head(f"cd/pulse/{PULSE}{n}", len(payload(0, CALM)), 1, MQTT_311)
            for n in range(options.points)
        ]
        self._raised: set[int] = set()
        self._next_id = 1
        self._sent_at = np.zeros(65_536)
        self._waits: list[float] = []
        self._heard = b""
        self._random = np.random.default_rng(7)
        self._out = b""
        self.count, self.ms_sum, self.value_sum = (np.zeros(options.points, np.int64) for _ in range(3))
        self.since_ms = time.time_ns() // 1_000_000
        self.report = PulseReport()
        self.stopped = False

    def run(self) -> PulseReport:
        """Until stopped; then wait for what is not acknowledged."""
        begun, cpu = time.monotonic(), cpu_s()
        slot = 0
        while not self.stopped:
            due = begun + slot / SLOTS
            self._listen(due - time.monotonic())
            if select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.buffer.readline():
                break
            self._speak(slot, time.monotonic() - begun)
            slot += 1
        limit = time.monotonic() + self._options.drain_s_max
        while self.report.acked < self.report.sent and time.monotonic() < limit:
            self._listen(0.02)
        report = self.report
        report.cpu_s = cpu_s() - cpu
        report.raised = len(self._raised)
        if self._waits:
            report.ack_p50_s, report.ack_p99_s = (float(q) for q in np.quantile(self._waits, (0.5, 0.99)))
            report.ack_max_s = max(self._waits)
        self._sock.sendall(DISCONNECT)
        self._sock.close()
        return report

    def _speak(self, slot: int, elapsed_s: float) -> None:
        options = self._options
        over = int(max(0.0, elapsed_s - options.calm_s) * options.alerts_per_s)
        packets = [self._out]
        for n in range(slot % SLOTS, options.points, SLOTS):
            up = n < over
            if up:
                self._raised.add(n)
            ms = time.time_ns() // 1_000_000
            tenths = int((PULSE_LEVEL if up else 0) * 10) + 20 + int(self._random.integers(0, 10))
            head, id_at = self._heads[n]
            pid = self._next_id
            self._next_id = pid % 65_535 + 1
            body = payload(ms, tenths / 10)
            if len(body) != len(payload(0, CALM)):
                head, id_at = publish_head(f"cd/pulse/{PULSE}{n}", len(body), 1, MQTT_311)
            packets.append(head[:id_at] + pid.to_bytes(2, "big") + head[id_at + 2 :] + body)
            self._sent_at[pid] = time.monotonic()
            self.count[n] += 1
            self.ms_sum[n] += ms - self.since_ms
            self.value_sum[n] += tenths
            self.report.sent += 1
        self._out = b"".join(packets)
        self._flush()

    def _flush(self) -> None:
        if self._out:
            try:
                self._out = self._out[self._sock.send(self._out) :]
            except BlockingIOError:
                pass

    def _listen(self, wait_s: float) -> None:
        """Take PUBACKs until ``wait_s`` from now."""
        limit = time.monotonic() + wait_s
        while True:
            left = limit - time.monotonic()
            if not select.select([self._sock], [], [], max(0.0, left))[0]:
                self._flush()
                return
            data = self._sock.recv(1 << 16)
            if not data:
                raise OSError("the pulse's connection was closed by the server")
            now = time.monotonic()
            self._heard += data
            whole = len(self._heard) // 4 * 4
            for at in range(0, whole, 4):
                assert self._heard[at] == 0x40, self._heard[at : at + 4].hex()
                pid = int.from_bytes(self._heard[at + 2 : at + 4], "big")
                self._waits.append(now - float(self._sent_at[pid]))
            self.report.acked += whole // 4
            self._heard = self._heard[whole:]


def payload(ms: int, value: float) -> bytes:
    """One reading, as a device sends it."""
    return b'{"ts":%013d,"v":%.*f}' % (ms, DECIMALS, value)


def main() -> None:
    """Connect, wait for ``go``, beat until SIGTERM, report."""
    options = PulseOptions(**json.loads(sys.stdin.buffer.readline()))
    pulse = Pulse(options)

    def stop() -> None:
        pulse.stopped = True

    forget_signals(stop)
    say(ready=True)
    sys.stdin.buffer.readline()
    report = pulse.run()
    if options.counts_file:
        np.savez(
            options.counts_file,
            row=np.arange(options.points),
            count=pulse.count,
            ms_sum=pulse.ms_sum,
            value_sum=pulse.value_sum,
            decimals=np.full(options.points, DECIMALS, np.uint8),
            since_ms=pulse.since_ms,
        )
    say(report=asdict(report))


if __name__ == "__main__":
    main()
