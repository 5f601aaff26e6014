// 一网通查: saved queries with their parameters, as a table, a chart and CSV; SQL of one's own where that is open.
// Owns this room's piece of the page. What can be asked the server says; answers are text from outside.
import { h, plain, say } from "./dom.js";
import { byName, drawRoomChart } from "./room_chart.js";
import { roomApi } from "./room_api.js";
import { showOf, table } from "./room_table.js";
import { lang, pick, t } from "./words.js";
import { failure } from "./words_more.js";
import { said, w } from "./words_rooms.js";

const FREE = "sql", AGAIN_MS = 3000;
const GROUPS = { flood: "flood", alerts: "alertsGroup", quality: "qualityGroup", video: "video", appeals: "appeals", food: "food", projects: "projectsGroup", services: "services", other: "other" };
const MOMENTS = ["now", "now-1h", "now-3h", "now-24h", "today", "today+8h", "now-7d", "now-30d", "month-365d"];
const of = (x, key) => (lang() === "zh" ? x[`${key}_zh`] || x[`${key}_en`] : x[`${key}_en`] || x[`${key}_zh`]);

export function createQueries(app, box) {
  let listed = null, chosen = null, plot = null, asked = null, inputs = {}, parts = {};
  const list = h("div.scroll", { role: "group", "aria-label": t("roomQueries") }), main = h("section.answer", {}), filter = h("input", { type: "search", placeholder: w("findQuery"), "aria-label": w("findQuery"), autocomplete: "off", oninput: () => drawList() });
  box.classList.add("queries");
  box.append(h("nav.side", { "aria-label": t("roomQueries") }, h("div.head", {}, h("h2", { tabindex: -1 }, t("roomQueries"))), h("div.filter", {}, filter), list), main);

  async function show() {
    try {
      listed = await roomApi.queries();
    } catch (error) { return list.replaceChildren(h("p.empty", {}, failure(error))); }
    drawList();
    if (listed.untried) setTimeout(again, AGAIN_MS);
    const wanted = all().find((q) => q.name === (chosen?.name ?? app.roomLink?.split("/")[1])) ?? listed.queries[0];
    return wanted ? choose(wanted) : main.replaceChildren();
  }
  async function again() { // which of them are broken is known a little later
    const found = box.hidden ? null : await roomApi.queries().catch(() => null);
    if (!found) return;
    listed = found;
    drawList();
    if (listed.untried) setTimeout(again, AGAIN_MS);
  }
  const all = () => [...listed.queries, ...(listed.free_sql && app.mayAct() ? [{ name: FREE, zh: w("freeSql"), en: w("freeSql"), about_zh: w("freeSqlAbout"), about_en: w("freeSqlAbout"), group: "other", parameters: [], columns: {}, chart: null }] : [])];

  function drawList() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean), groups = new Map();
    for (const q of all()) {
      if (!words.every((word) => `${q.zh} ${q.en} ${q.name}`.toLowerCase().includes(word))) continue;
      if (!groups.has(q.group)) groups.set(q.group, []);
      groups.get(q.group).push(q);
    }
    const held = list.contains(document.activeElement) ? document.activeElement.dataset.query : undefined;
    list.replaceChildren(
      ...[...groups].map(([group, queries]) => h("div", {}, h("h3", {}, w(GROUPS[group] ?? "other")), h("ul", {}, queries.map((q) => h("li", {}, h("button", { type: "button", "data-query": q.name, "aria-current": q.name === chosen?.name ? "true" : "false", onclick: () => choose(q, true) }, plain(pick(q)))))))),
      listed.broken.length ? h("details.broken", {}, h("summary", {}, w("brokenQueries", listed.broken.length)), h("ul", {}, listed.broken.map((one) => h("li", {}, h("b", {}, plain(one.file)), ` ${plain(one.fault)}`)))) : "",
    );
    if (held !== undefined) list.querySelector(`[data-query="${CSS.escape(held)}"]`)?.focus({ preventScroll: true }); // a list that comes again takes nobody's place
  }

  function choose(q, go = false) {
    asked?.abort();
    plot?.destroy();
    plot = null;
    chosen = q;
    app.roomLink = `queries/${q.name}`;
    app.map.remember();
    drawList();
    inputs = Object.fromEntries(q.parameters.map((p) => [p.name, input(p)]));
    const status = h("p.dim.status", { role: "status" }), run = h("button.button.main", { type: "submit" }, w("ask"));
    const text = q.name === FREE ? h("textarea", { rows: 6, spellcheck: "false", "aria-label": w("statement"), value: app.freeSql ?? "SELECT district, max(value) FROM latest WHERE kind = 'waterlogging' GROUP BY 1", onkeydown: (e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); form.requestSubmit(); } } }) : null;
    const csv = text ? h("button.button", { type: "button", onclick: () => saveCsv(text.value, status) }, w("csvFile")) : h("a.button", { download: `${q.name}.csv` }, w("csvFile"));
    const form = h("form.ask", { onsubmit: (e) => { e.preventDefault(); answer(q, text, status, csv); } }, q.parameters.map((p) => h("label", {}, plain(pick(p)), inputs[p.name])), h("datalist", { id: "moments" }, MOMENTS.map((m) => h("option", { value: m }))), text, h("span.actions", {}, run, csv));
    const about = of(q, "about");
    parts = { plotBox: h("div.plot"), tableBox: h("div.table") };
    main.replaceChildren(h("div.head", {}, h("h2", { tabindex: -1 }, plain(pick(q)))), about ? h("p.dim.about", {}, plain(about)) : "", form, status, parts.plotBox, parts.tableBox);
    if (go) main.querySelector("h2").focus();
    if (!text) answer(q, null, status, csv);
  }

  function input(p) {
    const options = (some) => some.map(([value, name]) => h("option", { value, selected: String(value) === String(p.default) }, plain(name)));
    const everything = [["", w("everything")]];
    if (p.choices.length) return h("select", {}, options(p.choices.map((c) => [c.value, pick(c) || c.value])));
    const { city } = app;
    if (city && p.type === "district") return h("select", {}, options([...everything, ...city.districts.map((d) => [d.id, pick(d) || d.id])]));
    if (city && p.type === "kind") return h("select", {}, options([...(p.default === "" ? everything : []), ...city.kinds.map((k) => [k.id, pick(k) || k.id]), ...(p.default && !city.kinds.some((k) => k.id === p.default) ? [[p.default, p.default]] : [])]));
    if (city?.sources && p.type === "source") return h("select", {}, options([...everything, ...city.sources.map((s) => [s.id, s.id])]));
    if (p.type === "number" || p.type === "integer") return h("input", { type: "number", value: p.default, min: p.min, max: p.max, step: p.type === "integer" ? 1 : "any", required: true });
    if (p.type !== "time") return h("input", { type: "text", value: p.default, maxlength: 200 });
    return h("input", { type: "text", value: p.default, required: true, list: "moments", title: w("momentHelp"), placeholder: w("momentHelp") });
  }
  const arguments_ = () => Object.fromEntries(Object.entries(inputs).map(([name, node]) => [name, node.value]));

  async function answer(q, text, status, csv) {
    asked?.abort();
    const mine = (asked = new AbortController());
    say(status, w("asking"));
    if (!text) csv.href = roomApi.csv(q.name, arguments_());
    try {
      if (text) app.freeSql = text.value;
      const found = await (text ? roomApi.sql(text.value, mine.signal) : roomApi.query(q.name, arguments_(), mine.signal));
      if (mine !== asked) return;
      say(status, w("rows", found.answer.rows.length, Math.round(found.took_ms)));
      await drawAnswer(q, found.answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      say(status, error.status === 403 && text ? w("wrongAnswer", error.message) : failure(error));
      if (error.status === 401) app.logIn();
    }
  }

  async function saveCsv(sql, status) {
    try {
      const link = h("a", { href: URL.createObjectURL(await roomApi.sql(sql, undefined, "csv")), download: "sql.csv" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    } catch (error) { say(status, failure(error)); }
  }

  async function drawAnswer(q, found) {
    const { columns } = found, rows = found.rows.map((row) => Object.fromEntries(columns.map((c, i) => [c.name, row[i]]))), title = plain(pick(q));
    const shown = columns.map((c) => {
      const about = q.columns[c.name] ?? {}, show = showOf(c.type, about.form);
      return { key: c.name, title: pick(about) || c.name, unit: about.unit, show: show === "text" ? (v) => (typeof v === "string" && v ? h("bdi", { dir: "auto", title: plain(v) }, plain(said(v))) : v === null || v === "" ? "–" : plain(typeof v === "object" ? JSON.stringify(v) : v)) : show, left: show === "text" };
    });
    const { plotBox, tableBox } = parts;
    tableBox.replaceChildren(rows.length ? table(title, shown, rows) : h("p.empty", {}, w("noRows")));
    plot?.destroy();
    plot = null;
    plotBox.replaceChildren();
    plotBox.hidden = !q.chart || !rows.length;
    if (plotBox.hidden) return;
    const what = chartOf(q, rows);
    plotBox.setAttribute("role", "img");
    plotBox.setAttribute("aria-label", w("chartOf", title));
    plot = what ? await drawRoomChart(plotBox, what, app.theme) : null;
  }

  /** What the file's hint makes of the answer; nothing where there is too little for a chart. */
  function chartOf(q, rows) {
    const { form, x, y, by } = q.chart, titled = (key) => ({ name: pick(q.columns[key] ?? {}) || key, unit: q.columns[key]?.unit });
    const share = q.columns[y[0]]?.form === "share";
    if (form === "bars") return { form, share, labels: rows.map((r) => said(r[x]) ?? ""), series: y.map((key) => ({ ...titled(key), values: rows.map((r) => r[key]) })) };
    const at = (r) => Date.parse(r[x]) / 1000;
    if (by) { const made = byName(rows, at, (r) => said(r[by]), (r) => r[y[0]]); return made.times.length ? { form, share, ...made } : null; }
    const sorted = rows.filter((r) => Number.isFinite(at(r))).sort((a, b) => at(a) - at(b));
    return sorted.length ? { form, share, times: sorted.map(at), series: y.map((key) => ({ ...titled(key), values: sorted.map((r) => r[key]) })) } : null;
  }

  return {
    show, hide() { asked?.abort(); },
    key(k) {
      if ((k !== "j" && k !== "k") || !listed) return false;
      const names = all(), at = names.findIndex((q) => q.name === chosen?.name), next = names[at + (k === "j" ? 1 : -1)];
      if (next) choose(next, true);
      return true;
    },
  };
}
