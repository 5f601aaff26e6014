// The rooms beside the map: saved queries, and supervision. Fetched when one is first opened.
// Owns which room is open, and its keys; every room owns its own piece of the page. The map and its alerts go on beside them.
import { $, h } from "./dom.js";
import { failure } from "./words_more.js";
import "./words_rooms.js";

const LOADS = {
  queries: async (app, node) => (await import("./queries.js")).createQueries(app, node),
  supervision: async (app, node) => (await import("./supervise.js")).createSupervision(app, node),
};
const looks = () => new Promise((done) => { document.head.append(h("link", { rel: "stylesheet", href: "/static/rooms.css", onload: done, onerror: done })); });

export async function createRooms(app) {
  const node = $("room"), made = {};
  let open = "";
  await looks();

  async function show(name) {
    if (open === name) return focus();
    close();
    open = name;
    node.hidden = false;
    document.body.dataset.room = name;
    if (!made[name]) {
      const box = h("div.room");
      node.append(box);
      try {
        const room = await LOADS[name](app, box);
        if (made[name]) box.remove(); // asked for twice while it was being fetched
        else made[name] = { box, room };
      } catch (error) { box.remove(); app.announce(failure(error)); return null; }
    }
    if (open !== name) return null;
    made[name].box.hidden = false;
    made[name].room.show();
    return focus();
  }
  const focus = () => node.querySelector(".room:not([hidden]) h2")?.focus();

  function close() {
    if (!open) return;
    if (made[open]) { made[open].box.hidden = true; made[open].room.hide?.(); }
    open = "";
    node.hidden = true;
    delete document.body.dataset.room;
  }

  /** After another language or look: the rooms are made anew when next seen. */
  function rebuild() {
    const was = open;
    close();
    for (const name of Object.keys(made)) { made[name].box.remove(); made[name].room.hide?.(); delete made[name]; }
    if (was) show(was);
  }

  addEventListener("keydown", (e) => {
    if (!open || e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (e.target.matches("input:not([type=checkbox]), textarea, select")) return;
    if (made[open]?.room.key?.(e.key.length === 1 ? e.key.toLowerCase() : e.key)) { e.preventDefault(); e.stopImmediatePropagation(); }
  }, true);

  return { show, close, rebuild, get open() { return open; } };
}
