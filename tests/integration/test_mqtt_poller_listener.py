"""A poller that listens: real clients on real sockets, rogues among them, and acknowledgements that wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from ingest.config import ListenerSettings, WireSettings
from ingest.credentials import Credentials, hash_password
from ingest.mqtt.codec import PINGREQ, PINGRESP, decode, encode, frame_at
from ingest.mqtt.packets import (
    LEVEL_5,
    LEVEL_311,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Publish,
    Will,
)
from ingest.mqtt.receipts import build_receipt
from tests.mqtt_tools import Turner, ack_packets, publishes

VERSIONS = [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5]


class Gateway:
    """A bare socket that speaks packets."""

    def __init__(self, address: tuple[str, int], *, v5: bool = False, **more: Any) -> None:
        self.v5 = v5
        self.sock = socket.socket()
        for option, size in more.pop("buffers", {}).items():
            self.sock.setsockopt(socket.SOL_SOCKET, option, size)
        self.sock.connect(address)
        self.sock.settimeout(0)
        self.got = b""
        self.closed = False
        asked = {"client_id": "gw-1", "keepalive_s": 60, "level": LEVEL_5 if v5 else LEVEL_311} | more
        if asked["client_id"] is not None:
            self.sock.sendall(encode(Connect(**asked), v5))

    def read(self) -> bytes:
        """Everything received so far."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while not self.closed:
                chunk = self.sock.recv(65_536)
                self.closed = not chunk
                self.got += chunk
        return self.got

    def packets(self) -> list[Packet]:
        self.read()
        found, at = [], 0
        while at < len(self.got):
            body, end = frame_at(self.got, at)
            found.append(decode(self.got[at], self.got[body:end], self.v5))
            at = end
        return found

    def gone(self) -> bool:
        """Whether the engine closed the connection."""
        try:
            self.read()
        except OSError:
            self.closed = True
        return self.closed


@pytest.fixture
def turner() -> Iterator[Turner]:
    with Turner() as turner:
        yield turner


def listen(turner: Turner, credentials: Credentials | None = None, **more: Any) -> tuple[str, int]:
    return turner.poller.listen(ListenerSettings(enabled=True, port=0, **more), credentials)


def admitted(turner: Turner, gateway: Gateway) -> Gateway:
    """Turn until the gateway has its CONNACK, and forget that."""
    turner.until(lambda: any(isinstance(one, Connack) for one in gateway.packets()))
    gateway.got = b""
    return gateway


