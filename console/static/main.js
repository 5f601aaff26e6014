// The page's composition: who we are, the city, the feed, and the parts of the page that hang on them.
// Owns the order of things and what is chosen; every part owns its own piece of the page.
import { createAlerts } from "./alerts.js";
import { api } from "./api.js";
import { createCity, shapesOf } from "./city.js";
import { createDistricts } from "./districts.js";
import { $, h, plain, say } from "./dom.js";
import { STALE_MS, createFeed } from "./feed.js";
import { clock, count, date, span, useZone } from "./format.js";
import { createLayers } from "./layers.js";
import { readLink } from "./link.js";
import { icon } from "./looks.js";
import { createMap } from "./map.js";
import { createSound } from "./sound.js";
import { createTiles } from "./tiles.js";
import { lang, speak, t } from "./words.js";
import { apply, registry } from "./wire.js";

const LANGUAGE = "yuzui.language", THEME = "yuzui.theme";
const started = readLink();

const app = {
  api, city: null, user: { name: "", role: "", anonymous: true }, theme: "dark", mode: "live", skew: 0,
  chosenDistrict: -1, litDistrict: -1, kpi: null,
  past: null, // a stored day that is shown instead of the feed: replay.js
  /** The moment that is shown, ms: the server's clock now, or that of a replay. */
  now: () => app.past?.ms ?? app.liveNow(),
  /** The server's clock now, ms. Of an engine whose clock is that of events: the newest event time. */
  liveNow: () => (app.mode === "replay" && !app.past && app.city?.time ? app.city.time : Date.now() + app.skew),
  mayAct: () => !app.past && app.user.role === "operate" && !app.user.anonymous,
  announce: (text) => { $("said").textContent = ""; requestAnimationFrame(() => { $("said").textContent = text; }); },
};
globalThis.yuzui = app; // for tests and the curious; it holds nothing that the page may not

// ------------------------------------------------------------------ language, theme, top right
function wear(theme) {
  app.theme = theme;
  document.documentElement.dataset.theme = theme;
  localStorage.setItem(THEME, theme);
  app.map?.restyle();
}

function retitle() {
  document.title = app.city?.name ? `${t("title")} · ${plain(app.city.name)}` : t("title");
  say($("title"), t("title"));
  say($("city-name"), app.city ? `${plain(app.city.name)} · ${t("points", count(app.city.n))}` : "");
  say($("skip"), t("skip"));
  const label = (id, text) => { $(id).title = text; $(id).setAttribute("aria-label", text); };
  $("theme").replaceChildren(icon("theme"));
  label("theme", t("theme"));
  say($("language"), t("language"));
  label("language", t("otherLanguage"));
  $("language").lang = lang() === "zh" ? "en" : "zh-CN";
  label("help", t("keys"));
  const who = $("who");
  who.hidden = false;
  say(who, app.user.anonymous ? t("login") : plain(app.user.name));
  dressRooms();
  label("who", app.user.anonymous ? t("login") : `${plain(app.user.name)} (${t(app.user.role)}) · ${t("logout")}`);
}

function rebuild() { // after another language or registry: all words again
  retitle();
  app.sound.draw();
  dressSearch();
  app.tiles.build();
  app.alertList.build();
  if (app.city) { app.layers.build(); app.districts.build(); app.map.relabel(); app.drawer.rebuild(); }
  rooms.made?.rebuild();
  drawState();
}

