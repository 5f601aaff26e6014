// Replay: the page shows a stored day instead of the feed. Owns the moment, its playing, and the live city kept beside it meanwhile.
// Everything that shows the city is told to draw again and does not know the difference; who acts is held back while this stands.
import { $, h } from "./dom.js";
import { stamp } from "./format.js";
import { groupsAt, paint, readDay } from "./pastday.js";
import { createScrubber } from "./scrubber.js";
import { t } from "./words.js";
import "./words_replay.js";
import { apply } from "./wire.js";
import { failure } from "./words_more.js";

const KEPT = 120; // steps, and live seconds, of a sparkline
const PANELS_MS = 150; // while it plays, lists and tiles follow at most so often
const DRAWER_MS = 400, DRAWER_PLAYING_MS = 2500;
const OFFLINE = 8;
const ORANGE = 3;

export async function createReplay(app) {
  await new Promise((done) => { document.head.append(h("link", { rel: "stylesheet", href: "/static/replay.css", onload: done, onerror: done })); });
  let days = [], day = null, m = -1, held = -1, asked = 0, listed = 0, playing = false, speed = 600, beat = 0, panelsAt = 0, drawerTimer = 0, loading = null;
  let live = null; // {level, state, groups, more, kpis, time, pos, seq} of the feed

  const past = {
    s: 0,
    get ms() { return past.s * 1000; },
    frame(head, flat) {
      apply(live, head.key, flat);
      Object.assign(live, { time: head.time, pos: head.pos, seq: head.seq });
      app.map.tick(); // who is unanswered blinks in the past too
    },
    kpi(said) { live.kpis.push(said); if (live.kpis.length > KEPT) live.kpis.shift(); bar.waiting(said.unacked); },
    begin(kpis) { live.kpis = kpis.slice(-KEPT); },
    alerts(said) {
      if (said.full) live.groups.clear();
      for (const g of said.changed) live.groups.set(g.id, g);
      for (const id of said.gone ?? []) live.groups.delete(id);
      live.more = said.more ?? 0;
      app.sound.watch([...live.groups.values()].filter((g) => g.class === "event" && g.severity >= ORANGE && !g.acked && !g.silenced));
    },
    /** Another registry: its live city begins with the next frame, and the day is fetched as it is now. */
    async settle() {
      Object.assign(live, { level: app.city.level.slice(), state: app.city.state.slice() });
      try {
        await load(day.date, past.s);
        app.announce(t("otherPoints"));
      } catch (error) { leave(); tellFault(error); } // rather the city now than a day of points that are gone
    },
    rebuild() { bar.build(); bar.draw(); mark(); },
  };

  const bar = createScrubber(app, {
    seek: (s) => { stop(); seek(s); }, step: (by) => { stop(); seek(day.begin + (m + by) * day.step_s); }, toggle, speed: (x) => { speed = x; }, live: leave,
    choose: (date) => load(date).catch(tellFault),
    get days() { return days; }, get day() { return day; }, get moment() { return past.s; }, get playing() { return playing; }, get rate() { return speed; },
  });
  const tellFault = (error) => app.announce(failure(error));
  const last = () => day.begin + (day.steps - 1) * day.step_s;

  /** Opens the replay at a moment (s), or at the end of the newest day. */
  async function open(at) {
    if (app.past) { if (at === undefined) leave(); else seek(at); return; }
    try {
      days = (await app.api.replayDays()).days;
      const wanted = at === undefined ? days.at(-1) : days.findLast((d) => dayOf(at) === d.date);
      if (!wanted) { app.announce(t("noDays")); return; }
      await load(wanted.date, at);
    } catch (error) { tellFault(error); }
  }

  const dayOf = (s) => stamp(s * 1000).slice(0, 10);

  async function load(date, at) {
    const mine = (loading = {});
    bar.busy(date);
    let found;
    try {
      found = readDay(await app.api.replayDay(date));
      if (found.version !== app.city.version) found = readDay(await app.api.replayDay(date)); // the registry has just changed
    } finally { if (loading === mine) bar.busy(""); }
    if (loading !== mine || found.version !== app.city.version || found.n !== app.city.n) return;
    day = found;
    held = m = -1;
    if (!app.past) enter();
    bar.build();
    seek(at ?? Math.min(last(), days.find((d) => d.date === date)?.until ?? last()));
  }

  function enter() {
    const { city } = app;
    live = { level: city.level.slice(), state: city.state.slice(), time: city.time, pos: city.pos, seq: city.seq, groups: new Map(app.alertList.all().map((g) => [g.id, g])), more: app.alertList.left, kpis: app.tiles.all() };
    app.past = past;
    app.tip?.hide();
    document.body.classList.add("replaying");
    $("scrubber").hidden = $("mark").hidden = false;
    app.announce(t("replayBegins", day.date));
    bar.waiting(live.kpis.at(-1)?.unacked);
  }

  function leave() {
    if (!app.past) return;
    stop();
    clearTimeout(drawerTimer);
    app.past = null;
    loading = day = null;
    const { city } = app;
    city.level.set(live.level);
    city.state.set(live.state);
    Object.assign(city, { time: live.time, pos: live.pos, seq: live.seq });
    document.body.classList.remove("replaying");
    $("scrubber").hidden = $("mark").hidden = true;
    app.alertList.take({ full: true, changed: [...live.groups.values()], gone: [], more: live.more });
    app.tiles.begin(live.kpis);
    app.tip?.forget();
    app.drawer.rebuild();
    app.refresh();
    app.map.remember();
    app.announce(t("liveAgain"));
    $("city").focus({ preventScroll: true });
  }

  /** The picture at a moment: at the next frame, however many were asked for until then. */
  function seek(s) {
    past.s = Math.max(day.begin, Math.min(last(), Number.isFinite(s) ? s : last()));
    asked ||= requestAnimationFrame(show);
  }

  function show() {
    asked = 0;
    if (!app.past || day?.version !== app.city.version) return; // of another registry: it is being fetched again
    const began = performance.now(), { city } = app, wanted = Math.floor((past.s - day.begin) / day.step_s);
    bar.draw();
    if (wanted === m) return;
    m = wanted;
    paint(day, m, city.state, held);
    held = m;
    Object.assign(city, { time: (day.begin + m * day.step_s) * 1000, pos: NaN, seq: 0 });
    mark();
    city.count();
    city.arrange();
    app.map.redraw();
    app.tip?.forget();
    past.took = performance.now() - began; // for tests and the curious
    if (!playing || began - panelsAt > PANELS_MS) listed ||= requestAnimationFrame(() => { listed = 0; if (app.past && day && m >= 0) panels(); }); // the picture first
    clearTimeout(drawerTimer);
    drawerTimer = setTimeout(() => app.drawer.follow(), playing ? DRAWER_PLAYING_MS : DRAWER_MS);
    if (!playing) app.map.remember();
  }

  function panels() {
    panelsAt = performance.now();
    const groups = groupsAt(day, m);
    app.refresh(false);
    app.alertList.take({ full: true, changed: groups, gone: [], more: day.more });
    app.tiles.begin(kpis(groups));
    past.step = m;
  }

  /** The tiles at this moment: what an alerts log cannot tell is left open. */
  function kpis(groups) {
    const { city } = app, isVideo = city.kinds.map((k) => k.class === "video"), n = [0, 0], up = [0, 0], from = Math.max(0, m + 1 - KEPT), { blue, yellow, orange, red } = day.standing;
    for (let i = 0; i < city.n; i++) { const v = +isVideo[city.kind[i]]; n[v]++; if (!(city.state[i] & OFFLINE)) up[v]++; }
    const told = (i) => ({ time: day.begin + i * day.step_s, online: [NaN, 1], video: [NaN, 1], rate: null, latency_ms: null, alerts: [blue[i], yellow[i], orange[i], red[i]], unacked: null });
    const list = Array.from({ length: m - from + 1 }, (_, i) => told(from + i));
    Object.assign(list.at(-1), { online: [up[0], n[0]], video: [up[1], n[1]], unacked: groups.filter((g) => g.class === "event" && !g.acked).length });
    return list;
  }

  function mark() {
    const at = stamp((day.begin + m * day.step_s) * 1000);
    $("mark").replaceChildren(h("b", {}, t("replay")), h("span", {}, at.slice(0, 10)), h("span.time", {}, at.slice(11, 16)));
  }

  // ------------------------------------------------------------------ playing
  function toggle() { if (playing) stop(); else start(); }
  function start() {
    if (past.s >= last()) past.s = day.begin;
    playing = true;
    beat = performance.now();
    requestAnimationFrame(turn);
    bar.draw();
  }
  function stop() {
    if (!playing) return;
    playing = false;
    m = -1; // lists and link catch up
    asked ||= requestAnimationFrame(show);
    bar.draw();
  }
  function turn(now) {
    if (!playing || !day) return;
    past.s = Math.min(last(), past.s + (Math.min(1000, now - beat) / 1000) * speed);
    beat = now;
    if (past.s >= last()) { over(); return; }
    show();
    requestAnimationFrame(turn);
  }

  /** At the end of a day: on into the next where there is one, or what a growing day has got since. */
  async function over() {
    const next = days.find((d) => d.date > day.date), from = day.steps;
    show();
    try {
      if (next) await load(next.date, 0);
      else if (day.grows) await load(day.date, past.s);
    } catch (error) { tellFault(error); }
    if (playing && day && (next || day.steps > from)) { beat = performance.now(); requestAnimationFrame(turn); } else stop();
  }

  return { open, leave, past, get day() { return day; }, get step() { return m; }, get playing() { return playing; } };
}
