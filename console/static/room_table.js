// Tables of the rooms: sorted by a press on a title, hostile text as text, numbers as people read them.
import { bdi, h, plain } from "./dom.js";
import { count, span, stamp, value } from "./format.js";
import { w } from "./words_rooms.js";

const ROWS_SHOWN_MAX = 500; // of a long answer; the CSV has all

const share = (v) => (v === null || v === undefined ? "–" : `${(100 * v).toFixed(v >= 0.9995 || v === 0 ? 0 : 1)}%`);
const isNumber = (v) => typeof v === "number";
export const SHOWS = {
  text: (v) => (v === null || v === undefined || v === "" ? "–" : bdi(typeof v === "object" ? JSON.stringify(v) : v)),
  number: (v) => (isNumber(v) ? value(v) : SHOWS.text(v)),
  count: (v) => (isNumber(v) ? count(v) : "–"),
  share, span: (v) => (isNumber(v) ? span(v) : "–"),
  time: (v) => (isNumber(v) ? stamp(v * 1000) : "–"),
  moment: (v) => (v ? stamp(Date.parse(v)) : "–"), // ISO 8601
};
const TEXT = new Set(["text", "time", "moment"]);

/** What shows a column of an answer, by its type in Arrow's words. */
export function showOf(type, form) {
  if (form === "share") return "share";
  if (type.startsWith("timestamp")) return "moment";
  return /^(u?int|float|double|half|decimal)/.test(type) ? "number" : "text";
}

/** columns: {key, title, unit, show: of SHOWS or a function (value, row), bad(value, row), sort(row)}; rows: objects. onrow: a row was chosen. */
export function table(title, columns, rows, { onrow, mark, most = ROWS_SHOWN_MAX } = {}) {
  let by = -1, down = true;
  const body = h("tbody"), heads = [], node = h("div.grid", { tabindex: 0, role: "group", "aria-label": title });
  const key = (row, c) => (columns[c].sort ? columns[c].sort(row) : row[columns[c].key]);

  function cell(row, column, first) {
    const v = row[column.key], show = typeof column.show === "function" ? column.show : SHOWS[column.show ?? "text"];
    const bad = column.bad?.(v, row), shown = show(v, row);
    const inside = first && onrow ? h("button", { type: "button", onclick: () => onrow(row) }, shown) : shown;
    const cls = `${TEXT.has(column.show ?? "text") || column.left ? "" : ".num"}${bad ? ".bad" : ""}`;
    return first ? h(`th${cls}`, { scope: "row" }, inside) : h(`td${cls}`, {}, inside);
  }
  function draw() {
    const order = by < 0 ? rows : [...rows].sort((a, b) => {
      const x = key(a, by), y = key(b, by), none = (v) => v === null || v === undefined || v === "";
      if (none(x) || none(y)) return none(x) - none(y); // what is not known stays at the end
      const d = isNumber(x) && isNumber(y) ? x - y : String(x).localeCompare(String(y), "zh");
      return down ? -d : d;
    });
    node.order = order;
    body.replaceChildren(...order.slice(0, most).map((row) => {
      const line = h("tr", onrow ? { onclick: (e) => { if (!e.target.closest("button")) onrow(row); } } : {}, columns.map((column, c) => cell(row, column, c === 0)));
      mark?.(row, line);
      return line;
    }));
    heads.forEach((head, c) => head.setAttribute("aria-sort", c !== by ? "none" : down ? "descending" : "ascending"));
    more.hidden = rows.length <= most;
  }
  for (const [c, column] of columns.entries()) {
    const name = h("button", { type: "button", onclick: () => { down = by === c ? !down : !TEXT.has(column.show ?? "text"); by = c; draw(); } }, plain(column.title), column.unit ? h("small", {}, ` ${plain(column.unit)}`) : null);
    heads.push(h(`th${TEXT.has(column.show ?? "text") || column.left ? "" : ".num"}`, { scope: "col" }, name));
  }
  const more = h("p.dim", { hidden: true }, w("rowsMore", count(rows.length - most)));
  node.append(h("table", {}, h("caption.unseen", {}, title), h("thead", {}, h("tr", {}, heads)), body), more);
  node.redraw = draw;
  draw();
  return node;
}
