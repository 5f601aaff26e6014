"""What all connections of one poller share: two epolls, counters, what was received.

Owns registration of file descriptors. Knows nothing of MQTT.

Two epolls, so that pausing is not polling one of them: ``reads`` has every open connection and nothing
else, ``others`` has listening sockets, connects, handshakes and connections that wait to write.
"""

from __future__ import annotations

import select
from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING, Protocol

from ingest.kernels.compiling import IS_COMPILED

if TYPE_CHECKING:
    from ingest.mqtt.arena import Arena
    from ingest.mqtt.connection import Connection
    from ingest.mqtt.receipts import Received, Segment

CHUNK_BYTES = 256 * 1024
"""Read in one call; a burst of one gateway or 10 ms of a whole city's broker fits."""
READ_BYTES_MAX = 1 << 20
"""Read from one connection in one poll, less where its buffer limit is less; then it is the others' turn."""
OTHERS_PER_POLL_MAX = 1024


class Ready(Protocol):
    """Who is told that a descriptor in ``others`` is ready."""

    def on_ready(self, mask: int, now: float) -> None:
        """``mask`` is epoll's."""


class Sockets:
    """Shared by a poller, its doors, links and connections; used in one thread."""

    def __init__(self, read_bytes_max: int = 0) -> None:
        """``read_bytes_max``: of one poll, for the arena; without numba there is none."""
        self.arena: Arena[Segment] | None = None
        if read_bytes_max and IS_COMPILED:
            from ingest.mqtt.arena import Arena

            self.arena = Arena(read_bytes_max + READ_BYTES_MAX)
        self.counters: dict[str, int] = defaultdict(int)
        self.received: list[Received] = []
        self.connections: dict[int, Connection] = {}
        """By epoch."""
        self.doomed: list[tuple[Connection, str]] = []
        """Connections that broke where they could not be closed: in the middle of an acknowledgement."""
        self.unread: set[Connection] = set()
        """Connections whose bytes epoll cannot see: TLS has decrypted them already."""
        self.readers: dict[int, Connection] = {}
        self.buffer = memoryview(bytearray(CHUNK_BYTES))
        self.now = 0.0
        self.wall_us = 0
        self._reads = select.epoll()
        self._others = select.epoll()
        self._others_by_fd: dict[int, Ready] = {}
        self._epochs = count(1)

    def next_epoch(self) -> int:
        """A number no connection had before; never 0."""
        return next(self._epochs)

    def watch_reads(self, fd: int, conn: Connection) -> None:
        """Report ``conn`` when it has something to read."""
        if fd not in self.readers:
            self._reads.register(fd, select.EPOLLIN)
            self.readers[fd] = conn

    def unwatch_reads(self, fd: int) -> None:
        """No more; nothing happens if it was not watched."""
        if self.readers.pop(fd, None) is not None:
            self._reads.unregister(fd)

    def watch(self, fd: int, mask: int, ready: Ready) -> None:
        """Tell ``ready`` when ``fd`` is; again with another mask replaces it."""
        if fd in self._others_by_fd:
            self._others.modify(fd, mask)
        else:
            self._others.register(fd, mask)
        self._others_by_fd[fd] = ready

    def unwatch(self, fd: int) -> None:
        """No more; nothing happens if it was not watched."""
        if self._others_by_fd.pop(fd, None) is not None:
            self._others.unregister(fd)

    def poll_others(self, now: float) -> None:
        """Tell everyone whose descriptor is ready; one may close another's on the way."""
        for fd, mask in self._others.poll(0, OTHERS_PER_POLL_MAX):
            ready = self._others_by_fd.get(fd)
            if ready is not None:
                ready.on_ready(mask, now)

    def ready_to_read(self, sockets_max: int) -> list[Connection]:
        """At most ``sockets_max`` connections. The kernel reports the rest first the next time."""
        ready = [self.readers[fd] for fd, _ in self._reads.poll(0, sockets_max)]
        if self.unread:
            ready = list(dict.fromkeys([*ready, *self.unread]))
            self.unread.clear()
        return ready

    def close(self) -> None:
        """Close both epolls."""
        self._reads.close()
        self._others.close()
