// Charts of the rooms: bars over names, lines over times, with a legend of our own. Owns uPlot's options for them.
import { h, plain } from "./dom.js";
import { library } from "./chart.js";
import { day, minute, value } from "./format.js";

const HEIGHT = 240, BARS_MAX = 40, LINES_MAX = 10, DAY_S = 86400, LABEL_CHARS = 12;
// Told apart by those who see colours otherwise too; lines differ in dashes as well.
const COLOURS = { dark: ["#6cb6ff", "#ffb340", "#5fd0a8", "#f58ab8", "#c3a6ff", "#ffe08a", "#8ad0e8", "#e8a08a", "#b8d47a", "#cfd6dd"], light: ["#0b5cc2", "#a85a00", "#0f766a", "#b0286a", "#6a3fc0", "#7a6400", "#0a6a8a", "#a03a1a", "#4a6a10", "#4a5560"] };
const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3]];

/** Draws into a box. said: {form, x, labels | times, series: [{name, values, unit}], share}. Resolves to {destroy}. */
export async function drawRoomChart(box, said, theme) {
  const UPlot = await library(), css = getComputedStyle(document.documentElement), colours = COLOURS[theme];
  const colour = (name) => css.getPropertyValue(name).trim(), read = said.share ? (v) => `${(100 * v).toFixed(1)}%` : value;
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1, size: 4 }, font: `11px ${css.fontFamily}` };
  const bars = said.form === "bars", lines = said.series.slice(0, bars ? 6 : LINES_MAX), n = bars ? Math.min(BARS_MAX, said.labels.length) : said.times.length;
  const x = bars ? [...Array(n).keys()] : said.times, wide = !bars && n > 1 && x[n - 1] - x[0] > 2 * DAY_S;
  const series = lines.map((s, i) => ({
    label: plain(s.name), stroke: colours[i % colours.length], width: bars ? 1 : 2,
    ...(bars ? { fill: `${colours[i % colours.length]}b0`, paths: UPlot.paths.bars({ size: [0.8 / lines.length, 60], align: lines.length === 1 ? 0 : i * 2 < lines.length ? -1 : 1 }), points: { show: false } } : { dash: DASHES[Math.floor(i / 3) % DASHES.length], spanGaps: true, points: { show: n < 40, size: 5 } }),
  }));
  const label = (i) => { const name = plain(said.labels[i] ?? ""); return name.length > LABEL_CHARS ? `${name.slice(0, LABEL_CHARS - 1)}…` : name; };
  const now = h("span.dim"), legend = h("p.legend", {}, lines.map((s, i) => h("span", {}, swatch(series[i]), plain(s.name), s.unit ? h("small.dim", {}, ` ${plain(s.unit)}`) : null)), now);
  box.replaceChildren(legend);
  return new UPlot({
    width: Math.max(200, box.clientWidth - 8), height: HEIGHT, legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { show: !bars } },
    scales: { x: bars ? { time: false, range: () => [-0.6, n - 0.4] } : {}, y: { range: (u, lo, hi) => [Math.min(0, lo ?? 0), (hi ?? 1) > 0 ? hi * 1.08 : 1] } },
    series: [{}, ...series],
    axes: [bars ? { ...axis, size: n > 8 ? 74 : 30, rotate: n > 8 ? -40 : 0, splits: () => x, values: () => x.map(label), grid: { show: false } } : { ...axis, size: 28, values: (u, at) => at.map((s) => (wide ? day(s * 1000) : minute(s * 1000))) },
      { ...axis, size: 58, values: (u, at) => at.map(read) }],
    hooks: { setCursor: [(u) => {
      const i = u.cursor.idx;
      now.textContent = i === null || i === undefined || i >= n ? "" : `${bars ? plain(said.labels[i]) : wide ? day(x[i] * 1000) : minute(x[i] * 1000)}: ${lines.map((s) => (s.values[i] === null || s.values[i] === undefined ? "–" : read(s.values[i]))).join(" · ")}`;
    }] },
  }, [x, ...lines.map((s) => s.values.slice(0, n))], box);
}

function swatch(series) {
  const mark = h("i.swatch", { "aria-hidden": "true" });
  mark.style.background = series.stroke;
  return mark;
}

/** A long answer (time, name, number) as one line a name. Times in seconds. */
export function byName(rows, time, name, number) {
  const times = [...new Set(rows.map(time))].filter(Number.isFinite).sort((a, b) => a - b), at = new Map(times.map((s, i) => [s, i])), lines = new Map();
  for (const row of rows) {
    const of = String(name(row) ?? "");
    if (!lines.has(of)) lines.set(of, { name: of || "–", values: Array(times.length).fill(null), total: 0 });
    const line = lines.get(of), v = number(row);
    line.values[at.get(time(row))] = v;
    line.total += Math.abs(v ?? 0);
  }
  return { times, series: [...lines.values()].sort((a, b) => b.total - a.total) };
}
