"""All stations on plain TCP: one port a source, read on the same timer as MQTT, answered behind the same fdatasync.

Owns listening, who may come in, the polling of all of them, and timers. Knows nothing of readings or of the journal: it
hands on frames as `Arrived` and is told when they are on disk.
"""

from __future__ import annotations

import ipaddress
import logging
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ingest.codecs.base import StreamCodec
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from ingest.tcp.settings import Network, TcpSettings, networks_of
from ingest.tcp.station import READ_BYTES_MAX, Station
from storage.certificates import CertificateFault, ServerTls, server_files

log = logging.getLogger("yuzui.tcp")

BACKLOG: Final = 1024
"""Stations that call in one instant after a power cut; the kernel caps it at somaxconn."""
ACCEPTS_PER_POLL_MAX: Final = 128
TLS_ACCEPTS_PER_POLL_MAX: Final = 16
"""A handshake costs a millisecond or two of the loop; more at once would stop everyone's readings."""
STATIONS_PER_POLL_MAX: Final = 1024
BYTES_PER_POLL_MAX: Final = 4 << 20
"""Over all stations; the rest waits in the kernel for the next poll."""
SWEEP_S: Final = 1.0
STALL_S: Final = 2.0
"""After a poll this late (the machine slept, reading was paused) stations are given their time anew."""

CodecOf = Callable[[str], StreamCodec | None]


@dataclass(slots=True)
class Arrived:
    """What one station said in one poll: whole frames, and what was none; and the right to answer."""

    station: Station
    frames: list[bytes | Refused]


@dataclass(slots=True)
class _Port:
    """A listening socket of a source."""

    sock: socket.socket
    name: str
    number: int
    settings: TcpSettings
    allowed: list[Network]
    tls: ServerTls | None = None
    open: int = 0


