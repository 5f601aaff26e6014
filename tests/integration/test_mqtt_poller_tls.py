"""TLS on both sides: verified by default, certificates as credentials, nothing lost in OpenSSL's buffers."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.config import ListenerSettings, SubscriberSettings
from ingest.credentials import Credentials
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Connack, Connect, Publish
from tests.mqtt_tools import Turner, ack_packets, publishes

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="no openssl on this machine: TLS is not tested")


def run(folder: Path, *words: str) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *words], cwd=folder, check=True, capture_output=True)


def issue(folder: Path, name: str, common_name: str, extension: str) -> None:
    (folder / f"{name}.ext").write_text(extension)
    run(
        folder,
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        f"{name}.key",
        "-out",
        f"{name}.csr",
        "-subj",
        f"/CN={common_name}",
    )
    run(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "2", "-out", f"{name}.crt", "-extfile", f"{name}.ext",
    )  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    run(
        folder,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-days",
        "2",
        "-subj",
        "/CN=test ca",
    )
    issue(folder, "server", "localhost", "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    issue(folder, "client", "gw-1", "extendedKeyUsage=clientAuth\n")
    issue(folder, "stranger", "gw-unknown", "extendedKeyUsage=clientAuth\n")
    return folder


@pytest.fixture
def turner() -> Iterator[Turner]:
    with Turner() as turner:
        yield turner


def listen(turner: Turner, certificates: Path, credentials: Credentials | None = None, **more: Any) -> int:
    chosen = ListenerSettings(
        enabled=True,
        port=0,
        tls_cert_file=str(certificates / "server.crt"),
        tls_key_file=str(certificates / "server.key"),
        **more,
    )
    return turner.poller.listen(chosen, credentials)[1]


class TlsGateway:
    """A client whose handshake runs while the poller turns."""

    def __init__(self, turner: Turner, port: int, certificates: Path, name: str | None = None) -> None:
        context = ssl.create_default_context(cafile=certificates / "ca.crt")
        if name:
            context.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setblocking(False)
        self.sock = context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
        self.got = b""
        self.failed = False
        turner.until(self.shaken)

    def shaken(self) -> bool:
        try:
            self.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def send(self, turner: Turner, stream: bytes) -> None:
        sent = 0

        def all_sent() -> bool:
            nonlocal sent
            try:
                sent += self.sock.send(stream[sent : sent + 60_000])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.read()
            return sent == len(stream)

        turner.until(all_sent)

    def read(self) -> bytes:
        try:
            while chunk := self.sock.recv(65_536):
                self.got += chunk
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return self.got
        except OSError:
            self.failed = True
            return self.got
        self.failed = True
        return self.got


@pytest.mark.parametrize("limit", [4 << 20, 5000], ids=["usual", "reads end inside a TLS record"])
def test_messages_over_tls_arrive_whole_and_are_acknowledged(
    turner: Turner, certificates: Path, limit: int
) -> None:
    gateway = TlsGateway(turner, listen(turner, certificates, buffer_bytes_max=limit), certificates)
    big = encode(Publish("cd/big", b"z" * 900_000, 1, pid=9999), False)
    gateway.send(turner, encode(Connect("gw"), False) + publishes(5000) + big)
    turner.until(lambda: len(gateway.read()) == 4 + 4 * 5001)
    assert gateway.got[:4] == encode(Connack(), False)
    assert [pid for _, pid in ack_packets(gateway.got[4:])] == [*range(1, 5001), 9999]
    assert turner.payloads[-1] == b"z" * 900_000


def test_a_client_certificate_names_the_credential(
    turner: Turner, certificates: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text('[[credential]]\nname = "gw-1"\npublish = ["#"]\n')
    ca = str(certificates / "ca.crt")
    port = listen(turner, certificates, Credentials.load(tmp_path / "c.toml"), tls_client_ca_file=ca)
    known = TlsGateway(turner, port, certificates, "client")
    known.send(turner, encode(Connect("any id"), False) + publishes(1))
    turner.until(lambda: turner.payloads)
    assert turner.received[0].credential == "gw-1"
    unknown = TlsGateway(turner, port, certificates, "stranger")
    unknown.send(turner, encode(Connect("other"), False))
    turner.until(lambda: len(unknown.read()) == 4)
    assert unknown.got == encode(Connack(False, 5), False)
    nobody = TlsGateway(turner, port, certificates)
    turner.until(lambda: nobody.read() is not None and nobody.failed)
    assert turner.poller.counters["closed.tls"] == 1


def test_plain_bytes_at_a_tls_door_close_only_that_connection(turner: Turner, certificates: Path) -> None:
    port = listen(turner, certificates)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(encode(Connect("x"), False))
        turner.until(lambda: turner.poller.counters["closed.tls"] == 1)
    gateway = TlsGateway(turner, port, certificates)
    gateway.send(turner, encode(Connect("y"), False))
    turner.until(lambda: len(gateway.read()) == 4)


def subscriber(port: int, **more: Any) -> SubscriberSettings:
    return SubscriberSettings(
        **{"name": "city", "url": f"mqtts://localhost:{port}", "filters": ["cd/#"], "reconnect_s_max": 0.2}
        | more
    )


def test_a_subscriber_verifies_the_broker_unless_told_not_to(certificates: Path) -> None:
    """The listener stands in for a broker: it admits, and refuses the filter."""
    with Turner() as broker, Turner() as turner:
        port = listen(broker, certificates)

        def both(done: Any) -> None:
            turner.until(lambda: broker.turn() or done())

        turner.poller.subscribe(subscriber(port))
        both(lambda: "connect_failed" in turner.kinds())
        assert "certificate verify failed" in turner.events[0].detail
        turner.poller.subscribe(subscriber(port, name="verified", tls_ca_file=str(certificates / "ca.crt")))
        both(lambda: [one for one in turner.events if one.link == "verified/1" and one.kind == "link_up"])
        turner.poller.subscribe(subscriber(port, name="trusting", tls_verify=False))
        both(lambda: [one for one in turner.events if one.link == "trusting/1" and one.kind == "link_up"])
        refused = [one for one in turner.events if one.kind == "filter_refused"]
        assert all(one.detail.startswith("cd/#") for one in refused)
        assert refused


def test_a_subscriber_shows_its_certificate(certificates: Path) -> None:
    with Turner() as broker, Turner() as turner:
        ca = str(certificates / "ca.crt")
        port = listen(broker, certificates, tls_client_ca_file=ca)
        files = {
            "tls_cert_file": str(certificates / "client.crt"),
            "tls_key_file": str(certificates / "client.key"),
        }
        turner.poller.subscribe(subscriber(port, tls_ca_file=ca, **files))
        turner.until(lambda: broker.turn() or "link_up" in turner.kinds())
        assert broker.poller.connections[0].credential == "gw-1"
