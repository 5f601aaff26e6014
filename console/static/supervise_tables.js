// Supervision in tables: source systems and districts; appeals and food supervision.
import { h } from "./dom.js";
import { count } from "./format.js";
import { byName, drawRoomChart } from "./room_chart.js";
import { roomApi } from "./room_api.js";
import { SHOWS, table } from "./room_table.js";
import { t } from "./words.js";
import { said, w } from "./words_rooms.js";

const LOW = 0.95, ANSWER_S_MAX = 300; // five minutes are the aim
const SPANS = ["24h", "7d", "30d", "90d"];

function spans(begin, changed) {
  const node = h("span.tabs", {}, SPANS.map((s) => h("button.chip", { type: "button", "aria-pressed": String(s === begin), onclick: (e) => { node.span = s; for (const b of node.children) b.setAttribute("aria-pressed", String(b === e.currentTarget)); changed(); } }, w(`last${s}`))));
  node.span = begin;
  return node;
}
const part = (title, ...inside) => h("section", {}, h("h3", {}, title), ...inside);
const low = (v) => v !== null && v < LOW;

const HEALTH = () => [
  { key: "points", title: t("total"), show: "count" }, { key: "online", title: w("online"), show: "share", bad: low }, { key: "timely_share", title: w("timely"), show: "share", bad: low },
  { key: "late_s", title: w("late"), unit: "s", show: "number" }, { key: "good_share", title: w("goodShare"), show: "share", bad: low }, { key: "arrived_share", title: w("arrived"), show: "share", bad: low },
  { key: "alerts", title: w("alertsOpen"), show: "count", bad: (v) => v > 0 }, { key: "faults", title: w("faultsOpen"), show: "count" }, { key: "called", title: w("called"), show: (v) => count(v ?? 0), sort: (r) => r.called ?? 0 },
  { key: "answer_s", title: w("answered"), show: "span", bad: (v) => v !== null && v > ANSWER_S_MAX },
];

/** Source systems and districts. */
export function createSystems(app, again) {
  const span = spans("24h", again), inside = h("div.two"), node = h("div.tables", {}, h("div.filter", {}, span), inside);
  async function load(signal) {
    const found = await roomApi.systems(span.span, signal);
    const sources = [{ key: "source", title: w("sources") }, ...HEALTH(), { key: "refused", title: w("refused"), show: "count", bad: (v) => v > 0 }, { key: "revised_share", title: w("revised"), show: "share" }];
    inside.replaceChildren(part(w("sources"), table(w("sources"), sources, found.sources)), part(t("districts"), table(t("districts"), [{ key: "district", title: t("district") }, ...HEALTH()], found.districts)));
  }
  return { node, load };
}

// A rate, and how many cases it is of.
const WEIGHTS = { resolution_rate: "solved_answers", satisfaction_rate: "satisfied_answers", hours_to_close: "closed" }, RATES = Object.entries(WEIGHTS);
/** Sums of appeals over rows, by a column; rates put together by how many they are of. */
export function summed(rows, key) {
  const found = new Map();
  for (const row of rows) {
    const name = key(row), sum = found.get(name) ?? { name, appeals: 0, open: 0, overdue: 0, closed: 0, parts: {} };
    for (const n of ["appeals", "open", "overdue", "closed"]) sum[n] += row[n];
    for (const [n, weight] of RATES) if (row[n] !== null) { const p = (sum.parts[n] ??= [0, 0]); p[0] += row[n] * row[weight]; p[1] += row[weight]; }
    found.set(name, sum);
  }
  return [...found.values()].map(({ parts, ...sum }) => ({ ...sum, ...Object.fromEntries(RATES.map(([n]) => [n, parts[n]?.[1] ? parts[n][0] / parts[n][1] : null])) })).sort((a, b) => b.appeals - a.appeals);
}

