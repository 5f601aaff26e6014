"""A poller that subscribes to a real mosquitto: sessions, restarts, acknowledgements and their epochs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import aiomqtt
import pytest

from ingest.config import ListenerSettings, SubscriberSettings
from ingest.mqtt.codec import encode
from ingest.mqtt.links import BACKOFF_S, Link, broker_of, slices_of
from ingest.mqtt.packets import Connack
from ingest.mqtt.probe import Answer, probe_broker
from ingest.mqtt.receipts import build_receipt
from tests.engines import free_port
from tests.mqtt_tools import Turner

CONF = Path(__file__).parents[2] / "configs" / "mosquitto.conf"
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
MOSQUITTO = shutil.which("mosquitto", path=SEARCH)
MOSQUITTO_PUB = shutil.which("mosquitto_pub", path=SEARCH)


def needs_broker(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs a real mosquitto."""
    reason = "no mosquitto on this machine: the subscriber is not tested on a broker"
    return pytest.mark.broker(pytest.mark.skipif(MOSQUITTO is None, reason=reason)(test))


class Broker:
    """A mosquitto with the shipped config, its state in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.conf = folder / "broker.conf"
        mine = f"\npersistence_location {folder}/\n" + ("user root\n" if os.geteuid() == 0 else "")
        self.conf.write_text(CONF.read_text("utf-8") + mine, "utf-8")
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.running: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self.running = subprocess.Popen(
            [MOSQUITTO, "-c", str(self.conf), "-p", str(self.port)], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)
        raise AssertionError("mosquitto did not start")

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.running is not None:
            self.running.send_signal(how)
            self.running.wait(60)
            self.running = None

    def publish(
        self, count: int, *, qos: int = 1, topic: str = "cd/rain", start: int = 1, retain: bool = False
    ) -> None:
        """Publish "start" … and return when the broker has acknowledged all."""

        async def run() -> None:
            async with aiomqtt.Client("127.0.0.1", self.port, timeout=60) as client:
                for n in range(start, start + count):
                    await client.publish(topic, str(n), qos=qos, retain=retain)

        asyncio.run(run())


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def turner() -> Iterator[Turner]:
    with Turner(random=Random(1)) as turner:
        yield turner


def settings(url: str, **more: Any) -> SubscriberSettings:
    return SubscriberSettings(
        **{"name": "city", "url": url, "filters": ["cd/#"], "reconnect_s_max": 0.5} | more
    )


def subscribed(turner: Turner, url: str, **more: Any) -> None:
    turner.poller.subscribe(settings(url, **more))
    turner.until(lambda: "subscribed" in turner.kinds())


def numbers(turner: Turner) -> list[int]:
    return [int(payload) for payload in turner.payloads]


@needs_broker
@pytest.mark.parametrize("protocol", ["3.1.1", "5", "auto"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_arrive_in_order_and_are_acknowledged(
    broker: Broker, turner: Turner, protocol: str, qos: int
) -> None:
    subscribed(turner, broker.url, protocol=protocol, qos=qos)
    broker.publish(300, qos=qos)
    turner.until(lambda: len(turner.payloads) == 300)
    turner.settle()
    assert numbers(turner) == list(range(1, 301))
    assert turner.poller.counters["acks_sent"] == (300 if qos else 0)
    (conn,) = turner.poller.connections
    assert conn.v5 == (protocol != "3.1.1")
    assert turner.kinds() == ["link_up", "subscribed"]
    assert turner.poller.links_down() == {}


@needs_broker
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_what_was_not_acknowledged_comes_again_and_nothing_else(
    broker: Broker, turner: Turner, protocol: str
) -> None:
    """Engine dies between receiving and the disk: the broker still has the messages."""
    subscribed(turner, broker.url, protocol=protocol)
    broker.publish(50)
    turner.until(lambda: len(turner.payloads) == 50)
    turner.settle()
    turner.hold = True
    broker.publish(50, start=51)
    turner.until(lambda: len(turner.payloads) >= 70)
    for conn in turner.poller.connections:
        # What a kill does: the kernel ends the connection, nobody says goodbye.
        conn._sock.shutdown(socket.SHUT_RDWR)
    with Turner() as next_engine:
        subscribed(next_engine, broker.url, protocol=protocol)
        next_engine.until(lambda: len(next_engine.payloads) >= 50)
        next_engine.settle()
        assert numbers(next_engine) == list(range(51, 101))
        assert next_engine.events[0].session_present
        assert all(head & 1 == 0 for one in next_engine.received for head in one.heads)


@needs_broker
def test_a_broker_that_stops_and_comes_back_loses_nothing(broker: Broker, turner: Turner) -> None:
    subscribed(turner, broker.url)
    broker.publish(20)
    turner.until(lambda: len(turner.payloads) == 20)
    turner.settle()
    broker.stop()
    turner.until(lambda: "link_down" in turner.kinds())
    assert list(turner.poller.links_down()) == ["city/1"]
    turner.until(lambda: "connect_failed" in turner.kinds())
    broker.start()
    turner.until(lambda: turner.kinds().count("link_up") == 2)
    broker.publish(20, start=21)
    turner.until(lambda: len(turner.payloads) >= 40)
    assert numbers(turner) == list(range(1, 41))
    down = next(event for event in turner.events if event.kind == "link_down")
    up = [event for event in turner.events if event.kind == "link_up"][1]
    assert down.end_us == 0
    assert down.begin_us == up.begin_us < up.end_us
    assert up.session_present
    assert "session_lost" not in turner.kinds()


@needs_broker
def test_a_broker_that_forgot_us_is_told_and_subscribed_again(broker: Broker, turner: Turner) -> None:
    subscribed(turner, broker.url)
    broker.stop(signal.SIGKILL)
    for file in broker.conf.parent.glob("*.db*"):
        file.unlink()
    broker.start()
    turner.until(lambda: turner.kinds().count("subscribed") == 2)
    assert turner.kinds().count("session_lost") == 1
    broker.publish(5)
    turner.until(lambda: len(turner.payloads) == 5)


@needs_broker
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_receipt_of_an_old_connection_acknowledges_nothing(
    broker: Broker, turner: Turner, protocol: str
) -> None:
    """Both sessions count packet ids from 1: the old receipt would take the new messages' place."""
    subscribed(turner, broker.url, protocol=protocol)
    turner.hold = True
    broker.publish(30)
    turner.until(lambda: len(turner.payloads) >= 20)
    old, turner.held = turner.held, []
    broker.stop()
    turner.until(lambda: "link_down" in turner.kinds())
    broker.start()
    turner.until(lambda: turner.kinds().count("link_up") == 2)
    before = len(old)
    turner.until(lambda: len(turner.held) > 0)
    assert turner.poller.acknowledge([build_receipt(one) for one in old]) == 0
    assert (
        turner.poller.counters["receipts_stale"] == before > 0 or turner.poller.counters["acks_stale"] >= 20
    )
    turner.hold = False
    turner.release()
    turner.until(lambda: set(numbers(turner)) == set(range(1, 31)))
    turner.settle()
    with Turner() as after:
        subscribed(after, broker.url, protocol=protocol)
        after.settle()
        assert after.payloads == []


