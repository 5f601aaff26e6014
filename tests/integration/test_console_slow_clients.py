"""Clients of the map that do not read, and those that go without a word: what they cost the others, and us."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import aiohttp
import pytest

from console import feed
from console.server import Console
from tests.console_city import made_up
from tests.console_client import Page

FRAMES = 40


async def test_five_clients_that_do_not_read_cost_the_other_45_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SEND_BYTES", 4096)
    console, city = made_up(tmp_path, 20_000, stalled_s_max=8.0)
    city.tick(1.0)
    async with console:
        stalled = [await _stalled(console) for _ in range(5)]
        pages = [Page(aiohttp.ClientSession(), console.address) for _ in range(45)]
        try:
            for one in pages:
                await one.open()
            for one in pages:
                await one.until(lambda one=one: one.heads, "a first frame")
            # Each frame is some 10 kB: what a client that does not read has room for is full after a dozen.
            for _ in range(FRAMES):
                picture = city.tick(1.0)
                for one in pages:
                    await one.until(
                        lambda one=one, pos=picture.seq: one.heads[-1].pos == pos, "the newest frame"
                    )
            for one in pages:
                seqs = [head.seq for head in one.heads]
                assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "every tick"
            vitals = console.vitals()
            assert vitals["console_ticks"] > FRAMES
            assert vitals["console_deltas"] >= 45 * FRAMES
            await pages[0].until(
                lambda: city.tick(1.0) and console.feed.counts["clients_stalled"] == 5,
                "who stands still is counted",
            )
            await pages[0].until(lambda: not console.feed.stalled, "and let go")
        finally:
            for sock in stalled:
                sock.close()
            for one in pages:
                await one.close()
                await one.session.close()


async def test_who_goes_without_a_good_bye_is_no_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A laptop that is shut resets its connection while frames wait for it: no line in the log, its place is free."""
    monkeypatch.setattr(feed, "SEND_BYTES", 4096)
    console, city = made_up(tmp_path, 20_000, stalled_s_max=60.0)
    city.tick(1.0)
    async with console, aiohttp.ClientSession() as session:
        gone = [await _stalled(console) for _ in range(3)]
        page = Page(session, console.address)
        await page.open()
        await page.until(lambda: city.tick(1.0) and console.feed.stalled == 3, "frames wait for all three")
        for sock in gone:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        await page.until(lambda: console.vitals()["console_clients"] == 1, "their places are free")
        await page.close()
    assert "failed" not in caplog.text


async def _stalled(console: Console) -> socket.socket:
    """A WebSocket whose other end never reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", console.port))
    host = f"127.0.0.1:{console.port}"
    ask = (
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await loop.sock_sendall(sock, ask.encode())
    assert b"101" in await loop.sock_recv(sock, 64)
    return sock
