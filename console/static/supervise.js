// 一网通督: projects and sites, source systems and districts, appeals and food. Owns this room's piece of the page and its tabs.
import { h, say } from "./dom.js";
import { clock } from "./format.js";
import { createProjects } from "./supervise_projects.js";
import { createServices, createSystems } from "./supervise_tables.js";
import { t } from "./words.js";
import { failure } from "./words_more.js";
import { w } from "./words_rooms.js";

const AGAIN_MS = 60000;
const TABS = { projects: ["tabProjects", createProjects], systems: ["tabSystems", createSystems], services: ["tabServices", createServices] };

export function createSupervision(app, box) {
  let open = "", timer = 0, asked = null;
  const made = {}, status = h("span.dim", { role: "status" });
  const tabs = Object.entries(TABS).map(([name, [word]]) => h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "tab-panel", onclick: () => choose(name), onkeydown: arrows }, w(word)));
  const panel = h("div.tab", { role: "tabpanel", id: "tab-panel", tabindex: -1 });
  box.classList.add("supervision");
  box.append(h("div.head", {}, h("h2", { tabindex: -1 }, t("roomSupervision")), h("div.tablist", { role: "tablist", "aria-label": t("roomSupervision") }, tabs), status), panel);

  function arrows(e) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!step) return;
    e.preventDefault();
    const next = tabs[(tabs.indexOf(e.target) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  }

  function choose(name) {
    open = TABS[name] ? name : "projects";
    app.roomLink = `supervision/${open}`;
    app.map.remember();
    tabs.forEach((tab, i) => { const on = Object.keys(TABS)[i] === open; tab.setAttribute("aria-selected", String(on)); tab.tabIndex = on ? 0 : -1; });
    panel.setAttribute("aria-labelledby", `tab-${open}`);
    made[open] ??= TABS[open][1](app, load);
    panel.replaceChildren(made[open].node);
    return load();
  }

  async function load() {
    clearTimeout(timer);
    asked?.abort();
    const mine = (asked = new AbortController()), tab = made[open];
    say(status, w("asking"));
    try {
      await tab.load(mine.signal);
      if (mine === asked) say(status, w("asOf", clock(app.now())));
    } catch (error) {
      if (error.name !== "AbortError") say(status, failure(error));
      if (error.status === 401) app.logIn();
    }
    if (mine === asked) timer = setTimeout(() => { if (!document.hidden) load(); else timer = setTimeout(load, AGAIN_MS); }, AGAIN_MS);
  }

  return {
    show: () => choose(open || app.roomLink?.split("/")[1] || "projects"),
    hide() { clearTimeout(timer); asked?.abort(); asked = null; },
    key: (k) => made[open]?.key?.(k) ?? false,
  };
}