// ------------------------------------------------------------------ parts that are fetched when first needed
/** load() once; its answer, or nothing yet, in .made. */
function once(load) {
  let coming = null;
  const part = () => (coming ??= load().then((made) => (part.made = made), (error) => { coming = null; throw error; }));
  return part;
}
const looks = once(() => new Promise((done) => { document.head.append(h("link", { rel: "stylesheet", href: "/static/parts.css", onload: done, onerror: done })); }));
const part = (load) => once(async () => { await looks(); return load(); });
const dialogs = part(async () => (await import("./dialogs.js")).createDialogs(app));
const drawer = part(async () => (await import("./drawer.js")).createDrawer(app));
const search = part(async () => (await import("./search.js")).createSearch(app));
const tip = part(async () => (app.tip = (await import("./tip.js")).createTip(app)));
app.dialogs = Object.fromEntries(["acknowledge", "silence", "silences", "help", "login"].map((name) => [name, async (...what) => (await dialogs())[name](...what)]));
for (const name of ["acknowledge", "silence", "silences"]) { const act = app.dialogs[name]; app.dialogs[name] = async (...what) => (app.past ? app.announce(t("notInReplay")) : act(...what)); }
const replay = part(async () => (app.replaying = await (await import("./replay.js")).createReplay(app)));
/** Opens the replay at a moment (s), or at the newest; a second time: back to live. */
app.replay = async (at) => (await replay()).open(at);
app.drawer = {
  show: async (...what) => (await drawer()).show(...what), close: () => drawer.made?.close(), rebuild: () => drawer.made?.rebuild(), follow: () => drawer.made?.follow(),
  get open() { return drawer.made?.open; },
};
// The map, and the rooms beside it: ROOMS[0] is the map alone.
const rooms = part(async () => (await import("./rooms.js")).createRooms(app)), ROOMS = { map: "roomMap", queries: "roomQueries", supervision: "roomSupervision" };
const roomNow = () => app.roomLink?.split("/")[0] ?? "map";
app.roomLink = Object.hasOwn(ROOMS, started.r?.split("/")[0] ?? "") ? started.r : undefined;
app.go = async (name) => {
  if (name === "map") { app.roomLink = undefined; rooms.made?.close(); $("city").focus({ preventScroll: true }); } else {
    if (roomNow() !== name) app.roomLink = name;
    dressRooms();
    await (await rooms()).show(name);
  }
  dressRooms();
  app.map.remember();
};
function dressRooms() {
  const nav = $("rooms");
  nav.hidden = false;
  nav.setAttribute("aria-label", t("rooms"));
  if (nav.dataset.lang !== lang()) nav.replaceChildren(...Object.entries(ROOMS).map(([name, word], i) => h("button", { type: "button", "data-room": name, title: String(i + 1), onclick: () => app.go(name) }, t(word))));
  nav.dataset.lang = lang();
  for (const b of nav.children) b.setAttribute("aria-current", String(b.dataset.room === roomNow()));
}
function dressSearch() {
  $("search").placeholder = t("search");
  for (const id of ["search", "search-list"]) $(id).setAttribute("aria-label", t("search"));
}

// ------------------------------------------------------------------ the feed
function drawState() {
  const { feed } = app, quiet = feed.frameAt ? performance.now() - feed.frameAt : 0, stored = app.kpi?.stored_s ?? 0;
  const state = feed.connected ? (quiet > STALE_MS || stored * 1000 > STALE_MS ? "stale" : "connected") : feed.lostAt ? "lost" : "connecting";
  const node = $("link-state"), shown = app.city?.time ? clock(app.city.time) : t("never");
  node.dataset.state = state;
  say(node, t(state));
  const late = state === "stale" || state === "lost";
  $("map").classList.toggle("late", late);
  $("stale").hidden = !late;
  if (state === "stale") say($("stale"), t("staleBy", span(Math.max(quiet / 1000, stored)), shown));
  if (state === "lost") say($("stale"), t("lostSince", span((performance.now() - feed.lostAt) / 1000), shown));
}

