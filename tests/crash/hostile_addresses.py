"""F16: addresses no config means by a name, with a name server that changes its mind. In namespaces of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path

from anomaly.alerts.addresses import refusal
from anomaly.alerts.lane import Answer, Notice
from anomaly.alerts.webhook import WebhookCarrier
from anomaly.settings import WebhookSettings
from tests.faults_disk import run
from tests.faults_trial import Faults

FORBIDDEN = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "169.254.255.255",
    "0.0.0.0",
    "224.0.0.1",
    "224.0.0.251",
    "239.255.255.250",
    "239.0.0.1",
    "230.1.2.3",
    "::",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "ff02::1",
    "ff05::2",
    "ff0e::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
    "::169.254.169.254",
    "::169.254.170.2",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::169.254.170.2",
    "64:ff9b::e000:1",
    "64:ff9b::",
    "2002:a9fe:a9fe::",
    "2002:a9fe:a9fe::1",
    "2002:a9fe:aa02::1",
    "2002:e000:1::1",
    "2002::1",
    "2001:0:a9fe:a9fe::1",
    "2001:0:1:1:0:0:5601:5601",
    "2001:0:1:1:0:0:1fff:fffe",
]
"""What no config means by a name: link-local, cloud metadata, multicast, unspecified; plainly and inside IPv6."""
NUMERIC = [
    "2852039166",
    "0xa9fea9fe",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518",
    "169.16689662",
    "025177524776",
    "0",
    "0x0",
    "00000000",
]
"""Spellings the C library takes for such an address and a parser of URLs for a name."""
REBINDS = 40
METADATA = "169.254.169.254"
TTL_0 = 0


class NameServer(threading.Thread):
    """A real DNS server on 127.0.0.1:53 whose answers change from one question to the next. ``asked``: by name."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: Counter[str] = Counter()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 53))

    def run(self) -> None:
        """Answer for ever."""
        while True:
            question, whom = self._sock.recvfrom(4096)
            self._sock.sendto(self._answer(question), whom)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while size := question[at]:
            labels.append(question[at + 1 : at + 1 + size].decode())
            at += size + 1
        name, kind = ".".join(labels).lower(), struct.unpack(">H", question[at + 1 : at + 3])[0]
        rounds = self.answers.get(name, [])
        family = {1: 4, 28: 6}.get(kind)
        number = self.asked[f"{name}/{family}"]
        self.asked[f"{name}/{family}"] += 1
        some = rounds[min(number, len(rounds) - 1)] if rounds else []
        found = [a for a in map(ipaddress.ip_address, some) if a.version == family]
        records = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, TTL_0, len(a.packed)) + a.packed for a in found
        )
        head = question[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
        return head + question[12 : at + 5] + records


class Counting(threading.Thread):
    """An HTTP server that takes everything. ``calls``: connections that came."""

    def __init__(self, host: str, port: int = 0) -> None:
        super().__init__(daemon=True)
        self.calls = 0
        self._sock = socket.create_server((host, port))
        self.port: int = self._sock.getsockname()[1]

    def run(self) -> None:
        """Answer 200 for ever."""
        while True:
            peer, _ = self._sock.accept()
            self.calls += 1
            with contextlib.suppress(OSError), peer:
                peer.settimeout(60)
                peer.recv(65_536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def own_names(folder: Path) -> NameServer:
    """Our own name server for this process, in namespaces of its own. Raises Impossible."""
    resolv = folder / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:25 attempts:1\n")
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", str(resolv), os.path.realpath("/etc/resolv.conf"))
    names = NameServer()
    names.start()
    return names


def call(url: str, allow: bool = False) -> Answer:
    """One notification to a target."""

    async def once() -> Answer:
        hook = WebhookSettings(name="w", url=url, allow_link_local=allow, timeout_s=60.0)
        carrier = WebhookCarrier(hook, None)
        try:
            return await carrier.send(Notice(1, "w.1", "a", 0, 0, 0, 0), b"{}", time.time_ns() // 1000)
        finally:
            await carrier.close()

    return asyncio.run(once())


def addresses(faults: Faults) -> None:
    """F16, in a network and with a name server of its own: no name leads to an address that no config means."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{METADATA}/32", "dev", "lo")
    names = own_names(faults.home())
    metadata, good = Counting(METADATA, 80), Counting("127.0.0.1")
    for one in (metadata, good):
        one.start()
    for number, address in enumerate(FORBIDDEN):
        faults.expect(refusal(address) is not None, f"{address} is not refused")
        for how, answer in (("alone", [address]), ("beside a good one", ["127.0.0.1", address])):
            name = f"n{number}-{len(answer)}.evil.test"
            names.answers[name] = [answer]
            said = call(f"http://{name}:{good.port if len(answer) == 2 else 80}/")
            faults.expect(said.error == "address_refused", f"{address} {how} behind a name: {said.error}")
            faults.result.trials += 1
    for text in NUMERIC:
        said = call(f"http://{text}/latest/meta-data/")
        # Some are no URL to aiohttp either; what counts is that nobody was called.
        faults.expect(said.error in ("address_refused", "bad_request"), f"http://{text}/: {said.error}")
        faults.result.trials += 1
    for address in FORBIDDEN:
        literal = f"[{address}]" if ":" in address else address
        said = call(f"http://{literal}/")
        faults.expect(said.error == "address_refused" and said.hopeless, f"http://{literal}/: {said.error}")
        faults.result.trials += 1
    faults.expect(good.calls == 0 == metadata.calls, f"{good.calls} and {metadata.calls} calls came through")
    refused = delivered = 0
    for number in range(REBINDS):
        # The first answer is good, the next is not: what was checked must be what is connected to.
        name = f"r{number}.rebind.test"
        names.answers[name] = [["127.0.0.1"], [METADATA]]
        first, second = (call(f"http://{name}:{port}/") for port in (good.port, 80))
        delivered += first.error is None
        refused += second.error == "address_refused"
        faults.expect(
            names.asked[f"{name}/4"] == 2, f"{name} was asked {names.asked[f'{name}/4']} times for two calls"
        )
        faults.result.trials += 2
    faults.expect((delivered, refused) == (REBINDS, REBINDS), f"{delivered} delivered, {refused} refused")
    faults.expect(good.calls == REBINDS, f"{good.calls} of {REBINDS} good calls came")
    faults.expect(metadata.calls == 0, f"the metadata service was called {metadata.calls} times")
    meant = call(f"http://{METADATA}/", allow=True)
    faults.expect(meant.error is None and metadata.calls == 1, f"an address that is meant: {meant.error}")
    faults.result.notes.append(
        f"{len(FORBIDDEN)} addresses as literals, behind names and beside good ones, {len(NUMERIC)} numeric spellings, "
        f"{REBINDS} rebinding names; the metadata service was reached once, when it was named and allowed"
    )
    faults.say(faults.result.notes[-1])
