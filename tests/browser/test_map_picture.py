"""What the map shows is what the city is: every pixel belongs to the right point and has its colour."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.browser.conftest import SEED, Running

PALETTE = ["#a7b0bb", "#3d6b66", "#58a6ff", "#fff04d", "#ff9d00", "#e8112d"]
"""offline, normal, 蓝 黄 橙 红, as the design names them; the page must not drift from it."""

FREEZE = """() => { yuzui.feed.stop(); yuzui.map.redraw(); return new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); }"""
SPRITES = """async size => { const m = await import('/static/sprites.js');
  return [0, 1, 2, 3, 4, 5].map(c => { const p = m.sprite(c, size, 1); return {dx: [...p.dx], dy: [...p.dy]}; }); }"""
STATE = """() => { const v = yuzui.camera.view, k = document.getElementById('city');
  return {w: k.width, h: k.height, view: {x: v.x, y: v.y, scale: v.scale, ratio: v.ratio}}; }"""


def owners(state: dict[str, Any], sprites: list[dict[str, list[int]]]) -> np.ndarray:
    """Who owns each pixel, by brute force: points in drawing order, each writing its shape. int32 [h, w], -1 nobody's."""
    w, h, view = state["w"], state["h"], state["view"]
    x, y = np.asarray(state["x"], np.float32).astype(float), np.asarray(state["y"], np.float32).astype(float)
    raw = np.asarray(state["state"], np.uint8)
    severity = np.minimum(raw & 7, 4).astype(int)
    cls = np.where(severity > 0, severity + 1, np.where(raw & 0x48, 0, 1))
    px = np.floor(x * view["scale"] + (w / 2 - view["x"] * view["scale"])).astype(int)
    py = np.floor(y * view["scale"] + (h / 2 - view["y"] * view["scale"])).astype(int)
    owned = np.full((h, w), -1, np.int64)
    for c in range(6):
        mine = np.flatnonzero((cls == c) & (abs(px - w / 2) < w / 2 + 20) & (abs(py - h / 2) < h / 2 + 20))
        for dx, dy in zip(sprites[c]["dx"], sprites[c]["dy"], strict=True):
            ax, ay = px[mine] + dx, py[mine] + dy
            inside = (ax >= 0) & (ay >= 0) & (ax < w) & (ay < h)
            # within a class the later point wins, whatever part of its shape it is
            rank = c * 10_000_000 + mine[inside]
            np.maximum.at(owned, (ay[inside], ax[inside]), rank)
    return np.where(owned >= 0, owned % 10_000_000, -1)


