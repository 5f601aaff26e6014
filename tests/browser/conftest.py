"""A real Chromium from the distribution before a made-up city. Skips, loudly, where there is no browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.browser_city import City, Server, serve

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGS = (
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",  # a desk without one is what the map is made for
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=user-gesture-required",
)
WAIT_MS = 60_000
"""The machine may be busy; nothing is asserted of how long a thing took."""
THROTTLE = float(os.environ.get("YUZUI_THROTTLE", "1"))
"""How many times slower the pages' own thread is made to run: what a slow machine would find, found on a quick one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser/" in str(item.path):
            item.add_marker(pytest.mark.browser)


# Of a module, not of the session: while it lives its loop runs in this thread, and no other test could run one.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests; every test has contexts of its own."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no chromium: the map is not tested in a real browser (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGS), timeout=3 * WAIT_MS)
        yield browser
        browser.close()


@dataclass
class Running:
    """A made-up city being served from a thread of its own."""

    city: City
    server: Server
    port: int
    loop: asyncio.AbstractEventLoop
    close: Callable[[], None]
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}/"


def start(city: City, port: int = 0, anonymous: bool = False) -> Running:
    """Serves a city until its ``close``."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    server, found = Server(city, anonymous), []

    async def begin() -> None:
        found.extend(await serve(server, port))
        ready.set()

    def run() -> None:
        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(120)

    async def end() -> None:
        found[2].cancel()
        for socket in list(server.sockets):
            await socket.close()
        await found[0].cleanup()

    def close() -> None:
        asyncio.run_coroutine_threadsafe(end(), loop).result(120)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(120)
        loop.close()

    return Running(city, server, found[1], loop, close)


SEED = int(os.environ.get("YUZUI_SEED", "7"))


@pytest.fixture(scope="module")
def storm() -> Iterator[Running]:
    """The whole city in a storm, with names to fear."""
    print(f"seed {SEED}")
    running = start(City(116_200, seed=SEED, hostile=True))
    yield running
    running.close()


@pytest.fixture(scope="module")
def town() -> Iterator[Running]:
    """A small part of the city in a storm, for all that does not depend on how many points there are."""
    running = start(City(6000, seed=SEED, hostile=True))
    yield running
    running.close()


@dataclass
class Page:
    """A page of the map, and everything it did that it must not do."""

    page: Any
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def settled(self) -> Page:
        """Until the points are drawn."""
        self.page.wait_for_function(
            "() => globalThis.yuzui?.frames > 0 && yuzui.map.drawn > 0", timeout=WAIT_MS
        )
        return self


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Page]]:
    """open_page(url, …): a page in a context of its own, logged in by the one-time token unless ``token`` is None."""
    contexts = []

    def build(
        url: str,
        width: int = 1920,
        height: int = 1080,
        hash_: str = "",
        token: str | None = "once",
        zone: str | None = None,
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", timezone_id=zone
        )
        contexts.append(context)
        made = Page(context.new_page())
        made.page.set_default_timeout(WAIT_MS)
        if THROTTLE > 1:
            slow = context.new_cdp_session(made.page)
            slow.send("Emulation.setCPUThrottlingRate", {"rate": THROTTLE})
        made.page.on("request", lambda r: made.requests.append(r.url))
        made.page.on("pageerror", lambda e: made.faults.append(f"{e}"))
        made.page.on("console", lambda m: made.faults.append(m.text) if m.type == "error" else None)
        if token:
            answer = context.request.post(
                f"{url}api/login",
                data={"token": token},
                headers={"Origin": url.rstrip("/")},
                timeout=WAIT_MS,
            )
            assert answer.ok, answer.text()
        made.page.goto(f"{url}#{hash_}")
        return made

    yield build
    for context in contexts:
        context.close()
