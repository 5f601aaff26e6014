"""The rooms beside the map, over a real lake: saved queries and supervision, by keyboard, with names to fear."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from console.logins import make_link
from console.server import Console
from tests.browser.conftest import Running
from tests.browser.test_map_page import axe
from tests.sight_city import HOSTILE, PROJECTS, sight_console

UNSEEN = r"[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
ELEMENTS = "() => document.querySelectorAll('#room img, #room script, #room s, #room iframe').length"
SIDEWAYS = """() => {
  const wide = innerWidth, faults = [], shown = e => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().width > 0;
  for (const e of [document.documentElement, document.body]) if (e.scrollWidth > wide) faults.push(`${e.tagName} is ${e.scrollWidth} wide`);
  for (const e of document.querySelectorAll('body *')) {
    if (!shown(e) || e.closest('.skip, .unseen, .grid')) continue;
    if (/auto|scroll/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1) faults.push(`${e.className || e.id} scrolls sideways`);
    const box = e.getBoundingClientRect();
    if (e.matches('button, input, select, textarea, a') && (box.right > wide + 1 || box.left < -1)) faults.push(`${e.outerHTML.slice(0, 80)} cannot be reached`);
  }
  return faults; }"""
"""Tables alone may be wider than the window, each in its own frame."""


@dataclass
class Served:
    """A console in a thread of its own."""

    console: Console

    @property
    def url(self) -> str:
        return self.console.address

    def token(self) -> str:
        """Logs one page in, as who may act."""
        return make_link(self.console.root, "王值班", "operate", 600)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small city with everything people ask about; a frame a second."""
    console, city = sight_console(tmp_path_factory.mktemp("rooms"), free_sql=True)
    loop, ready, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def course() -> None:
        city.tick(now_us=round(time.time() * 1e6))
        async with console:
            ready.set()
            while not over.is_set():
                city.tick(now_us=round(time.time() * 1e6))
                try:
                    await asyncio.wait_for(over.wait(), 1.0)
                except TimeoutError:
                    continue

    thread = threading.Thread(target=loop.run_until_complete, args=(course(),), daemon=True)
    thread.start()
    assert ready.wait(120)
    yield Served(console)
    loop.call_soon_threadsafe(over.set)
    thread.join(120)
    loop.close()


def untried(route: Any) -> None:
    """The list of queries as it is while some are still being tried."""
    answer = route.fetch()
    route.fulfill(response=answer, json={**answer.json(), "untried": 1})


def answered(page: Any) -> None:
    """Until a query's rows are there."""
    page.wait_for_function(
        "() => /\\d+ (行|rows)/.test(document.querySelector('.answer .status')?.textContent ?? '')"
    )


