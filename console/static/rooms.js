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
  const node = $("room"), making = {}, made = {};
  let open = "";
  await looks();

  async function show(name) {
    if (open === name) return focus();
    close();
    open = name;
    node.hidden = false;
    document.body.dataset.room = name;
    try { await (making[name] ??= make(name)); } catch (error) {
      if (open === name) close(); // so that the next try is one
      return app.announce(failure(error));
    }
    if (open !== name || !made[name]) return null; // who asked has gone on meanwhile
    if (made[name].box.hidden) {
      made[name].box.hidden = false;
      made[name].room.show();
    }
    return focus();
  }
  /** Once for each room, however often it is asked for while it is fetched; not seen until it is shown. */
  function make(name) {
    const box = h("div.room", { hidden: true }), mine = LOADS[name](app, box).then(
      (room) => { if (making[name] === mine) made[name] = { box, room }; else box.remove(); },
      (error) => { box.remove(); if (making[name] === mine) delete making[name]; throw error; },
    );
    node.append(box);
    return mine;
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
    for (const name of Object.keys(making)) delete making[name];
    if (was) show(was);
  }

  addEventListener("keydown", (e) => {
    if (!open || e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (e.target.matches("input:not([type=checkbox]), textarea, select")) return;
    if (made[open]?.room.key?.(e.key.length === 1 ? e.key.toLowerCase() : e.key)) { e.preventDefault(); e.stopImmediatePropagation(); }
  }, true);

  return { show, close, rebuild, get open() { return open; } };
}