@needs_broker
def test_slices_have_a_connection_each(broker: Broker, turner: Turner) -> None:
    turner.poller.subscribe(settings(broker.url, slices=[["a/#"], ["b/#", "c/+"]]))
    turner.until(lambda: turner.kinds().count("subscribed") == 2)
    broker.publish(3, topic="a/1")
    broker.publish(3, topic="c/1")
    turner.until(lambda: len(turner.payloads) == 6)
    by_client = {one.conn.client_id: {bytes(topic) for topic in one.topics} for one in turner.received}
    assert by_client == {"yuzui-city-1": {b"a/1"}, "yuzui-city-2": {b"c/1"}}


@needs_broker
def test_shared_subscriptions_spread_over_connections(broker: Broker, turner: Turner) -> None:
    turner.poller.subscribe(settings(broker.url, filters=["$share/yuzui/cd/#"], connections=2))
    turner.until(lambda: turner.kinds().count("subscribed") == 2)
    broker.publish(100)
    turner.until(lambda: len(turner.payloads) == 100)
    assert sorted(numbers(turner)) == list(range(1, 101))
    assert len({one.conn.client_id for one in turner.received}) == 2


@needs_broker
@pytest.mark.parametrize(("protocol", "retained"), [("5", 0), ("3.1.1", 1)])
def test_retained_messages_are_not_asked_for_in_5_and_marked_in_311(
    broker: Broker, turner: Turner, protocol: str, retained: int
) -> None:
    broker.publish(1, retain=True)
    subscribed(turner, broker.url, protocol=protocol)
    broker.publish(1, start=2)
    turner.until(lambda: 2 in numbers(turner))
    heads = [head & 1 for one in turner.received for head in one.heads]
    assert heads.count(1) == retained
    assert not turner.received[-1].conn.from_publisher


