// The drawer: everything about one point. Opened by a click, a search, an alert or a link; closed by Escape.
import { $, bdi, h, plain, say } from "./dom.js";
import { drawChart, historyTable, upcoming } from "./chart.js";
import { clock, span, stamp, value } from "./format.js";
import { icon, shape } from "./looks.js";
import { CLASS_NAMES, CLASS_OF, NORMAL } from "./palette.js";
import { pick, ruleName, t } from "./words.js";
import { failure } from "./words_more.js";

const SPANS = { "1h": "span1h", "24h": "span24h", "7d": "span7d", "30d": "span30d" };
const SPAN_S = { "1h": 3600, "24h": 86400, "7d": 7 * 86400, "30d": 30 * 86400 };
const AGAIN_MS = 5000; // the value of an open drawer is asked again so often
const FLAGS = { good: "good", not_evaluated: "notEvaluated", suspect: "suspect", bad: "bad", fail: "bad", missing: "missing" };

export function createDrawer(app) {
  const node = $("drawer");
  let open = null, span0 = "1h", plot = null, asked = null, parts = null, from = null, shown = null, turns = 0;

  async function show(which, focus = true) {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    if (node.hidden) from = document.activeElement;
    try {
      const point = await app.api.point(which, app.city.version, signal);
      open = point;
      shown = null;
      app.chosePoint(point);
      build(point);
      node.hidden = false;
      if (focus) parts.close.focus({ preventScroll: true });
      await loadHistory();
    } catch (error) {
      if (error.name !== "AbortError") app.announce(failure(error));
    }
  }

  function close() {
    if (node.hidden) return;
    asked?.abort();
    node.hidden = true;
    open = null;
    dropPlot();
    app.chosePoint(null);
    (from?.isConnected ? from : $("city")).focus({ preventScroll: true });
  }

  function dropPlot() { plot?.destroy(); plot = null; }

  function build(p) {
    const kind = { zh: p.kind_zh, en: p.kind_en };
    parts = {
      close: h("button.icon", { type: "button", "aria-label": t("close"), title: t("close"), onclick: close }, icon("close")),
      shape: h("span"), value: h("b"), state: h("span"), age: h("span.dim"), facts: h("dl.facts.two"),
      plot: h("div.plot"), table: h("div"), csv: h("a.chip", { href: app.api.csv(p.id, span0), download: "" }, t("csv")),
      tabs: Object.entries(SPANS).map(([s, word]) => h("button.chip", { type: "button", "data-span": s, onclick: () => { span0 = s; loadHistory(); } }, t(word))),
      alerts: h("ul.rows"), neighbours: h("ul.rows"), forecasts: h("p.facts"),
    };
    const locate = h("button.icon", { type: "button", "aria-label": t("locate"), title: t("locate"), onclick: () => app.goPoint(p.index) }, icon("pin"));
    const same = p.index >= 0 ? app.city.sharing(p.index) : [];
    node.setAttribute("aria-label", plain(p.name || p.id));
    node.replaceChildren(
      h("div.title", {}, parts.shape, h("div", {}, h("h2", {}, bdi(p.name || p.id)), h("p.dim", {}, bdi(`${plain(p.district)} · ${plain(pick(kind) || p.kind)} · ${plain(p.id)}`))), locate, parts.close),
      h("div.scroll", { tabindex: 0, role: "group", "aria-label": plain(p.name || p.id) },
        h("div.reading", {}, parts.value, h("span", {}, parts.state, h("br"), parts.age)),
        limits(p), h("h3", {}, h("span", {}, t("history")), h("span.tabs", {}, parts.tabs), parts.csv), parts.plot, parts.forecasts, parts.table, parts.facts,
        h("h3", {}, h("span", {}, t("pointAlerts"))), parts.alerts,
        same.length ? [h("h3", {}, h("span", {}, t("stackedHere", same.length + 1))), h("ul.rows", {}, same.slice(0, 12).map(sharing))] : null,
        h("h3", {}, h("span", {}, t("neighbours"))), parts.neighbours),
    );
    draw(p);
  }

  function limits(p) {
    const shown = (p.levels ?? []).map((v, i) => [v, NORMAL + 1 + i]).filter(([v]) => v !== null);
    return shown.length ? h("div.limits", { "aria-label": t("limits"), role: "group" }, shown.map(([v, cls]) => h("span", {}, shape(cls), `${t(CLASS_NAMES[cls])} ${p.falling ? "≤" : "≥"} ${value(v)}`))) : null;
  }

  function sharing(i) {
    const kind = app.city.kinds[app.city.kind[i]];
    return h("li", {}, shape(app.city.cls[i]), h("button", { type: "button", onclick: () => show(i) }, bdi(pick(kind) || kind.id)), h("span"));
  }

  /** The span of the chart: up to now, or around the moment of a replay. */
  function around(name) {
    if (!app.past) return name;
    const until = Math.min(app.past.s + SPAN_S[name] / 2, app.liveNow() / 1000);
    return { since: until - SPAN_S[name], until };
  }

  /** In a replay: the last reading up to its moment that the chart has, as a point tells its own. */
  function then(p) {
    const s = app.past.s, at = shown ? shown.t.findLastIndex((one) => one <= s) : -1, flag = at >= 0 && shown.bad?.[at] > 0 ? "suspect" : "good";
    const alerts = (shown?.alerts ?? []).filter((a) => a.onset <= s && (a.ended_at === null || a.ended_at > s));
    return { ...p, value: at < 0 ? null : (shown.mean ?? shown.value)[at], time: at < 0 ? null : shown.t[at], flag, state: app.city.state[p.index] ?? 0, received_at: null, alerts, neighbours: (p.neighbours ?? []).map((q) => ({ ...q, value: null, unit: "", severity: Math.max(0, app.city.cls[q.index] - NORMAL), offline: !app.city.cls[q.index] })) };
  }

  function draw(p) {
    if (app.past) p = then(p);
    const unit = plain(p.unit), now = app.now() / 1000;
    parts.shape.replaceChildren(shape(CLASS_OF[p.state]));
    parts.value.replaceChildren(value(p.value), h("small", {}, unit));
    say(parts.state, t(CLASS_NAMES[CLASS_OF[p.state]]) + (p.time === null ? "" : ` · ${t("quality")} ${t(FLAGS[p.flag] ?? p.flag)}`));
    say(parts.age, p.time === null ? t(app.past ? "noHistory" : "never") : `${stamp(p.time * 1000)} · ${t("age", span(now - p.time))}`);
    const facts = [
      ["typical", p.typical ? `${value(p.typical[0])} – ${value(p.typical[1])}` : "–"], ["range", p.range ? p.range.map((v) => value(v)).join(" – ") : "–"],
      ["source", p.source], ["gateway", p.gateway], ["device", p.device], ["interval", p.interval_s ? span(p.interval_s) : "–"],
      ["received", p.received_at ? clock(p.received_at * 1000) : "–"], ["where", p.lon === null ? "–" : `${p.lon.toFixed(5)}, ${p.lat.toFixed(5)}`],
    ];
    parts.facts.replaceChildren(...facts.flatMap(([k, v]) => [h("dt", {}, t(k)), h("dd", {}, bdi(v || "–"))]));
    parts.alerts.replaceChildren(...(p.alerts.length ? p.alerts.map((a) => h("li", {}, shape(NORMAL + Math.min(4, a.severity)), bdi(ruleName(a.rule)), h("span.dim", {}, t("openFor", span(now - a.onset))))) : [h("li.dim", {}, h("span"), t("none"))]));
    parts.neighbours.replaceChildren(...(p.neighbours ?? []).map((q) => h("li", {}, shape(q.severity ? NORMAL + q.severity : q.offline ? 0 : NORMAL), h("button", { type: "button", onclick: () => show(q.index) }, bdi(q.name || q.id)), h("span.num", {}, `${value(q.value)} ${plain(q.unit)}`, h("small.dim", {}, `  ${q.km.toFixed(1)} km`)))));
  }

  async function loadHistory() {
    const p = open, mine = span0, when = around(mine), turn = ++turns;
    parts.tabs.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.span === mine)));
    parts.csv.href = app.api.csv(p.id, when);
    try {
      const past = await app.api.history(p.index >= 0 ? p.index : p.id, app.city.version, when, asked.signal);
      if (turn !== turns || open?.id !== p.id) return; // another span was asked for meanwhile
      dropPlot();
      shown = past;
      if (app.past) { past.moment = app.past.s; draw(open); }
      if (!past.t.length) { parts.plot.replaceChildren(h("p.empty", {}, t("noHistory"))); parts.table.replaceChildren(); return; }
      parts.plot.replaceChildren();
      const made = await drawChart(parts.plot, past, app.theme);
      if (turn !== turns) { made.destroy(); return; }
      plot = made;
      parts.table.replaceChildren(historyTable(past));
      const due = upcoming(past).find((f) => f.eta_s !== null && f.eta_s !== undefined);
      parts.forecasts.replaceChildren(due ? h("span.due", {}, t("reaches", span(due.eta_s), `${value(due.limit)} ${plain(past.unit)}`)) : "");
    } catch (error) {
      if (error.name !== "AbortError") parts.plot.replaceChildren(h("p.empty", {}, failure(error)));
    }
  }

  setInterval(async () => { // the exact value, not the shade; the chart stays as it was asked
    if (!open || document.hidden || !app.feed.connected || app.past) return;
    const p = await app.api.point(open.id).catch(() => null);
    if (p && open?.id === p.id) { open = p; draw(p); }
  }, AGAIN_MS);
  node.addEventListener("keydown", (e) => { if (e.key === "Escape") { e.stopPropagation(); close(); } });

  return { show, close, follow() { if (open) loadHistory(); }, get open() { return open; }, rebuild() { if (open) { build(open); loadHistory(); } } };
}
