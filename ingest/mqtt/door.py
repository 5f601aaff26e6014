"""The listening side: sockets accepted, CONNECTs admitted or refused, timers of gateways.

Owns who comes in: limits, credentials, client ids. Knows nothing of packets beyond CONNECT (the
session does) and of reading (the poller does).
"""

from __future__ import annotations

import ipaddress
import logging
import select
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from ingest.config import ListenerSettings
from ingest.credentials import Credentials
from ingest.mqtt.admission import Admission
from ingest.mqtt.connection import Connection, Pause
from ingest.mqtt.fields import Reason
from ingest.mqtt.listener import KEEPALIVE_FACTOR, ServerSession, State
from ingest.mqtt.sockets import Sockets
from ingest.mqtt.tls import server_tls

log = logging.getLogger("yuzui.listener")

BACKLOG = 4096
"""Gateways that connect in one instant after a power cut; the kernel caps it at somaxconn."""
ACCEPTS_PER_POLL_MAX = 256
TLS_ACCEPTS_PER_POLL_MAX = 16
"""A handshake costs a millisecond or two of the loop; more at once would stop everyone's readings."""
LOGINS_WAITING_MAX = 2000
"""Passwords that wait to be verified; above it CONNECT is answered "server busy"."""

OPEN: Final = State.OPEN
"""An enum asked for its member is a thousand instructions, and each connection is asked once a second."""

Close = Callable[[Connection, str], None]