@needs_broker
def test_pings_keep_an_idle_link_up_and_go_out_while_reads_are_paused(broker: Broker, turner: Turner) -> None:
    subscribed(turner, broker.url, keepalive_s=5)
    (conn,) = turner.poller.connections
    sent, heard = turner.poller.counters["bytes_out"], turner.poller.counters["bytes_in"]

    def answered() -> bool:
        """A PINGREQ and its PINGRESP are as long: the broker has as much time as it needs."""
        counters = turner.poller.counters
        return counters["bytes_in"] - heard == counters["bytes_out"] - sent

    for second in range(40):
        if second == 20:
            turner.poller.pause()
            in_pause = turner.poller.counters["bytes_out"]
        turner.skipped_s += 1.0
        turner.settle(3)
        if second < 20:
            turner.until(answered)
    assert in_pause - sent >= 2 * 3
    assert turner.poller.counters["bytes_out"] - in_pause >= 2 * 3
    turner.poller.resume()
    turner.until(answered)
    assert turner.poller.connections == [conn]
    assert "link_down" not in turner.kinds()


@needs_broker
def test_a_broker_that_hangs_is_given_up(broker: Broker, turner: Turner) -> None:
    subscribed(turner, broker.url, keepalive_s=5)
    assert broker.running is not None
    broker.running.send_signal(signal.SIGSTOP)
    try:
        for _second in range(12):
            turner.skipped_s += 1.0
            turner.settle(2)
        down = next(event for event in turner.events if event.kind == "link_down")
        assert down.detail == "keepalive"
    finally:
        broker.running.send_signal(signal.SIGCONT)
    turner.until(lambda: turner.kinds().count("link_up") == 2)


@needs_broker
@pytest.mark.skipif(MOSQUITTO_PUB is None, reason="no mosquitto_pub on this machine")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquitto_pub_publishes_straight_to_the_listener(turner: Turner, version: str, qos: str) -> None:
    assert MOSQUITTO_PUB is not None
    host, port = turner.poller.listen(ListenerSettings(enabled=True, port=0))
    with subprocess.Popen(
        [MOSQUITTO_PUB, "-h", host, "-p", str(port), "-t", "cd/rain", "-m", "7", "-q", qos, "-V", version]
    ) as running:
        turner.until(lambda: running.poll() is not None and turner.payloads)
    assert running.returncode == 0
    assert turner.payloads == [b"7"]


