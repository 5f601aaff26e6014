"""The map before a running engine: two browsers, a storm, a kill, and a day that is over.

What is printed here of times is of a machine that may do other things; the figures of the whole city are made by
bench/map_page.py and stand in bench/README.md.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import polars as pl
import pytest

from ingest.configfile import load
from ingest.simulate.city import write
from ingest.simulate.event_speaker import EventPlan, EventReport, tell
from ingest.simulate.projects import PROJECTS, projects_of, with_cameras
from storage.query import connect
from tests.browser.conftest import WAIT_MS
from tests.browser.test_map_page import axe
from tests.console_city import points_of
from tests.console_client import Page as Client
from tests.console_client import users_toml
from tests.console_past import HOSTILE, Past, us
from tests.engines import ROOT, EngineProcess, city_config, free_port, until
from tests.talk import Talker

POINTS = 5000
MOMENTS = 10
SEED = 20260703
CITY = ZoneInfo("Asia/Shanghai")
ACT_MS_MAX = 1500
"""What somebody did in one browser stands in another by then: the quicker of two, for the machine may stand still once."""
SEEK_MS_MAX = 100
"""The middle one of MOMENTS, for the same reason."""
GOOD, STALLED = 44, 5
COUNTED = """() => { const { n, state, district, districts } = yuzui.city, found = {};
  for (let i = 0; i < n; i++) { const key = districts[district[i]].id + '|' + (state[i] & 7); found[key] = (found[key] ?? 0) + 1; }
  return found; }"""
SHOWN = "() => { const n = [0, 0, 0, 0, 0]; for (const s of yuzui.city.state) n[s & 7]++; return n; }"
TOLD = "async () => (await (await fetch('/api/counts')).json()).severity"
TICKS = """() => { globalThis.ticks = []; const { map } = yuzui, tick = map.tick; map.tick = () => { tick(); const { seq, time } = yuzui.city;
  requestAnimationFrame(() => requestAnimationFrame(() => ticks.push([seq, Date.now() - time]))); }; }"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine whose lake holds a storm of the day before yesterday; wang may act, lin may look."""
    folder = tmp_path_factory.mktemp("engine")
    more = f'[console]\nenabled = true\nport = {free_port()}\nusers_file = "users.toml"\n'
    made = EngineProcess(folder, city_config(folder, free_port(), points=POINTS, more=more))
    (folder / "users.toml").write_text(users_toml(wang="operate", lin="view"))
    shutil.copytree(ROOT / "configs" / "chengdu" / "events", folder / "sources.d")
    write(with_cameras(pl.read_parquet(folder / "points.parquet"), SEED), folder / "points.parquet")
    config = load(made.config)
    past = Past(Path(config.data.dir), points_of(config))
    begin = us(yesterday())
    print("seed", SEED)
    past.storm(random.Random(SEED), begin, begin + 86_400_000_000, 300)
    past.alert("red", 7, begin + 12 * 3_600_000_000, 1, 4, onset=begin + 12 * 3_600_000_000)
    past.write()
    try:
        yield made.start()
    finally:
        if made.running:
            made.kill()


@functools.cache
def yesterday() -> datetime:
    """The day before yesterday, its midnight: over, whenever the test runs; the same day to all, over a midnight too."""
    today = datetime.now(CITY).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=2)


def flooded(engine: EngineProcess) -> list[dict[str, Any]]:
    points = pl.read_parquet(engine.folder / "points.parquet").filter(pl.col("kind") == "waterlogging")
    return points.to_dicts()


def address(engine: EngineProcess) -> str:
    ports = engine.ports()
    assert ports is not None
    found = ports["console"]
    return str(found if str(found).endswith("/") else f"{found}/")


@pytest.fixture
def look(engine: EngineProcess, open_page: Callable[..., Any]) -> Callable[..., Any]:
    """look(name, hash): a page of the engine's map with somebody logged in."""

    def build(name: str = "lin", hash_: str = "") -> Any:
        made = open_page(address(engine), token=None, hash_=hash_)
        page = made.page
        page.wait_for_selector("dialog.login input")
        page.fill("dialog.login input[autocomplete=username]", name)
        page.fill("dialog.login input[type=password]", name)
        page.keyboard.press("Enter")
        made.settled()
        made.faults = [fault for fault in made.faults if "401" not in fault]
        return made

    return build


def say_all(engine: EngineProcess, points: list[dict[str, Any]], value: float) -> None:
    with Talker(engine.port) as talker:
        now = time.time_ns() // 1_000_000
        talker.say_all([(p["topic"], b'{"ts":%d,"v":%.1f}' % (now, value)) for p in points])


