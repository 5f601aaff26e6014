"""The sockets of the wire, read on a timer.

Owns the loop over what is ready: accept, read, write, close, timers. Knows nothing of readings or of
the journal: it hands on `Received` and is told what to acknowledge.

Sockets are not read when they wake up but every few milliseconds: one poll takes what many wake-ups
would have brought one by one, which is several times cheaper at a city's rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING

from ingest.config import ListenerSettings, SubscriberSettings, WireSettings
from ingest.credentials import Credentials
from ingest.frames import NO_PID
from ingest.mqtt.connection import Connection
from ingest.mqtt.door import Door
from ingest.mqtt.fields import Reason
from ingest.mqtt.links import Link, LinkEvent, slices_of
from ingest.mqtt.listener import ServerSession
from ingest.mqtt.receipts import Arrivals, Receipt, Received, Segment
from ingest.mqtt.sockets import READ_BYTES_MAX, Sockets
from storage.certificates import ClientTls, ServerTls

if TYPE_CHECKING:
    from ingest.mqtt.arena import Arena

SOCKETS_PER_POLL_MIN = 64
POLLS_PER_ROUND = 6
"""Of many ready connections one poll reads a sixth (at least 64), in turn, so each is read every 120 ms.
A read and an acknowledgement cost 30 us together: for gateways that send a message every 10 ms this pays
them once for a dozen. A 3.1.1 client with 20 messages in flight still gets 140 through a second."""
SWEEP_S = 1.0
"""Timers of the protocol are whole seconds."""
STALL_S = 2.0
"""After a poll this late (the machine slept, the loop was stopped) peers are given their time anew."""


def _ignore(_event: LinkEvent) -> None:
    """Nobody asked to be told of links."""


class Poller:
    """All connections of the wire. Every method is called in the loop's thread; none blocks.

    ``counters`` (read only): connections_open, connections_accepted, connections_admitted, links_up,
    messages, oversized, bytes_in, bytes_out, acks_sent, acks_stale, receipts_stale, pauses,
    connect_retries, wills, and refused.*, malformed.*, closed.* by reason.
    """

    def __init__(
        self,
        wire: WireSettings,
        *,
        on_event: Callable[[LinkEvent], None] = _ignore,
        random: Random | None = None,
    ) -> None:
        self.paused = False
        self.backlog = False
        """Whether the last poll left bytes unread that it knew of."""
        self._wire = wire
        self._on_event = on_event
        self._random = random or Random()
        self._sockets = Sockets(wire.read_bytes_max)
        self._doors: list[Door] = []
        self._links: list[Link] = []
        self._verifiers = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._read_since = 0.0
        self._resumed = True
        self._next_sweep = 0.0

    @property
    def counters(self) -> dict[str, int]:
        """Counts since the start; *_open and *_up are numbers of now."""
        self._sockets.counters["connections_open"] = len(self._sockets.connections)
        return self._sockets.counters

    @property
    def connections(self) -> list[Connection]:
        """Those open now."""
        return list(self._sockets.connections.values())

    def listen(self, settings: ListenerSettings, credentials: Credentials | None = None) -> tuple[str, int]:
        """Listen; the address taken. Raises OSError, or ValueError when strangers could publish."""
        door = Door(
            self._sockets,
            settings,
            credentials if credentials is not None else Credentials.load(None),
            self._wire.message_bytes_max,
            self._verifiers,
            self._close,
        )
        self._doors.append(door)
        door.open(not self.paused)
        return door.address

    def subscribe(self, settings: SubscriberSettings) -> None:
        """Keep the connections of ``settings`` up from the next poll on. Raises ValueError or OSError."""
        # All are made before one is kept: settings that fail leave nothing behind.
        made = [
            Link(
                self._sockets,
                settings,
                index,
                self._wire.message_bytes_max,
                self._wire.read_bytes_max,
                self._random,
                self._on_event,
                self._close,
            )
            for index in range(len(slices_of(settings)))
        ]
        self._links += made

    @property
    def addresses(self) -> list[str]:
        """Where we listen, as "host:port"."""
        return [f"{host}:{port}" for host, port in (door.address for door in self._doors)]

    def certificates(self) -> dict[str, ServerTls | ClientTls]:
        """Those of all doors and links with TLS, by words for people."""
        doors = {f"listener {host}:{port}": d.tls for d in self._doors for host, port in (d.address,)}
        links = {f"subscriber {link.name}": link.tls for link in self._links}
        return {where: tls for where, tls in {**doors, **links}.items() if tls is not None}

    def links_down(self) -> dict[str, str]:
        """Why each link that is not up is down, by its name."""
        return {link.name: link.why_down for link in self._links if link.why_down}

    def poll(self, now: float, wall_us: int) -> Arrivals:
        """Read what is ready and do what is due. ``now`` in s, monotonic; ``wall_us`` in µs since 1970 UTC.

        Never blocks. The messages are yours to acknowledge: build_receipt, then, when they are on
        disk, acknowledge.
        """
        sockets = self._sockets
        if self._resumed or now - sockets.now > STALL_S:
            self._read_since, self._resumed = now, False
        sockets.now, sockets.wall_us = now, wall_us
        if sockets.arena is not None:
            sockets.arena.clear()
        sockets.poll_others(now)
        for door in self._doors:
            door.settle_logins()
        self.backlog = self.paused
        if not self.paused:
            self._read()
        self._bury()
        for link in self._links:
            link.turn(now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self._sweep(now)
        received, sockets.received = sockets.received, []
        counters = sockets.counters
        if received:
            counters["messages"] += sum(map(len, received))
            counters["oversized"] += sum(len(one.oversized) for one in received)
        if sockets.arena is not None:
            counters["messages"] += sockets.arena.count
        return Arrivals(sockets.arena, received, wall_us)

    def _read(self) -> None:
        sockets = self._sockets
        budget = self._wire.read_bytes_max
        sockets_max = max(SOCKETS_PER_POLL_MIN, len(sockets.connections) // POLLS_PER_ROUND)
        ready = sockets.ready_to_read(sockets_max)
        self.backlog = len(ready) >= sockets_max
        left = budget
        arena, others = sockets.arena, ready
        if arena is not None:
            # Who may come in and who is taken over is decided behind them, so that their bytes are still theirs.
            others, together = [], []
            for conn in ready:
                if conn.reads_together:
                    together.append(conn)
                elif conn.plain and left > 0 and arena.room > conn.held_bytes:
                    # What connections hold of unfinished messages takes room too, and is not counted as read.
                    taken = conn.read_into(arena)
                    left -= taken
                    self.backlog |= taken >= READ_BYTES_MAX
                else:
                    others.append(conn)
            if together and left > 0:
                left -= self._read_together(arena, together, left)
            self._take(arena)
        for index, conn in enumerate(others):
            if left <= 0:
                # The kernel has the rest; what TLS holds it does not know of.
                sockets.unread.update(one for one in others[index:] if one.epoch)
                break
            taken = conn.read()
            left -= taken
            self.backlog |= taken >= READ_BYTES_MAX
        sockets.counters["bytes_in"] += budget - left

    def _read_together(self, arena: Arena[Segment], conns: list[Connection], budget: int) -> int:
        """One read of each; the bytes read."""
        from ingest.mqtt.bulk import read_all

        used = arena.used
        sizes = read_all(
            [conn.fd for conn in conns],
            [conn.read_bytes_max for conn in conns],
            arena.buffer,
            used,
            min(arena.bytes_max, used + budget),
        )
        if min(sizes) <= 0:
            for conn, size in zip(conns, sizes, strict=True):
                if size < 0:
                    conn.ended(size)
            conns = [conn for conn, size in zip(conns, sizes, strict=True) if size > 0]
            sizes = [size for size in sizes if size > 0]
        if sizes:
            segments = [conn.got() for conn in conns]
            arena.segments_of(segments, sizes, [segment.v5 for segment in segments])
            self.backlog |= max(sizes) >= READ_BYTES_MAX
        return arena.used - used

    def _take(self, arena: Arena[Segment]) -> None:
        """Find the messages in what was read, and tell each connection what became of its bytes."""
        if not arena.owners:
            return
        arena.scan(self._wire.message_bytes_max)
        for segment, (acks, size, comps, rest, need) in zip(arena.owners, arena.outcomes(), strict=True):
            segment.conn.took(acks, size, comps, rest, need)

    def _sweep(self, now: float) -> None:
        read_since = None if self.paused else self._read_since
        for conn in list(self._sockets.connections.values()):
            if conn.epoch:
                conn.owner.sweep(conn, now, read_since)

    def _bury(self) -> None:
        doomed = self._sockets.doomed
        while doomed:
            self._close(*doomed.pop())

    def _close(self, conn: Connection, why: str) -> None:
        """Close ``conn``; a will it left is handed on as a message nobody acknowledges."""
        if not conn.epoch:
            return
        session = conn.session
        conn.close()
        self._sockets.counters[f"closed.{why}"] += 1
        if isinstance(session, ServerSession) and session.will is not None:
            will, session.will = session.will, None
            head = 0x30 | will.qos << 1 | will.retain
            self._sockets.counters["wills"] += 1
            self._sockets.received.append(
                Received(
                    conn,
                    conn.epoch,
                    [will.topic.encode()],
                    [will.payload],
                    bytearray([head]),
                    [NO_PID],
                    self._sockets.wall_us,
                    credential=conn.credential,
                )
            )
        conn.owner.closed(conn, why)

    def acknowledge(self, receipts: Iterable[Receipt]) -> int:
        """Send the acknowledgements of ``receipts``, whose messages are on disk; one send a connection.

        Returns how many were sent (QoS 0 has none). Receipts of connections that are gone are dropped
        and counted: packet ids start anew with a connection, and an old acknowledgement would take a
        new message's place.
        """
        sent = 0
        together: list[tuple[Connection, bytes]] = []
        joined: dict[int, list[Receipt]] = {}
        for receipt in receipts:
            joined.setdefault(receipt.epoch, []).append(receipt)
        for epoch, several in joined.items():
            conn = several[0].conn
            receipt = several[0]
            if len(several) > 1:
                receipt = Receipt(
                    conn,
                    epoch,
                    b"".join([one.acks for one in several]),
                    sum(one.messages for one in several),
                    sum(one.size for one in several),
                )
            if conn.acknowledge(epoch, receipt):
                sent += receipt.messages
                if not receipt.acks:
                    continue
                if self._sockets.arena is not None and conn.writes_together:
                    together.append((conn, receipt.acks))
                else:
                    conn.send(receipt.acks)
        if together:
            self._send_together(together)
        self._sockets.counters["acks_sent"] += sent
        return sent

    def _send_together(self, pieces: list[tuple[Connection, bytes]]) -> None:
        from ingest.mqtt.bulk import write_all

        taken = write_all([conn.fd for conn, _ in pieces], [out for _, out in pieces])
        self._sockets.counters["bytes_out"] += sum(sent for sent in taken if sent > 0)
        now = self._sockets.now
        for (conn, out), sent in zip(pieces, taken, strict=True):
            if sent == len(out):
                conn.last_sent = now
            else:
                conn.was_sent(out, sent)

    def flush(self) -> int:
        """Try to write what waits for peers to read; the bytes that still wait."""
        self._sockets.poll_others(self._sockets.now)
        return sum(conn.out_bytes for conn in self._sockets.connections.values())

    def pause(self) -> None:
        """Read nothing and accept nobody: the journal is behind. Pings still go out."""
        if not self.paused:
            self.paused = True
            for door in self._doors:
                door.open(False)

    def resume(self) -> None:
        """Read again. What peers sent meanwhile lies unread, so their time starts anew."""
        if self.paused:
            self.paused, self._resumed = False, True
            for door in self._doors:
                door.open(True)

    def stop_listening(self) -> None:
        """Accept nobody any more; connections stay."""
        for door in self._doors:
            door.shut()

    def close(self) -> None:
        """Say goodbye to all and close everything. Receipts not used until now are worth nothing."""
        self.stop_listening()
        for link in self._links:
            link.stop()
        for conn in self.connections:
            session = conn.session
            if isinstance(session, ServerSession):
                # We leave, they did not vanish: their wills are not due.
                session.will = None
                session.end(Reason.SERVER_SHUTTING_DOWN, "stopped")
            self._close(conn, "stopped")
        self._sockets.doomed.clear()
        self._verifiers.shutdown(wait=False, cancel_futures=True)
        self._sockets.close()