def is_loopback(address: str) -> bool:
    """Whether ``address`` is an IP address of this machine's loopback, IPv4 inside IPv6 too."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


class Door:
    """One listening socket and those who came through it. ``address`` is where it listens; ``tls`` None: plainly."""

    def __init__(
        self,
        sockets: Sockets,
        settings: ListenerSettings,
        credentials: Credentials,
        message_bytes_max: int,
        verifiers: Executor,
        close: Close,
    ) -> None:
        """Raises OSError when the address cannot be had, ValueError when strangers could publish."""
        open_door = not credentials.required and settings.tls_client_ca_file is None
        family, _, _, _, where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        if open_door and not is_loopback(str(where[0])):
            raise ValueError(f"{settings.host} is not loopback: it needs credentials or client certificates")
        self.tls = server_tls(settings)
        self._sock = socket.create_server((str(where[0]), settings.port), family=family, backlog=BACKLOG)
        self._sock.setblocking(False)
        host, port = self._sock.getsockname()[:2]
        self.address: tuple[str, int] = (str(host), int(port))
        self._sockets = sockets
        self._settings = settings
        self._credentials = credentials
        self._bytes_max = message_bytes_max
        self._verifiers = verifiers
        self._close = close
        self._admission = Admission(settings)
        self._by_client_id: dict[str, Connection] = {}
        self._logins: deque[tuple[Connection, int, bool]] = deque()
        self._logins_waiting = 0
        self._accepts_max = TLS_ACCEPTS_PER_POLL_MAX if self.tls else ACCEPTS_PER_POLL_MAX
        self.open(True)

    def open(self, accepting: bool) -> None:
        """Take new connections, or leave them in the kernel's queue."""
        if accepting:
            self._sockets.watch(self._sock.fileno(), select.EPOLLIN, self)
        else:
            self._sockets.unwatch(self._sock.fileno())

    def shut(self) -> None:
        """Stop listening."""
        if self._sock.fileno() >= 0:
            self.open(False)
            self._sock.close()

    def on_ready(self, _mask: int, now: float) -> None:
        """Accept who waits."""
        counters = self._sockets.counters
        for _ in range(self._accepts_max):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors or memory: they wait in the kernel's queue for the next poll.
                counters["refused.accept"] += 1
                return
            address = str(peer[0])
            why = self._admission.objection(address, now)
            if why:
                counters[f"refused.{why}"] += 1
                sock.close()
                continue
            self._admission.opened(address)
            counters["connections_accepted"] += 1
            sock.setblocking(False)
            if self.tls:
                try:
                    sock = self.tls.current.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                except OSError:
                    # It hung up between the kernel's accept and ours.
                    self._admission.closed(address)
                    counters["refused.tls"] += 1
                    continue
            session = ServerSession(self._settings, self._bytes_max)
            Connection(self._sockets, sock, session, self, address, self._settings.buffer_bytes_max).start()

    def handshaken(self, conn: Connection) -> None:
        """Nothing to do until CONNECT."""

    def after_receive(self, conn: Connection) -> None:
        """Admit, refuse or close, as the session asks."""
        session = conn.session
        assert isinstance(session, ServerSession)
        if session.asking is not None and not conn.paused & Pause.ADMISSION:
            self._decide(conn, session)
        if session.ending and conn.epoch:
            if session.refused:
                self._sockets.counters[f"refused.{session.ending}"] += 1
            if session.fault is not None:
                self._sockets.counters[f"malformed.{Reason(session.fault.reason_code).name.lower()}"] += 1
            self._close(conn, "refused" if session.refused else session.ending)

    def _decide(self, conn: Connection, session: ServerSession) -> None:
        connect = session.asking
        assert connect is not None
        if self._settings.tls_client_ca_file is not None:
            name = conn.certificate_name()
            if name and (not self._credentials.required or name in self._credentials):
                self._admit(conn, session, name)
            else:
                self._reject(conn, session, Reason.NOT_AUTHORIZED, "unknown_certificate")
        elif self._credentials.required:
            if connect.user is None or connect.password is None:
                self._reject(conn, session, Reason.BAD_USER_OR_PASSWORD, "no_password")
            elif self._logins_waiting >= LOGINS_WAITING_MAX:
                self._reject(conn, session, Reason.SERVER_BUSY, "logins_waiting")
            else:
                self._verify(conn, self._credentials, connect.user, connect.password)
        elif self._settings.anonymous and is_loopback(conn.address):
            self._admit(conn, session, None)
        else:
            self._reject(conn, session, Reason.NOT_AUTHORIZED, "anonymous")

    def _verify(self, conn: Connection, credentials: Credentials, user: str, password: bytes) -> None:
        """Verify in a thread; meanwhile this connection is not read."""
        self._logins_waiting += 1
        conn.pause(Pause.ADMISSION)
        epoch, address = conn.epoch, conn.address

        def run() -> None:
            right = False
            try:
                # Once an address has reached its limit, guesses already queued are not worth 50 ms each.
                heard = not self._admission.banned(address, self._sockets.now)
                right = heard and credentials.verify(user, password)
            except Exception:
                # Without an answer it would wait for ever, and 2,000 of them would shut the door to everybody.
                log.exception("a password could not be verified")
            # A deque's append is atomic; poll() takes it from there in the loop's thread.
            self._logins.append((conn, epoch, right))

        self._verifiers.submit(run)

    def settle_logins(self) -> None:
        """Answer the CONNECTs whose passwords have been verified."""
        while self._logins:
            conn, epoch, right = self._logins.popleft()
            self._logins_waiting -= 1
            session = conn.session
            if conn.epoch != epoch or not isinstance(session, ServerSession) or session.asking is None:
                continue
            conn.unpause(Pause.ADMISSION)
            if right:
                self._admit(conn, session, session.asking.user)
            elif self._admission.banned(conn.address, self._sockets.now):
                self._reject(conn, session, Reason.CONNECTION_RATE_EXCEEDED, "failed_logins")
            else:
                self._reject(conn, session, Reason.BAD_USER_OR_PASSWORD, "wrong_password")

    def _reject(self, conn: Connection, session: ServerSession, reason: Reason, why: str) -> None:
        if reason in (Reason.BAD_USER_OR_PASSWORD, Reason.NOT_AUTHORIZED):
            self._admission.failed(conn.address, self._sockets.now)
        session.refuse(reason, why)
        self.after_receive(conn)

    def _admit(self, conn: Connection, session: ServerSession, credential: str | None) -> None:
        connect = session.asking
        assert connect is not None
        client_id = connect.client_id or f"yuzui-{conn.epoch}"
        other = self._by_client_id.get(client_id)
        if other is not None:
            if other.credential != credential:
                # Only its own owner may take a client id over; anyone else could silence a gateway.
                self._reject(conn, session, Reason.CLIENT_ID_NOT_VALID, "client_id_of_another")
                return
            assert isinstance(other.session, ServerSession)
            other.session.end(Reason.SESSION_TAKEN_OVER, "taken_over")
            self._close(other, "taken_over")
        conn.client_id, conn.credential = client_id, credential
        self._by_client_id[client_id] = conn
        self._sockets.counters["connections_admitted"] += 1
        before = session.stream.held_bytes
        conn.hand_on(session.admit(client_id, not connect.client_id), before)

    def closed(self, conn: Connection, why: str) -> None:
        """Forget ``conn``."""
        self._admission.closed(conn.address)
        if self._by_client_id.get(conn.client_id) is conn:
            del self._by_client_id[conn.client_id]

    def sweep(self, conn: Connection, now: float, read_since: float | None) -> None:
        """Close ``conn`` if it is too late with CONNECT or silent too long.

        ``read_since`` is when reading last began; None while all reads are paused: what the peer sent
        may lie unread, so its silence proves nothing.
        """
        session = conn.session
        assert isinstance(session, ServerSession)
        longest = self._settings.connect_s_max
        if session.state is OPEN:
            longest = KEEPALIVE_FACTOR * session.keepalive_s
        if conn.paused & Pause.OUT and now - conn.last_progress > longest:
            self._close(conn, "slow_reader")
        elif read_since is None or conn.paused:
            return
        elif session.state is OPEN:
            if now - max(conn.last_read, read_since) > longest:
                session.end(Reason.KEEP_ALIVE_TIMEOUT, "keepalive")
                self._close(conn, "keepalive")
        elif now - max(conn.opened_at, read_since) > longest:
            self._close(conn, "connect_timeout")