def test_who_answers_in_one_browser_is_seen_in_another_and_after_a_kill(
    engine: EngineProcess, look: Callable[..., Any]
) -> None:
    """Acknowledged and silenced by hand; the engine is killed; both hold, and a silence that is over alerts again."""
    one, two = look("wang").page, look("lin").page
    first, second = flooded(engine)[0], flooded(engine)[-1]
    say_all(engine, [first, second], 28.0)
    group = "yuzui.alertList.all().find(g => g.class === 'event' && g.points.includes(I) && S)"
    ids = []
    for point in (first, second):
        index = one.evaluate("async id => (await yuzui.api.point(id)).index", point["point_id"])
        want = group.replace("I", str(index))
        one.wait_for_function(f"() => {want.replace('S', 'true')}")
        ids.append(one.evaluate(f"() => {want.replace('S', 'true')}.id"))
    took = {}
    for name, ident in zip(("ack", "silence"), ids, strict=True):
        done = {"ack": "acked && G.ack.note === '已派人'", "silence": "silenced?.why === '泵站检修'"}[name]
        ask = f"() => {{ const G = yuzui.alertList.byId('{ident}'); return G?.{done}; }}"
        two.evaluate(
            f"""() => {{ globalThis.seen = 0; const look = () => {{ if (({ask})()) seen = Date.now(); else setTimeout(look, 10); }}; look(); }}"""
        )
        if name == "ack":
            one.evaluate("id => void yuzui.dialogs.acknowledge(yuzui.alertList.byId(id))", ident)
            one.wait_for_selector("dialog[open] textarea")
            one.fill("dialog[open] textarea", "已派人")
        else:
            one.evaluate("id => void yuzui.dialogs.silence(yuzui.alertList.byId(id))", ident)
            one.wait_for_selector("dialog[open] textarea")
            one.fill("dialog[open] textarea", "泵站检修")
            one.check("dialog[open] input[type=checkbox]")
            one.click("dialog[open] .choices button:nth-child(1)")
        one.evaluate(
            "() => document.querySelector('dialog[open] form').addEventListener('submit', () => { globalThis.sent = Date.now(); })"
        )
        one.click("dialog[open] button[type=submit]")
        one.wait_for_selector("dialog[open]", state="detached")
        two.wait_for_function("() => seen")
        took[name] = two.evaluate("() => seen") - one.evaluate("() => sent")
    print(f"seen in the other browser after {took} ms")
    assert min(took.values()) <= ACT_MS_MAX
    # A silence by the API, for its end must be soon: the dialog offers half an hour at least.
    short = one.evaluate(
        """async ([point, end]) => { const all = await yuzui.api.silences(); await yuzui.api.endSilence(all[0].id, '重设');
        return yuzui.api.silence({point, until: end, why: '泵站检修', severity_max: 4}).then(() => true); }""",
        [second["point_id"], time.time() + 10],
    )
    assert short
    engine.kill()
    two.wait_for_function("() => document.getElementById('link-state').dataset.state === 'lost'")
    engine.start()
    for page in (one, two):
        page.wait_for_function("() => document.getElementById('link-state').dataset.state === 'connected'")
        page.wait_for_function(f"() => yuzui.alertList.byId('{ids[0]}')?.ack?.by === 'wang'")
    loud = f"() => {{ const g = yuzui.alertList.byId('{ids[1]}'); return g && g.told && !g.silenced && !g.acked; }}"
    two.wait_for_function(loud, timeout=WAIT_MS + 20_000)


def test_every_tick_reaches_the_page_beside_44_others_and_5_that_do_not_read(
    engine: EngineProcess, look: Callable[..., Any]
) -> None:
    page = look().page
    page.evaluate(TICKS)
    begun, ended, others = threading.Event(), threading.Event(), Crowd(address(engine))
    thread = threading.Thread(target=others.run, args=(begun, ended), daemon=True)
    thread.start()
    assert begun.wait(60)
    dice, wet = random.Random(SEED), flooded(engine)
    for _ in range(12):
        before = page.evaluate("() => ticks.length")
        say_all(engine, dice.sample(wet, 5), dice.uniform(0, 45))
        page.wait_for_function(f"() => ticks.length > {before}")
    found = page.evaluate("() => ticks")
    seqs = [seq for seq, _ in found]
    others.last = seqs[-1]
    ended.set()
    thread.join(90)
    assert len(others.seqs) == GOOD
    # A machine that stands still for a second makes the engine leave out a tick: then to all.
    told = {seq for one in (seqs, *others.seqs) for seq in one}
    for one in (seqs, *others.seqs):
        assert one == sorted(seq for seq in told if one[0] <= seq <= one[-1]), (
            "what one is told all are, in order"
        )
        assert len(one) >= 10
    ms = sorted(took for _, took in found)
    print(
        f"TICK of the engine to pixels, {POINTS} points: p50 {ms[len(ms) // 2]:.0f} ms, worst {ms[-1]:.0f} ms"
    )


