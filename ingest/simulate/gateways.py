"""The raw speaker: thousands of simulated gateways on plain TCP sockets and one epoll, in one process.

Owns sockets, pacing, reconnects and the loop. What a gateway must remember is ingest.simulate.publisher,
bytes are ingest.simulate.encode, values are ingest.simulate.values. Run as
``python -m ingest.simulate.gateways`` with a plan on the first line of stdin.
"""

from __future__ import annotations

import errno
import gc
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ingest.openfiles import raise_open_files
from ingest.simulate.encode import Encoder, Form
from ingest.simulate.ledger import ABSENT, Ledger
from ingest.simulate.publisher import DISCONNECT, KEEPALIVE_S, PINGREQ, Parcel, Publisher, RefusedError
from ingest.simulate.speaker import (
    SLOT_S,
    Part,
    Plan,
    SpeakerReport,
    WallClock,
    cpu_s,
    finished,
    forget_signals,
    note_fault,
    own_part,
    say,
)

POLL_S = SLOT_S
"""Sockets are looked at this often, not at each wake-up: far fewer calls for the same messages."""
WIDE_WINDOW = 1_000
NARROW_POLL_S = 0.004
"""With fewer messages in flight than that, acknowledgements decide the rate: look more often."""
CONNECTS_PER_POLL = 40
"""2,000 connections a second: a city that comes back, yet less than a listener's backlog at once."""
BACKOFF_S = (0.1, 2.0)
"""First and longest wait before a reconnect; jittered. Short, since runs are minutes."""
READ_BYTES = 1 << 16
PING_S = KEEPALIVE_S / 2
ANSWER_S_MAX = 10.0
"""From connect to CONNACK."""
SWEEP_S = 0.5
SILENT_RETRY_S = 1.0
"""A silent gateway looks again this late whether its silence is over."""
GO_S_MAX = 120.0
"""A speaker that is not told to go by then ends: its parent is gone."""


class Link:
    """One gateway's connection: a publisher, and the socket it has or will have.

    begin, end  its rows within its slot; silent: falls silent in an outage
    """

    __slots__ = (
        "begin", "connecting", "end", "out", "publisher", "retry_at", "silent", "sock", "tries", "used_at",
        "watched",
    )  # fmt: skip

    def __init__(self, publisher: Publisher, begin: int, end: int, silent: bool) -> None:
        self.publisher = publisher
        self.begin, self.end = begin, end
        self.silent = silent
        self.sock: socket.socket | None = None
        self.connecting = False
        self.out: list[bytes | memoryview] = []
        self.retry_at = 0.0
        self.tries = 0
        self.used_at = 0.0
        self.watched = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """The gateways of one phase: their encoder, and their rows in the process's order."""

    encoder: Encoder
    rows: slice
    links: list[Link]


