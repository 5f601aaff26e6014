"""A gateway for tests: a plain blocking socket that says exactly the bytes a test wants to be said.

It speaks through the engine's own codec, byte by byte visible; that the protocol is right is shown by paho,
aiomqtt and mosquitto_pub elsewhere.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ingest.mqtt.codec import decode, encode, frame_at
from ingest.mqtt.packets import (
    LEVEL_5,
    LEVEL_311,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
)

ANSWER_S_MAX = 60.0
_NAMES = itertools.count(1)


class Closed(ConnectionError):  # noqa: N818 - says what happened
    """The engine closed the connection."""


class Talker:
    """One connection; ``connect=False`` leaves CONNECT to the test.

    acks  packet id → the PUBACK or PUBREC received for it
    """

    def __init__(
        self,
        port: int,
        *,
        v5: bool = False,
        client_id: str | None = None,
        user: str | None = None,
        password: str | None = None,
        connect: bool = True,
    ) -> None:
        self.v5 = v5
        self.client_id = client_id if client_id is not None else f"talker-{next(_NAMES)}"
        self.acks: dict[int, Ack] = {}
        self.goodbye: Disconnect | None = None
        self.connack: Connack | None = None
        self._user, self._password = user, password
        self._pids = itertools.cycle(range(1, 65_536))
        self._rest = b""
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S_MAX)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if connect:
            self.send(self.connect_bytes())
            self.hear_connack()

    def connect_bytes(self) -> bytes:
        """This talker's CONNECT."""
        secret = None if self._password is None else self._password.encode()
        level = LEVEL_5 if self.v5 else LEVEL_311
        return encode(Connect(self.client_id, True, 60, level, self._user, secret), self.v5)

    def hear_connack(self) -> Connack:
        """Wait for CONNACK; ConnectionRefusedError when it says no."""
        packet = self.packet()
        assert isinstance(packet, Connack), packet
        self.connack = packet
        if packet.code:
            raise ConnectionRefusedError(packet.code)
        return packet

    def next_pid(self) -> int:
        """A packet id not used lately."""
        return next(self._pids)

    def publish_bytes(self, topic: str, payload: bytes, *, qos: int = 1, pid: int = 0, **more: Any) -> bytes:
        """A PUBLISH."""
        return encode(Publish(topic, payload, qos, pid=pid if qos else 0, **more), self.v5)

    def send(self, raw: bytes) -> None:
        """Say these bytes."""
        self._sock.sendall(raw)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, **more: Any) -> int:
        """Send one PUBLISH; its packet id."""
        pid = self.next_pid()
        self.send(self.publish_bytes(topic, payload, qos=qos, pid=pid, **more))
        return pid

    def packet(self, timeout_s: float = ANSWER_S_MAX) -> Packet:
        """The next packet of the engine. Raises Closed, TimeoutError."""
        self._sock.settimeout(timeout_s)
        while True:
            if self._rest:
                body, end = frame_at(self._rest, 0)
                if end and end <= len(self._rest):
                    packet = decode(self._rest[0], self._rest[body:end], self.v5)
                    self._rest = self._rest[end:]
                    return packet
            try:
                heard = self._sock.recv(65_536)
            except ConnectionResetError:
                heard = b""
            if not heard:
                raise Closed
            self._rest += heard

    def hear(self, until_pids: Iterable[int] = (), timeout_s: float = ANSWER_S_MAX) -> list[int]:
        """Take packets until each of ``until_pids`` is acknowledged; the codes, in their order."""
        wanted = list(until_pids)
        end = time.monotonic() + timeout_s
        while missing := [pid for pid in wanted if pid not in self.acks]:
            if time.monotonic() > end:
                raise AssertionError(f"{len(missing)} of {len(wanted)} not acknowledged in {timeout_s:g} s")
            self._note(self.packet(max(0.01, end - time.monotonic())))
        return [self.acks[pid].code for pid in wanted]

    def _note(self, packet: Packet) -> None:
        if isinstance(packet, Ack) and packet.kind in (Kind.PUBACK, Kind.PUBREC):
            self.acks[packet.pid] = packet
        elif isinstance(packet, Disconnect):
            self.goodbye = packet

    def say(self, topic: str, payload: bytes, **more: Any) -> int:
        """Publish at QoS 1 and wait for the PUBACK; its code."""
        return self.hear([self.publish(topic, payload, **more)])[0]

    def say_all(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Publish all at QoS 1 in one go and wait for every PUBACK; their codes in order."""
        pids = [self.next_pid() for _ in messages]
        self.send(
            b"".join(
                self.publish_bytes(topic, raw, pid=pid)
                for pid, (topic, raw) in zip(pids, messages, strict=True)
            )
        )
        return self.hear(pids)

    def ping(self) -> None:
        """A round trip: everything sent before was read, and the connection lives."""
        self.send(encode(Pingreq(), self.v5))
        while not isinstance(packet := self.packet(), Pingresp):
            self._note(packet)

    def hear_end(self, timeout_s: float = ANSWER_S_MAX) -> None:
        """Take packets until the engine closes the connection."""
        end = time.monotonic() + timeout_s
        try:
            while time.monotonic() < end:
                self._note(self.packet(max(0.01, end - time.monotonic())))
        except Closed:
            return
        raise AssertionError(f"still open after {timeout_s:g} s")

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