@contextlib.asynccontextmanager
async def spinning(turner: Turner) -> AsyncIterator[None]:
    async def spin() -> None:
        while True:
            turner.turn()
            await asyncio.sleep(0.002)

    task = asyncio.create_task(spin())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told(done: Callable[[], object]) -> None:
    """Until ``done``, while others turn the poller."""
    while not done():  # noqa: ASYNC110 - a poller has no events to wait for
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("version", VERSIONS, ids=["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_an_aiomqtt_client_publishes_and_is_acknowledged(
    turner: Turner, version: Any, qos: int
) -> None:
    host, port = listen(turner)
    async with spinning(turner):
        async with aiomqtt.Client(host, port, protocol=version, identifier="a", timeout=10) as client:
            for n in range(50):
                await client.publish("cd/雨量/1", str(n), qos=qos)
        await asyncio.wait_for(told(lambda: len(turner.payloads) == 50), 60)
    assert turner.payloads == [str(n).encode() for n in range(50)]
    assert set(turner.topics) == {"cd/雨量/1".encode()}
    assert turner.poller.counters["acks_sent"] == (50 if qos else 0)
    assert turner.poller.counters["messages"] == 50


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_publisher_waits_until_its_message_is_on_disk(turner: Turner, qos: int) -> None:
    host, port = listen(turner)
    turner.hold = True
    async with spinning(turner), aiomqtt.Client(host, port, timeout=10) as client:
        publish = asyncio.create_task(client.publish("a", b"1", qos=qos))
        await asyncio.wait_for(told(lambda: turner.held), 60)
        _, waiting = await asyncio.wait([publish], timeout=0.05)
        assert waiting == {publish}
        turner.release()
        await asyncio.wait_for(publish, 60)


def test_acknowledgements_leave_in_receive_order_and_only_with_their_receipts(turner: Turner) -> None:
    address = listen(turner)
    gateway = admitted(turner, Gateway(address))
    turner.hold = True
    for start in (1, 11, 21):
        gateway.sock.sendall(publishes(10, start=start))
        turner.until(lambda start=start: len(turner.payloads) == start + 9)
    assert gateway.read() == b""
    turner.release()
    turner.until(lambda: len(gateway.read()) == 120)
    assert ack_packets(gateway.got) == [(0x40, pid) for pid in range(1, 31)]


def test_a_stale_receipt_acknowledges_nothing_in_the_next_connection(turner: Turner) -> None:
    """Packet ids start anew with a connection: without the epoch 5 new messages would be lost here."""
    address = listen(turner)
    turner.hold = True
    first = admitted(turner, Gateway(address))
    first.sock.sendall(publishes(5))
    turner.until(lambda: len(turner.payloads) == 5)
    old, turner.held = turner.held, []
    first.sock.close()
    turner.until(lambda: not turner.poller.connections)
    second = admitted(turner, Gateway(address))
    second.sock.sendall(publishes(5))
    turner.until(lambda: len(turner.payloads) == 10)
    assert turner.poller.acknowledge([build_receipt(one) for one in old]) == 0
    turner.settle()
    assert second.read() == b""
    assert turner.poller.counters["acks_stale"] == 5
    assert turner.poller.counters["receipts_stale"] == 1
    turner.release()
    turner.until(lambda: len(second.read()) == 20)


ROGUES = [
    b"\x36\x05\x00\x01a\x00\x01",
    b"\x32\x05\x00\x01a\x00\x00",
    b"\x30\x03\x00\x01#",
    b"\x30\xff\xff\xff\xff\x01",
    b"\x00\x00",
    b"\x20\x02\x00\x00",
    b"\x62\x02\x00\x00",
    b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
    b"\x82\x02\x00\x01",
    b"GET / HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("v5", [False, True])
def test_malformed_packets_between_good_ones_close_only_their_connection(turner: Turner, v5: bool) -> None:
    address = listen(turner)
    honest = admitted(turner, Gateway(address, client_id="honest", v5=v5))
    for number, rogue in enumerate(ROGUES, 1):
        gateway = admitted(turner, Gateway(address, client_id=f"rogue-{number}", v5=v5))
        before = len(turner.payloads)
        gateway.sock.sendall(publishes(3, v5=v5) + rogue + publishes(3, v5=v5, start=100))
        turner.until(gateway.gone)
        assert turner.payloads[before:] == [b"1", b"2", b"3"]
        # The canary: everyone else goes on.
        honest.sock.sendall(publishes(1, v5=v5, start=number))
        turner.until(lambda number=number: len(honest.read()) == 4 * number)
    assert sum(n for name, n in turner.poller.counters.items() if name.startswith("malformed.")) == len(
        ROGUES
    )
    assert turner.poller.counters["closed.malformed"] == len(ROGUES)
    assert len(turner.poller.connections) == 1


def test_an_mqtt_5_rogue_is_told_what_it_did(turner: Turner) -> None:
    gateway = admitted(turner, Gateway(listen(turner), v5=True))
    gateway.sock.sendall(b"\x30\x03\x00\x01#")
    turner.until(gateway.gone)
    assert gateway.packets() == [Disconnect(0x81)] or gateway.packets() == [Disconnect(0x90)]


def test_a_client_id_is_taken_over_and_the_old_connection_told(turner: Turner) -> None:
    address = listen(turner)
    old = admitted(turner, Gateway(address, v5=True, will=Will("cd/state", b"gone", 1)))
    new = admitted(turner, Gateway(address, v5=True))
    turner.until(old.gone)
    assert old.packets() == [Disconnect(0x8E)]
    assert turner.payloads == [b"gone"]
    new.sock.sendall(PINGREQ)
    turner.until(lambda: new.read() == PINGRESP)
    assert turner.poller.counters["closed.taken_over"] == 1


def test_a_will_is_handed_on_when_a_gateway_vanishes_and_not_after_a_goodbye(turner: Turner) -> None:
    address = listen(turner)
    will = Will("cd/gw/state", b"gone", 1, True)
    rude = admitted(turner, Gateway(address, will=will, client_id="rude"))
    polite = admitted(turner, Gateway(address, will=will, client_id="polite"))
    polite.sock.sendall(encode(Disconnect(), False))
    turner.until(polite.gone)
    assert turner.received == []
    rude.sock.close()
    turner.until(lambda: turner.received)
    (message,) = turner.received
    assert (message.topics, message.payloads, message.heads) == (
        [b"cd/gw/state"],
        [b"gone"],
        bytearray([0x33]),
    )
    assert message.conn.client_id == "rude"
    assert build_receipt(message).acks == b""
    assert turner.poller.counters["wills"] == 1


def test_a_silent_gateway_is_closed_after_one_and_a_half_keepalives(turner: Turner) -> None:
    address = listen(turner)
    silent = admitted(turner, Gateway(address, client_id="silent", keepalive_s=10))
    pinging = admitted(turner, Gateway(address, client_id="pinging", keepalive_s=10))
    for _ in range(12):
        turner.skipped_s += 1.4
        pinging.got = b""
        pinging.sock.sendall(PINGREQ)
        turner.until(lambda: pinging.read() == PINGRESP)
        turner.settle(2)
    turner.until(silent.gone)
    assert turner.poller.counters["closed.keepalive"] == 1
    assert not pinging.gone()


def test_a_machine_that_slept_gives_its_peers_their_time_anew(turner: Turner) -> None:
    gateway = admitted(turner, Gateway(listen(turner), keepalive_s=10))
    turner.skipped_s += 3600
    turner.settle()
    assert not gateway.gone()


def test_while_paused_nothing_is_read_nobody_times_out_and_afterwards_all_is_there(turner: Turner) -> None:
    address = listen(turner)
    gateway = admitted(turner, Gateway(address, keepalive_s=10))
    turner.poller.pause()
    gateway.sock.sendall(publishes(100))
    for _ in range(50):
        turner.skipped_s += 1.0
        turner.turn()
    assert turner.received == []
    assert turner.poller.backlog
    waiting = Gateway(address, client_id="late")
    turner.settle()
    assert len(turner.poller.connections) == 1
    turner.poller.resume()
    turner.until(lambda: len(turner.payloads) == 100)
    turner.until(lambda: len(gateway.read()) == 400)
    admitted(turner, waiting)
    assert turner.poller.counters["closed.keepalive"] == 0


def test_connect_must_come_in_time(turner: Turner) -> None:
    address = listen(turner, connect_s_max=5.0)
    mute = Gateway(address, client_id=None)
    turner.settle(5)
    for _ in range(6):
        turner.skipped_s += 1.0
        turner.turn()
    turner.until(mute.gone)
    assert turner.poller.counters["closed.connect_timeout"] == 1


def test_connections_above_the_limit_are_closed_unheard(turner: Turner) -> None:
    address = listen(turner, connections_max=2)
    kept = [admitted(turner, Gateway(address, client_id=str(n))) for n in range(2)]
    third = Gateway(address, client_id="3")
    turner.until(third.gone)
    assert third.got == b""
    assert turner.poller.counters["refused.connections"] == 1
    kept[0].sock.close()
    turner.until(lambda: len(turner.poller.connections) == 1)
    admitted(turner, Gateway(address, client_id="4"))


def test_a_peer_that_does_not_read_its_acknowledgements_is_paused_and_its_messages_stay_its_own(
    turner: Turner,
) -> None:
    limit, messages = 16_384, 100_000
    small = {socket.SO_RCVBUF: 1024, socket.SO_SNDBUF: 16_384}
    deaf = admitted(turner, Gateway(listen(turner, buffer_bytes_max=limit), buffers=small))
    (conn,) = turner.poller.connections
    # The kernel would take megabytes for a peer that does not read; a small buffer shows it sooner.
    conn._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream, sent, idle, widest = publishes(1000) * (messages // 1000), 0, 0, 0
    while sent < len(stream) and idle < 100:
        try:
            sent += deaf.sock.send(stream[sent : sent + 65_536])
            idle = 0
        except BlockingIOError:
            idle += 1
        turner.turn()
        widest = max(widest, conn.out_bytes)
    assert sent < len(stream), "backpressure never reached the publisher"
    assert limit < widest <= 3 * limit
    assert turner.poller.counters["pauses"] == 1
    # It reads again, and at once: through windows of a kilobyte this would take minutes.
    deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    conn._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    deadline = time.monotonic() + 120
    while len(deaf.got) < 4 * messages and time.monotonic() < deadline:
        deaf.read()
        with contextlib.suppress(BlockingIOError):
            sent += deaf.sock.send(stream[sent : sent + 65_536])
        turner.turn()
    assert len(turner.payloads) == messages
    assert [pid for _, pid in ack_packets(deaf.got)] == list(range(1, 1001)) * (messages // 1000)


def test_what_waits_for_the_disk_is_bounded_for_each_connection() -> None:
    with Turner(WireSettings(read_bytes_max=64 * 1024)) as turner:
        address = listen(turner, buffer_bytes_max=100_000)
        gateway = admitted(turner, Gateway(address))
        other = admitted(turner, Gateway(address, client_id="other"))
        turner.hold = True
        gateway.sock.setblocking(False)
        stream, sent = publishes(1, qos=0) + encode(Publish("a", b"x" * 1000), False) * 5000, 0
        for _ in range(300):
            with contextlib.suppress(BlockingIOError):
                sent += gateway.sock.send(stream[sent : sent + 65_536])
            turner.turn()
        held = sum(one.size for one in turner.held)
        assert 100_000 <= held <= 100_000 + (1 << 20)
        other.sock.sendall(publishes(1))
        turner.until(lambda: any(one.conn.client_id == "other" for one in turner.held))
        turner.hold = False
        turner.release()
        while sent < len(stream):
            with contextlib.suppress(BlockingIOError):
                sent += gateway.sock.send(stream[sent : sent + 65_536])
            turner.turn()
        turner.until(lambda: len(turner.payloads) == 5002)


def test_many_gateways_are_heard_in_turn_within_a_few_polls() -> None:
    with Turner() as turner:
        address = listen(turner)
        gateways = [Gateway(address, client_id=f"gw-{n}") for n in range(400)]
        for gateway in gateways:
            admitted(turner, gateway)
        for gateway in gateways:
            gateway.sock.sendall(publishes(2))
        polls = 0
        while len(turner.payloads) < 800:
            turner.turn()
            polls += 1
            assert polls < 40
        assert polls >= 400 // 64
        turner.until(lambda: all(len(one.read()) == 8 for one in gateways))
        assert len({one.conn for one in turner.received}) == 400
        for gateway in gateways:
            gateway.sock.close()


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    rows = [
        f'[[credential]]\nname = "{name}"\npublish = ["cd/{name}/#"]\n'
        f'password = "{hash_password(name + "!", n=2)}"\n'
        for name in ("gw-1", "gw-2")
    ]
    path = tmp_path / "credentials.toml"
    path.write_text("\n".join(rows))
    return Credentials.load(path)


@pytest.mark.parametrize("v5", [False, True])
def test_credentials_open_the_door_and_travel_with_the_messages(
    turner: Turner, credentials: Credentials, v5: bool
) -> None:
    address = listen(turner, credentials)
    right = Gateway(address, v5=v5, user="gw-1", password=b"gw-1!")
    # Messages sent right behind CONNECT, before anyone said yes.
    right.sock.sendall(publishes(3, v5=v5))
    turner.until(lambda: len(turner.payloads) == 3)
    assert {one.credential for one in turner.received} == {"gw-1"}
    wrong = {"password": b"x"}, {"user": "nobody"}, {"user": None, "password": None}
    for change in wrong:
        gateway = Gateway(
            address, v5=v5, **({"client_id": "w", "user": "gw-1", "password": b"gw-1!"} | change)
        )
        turner.until(gateway.gone)
        assert gateway.packets() == [Connack(False, 0x86 if v5 else 4)]
    assert turner.poller.counters["refused.wrong_password"] == 2
    assert turner.poller.counters["refused.no_password"] == 1


def test_an_address_that_guesses_is_closed_unheard(turner: Turner, credentials: Credentials) -> None:
    address = listen(turner, credentials, failed_logins_per_minute_max=3)
    for _ in range(3):
        guess = Gateway(address, user="gw-1", password=b"guess")
        turner.until(guess.gone)
    unheard = Gateway(address, user="gw-1", password=b"gw-1!")
    turner.until(unheard.gone)
    assert unheard.got == b""
    assert turner.poller.counters["refused.failed_logins"] == 1
    turner.skipped_s += 61
    admitted(turner, Gateway(address, user="gw-1", password=b"gw-1!"))


def test_nobody_takes_over_the_client_id_of_another_credential(
    turner: Turner, credentials: Credentials
) -> None:
    address = listen(turner, credentials)
    owner = admitted(turner, Gateway(address, user="gw-1", password=b"gw-1!"))
    thief = Gateway(address, v5=True, user="gw-2", password=b"gw-2!")
    turner.until(thief.gone)
    assert thief.packets() == [Connack(False, 0x85)]
    assert not owner.gone()


def test_strangers_may_publish_on_loopback_only(turner: Turner) -> None:
    with pytest.raises(ValueError, match="loopback"):
        listen(turner, host="0.0.0.0")
    address = listen(turner, anonymous=False)
    gateway = Gateway(address)
    turner.until(gateway.gone)
    assert gateway.packets() == [Connack(False, 5)]


def test_an_oversized_message_is_marked_and_acknowledged_in_its_place() -> None:
    with Turner(WireSettings(message_bytes_max=1024)) as turner:
        gateway = admitted(turner, Gateway(listen(turner)))
        gateway.sock.sendall(
            publishes(1) + encode(Publish("cd/big", b"y" * 500_000, 1, pid=2), False) + publishes(1, start=3)
        )
        turner.until(lambda: len(gateway.read()) == 12)
        assert ack_packets(gateway.got) == [(0x40, 1), (0x40, 2), (0x40, 3)]
        marked = [one.topics[index] for one in turner.received for index in one.oversized]
        assert marked == [b"cd/big"]
        assert turner.poller.counters["oversized"] == 1


def test_mqtt_5_refusals_reach_the_publisher(turner: Turner) -> None:
    gateway = admitted(turner, Gateway(listen(turner), v5=True))
    turner.hold = True
    gateway.sock.sendall(publishes(2, v5=True))
    turner.until(lambda: len(turner.payloads) == 2)
    turner.poller.acknowledge([build_receipt(one, {0: 0x87}, {0: "not yours"}) for one in turner.held])
    turner.until(lambda: len(gateway.packets()) == 2)
    refused, taken = gateway.packets()
    assert isinstance(refused, Ack)
    assert (refused.kind, refused.pid, refused.code) == (Kind.PUBACK, 1, 0x87)
    assert taken == Ack(Kind.PUBACK, 2)


def test_closing_says_goodbye_and_leaves_no_wills() -> None:
    turner = Turner()
    gateway = admitted(turner, Gateway(listen(turner), v5=True, will=Will("t", b"gone")))
    turner.poller.close()
    assert gateway.gone()
    assert gateway.packets() == [Disconnect(0x8B)]
    assert turner.poller.connections == []


def test_a_poller_never_blocks_with_nothing_to_do(turner: Turner) -> None:
    listen(turner)
    began = time.perf_counter()
    for _ in range(1000):
        turner.turn()
    assert time.perf_counter() - began < 20


def test_unfinished_messages_of_many_gateways_never_outgrow_the_room_of_one_poll() -> None:
    size, held = 17_000, 16_000
    with Turner(WireSettings(read_bytes_max=64 * 1024)) as turner:
        address = listen(turner)
        gateways = [Gateway(address, client_id=f"gw-{n}") for n in range(450)]
        for gateway in gateways:
            admitted(turner, gateway)
        message = encode(Publish("cd/gw/rain", b"7" * size, 1, pid=5), False)
        heard = [turner.poller.counters["bytes_in"]]
        for part in (message[:held], message[held : held + 1], message[held + 1 :]):
            for gateway in gateways:
                gateway.sock.sendall(part)
            heard.append(heard[-1] + len(part) * len(gateways))
            turner.until(lambda: turner.poller.counters["bytes_in"] == heard[-1])
        assert turner.payloads == [b"7" * size] * len(gateways)
        turner.until(lambda: all(len(one.read()) == 4 for one in gateways))
        for gateway in gateways:
            gateway.sock.close()
