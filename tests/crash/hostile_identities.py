"""F17: who says they are somebody else: by topic, id, client id, password, certificate; and who we take for whom."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import time
from pathlib import Path

import orjson

from anomaly.alerts.lane import Answer, Notice
from anomaly.alerts.webhook import WebhookCarrier
from anomaly.settings import WebhookSettings
from ingest.credentials import hash_password
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import LEVEL_311, Connect, Will
from storage.certificates import ClientFiles, ClientTls
from tests.certificates import CLIENT, OPENSSL, SERVER, Authority, client, server
from tests.engines import EngineProcess, site_config, until
from tests.faults_trial import Faults
from tests.talk import Talker
from tests.tls_city import SIDES, Receiver, TlsCity

SPOOFED = 666.0
SPOOFS = 40


def identities(faults: Faults) -> None:
    """F17: who says they are somebody else, by topic, id, client id, password or certificate."""
    spoofed_ids(faults)
    if OPENSSL is None:
        faults.result.notes.append("no openssl: certificates were skipped")
        return
    certificates(faults)
    targets(faults)


def spoofed_ids(faults: Faults) -> None:
    """Gateway g0 writes g1's points in every way there is; all it is believed are its own."""
    home = faults.home()
    gateways = {"g0": ["a0", "a1"], "g1": ["b0", "b1"]}
    engine = EngineProcess(
        home, site_config(home, gateways, listener='credentials_file = "c.toml"\nanonymous = false')
    )
    faults.engines.append(engine)
    (home / "c.toml").write_text(
        "".join(
            f'[[credential]]\nname = "{name}"\npassword = "{hash_password(name)}"\n'
            f'publish = ["t/{name}", "t/{name}/#"]\n'
            for name in gateways
        )
    )
    engine.start()
    own: list[tuple[str, bytes]] = []
    begun = time.time_ns() // 1_000_000 - 60_000
    spoofs = refused_logins = 0
    with (
        Talker(engine.port, v5=True, user="g0", password="g0", client_id="g0") as talker,
        Talker(engine.port, user="g1", password="g1", client_id="g1") as victim,
    ):
        for number in range(SPOOFS):
            now = begun + number
            foreign = {"id": "b0", "ts": now, "v": SPOOFED}
            mine = ("t/g0/a0", b'{"ts":%d,"v":1.5}' % now)
            bad = [
                ("t/g1/b0", b'{"ts":%d,"v":666.0}' % now), ("t/g1", orjson.dumps([foreign])),
                ("t/g0/a0", orjson.dumps(foreign)), ("t/g0", orjson.dumps([foreign])), ("T/g1/b0", b"666.0"),
                ("t//g1/b0", b"666.0"), ("/t/g1/b0", b"666.0"), ("t/g1/b0/", b"666.0"), ("$SYS/t/g1/b0", b"666.0"),
                ("$share/x/t/g1/b0", b"666.0"), ("t/g0/../g1/b0", b"666.0"), ("t/g0/b0", b"666.0"),
            ]  # fmt: skip
            codes = talker.say_all([mine, *bad])
            faults.expect(codes[0] == 0, f"an honest message was refused: {codes[0]}")
            faults.expect(
                all(code >= 0x80 for code in codes[1:]), f"a spoofed one was taken: {list(map(hex, codes))}"
            )
            own.append(mine)
            spoofs += len(bad)
        for user, password in (
            (None, None),
            ("g1", "g0"),
            ("g1", ""),
            ("g2", "g2"),
            ("G1", "g1"),
        ):
            try:
                Talker(engine.port, user=user, password=password, client_id="x").close()
                faults.expect(False, f"{user!r} came in")
            except (ConnectionError, OSError):
                refused_logins += 1
        try:
            Talker(engine.port, user="g0", password="g0", client_id="g1").close()
            faults.expect(False, "a client id of another's was taken over")
        except (ConnectionError, OSError):
            refused_logins += 1
        will = Will("t/g1/b0", b"666.0", 1, False)
        with Talker(engine.port, connect=False) as dying:
            dying.send(encode(Connect("g0-will", True, 60, LEVEL_311, "g0", b"g0", will), False))
            dying.hear_connack()
        victim.ping()
        faults.expect(
            victim.say("t/g1/b1", b'{"ts":%d,"v":2.5}' % begun) == 0, "the victim cannot speak any more"
        )
    until(
        lambda: engine.lake("SELECT count(*) FROM readings") == [(len(own) + 1,)],
        "every honest reading stands",
        120,
    )
    believed = engine.lake(f"SELECT count(*) FROM readings WHERE value = {SPOOFED} OR point_id = 'b0'")[0][0]
    faults.expect(believed == 0, f"{believed} spoofed readings were believed")
    faults.findings.acked += len(own) + 1
    faults.findings.stored += len(own) + 1
    faults.expect(engine.stop() == 0, "the engine did not stop cleanly")
    faults.result.trials += spoofs + refused_logins + 1
    faults.result.notes.append(
        f"{spoofs} spoofed messages, {refused_logins} logins refused, a will of another's"
    )