def test_pick_names_the_owner_of_a_thousand_random_pixels(
    storm: Running, open_page: Callable[..., Any]
) -> None:
    """At three sizes of the shapes, against every point painted by brute force."""
    page = open_page(storm.url, hash_="bare").settled().page
    page.evaluate(FREEZE)
    rng = random.Random(SEED)
    points = page.evaluate(
        "() => { const c = yuzui.city; return {x: [...c.x], y: [...c.y], state: [...c.state]}; }"
    )
    for size, scale, asked in ((1, 7.0, 400), (2, 120.0, 300), (3, 500.0, 300)):
        page.evaluate(
            "s => { const m = yuzui.city.toKm(104.06, 30.66); yuzui.camera.set(m.x, m.y, s); }", scale
        )
        page.evaluate(FREEZE)
        state = {**points, **page.evaluate(STATE)}
        expected = owners(state, page.evaluate(SPRITES, size))
        taken = np.argwhere(expected >= 0)
        print(f"seed {SEED}, size {size}: {len(taken)} of {expected.size} pixels have an owner")
        pixels = [tuple(int(v) for v in taken[rng.randrange(len(taken))]) for _ in range(asked * 2 // 3)]
        pixels += [(rng.randrange(state["h"]), rng.randrange(state["w"])) for _ in range(asked - len(pixels))]
        found = page.evaluate("ps => ps.map(([y, x]) => yuzui.renderer.pick(x, y))", pixels)
        assert found == [int(expected[p]) for p in pixels]


def test_every_state_has_its_colour_and_the_most_severe_is_never_hidden(
    storm: Running, open_page: Callable[..., Any]
) -> None:
    """One place, six points on it, one of each class in every order of display; then each class alone."""
    page = open_page(storm.url, hash_="bare&t=dark").settled().page
    page.evaluate(FREEZE)
    result = page.evaluate(
        """async () => {
        const c = yuzui.city, k = document.getElementById('city'), pen = k.getContext('2d');
        const states = [8, 0, 1, 2, 3, 4], out = [];
        const mid = [k.width >> 1, k.height >> 1], km = {x: 60, y: 60};
        const draw = () => { c.count(); c.arrange(); yuzui.map.redraw(); return new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); };
        const orders = []; const permute = (a, rest) => rest.length ? rest.forEach((v, i) => permute([...a, v], rest.filter((_, j) => j !== i))) : orders.push(a);
        permute([], [0, 1, 2, 3, 4, 5]);
        c.x.fill(NaN); c.y.fill(NaN); c.state.fill(0);
        yuzui.camera.set(km.x, km.y, 40);
        for (const order of orders.filter((_, i) => i % 37 === 0)) {
          order.forEach((cls, i) => { c.x[i] = km.x; c.y[i] = km.y; c.state[i] = states[cls]; });
          await draw();
          out.push({severest: order.indexOf(5), picked: yuzui.renderer.pick(...mid)});
        }
        const colours = [];
        for (const s of states) {
          c.x.fill(NaN); c.x[0] = km.x; c.y[0] = km.y; c.state[0] = s;
          let seen = new Set();
          for (let beat = 0; beat < 4; beat++) { // orange and red blink: seen in both beats, whoever else turns them
            yuzui.map.tick();
            await draw();
            for (let dy = -8; dy <= 8; dy++) for (let dx = -8; dx <= 8; dx++) if (yuzui.renderer.pick(mid[0] + dx, mid[1] + dy) === 0) {
              const p = pen.getImageData(mid[0] + dx, mid[1] + dy, 1, 1).data;
              seen.add('#' + [...p.slice(0, 3)].map(v => v.toString(16).padStart(2, '0')).join(''));
            }
          }
          colours.push([...seen]);
        }
        return {out, colours};
      }"""
    )
    assert len(result["out"]) > 15
    assert all(o["severest"] == o["picked"] for o in result["out"])
    print(json.dumps(result["colours"]))
    for wanted, seen in zip(PALETTE, result["colours"], strict=True):
        assert wanted in seen
        assert not (set(PALETTE) - {wanted}) & set(seen)


def test_what_is_composited_is_what_was_drawn(storm: Running, open_page: Callable[..., Any]) -> None:
    """The screenshot of the browser itself, not the canvas, has the pixel of a red point."""
    made = open_page(storm.url, hash_="bare").settled()
    page = made.page
    page.evaluate(FREEZE)
    place = page.evaluate(
        """async () => { const c = yuzui.city; c.state.fill(0); c.state[100] = 0x24 & ~0x20; c.count(); c.arrange();
        yuzui.camera.set(c.x[100], c.y[100], 300); await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
        const box = document.getElementById('city').getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }"""
    )
    shot = page.screenshot(clip={"x": place[0] - 1, "y": place[1] - 1, "width": 3, "height": 3})
    seen = page.evaluate(
        """async bytes => { const image = await createImageBitmap(new Blob([new Uint8Array(bytes)], {type: 'image/png'}));
        const pen = new OffscreenCanvas(3, 3).getContext('2d'); pen.drawImage(image, 0, 0); return [...pen.getImageData(1, 1, 1, 1).data]; }""",
        list(shot),
    )
    assert seen == [0xE8, 0x11, 0x2D, 255]
    assert made.faults == []


def test_a_tick_of_data_moves_nothing_and_a_filter_hides_only_what_it_says(
    storm: Running, open_page: Callable[..., Any]
) -> None:
    page = open_page(storm.url).settled().page
    page.evaluate("yuzui.camera.set(60, 70, 33)")
    before = page.evaluate("({...yuzui.camera.view})")
    page.wait_for_function("n => yuzui.frames >= n + 3", arg=page.evaluate("yuzui.frames"))
    assert page.evaluate("({...yuzui.camera.view})") == before
    counts = page.evaluate(
        """() => { const c = yuzui.city; yuzui.showKinds([3], false); const some = c.shown; yuzui.showKinds([3], true); const all = c.shown;
        const mine = c.kind.reduce((n, k) => n + (k === 3), 0); yuzui.toggleClass(1); const abnormal = c.shown; yuzui.toggleClass(1);
        return {some, all, mine, abnormal, normal: c.byClass[1], n: c.n}; }"""
    )
    assert counts["all"] == counts["n"] == counts["some"] + counts["mine"]
    assert counts["abnormal"] == counts["n"] - counts["normal"]
