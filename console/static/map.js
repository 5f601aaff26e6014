// The map in the page: renderer, camera and hands together; what is marked, lit and named on it; the link that remembers it.
// Owns when a picture is drawn: once a frame at most, and only when something changed.
import { createCamera } from "./camera.js";
import { $, h, say } from "./dom.js";
import { icon } from "./looks.js";
import { lang, pick, t } from "./words.js";
import { writeLink } from "./link.js";
import { CLASS_NAMES } from "./palette.js";
import { createRenderer } from "./renderer.js";

const CLICK_REACH = 8; // CSS pixels
const NEAR_KM = 260; // CSS pixels a km when a single point is shown
const LINK_MS = 400;
const SCALES_KM = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50];
const SCALE_PX = 110;
const FOUND_MS = 4000;

/** Index of the point whose pixel is nearest to (x, y) within reach, or -1. */
function nearest(renderer, x, y, reach) {
  for (let r = 0; r <= reach; r++) {
    let best = -1, far = Infinity;
    for (let d = -r; d <= r; d++) for (const [dx, dy] of [[d, -r], [d, r], [-r, d], [r, d]]) {
      const found = renderer.pick(x + dx, y + dy), away = dx * dx + dy * dy;
      if (found >= 0 && away < far) { best = found; far = away; }
    }
    if (best >= 0) return best;
  }
  return -1;
}

