// The bar of a replay: a day as a histogram of its alerts, the moment on it, play, speed, day, and back to live.
// Owns these pieces of the page; knows nothing of pictures.
import { $, h, say } from "./dom.js";
import { count, day as dayName, minute, stamp } from "./format.js";
import { THEMES } from "./palette.js";
import { t } from "./words.js";

const SPEEDS = [1, 10, 60, 600, 3600];
const HOUR_S = 3600;
const HIGH = 44; // CSS pixels of the track
const FOOT = 13; // of them for the hours
const COLOURS = ["blue", "yellow", "orange", "red"];
const GROUND = 2; // states of a theme before blue

export function createScrubber(app, on) {
  let parts = null, range = [0, 1], reading = "", waits = 0, painted = "";

  function build() {
    const button = (word, act, ...inside) => h("button.chip", { type: "button", title: t(word), "aria-label": t(word), onclick: act }, ...inside);
    parts = {
      play: h("button.chip.play", { type: "button", onclick: on.toggle }),
      speed: h("select.chip", { "aria-label": t("speed"), title: t("speed"), onchange: () => on.speed(Number(parts.speed.value)) }, SPEEDS.map((x) => h("option", { value: x, selected: x === on.rate }, `×${x}`))),
      day: h("select.chip", { "aria-label": t("replayDay"), title: t("replayDay"), onchange: () => on.choose(parts.day.value) }, [...on.days].reverse().map((d) => h("option", { value: d.date }, `${dayName((d.from + d.until) * 500)} · ${t("dayAlerts", count(d.alerts))}`))),
      canvas: h("canvas", { "aria-hidden": "true" }), knob: h("i"),
      time: h("output"), live: h("button.chip.live", { type: "button", title: t("backToLiveLong"), onclick: on.live }), says: h("span.says", { role: "status" }),
    };
    parts.track = h("div.track", {
      tabindex: 0, role: "slider", "aria-label": t("moment"), title: `${t("moment")}: ${t("scrubHelp")}`, onkeydown: keys, onpointerdown: down, onpointermove: (e) => { if (e.buttons & 1 && parts.track.hasPointerCapture(e.pointerId)) at(e); },
    }, parts.canvas, parts.knob);
    parts.day.value = on.day.date;
    $("scrubber").replaceChildren(button("earlier", () => on.step(-1), "‹"), parts.play, button("later", () => on.step(1), "›"), parts.speed, parts.day, parts.track, parts.time, parts.says, parts.live);
    const hours = span();
    range = [hours[0], hours[1]];
    painted = "";
    new ResizeObserver(draw).observe(parts.track);
    say(parts.says, reading);
    waiting(waits);
  }

  /** Whole hours from the first that has something to the last, so that a short day is not a sliver. */
  function span() {
    const { day } = on, known = on.days.find((d) => d.date === day.date), end = day.begin + (day.steps - 1) * day.step_s;
    const from = Math.max(day.begin, known?.from ?? day.begin), to = Math.min(end, Math.max(known?.until ?? end, from));
    return [day.begin + Math.floor((from - day.begin) / HOUR_S) * HOUR_S, Math.min(day.end, day.begin + Math.ceil((to + 1 - day.begin) / HOUR_S) * HOUR_S)];
  }

  const share = (s) => (s - range[0]) / (range[1] - range[0]);

  function draw() {
    if (!parts || !on.day) return;
    const { track, knob, play, time } = parts, s = on.moment, end = on.day.begin + (on.day.steps - 1) * on.day.step_s;
    knob.style.left = `${(100 * Math.max(0, Math.min(1, share(s)))).toFixed(2)}%`;
    track.setAttribute("aria-valuemin", 0);
    track.setAttribute("aria-valuemax", Math.round(end - on.day.begin));
    track.setAttribute("aria-valuenow", Math.round(s - on.day.begin));
    track.setAttribute("aria-valuetext", stamp(s * 1000));
    say(time, stamp(s * 1000));
    say(play, on.playing ? "❚❚" : "▶");
    play.title = t(on.playing ? "pause" : "play");
    play.setAttribute("aria-label", play.title);
    bars();
  }

  /** New alerts a minute in their colours, the worst lowest; and the hours. Painted only where something changed. */
  function bars() {
    const { canvas, track } = parts, { day } = on, ratio = Math.min(2, devicePixelRatio || 1), w = Math.round(track.clientWidth * ratio), high = Math.round(HIGH * ratio);
    const key = `${w} ${high} ${app.theme} ${day.date} ${day.steps} ${range}`;
    if (key === painted || !w) return;
    painted = key;
    canvas.width = w;
    canvas.height = high;
    const pen = canvas.getContext("2d"), css = getComputedStyle(document.documentElement), look = THEMES[app.theme], room = high - FOOT * ratio;
    const columns = COLOURS.map(() => new Float64Array(w)), of = (step) => Math.floor(share(day.begin + step * day.step_s) * (w - 1));
    COLOURS.forEach((c, i) => day.histogram[c].forEach((n, step) => { const x = of(step); if (n && x >= 0 && x < w) columns[i][x] += n; }));
    let most = 1;
    for (let x = 0; x < w; x++) most = Math.max(most, columns.reduce((sum, c) => sum + c[x], 0));
    const wide = Math.max(ratio, (share(day.begin + day.step_s) - share(day.begin)) * w);
    for (let x = 0; x < w; x++) {
      const all = columns.reduce((sum, c) => sum + c[x], 0);
      if (!all) continue;
      const top = Math.max(2 * ratio, room * Math.sqrt(all / most)); // a root, so that one alert is seen beside a thousand
      for (let i = 3, y = room; i >= 0; i--) {
        const part = (top * columns[i][x]) / all;
        pen.fillStyle = look.states[GROUND + i];
        pen.fillRect(x, y - part, Math.max(1, wide - (wide > 4 * ratio ? ratio : 0)), part);
        y -= part;
      }
    }
    pen.fillStyle = css.getPropertyValue("--dim");
    pen.font = `${10 * ratio}px ${css.fontFamily}`;
    const hours = (range[1] - range[0]) / HOUR_S, every = hours <= 2 ? 0.25 : Math.max(1, Math.ceil((hours * 44 * ratio) / w));
    for (let hour = 0; hour < hours; hour += every) {
      const x = Math.round((hour / hours) * w);
      pen.fillRect(x, room, ratio, 4 * ratio);
      pen.fillText(minute((range[0] + hour * HOUR_S) * 1000), x + 3 * ratio, high - 2 * ratio);
    }
  }

  const at = (e) => { const box = parts.track.getBoundingClientRect(); on.seek(range[0] + ((e.clientX - box.left) / box.width) * (range[1] - range[0])); };
  function down(e) {
    if (e.button > 0) return;
    parts.track.setPointerCapture(e.pointerId);
    at(e);
  }

  function keys(e) {
    const { day, moment } = on, step = day.step_s;
    const act = {
      ArrowLeft: () => on.step(-1), ArrowDown: () => on.step(-1), ArrowRight: () => on.step(1), ArrowUp: () => on.step(1), PageDown: () => on.seek(moment - HOUR_S), PageUp: () => on.seek(moment + HOUR_S),
      Home: () => on.seek(day.begin), End: () => on.seek(day.begin + day.steps * step), " ": on.toggle, Enter: on.toggle, Escape: on.live,
    }[e.key];
    if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    e.stopPropagation();
    act();
  }

  /** How many wait to be answered in the live city meanwhile: nobody overlooks it while looking back. */
  function waiting(n) {
    waits = n ?? 0;
    if (!parts) return;
    say(parts.live, waits ? `${t("backToLive")} · ${t("liveWaits", count(waits))}` : t("backToLive"));
    parts.live.classList.toggle("warn", waits > 0);
  }

  return { build, draw, waiting, busy(date) { reading = date ? t("loadingDay", date) : ""; if (parts) say(parts.says, reading); } };
}
