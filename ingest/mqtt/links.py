"""The subscribing side: one link to a broker, kept up.

Owns name resolution, connecting, backoff, the choice of protocol version, pings, and telling when a
link is up or down. The session owns the protocol, the poller the reading.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from ingest.config import SubscriberSettings
from ingest.mqtt.connection import Connection, Pause
from ingest.mqtt.fields import Reason
from ingest.mqtt.packets import LEVEL_5, LEVEL_311
from ingest.mqtt.sockets import Sockets
from ingest.mqtt.subscriber import ClientSession, State
from ingest.mqtt.tls import client_tls

CONNECT_S_MAX = 10.0
"""From the first SYN to an answered SUBSCRIBE; a broker slower than this is tried anew."""
BACKOFF_S = 0.5
"""Mean of the first wait; doubled each time up to `reconnect_s_max`."""
STUCK_FACTOR = 1.5
PORT = 1883
TLS_PORT = 8883

Address = tuple[int, tuple[Any, ...]]
"""Family and socket address."""
Close = Callable[[Connection, str], None]


@dataclass(slots=True, frozen=True)
class LinkEvent:
    """Something a person or the journal should know of a link. Times in µs since 1970 UTC.

    kind      as in ingest.mqtt.subscriber.SessionEvent, and link_down, connect_failed, fallback
    link      "name/number": the subscriber's name and which of its connections
    begin_us  link_down, link_up, session_lost: when the broker was last heard before (the first time:
              when we began to try); otherwise now
    end_us    now; 0 in link_down, which lasts
    """

    kind: str
    link: str
    begin_us: int
    end_us: int
    detail: str = ""
    session_present: bool = False


OnEvent = Callable[[LinkEvent], None]


def slices_of(settings: SubscriberSettings) -> list[list[str]]:
    """The filters of each connection. Raises ValueError for connections that would take everything twice."""
    if settings.slices:
        return settings.slices
    if settings.connections > 1 and not all(one.startswith("$share/") for one in settings.filters):
        raise ValueError("several connections with the same filters need $share in every filter")
    return [settings.filters] * settings.connections


def broker_of(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS of ``mqtt://host:port`` or ``mqtts://host:port``. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"expected mqtt://host:port or mqtts://host:port, got {url!r}")
    if parts.username or parts.password:
        raise ValueError("user and password have keys of their own; in a URL they end up in logs")
    tls = parts.scheme == "mqtts"
    return parts.hostname, parts.port or (TLS_PORT if tls else PORT), tls


class Link:
    """One connection to a broker, made again whenever it is lost."""

    def __init__(
        self,
        sockets: Sockets,
        settings: SubscriberSettings,
        index: int,
        message_bytes_max: int,
        buffer_bytes_max: int,
        random: Random,
        on_event: OnEvent,
        close: Close,
    ) -> None:
        """Raises ValueError or OSError for settings that can never connect."""
        self.name = f"{settings.name}/{index + 1}"
        self.client_id = f"{settings.client_id}-{settings.name}-{index + 1}"
        self.filters = slices_of(settings)[index]
        self.conn: Connection | None = None
        self._host, self._port, tls = broker_of(settings.url)
        self.tls = client_tls(settings) if tls else None
        password = settings.password
        if settings.password_file is not None:
            password = Path(settings.password_file).read_text("utf-8").rstrip("\r\n")
        self._password = None if password is None else password.encode()
        self._sockets = sockets
        self._settings = settings
        self._bytes_max = message_bytes_max
        self._buffer_bytes_max = buffer_bytes_max
        self._random = random
        self._on_event = on_event
        self._close = close
        self._level = LEVEL_311 if settings.protocol == "3.1.1" else LEVEL_5
        self._spoke_v5 = False
        self._had_session = False
        self._subscribed = False
        self._up = False
        self._why_down = "not connected yet"
        self._attempt = 0
        self._retry_at = 0.0
        self._started_at = 0.0
        self._last_heard_us = self._begin_us = 0
        self._pinged_at = 0.0
        self._resolving = False
        self._resolved: deque[list[Address] | str] = deque()
        self._addresses: list[Address] = []
        self._pending: socket.socket | None = None
        self._stopped = False

    def turn(self, now: float) -> None:
        """Do what is due: connect, take a name's addresses, give up a connect that takes too long."""
        if self._resolved:
            self._resolving = False
            found = self._resolved.popleft()
            if not self._stopped:
                self._take_addresses(found, now)
        self._begin_us = self._begin_us or self._sockets.wall_us
        if self._stopped:
            return
        if self._pending is not None:
            if now - self._started_at > CONNECT_S_MAX:
                self._give_up(f"no answer from {self._host}:{self._port} in {CONNECT_S_MAX:g} s", now)
        elif self.conn is None and not self._resolving and now >= self._retry_at:
            self._started_at = now
            self._resolve()

    def _resolve(self) -> None:
        """Look the host up in a thread of its own: a resolver may hang for half a minute."""
        self._resolving = True

        def run() -> None:
            try:
                found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._resolved.append([(family, where) for family, _, _, _, where in found])
            except (OSError, UnicodeError) as fault:
                self._resolved.append(f"{self._host}: {fault}")

        threading.Thread(target=run, name=f"resolve-{self.name}", daemon=True).start()

    def _take_addresses(self, found: list[Address] | str, now: float) -> None:
        if isinstance(found, str):
            self._give_up(found, now)
            return
        self._addresses = found
        self._connect_next("no address", now)

    def _connect_next(self, last_fault: str, now: float) -> None:
        """Begin to connect to the next address of the name."""
        if not self._addresses:
            self._give_up(last_fault, now)
            return
        family, where = self._addresses.pop(0)
        self._started_at = now
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as fault:
            self._give_up(str(fault), now)
            return
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self._connect_next(f"{where[0]}:{where[1]}: {os.strerror(code)}", now)
            return
        self._pending = sock
        self._sockets.watch(sock.fileno(), select.EPOLLOUT, self)

    def on_ready(self, _mask: int, now: float) -> None:
        """The connect succeeded or failed."""
        sock = self._pending
        assert sock is not None
        self._pending = None
        self._sockets.unwatch(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            sock.close()
            self._connect_next(f"{self._host}:{self._port}: {os.strerror(code)}", now)
            return
        try:
            address = str(sock.getpeername()[0])
            if self.tls:
                sock = self.tls.current.wrap_socket(
                    sock, server_hostname=self._host, do_handshake_on_connect=False
                )
        except OSError as fault:
            sock.close()
            self._connect_next(f"{self._host}:{self._port}: {fault}", now)
            return
        session = ClientSession(
            self._settings,
            self.client_id,
            self.filters,
            self._level,
            self._bytes_max,
            self._password,
            subscribe=not self._subscribed,
            expects_session=self._had_session and not self._settings.clean_session,
        )
        self.conn = Connection(self._sockets, sock, session, self, address, self._buffer_bytes_max)
        self.conn.client_id = self.client_id
        self.conn.start()

    def handshaken(self, conn: Connection) -> None:
        """Say CONNECT."""
        conn.send_session()

    def after_receive(self, conn: Connection) -> None:
        """Tell what the session found out; close when it is over."""
        session = conn.session
        assert isinstance(session, ClientSession)
        self._last_heard_us = self._sockets.wall_us
        for event in session.events:
            begin_us = self._begin_us if event.kind in ("link_up", "session_lost") else 0
            self._tell(event.kind, event.detail, begin_us=begin_us, session_present=event.session_present)
            if event.kind == "link_up":
                self._up = self._had_session = True
                self._spoke_v5 |= session.v5
                self._sockets.counters["links_up"] += 1
            elif event.kind == "subscribed":
                self._subscribed = True
        session.events.clear()
        if session.state is State.LIVE:
            self._attempt = 0
        if session.ending and conn.epoch:
            if session.fault is not None and session.ending == "malformed":
                self._sockets.counters[f"malformed.{Reason(session.fault.reason_code).name.lower()}"] += 1
            self._close(conn, session.ending)

    def closed(self, conn: Connection, why: str) -> None:
        """The connection is gone: say so, and say when to try again."""
        session = conn.session
        assert isinstance(session, ClientSession)
        self.conn = None
        detail = why if not session.ending_code else f"{why} 0x{session.ending_code:02x}"
        if session.fault is not None:
            detail += f": {session.fault.message}"
        elif conn.detail:
            detail += f": {conn.detail}"
        if self._up:
            self._up, self._why_down = False, detail
            self._sockets.counters["links_up"] -= 1
            self._begin_us = self._last_heard_us
            self._tell("link_down", detail, begin_us=self._begin_us)
        elif not self._stopped:
            self._tell("connect_failed", detail)
        if self._fall_back(session):
            self._retry_at = self._sockets.now
        else:
            self._back_off()

    def _fall_back(self, session: ClientSession) -> bool:
        """Choose the version of the next attempt; whether it may be made at once.

        A refusal in words settles it. A broker that merely hung up at CONNECT may not know MQTT 5, or
        may be restarting: 3.1.1 is tried in turn with 5 until one of them answers.
        """
        if self._settings.protocol != "auto" or self._stopped:
            return False
        if session.version_refused:
            self._level = LEVEL_311
            self._tell("fallback", "the broker refused MQTT 5; 3.1.1 from now on")
            return True
        if session.connack_code is None and not self._spoke_v5:
            self._level = LEVEL_311 if self._level == LEVEL_5 else LEVEL_5
        return False

    def _give_up(self, detail: str, now: float) -> None:
        """This attempt failed before there was a connection."""
        if self._pending is not None:
            self._sockets.unwatch(self._pending.fileno())
            self._pending.close()
            self._pending = None
        self._addresses = []
        self._tell("connect_failed", detail)
        self._back_off()

    def _back_off(self) -> None:
        longest = min(self._settings.reconnect_s_max, BACKOFF_S * 2 ** min(self._attempt, 30))
        self._attempt += 1
        self._retry_at = self._sockets.now + longest * self._random.uniform(0.5, 1.0)
        self._sockets.counters["connect_retries"] += 1

    @property
    def why_down(self) -> str:
        """Why the link is down; "" while it is up."""
        return "" if self._up else self._why_down

    def _tell(self, kind: str, detail: str = "", *, begin_us: int = 0, session_present: bool = False) -> None:
        now_us = self._sockets.wall_us
        if kind == "connect_failed":
            self._why_down = detail
        end_us = 0 if kind == "link_down" else now_us
        self._on_event(LinkEvent(kind, self.name, begin_us or now_us, end_us, detail, session_present))

    def sweep(self, conn: Connection, now: float, read_since: float | None) -> None:
        """Ping, and give up a broker that does not answer.

        While reads are paused (``read_since`` None) the ping still goes out, so that the broker keeps
        us, and no answer is expected: it lies unread behind the data.
        """
        session = conn.session
        assert isinstance(session, ClientSession)
        if session.state in (State.CONNECTING, State.SUBSCRIBING):
            if read_since is not None and now - max(self._started_at, read_since) > CONNECT_S_MAX:
                self._close(conn, "connect_timeout")
            return
        keepalive_s = session.keepalive_s
        unread = read_since is None or bool(conn.paused)
        if conn.paused & Pause.OUT and now - conn.last_progress > STUCK_FACTOR * keepalive_s:
            self._close(conn, "slow_reader")
            return
        if not keepalive_s:
            return
        since_read = now - max(conn.last_read, read_since or 0.0)
        since_ping = now - max(self._pinged_at, read_since or 0.0)
        if (
            not unread
            and session.awaits_pingresp
            and since_ping > keepalive_s / 2
            and since_read > keepalive_s / 2
        ):
            self._close(conn, "keepalive")
        elif now - conn.last_sent >= keepalive_s - 1 or (
            not unread and not session.awaits_pingresp and since_read >= keepalive_s
        ):
            self._pinged_at = now
            session.ping()
            conn.send_session()

    def stop(self) -> None:
        """Say DISCONNECT and stay away. The broker keeps the session."""
        self._stopped = True
        if self._pending is not None:
            self._sockets.unwatch(self._pending.fileno())
            self._pending.close()
            self._pending = None
        if self.conn is not None:
            assert isinstance(self.conn.session, ClientSession)
            self.conn.session.end(Reason.SUCCESS, "stopped")
            self._close(self.conn, "stopped")