class OldBroker(threading.Thread):
    """Answers CONNECT with given bytes and hangs up, then speaks 3.1.1 only."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self.server.getsockname()[1]}"
        self.levels: list[int] = []
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.server.accept()
                first = sock.recv(4096)
                self.levels.append(first[8])
                if first[8] == 5:
                    sock.sendall(self.answer)
                    sock.close()
                else:
                    sock.sendall(encode(Connack(), False) + b"\x90\x03\x00\x01\x01")


@pytest.mark.parametrize(
    "answer", [b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00", b""], ids=["3.1.1", "5", "hangs up"]
)
def test_a_broker_without_mqtt_5_is_spoken_to_in_311(turner: Turner, answer: bytes) -> None:
    broker = OldBroker(answer)
    subscribed(turner, broker.url)
    assert broker.levels == [5, 4]
    assert not turner.poller.connections[0].v5
    broker.server.close()


def test_a_protocol_that_was_chosen_is_not_changed(turner: Turner) -> None:
    broker = OldBroker(b"\x20\x02\x00\x01")
    turner.poller.subscribe(settings(broker.url, protocol="5", reconnect_s_max=0.01))
    turner.until(lambda: len(broker.levels) >= 3)
    assert set(broker.levels) == {5}
    broker.server.close()


def test_attempts_are_spaced_with_a_capped_jittered_doubling() -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    waits: list[float] = []

    class Dice(Random):
        def uniform(self, a: float, b: float) -> float:
            waits.append(0.0)
            return b

    with Turner(random=Dice()) as turner:
        turner.poller.subscribe(settings(url, reconnect_s_max=4.0))
        tried: list[float] = []
        for _ in range(6):
            failures = turner.kinds().count("connect_failed")
            turner.until(lambda failures=failures: turner.kinds().count("connect_failed") > failures)
            (link,) = turner.poller._links
            tried.append(round(link._retry_at - turner.poller._sockets.now, 3))
            turner.skipped_s += tried[-1] + 0.001
        assert tried == [BACKOFF_S, 1.0, 2.0, 4.0, 4.0, 4.0]
        assert turner.poller.links_down()["city/1"].endswith("Connection refused")


def test_a_name_that_does_not_exist_is_told_and_tried_again(turner: Turner) -> None:
    turner.poller.subscribe(settings("mqtt://no-such-broker.invalid:1883"))
    turner.until(lambda: "connect_failed" in turner.kinds(), 120)
    assert "no-such-broker.invalid" in turner.events[0].detail


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"url": "http://x"}, "mqtt://"),
        ({"url": "mqtt://user:secret@x"}, "keys of their own"),
        ({"connections": 2}, "share"),
    ],
)
def test_settings_that_can_never_work_are_refused_at_once(
    turner: Turner, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        turner.poller.subscribe(settings(**{"url": "mqtt://127.0.0.1"} | more))
    assert "secret" not in str(caught.value)
    turner.turn()
    assert turner.poller.links_down() == {}


def test_urls() -> None:
    assert broker_of("mqtt://a.b:99") == ("a.b", 99, False)
    assert broker_of("mqtt://a.b") == ("a.b", 1883, False)
    assert broker_of("mqtts://[::1]") == ("::1", 8883, True)
    assert slices_of(settings("mqtt://a", slices=[["x"], ["y"]])) == [["x"], ["y"]]


def test_the_password_file_is_read_without_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("wasser\n")
    chosen = settings("mqtt://127.0.0.1", user="u", password_file=str(file))
    close: Callable[..., None] = lambda *_: None  # noqa: E731
    with Turner() as turner:
        link = Link(turner.poller._sockets, chosen, 0, 1024, 1024, Random(1), lambda _: None, close)
    assert link._password == b"wasser"


@pytest.mark.parametrize(("protocol", "words"), [("auto", "MQTT 5"), ("3.1.1", "MQTT 3.1.1")])
def test_the_doctors_probe_names_the_version_and_leaves_nothing_behind(
    turner: Turner, protocol: str, words: str
) -> None:
    host, port = turner.poller.listen(ListenerSettings(enabled=True, port=0))
    answers: list[Answer] = []
    chosen = settings(f"mqtt://{host}:{port}", protocol=protocol)
    thread = threading.Thread(target=lambda: answers.append(probe_broker(chosen)), daemon=True)
    thread.start()
    turner.until(lambda: answers)
    assert answers[0].well
    assert words in answers[0].figure
    turner.until(lambda: not turner.poller.connections)
    assert turner.poller.counters["closed.disconnect"] == 1


def test_the_doctors_probe_of_nothing_says_so() -> None:
    answer = probe_broker(settings(f"mqtt://127.0.0.1:{free_port()}"), 1.0)
    assert not answer.well
    assert "refused" in answer.figure