class Crowd:
    """Other maps, in a thread of their own: GOOD that read, STALLED that do not."""

    def __init__(self, address: str) -> None:
        self.address, self.last, self.seqs = address, 0, list[list[int]]()

    def run(self, begun: threading.Event, ended: threading.Event) -> None:
        asyncio.run(self._run(begun, ended))

    async def _run(self, begun: threading.Event, ended: threading.Event) -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            first = Client(session, self.address)
            await first.login("lin")
            cookie = "; ".join(f"{c.key}={c.value}" for c in jar)
            kept = [self._stalled(cookie) for _ in range(STALLED)]
            good = [Client(session, self.address) for _ in range(GOOD)]
            for one in good:
                await one.open()
            for one in good:
                await one.until(lambda one=one: one.heads, "a first frame")
            begun.set()
            await asyncio.to_thread(ended.wait, 120)
            for one in good:
                await one.until(lambda one=one: one.heads[-1].seq >= self.last, "the page's last frame")
            self.seqs = [[head.seq for head in one.heads] for one in good]
            for one in good:
                await one.close()
            for sock in kept:
                sock.close()

    def _stalled(self, cookie: str) -> socket.socket:
        host = self.address.split("/")[2]
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", int(host.rpartition(":")[2])))
        sock.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {cookie}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        return sock


