// The search field: names and ids of points, asked of the server; districts and kinds, known here.
import { $, bdi, h, plain } from "./dom.js";
import { shape } from "./looks.js";
import { CLASS_OF } from "./palette.js";
import { pick, t } from "./words.js";
import "./words_more.js";

const WAIT_MS = 140;

export function createSearch(app) {
  const field = $("search"), list = $("search-list");
  let asked = null, timer = 0, options = [], at = -1;

  // Also ends what is still asked: an answer that comes later must not open the list over what was chosen.
  function close() {
    clearTimeout(timer);
    asked?.abort();
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
    at = -1;
  }

  function mark(i) {
    at = options.length ? (i + options.length) % options.length : -1;
    options.forEach((o, k) => o.node.setAttribute("aria-selected", String(k === at)));
    if (at >= 0) {
      field.setAttribute("aria-activedescendant", options[at].node.id);
      options[at].node.scrollIntoView({ block: "nearest" });
    }
  }

  function option(go, ...inside) {
    const node = h("li", { role: "option", id: `found-${options.length}`, "aria-selected": "false", onpointerdown: (e) => { e.preventDefault(); close(); go(); } }, inside);
    options.push({ node, go });
    return node;
  }

  function show(found, more, words) {
    options = [];
    const places = app.city.districts.map((d, i) => [d, i]).filter(([d]) => words && plain(pick(d)).toLowerCase().includes(words.toLowerCase())).slice(0, 3);
    const nodes = places.map(([d, i]) => option(() => app.goDistrict(i), bdi(pick(d) || d.id), h("span.dim", {}, t("district"))));
    for (const p of found) {
      const kind = app.city.kinds.find((k) => k.id === p.kind);
      nodes.push(option(() => app.openPoint(p.index, true), h("span.cut", {}, bdi(p.name || p.id)), h("span", {}, shape(CLASS_OF[p.state])), h("small", {}, bdi(`${plain(p.district)} · ${kind ? pick(kind) : p.kind} · ${plain(p.id)}`))));
    }
    if (!nodes.length) nodes.push(h("li.dim", { role: "option", "aria-disabled": "true" }, t("nothingFound", plain(words))));
    if (more) nodes.push(h("li.dim", { role: "option", "aria-disabled": "true" }, "…"));
    list.replaceChildren(...nodes);
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    app.announce(t("results", options.length));
    mark(0);
  }

  async function ask() {
    const words = field.value.trim();
    asked?.abort();
    if (!words || !app.city || document.activeElement !== field) return close();
    const { signal } = (asked = new AbortController());
    try {
      const { found, more } = await app.api.search(words, signal);
      if (!signal.aborted) show(found, more, words);
    } catch (error) {
      if (!signal.aborted) show([], false, words);
    }
  }

  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, WAIT_MS); });
  // By a click, not by focus: who closes the drawer comes back here and did not ask again.
  field.addEventListener("click", () => { if (field.value && list.hidden) ask(); });
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (e) => {
    if (e.key === "ArrowDown" || e.key === "ArrowUp") { e.preventDefault(); mark(at + (e.key === "ArrowDown" ? 1 : -1)); }
    else if (e.key === "Enter" && options[at]) { e.preventDefault(); const { go } = options[at]; close(); go(); }
    else if (e.key === "Escape") { e.stopPropagation(); if (list.hidden) { field.value = ""; field.blur(); } else close(); }
  });

  if (field.value) ask(); // typed while this part was fetched
  return { ask };
}