const tell = {
  async hello(said) {
    app.mode = said.mode;
    app.skew = said.now * 1000 - Date.now();
    app.user = said.user ?? app.user;
    if (!app.city || app.city.version !== said.registry) await loadCity();
    (app.past ?? app.tiles).begin(said.history?.kpi ?? []);
    retitle();
  },
  kpi(said) { app.kpi = said; if (app.past) app.past.kpi(said); else app.tiles.take(said); },
  alerts(said) { if (app.past) app.past.alerts(said); else app.alertList.take(said); },
  frame(head, flat) {
    const { city } = app;
    app.frames = (app.frames ?? 0) + 1;
    if (app.past) { app.past.frame(head, flat); drawState(); return; }
    apply(city, head.key, flat);
    city.time = head.time;
    city.pos = head.pos;
    city.seq = head.seq;
    app.map.tick();
    app.refresh();
    drawState();
  },
  state: drawState,
  async refused() { // was it the session that ended?
    const me = await api.me().catch((error) => error);
    if (me.status === 401) { app.feed.stop(); await logIn(true); app.feed.start(); }
  },
};

async function loadCity() {
  const city = createCity(registry(await api.registry())), first = !app.city;
  app.outlines ??= await api.outlines();
  if (!first) for (const [k, kind] of city.kinds.entries()) { // layers that were off stay off
    const old = app.city.kinds.findIndex((o) => o.id === kind.id);
    if (old >= 0) city.kindShown[k] = app.city.kindShown[old];
  }
  if (!first) city.classShown.set(app.city.classShown);
  app.city = city;
  useZone(city.zone);
  app.map.settle(city, shapesOf(app.outlines, city), first ? started : null);
  rebuild();
  if (first && started.p) app.drawer.show(started.p, false);
  if (first && started.at) app.replay(started.at);
  app.past?.settle(); // the feed does not wait for it
  if (first && app.roomLink) app.go(roomNow());
}

// ------------------------------------------------------------------ what is chosen
function showAgain() {
  app.city.arrange();
  app.map.redraw();
  app.layers.draw();
  app.tiles.draw();
  app.alertList.draw();
  app.districts.draw();
  app.map.remember();
}
Object.assign(app, {
  refresh(anew = true) { // after the state of the city changed
    if (anew) { app.city.count(); app.city.arrange(); app.map.redraw(); }
    app.layers.draw();
    app.districts.draw();
    drawFacts();
  },
  showKinds(kinds, on) { for (const k of kinds) app.city.kindShown[k] = +on; showAgain(); },
  onlyKind(k) { const alone = app.city.kindShown.every((on, i) => +on === +(i === k)); app.city.kindShown.fill(+alone); app.city.kindShown[k] = 1; showAgain(); },
  toggleClass(cls) { if (app.city) { app.city.classShown[cls] ^= 1; showAgain(); } },
  onlyAbnormal() { const on = +!app.city.classShown[1]; app.city.classShown[0] = app.city.classShown[1] = on; showAgain(); },
  light(i) { if (app.litDistrict !== i) { app.litDistrict = i; app.map.redraw(); } },
  goDistrict(i) { app.chosenDistrict = i === app.chosenDistrict ? -1 : i; app.map.goDistrict(app.chosenDistrict); app.alertList.draw(true); app.districts.draw(); },
  pointerAt(x, y) { // canvas pixels: the place under the hand
    const { view } = app.camera, at = app.city.toDegrees(view.x + (x - $("city").width / 2) / view.scale, view.y + (y - $("city").height / 2) / view.scale);
    if (app.facts) say(app.facts.at, `${at.lon.toFixed(4)}°E  ${at.lat.toFixed(4)}°N`);
  },
  goPoint(i) { app.map.goPoint(i); },
  openPoint(i, go) { if (go) app.map.goPoint(i); app.drawer.show(i); },
  chosePoint(p) { app.map.mark(p ? p.index : -1); app.map.remember(); },
  showAlert(g) { if (g.points.length) app.map.goPoints(g.points); else if (g.district) app.map.goDistrict(app.city.districts.findIndex((d) => d.id === g.district)); },
});

