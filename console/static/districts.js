// Right, below: the districts as a table, worst first. It is also what the map says to those who cannot see it.
import { $, bdi, h, say } from "./dom.js";
import { count } from "./format.js";
import { stateBar } from "./layers.js";
import { shape } from "./looks.js";
import { BLUE, CLASSES, CLASS_NAMES, OFFLINE, ORANGE, RED, YELLOW } from "./palette.js";
import { pick, t } from "./words.js";

const COLUMNS = [RED, ORANGE, YELLOW, BLUE, OFFLINE];

export function createDistricts(app) {
  let rows = [], body, city, heldAt = "";

  function build() {
    city = app.city;
    body = h("tbody");
    rows = city.districts.map((d, i) => {
      const cells = COLUMNS.map(() => h("td")), bar = stateBar(), total = h("td.dim");
      const row = h("tr", { onclick: () => app.goDistrict(i), onpointerenter: () => app.light(i), onpointerleave: () => app.light(-1) },
        h("th", { scope: "row" }, h("button", { type: "button", onfocus: () => app.light(i), onblur: () => app.light(-1) }, bdi(pick(d) || d.id))), cells, total, h("td", {}, bar));
      return { i, row, cells, bar, total };
    });
    const head = (cls) => h("th", { scope: "col", title: t(CLASS_NAMES[cls]) }, shape(cls), h("span.unseen", {}, t(CLASS_NAMES[cls])));
    const table = h("table", {}, h("caption.unseen", {}, t("mapOf")),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("district")), COLUMNS.map(head), h("th", { scope: "col" }, t("total")), h("th", { scope: "col" }, t("state")))), body);
    $("districts").replaceChildren(h("div.head", {}, h("h2", {}, t("districts")), h("button.chip", { type: "button", onclick: () => app.goDistrict(-1) }, t("city"))), h("div.scroll", { tabindex: 0, role: "group", "aria-label": t("districts") }, table));
    heldAt = "";
    draw();
  }

  function draw() {
    if (!body) return;
    const weight = [];
    for (const { i, row, cells, bar, total } of rows) {
      const counts = city.byDistrict.subarray(i * CLASSES, (i + 1) * CLASSES);
      const all = counts.reduce((a, b) => a + b, 0);
      row.hidden = !all;
      cells.forEach((cell, c) => {
        const found = counts[COLUMNS[c]];
        say(cell, found ? count(found) : "·");
        cell.className = found ? CLASS_NAMES[COLUMNS[c]] : "none";
      });
      say(total, count(all));
      bar.set(counts);
      row.classList.toggle("chosen", app.chosenDistrict === i);
      row.classList.toggle("lit", app.litDistrict === i);
      weight.push([counts[RED] * 1e12 + counts[ORANGE] * 1e8 + counts[YELLOW] * 1e4 + counts[BLUE], i]);
    }
    // Rows stay where they are while a hand or the keyboard is on them.
    if (body.matches(":hover") || body.contains(document.activeElement)) return;
    const order = weight.sort((a, b) => b[0] - a[0] || a[1] - b[1]).map((w) => w[1]), key = order.join();
    if (key !== heldAt) {
      heldAt = key;
      body.append(...order.map((i) => rows[i].row));
    }
  }

  return { build, draw };
}
