"""One CONNECT to a broker, for `yuzui doctor`: does it let us in, which version, how quickly.

Owns a blocking connection of its own, under a client id of its own: the engine's sessions are not
touched, nothing is subscribed and nothing published.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from ingest.config import SubscriberSettings
from ingest.mqtt.codec import PINGREQ, decode, encode, frame_at
from ingest.mqtt.fields import MalformedPacket, Reason
from ingest.mqtt.links import broker_of
from ingest.mqtt.packets import LEVEL_5, LEVEL_311, Connack, Connect, Disconnect, Packet, Pingresp
from ingest.mqtt.tls import client_context

PROBE_S_MAX = 5.0
OLD_WINDOW = 20
"""Messages mosquitto has under way to a 3.1.1 client by default."""
GROUP_S = 0.02
"""Time from a message to its acknowledgement that the engine stays below: one poll and one fsync."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``figure`` is what was found, ``advice`` what to do where it is not ``well``."""

    well: bool
    figure: str
    advice: str


def probe_broker(settings: SubscriberSettings, timeout_s: float = PROBE_S_MAX) -> Answer:
    """Connect, ping, disconnect. Never raises for what a broker or network does; blocks up to ``timeout_s``
    a step."""
    try:
        level = LEVEL_311 if settings.protocol == "3.1.1" else LEVEL_5
        code, ping_ms = _ask(settings, level, timeout_s)
        if settings.protocol == "auto" and code in (1, Reason.UNSUPPORTED_VERSION):
            level = LEVEL_311
            code, ping_ms = _ask(settings, level, timeout_s)
    except (OSError, ValueError, MalformedPacket) as fault:
        return Answer(False, str(fault), f"is a broker at {settings.url}? See the url and tls_* keys")
    if code:
        return Answer(False, f"CONNECT refused with 0x{code:02x}", "see user, password and the broker's ACL")
    if level == LEVEL_311:
        ceiling = OLD_WINDOW / GROUP_S
        figure = f"MQTT 3.1.1, ping {ping_ms:.1f} ms; with {OLD_WINDOW} messages in flight some {ceiling:,.0f}/s a connection"
        return Answer(True, figure, "raise max_inflight_messages at the broker, or use MQTT 5")
    return Answer(True, f"MQTT 5, ping {ping_ms:.1f} ms", "")


def _ask(settings: SubscriberSettings, level: int, timeout_s: float) -> tuple[int, float]:
    """The code of the CONNACK, and the time of a ping in ms where it is 0."""
    host, port, tls = broker_of(settings.url)
    v5 = level == LEVEL_5
    secret = settings.password
    if settings.password_file is not None:
        secret = Path(settings.password_file).read_text("utf-8").rstrip("\r\n")
    password = secret.encode() if secret is not None and (v5 or settings.user is not None) else None
    sock = socket.create_connection((host, port), timeout_s)
    with client_context(settings).wrap_socket(sock, server_hostname=host) if tls else sock as sock:
        client_id = f"{settings.client_id}-doctor-{os.getpid()}"
        sock.sendall(encode(Connect(client_id, True, 30, level, settings.user, password), v5))
        connack = _next(sock, v5)
        if not isinstance(connack, Connack):
            raise ValueError("the answer to CONNECT is no CONNACK")
        if connack.code:
            return connack.code, 0.0
        began = time.perf_counter()
        sock.sendall(PINGREQ)
        while not isinstance(_next(sock, v5), Pingresp):
            continue
        ping_ms = (time.perf_counter() - began) * 1000
        sock.sendall(encode(Disconnect(), v5))
        return 0, ping_ms


def _next(sock: socket.socket, v5: bool) -> Packet:
    """The next packet, read byte by byte so that nothing of a second one is taken."""
    raw = b""
    while True:
        chunk = sock.recv(1)
        if not chunk:
            raise ConnectionResetError("the broker hung up")
        raw += chunk
        body, end = frame_at(raw, 0, 1 << 16)
        if end and len(raw) == end:
            return decode(raw[0], raw[body:end], v5)
