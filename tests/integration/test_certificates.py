"""Mutual TLS on every socket; certificates taken up while the engine runs; broken files refused."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Publish
from storage.certificates import (
    CertificateFault,
    Certificates,
    ClientFiles,
    ServerFiles,
    ServerTls,
    client_context,
    server_context,
)
from tests.certificates import CLIENT, OPENSSL, SERVER, Authority, client, der, openssl
from tests.engines import run_yuzui, until
from tests.tls_city import SIDES, SPEAK, TlsCity, say_connect

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="SKIPPED: no openssl on this machine")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCity]:
    running = TlsCity(tmp_path_factory.mktemp("tls"))
    try:
        yield running.start()
    finally:
        running.close()


def published(sock: ssl.SSLSocket, pid: int) -> bytes:
    """The PUBACK of one message."""
    sock.sendall(encode(Publish("t/g1/p1", b"1.5", 1, pid=pid), False))
    return sock.recv(4)


def test_a_reload_gives_new_connections_the_new_certificate_on_every_side_and_old_ones_live_on(
    city: TlsCity,
) -> None:
    def context() -> ssl.SSLContext:
        return client(city.servers.file, city.gateway)

    before = {side: der(city.tls / f"{side}.crt") for side in SIDES}
    assert {side: city.exchange(side, context()) for side in SIDES} == before
    old_caller = der(city.tls / "caller.crt")
    until(lambda: old_caller in city.receiver.shown, "a webhook was called with our certificate")
    old = city.connect("listener", context())
    say_connect(old)
    assert published(old, 1) == b"\x40\x02\x00\x01"
    city.renew_all()
    assert city.exchange("listener", context()) == before["listener"], "nothing changes unasked"
    done = run_yuzui("reload", "-c", str(city.engine.config))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("certificates read again") == len(SIDES) + 1, done.stdout
    after = {side: der(city.tls / f"{side}.crt") for side in SIDES}
    assert set(after.values()).isdisjoint(before.values())
    until(
        lambda: {side: city.exchange(side, context()) for side in SIDES} == after,
        "every side shows the new one",
    )
    assert published(old, 2) == b"\x40\x02\x00\x02", "the old connection lives on"
    old.close()
    caller = der(city.tls / "caller.crt")
    until(lambda: caller in city.receiver.shown, "a webhook was called with the new certificate")


def test_broken_files_are_refused_by_name_and_what_was_in_force_goes_on(city: TlsCity) -> None:
    good = {side: (city.tls / f"{side}.crt").read_bytes() for side in SIDES}
    keys = {side: (city.tls / f"{side}.key").read_bytes() for side in SIDES}
    shown = {side: der(city.tls / f"{side}.crt") for side in SIDES}
    (city.tls / "listener.crt").write_bytes(good["listener"][:200])
    (city.tls / "station.key").write_bytes(keys["ops"])  # of another certificate
    (city.tls / "ops.crt").write_bytes(b"not a certificate\n")
    openssl(city.tls, "ec", "-in", "sql.key", "-aes128", "-passout", "pass:x", "-out", "sql.new")
    (city.tls / "sql.new").replace(city.tls / "sql.key")
    city.servers.issue("console", "console", SERVER)
    done = run_yuzui("reload", "-c", str(city.engine.config))
    for side in SIDES:
        (city.tls / f"{side}.key").write_bytes(keys[side]) if side != "console" else None
        (city.tls / f"{side}.crt").write_bytes(good[side]) if side != "console" else None
    assert done.returncode == 2, done.stdout
    told = done.stderr
    for word in (
        "listener 127.0.0.1",
        "source epb",
        "operators' port",
        "SQL door",
        "encrypted",
    ):
        assert word.lower() in told.lower(), (word, told)
    assert "console" in done.stdout
    context = client(city.servers.file, city.gateway)
    assert {side: city.exchange(side, context) for side in SIDES if side != "console"} == {
        side: shown[side] for side in SIDES if side != "console"
    }
    assert city.exchange("console", context) == der(city.tls / "console.crt")
    assert "PRIVATE KEY" not in city.engine.log.read_text() + told


def test_an_authority_that_is_taken_out_opens_no_door_any_more(city: TlsCity) -> None:
    """Also where the context that listens stays the same, and for who was in before."""
    kept = city.clients.file.read_bytes()
    sessions = {}
    context = client(city.servers.file, city.gateway)
    for side in SIDES:
        with city.connect(side, context) as sock:
            SPEAK[side](sock)
            sessions[side] = sock.session
    other = Authority(city.tls, "others")
    stranger = other.issue("stranger", "g1", CLIENT)
    city.clients.file.write_bytes(other.file.read_bytes())
    assert run_yuzui("reload", "-c", str(city.engine.config)).returncode == 0
    try:
        for side in SIDES:
            until(
                lambda side=side: let_in(city, side, client(city.servers.file, stranger)),
                f"{side} knows the new",
            )
            assert not let_in(city, side, context), side
            assert not let_in(city, side, context, sessions[side]), (
                f"{side}: an old session was taken up again"
            )
    finally:
        city.clients.file.write_bytes(kept)
        assert run_yuzui("reload", "-c", str(city.engine.config)).returncode == 0
    for side in SIDES:
        until(lambda side=side: let_in(city, side, context), f"{side} knows the old again")


def let_in(city: TlsCity, side: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bool:
    """Whether a client with this context gets an answer, ``session`` being taken up where it may be."""
    plain = socket.create_connection(("127.0.0.1", city.ports[side]), timeout=60)
    try:
        sock = context.wrap_socket(plain, server_hostname="localhost", session=session)
    except OSError:
        plain.close()
        return False
    try:
        SPEAK[side](sock)
    except OSError:
        return False
    finally:
        sock.close()
    return True


def test_the_commands_ask_through_the_data_folder_where_the_port_wants_certificates(city: TlsCity) -> None:
    done = run_yuzui("status", "-c", str(city.engine.config))
    assert (done.returncode, done.stdout[:2]) == (0, "ok"), done.stdout + done.stderr
    assert (city.engine.data / "ops.sock").stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def shown_by(context: ssl.SSLContext, ca: Path) -> bytes:
    """DER of what a server with this context shows."""
    ours, theirs = socket.socketpair()
    caught: list[OSError] = []

    def serve() -> None:
        try:
            context.wrap_socket(theirs, server_side=True).close()
        except OSError as fault:
            caught.append(fault)

    thread = threading.Thread(target=serve)
    thread.start()
    with client(ca).wrap_socket(ours, server_hostname="localhost") as sock:
        found = sock.getpeercert(True)
    thread.join()
    assert found is not None
    return found


def test_one_context_that_listens_for_ever_shows_the_newest_certificate(authority: Authority) -> None:
    pair = authority.issue("web", "web", SERVER)
    tls = ServerTls(ServerFiles(*pair))
    listening, first = tls.context, der(pair[0])
    assert shown_by(listening, authority.file) == first
    authority.issue("web", "web", SERVER)
    known = Certificates()
    known.add(lambda: {"web": tls})
    assert shown_by(listening, authority.file) == first
    assert known.renew() == (["web"], [])
    assert tls.context is listening
    assert shown_by(listening, authority.file) == der(pair[0]) != first


def test_a_fault_names_the_file_and_holds_nothing_of_it(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("told", "told", SERVER)
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n")
    broken, gone = str(tmp_path / "broken.pem"), str(tmp_path / "gone.pem")
    for files in (ServerFiles(broken, key), ServerFiles(gone, key), ServerFiles(cert, key, broken)):
        with pytest.raises(CertificateFault) as fault:
            server_context(files)
        assert "broken.pem" in str(fault.value) or "gone.pem" in str(fault.value)
        assert "c2VjcmV0" not in str(fault.value)
    with pytest.raises(CertificateFault, match=r"gone\.pem"):
        client_context(ClientFiles(ca=gone))
