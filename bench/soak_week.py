"""Days of a city in minutes: every gateway's readings of one minute after the other, as fast as the pace says.

Owns the publisher of the compressed soak and its exact account of what was acknowledged. Times are those of the days;
the engine runs under ``--clock events``, where the newest event time is now.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from bench.load.generator import connect_packet
from bench.load.streams import publish_head
from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.encode import MQTT_311
from ingest.simulate.fleet import Fleet
from ingest.simulate.publisher import DISCONNECT
from ingest.simulate.scenario import Scenario
from ingest.simulate.values import Values

MINUTE_MS: Final = 60_000
DAY_MINUTES: Final = 1_440
IN_FLIGHT_MAX: Final = 512
"""Messages that wait for their PUBACK."""
ANSWER_S_MAX: Final = 120.0
PUBACK_BYTES: Final = 4
STORM_DAYS: Final = 1.0
"""A storm a day goes over the city, so that alerts fire and end all week."""


class Week:
    """One publisher on one connection. ``acked``: readings whose PUBACK came.

    fleet  whose points; each speaks once a minute of event time
    """

    def __init__(
        self, address: tuple[str, int], fleet: Fleet, city_dir: Path, begin_ms: int, seed: int
    ) -> None:
        self._sock = socket.create_connection(address, ANSWER_S_MAX)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(connect_packet("week", MQTT_311))
        if self._sock.recv(PUBACK_BYTES) != b"\x20\x02\0\0":
            raise OSError("the engine did not take the CONNECT")
        self._fleet, self._begin_ms = fleet, begin_ms
        storm = Scenario("storm", seed, STORM_DAYS * DAY_MINUTES * 60.0)
        self._values = Values(fleet, load_kinds(city_dir), storm, fleet.box(), 1 / 60)
        self._scale = 10.0 ** self._values.decimals.astype(np.float64)
        rows = [np.flatnonzero(fleet.gateway == code) for code in range(len(fleet.gateways))]
        self._gateways = [
            (f"cd/{name}/batch", found, [fleet.point_id[r] for r in found])
            for name, found in zip(fleet.gateways, rows, strict=True)
            if len(found)
        ]
        self.acked = self.sent = 0
        self.count = np.zeros(len(fleet), np.int64)
        self.ms_sum = np.zeros(len(fleet), np.int64)
        self.value_sum = np.zeros(len(fleet), np.int64)
        self._pid = 0
        self._waiting: list[int] = []
        self._heard = b""

    def run(self, days: float, seconds: float, said: Callable[[float, int], None]) -> None:
        """Say ``days`` within ``seconds``, or slower where the engine takes longer; wait for every PUBACK."""
        minutes = int(days * DAY_MINUTES)
        begun = told = time.monotonic()
        for minute in range(minutes):
            self._say(minute)
            now = time.monotonic()
            if now - told > 5:
                told = now
                said(minute / DAY_MINUTES, self.acked)
            time.sleep(max(0.0, begun + (minute + 1) * seconds / minutes - now))
        while self._waiting:
            self._hear()
        self._sock.sendall(DISCONNECT)
        self._sock.close()

    def expected(self) -> dict[str, list[float]]:
        """As bench.lake_count.expected: of each point readings, sum of times in ms, sum of values."""
        values = self.value_sum / self._scale
        columns = zip(
            self._fleet.point_id,
            self.count.tolist(),
            self.ms_sum.tolist(),
            values.tolist(),
            strict=True,
        )
        return {point: [n, ms, value] for point, n, ms, value in columns}

    def _say(self, minute: int) -> None:
        ms = self._begin_ms + minute * MINUTE_MS
        # The storm begins anew each day.
        quantised = self._values.quantised(minute % DAY_MINUTES)
        values = quantised / self._scale
        self.count += 1
        self.ms_sum += ms
        self.value_sum += quantised
        for topic, rows, ids in self._gateways:
            said = [
                {"id": point, "ts": ms, "v": value}
                for point, value in zip(ids, values[rows].tolist(), strict=True)
            ]
            body = orjson.dumps(said)
            head, id_at = publish_head(topic, len(body), 1, MQTT_311)
            self._pid = self._pid % 65_535 + 1
            pid = self._pid.to_bytes(2, "big")
            self._sock.sendall(head[:id_at] + pid + head[id_at + 2 :] + body)
            self._waiting.append(len(rows))
            self.sent += len(rows)
            while len(self._waiting) > IN_FLIGHT_MAX:
                self._hear()

    def _hear(self) -> None:
        """PUBACKs come in the order of their messages. Raises OSError where the engine hung up."""
        got = self._sock.recv(65_536)
        if not got:
            raise OSError("the engine hung up")
        self._heard += got
        whole = len(self._heard) // PUBACK_BYTES
        if any(self._heard[at] != 0x40 for at in range(0, whole * PUBACK_BYTES, PUBACK_BYTES)):
            raise OSError(f"no PUBACK: {self._heard[:8].hex()}")
        self._heard = self._heard[whole * PUBACK_BYTES :]
        self.acked += sum(self._waiting[:whole])
        del self._waiting[:whole]