/** Appeals to 12345, and food supervision. */
export function createServices(app, again) {
  let plot = null;
  const span = spans("30d", again), tiles = h("dl.cards.wide"), inside = h("div.two"), node = h("div.tables", {}, h("div.filter", {}, span), tiles, inside);
  const appeals = (title) => [
    { key: "name", title, show: (v) => SHOWS.text(said(v)), left: true }, { key: "appeals", title: w("accepted"), show: "count" }, { key: "open", title: w("stillOpen"), show: "count" }, { key: "overdue", title: w("overdueFindings"), show: "count", bad: (v) => v > 0 },
    { key: "closed", title: w("closedCases"), show: "count" }, { key: "resolution_rate", title: w("resolved"), show: "share" }, { key: "satisfaction_rate", title: w("satisfied"), show: "share" }, { key: "hours_to_close", title: w("hoursToClose"), unit: w("hoursUnit"), show: "number" },
  ];
  async function load(signal) {
    const found = await roomApi.services(span.span, signal), [all] = summed(found.appeals, () => "");
    const tile = (word, shown, wrong) => h(`div${wrong ? ".bad" : ""}`, {}, h("dt", {}, w(word)), h("dd", {}, shown));
    tiles.replaceChildren(...(all ? [tile("accepted", count(all.appeals)), tile("stillOpen", count(all.open)), tile("overdueFindings", count(all.overdue), all.overdue > 0), tile("resolved", SHOWS.share(all.resolution_rate)), tile("satisfied", SHOWS.share(all.satisfaction_rate)), tile("hoursToClose", `${SHOWS.number(all.hours_to_close)} ${w("hoursUnit")}`)] : []));
    const text = (v) => SHOWS.text(said(v)), box = h("div.plot", { role: "img", "aria-label": w("violationRate") });
    const rates = [{ key: "month", title: w("month"), show: (v) => String(v).slice(0, 7), left: true }, { key: "business_type", title: w("business"), show: text, left: true }, { key: "inspections", title: w("inspections"), show: "count" }, { key: "violating", title: w("violating"), show: "count" }, { key: "violation_rate", title: w("rate"), show: "share" }];
    const kinds = [{ key: "violation", title: w("violation"), show: text, left: true }, { key: "business_type", title: w("business"), show: text, left: true }, { key: "month", title: w("month"), show: (v) => String(v).slice(0, 7), left: true }, { key: "violations", title: w("violating"), show: "count" }, { key: "corrected", title: w("corrected"), show: "count", bad: (v, r) => v < r.violations }, { key: "days_to_correct", title: w("daysToCorrect"), show: "number" }];
    const feasts = [{ key: "month", title: w("month"), show: (v) => String(v).slice(0, 7), left: true }, { key: "district", title: t("district") }, ...["filed", "checked", "held"].map((n) => ({ key: n, title: w(n), show: "count" })), { key: "called_off", title: w("calledOff"), show: "count" }, { key: "guests", title: w("guests"), show: "count" }];
    const newest = (rows) => [...rows].sort((a, b) => b.month.localeCompare(a.month));
    plot?.destroy();
    plot = null;
    inside.replaceChildren(
      part(`${w("appeals")}: ${w("byDistrict")}`, table(w("byDistrict"), appeals(t("district")), summed(found.appeals, (r) => r.district))), part(`${w("appeals")}: ${w("byCategory")}`, table(w("byCategory"), appeals(w("category")), summed(found.appeals, (r) => r.category))),
      part(w("violationRate"), box, table(w("violationRate"), rates, newest(found.rates))), part(w("violationsFound"), table(w("violationsFound"), kinds, newest(found.violations))), part(w("banquets"), table(w("banquets"), feasts, newest(found.banquets))),
    );
    if (!found.rates.length) return box.remove();
    plot = await drawRoomChart(box, { form: "lines", share: true, ...byName(found.rates, (r) => Date.parse(r.month) / 1000, (r) => said(r.business_type), (r) => r.violation_rate) }, app.theme);
    return null;
  }
  return { node, load };
}
