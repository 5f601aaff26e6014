// Small pictures: the shapes of states as SVG (the same as on the map), icons of buttons, sparklines.
import { svg } from "./dom.js";
import { CLASS_NAMES } from "./palette.js";

const SHAPES = {
  offline: () => [svg("rect", { x: 4, y: 4, width: 8, height: 8, "stroke-width": 1.6 })],
  normal: () => [svg("rect", { x: 6.5, y: 6.5, width: 3, height: 3 })],
  blue: () => [svg("rect", { x: 3.5, y: 3.5, width: 9, height: 9 })],
  yellow: () => [svg("path", { d: "M8 2 14.6 13.5H1.4Z" })],
  orange: () => [svg("path", { d: "M8 .8 15.2 8 8 15.2.8 8Z" })],
  red: () => [svg("circle", { cx: 8, cy: 8, r: 3.6 }), svg("circle", { cx: 8, cy: 8, r: 6.6, fill: "none", "stroke-width": 1.5 })],
};

/** The shape of a class (its number in palette.js). */
export const shape = (cls) => {
  const name = CLASS_NAMES[cls];
  return svg("svg", { class: `shape ${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, ...SHAPES[name]());
};

const ICONS = {
  sound: "M3 6v4h2.5L9 13V3L5.5 6ZM11.5 5.5a3.5 3.5 0 0 1 0 5M13 3.5a6 6 0 0 1 0 9", mute: "M3 6v4h2.5L9 13V3L5.5 6ZM11.5 6l3.5 4M15 6l-3.5 4",
  theme: "M8 2.5a5.5 5.5 0 1 0 5.5 6.6A4.6 4.6 0 0 1 8 2.5Z", plus: "M8 3v10M3 8h10", minus: "M3 8h10", home: "M2.5 8 8 3l5.5 5M4.5 7v6h7V7",
  panels: "M2.5 3.5h11v9h-11ZM6 3.5v9M10 3.5v9", close: "M4 4l8 8M12 4l-8 8", pin: "M8 14s-4.5-4.2-4.5-7.4a4.5 4.5 0 0 1 9 0C12.5 9.8 8 14 8 14ZM8 8.2a1.7 1.7 0 1 0 0-3.4 1.7 1.7 0 0 0 0 3.4Z",
};
export const icon = (name) => svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));

/** Path of values (numbers or null) over a box, and of the area below. lo, hi: the scale; their own where left out. */
export function sparkPaths(values, width, height, lo, hi) {
  const known = values.filter((v) => v !== null && Number.isFinite(v));
  lo ??= Math.min(...known);
  hi ??= Math.max(...known);
  const step = width / Math.max(1, values.length - 1), flat = hi - lo < 1e-9;
  const place = (v) => (flat ? height * 0.6 : height - 1 - ((v - lo) / (hi - lo)) * (height - 2));
  let stroke = "", gap = true, first = 0, last = 0;
  values.forEach((v, i) => {
    if (v === null || !Number.isFinite(v)) { gap = true; return; }
    if (!stroke) first = i;
    stroke += `${gap ? "M" : "L"}${(i * step).toFixed(1)} ${place(v).toFixed(1)}`;
    gap = false;
    last = i;
  });
  return { stroke, area: stroke ? `${stroke}L${(last * step).toFixed(1)} ${height}L${(first * step).toFixed(1)} ${height}Z` : "", place };
}

/** An empty sparkline; draw(values, lo, hi) fills it. */
export function sparkline(width = 120, height = 24) {
  const area = svg("path", { class: "area" }), stroke = svg("path", { class: "stroke" });
  const node = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, area, stroke);
  node.draw = (values, lo, hi) => {
    const paths = sparkPaths(values, width, height, lo, hi);
    stroke.setAttribute("d", paths.stroke);
    area.setAttribute("d", paths.area);
  };
  return node;
}