class Stations:
    """Every method is called in the loop's thread; none blocks.

    counters  accepted, frames, noise, answers, answers_stale, bytes_in, bytes_out, and refused.*, closed.* by reason;
              ``open_by_source`` is of now
    """

    def __init__(self, codec_of: CodecOf) -> None:
        """``codec_of``: the codec of a source by its name, None where it has none any more."""
        self.paused = False
        self.backlog = False
        """Whether the last poll left bytes unread that it knew of."""
        self.counters: Counter[str] = Counter()
        self._codec_of = codec_of
        self._reads = select.epoll()
        self._writes = select.epoll()
        self._writing: set[int] = set()
        self._ports: dict[str, _Port] = {}
        self._ports_by_fd: dict[int, _Port] = {}
        self._stations: dict[int, Station] = {}
        self._by_address: Counter[tuple[str, str]] = Counter()
        self._buffer = memoryview(bytearray(READ_BYTES_MAX))
        self._now = 0.0
        self._next_sweep = 0.0
        self._arrived: list[Arrived] = []

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where each source listens."""
        return {name: port.sock.getsockname()[:2] for name, port in self._ports.items()}

    @property
    def open_by_source(self) -> dict[str, int]:
        """Connected stations of each source that has a port."""
        return {name: port.open for name, port in self._ports.items()}

    def certificates(self) -> dict[str, ServerTls]:
        """Those of all ports with TLS, by words for people."""
        return {f"source {name}": port.tls for name, port in self._ports.items() if port.tls is not None}

    def vitals(self) -> dict[str, Any]:
        """Numbers for /metrics and /healthz."""
        named = ("frames", "noise", "answers", "answers_stale")
        return {
            **{f"station_{name}": self.counters[name] for name in named},
            "stations": len(self._stations),
            "stations_open": self.open_by_source,
            "station_refusals": self._by_reason("refused."),
            "station_closings": self._by_reason("closed."),
        }

    def _by_reason(self, prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): n for name, n in self.counters.items() if name.startswith(prefix)}

    def serve(self, sources: Iterable[SourceSettings]) -> list[str]:
        """Listen for those of ``sources`` that have a port, and for no others; what could not be had, a line each.

        A source that goes on unchanged keeps its connections; one that is gone, or moved, loses them.
        """
        wanted = {one.name: (one.port, one.tcp) for one in sources if one.port is not None}
        for name, port in list(self._ports.items()):
            if wanted.get(name) != (port.number, port.settings):
                self._shut(port)
        faults = []
        for name, (number, settings) in wanted.items():
            if name not in self._ports:
                try:
                    self._open(name, number or 0, settings)
                except (OSError, CertificateFault) as fault:
                    faults.append(f"source {name} on {settings.host}:{number}: {fault}")
        return faults

    def _open(self, name: str, number: int, settings: TcpSettings) -> None:
        files = server_files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        tls = ServerTls(files) if files is not None else None
        family, _, _, _, where = socket.getaddrinfo(settings.host, number, type=socket.SOCK_STREAM)[0]
        sock = socket.create_server((str(where[0]), number), family=family, backlog=BACKLOG)
        sock.setblocking(False)
        port = _Port(sock, name, number, settings, networks_of(settings.allow), tls)
        self._ports[name] = self._ports_by_fd[sock.fileno()] = port
        if not self.paused:
            self._reads.register(sock.fileno(), select.EPOLLIN)

    def _shut(self, port: _Port) -> None:
        for station in [one for one in self._stations.values() if one.source == port.name]:
            self._close(station, "source_gone")
        del self._ports[port.name], self._ports_by_fd[port.sock.fileno()]
        port.sock.close()

    def poll(self, now: float) -> list[Arrived]:
        """Read what is ready and do what is due. ``now``: s, monotonic. Each of what arrived must be answered once."""
        if now - self._now > STALL_S:
            self._give_time(now)
        self._now = now
        for fd, _ in self._writes.poll(0, STATIONS_PER_POLL_MAX) if self._writing else ():
            self._settle(self._stations[fd], self._stations[fd].flush())
        self.backlog = self.paused
        if not self.paused:
            self._read()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            self._sweep()
        arrived, self._arrived = self._arrived, []
        return arrived

    def _read(self) -> None:
        ready = self._reads.poll(0, STATIONS_PER_POLL_MAX)
        self.backlog = len(ready) >= STATIONS_PER_POLL_MAX
        left = BYTES_PER_POLL_MAX
        for fd, _ in ready:
            station = self._stations.get(fd)
            if station is not None:
                left -= self._hear(station)
            elif fd in self._ports_by_fd:
                self._accept(self._ports_by_fd[fd])
            if left <= 0:
                self.backlog = True
                break
        self.counters["bytes_in"] += BYTES_PER_POLL_MAX - left

    def _hear(self, station: Station) -> int:
        codec = self._codec_of(station.source)
        if codec is None:
            self._close(station, "source_gone")
            return 0
        frames, size, why = station.read(self._buffer, codec, self._now)
        self.backlog |= size >= READ_BYTES_MAX
        if why:
            rest = station.give_up(why)
            if rest is not None:
                frames.append(rest)
        if frames:
            self._hand_on(station, frames)
        if why == "closed_by_peer" and station.waiting:
            # It still listens: what it sent is answered first.
            station.leaving = True
            self._reads.unregister(station.fileno())
        elif why:
            self._close(station, why)
        return size

    def _hand_on(self, station: Station, frames: list[bytes | Refused]) -> None:
        station.waiting += 1
        noise = sum(isinstance(frame, Refused) for frame in frames)
        self.counters["noise"] += noise
        self.counters["frames"] += len(frames) - noise
        self._arrived.append(Arrived(station, frames))

    def _accept(self, port: _Port) -> None:
        for _ in range(TLS_ACCEPTS_PER_POLL_MAX if port.tls else ACCEPTS_PER_POLL_MAX):
            try:
                sock, peer = port.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors or memory: they wait in the kernel's queue for the next poll.
                self.counters["refused.accept"] += 1
                return
            why = self._objection(port, str(peer[0]))
            if why:
                self.counters[f"refused.{why}"] += 1
                sock.close()
                continue
            try:
                station = Station(sock, port.name, port.settings, self._now, port.tls)
            except OSError:
                # It hung up between the kernel's accept and ours.
                self.counters["refused.gone"] += 1
                sock.close()
                continue
            self.counters["accepted"] += 1
            port.open += 1
            self._by_address[port.name, station.address] += 1
            self._stations[station.fileno()] = station
            self._reads.register(station.fileno(), select.EPOLLIN)

    def _objection(self, port: _Port, address: str) -> str:
        """Why a connection is refused; "" if it is not."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        if port.allowed and not any((mapped or ip) in network for network in port.allowed):
            return "not_allowed"
        if port.open >= port.settings.connections_max:
            return "connections"
        if self._by_address[port.name, address] >= port.settings.connections_per_address_max:
            return "connections_per_address"
        return ""

    def answer(self, answered: Iterable[tuple[Arrived, list[bytes]]]) -> None:
        """What arrived is on disk: send what its stations wait for. Of those that are gone it is counted."""
        for arrived, answers in answered:
            station = arrived.station
            station.waiting -= 1
            if station.closed:
                self.counters["answers_stale"] += len(answers)
                continue
            self.counters["answers"] += len(answers)
            self._settle(station, station.send(b"".join(answers)) if answers else 0)

    def _settle(self, station: Station, sent: int) -> None:
        """After ``sent`` bytes, -1 for a peer that is gone: watch for room, or close."""
        if sent < 0:
            self._close(station, "slow_reader" if station.out_bytes else "reset")
            return
        self.counters["bytes_out"] += sent
        fd = station.fileno()
        if station.out_bytes and fd not in self._writing:
            self._writes.register(fd, select.EPOLLOUT)
            self._writing.add(fd)
        elif not station.out_bytes and fd in self._writing:
            self._writes.unregister(fd)
            self._writing.discard(fd)
        if station.leaving and not station.waiting and not station.out_bytes:
            self._close(station, "closed_by_peer")

    def _sweep(self) -> None:
        """Close who is silent too long, or has been at one frame too long. While reading is paused nobody is late."""
        if self.paused:
            return
        for station in list(self._stations.values()):
            settings = self._ports[station.source].settings
            why = ""
            if (
                station.unfinished or station.handshaking
            ) and self._now - station.begun_at > settings.frame_s_max:
                why = "tls_timeout" if station.handshaking else "frame_timeout"
            elif self._now - station.heard_at > settings.idle_s_max:
                why = "idle"
            if why:
                rest = station.give_up(why)
                if rest is not None:
                    self._hand_on(station, [rest])
                self._close(station, why)

    def _give_time(self, now: float) -> None:
        for station in self._stations.values():
            station.heard_at = station.begun_at = now

    def _close(self, station: Station, why: str) -> None:
        if station.closed:
            return
        fd = station.fileno()
        self._stations.pop(fd, None)
        self._writing.discard(fd)
        port = self._ports.get(station.source)
        if port is not None:
            port.open -= 1
        key = station.source, station.address
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]
        self.counters[f"closed.{why}"] += 1
        station.close()  # epoll forgets it with the descriptor

    def pause(self) -> None:
        """Read nothing and accept nobody: the journal is behind. Answers still go out."""
        if not self.paused:
            self.paused = True
            for port in self._ports.values():
                self._reads.unregister(port.sock.fileno())

    def resume(self) -> None:
        """Read again. What stations sent meanwhile lies unread, so their time starts anew."""
        if self.paused:
            self.paused = False
            self._give_time(self._now)
            for port in self._ports.values():
                self._reads.register(port.sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close everything; who was not answered will send again."""
        for port in list(self._ports.values()):
            self._shut(port)
        self._reads.close()
        self._writes.close()
