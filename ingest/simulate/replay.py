"""Replay: recorded readings as MQTT with their original times, to any broker or listener.

Owns pacing and the connection of a replay, and its ledger. Recordings come as tables from
ingest.simulate.recordings; an engine that takes them runs under ``--clock events``.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ingest.simulate.child import on_signals
from ingest.simulate.encode import MQTT_5, MQTT_311, PACKET_IDS, remaining_length
from ingest.simulate.fleet import Fleet, load_fleet
from ingest.simulate.ledger import Ledger, write_points
from ingest.simulate.publisher import DISCONNECT, KEEPALIVE_S, PINGREQ, Parcel, Publisher
from ingest.simulate.recordings import load_readings
from ingest.simulate.run import Progress, parse_target
from ingest.simulate.speaker import cpu_s
from storage.batch import F64, I32, I64

MESSAGES_PER_PARCEL = 500
"""Encoded at once: small enough that pacing is felt, large enough that a parcel costs nothing."""
POLL_S = 0.005
BACKOFF_S = (0.1, 2.0)
ANSWER_S_MAX = 10.0
FIRST_S_MAX = 20.0
"""For the first connection: where nothing answers at all, the address is wrong. Later ones are tried for ever."""
READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to replay.

    target        mqtt://host:port; readings: Parquet or CSV with point_id, time, value
    points_file   the registry, for the topics; a reading of a point that is not in it is an error
    speed         1 real time, N times faster, 0 as fast as it is acknowledged
    rate_max      messages a second at most, 0 no limit: a broker's queue behind us is bounded too
    inflight_max  messages unacknowledged at once
    """

    target: str
    readings: Path
    points_file: Path
    ledger_dir: Path
    speed: float = 1.0
    rate_max: float = 0.0
    qos: Literal[0, 1] = 1
    protocol: Literal["3.1.1", "5"] = "5"
    client_id: str = "replay"
    inflight_max: int = PACKET_IDS
    drain_s_max: float = 30.0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    drill: bool = False


@dataclass(slots=True)
class ReplayReport:
    """Readings of the recording, and what became of them. ``first`` and ``last`` are ISO times."""

    readings: int = 0
    points: int = 0
    sent: int = 0
    acked: int = 0
    refused: int = 0
    queued: int = 0
    resent_messages: int = 0
    connects: int = 0
    first: str | None = None
    last: str | None = None
    seconds: float = 0.0
    cpu_s: float = 0.0
    interrupted: bool = False


@dataclass(slots=True)
class Course:
    """A recording in the order it is replayed. ``number``: int32 rows of the fleet; value float64."""

    fleet: Fleet
    number: I32
    time_us: I64
    value: F64

    def __len__(self) -> int:
        return len(self.number)


def load_course(readings: pl.DataFrame, fleet: Fleet) -> Course:
    """Readings (as recordings.load_readings gives them) with their points. ValueError for unknown points."""
    known = pl.DataFrame({"point_id": fleet.point_id, "number": np.arange(len(fleet), dtype=np.int32)})
    table = readings.join(known, on="point_id", how="left", maintain_order="left")
    unknown = table.filter(pl.col("number").is_null())["point_id"].unique().sort()
    if len(unknown):
        names = ", ".join(unknown.head(5).to_list())
        raise ValueError(f"{len(unknown)} points of the recording are not in the registry: {names}")
    return Course(
        fleet,
        table["number"].to_numpy(),
        table["time"].dt.timestamp("us").to_numpy(),
        table["value"].fill_null(float("nan")).to_numpy(),
    )


