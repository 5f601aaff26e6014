// Left: the layers by kind with their counts, and the legend. Both choose what the map shows.
import { $, h, say } from "./dom.js";
import { count } from "./format.js";
import { shape } from "./looks.js";
import { BLUE, CLASSES, CLASS_NAMES, NORMAL, OFFLINE, ORANGE, RED, YELLOW } from "./palette.js";
import { pick, t } from "./words.js";

export const WORST_FIRST = [RED, ORANGE, YELLOW, BLUE, NORMAL, OFFLINE];
// How the sources of the demo city are called; a source of another name shows as itself.
const GROUPS = {
  flood: ["防汛", "Flood control"], env: ["环保", "Environment"], urban: ["城管", "Urban management"], emergency: ["应急", "Emergency"], food: ["食品安全", "Food safety"],
  traffic: ["交通", "Traffic"], video: ["视频", "Video"], tourism: ["旅游", "Tourism"], education: ["教育", "Education"], medical: ["医疗", "Medical"], project: ["重点项目", "Projects"], appeals: ["诉求", "Appeals"],
};
const rank = (id) => { const at = Object.keys(GROUPS).indexOf(String(id).split("-").at(-1)); return at < 0 ? 99 : at; };
export function groupName(id) {
  const known = GROUPS[String(id).split("-").at(-1)];
  return known ? pick({ zh: known[0], en: known[1] }) : id;
}

/** A bar of states: widths by count, abnormal ones at least visible. set(counts of six classes) draws it. */
export function stateBar() {
  const parts = WORST_FIRST.map((cls) => h(`i.${CLASS_NAMES[cls]}`));
  const node = h("span.bar", { "aria-hidden": "true" }, parts);
  let shown = "";
  node.set = (counts) => {
    const all = counts.reduce((a, b) => a + b, 0) || 1;
    const widths = WORST_FIRST.map((cls) => (counts[cls] ? Math.max(cls === NORMAL ? 0 : 2, (100 * counts[cls]) / all) : 0));
    const scale = 100 / Math.max(100, widths.reduce((a, b) => a + b, 0));
    const key = widths.map((w) => (w * scale).toFixed(1)).join();
    if (key === shown) return;
    shown = key;
    parts.forEach((part, i) => { part.style.width = `${(widths[i] * scale).toFixed(1)}%`; });
  };
  return node;
}

export function createLayers(app) {
  let rows = [], groups = [], legend = [];

  function build() {
    const { city } = app, byGroup = new Map();
    city.kinds.forEach((kind, k) => {
      const group = kind.group || kind.class || "";
      if (!byGroup.has(group)) byGroup.set(group, []);
      byGroup.get(group).push(k);
    });
    rows = [];
    groups = [];
    const all = (on) => h("button.chip", { type: "button", onclick: () => app.showKinds(city.kinds.map((_, k) => k), on) }, t(on ? "all" : "noneShown"));
    const list = h("div.scroll", { tabindex: 0, role: "group", "aria-label": t("layers") }, [...byGroup].sort((a, b) => rank(a[0]) - rank(b[0])).map(([group, kinds]) => {
      const total = h("span.num"), box = h("input", { type: "checkbox", onchange: () => app.showKinds(kinds, box.checked) });
      groups.push({ box, total, kinds });
      return h("div.group", {}, h("div.group-head", {}, h("label", {}, box, h("span.cut", {}, groupName(group))), total), kinds.map((k) => row(k)));
    }));
    $("layers").replaceChildren(h("div.head", {}, h("h2", {}, t("layers")), all(true), all(false)), list);
    buildLegend();
    draw();
  }

  function row(k) {
    const box = h("input", { type: "checkbox", onchange: () => app.showKinds([k], box.checked) }), n = h("span.num"), bar = stateBar();
    const kind = app.city.kinds[k];
    const node = h("label.layer", { title: kind.unit ? `${pick(kind)} (${kind.unit})` : pick(kind), ondblclick: (e) => { e.preventDefault(); app.onlyKind(k); } }, box, h("span.cut", {}, pick(kind) || kind.id), bar, n);
    rows.push({ k, node, box, n, bar });
    return node;
  }

  function buildLegend() {
    legend = WORST_FIRST.map((cls) => {
      const n = h("span.num"), button = h("button", { type: "button", onclick: () => app.toggleClass(cls) }, shape(cls), t(CLASS_NAMES[cls]), n);
      return { cls, button, n };
    });
    const only = h("button.chip", { type: "button", onclick: () => app.onlyAbnormal() }, t("onlyAbnormal"));
    $("legend").replaceChildren(
      h("div.head", {}, h("h2", {}, t("legend")), only),
      h("ul", {}, legend.map((l) => h("li", {}, l.button))),
      h("p", {}, h("span.blink", {}, shape(RED)), t("blinking")),
      h("p", {}, h("span.doubt"), t("doubtful")),
    );
  }

  function draw() {
    const { city } = app;
    if (!city || !legend.length) return;
    for (const { k, node, box, n, bar } of rows) {
      const counts = city.byKind.subarray(k * CLASSES, (k + 1) * CLASSES);
      say(n, count(counts.reduce((a, b) => a + b, 0)));
      bar.set(counts);
      box.checked = !!city.kindShown[k];
      node.classList.toggle("off", !city.kindShown[k]);
    }
    for (const { box, total, kinds } of groups) {
      const on = kinds.filter((k) => city.kindShown[k]).length;
      box.checked = on > 0;
      box.indeterminate = on > 0 && on < kinds.length;
      say(total, count(kinds.reduce((sum, k) => sum + city.kinds[k].n, 0)));
    }
    for (const { cls, button, n } of legend) {
      say(n, count(city.byClass[cls]));
      button.setAttribute("aria-pressed", String(!!city.classShown[cls]));
    }
  }

  return { build, draw };
}