class RawSpeaker:
    """Runs a plan to its end; ``run`` returns the report. ``stop`` ends it early (a signal handler may)."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ledger = Ledger(Path(plan.ledger_dir), plan.speaker)
        self._clock = WallClock()
        self._epoll = select.epoll()
        self._by_fd: dict[int, Link] = {}
        self._links: list[Link] = []
        self._random = random.Random(plan.seed)
        self.report = SpeakerReport(plan.speaker)
        self._stopped = self._going = self._draining = False
        self._sweep_at = 0.0
        self._poll_s = POLL_S if plan.inflight_max >= WIDE_WINDOW else NARROW_POLL_S
        self._down: list[Link] = []
        found = socket.getaddrinfo(plan.host, plan.port, type=socket.SOCK_STREAM)[0]
        self._family: int = found[0]
        self._address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes] = found[4]
        self._build(own_part(plan))

    def _build(self, part: Part) -> None:
        """Make every slot's encoder and links."""
        plan, fleet = self._plan, part.fleet
        self._part = part
        self._slots: list[Slot] = []
        at = 0
        for codes in part.slots:
            rows = slice(at, at + int(np.isin(fleet.gateway, codes).sum()))
            at = rows.stop
            encoder = Encoder(
                fleet.point_id[rows],
                fleet.topic[rows],
                np.searchsorted(codes, fleet.gateway[rows]).astype(np.int32),
                part.values.whole_width[rows],
                part.values.decimals[rows],
                [fleet.gateways[code] for code in codes],
                [part.version[code] for code in codes],
                Form(plan.qos, plan.batch),
                plan.gateway_topic,
            )
            assert (np.diff(encoder.order) == 1).all(), "points and encoder disagree about their order"
            links = [self._link(part, encoder, g, code) for g, code in enumerate(codes)]
            self._slots.append(Slot(encoder, rows, links))
            self._links += links
        self._down = list(self._links)
        self.report.points, self.report.gateways = len(fleet), len(self._links)

    def _link(self, part: Part, encoder: Encoder, g: int, code: int) -> Link:
        plan = self._plan
        messages = encoder.messages(g)
        backlog = max(messages, int(messages * plan.backlog_s_max * plan.hz))
        name, version = part.fleet.gateways[code], part.version[code]
        publisher = Publisher(name, version, plan.qos, plan.inflight_max, backlog, plan.user, plan.password)
        return Link(publisher, int(encoder.starts[g]), int(encoder.starts[g + 1]), bool(part.silent[code]))

    def stop(self) -> None:
        """Produce no more; drain and end."""
        self._stopped = True

    def run(self) -> SpeakerReport:
        """Connect, wait for the parent's word, publish every step at its time, drain, write the ledger."""
        plan = self._plan
        self._sockets_until(lambda: all(link.publisher.up for link in self._links), plan.connect_s_max)
        say(ready=True, points=self.report.points, gateways=self.report.gateways)
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._sockets_until(lambda: self._going, GO_S_MAX)
        begun, cpu = time.monotonic(), cpu_s()
        slot_s = 1 / plan.hz / len(self._slots)
        told = begun
        for number in range(plan.steps() * len(self._slots) if self._going else 0):
            due = begun + number * slot_s
            self._sockets_until(_never, due - self._poll_s - time.monotonic())
            if self._stopped:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            self.report.lag_s_max = max(self.report.lag_s_max, time.monotonic() - due)
            step, slot = divmod(number, len(self._slots))
            self._publish(self._slots[slot], step)
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                self._tell(told - begun)
        self._draining = True
        self._sockets_until(self._drained, plan.drain_s_max)
        self.report.seconds = time.monotonic() - begun
        self.report.cpu_s = cpu_s() - cpu
        self._close()
        return self.report

    def _drained(self) -> bool:
        return all(link.publisher.idle and not link.out for link in self._links)

    def _publish(self, slot: Slot, step: int) -> None:
        """Everything the slot's gateways measure at a step: ledger first, then bytes, then sockets."""
        if not slot.links:
            return
        part, rows = self._part, slot.rows
        quantised = part.values.quantised(step, rows)
        now_ms = self._clock.next_ms()
        time_us = np.full(rows.stop - rows.start, now_ms * 1000, np.int64)
        chunk = self._ledger.open_chunk(part.fleet.number[rows], time_us, part.values.floats(quantised, rows))
        blobs = slot.encoder.encode(now_ms, quantised, [link.publisher.next_id for link in slot.links])
        silence = part.scenario.silent_now(part.scenario.share(step, self._plan.hz))
        now = time.monotonic()
        for g, link in enumerate(slot.links):
            if silence and link.silent:
                chunk.settle(link.begin, link.end, ABSENT)
                self._lose(link, now, "", wait_s=SILENT_RETRY_S)
                continue
            self.report.produced += link.end - link.begin
            link.publisher.accept(
                Parcel(
                    blob=blobs[g],
                    offsets=slot.encoder.offsets[g],
                    first_id=link.publisher.next_id,
                    chunk=chunk,
                    row0=link.begin,
                    rows=link.end - link.begin,
                    per_message=slot.encoder.per_message,
                )
            )
            self._write(link, now)

    def _sockets_until(self, done: Callable[[], bool], seconds_max: float) -> None:
        """Serve sockets every POLL_S until ``done``, ``seconds_max`` passed, or a stop (but drains go on).

        Once at least, however late we are: a gateway that never looks neither hears that its server died nor
        comes back to the next one.
        """
        limit = time.monotonic() + seconds_max
        while True:
            self._look(time.monotonic())
            if done() or time.monotonic() >= limit or (self._stopped and not self._draining):
                break
            time.sleep(self._poll_s)

    def _look(self, now: float) -> None:
        """Sockets that have something to say or room for more, and connections that are due."""
        self._sweep(now)
        for fd, events in self._epoll.poll(0, len(self._by_fd) + 1):
            link = self._by_fd.get(fd)
            if link is not None:
                self._serve(link, events, now)
            elif fd == sys.stdin.fileno():
                self._hear()

    def _hear(self) -> None:
        """``go`` from the parent; its end of file means that it is gone."""
        word = os.read(sys.stdin.fileno(), 64)
        if b"go" in word:
            self._going = True
        elif not word:
            self._epoll.unregister(sys.stdin.fileno())
            self.stop()

    def _serve(self, link: Link, events: int, now: float) -> None:
        if link.connecting and link.sock is not None:
            fault = link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if fault:
                self._lose(link, now, os.strerror(fault))
                return
            link.connecting = False
            link.out.append(link.publisher.connect())
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(link, now)
        if link.sock is not None and not link.connecting:
            self._write(link, now)

    def _sweep(self, now: float) -> None:
        """Connect some of those that are down; once in SWEEP_S look after hung connects and keepalives."""
        # Who is refused at once comes back into the new list; in the old one it would then stand twice.
        down, self._down = self._down, []
        due = [link for link in down if link.retry_at <= now][:CONNECTS_PER_POLL]
        trying = set(map(id, due))
        self._down += [link for link in down if id(link) not in trying]
        for link in due:
            self._connect(link, now)
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        for link in self._links:
            if link.sock is not None and not link.publisher.up and now - link.used_at > ANSWER_S_MAX:
                self._lose(link, now, "no CONNACK in time")
            elif link.publisher.up and now - link.used_at > PING_S and not link.out:
                link.out.append(PINGREQ)
                self._write(link, now)

    def _connect(self, link: Link, now: float) -> None:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sock = sock
        link.connecting = True
        link.used_at = now
        self.report.connects += 1
        self._by_fd[sock.fileno()] = link
        link.watched = select.EPOLLIN | select.EPOLLOUT
        self._epoll.register(sock.fileno(), link.watched)
        fault = sock.connect_ex(self._address)
        if fault not in (0, errno.EINPROGRESS):
            self._lose(link, now, os.strerror(fault))

    def _read(self, link: Link, now: float) -> None:
        fault = self._hear_server(link)
        if fault:
            self._lose(link, now, fault)
        elif link.publisher.up:
            link.tries = 0

    def _hear_server(self, link: Link) -> str:
        """Feed what has arrived to the publisher; a text where the connection is to be closed."""
        assert link.sock is not None
        try:
            data = link.sock.recv(READ_BYTES)
            if not data:
                return "closed by the server"
            link.publisher.feed(data)
        except BlockingIOError:
            return ""
        except (OSError, RefusedError) as fault:
            return str(fault)
        return "" if len(data) < READ_BYTES else self._hear_server(link)

    def _write(self, link: Link, now: float) -> None:
        """Hand over what the window allows; what the socket does not take waits for it to be writable."""
        if link.sock is None or link.connecting:
            return
        blocked = bool(link.out)
        if not blocked or link.publisher.qos:
            link.out += link.publisher.take(time.time_ns() // 1000)
        if not link.out:
            return
        link.used_at = now
        try:
            while link.out:
                taken = link.sock.send(link.out[0])
                if taken < len(link.out[0]):
                    link.out[0] = memoryview(link.out[0])[taken:]
                    break
                link.out.pop(0)
        except BlockingIOError:
            pass  # the kernel's buffer is full: EPOLLOUT will tell
        except OSError as fault:
            # What the server acknowledged before it died lies unread: it counts.
            self._hear_server(link)
            self._lose(link, now, str(fault))
            return
        wanted = select.EPOLLIN | (select.EPOLLOUT if link.out else 0)
        if wanted != link.watched:
            self._epoll.modify(link.sock.fileno(), wanted)
            link.watched = wanted

    def _lose(self, link: Link, now: float, fault: str, wait_s: float | None = None) -> None:
        """Close and plan the next attempt; the publisher keeps what was not acknowledged."""
        if fault:
            note_fault(self.report, fault)
        if link.sock is not None:
            del self._by_fd[link.sock.fileno()]
            self._epoll.unregister(link.sock.fileno())
            link.sock.close()
            link.sock = None
            link.publisher.lost()
            self._down.append(link)
        link.connecting = False
        link.out.clear()
        if wait_s is None:
            wait_s = min(BACKOFF_S[0] * 2**link.tries, BACKOFF_S[1]) * self._random.uniform(0.5, 1.0)
            link.tries = min(link.tries + 1, 10)
        link.retry_at = now + wait_s

    def _tell(self, seconds: float) -> None:
        publishers = [link.publisher for link in self._links]
        say(
            seconds=round(seconds, 1),
            sent=sum(p.sent for p in publishers),
            acked=sum(p.acked for p in publishers),
            connected=sum(p.up for p in publishers),
        )

    def _close(self) -> None:
        """Say goodbye, write the ledger, fill the report."""
        for link in self._links:
            if link.sock is not None:
                if link.publisher.up and not link.out:
                    try:
                        link.sock.send(DISCONNECT)
                    except OSError as fault:
                        note_fault(self.report, str(fault))
                link.sock.close()
        self._epoll.close()
        self._ledger.close()
        report = self.report
        counts = self._ledger.counts
        report.sent, report.acked = counts["sent"], counts["acked"]
        report.refused, report.queued = counts["refused"], counts["queued"]
        report.not_sent = sum(link.publisher.not_sent for link in self._links)
        report.resent_messages = sum(link.publisher.resent for link in self._links)
        messages = max(1, report.sent // max(1, self._plan.batch))
        report.cpu_us_per_message = round(report.cpu_s / messages * 1e6, 3)


def _never() -> bool:
    return False


def main() -> None:
    """Read the plan, speak, report."""
    raise_open_files()
    plan = Plan.from_json(sys.stdin.buffer.readline().decode())
    speaker = RawSpeaker(plan)
    # What was built lives as long as the process: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    forget_signals(speaker.stop)
    finished(speaker.run())


if __name__ == "__main__":
    main()