def test_a_day_that_is_over_is_what_a_query_counts_and_nothing_can_be_done_in_it(
    engine: EngineProcess, look: Callable[..., Any]
) -> None:
    """Ten random moments by hand and by key, over a kill between two of them; then live again."""
    made = look("wang", "l=zh&t=dark")
    page = made.page
    page.on("dialog", lambda d: made.faults.append("an alert() ran"))
    say_all(engine, flooded(engine)[:3], 41.0)
    page.wait_for_function("() => yuzui.alertList.all().some(g => g.severity === 4)")
    page.keyboard.press("r")
    page.wait_for_selector("#scrubber:not([hidden]) .track")
    date = yesterday().date().isoformat()
    page.select_option("#scrubber select[title=日期]", date)
    page.wait_for_function(f"() => yuzui.replaying.day.date === '{date}' && yuzui.replaying.step >= 0")
    dice = random.Random(SEED)
    seeks, seen = list[float](), set()
    analyst = connect(engine.data)  # a day that is over: one session is enough
    for turn in range(MOMENTS):
        if turn == MOMENTS // 2:
            engine.kill()
            page.wait_for_function("() => document.getElementById('link-state').dataset.state === 'lost'")
        if turn == MOMENTS // 2 + 1:
            engine.start()
            page.wait_for_function(
                "() => document.getElementById('link-state').dataset.state === 'connected'"
            )
        before = page.evaluate("() => yuzui.replaying.step")
        box = page.locator("#scrubber .track").bounding_box()
        page.mouse.click(box["x"] + box["width"] * dice.uniform(0.02, 0.98), box["y"] + 10)
        page.wait_for_function(f"() => yuzui.replaying.step !== {before}")
        for key in dice.choices(("ArrowLeft", "ArrowRight", "PageUp", "PageDown"), k=3):
            page.keyboard.press(key)
        page.wait_for_function(
            "() => Math.floor((yuzui.past.s - yuzui.replaying.day.begin) / 60) === yuzui.past.step"
        )
        step, took = page.evaluate("() => [yuzui.replaying.step, yuzui.past.took]")
        seeks.append(took)
        at = yesterday().timestamp() + 60 * step
        rows = analyst.execute(f"FROM map_counts_at(make_timestamptz({round(at * 1e6)}))").fetchall()
        want = Counter({f"{district}|{severity}": n for district, severity, n in rows})
        assert page.evaluate(COUNTED) == dict(want), step
        seen |= {severity for _, severity, _ in rows}
        shown = page.evaluate("() => [...yuzui.city.byClass].slice(2)")
        tiles = page.evaluate("() => yuzui.tiles.now.alerts")
        assert tiles == shown == [sum(n for _, s, n in rows if s == level) for level in (1, 2, 3, 4)]
        standing = page.evaluate(
            "() => yuzui.alertList.all().reduce((sum, g) => sum + (g.class === 'event' ? g.open : 0), 0)"
        )
        assert standing >= sum(tiles)
    assert seen == {0, 1, 2, 3, 4}
    print(f"seek, {POINTS} points: worst {max(seeks):.1f} ms")
    assert sorted(seeks)[MOMENTS // 2] <= SEEK_MS_MAX
    assert HOSTILE[:20] in page.evaluate("() => yuzui.alertList.all().map(g => g.summary_en).join()")
    assert page.evaluate("() => document.querySelectorAll('#right img').length") == 0
    # What marks it, what cannot be done in it, who waits meanwhile.
    assert page.inner_text("#mark").startswith("回放")
    edge = page.evaluate("() => getComputedStyle(document.getElementById('map'), '::after').borderTopColor")
    assert edge == "rgb(255, 179, 64)"
    assert page.evaluate("() => [...document.querySelectorAll('.alert .chip')].every(b => b.disabled)")
    page.keyboard.press("n")
    page.keyboard.press("a")
    page.wait_for_function("() => document.getElementById('said').textContent.includes('回放')")
    assert page.locator("dialog[open]").count() == 0
    page.wait_for_function("() => document.querySelector('#scrubber .live').textContent.includes('现场')")
    assert axe(page, "replay") == []
    # The drawer of then.
    page.evaluate("() => yuzui.openPoint(yuzui.city.worst(1)[0], false)")
    page.wait_for_selector("#drawer:not([hidden]) h2")
    assert axe(page, "drawer in a replay") == []
    page.keyboard.press("Escape")
    # A colleague gets the same moment by link; playing goes on to the end of the day.
    page.wait_for_function("() => location.hash.includes(`at=${Math.floor(yuzui.past.s)}`)")
    link, step = page.evaluate("() => [location.hash.slice(1), yuzui.replaying.step]")
    other = look("lin", link).page
    other.wait_for_function(f"() => yuzui.past && yuzui.replaying?.step === {step}")
    assert other.evaluate(COUNTED) == page.evaluate(COUNTED)
    other.focus("#scrubber .track")
    other.select_option("#scrubber select[title=倍速]", "3600")
    other.keyboard.press("Home")
    other.wait_for_function("() => yuzui.replaying.step === 0")
    other.focus("#scrubber .track")
    other.keyboard.press(" ")
    other.wait_for_function("() => yuzui.replaying.playing && yuzui.replaying.step > 60")
    other.keyboard.press(" ")
    assert not other.evaluate("() => yuzui.replaying.playing")
    # Live again: what the feed says, at once.
    page.click("#scrubber .live")
    page.wait_for_function("() => !yuzui.past && yuzui.alertList.all().some(g => g.severity === 4)")
    assert page.is_hidden("#mark")
    frames = page.evaluate("() => yuzui.frames")
    page.wait_for_function(f"() => yuzui.frames > {frames}")
    until(lambda: page.evaluate(SHOWN) == page.evaluate(TOLD), "the live city")
    assert [
        fault for fault in made.faults if "WebSocket" not in fault and "ERR_CONNECTION" not in fault
    ] == []


def test_thirty_sites_of_the_city_are_walked_by_key(engine: EngineProcess, look: Callable[..., Any]) -> None:
    """What offices say of their projects over the wire stands in the room, beside what their sites measure."""
    table = pl.read_parquet(engine.folder / "points.parquet")
    projects = {one.name: one for one in projects_of(table, time.time_ns() // 1000, SEED)}
    assert len(projects) == PROJECTS
    report = EventReport()
    plan = EventPlan("127.0.0.1", engine.port, str(engine.folder / "points.parquet"), 0.0, SEED, 0.4)
    thread = threading.Thread(target=lambda: asyncio.run(tell(plan, asyncio.Event(), report)))
    thread.start()
    thread.join(60)
    assert report.steps > 1_000
    devices = {device for one in projects.values() for device in one.devices}
    standing = table.filter(pl.col("device_id").is_in(devices) | pl.col("point_id").is_in(devices)).to_dicts()
    now, says = time.time_ns() // 1_000_000, {"video": 2.0, "dust_pm10": 61.0, "site_noise": 52.5}
    with Talker(engine.port) as talker:
        talker.say_all([(p["topic"], b'{"ts":%d,"v":%.1f}' % (now, says[p["kind"]])) for p in standing])
    heard = "SELECT count(*) FROM sites_by_project() WHERE known AND cameras_online = 4 AND points = 6"
    engine.until_lake(heard, [(PROJECTS,)])
    engine.until_lake("SELECT count(*) FROM event_log", [(report.steps,)])
    wanted = {
        row[0]: row[1:]
        for row in engine.lake(
            "SELECT project, open, overdue, dust, noise FROM sites_by_project() WHERE known"
        )
    }
    assert sum(overdue for _, overdue, *_ in wanted.values()) > 0
    assert {row[2:] for row in wanted.values()} == {(61.0, 52.5)}
    page = look().page
    page.keyboard.press("3")
    page.wait_for_selector(".detail .body h4")
    page.wait_for_selector(".list tbody tr")
    rows = page.evaluate("() => document.querySelectorAll('.list tbody tr').length")
    seen: dict[str, str] = {}
    for n in range(rows):
        page.wait_for_function(
            f"() => document.querySelector('.detail .actions .dim')?.textContent.includes('{n + 1} / {rows}')"
            " && document.querySelector('.detail .body h4')"
        )
        said = page.inner_text(".detail")
        number = next((number for number in wanted if f"{number} · " in said), "")
        if number:
            seen[number] = said
        if len(seen) == PROJECTS:
            break
        page.keyboard.press("j")
    assert seen.keys() == wanted.keys()
    for number, said in seen.items():
        open_, overdue, *_ = wanted[number]
        for part in ("%", "4 / 4", "61", "52.5", f"{open_} 未整改 · {overdue} 超期"):
            assert part in said, (number, part, said)


def test_points_come_and_go_while_a_day_is_replayed(engine: EngineProcess, look: Callable[..., Any]) -> None:
    """The day goes on where it was, with the points of now, and so do its counts, its playing and the live city."""
    made = look("lin", "l=zh&t=dark")
    page = made.page
    page.keyboard.press("r")
    date = yesterday().date().isoformat()
    page.wait_for_selector("#scrubber:not([hidden]) .track")
    page.select_option("#scrubber select[title=日期]", date)
    page.wait_for_function(f"() => yuzui.replaying.day.date === '{date}' && yuzui.replaying.step >= 0")
    page.focus("#scrubber .track")
    page.keyboard.press("Home")
    page.wait_for_function("() => yuzui.replaying.step === 0")
    for hour in range(1, 14):
        page.keyboard.press("PageUp")
        page.wait_for_function(f"() => yuzui.replaying.step === {hour} * 60")
    page.wait_for_function("() => yuzui.past.step === 13 * 60")
    was = page.evaluate("() => [yuzui.city.version, yuzui.city.n]")
    table = pl.read_parquet(engine.folder / "points.parquet")
    gone = flooded(engine)[7]["point_id"]
    fresh = flooded(engine)[0] | {"point_id": "fresh-1", "name": "新建下穿隧道", "topic": "cd/fresh/1"}
    made_now = pl.concat(
        [table.filter(pl.col("point_id") != gone), pl.DataFrame([fresh], schema=table.schema)]
    )
    write(made_now, engine.folder / "points.parquet")
    os.kill(engine.pid, signal.SIGHUP)
    page.wait_for_function(f"() => yuzui.city.version !== {was[0]}")
    page.wait_for_function(
        "() => yuzui.replaying.day?.version === yuzui.city.version && yuzui.past.step === 13 * 60"
    )
    page.wait_for_function("() => document.getElementById('said').textContent.includes('点位')")
    assert page.evaluate("() => yuzui.city.n") == was[1]
    at = yesterday().timestamp() + 60 * 13 * 60

    def counted() -> Counter[str]:
        rows = engine.lake(f"FROM map_counts_at(make_timestamptz({round(at * 1e6)}))")
        return Counter({f"{district}|{severity}": n for district, severity, n in rows})

    assert page.evaluate(COUNTED) == dict(counted())
    assert sum(n for key, n in counted().items() if not key.endswith("|0")) > 0
    assert page.is_visible("#mark")
    page.focus("#scrubber .track")
    page.select_option("#scrubber select[title=倍速]", "3600")
    page.focus("#scrubber .track")
    page.keyboard.press(" ")
    page.wait_for_function("() => yuzui.replaying.playing && yuzui.replaying.step > 14 * 60")
    page.keyboard.press(" ")
    page.click("#scrubber .live")
    page.wait_for_function("() => !yuzui.past")
    say_all(engine, [fresh], 28.0)
    page.wait_for_function(
        "() => yuzui.alertList.all().some(g => g.points.some(i => (yuzui.city.state[i] & 7) > 1))"
    )
    assert page.evaluate("async () => (await yuzui.api.point('fresh-1')).name") == "新建下穿隧道"
    until(lambda: page.evaluate(SHOWN) == page.evaluate(TOLD), "the live city")
    assert made.faults == []
