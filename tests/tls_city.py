"""An engine with mutual TLS on every socket it opens, and what a client of each of them says first."""

from __future__ import annotations

import http.server
import itertools
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest.codecs.hj212 import framed
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Connect
from tests.certificates import CLIENT, SERVER, Authority, server
from tests.engines import EngineProcess, free_port, site_config, until

SIDES = ("listener", "station", "ops", "sql", "console")
NUMBERS = itertools.count()
"""Client ids of their own: the same id again would take a connection over."""
STATION = "510100A8900016F000000001"
WAIT_S = 60.0


class Receiver:
    """An https webhook that asks for a client certificate. ``shown``: DER of each caller's, in order."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.shown: list[bytes] = []
        shown = self.shown

        class Handler(http.server.BaseHTTPRequestHandler):
            """Takes everything."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Note who called."""
                self.rfile.read(int(self.headers["Content-Length"]))
                connection: Any = self.connection
                shown.append(connection.getpeercert(True) or b"")
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.send_header("Connection", "close")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Quiet(http.server.ThreadingHTTPServer):
            """Handshakes that fail are what is tested."""

            daemon_threads = True

            def finish_request(self, request: Any, address: Any) -> None:
                """The handshake in the caller's own thread."""
                try:
                    super().finish_request(context.wrap_socket(request, server_side=True), address)
                except OSError:
                    return

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class TlsCity:
    """The engine, its authorities (``servers`` signs its own certificates, ``clients`` those of who may come)."""

    def __init__(self, folder: Path) -> None:
        self.tls = folder / "tls"
        self.tls.mkdir(parents=True)
        self.servers, self.clients = Authority(self.tls, "servers"), Authority(self.tls, "clients")
        self.renew_all()
        self.gateway = self.clients.issue("gateway", "g1", CLIENT)
        hook = self.servers.issue("hook", "hook", SERVER)
        self.receiver = Receiver(server(hook, self.servers.file))
        self.ports = {side: free_port() for side in ("station", "sql", "console")}
        self.engine = EngineProcess(folder, self._config(folder))

    def renew_all(self) -> None:
        """New certificates in the same files, for every side."""
        for side in SIDES:
            self.servers.issue(side, side, SERVER)
        self.servers.issue("caller", "yuzui", CLIENT)

    def _files(self, side: str) -> str:
        return (
            f'tls_cert_file = "tls/{side}.crt"\ntls_key_file = "tls/{side}.key"\n'
            'tls_client_ca_file = "tls/clients.crt"\n'
        )

    def _config(self, folder: Path) -> str:
        more = (
            f'[[source]]\nname = "epb"\ncodec = "hj212"\nport = {self.ports["station"]}\n'
            f"[source.tcp]\n{self._files('station')}"
            f"[sql]\nenabled = true\nport = {self.ports['sql']}\n{self._files('sql')}"
            f"[console]\nenabled = true\nanonymous_view = true\nport = {self.ports['console']}\n"
            f"{self._files('console')}"
            f'[[webhook]]\nname = "room"\nurl = "https://localhost:{self.receiver.port}/"\n'
            'tls_ca_file = "tls/servers.crt"\ntls_cert_file = "tls/caller.crt"\ntls_key_file = "tls/caller.key"\n'
            "[kinds.pm]\n[alerts]\nheartbeat_s = 1\n"
        )
        config = site_config(folder, {"g1": ["p1", "p2"]}, listener=self._files("listener"), more=more)
        with (folder / "points.csv").open("a") as file:
            file.write(f"{STATION}-a34004-Rtd,空气,,epb,pm,ug/m3,,0,device\n")
        return config.replace("[ops]\nport = 0\n", f"[ops]\nport = 0\n{self._files('ops')}")

    def start(self) -> TlsCity:
        """Start, and wait until every side listens."""
        self.engine.start(wait=False)
        until(self._up, f"the engine is up\n{self.engine.log.read_text()[-3000:]}")
        ports = self.engine.ports()
        assert ports is not None
        self.ports |= {"listener": ports["listener"][1], "ops": ports["ops_port"]}
        for side in ("sql", "console"):
            until(lambda side=side: _listens(self.ports[side]), f"{side} listens")
        return self

    def _up(self) -> bool:
        assert self.engine.running, self.engine.log.read_text()[-3000:]
        return self.engine.ports() is not None

    def close(self) -> None:
        """End everything."""
        if self.engine.running:
            self.engine.stop()
        self.receiver.close()

    def connect(self, side: str, context: ssl.SSLContext) -> ssl.SSLSocket:
        """A connection with TLS up, as far as the client knows. Raises OSError."""
        plain = socket.create_connection(("127.0.0.1", self.ports[side]), timeout=WAIT_S)
        try:
            return context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def exchange(self, side: str, context: ssl.SSLContext) -> bytes:
        """Say what a client says first and hear the answer; DER of the certificate that was shown. Raises OSError."""
        with self.connect(side, context) as sock:
            SPEAK[side](sock)
            shown = sock.getpeercert(True)
            assert shown is not None
            return shown


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _heard(sock: ssl.SSLSocket, wanted: bytes) -> None:
    got = b""
    while len(got) < len(wanted):
        more = sock.recv(4096)
        if not more:
            raise ConnectionError(f"it hung up after {got!r}")
        got += more
    if not got.startswith(wanted):
        raise ConnectionRefusedError(got[:80])


def say_connect(sock: ssl.SSLSocket) -> None:
    """MQTT's first words."""
    sock.sendall(encode(Connect(f"g1-{next(NUMBERS)}"), False))
    _heard(sock, b"\x20\x02\x00\x00")


def say_frame(sock: ssl.SSLSocket) -> None:
    """A report of a pollutant monitor that asks for an answer."""
    now = datetime.now(UTC).astimezone().strftime("%Y%m%d%H%M%S")
    sock.sendall(
        framed(
            f"QN={now}000;ST=22;CN=2011;PW=123456;MN={STATION};Flag=5;CP=&&DataTime={now};a34004-Rtd=12.5&&".encode()
        )
    )
    _heard(sock, b"##")


def _get(path: str) -> Callable[[ssl.SSLSocket], None]:
    def say(sock: ssl.SSLSocket) -> None:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        _heard(sock, b"HTTP/1.1 200")

    return say


SPEAK: dict[str, Callable[[ssl.SSLSocket], None]] = {
    "listener": say_connect,
    "station": say_frame,
    "ops": _get("/livez"),
    "sql": _get("/sql?q=SELECT+1"),
    "console": _get("/"),
}