/** Asks once, whoever asks: what comes every minute must not put a dialog upon the dialog. */
let asking = null;
const logIn = (must = false) => (asking ??= askWho(must).finally(() => { asking = null; }));
async function askWho(must) {
  const user = await app.dialogs.login({ must });
  if (!user) return;
  app.user = { anonymous: false, ...user };
  rebuild();
  if (!must) { app.feed.stop(); app.feed.start(); }
}
app.logIn = () => logIn(false);

function drawFacts() {
  const { city } = app, facts = $("facts");
  if (!facts.firstChild) {
    app.facts = { time: h("b"), pos: h("b"), shown: h("b"), at: h("b") };
    const fact = (word, node) => h("span", {}, t(word), " ", node);
    facts.replaceChildren(h("button.chip", { id: "replay", type: "button", onclick: () => app.replay() }, t("replay")), fact("dataTime", app.facts.time), fact("position", app.facts.pos), fact("inView", app.facts.shown), h("span.end", {}, app.facts.at));
  }
  say(app.facts.time, clock(city.time));
  say(app.facts.pos, count(city.pos));
  say(app.facts.shown, `${count(app.map.inView())} / ${count(city.n)}`);
}

function tickClock() {
  const ms = app.liveNow();
  $("clock").replaceChildren(h("small", {}, date(ms)), clock(ms));
  app.alertList.tick();
}

function keys(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  if (e.target.matches("input:not([type=checkbox]):not([type=radio]), textarea, select")) return;
  const act = {
    "/": () => { $("search").focus(); $("search").select(); }, n: () => app.alertList.step(1), p: () => app.alertList.step(-1), m: () => $("city").focus(), b: () => app.map.bare(), s: () => app.sound.toggle(), r: () => app.replay(),
    a: () => app.alertList.chosen && app.dialogs.acknowledge(app.alertList.chosen), "?": () => app.dialogs.help(), 0: () => app.map.fit(), Escape: () => app.drawer.close(), 1: () => app.go("map"), 2: () => app.go("queries"), 3: () => app.go("supervision"),
  }[e.key.length === 1 ? e.key.toLowerCase() : e.key];
  if (act && !e.defaultPrevented) { e.preventDefault(); act(); }
}

async function start() {
  speak(started.l ?? localStorage.getItem(LANGUAGE) ?? "zh");
  wear(started.t ?? localStorage.getItem(THEME) ?? "dark");
  app.sound = createSound(app);
  app.tiles = createTiles(app);
  app.alertList = createAlerts(app);
  app.layers = createLayers(app);
  app.districts = createDistricts(app);
  app.map = createMap(app);
  app.feed = createFeed(tell, () => app.city?.version);
  rebuild();
  $("theme").onclick = () => { wear(app.theme === "dark" ? "light" : "dark"); app.drawer.rebuild(); rooms.made?.rebuild(); app.map.remember(); };
  $("language").onclick = () => { speak(lang() === "zh" ? "en" : "zh"); localStorage.setItem(LANGUAGE, lang()); $("facts").replaceChildren(); rebuild(); app.past?.rebuild(); app.map.remember(); };
  $("sound").onclick = () => app.sound.toggle();
  $("help").onclick = () => app.dialogs.help();
  $("who").onclick = async () => { if (app.user.anonymous) logIn(false); else { await api.logout().catch(() => {}); location.reload(); } };
  $("search").addEventListener("focus", search, { once: true });
  $("city").addEventListener("pointermove", tip, { once: true });
  addEventListener("keydown", keys);
  setInterval(tickClock, 1000);
  setInterval(drawState, 250);
  if (started.token) {
    history.replaceState(null, "", location.pathname);
    await api.login({ token: started.token }).catch(() => null);
  }
  await identify();
  app.feed.start();
  tickClock();
}

async function identify() {
  for (;;) {
    try { app.user = await api.me(); return retitle(); } catch (error) {
      if (error.status === 401) return logIn(true);
      app.feed.lostAt ||= performance.now(); // not up yet: say so and ask again
      drawState();
      await new Promise((again) => setTimeout(again, 1500));
    }
  }
}

start();
