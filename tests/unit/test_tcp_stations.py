"""Stations on plain TCP: real sockets on loopback, polled by hand; nothing of the engine but the codec."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingest.codecs.base import StreamCodec
from ingest.codecs.hj212 import Hj212, framed
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from ingest.tcp.settings import TcpSettings
from ingest.tcp.stations import Arrived, Stations
from tests.engines import free_port, until

FRAME = framed(
    b"QN=20260801085857223;ST=22;CN=2011;PW=1;MN=M1;Flag=5;CP=&&DataTime=20260801085857;a1-Rtd=1&&"
)


def source(name: str = "epb", **tcp: Any) -> SourceSettings:
    """A source with a port of its own."""
    return SourceSettings.model_validate({"name": name, "codec": "hj212", "port": free_port(), "tcp": tcp})


class Door:
    """Stations of one or more sources, whose clock is turned by the test."""

    def __init__(self, *sources: SourceSettings) -> None:
        codecs: dict[str, StreamCodec] = {one.name: Hj212(one, ZoneInfo("UTC")) for one in sources}
        self.codecs = codecs
        self.stations = Stations(codecs.get)
        assert self.stations.serve(sources) == []
        self.now = 100.0
        self.peers: list[socket.socket] = []

    def connect(self, name: str = "epb") -> socket.socket:
        """A station at the door."""
        peer = socket.create_connection(self.stations.addresses[name], timeout=60)
        self.peers.append(peer)
        return peer

    def poll(self, step: float = 0.01) -> list[Arrived]:
        """A turn later."""
        self.now += step
        return self.stations.poll(self.now)

    def until(self, what: Callable[[list[Arrived]], Any]) -> list[Arrived]:
        """Turns until what has arrived in all of them fulfils ``what``."""
        came: list[Arrived] = []

        def turned() -> bool:
            came.extend(self.poll())
            return bool(what(came))

        until(turned, "the station is heard", 60)
        return came

    def frames(self, n: int) -> list[Arrived]:
        """Turns until ``n`` frames came."""
        return self.until(lambda came: sum(len(one.frames) for one in came) >= n)

    def closed(self, reason: str) -> None:
        """Turns until a connection was closed for ``reason``."""
        self.until(lambda _: self.stations.counters[f"closed.{reason}"])


@pytest.fixture
def doors() -> Iterator[list[Door]]:
    """Doors that are shut at the end."""
    opened: list[Door] = []
    yield opened
    for door in opened:
        door.stations.close()
        for peer in door.peers:
            peer.close()


def opened(doors: list[Door], *sources: SourceSettings) -> Door:
    doors.append(Door(*(sources or (source(),))))
    return doors[-1]


def ended(peer: socket.socket) -> bool:
    """Whether the other side has closed."""
    peer.settimeout(60)
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_frame_is_answered_only_when_it_is_said_to_be_on_disk(doors: list[Door]) -> None:
    door = opened(doors)
    peer = door.connect()
    peer.sendall(FRAME)
    [arrived] = door.frames(1)
    assert arrived.frames == [FRAME[:-2]]
    peer.setblocking(False)
    for _ in range(20):
        door.poll()
    with pytest.raises(BlockingIOError):
        peer.recv(100)
    door.stations.answer([(arrived, [b"yes"])])
    peer.settimeout(60)
    assert peer.recv(100) == b"yes"


def test_a_frame_sent_byte_by_byte_is_one_frame(doors: list[Door]) -> None:
    door = opened(doors)
    peer = door.connect()
    for byte in FRAME:
        peer.sendall(bytes((byte,)))
        door.poll()
    arrived = door.frames(0) if door.stations.counters["frames"] else door.frames(1)
    assert door.stations.counters["frames"] == 1
    assert arrived is not None
    assert door.stations.counters["noise"] == 0


def test_a_peer_that_has_shut_its_side_is_answered_and_then_closed(doors: list[Door]) -> None:
    door = opened(doors)
    peer = door.connect()
    peer.sendall(FRAME)
    peer.shutdown(socket.SHUT_WR)
    [arrived] = door.frames(1)
    door.poll()
    assert door.stations.open_by_source == {"epb": 1}
    door.stations.answer([(arrived, [b"yes"])])
    peer.settimeout(60)
    assert peer.recv(100) == b"yes"
    assert ended(peer)
    assert door.stations.open_by_source == {"epb": 0}


def test_the_answer_to_a_peer_that_is_gone_is_dropped_and_counted(doors: list[Door]) -> None:
    door = opened(doors)
    peer = door.connect()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.sendall(FRAME)
    [arrived] = door.frames(1)
    peer.close()  # with a reset
    door.closed("reset")
    door.stations.answer([(arrived, [b"yes", b"and"])])
    assert door.stations.counters["answers_stale"] == 2
    # A new connection, perhaps on the same descriptor, hears nothing of it.
    other = door.connect()
    other.sendall(FRAME)
    [arrived] = door.frames(1)
    door.stations.answer([(arrived, [b"mine"])])
    other.settimeout(60)
    assert other.recv(100) == b"mine"


def test_noise_and_a_frame_cut_by_the_end_are_handed_on_as_refusals(doors: list[Door]) -> None:
    door = opened(doors)
    peer = door.connect()
    peer.sendall(b"GET / HTTP/1.1\r\n\r\n" + FRAME + FRAME[:40])
    peer.shutdown(socket.SHUT_WR)
    came = door.frames(3)
    frames = [frame for one in came for frame in one.frames]
    assert [f.raw if isinstance(f, Refused) else f for f in frames] == [
        b"GET / HTTP/1.1\r\n\r\n",
        FRAME[:-2],
        FRAME[:40],
    ]
    assert {f.reason for f in frames if isinstance(f, Refused)} == {"bad_frame"}


def test_a_frame_that_takes_too_long_and_a_silent_peer_are_let_go(doors: list[Door]) -> None:
    door = opened(doors, source(frame_s_max=10, idle_s_max=100))
    slow, silent = door.connect(), door.connect()
    slow.sendall(FRAME[:10])
    door.until(lambda _: door.stations.counters["bytes_in"] == 10)
    for byte in FRAME[10:19]:
        slow.sendall(bytes((byte,)))  # a byte a second keeps it awake, but not its frame
        door.poll(1.0)
    door.poll(1.5)
    door.closed("frame_timeout")
    assert ended(slow)
    assert door.stations.open_by_source == {"epb": 1}
    for _ in range(110):
        door.poll(1.0)
    assert door.stations.counters["closed.idle"] == 1
    assert ended(silent)


def test_after_our_own_sleep_nobody_is_late(doors: list[Door]) -> None:
    door = opened(doors, source(frame_s_max=10, idle_s_max=20))
    door.connect().sendall(FRAME[:10])
    door.until(lambda _: door.stations.counters["bytes_in"] == 10)
    door.poll(3600)
    door.poll(1)
    assert door.stations.open_by_source == {"epb": 1}
    door.stations.pause()
    for _ in range(60):
        door.poll(1)
    door.stations.resume()
    door.poll(1)
    assert door.stations.open_by_source == {"epb": 1}


def test_limits_of_connections_and_who_may_come_in(doors: list[Door]) -> None:
    few = source("few", connections_max=2)
    one = source("one", connections_per_address_max=1)
    others = source("others", allow=["192.0.2.0/24"])
    door = opened(doors, few, one, others)
    wanted = {"few": 4, "one": 3, "others": 2}
    peers = {name: [door.connect(name) for _ in range(n)] for name, n in wanted.items()}
    counters = door.stations.counters
    door.until(
        lambda _: counters["accepted"] + sum(counters[k] for k in counters if k.startswith("refused.")) == 9
    )
    assert door.stations.open_by_source == {"few": 2, "one": 1, "others": 0}
    assert (counters["refused.connections"], counters["refused.connections_per_address"]) == (2, 2)
    assert counters["refused.not_allowed"] == 2
    assert all(ended(peer) for peer in peers["others"])
    # A place is free again once somebody leaves.
    peers["one"][0].close()
    door.closed("closed_by_peer")
    door.connect("one")
    door.until(lambda _: door.stations.open_by_source["one"] == 1)


def test_while_paused_nothing_is_read_or_accepted_and_answers_go_out(doors: list[Door]) -> None:
    door = opened(doors)
    peer = door.connect()
    peer.sendall(FRAME)
    [arrived] = door.frames(1)
    door.stations.pause()
    peer.sendall(FRAME)
    late = door.connect()
    for _ in range(20):
        assert door.poll() == []
        assert door.stations.backlog
    assert door.stations.open_by_source == {"epb": 1}
    door.stations.answer([(arrived, [b"yes"])])
    peer.settimeout(60)
    assert peer.recv(100) == b"yes"
    door.stations.resume()
    late.sendall(FRAME)
    door.frames(2)


def test_a_peer_that_takes_no_answers_is_let_go(doors: list[Door]) -> None:
    door = opened(doors, source(buffer_bytes_max=16 * 1024))
    peer = door.connect()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.sendall(FRAME)
    [arrived] = door.frames(1)
    for _ in range(10_000):
        arrived.station.waiting += 1
        door.stations.answer([(arrived, [b"x" * 8192])])
        if door.stations.counters["closed.slow_reader"]:
            break
    assert door.stations.counters["closed.slow_reader"] == 1


def test_a_slow_peer_gets_the_rest_of_its_answer_later(doors: list[Door]) -> None:
    door = opened(doors, source(buffer_bytes_max=1 << 24))
    peer = door.connect()
    peer.sendall(FRAME)
    [arrived] = door.frames(1)
    long = bytes(8 << 20)
    door.stations.answer([(arrived, [long])])
    assert arrived.station.out_bytes
    got = 0
    peer.setblocking(False)
    while got < len(long):
        door.poll()
        try:
            got += len(peer.recv(1 << 20))
        except BlockingIOError:
            continue
    assert not arrived.station.out_bytes


def test_ports_come_and_go_with_the_sources(doors: list[Door]) -> None:
    first, second = source("first"), source("second")
    door = opened(doors, first, second)
    kept, lost = door.connect("first"), door.connect("second")
    door.until(lambda _: door.stations.counters["accepted"] == 2)
    third = source("third")
    door.codecs["third"] = door.codecs["first"]
    assert door.stations.serve([first, third]) == []
    assert set(door.stations.addresses) == {"first", "third"}
    assert ended(lost)
    kept.sendall(FRAME)
    door.frames(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = source("busy").model_copy(update={"port": taken.getsockname()[1]})
        [fault] = door.stations.serve([first, third, busy])
    assert f"busy on 127.0.0.1:{busy.port}" in fault
    assert set(door.stations.addresses) == {"first", "third"}


def test_a_door_to_the_world_wants_to_be_told_for_whom() -> None:
    with pytest.raises(ValueError, match="who may connect"):
        TcpSettings(host="0.0.0.0")
    with pytest.raises(ValueError, match="does not appear"):
        TcpSettings(allow=["station-7"])
    assert TcpSettings(host="0.0.0.0", allow=["0.0.0.0/0"]).allow
