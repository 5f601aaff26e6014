"""The doctor's look at a broker: the window is measured, not believed, and no wait is without an end."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from ingest.commands.doctor import queue
from ingest.config import SubscriberSettings
from ingest.mqtt import probe
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Ack, Connack, Disconnect, Kind, Suback
from ingest.mqtt.probe import probe_broker
from ingest.mqtt.queueprobe import probe_queue
from tests.brokers import BINARY, Mosquitto, needs_mosquitto
from tests.engines import free_port, until


def settings(port: int, protocol: Literal["auto", "5", "3.1.1"] = "auto") -> SubscriberSettings:
    """A subscriber at a broker on loopback."""
    return SubscriberSettings(name="x", url=f"mqtt://127.0.0.1:{port}", filters=["#"], protocol=protocol)


@pytest.fixture
def plain_mosquitto() -> Iterator[int]:
    """The port of a mosquitto as it comes out of its package: 20 messages under way to a 3.1.1 client."""
    assert BINARY is not None
    port = free_port()
    running = subprocess.Popen(
        [BINARY, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def accepts() -> bool:
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", port)) == 0

    until(accepts, "mosquitto accepts connections")
    yield port
    running.terminate()
    running.wait(60)


@pytest.mark.broker
@needs_mosquitto
def test_the_window_of_a_real_broker_is_measured_in_both_versions(plain_mosquitto: int) -> None:
    """3.1.1 gets mosquitto's 20, and 20 in 10 ms are 2,000 a second; MQTT 5 gets what we ask for."""
    old = probe_broker(settings(plain_mosquitto, "3.1.1"), commit_s=0.01)
    assert old.well
    assert old.figure.startswith("MQTT 3.1.1; window 20: at most about 2,000 messages/s")
    new = probe_broker(settings(plain_mosquitto), commit_s=0.01)
    assert new.well
    assert new.figure.startswith("MQTT 5; window 200 or more: over 20,000 messages/s")


@pytest.mark.broker
@needs_mosquitto
def test_what_a_real_broker_keeps_while_we_are_away_is_counted(plain_mosquitto: int, tmp_path: Path) -> None:
    """mosquitto out of its package keeps 1000 and what is in flight; with the shipped configuration it keeps all."""
    versions: tuple[Literal["auto", "3.1.1"], ...] = ("auto", "3.1.1")
    for protocol in versions:
        found = probe_queue(settings(plain_mosquitto, protocol), per_s=50.0)
        assert found.fault == ""
        assert found.limited
        assert 1_000 <= found.kept <= 1_100
    told = queue("queue x", found, 50.0)
    assert not told.well
    assert (
        f"keeps {found.kept:,} messages while we are away: a restart of {found.kept / 50:.0f} seconds"
        in told.figure
    )
    with Mosquitto(tmp_path) as tuned:
        found = probe_queue(settings(tuned.port), per_s=500.0)
        assert (found.kept, found.limited, found.fault) == (5_000, False, "")
        told = queue("queue x", found, 500.0)
        assert told.well
        assert "at least a restart of 10 seconds is covered at 500 messages/s" in told.figure
    assert probe_queue(settings(free_port()), per_s=1.0).fault


Speech = Callable[[bytes], bytes]


@pytest.fixture
def scripted() -> Iterator[Callable[[Speech], int]]:
    """A broker that answers each read with what a function says; nothing ends the conversation."""
    servers: list[socket.socket] = []

    def begin(speech: Speech) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                    with peer:
                        while heard := peer.recv(65_536):
                            peer.sendall(speech(heard))
                except OSError:
                    if server.fileno() < 0:
                        return

        threading.Thread(target=serve, daemon=True).start()
        port: int = server.getsockname()[1]
        return port

    yield begin
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_a_broker_that_never_answers_costs_a_bounded_wait(
    scripted: Callable[[Speech], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PROBE_S_MAX", 0.6)
    began = time.monotonic()
    answer = probe_broker(settings(scripted(lambda _: b"")))
    assert not answer.well
    assert "no answer" in answer.figure
    assert time.monotonic() - began < 30


def test_a_broker_that_acknowledges_for_ever_and_delivers_nothing_ends_too(
    scripted: Callable[[Speech], int],
) -> None:
    """It grants the filter, answers every PUBLISH, and never sends one."""

    def speech(heard: bytes) -> bytes:
        if heard[0] >> 4 == Kind.CONNECT:
            return encode(Connack(False, 0), False)
        if heard[0] >> 4 == Kind.SUBSCRIBE:
            return encode(Suback(1, [1]), False)
        pids = range(1, heard.count(probe.TOPIC.encode()) + 1)
        return b"".join(encode(Ack(Kind.PUBACK, pid), False) for pid in pids)

    answer = probe_broker(settings(scripted(speech), "3.1.1"))
    assert not answer.well
    assert "delivered none" in answer.figure


def test_a_broker_of_the_old_version_is_asked_in_the_old_version(scripted: Callable[[Speech], int]) -> None:
    """It refuses MQTT 5 as 3.1.1 brokers do and wants no strangers' topics: connected all the same."""

    def speech(heard: bytes) -> bytes:
        if heard[0] >> 4 == Kind.CONNECT:
            return encode(Connack(False, 1 if heard[8] == 5 else 0), False)
        return encode(Suback(1, [0x80]), False)

    answer = probe_broker(settings(scripted(speech)))
    assert answer.well
    assert answer.figure.startswith("MQTT 3.1.1; it refuses")
    only_new = probe_broker(settings(scripted(speech), "5"))
    assert not only_new.well


def test_a_refusal_is_said_in_words_and_nonsense_is_no_broker(
    scripted: Callable[[Speech], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = probe_broker(settings(scripted(lambda _: encode(Connack(False, 0x87), True))))
    assert (refused.well, refused.figure) == (False, "refused: not authorized (0x87)")
    old = probe_broker(settings(scripted(lambda _: encode(Connack(False, 4), False)), "3.1.1"))
    assert old.figure == "refused: user or password (0x04)"
    monkeypatch.setattr(probe, "PROBE_S_MAX", 0.6)
    for nonsense in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 20, encode(Disconnect(), False)):
        assert not probe_broker(settings(scripted(lambda _, said=nonsense: said))).well  # type: ignore[misc]
