// A point's past as a chart: mean in its band of least and greatest, limits, forecasts and alerts. uPlot is fetched when first asked for.
import { h, plain } from "./dom.js";
import { clock, day, minute, stamp, value } from "./format.js";
import { THEMES } from "./palette.js";
import { t } from "./words.js";

const HEIGHT = 216;
const DAY_S = 86400;
let loading = null;

export function library() {
  loading ??= new Promise((done, failed) => {
    document.head.append(h("link", { rel: "stylesheet", href: "/static/vendor/uPlot.min.css" }),
      h("script", { src: "/static/vendor/uPlot.iife.min.js", onload: () => done(globalThis.uPlot), onerror: () => { loading = null; failed(new Error("uPlot")); } }));
  });
  return loading;
}

/** Dashed lines at the limits, in their colours; what lies outside the picture is left out. */
function limitLines(limits, look) {
  return (u) => {
    const { ctx, bbox } = u, ratio = devicePixelRatio;
    limits.forEach((limit, i) => {
      if (limit === null || limit === undefined) return;
      const y = u.valToPos(limit, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) return;
      ctx.save();
      ctx.strokeStyle = look.states[2 + i];
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.lineWidth = ratio;
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.restore();
    });
  };
}

/** Spans of alerts as bars along the top. */
function alertBars(alerts, look) {
  return (u) => {
    const { ctx, bbox } = u, high = 4 * devicePixelRatio;
    for (const a of alerts) {
      const from = Math.max(bbox.left, u.valToPos(a.onset, "x", true)), to = Math.min(bbox.left + bbox.width, a.ended_at ? u.valToPos(a.ended_at, "x", true) : bbox.left + bbox.width);
      if (to < from) continue;
      ctx.fillStyle = look.states[1 + Math.min(4, a.severity)];
      ctx.fillRect(from, bbox.top, Math.max(2, to - from), high);
    }
  };
}

/** Where readings were not good: a strip along the bottom, as high as the share of them. */
function badStrip(past, colour) {
  return (u) => {
    const { ctx, bbox } = u, high = 10 * devicePixelRatio, wide = Math.max(1, (bbox.width * past.step_s) / (past.until - past.since));
    ctx.fillStyle = colour;
    past.t.forEach((s, i) => { if (past.bad[i] > 0) ctx.fillRect(u.valToPos(s, "x", true), bbox.top + bbox.height, wide, -Math.max(2, high * past.bad[i])); });
  };
}

/** The moment of a replay, and what was expected then. */
function momentLine(past, ahead, colour) {
  return (u) => {
    const { ctx, bbox } = u, x = u.valToPos(past.moment, "x", true);
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.fillRect(x, bbox.top, devicePixelRatio, bbox.height);
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ahead.forEach((f, i) => ctx[i ? "lineTo" : "moveTo"](u.valToPos(f.at, "x", true), u.valToPos(f.value, "y", true)));
    ctx.stroke();
    ctx.restore();
  };
}

/** The newest forecast that was made by the moment that is shown, of what came after it, in order. */
export function upcoming(past) {
  const from = past.moment ?? past.t.at(-1), all = (past.forecasts ?? []).filter((f) => f.at > from && f.made_at <= (past.moment ?? Infinity));
  const newest = Math.max(...all.map((f) => f.made_at));
  return all.filter((f) => f.made_at === newest).sort((a, b) => a.at - b.at);
}

/** The range of y: the values, and the first limit above them where it is near. */
function scaleOf(past) {
  const all = [...(past.min ?? past.value), ...(past.max ?? [])].filter((v) => v !== null);
  let lo = Math.min(...all), hi = Math.max(...all);
  const room = (hi - lo) || Math.abs(hi) * 0.1 || 1;
  for (const limit of past.limits ?? []) if (limit !== null && limit > hi && limit < hi + room) hi = limit;
  for (const f of upcoming(past)) { lo = Math.min(lo, f.value); hi = Math.max(hi, f.value); }
  return [lo - room * 0.08, hi + room * 0.12];
}

