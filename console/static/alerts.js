// Right, above: alerts as people hear of them, in groups, the worst first: who must answer, and how long it is open.
import { $, bdi, h, plain, say } from "./dom.js";
import { clock, count, countdown, minute, span } from "./format.js";
import { shape } from "./looks.js";
import { NORMAL } from "./palette.js";
import { pick, ruleName, t } from "./words.js";

const SHOWN_MAX = 200; // cards; an operator filters before reading more
const PAST_SHOWN_MAX = 40; // of a replay: they are all others at each moment
const CLASSES = ["event", "fault"];

export function createAlerts(app) {
  const groups = new Map(), cards = new Map();
  let owed = false, // an order that a hand on the list holds back
    list, title, more, chips = [], which = "event", chosen = null, left = 0, note, muted;

  const serverNow = () => app.now() / 1000;
  const isFault = (g) => g.class !== "event";
  const shown = (g) => (which === "fault") === isFault(g) && (!app.city || app.city.classShown[NORMAL + g.severity] !== 0)
    && (app.chosenDistrict < 0 || g.district === app.city.districts[app.chosenDistrict]?.id);
  const quiet = (g) => g.acked || !!g.silenced;
  const sorted = () => [...groups.values()].filter(shown).sort((a, b) => b.severity - a.severity || quiet(a) - quiet(b) || b.onset - a.onset);

  function build() {
    cards.clear();
    chips = CLASSES.map((c) => {
      const n = h("span"), chip = h("button.chip", { type: "button", onclick: () => { which = c; draw(true); } }, t(c === "event" ? "events" : "faults"), " ", n);
      return { c, chip, n };
    });
    title = h("small");
    muted = h("button.chip", { type: "button", onclick: () => app.dialogs.silences(), hidden: true });
    list = h("div.scroll", { id: "alert-list", role: "list", tabindex: 0, "aria-label": t("alerts") });
    note = h("p.empty", { role: "listitem" });
    more = h("p.empty", { hidden: true, role: "listitem" });
    $("alerts").replaceChildren(h("div.head", {}, h("h2", {}, t("alerts"), title), muted, chips.map((c) => c.chip)), list);
    draw(true);
  }

  function card(id) {
    const g = groups.get(id), place = h("button", { type: "button", onclick: (e) => { e.stopPropagation(); choose(id, true); } });
    const made = {
      g: null, severity: 0, place, icon: h("span"), says: h("p.says"), open: h("span.for"), who: h("span.who.cut"), tags: h("span"),
      ack: h("button.chip.go", { type: "button", onclick: (e) => { e.stopPropagation(); app.dialogs.acknowledge(groups.get(id)); } }, t("ack")),
      mute: h("button.chip", { type: "button", onclick: (e) => { e.stopPropagation(); app.dialogs.silence(groups.get(id)); } }, t("silence")),
    };
    made.node = h(`article.alert.s${g.severity}`, { role: "listitem", onclick: () => choose(id, true) },
      made.icon, h("div.place", {}, place, made.tags), made.open, made.says, h("div.foot", {}, made.who, made.ack, made.mute));
    return made;
  }

  function fill(c, g) {
    c.g = g;
    c.icon.replaceChildren(shape(NORMAL + g.severity));
    const kind = app.city?.kinds.find((k) => k.id === g.kind);
    const what = kind ? pick(kind) : g.kind || ruleName(g.rule), d = app.city?.districts.find((one) => one.id === g.district);
    c.place.replaceChildren(bdi(d ? pick(d) : g.district || t("city")), ` · `, bdi(what));
    c.place.setAttribute("aria-label", `${t(["", "blue", "yellow", "orange", "red"][g.severity] || "normal")} ${plain(g.district)} ${plain(what)}`);
    c.says.replaceChildren(bdi(brief(g)));
    const tags = [];
    if (g.mode !== "live") tags.push(h("span.tag.drill", {}, t(g.mode)));
    if (g.members > 1) tags.push(h("span.tag", {}, t("open", count(g.open), count(g.members))));
    c.tags.replaceChildren(...tags);
    c.ack.hidden = g.acked || !g.told;
    c.ack.disabled = c.mute.disabled = !!app.past || (!app.mayAct() && !app.user.anonymous); // nobody yet: pressing asks for a login
    c.mute.hidden = !!g.silenced;
    c.node.className = `alert s${g.severity}${quiet(g) ? " calm" : ""}${chosen === g.id ? " chosen" : ""}`;
    age(c);
  }

  /** The summary without what the card shows anyway: the colour and the district at its head. */
  function brief(g) {
    const parts = pick({ zh: g.summary_zh, en: g.summary_en }).split(" | ");
    if (parts.length > 1 && !parts[0].includes("【")) parts.shift();
    if (g.district && parts[0].startsWith(g.district)) parts[0] = parts[0].slice(g.district.length).trimStart();
    return parts.join(" | ");
  }

  function age(c) {
    const g = c.g, now = serverNow();
    say(c.open, t("openFor", span(now - g.onset)));
    let text = "", cls = "who cut";
    if (g.silenced) text = t("silencedUntil", minute(g.silenced.until * 1000));
    else if (g.acked && g.ack) text = `${t("ackedBy", plain(g.ack.by))} ${clock(g.ack.at * 1000)}${g.ack.note ? ` · ${plain(g.ack.note)}` : ""}`;
    else if (g.answer && g.answer.due !== null) {
      const leftS = g.answer.due - now;
      text = [leftS >= 0 ? t("answerIn", countdown(leftS)) : t("answerLate", countdown(-leftS)), g.answer.by && t("mustAnswer", plain(g.answer.by)), g.answer.step && t("escalated", g.answer.step)].filter(Boolean).join(" · ");
      cls += leftS < 0 ? " late" : " due";
    } else if (g.answer?.by) text = t("mustAnswer", plain(g.answer.by));
    say(c.who, text);
    if (c.who.className !== cls) c.who.className = cls;
    c.who.title = text;
  }

  /** Cards keep their places while a hand or the keyboard is on them; what is new comes when they are let go. */
  function draw(anyway = false) {
    if (!list) return;
    const wanted = sorted(), few = wanted.slice(0, app.past ? PAST_SHOWN_MAX : SHOWN_MAX);
    for (const { c, chip, n } of chips) {
      chip.setAttribute("aria-pressed", String(which === c));
      say(n, count([...groups.values()].filter((g) => (c === "fault") === isFault(g)).length));
    }
    say(title, wanted.length ? String(wanted.length) : "");
    const held = !anyway && (list.matches(":hover") || list.contains(document.activeElement));
    owed = held;
    for (const [id, c] of cards) if (!groups.has(id) || (!held && !few.includes(groups.get(id)))) { c.node.remove(); cards.delete(id); }
    for (const g of few) {
      let c = cards.get(g.id);
      if (!c) { c = card(g.id); cards.set(g.id, c); list.append(c.node); }
      if (c.g !== g || anyway) fill(c, g);
    }
    if (!held) few.forEach((g, i) => { const node = cards.get(g.id).node; if (list.children[i] !== node) list.insertBefore(node, list.children[i] ?? null); });
    const hidden = wanted.length - few.length + left;
    say(more, t("more", count(hidden)));
    more.hidden = hidden <= 0;
    say(note, groups.size ? t("noAlertsShown") : t("noAlerts"));
    note.hidden = few.length > 0;
    list.append(more, note);
  }

  function choose(id, go) {
    const before = cards.get(chosen);
    chosen = id;
    if (before) before.node.classList.remove("chosen");
    cards.get(id)?.node.classList.add("chosen");
    const g = groups.get(id);
    if (go && g) app.showAlert(g);
  }

  return {
    build, draw,
    take(message) {
      if (message.full) groups.clear();
      for (const g of message.changed) groups.set(g.id, g);
      for (const id of message.gone ?? []) groups.delete(id);
      left = message.more ?? 0;
      const silenced = [...groups.values()].filter((g) => g.silenced).length;
      if (muted) { muted.hidden = !silenced; say(muted, t("silences", silenced)); }
      draw();
      if (!app.past) app.sound.watch([...groups.values()].filter((g) => !isFault(g) && g.severity >= 3 && !quiet(g)));
    },
    tick() {
      for (const c of cards.values()) age(c);
      if (owed) draw();
    },
    oldestUnanswered() {
      const waiting = [...groups.values()].filter((g) => g.told && !quiet(g) && g.answer && g.answer.due !== null);
      return waiting.length ? span(serverNow() - Math.min(...waiting.map((g) => g.first_at ?? g.onset))) : "";
    },
    step(by) { // next or previous card, by key
      const order = sorted().slice(0, SHOWN_MAX).map((g) => g.id);
      if (!order.length) return;
      const at = order.indexOf(chosen), id = order[at < 0 ? (by > 0 ? 0 : order.length - 1) : (at + by + order.length) % order.length];
      choose(id, true);
      cards.get(id)?.node.scrollIntoView({ block: "nearest" });
      const g = groups.get(id);
      app.announce(`${t(["", "blue", "yellow", "orange", "red"][g.severity])} ${plain(pick({ zh: g.summary_zh, en: g.summary_en }))}`);
    },
    get left() { return left; },
    byId: (id) => groups.get(id),
    all: () => [...groups.values()],
    get chosen() { return groups.get(chosen); },
    of: (index) => [...groups.values()].filter((g) => g.points.includes(index)),
  };
}
