"""How fast the map draws: frame times of a real Chromium without a GPU, panning and zooming under a tick a second.

    python bench/map_frames.py            # 116,200 and 213,400 points, 1920 × 1080, 10 s each

Prints JSON: p50 and p95 of the time between frames, frames a second, what one draw costs (best, p50), ticks taken, and the
load of the machine, without which none of it means anything. On a machine that does something else the best of `draw_ms`
is the only figure to compare.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import sync_playwright

from tests.browser.conftest import ARGS, BROWSERS, start
from tests.browser_city import City

CANVAS = (1920, 1080)
AROUND = 98  # CSS pixels of the page above and below the map
RUN = """async seconds => {
  const { view } = yuzui.camera, x = view.x, y = view.y, scale = view.scale, gaps = [], cost = [], draw = yuzui.renderer.draw;
  yuzui.renderer.draw = (...what) => { const at = performance.now(); draw(...what); cost.push(performance.now() - at); };
  const began = performance.now(), ticks = yuzui.frames;
  let last = began;
  await new Promise(done => { const step = now => {
    gaps.push(now - last); last = now;
    const t = (now - began) / 1000;
    yuzui.camera.set(x + 20 * Math.sin(t), y + 15 * Math.cos(t * 1.3), scale * Math.exp(1.2 + 1.2 * Math.sin(t * 0.9)));
    t < seconds ? requestAnimationFrame(step) : done();
  }; requestAnimationFrame(step); });
  yuzui.renderer.draw = draw;
  const at = (list, share) => +[...list].sort((a, b) => a - b)[Math.floor(list.length * share)].toFixed(2);
  const canvas = document.getElementById('city');
  return {points: yuzui.city.n, canvas: [canvas.width, canvas.height], frames_s: +(gaps.length / seconds).toFixed(1),
    frame_ms: {p50: at(gaps, .5), p95: at(gaps, .95)}, draw_ms: {best: at(cost, 0), p50: at(cost, .5), p95: at(cost, .95)}, ticks: yuzui.frames - ticks};
}"""


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit("no chromium found: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGS))
        for points in (116_200, 213_400):
            running = start(City(points), anonymous=True)
            page = browser.new_page(viewport={"width": CANVAS[0], "height": CANVAS[1] + AROUND})
            page.goto(f"{running.url}#bare")
            page.wait_for_function("() => globalThis.yuzui?.frames > 1", timeout=120_000)
            print(
                json.dumps(
                    {**page.evaluate(RUN, seconds), "load": os.getloadavg()[0], "cores": os.cpu_count()}
                )
            )
            page.close()
            running.close()
        browser.close()


if __name__ == "__main__":
    main()
