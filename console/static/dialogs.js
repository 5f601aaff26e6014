// Dialogs: log in, acknowledge, silence, the silences there are, the keys. Who acts is who is logged in.
import { $, bdi, h, plain } from "./dom.js";
import { span, stamp } from "./format.js";
import { icon } from "./looks.js";
import { pick, t } from "./words.js";
import { failure } from "./words_more.js";

const SPANS_MIN = [30, 60, 120, 240, 480];
const RED = 4, ORANGE = 3;

export function createDialogs(app) {
  function show(title, body, cls = "") {
    const close = h("button.icon", { type: "button", "aria-label": t("close"), onclick: () => node.close() }, icon("close"));
    const node = h(`dialog${cls}`, { "aria-label": title }, body);
    node.addEventListener("close", () => node.remove());
    $("dialogs").append(node);
    node.showModal();
    return { node, close };
  }

  /** A form whose send() is awaited; it stays open with the reason where that fails. */
  function form(title, fields, send, { cls = "", button = t("send"), cancel = true } = {}) {
    const wrong = h("p.wrong", { role: "alert" }), go = h("button.button.main", { type: "submit" }, button);
    const inside = h("form", {
      onsubmit: async (e) => {
        e.preventDefault();
        wrong.textContent = "";
        go.disabled = true;
        try {
          await send();
          node.close("sent");
        } catch (error) {
          wrong.textContent = error.status === undefined ? error.message : failure(error);
          if (error.status === 401 && !cls) app.logIn();
        } finally {
          go.disabled = false;
        }
      },
    }, cls ? h("div.brand", {}, document.querySelector(".fish").cloneNode(true), h("h2", {}, title)) : h("h2", {}, title), ...fields, wrong, h("div.actions", {}, cancel && h("button.button", { type: "button", onclick: () => node.close() }, t("cancel")), go));
    const { node } = show(title, inside, cls);
    return node;
  }

  const about = (g) => h("p", {}, bdi(pick({ zh: g.summary_zh, en: g.summary_en }) || g.id));
  const who = () => h("label", {}, t("ackWho"), h("input", { value: app.user.name, readonly: true }));

  function acknowledge(g) {
    if (!app.mayAct()) return app.logIn();
    if (!g || g.acked || !g.told) return null;
    const note = h("textarea", { maxlength: 500 });
    return form(t("ackTitle"), [about(g), h("p", {}, t("ackText")), who(), h("label", {}, t("note"), note)], async () => {
      await app.api.acknowledge(g.id, note.value);
      app.announce(t("acked"));
    }, { button: t("ack") });
  }

  /** Scopes a person may choose for a group of alerts, narrowest first: [label, what]. */
  async function scopes(g) {
    const kind = app.city.kinds.find((k) => k.id === g.kind), kindName = plain(kind ? pick(kind) : g.kind), place = plain(g.district), found = [];
    if (g.points.length === 1) {
      const point = await app.api.point(g.points[0], app.city.version).catch(() => null);
      if (point) found.push([t("scopePoint", plain(point.name)), { point: point.id }]);
    }
    if (g.district && g.kind) found.push([t("scopeKindDistrict", place, kindName), { district: g.district, kind: g.kind }]);
    if (g.district) found.push([t("scopeDistrict", place), { district: g.district }]);
    if (g.kind) found.push([t("scopeKind", kindName), { kind: g.kind }]);
    if (g.rule) found.push([t("scopeRule", plain(g.rule)), { rule: g.rule }]);
    return found;
  }

  async function silence(g) {
    if (!app.mayAct()) return app.logIn();
    const found = await scopes(g), severe = g.severity >= RED;
    let until = 0; // ms; or, as it was typed, in the city's time: the browser may be set to another
    const radios = found.map(([label], i) => h("label.line", {}, h("input", { type: "radio", name: "scope", value: i, checked: i === 0 }), h("span", {}, label)));
    const other = h("input", { type: "datetime-local", "aria-label": t("custom"), oninput: () => { until = other.value; chips.forEach((c) => c.setAttribute("aria-pressed", "false")); } });
    const chips = SPANS_MIN.map((m) => h("button.chip", {
      type: "button", "aria-pressed": "false",
      onclick: (e) => { until = app.now() + m * 60000; other.value = ""; chips.forEach((c) => c.setAttribute("aria-pressed", String(c === e.currentTarget))); },
    }, m < 60 ? t("minutes", m) : t("hours", m / 60)));
    const red = h("input", { type: "checkbox" }), why = h("textarea", { maxlength: 500 });
    return form(t("silenceTitle"), [
      about(g), h("fieldset", {}, h("legend", {}, t("scope")), radios),
      h("fieldset", {}, h("legend", {}, t("until")), h("div.choices", {}, chips), other),
      h("label.line", {}, red, t("redToo")), h("label", {}, t("why"), why),
    ], async () => {
      if (!until) throw new Error(t("untilNeeded"));
      const typed = typeof until === "string";
      if (typed ? until.replace("T", " ") <= stamp(app.now()).slice(0, 16) : until <= app.now()) throw new Error(t("tooEarly"));
      if (!why.value.trim()) throw new Error(t("whyNeeded"));
      if (severe && !red.checked) throw new Error(t("redNeeded"));
      const [, what] = found[radios.findIndex((r) => r.firstChild.checked)];
      await app.api.silence({ ...what, severity_max: red.checked ? RED : ORANGE, until: typed ? until : until / 1000, why: why.value });
      app.announce(t("silenced"));
    }, { button: t("silence") });
  }

  async function silences() {
    const all = await app.api.silences().catch(() => []);
    const list = h("ul.rows", {}, all.map((s) => {
      const what = [s.point_id, s.district, s.kind, s.rule, s.gateway_id].filter(Boolean).map(plain).join(" · ") || t("all");
      const end = h("button.chip", {
        type: "button", disabled: !app.mayAct(),
        onclick: () => {
          const why = h("textarea", { maxlength: 500 });
          form(t("end"), [h("p", {}, bdi(what)), h("label", {}, t("why"), why)], async () => {
            if (!why.value.trim()) throw new Error(t("whyNeeded"));
            await app.api.endSilence(s.id, why.value);
            row.remove();
          }, { button: t("end") });
        },
      }, t("end"));
      const row = h("li", {}, h("span"), h("span", {}, bdi(what), h("br"), h("small.dim", {}, `${t("silencedUntil", stamp(s.ends * 1000))} · ${plain(s.who)} · ${plain(s.why)}`)), end);
      return row;
    }));
    const { node } = show(t("silences", all.length), h("div.inside", {}, h("h2", {}, t("silences", all.length)), list, h("div.actions", {}, h("button.button", { type: "button", onclick: () => node.close() }, t("close")))));
  }

  function help() {
    const keys = [["/", "keySearch"], ["N  P", "keyNext"], ["A", "keyAck"], ["0", "keyCity"], ["M", "keyMap"], ["B", "keyPanels"], ["S", "keySound"], ["R", "keyReplay"], ["1 2 3", "keyRooms"], ["J  K", "keyWalk"], ["?", "keyHelp"], ["Esc", "keyEsc"]];
    const { node } = show(t("keys"), h("div.inside", {}, h("h2", {}, t("keys")), h("div.keys", {}, keys.flatMap(([k, what]) => [h("span", {}, h("kbd", {}, k)), h("span", {}, t(what))])),
      h("p", {}, t("mapHelp")), h("p", {}, h("a", { href: "/static/duty.html", target: "_blank", rel: "noopener" }, t("dutySheet"))), h("div.actions", {}, h("button.button", { type: "button", onclick: () => node.close() }, t("close")))));
  }

  /** Asks for name and password until the server knows them; the user, or null where it was closed. */
  function login({ must }) {
    return new Promise((done) => {
      const name = h("input", { autocomplete: "username", required: true, maxlength: 100 }), password = h("input", { type: "password", autocomplete: "current-password", required: true });
      let user = null;
      const node = form(t("title"), [h("label", {}, t("userName"), name), h("label", {}, t("password"), password)], async () => {
        try {
          user = await app.api.login({ name: name.value, password: password.value });
        } catch (error) {
          if (error.status === 401) throw new Error(t("wrong"));
          if (error.status === 429) throw new Error(t("tooOften", span(error.retryAfter || 60)));
          throw error;
        }
      }, { cls: ".login", button: t("login"), cancel: !must });
      if (must) node.addEventListener("cancel", (e) => e.preventDefault());
      node.addEventListener("close", () => done(user));
    });
  }

  return { acknowledge, silence, silences, help, login };
}