/** Draws into a box; gives {destroy}. past: as /api/history answers. */
export async function drawChart(box, past, theme) {
  const UPlot = await library(), look = THEMES[theme], css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  const wide = past.until - past.since > 2 * DAY_S, unit = plain(past.unit);
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 4 }, font: `11px ${css.fontFamily}` };
  const line = { stroke: colour("--accent"), width: 1.5, points: { show: past.t.length < 40, size: 4 } };
  const say = (u, v) => (v === null || v === undefined ? "–" : `${value(v)} ${unit}`);
  const series = [{ label: t("time"), value: (u, v) => (v === null ? "–" : stamp(v * 1000)) }];
  const columns = [past.t];
  if (past.mean) {
    columns.push(past.max, past.min, past.mean);
    series.push({ label: t("max"), stroke: "transparent", width: 0, points: { show: false }, value: say }, { label: t("min"), stroke: "transparent", width: 0, points: { show: false }, value: say }, { label: t("mean"), ...line, value: say });
  } else {
    columns.push(past.value);
    series.push({ label: t("value"), ...line, value: say });
  }
  const expected = upcoming(past), ahead = past.moment ? [] : expected;
  if (ahead.length) addForecast(columns, series, ahead, colour("--warn"), say);
  const plot = new UPlot({
    width: box.clientWidth, height: HEIGHT, series, legend: { live: true }, cursor: { drag: { x: false, y: false } },
    bands: past.mean ? [{ series: [1, 2], fill: `${colour("--accent")}2e` }] : [],
    scales: { x: { range: () => [past.since, Math.max(past.until, ...ahead.map((f) => f.at))] }, y: { range: () => scaleOf(past) } },
    axes: [{ ...axis, size: 28, values: (u, at) => at.map((s) => (wide ? day(s * 1000) : minute(s * 1000))) }, { ...axis, size: 52, values: (u, at) => at.map(value) }],
    hooks: { draw: [limitLines(past.limits ?? [], look), alertBars(past.alerts ?? [], look), ...(past.bad ? [badStrip(past, colour("--offline"))] : []), ...(past.moment ? [momentLine(past, expected, colour("--warn"))] : [])] },
  }, columns, box);
  return plot;
}

function addForecast(columns, series, ahead, stroke, say) {
  const last = columns.at(-1).at(-1);
  for (let c = 0; c < columns.length; c++) columns[c] = [...columns[c], ...ahead.map((f) => (c ? null : f.at))];
  const n = columns[0].length - ahead.length;
  columns.push(columns[0].map((_, i) => (i >= n ? ahead[i - n].value : i === n - 1 ? last : null)));
  series.push({ label: t("forecast"), stroke, width: 1.5, dash: [4, 4], value: say });
}

/** The same past as a table, newest first: for those whom a chart tells nothing. */
export function historyTable(past, rowsMax = 60) {
  const rows = past.t.map((s, i) => (past.mean ? [s, past.min[i], past.mean[i], past.max[i], past.count[i], `${Math.round(100 * (1 - past.bad[i]))} %`] : [s, past.value[i], past.flag?.[i]])).slice(-rowsMax).reverse();
  const titles = past.mean ? ["time", "min", "mean", "max", "count", "quality"] : ["time", "value", "quality"];
  return h("details", {}, h("summary", {}, t("readingTable")), h("table", {}, h("thead", {}, h("tr", {}, titles.map((w) => h("th", { scope: "col" }, t(w))))),
    h("tbody", {}, rows.map(([s, ...v]) => h("tr", {}, h("th", { scope: "row" }, past.until - past.since > DAY_S ? stamp(s * 1000) : clock(s * 1000)), v.map((x) => h("td.num", {}, typeof x === "number" ? value(x) : x ?? "–")))))));
}