def test_saved_queries_by_keyboard(served: Served, open_page: Callable[..., Any]) -> None:
    made = open_page(served.url, token=served.token()).settled()
    page, press = made.page, made.page.keyboard.press
    page.route("**/api/queries", untried)
    page.evaluate("() => { for (const room of ['queries', 'supervision', 'queries']) void yuzui.go(room); }")
    press("2")
    page.wait_for_selector(".queries .side li button")
    answered(page)
    assert page.locator(".queries").count() == 1, "a room that is asked for twice while it is fetched is one"
    assert page.locator(".room:visible").count() == 1, (
        "and who went on before another was there does not see it"
    )
    page.wait_for_selector(".answer .uplot")
    assert page.evaluate("() => document.querySelector('.queries').contains(document.activeElement)")
    faults = axe(page, "queries, zh")
    names = page.evaluate(
        "() => [...document.querySelectorAll('.queries .side li button')].map(b => b.textContent)"
    )
    assert len(names) == 23, "all, and SQL of one's own"
    # What is broken is known a little later: the list comes again, under the finger that is on it.
    page.focus(".queries .side li:nth-child(2) button")
    held = page.evaluate("() => document.activeElement.dataset.query")
    page.evaluate("() => { document.activeElement.dataset.old = 1; }")
    page.wait_for_selector(".queries .side li button[data-old]", state="detached")
    assert page.evaluate("() => document.activeElement.dataset.query") == held
    page.unroute("**/api/queries")
    seen = set()
    for _ in names[1:]:
        press("j")
        seen.add(page.inner_text(".answer h2"))
        if page.query_selector(".answer textarea") is None:
            answered(page)
    assert seen == set(names[1:])
    # The last is SQL of one's own.
    page.focus(".answer textarea")
    page.fill(
        ".answer textarea",
        "SELECT name, length(name) AS n FROM points WHERE kind = 'waterlogging' ORDER BY point_id",
    )
    press("Control+Enter")
    answered(page)
    text = page.inner_text(".answer .grid")
    assert "<img src=x onerror=alert(1)>" in text
    assert "长" * 200 in page.evaluate("() => document.querySelector('.answer .grid').textContent")
    assert page.evaluate(ELEMENTS) == 0
    assert not page.evaluate(f"() => /{UNSEEN}/.test(document.querySelector('.answer .grid').textContent)")
    page.focus(".answer .grid thead th:nth-child(2) button")
    press("Enter")
    assert page.get_attribute(".answer .grid thead th:nth-child(2)", "aria-sort") == "descending"
    assert page.inner_text(".answer .grid tbody tr:first-child td") == "500"
    page.fill(".answer textarea", "SELECT * FROM read_text('/etc/passwd')")
    press("Control+Enter")
    page.wait_for_function(
        "() => document.querySelector('.answer .status').textContent.includes('cannot be read from here')"
    )
    # A parameter: the question is asked with it, and so is the CSV.
    page.fill(".queries .filter input", "exceed")
    page.focus(".queries .side li button")
    press("Enter")
    answered(page)
    page.focus(".answer form input[type=number]")
    page.keyboard.press("Control+A")
    page.keyboard.type("61")
    press("Enter")
    page.wait_for_function("() => document.querySelector('.answer a[download]').href.includes('limit=61')")
    answered(page)
    with page.expect_download() as download:
        page.click(".answer a[download]")
    assert download.value.suggested_filename == "exceedances.csv"
    assert "queries/exceedances" in page.evaluate("() => decodeURIComponent(yuzui.roomLink)")
    press("Escape")
    page.focus("#language")
    press("Enter")
    page.wait_for_function(
        "() => document.querySelector('.answer h2')?.textContent === 'Spans above a limit'"
    )
    page.focus("#theme")
    press("Enter")
    answered(page)
    faults += axe(page, "queries, en and light")
    assert faults == []
    assert made.faults == ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]


