"""The map's page before the whole city: ticks to pixels beside 50 clients, and a stored day: its bytes and its seeks.

    python -m bench.map_page [--points 116200] [--seconds 30] [--alerts 20000]

Prints JSON. A real console with made-up pictures, a real lake whose log of alerts holds a day of storm, a real Chromium
without a GPU. ``tick_ms``: from a frame being handed to the sockets to the frame after its pixels were drawn, on one
clock. All run on one machine: the page, 45 clients that read and 5 that do not take their part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import tempfile
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from playwright.async_api import Page, async_playwright

from bench.load.maps import GOOD, STALLED, MapsOptions
from bench.map_feed import OPEN_S_MAX
from console.server import Console
from ingest.simulate.child import Child
from tests.browser.conftest import ARGS, BROWSERS
from tests.console_city import ZONE, MadeUp, made_up
from tests.console_past import Past, us

SIZE = {"width": 1920, "height": 1080}
READY = "() => globalThis.yuzui?.frames > 1 && yuzui.map.drawn > 0"
TICKS = """() => { globalThis.ticks = []; const { map } = yuzui, tick = map.tick;
  const now = () => performance.timeOrigin + performance.now(), next = f => requestAnimationFrame(f);
  map.tick = () => { tick(); const { seq } = yuzui.city; next(() => next(() => ticks.push([seq, now()]))); }; }"""
SEEK = """async seeks => { const took = [], shown = [], { day } = yuzui.replaying;
  const track = document.querySelector('#scrubber .track'), box = track.getBoundingClientRect();
  const frame = () => new Promise(done => requestAnimationFrame(done));
  track.setPointerCapture = () => {};
  for (const share of seeks) {
    const began = performance.now(), clientX = box.left + share * box.width;
    track.dispatchEvent(new PointerEvent('pointerdown', { clientX, clientY: box.top + 9, bubbles: true }));
    await frame(); took.push(yuzui.past.took);
    await frame(); shown.push(performance.now() - began);
    await frame(); await frame();
  }
  return { took, shown, day: { steps: day.steps, step_s: day.step_s, changes: day.table.at(-1) } }; }"""


def at(values: list[float], share: float) -> float:
    """A quantile, ms."""
    return round(sorted(values)[int((len(values) - 1) * share)], 1)


async def _ticks(console: Console, city: MadeUp, page: Page, seconds: int) -> dict[str, Any]:
    sent: dict[int, float] = {}
    publish = console.feed.publish

    def noted(tick: Any) -> None:
        sent[tick.seq] = time.time() * 1000
        publish(tick)

    console.feed.publish = noted  # type: ignore[method-assign]
    await page.evaluate(TICKS)
    others = await asyncio.to_thread(
        Child, "bench.load.maps", json.dumps(asdict(MapsOptions(console.address)))
    )
    while len(console.feed) < GOOD + STALLED + 1:
        city.tick(1.0, time.time_ns() // 1000)
        await asyncio.sleep(1)
    first = max(sent)
    for _ in range(seconds):
        city.tick(1.0, time.time_ns() // 1000)
        await asyncio.sleep(1)
    drawn = {seq: when for seq, when in await page.evaluate("() => ticks") if seq > first}
    took = [when - sent[seq] for seq, when in drawn.items()]
    vitals = console.vitals()
    with others:
        told = await asyncio.to_thread(others.finish, OPEN_S_MAX)
    return {
        "tick_ms": {"p50": at(took, 0.5), "p99": at(took, 0.99), "n": len(took)},
        "ticks_missed": seconds - len(took), "encode_ms_p50": vitals["console_encode_ms"], "maps": told,
    }  # fmt: skip


async def _replay(page: Page, date: str) -> dict[str, Any]:
    began = time.perf_counter()
    sizes = await page.evaluate(
        "async () => { const began = performance.now(); await yuzui.replay(); return performance.now() - began; }"
    )
    await page.wait_for_function(f"() => yuzui.replaying?.day?.date === '{date}' && yuzui.past?.step >= 0")
    opened_s = round(time.perf_counter() - began, 2)
    body = await page.evaluate(
        "async date => (await fetch(`/api/replay/${date}`)).headers.get('Content-Length')", date
    )
    dice = random.Random(1)
    found = await page.evaluate(SEEK, [dice.random() for _ in range(60)])
    return {
        "replay": {
            "opened_s": opened_s, "asked_ms": round(sizes), "bytes_gzip": int(body), **found["day"],
            "seek_work_ms": {"p50": at(found["took"], 0.5), "worst": at(found["took"], 1)},
            "seek_shown_ms": {"p50": at(found["shown"], 0.5), "worst": at(found["shown"], 1)},
        }
    }  # fmt: skip


async def _measure(folder: Path, points: int, seconds: int, alerts: int) -> dict[str, Any]:
    console, city = made_up(folder, points, clients_max=100, history_time_s_max=60.0)
    past = Past(console.root, city.engine.points)
    day = datetime.now(ZoneInfo(ZONE)).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    past.storm(random.Random(1), us(day), us(day) + 70_000_000_000, alerts)
    rows = len(past.rows)
    past.rows = [row for row in past.rows if row["recorded_at"] < us(day) + 86_400_000_000]
    past.write()
    city.tick(1.0, time.time_ns() // 1000)
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit("no chromium found: apt-get install chromium")
    async with console, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGS))
        page = await browser.new_page(viewport=SIZE)
        opening = asyncio.create_task(page.goto(console.address))
        while not opening.done() or not await page.evaluate(READY):
            city.tick(1.0, time.time_ns() // 1000)
            await asyncio.sleep(1)
        found = {
            "points": points, "alert_steps": rows, "load": os.getloadavg()[0],
            **await _ticks(console, city, page, seconds),
            **await _replay(page, day.date().isoformat()),
        }  # fmt: skip
        await browser.close()
    return found


def main() -> None:
    """Body of the command."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--points", type=int, default=116_200)
    ask.add_argument("--seconds", type=int, default=30)
    ask.add_argument("--alerts", type=int, default=20_000)
    given = ask.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="map-page-"))
    try:
        print(json.dumps(asyncio.run(_measure(folder, given.points, given.seconds, given.alerts))))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
