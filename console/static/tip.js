// What is under the pointer: the point nearest to it, at once by what the page knows, then by what the server says.
import { $, bdi, h, plain, svg } from "./dom.js";
import { span, value } from "./format.js";
import { shape, sparkPaths } from "./looks.js";
import { CLASS_NAMES } from "./palette.js";
import { pick, t } from "./words.js";
import "./words_more.js";

const REACH = 7; // CSS pixels round the pointer
const WAIT_MS = 110;
const FRESH_MS = 3000;
const HOUR_S = 3600;

export function createTip(app) {
  const node = $("tip"), known = new Map();
  let over = -1, timer = 0, asked = null, place = [0, 0];

  function position() {
    const box = $("map").getBoundingClientRect(), w = node.offsetWidth, hgt = node.offsetHeight;
    const x = place[0] + 16 + w > box.width ? place[0] - w - 12 : place[0] + 16, y = Math.min(place[1] + 14, box.height - hgt - 6);
    node.style.transform = `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`;
  }

  function draw(i) {
    const { city } = app, p = known.get(i)?.point, past = known.get(i)?.past, kind = city.kinds[city.kind[i]], cls = city.cls[i];
    const name = p ? p.name || p.id : pick(kind) || kind.id, unit = plain(p?.unit ?? kind.unit);
    const rows = [[t("kind"), `${pick(kind) || kind.id}`], [t("district"), plain(pick(city.districts[city.district[i]]))], [t("state"), t(CLASS_NAMES[cls])]];
    if (p) {
      if (!app.past) rows[2].push(p.time === null ? "" : t("age", span(app.now() / 1000 - p.time)));
      if (p.typical) rows.push([t("typical"), `${value(p.typical[0])} – ${value(p.typical[1])} ${unit}`]);
    }
    node.replaceChildren(
      h("div.name", {}, shape(cls), h("span.cut", {}, bdi(name))),
      h("div.now", {}, app.past ? (past ? value(past.mean.at(-1)) : "…") : p ? value(p.value) : "…", h("small", {}, unit)),
      h("dl", {}, rows.flatMap(([a, ...b]) => [h("dt", {}, a), h("dd", {}, b.filter(Boolean).join(" · "))])),
      past ? chart(past) : null,
    );
    node.hidden = false;
    position();
  }

  function chart(past) {
    const values = past.mean ?? past.value, limit = past.limits?.find((l) => l !== null), all = values.filter((v) => v !== null);
    if (all.length < 2) return null;
    let lo = Math.min(...all), hi = Math.max(...all);
    const close = limit !== undefined && limit !== null && limit <= hi + (hi - lo || 1) * 1.5 && limit >= lo;
    if (close) hi = Math.max(hi, limit);
    const paths = sparkPaths(values, 244, 34, lo, hi), y = close ? paths.place(limit) : 0;
    return svg("svg", { class: "spark", viewBox: "0 0 244 34", preserveAspectRatio: "none" }, svg("path", { class: "area", d: paths.area }), svg("path", { class: "stroke", d: paths.stroke }),
      ...(close ? [svg("path", { class: "tip-limit", d: `M0 ${y.toFixed(1)}H244` })] : []));
  }

  async function ask(i) {
    const old = known.get(i);
    if (old && performance.now() - old.at < FRESH_MS) return;
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked, version = app.city.version;
    try {
      const point = await app.api.point(i, version, signal);
      known.set(i, { point, past: old?.past, at: performance.now() });
      if (over === i) draw(i);
      const past = await app.api.history(i, version, app.past ? { since: app.past.s - HOUR_S, until: app.past.s } : "1h", signal, 60);
      known.set(i, { point, past, at: performance.now() });
      if (over === i) draw(i);
      if (known.size > 200) known.delete(known.keys().next().value);
    } catch { /* the next hover asks again */ }
  }

  function hide() { over = -1; clearTimeout(timer); node.hidden = true; }

  const canvas = $("city");
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("pointermove", (e) => {
    if (!app.city || app.camera.busy || e.pointerType === "touch") { hide(); return; }
    const [x, y] = app.camera.at(e), box = canvas.getBoundingClientRect();
    place = [e.clientX - box.left, e.clientY - box.top];
    app.pointerAt(x, y);
    const found = app.map.nearest(x, y, REACH);
    if (found < 0) { hide(); return; }
    if (found === over) { position(); return; }
    over = found;
    draw(found);
    clearTimeout(timer);
    timer = setTimeout(() => ask(found), WAIT_MS);
  });

  return { hide, forget: () => known.clear(), get over() { return over; } };
}