def test_a_walk_through_all_sites_by_key(served: Served, open_page: Callable[..., Any]) -> None:
    """Every site in the order of the list, each with its name as text; then the tables of the other tabs."""
    made = open_page(served.url, token=served.token()).settled()
    page, press = made.page, made.page.keyboard.press
    page.on("dialog", lambda d: made.faults.append("an alert() ran"))
    press("3")
    page.wait_for_selector(".detail .body h4")
    faults = axe(page, "projects")
    rows = page.evaluate("() => document.querySelectorAll('.list tbody tr').length")
    assert rows > PROJECTS
    titles = []
    for n in range(rows):
        page.wait_for_function(
            f"() => document.querySelector('.detail .actions .dim')?.textContent.includes('{n + 1} / {rows}')"
        )
        page.wait_for_selector(".detail .body h4")
        titles.append(page.evaluate("() => document.querySelector('.detail h3').textContent"))
        press("j")
    assert page.inner_text(".projects .filter b") == f"已巡 {rows}/{rows}"
    assert HOSTILE[0] in titles
    assert any(title.startswith("·gnp.exe") for title in titles), "the direction is not turned"
    assert any(len(title) == 500 for title in titles)
    assert page.evaluate(ELEMENTS) == 0
    assert not page.evaluate(f"() => /{UNSEEN}/.test(document.querySelector('#room').textContent)")
    press("k")
    page.wait_for_function(
        f"() => document.querySelector('.detail .actions .dim')?.textContent.includes('{rows - 1} / {rows}')"
    )
    # A point of the site opens in the drawer, over the room; the map at the site.
    page.evaluate(
        "() => [...document.querySelectorAll('.list tbody tr')].find(r => r.dataset.project === 'P-7').querySelector('button').click()"
    )
    page.wait_for_function(
        "() => document.querySelector('.detail h3').textContent === '示范项目 7' && document.querySelectorAll('.detail .rows button').length === 3"
    )
    page.focus(".detail .rows button")
    press("Enter")
    page.wait_for_selector("#drawer:not([hidden]) .reading")
    press("Escape")
    assert page.is_hidden("#drawer")
    press("o")
    assert page.is_hidden("#room")
    lon = page.evaluate("() => yuzui.city.toDegrees(yuzui.camera.view.x, 0).lon")
    assert lon == pytest.approx(104.0, abs=0.01)
    press("3")
    page.focus("[role=tab][aria-selected=true]")
    press("ArrowRight")
    page.wait_for_selector(".tables .grid tbody tr")
    assert page.evaluate("() => document.querySelectorAll('.tables .grid').length") == 2
    assert "system-waterlogging" in page.inner_text(".tables")
    faults += axe(page, "systems")
    press("ArrowRight")
    page.wait_for_selector(".tables .uplot")
    faults += axe(page, "services")
    link = page.evaluate("() => location.hash")
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('r=supervision/services')")
    link = page.evaluate("() => location.hash.slice(1)")
    other = (
        open_page(served.url, token=served.token(), hash_=link.replace("l=zh", "l=en") + "&t=light")
        .settled()
        .page
    )
    other.wait_for_selector(".tables .uplot")
    assert other.inner_text("[role=tab][aria-selected=true]") == "Appeals, food"
    faults += axe(other, "services, en")
    assert faults == []
    assert made.faults == []


@pytest.mark.parametrize("size", [(390, 844), (1366, 768)])
def test_nothing_scrolls_sideways_or_lies_beside_the_window(
    served: Served, town: Running, open_page: Callable[..., Any], size: tuple[int, int]
) -> None:
    """On a telephone and on a small laptop, in every room; and on a telephone the replay can be asked for."""
    faults: dict[str, list[str]] = {}
    login = open_page(town.url, *size, token=None).page
    login.wait_for_selector("dialog.login input")
    faults["login"] = login.evaluate(SIDEWAYS)
    page = open_page(town.url, *size).settled().page
    page.wait_for_selector(".alert")
    faults["map"] = page.evaluate(SIDEWAYS)
    assert page.is_visible("#replay")
    page.click(".alert .chip:not(.go)")
    page.wait_for_selector("dialog[open]")
    faults["silence"] = page.evaluate(SIDEWAYS)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open] .keys")
    faults["keys"] = page.evaluate(SIDEWAYS)
    page.keyboard.press("Escape")
    page.evaluate("() => yuzui.openPoint(yuzui.city.worst(1)[0], true)")
    page.wait_for_selector("#drawer .uplot")
    faults["drawer"] = page.evaluate(SIDEWAYS)
    for language in ("zh", "en"):
        room = open_page(served.url, *size, token=served.token(), hash_=f"l={language}").settled().page
        room.click("[data-room=queries]")
        room.wait_for_selector(".answer .uplot")
        faults[f"queries, {language}"] = room.evaluate(SIDEWAYS)
        room.click("[data-room=supervision]")
        room.wait_for_selector(".detail .body h4")
        faults[f"projects, {language}"] = room.evaluate(SIDEWAYS)
        for number in (2, 3):
            room.click(f"[role=tab]:nth-child({number})")
            room.wait_for_selector(".tables .grid tbody tr")
            faults[f"tab {number}, {language}"] = room.evaluate(SIDEWAYS)
    assert {where: found for where, found in faults.items() if found} == {}