def certificates(faults: Faults) -> None:
    """No side lets in who shows a wrong, an expired or no certificate; who shows the right one always comes in."""
    city = TlsCity(faults.home())
    faults.engines.append(city.engine)
    try:
        city.start()
        others = Authority(city.tls, "others")
        bad: dict[str, tuple[str, str] | None] = {
            "none": None,
            "of another authority": others.issue("of-another", "g1", CLIENT),
            "expired": city.clients.issue("expired", "g1", CLIENT, days=-1),
            "of a server": city.clients.issue("of-a-server", "g1", "extendedKeyUsage=serverAuth\n"),
            "signed by itself": (str(others.file), str(city.tls / "others.key")),
            "signed by a client": forged(city),
        }
        tried = 0
        for side in SIDES:
            for how, pair in bad.items():
                faults.expect(not let_in(city, side, client(city.servers.file, pair)), f"{side} let in {how}")
                tried += 1
            faults.expect(plainly_refused(city.ports[side]), f"{side} answered plain bytes")
            good = let_in(city, side, client(city.servers.file, city.gateway))
            faults.expect(good, f"{side} refuses who is right")
            tried += 1
        faults.result.trials += tried
        faults.result.notes.append(f"{tried} wrong, expired and missing certificates at {len(SIDES)} doors")
        faults.expect(city.engine.stop() == 0, "the engine did not stop cleanly")
    finally:
        city.close()


def forged(city: TlsCity) -> tuple[str, str]:
    """A certificate signed with the key of a client, who is no authority."""
    for kind in ("crt", "key"):
        shutil.copy(city.tls / f"gateway.{kind}", city.tls / f"forger.{kind}")
    forger = object.__new__(Authority)
    forger._folder, forger._name, forger.file = city.tls, "forger", city.tls / "forger.crt"
    cert, key = forger.issue("forged", "g1", CLIENT)
    with open(cert, "a") as chain:
        chain.write((city.tls / "forger.crt").read_text())
    return cert, key


def let_in(city: TlsCity, side: str, context: ssl.SSLContext) -> bool:
    """Whether a side answers a client with this context."""
    try:
        city.exchange(side, context)
    except OSError:
        return False
    return True


def plainly_refused(port: int) -> bool:
    """Whether a door with TLS hangs up on plain bytes, or says nothing but a TLS alert."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        plain.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        try:
            heard = plain.recv(4096)
        except ConnectionError:
            heard = b""
    return heard[:1] in (b"", b"\x15")


def targets(faults: Faults) -> None:
    """Our own calls verify: a target with a wrong, an expired or another's certificate hears nothing."""
    folder = faults.home()
    ca, others = Authority(folder, "ca"), Authority(folder, "others")
    shows = {
        "right": ca.issue("right", "hook", SERVER),
        "expired": ca.issue("late", "hook", SERVER, days=-1),
        "of another authority": others.issue("other", "hook", SERVER),
        "of another name": ca.issue("name", "hook", "subjectAltName=DNS:elsewhere.example\n"),
    }
    ours = ca.issue("caller", "yuzui", CLIENT)
    for how, pair in shows.items():
        receiver = Receiver(server(pair, ca.file))
        try:
            for shown in (ours, None):
                answer = call_tls(receiver.port, ca.file, shown)
                wanted = how == "right" and shown is not None
                faults.expect(
                    (answer.error is None) == wanted, f"{how}, showing {shown is not None}: {answer.error}"
                )
                faults.result.trials += not wanted
            faults.expect(
                len(receiver.shown) == (how == "right"), f"{how}: {len(receiver.shown)} bodies were sent"
            )
        finally:
            receiver.close()
    faults.result.notes.append("7 targets whose certificate or ours would not do heard nothing")


def call_tls(port: int, ca: Path, pair: tuple[str, str] | None) -> Answer:
    """One notification to https://localhost:PORT."""
    cert, key = pair or (None, None)

    async def once() -> Answer:
        hook = WebhookSettings(name="w", url=f"https://localhost:{port}/", timeout_s=60.0)
        carrier = WebhookCarrier(hook, None, ClientTls(ClientFiles(str(ca), cert, key)))
        try:
            return await carrier.send(Notice(1, "w.1", "a", 0, 0, 0, 0), b"{}", time.time_ns() // 1000)
        finally:
            await carrier.close()

    return asyncio.run(once())