def payload(time_us: int, value: float) -> bytes:
    """One reading as JSON: whole milliseconds as a number, finer times as ISO 8601; NaN as null."""
    ts = b"%d" % (time_us // 1000) if time_us % 1000 == 0 else b'"%s"' % _iso(time_us).encode()
    return b'{"ts":%s,"v":%s}' % (ts, b"null" if value != value else repr(value).encode())


def replay(options: ReplayOptions, progress: Progress | None = None) -> ReplayReport:
    """Publish a recording; returns when all is acknowledged or given up and the ledger is written.

    SIGINT and SIGTERM end it early with a whole ledger. Raises TargetRefusedError, ValueError for a
    recording that does not fit the registry, OSError, ConnectionError where nobody ever answers.
    """
    address = parse_target(options.target, options.drill)
    course = load_course(load_readings(options.readings), load_fleet(options.points_file))
    if any(options.ledger_dir.glob("readings-*.parquet")):
        raise ValueError(f"{options.ledger_dir} holds the ledger of another run")
    write_points(options.ledger_dir, course.fleet.number, course.fleet.point_id)
    player = _Player(options, address, course, progress)
    with on_signals(player.stop):
        return player.run()


class _Player:
    """One connection and one recording."""

    def __init__(
        self, options: ReplayOptions, address: tuple[str, int], course: Course, progress: Progress | None
    ) -> None:
        self._options = options
        self._address = address
        self._course = course
        self._progress = progress
        self._version = MQTT_5 if options.protocol == "5" else MQTT_311
        self._publisher = Publisher(
            options.client_id,
            self._version,
            options.qos,
            options.inflight_max,
            PACKET_IDS,
            options.user,
            options.password,
        )
        self._ledger = Ledger(options.ledger_dir, "replay")
        self._sock: socket.socket | None = None
        self._out = b""
        self._retry_at = self._used_at = self._told_at = 0.0
        self._answered = False
        self._tries = 0
        self._topics = [topic.encode() for topic in course.fleet.topic]
        self._stopped = False
        self.report = ReplayReport(readings=len(course), points=len(np.unique(course.number)))

    def stop(self) -> None:
        """Send no more; drain and end."""
        self._stopped = self.report.interrupted = True

    def run(self) -> ReplayReport:
        course, report = self._course, self.report
        begun, cpu = time.monotonic(), cpu_s()
        if len(course):
            report.first, report.last = _iso(int(course.time_us[0])), _iso(int(course.time_us[-1]))
        at = 0
        while at < len(course) and not self._stopped:
            due = self._due(at, time.monotonic() - begun)
            if due > at and self._accept(at, due):
                at = due
            self._serve(0.0 if due > at else POLL_S, begun)
            if not self._answered and time.monotonic() - begun > FIRST_S_MAX:
                self._close()
                raise ConnectionError("{}:{}: nobody answers there as a broker does".format(*self._address))
        limit = time.monotonic() + self._options.drain_s_max
        while (not self._publisher.idle or self._out) and time.monotonic() < limit:
            self._serve(POLL_S, begun)
        report.seconds, report.cpu_s = time.monotonic() - begun, cpu_s() - cpu
        self._close()
        return report

    def _due(self, at: int, elapsed_s: float) -> int:
        """One past the last reading that may go now: by its time, by the rate, at most a parcel."""
        course, options = self._course, self._options
        end = min(at + MESSAGES_PER_PARCEL, len(course))
        if options.speed > 0:
            now_us = int(course.time_us[0]) + int(elapsed_s * options.speed * 1e6)
            end = min(end, int(np.searchsorted(course.time_us, now_us, side="right")))
        if options.rate_max > 0:
            end = min(end, int(elapsed_s * options.rate_max) + 1)
        return max(end, at)

    def _accept(self, begin: int, end: int) -> bool:
        """Encode readings begin … end and queue them; False while too many wait."""
        if self._publisher.kept + end - begin > self._publisher.backlog_max:
            return False
        course, rows = self._course, slice(begin, end)
        number = course.fleet.number[course.number[rows]]
        chunk = self._ledger.open_chunk(number, course.time_us[rows].copy(), course.value[rows].copy())
        offsets = [0]
        packets = []
        packet_id = self._publisher.next_id
        first = bytes([0x30 | self._options.qos << 1])
        for point, time_us, value in zip(
            course.number[rows].tolist(),
            course.time_us[rows].tolist(),
            course.value[rows].tolist(),
            strict=True,
        ):
            topic = self._topics[point]
            body = len(topic).to_bytes(2, "big") + topic
            if self._options.qos:
                body += packet_id.to_bytes(2, "big")
            body += (b"\0" if self._version == MQTT_5 else b"") + payload(time_us, value)
            packets.append(first + remaining_length(len(body)) + body)
            offsets.append(offsets[-1] + len(packets[-1]))
            packet_id = packet_id % PACKET_IDS + 1
        parcel = Parcel(b"".join(packets), offsets, self._publisher.next_id, chunk, 0, end - begin)
        return self._publisher.accept(parcel)

    def _serve(self, wait_s: float, begun: float) -> None:
        """Connect where needed, write what the window allows, read what has come."""
        now = time.monotonic()
        if self._sock is None:
            if now >= self._retry_at:
                self._connect()
            else:
                time.sleep(POLL_S)
            return
        try:
            self._write(now)
            readable, _, _ = select.select([self._sock], [], [], wait_s)
            if readable:
                self._hear_server()
            elif not self._publisher.up and now - self._used_at > ANSWER_S_MAX:
                raise ConnectionError("no CONNACK in time")
        except BlockingIOError:
            pass  # the kernel's buffer is full: the next turn goes on
        except OSError:
            self._lose()
        if self._progress is not None and now - self._told_at >= 1:
            self._told_at = now
            sent, acked = self._publisher.sent, self._publisher.acked
            self._progress(
                {"seconds": now - begun, "sent": sent, "acked": acked, "connected": int(self._publisher.up)}
            )

    def _write(self, now: float) -> None:
        assert self._sock is not None
        if not self._out:
            self._out = b"".join(self._publisher.take(time.time_ns() // 1000))
        if not self._out and self._publisher.up and now - self._used_at > KEEPALIVE_S / 2:
            self._out = PINGREQ
        if self._out:
            self._used_at = now
            self._out = self._out[self._sock.send(self._out) :]

    def _connect(self) -> None:
        self.report.connects += 1
        try:
            self._sock = socket.create_connection(self._address, timeout=ANSWER_S_MAX)
        except OSError:
            self._lose()
            return
        self._sock.setblocking(False)
        self._used_at = time.monotonic()
        self._out = self._publisher.connect()

    def _hear_server(self) -> None:
        assert self._sock is not None
        data = self._sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError("closed by the server")
        self._publisher.feed(data)
        self._answered |= self._publisher.up
        self._tries = 0 if self._publisher.up else self._tries

    def _lose(self) -> None:
        if self._sock is not None:
            try:
                # What the server acknowledged before it died lies unread: it counts.
                while True:
                    self._hear_server()
            except OSError:
                pass  # read to its end
            self._sock.close()
        self._sock = None
        self._out = b""
        self._publisher.lost()
        self._retry_at = time.monotonic() + min(BACKOFF_S[0] * 2**self._tries, BACKOFF_S[1])
        self._tries = min(self._tries + 1, 10)

    def _close(self) -> None:
        if self._sock is not None:
            try:
                self._sock.send(DISCONNECT)
            except OSError:
                pass  # the server is gone already; everything that counts is in the ledger
            self._sock.close()
        self._ledger.close()
        counts, report = self._ledger.counts, self.report
        report.sent, report.acked = counts["sent"], counts["acked"]
        report.refused, report.queued = counts["refused"], counts["queued"]
        report.resent_messages = self._publisher.resent


def _iso(time_us: int) -> str:
    return (
        datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000).isoformat()
    )
