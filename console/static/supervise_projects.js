// The walk through projects and building sites: a list, one of them in full, next and previous by key, and who was seen today.
import { bdi, h, plain, say } from "./dom.js";
import { date, span, stamp, value } from "./format.js";
import { shape } from "./looks.js";
import { NORMAL } from "./palette.js";
import { roomApi } from "./room_api.js";
import { table } from "./room_table.js";
import { pick, t } from "./words.js";
import { failure } from "./words_more.js";
import { said, w } from "./words_rooms.js";

const NEAR_KM = 260, WALKED = "yuzui.walked", OFFLINE_INTERVALS = 5, DAY_S = 86400;
const POINT_KINDS = { video: "cameras", dust_pm10: "dust", site_noise: "noise" };

export function createProjects(app) {
  let sites = [], shown = [], chosen = "", list = null, asked = null, first = true;
  const walked = readWalked();
  const district = h("select", { "aria-label": t("district"), onchange: () => draw() }), trouble = h("input", { type: "checkbox", onchange: () => draw() });
  const progress = h("b"), listBox = h("div.list"), detail = h("section.detail", { "aria-live": "polite" });
  const node = h("div.projects", {}, h("div.left", {}, h("div.filter", {}, district, h("label.line", {}, trouble, w("onlyTrouble")), progress), listBox, h("p.dim.hint", {}, w("walkKeys"))), detail);

  function readWalked() { // of today only: tomorrow is another round
    try { const kept = JSON.parse(localStorage.getItem(WALKED)); if (kept?.day === date(app.now())) return new Set(kept.sites); } catch { /* nothing kept */ }
    return new Set();
  }
  const bad = (s) => s.overdue > 0 || s.severity > 0 || s.late || s.cameras_online < s.cameras || behind(s);
  const behind = (s) => s.progress !== null && s.planned !== null && s.progress < s.planned;

  async function load(signal) {
    const found = await roomApi.projects(signal);
    sites = found.sites;
    const names = [...new Set(sites.map((s) => s.district))].sort((a, b) => a.localeCompare(b, "zh")), was = district.value;
    district.replaceChildren(h("option", { value: "" }, t("city")), ...names.map((d) => h("option", { value: d }, plain(d) || "–")));
    district.value = names.includes(was) ? was : "";
    draw();
    if (!sites.length) detail.replaceChildren(h("p.empty", {}, w("noSites")));
    else if (first || !sites.some((s) => s.project === chosen)) { first = false; await choose((list.order[0] ?? sites[0]).project); } else await show(signal);
  }

  const columns = () => [
    { key: "name", title: w("project"), left: true, show: (v, s) => [shape(s.severity ? NORMAL + Math.min(4, s.severity) : NORMAL), bdi(v || s.project)] },
    { key: "district", title: t("district") },
    { key: "progress", title: w("progress"), show: (v, s) => bar(v, s.planned) },
    { key: "cameras_online", title: w("cameras"), show: (v, s) => (s.cameras ? `${v}/${s.cameras}` : "–"), bad: (v, s) => v < s.cameras },
    { key: "dust", title: w("dust"), show: (v) => value(v) }, { key: "noise", title: w("noise"), show: (v) => value(v) },
    { key: "open", title: w("openFindings"), show: "count" }, { key: "overdue", title: w("overdueFindings"), show: "count", bad: (v) => v > 0 },
    { key: "alerts", title: w("alertsOpen"), show: "count", bad: (v) => v > 0 },
  ];

  function bar(done, planned) {
    if (done === null) return "–";
    const fill = h("i"), node_ = h("span.progress", { title: planned === null ? "" : `${w("planned")} ${Math.round(planned * 100)}%` }, fill);
    fill.style.width = `${Math.min(100, Math.max(0, done * 100))}%`;
    if (planned !== null) { const mark = h("u"); mark.style.left = `${Math.min(100, Math.max(0, planned * 100))}%`; node_.append(mark); }
    return h("span.with-bar", {}, node_, `${Math.round(done * 100)}%`);
  }

  function draw() {
    const top = list?.scrollTop ?? 0, focused = listBox.contains(document.activeElement);
    shown = sites.filter((s) => (!district.value || s.district === district.value) && (!trouble.checked || bad(s)));
    list = table(w("tabProjects"), columns(), shown, { most: 2000, onrow: (s) => choose(s.project), mark: (s, line) => { line.dataset.project = s.project; dress(line, s.project); } });
    listBox.replaceChildren(list);
    list.scrollTop = top;
    if (focused) (line(chosen)?.querySelector("button") ?? list).focus({ preventScroll: true });
    count();
  }
  const line = (project) => [...list.querySelectorAll("tbody tr")].find((one) => one.dataset.project === project);
  function dress(row, project) {
    row.classList.toggle("chosen", project === chosen);
    row.classList.toggle("walked", walked.has(project));
  }
  function count() { say(progress, w("walked", shown.filter((s) => walked.has(s.project)).length, shown.length)); }

  async function choose(project, scroll = false) {
    const before = chosen;
    chosen = project;
    walked.add(project);
    localStorage.setItem(WALKED, JSON.stringify({ day: date(app.now()), sites: [...walked] }));
    for (const one of [before, project]) { const row = line(one); if (row) dress(row, one); }
    if (scroll) line(project)?.scrollIntoView({ block: "nearest" });
    count();
    await show();
  }

  function step(by) {
    const order = list?.order ?? [], at = order.findIndex((s) => s.project === chosen), next = order[at < 0 ? 0 : at + by];
    if (next) choose(next.project, true);
  }

  async function show() {
    asked?.abort();
    const mine = (asked = new AbortController()), s = sites.find((one) => one.project === chosen);
    if (!s) return;
    const body = h("div.body", {}, h("p.dim", {}, w("asking")));
    const again = detail.dataset.project === s.project && detail.querySelector(".body");
    if (!again) { detail.replaceChildren(head(s), facts(s), body); detail.dataset.project = s.project; }
    try {
      const found = await roomApi.project(s.project, mine.signal);
      if (mine !== asked) return;
      detail.replaceChildren(head(s), facts(s), more(s, found));
    } catch (error) { if (error.name !== "AbortError") body.replaceChildren(h("p.empty", {}, failure(error))); }
  }

  function head(s) {
    const order = list.order, at = order.findIndex((one) => one.project === s.project);
    return h("div.title", {}, h("div", {}, h("h3", {}, bdi(s.name || s.project)), h("p.dim", {}, bdi(`${plain(s.project)} · ${plain(s.district) || "–"}${s.category ? ` · ${plain(s.category)}` : ""}`))),
      h("span.actions", {}, h("span.dim", {}, w("siteOf", at + 1, order.length)), h("button.chip", { type: "button", disabled: at <= 0, onclick: () => step(-1) }, w("previousSite")), h("button.chip", { type: "button", disabled: at + 1 >= order.length, onclick: () => step(1) }, w("nextSite")), h("button.chip", { type: "button", onclick: onMap }, w("onMap"))));
  }

  function facts(s) {
    const now = app.now() / 1000, due = s.due === null ? "–" : s.late ? w("lateBy", span(now - s.due)) : stamp(s.due * 1000).slice(0, 10);
    const all = [
      [w("progress"), s.progress === null ? w("notKnown") : h("span", {}, bar(s.progress, s.planned), s.planned === null ? "" : ` (${w("planned")} ${Math.round(s.planned * 100)}%)`), behind(s)], [w("plannedEnd"), due, s.late], [w("camerasOnline"), s.cameras ? `${s.cameras_online} / ${s.cameras}` : "–", s.cameras_online < s.cameras],
      [w("dust"), s.dust === null ? "–" : `${value(s.dust)} ${plain(s.dust_unit)}`], [w("noise"), s.noise === null ? "–" : `${value(s.noise)} ${plain(s.noise_unit)}`], [w("alertsOpen"), String(s.alerts), s.alerts > 0],
      [w("findings"), `${s.open} ${w("openFindings")} · ${s.overdue} ${w("overdueFindings")}${s.oldest_days === null ? "" : ` · ${w("oldestOpen", Math.floor(s.oldest_days))}`}`, s.overdue > 0], [w("approvals"), `${s.granted} / ${s.approvals} ${w("granted")}`], [w("reported"), s.reported === null ? "–" : stamp(s.reported * 1000)],
    ];
    return h("dl.cards", {}, all.map(([name, shown_, wrong]) => h(`div${wrong ? ".bad" : ""}`, {}, h("dt", {}, name), h("dd", {}, shown_))));
  }

  function more(s, found) {
    const now = app.now() / 1000, kindOf = (id) => { const k = app.city?.kinds.find((one) => one.id === id); return k ? pick(k) || id : id; };
    const heard = (p) => p.time !== null && now - p.time < OFFLINE_INTERVALS * Math.max(60, p.interval_s ?? 0);
    const points = found.points.map((p) => h("li", {}, shape(p.severity ? NORMAL + Math.min(4, p.severity) : heard(p) && !(p.kind === "video" && !(p.value > 0)) ? NORMAL : 0), h("button", { type: "button", onclick: () => app.openPoint(p.point_id, false) }, bdi(p.name || p.point_id)),
      h("span.num", {}, p.kind === "video" ? t(heard(p) && p.value > 0 ? "normal" : "offline") : `${value(p.value)} ${plain(p.unit)}`, h("small.dim", {}, ` ${POINT_KINDS[p.kind] ? w(POINT_KINDS[p.kind]) : plain(kindOf(p.kind))}`))));
    const cases = (all) => h("ul.cases", {}, all.slice(0, 60).map((c) => h(`li${c.overdue ? ".bad" : ""}`, {}, bdi(said(c.category) || c.id), h("span.dim", {}, `${said(c.state)} · ${stamp(c.opened * 1000).slice(0, 10)}`), h("span", {}, c.over !== null ? `✓ ${Math.max(0, (c.over - c.opened) / DAY_S).toFixed(1)} d` : c.due === null ? "–" : c.overdue ? w("lateBy", span(now - c.due)) : w("dueOn", stamp(c.due * 1000).slice(0, 10))))));
    const part = (word, list_, empty) => [h("h4", {}, w(word)), empty ? h("p.dim", {}, t("none")) : list_];
    return h("div.body", {}, part("equipment", h("ul.rows", {}, points), !points.length), part("findings", cases(found.finding), !found.finding.length), part("approvals", cases(found.approval), !found.approval.length));
  }

  function onMap() {
    const s = sites.find((one) => one.project === chosen);
    if (!s || s.lon === null || s.lat === null) return;
    const { x, y } = app.city.toKm(s.lon, s.lat);
    app.go("map");
    app.camera.goTo(x, y, NEAR_KM * app.camera.view.ratio);
  }

  return {
    node, load,
    key(k) {
      const act = { j: () => step(1), k: () => step(-1), o: onMap }[k];
      act?.();
      return !!act;
    },
  };
}