export function createMap(app) {
  const canvas = $("city"), renderer = createRenderer(canvas);
  let camera = null, shapes = [], asked = 0, beat = 0, chosen = -1, found = [], foundTimer = 0, linkTimer = 0, drawn = 0, labels = [];
  app.renderer = renderer;

  function redraw() { if (!asked && camera) asked = requestAnimationFrame(draw); }

  function draw() {
    asked = 0;
    const { city } = app;
    if (!city) return;
    const lit = app.litDistrict >= 0 ? app.litDistrict : app.chosenDistrict, name = lit >= 0 ? city.districts[lit].id : "";
    renderer.draw(camera.view, {
      x: city.x, y: city.y, order: city.order, starts: city.starts, tone: city.tone, districts: shapes, labels, theme: app.theme,
      lit: name ? shapes.findIndex((s) => s.name === name) : -1, beat, marks: chosen >= 0 ? [...found, chosen] : found,
    });
    drawn++;
    if (city.seq >= 0) app.firstPoints ??= performance.now();
  }

  /** Names of districts as masks of alpha, drawn once by the browser's own letters. */
  function relabel() {
    const ratio = camera?.view.ratio ?? 1, size = 12 * ratio, pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const font = `${size}px ${getComputedStyle(document.documentElement).fontFamily}`;
    labels = shapes.map((s) => {
      const known = app.city.districts.find((d) => d.id === s.name || d.zh === s.name), text = known ? pick(known) : s.name;
      pen.font = font;
      const w = Math.ceil(pen.measureText(text).width) + 8, hgt = Math.ceil(size * 1.5);
      pen.canvas.width = w;
      pen.canvas.height = hgt;
      Object.assign(pen, { font, textBaseline: "middle", lineWidth: 3 * ratio, lineJoin: "round" });
      const mask = (write) => {
        pen.clearRect(0, 0, w, hgt);
        write.call(pen, text, 4, hgt / 2);
        const rgba = pen.getImageData(0, 0, w, hgt).data;
        return { w, h: hgt, alpha: Uint8Array.from({ length: w * hgt }, (_, i) => rgba[4 * i + 3]) };
      };
      return { ...mask(pen.fillText), halo: mask(pen.strokeText) };
    });
    dress();
    redraw();
  }

  function dress() {
    canvas.setAttribute("aria-label", t("mapOf"));
    canvas.setAttribute("aria-roledescription", t("mapHelp"));
    const button = (name, word, act) => h("button.icon", { type: "button", title: t(word), "aria-label": t(word), onclick: act }, icon(name));
    $("map-tools").replaceChildren(button("plus", "zoomIn", () => camera.zoom(1.6)), button("minus", "zoomOut", () => camera.zoom(1 / 1.6)), button("home", "wholeCity", () => camera.fit()), button("panels", "hidePanels", bare));
  }

  function bare() { document.body.classList.toggle("bare"); remember(); }

  function moved() { // by a hand or a goTo
    app.tip?.hide();
    drawScale();
    remember();
    redraw();
  }

  function drawScale() {
    const { scale, ratio } = camera.view, css = scale / ratio;
    const km = SCALES_KM.findLast((k) => k * css <= SCALE_PX) ?? SCALES_KM[0];
    $("scale").firstElementChild.style.width = `${(km * css).toFixed(1)}px`;
    say($("scale").lastElementChild, km < 1 ? `${km * 1000} m` : `${km} km`);
  }

  function remember() { clearTimeout(linkTimer); linkTimer = setTimeout(write, LINK_MS); }
  function write() {
    const { city } = app;
    if (!city || !camera) return;
    const { lon, lat } = city.toDegrees(camera.view.x, camera.view.y);
    writeLink({
      v: [lon, lat, Math.log2(camera.view.scale / camera.view.ratio)], off: city.kinds.filter((_, k) => !city.kindShown[k]).map((k) => k.id),
      hide: CLASS_NAMES.filter((_, c) => !city.classShown[c]), p: app.drawer?.open?.id, d: app.chosenDistrict >= 0 ? city.districts[app.chosenDistrict].id : "",
      r: app.roomLink, l: lang(), t: app.theme, bare: document.body.classList.contains("bare"), at: app.past && Math.floor(app.past.s),
    });
  }

  function follow(link) { // what a link asked for
    const { city } = app;
    for (const id of link.off ?? []) { const k = city.kinds.findIndex((o) => o.id === id); if (k >= 0) city.kindShown[k] = 0; }
    for (const name of link.hide ?? []) { const c = CLASS_NAMES.indexOf(name); if (c >= 0) city.classShown[c] = 0; }
    if (link.d) app.chosenDistrict = city.districts.findIndex((d) => d.id === link.d);
    if (link.bare) document.body.classList.add("bare");
    if (link.bare) camera.resized();
    if (link.v) { const at = city.toKm(link.v[0], link.v[1]); camera.set(at.x, at.y, 2 ** link.v[2] * camera.view.ratio); }
  }

  function goPoints(points) {
    const { city } = app;
    found = points.slice(0, 20);
    clearTimeout(foundTimer);
    foundTimer = setTimeout(() => { found = []; redraw(); }, FOUND_MS);
    const box = city.extent.call(null, (i) => points.includes(i));
    if (box) goBox(box, 0.35, NEAR_KM / 2);
    redraw();
  }

  function goBox(box, share, closest) {
    const { view } = camera;
    const scale = Math.min(closest * view.ratio, share * Math.min(canvas.width / Math.max(0.01, box.x1 - box.x0), canvas.height / Math.max(0.01, box.y1 - box.y0)));
    camera.goTo((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, scale);
  }

  canvas.addEventListener("click", (e) => {
    if (!app.city || camera.dragged) return;
    const i = nearest(renderer, ...camera.at(e), CLICK_REACH * camera.view.ratio);
    if (i >= 0) app.drawer.show(i, false);
  });
  canvas.addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || !camera) return;
    const i = nearest(renderer, canvas.width / 2, canvas.height / 2, 24 * camera.view.ratio);
    if (i >= 0) app.drawer.show(i);
  });

  return {
    redraw, relabel, remember, goPoints, bare, restyle: redraw,
    nearest: (x, y, reach) => nearest(renderer, x, y, reach * camera.view.ratio),
    fit: () => camera?.fit(),
    tick() { beat ^= 1; redraw(); },
    settle(city, rings, link) {
      shapes = rings;
      if (!camera) {
        camera = createCamera(canvas, cityExtent(city, rings), moved);
        app.camera = camera;
        camera.resized();
      }
      app.tip?.forget();
      if (link) follow(link);
      city.arrange();
      drawScale();
      redraw();
    },
    mark(i) { chosen = i; redraw(); },
    goPoint(i) { goPoints([i]); },
    goDistrict(i) {
      if (i < 0) { camera.fit(); remember(); return; }
      const box = app.city.extent((p) => app.city.district[p] === i);
      if (box) goBox(box, 0.9, NEAR_KM);
      remember();
    },
    inView() {
      const { city } = app, { x, y, scale } = camera.view, w = canvas.width / 2 / scale, hgt = canvas.height / 2 / scale;
      let seen = 0;
      for (let k = 0; k < city.shown; k++) { const i = city.order[k]; if (Math.abs(city.x[i] - x) <= w && Math.abs(city.y[i] - y) <= hgt) seen++; }
      return seen;
    },
    get drawn() { return drawn; },
  };
}

/** What must be seen when the whole city is: its outlines, or its points where there are none. */
function cityExtent(city, rings) {
  const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (const s of rings) for (const r of s.rings) for (let i = 0; i < r.x.length; i++) {
    box.x0 = Math.min(box.x0, r.x[i]); box.x1 = Math.max(box.x1, r.x[i]); box.y0 = Math.min(box.y0, r.y[i]); box.y1 = Math.max(box.y1, r.y[i]);
  }
  return rings.length ? box : city.extent() ?? { x0: 0, y0: 0, x1: city.width, y1: city.height };
}
