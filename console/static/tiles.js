// The tiles on top: what a duty officer looks at first, each with its last two minutes.
import { $, h, say } from "./dom.js";
import { count, percent, short } from "./format.js";
import { shape, sparkline } from "./looks.js";
import { BLUE, CLASS_NAMES, ORANGE, RED, YELLOW } from "./palette.js";
import { t } from "./words.js";

const KEPT = 120; // seconds of a sparkline
const LATE_MS = 1000; // slower than this from the wire to judged is told in amber

export function createTiles(app) {
  let past = [], built;

  function tile(title, small) {
    const big = h("span"), unit = h("small", {}, small ?? ""), sub = h("div.sub"), spark = sparkline();
    const node = h("div.tile", {}, h("h2", {}, title), h("div.big", {}, big, unit), sub, spark);
    return { node, big, sub, spark, bad: (yes) => node.classList.toggle("bad", yes) };
  }

  function build() {
    const of = (cls) => {
      const n = h("span");
      const button = h("button", { type: "button", onclick: () => app.toggleClass(cls) }, shape(cls), n);
      return { n, button, cls };
    };
    built = {
      sensors: tile(t("sensorsOnline"), "%"), video: tile(t("videoOnline"), "%"), rate: tile(t("rate")), latency: tile(t("latency"), "ms"),
      severities: [RED, ORANGE, YELLOW, BLUE].map(of), unacked: tile(t("unacked")),
    };
    const alerts = h("div.tile.wide", {}, h("h2", {}, t("alerts")), h("div.by-severity", {}, built.severities.map((s) => s.button)), (built.spark = sparkline(240, 24)));
    $("tiles").replaceChildren(built.sensors.node, built.video.node, built.rate.node, built.latency.node, alerts, built.unacked.node);
    draw();
  }

  const series = (f) => past.map((k) => (k ? f(k) : null));
  function draw() {
    const now = past.at(-1);
    if (!now || !built) return;
    const [up, all] = now.online, [seen, cameras] = now.video;
    say(built.sensors.big, percent(up, all));
    say(built.sensors.sub, t("ofTotal", count(up), count(all)));
    built.sensors.spark.draw(series((k) => k.online[0] / Math.max(1, k.online[1])));
    built.video.node.hidden = !cameras;
    say(built.video.big, percent(seen, cameras));
    say(built.video.sub, t("ofTotal", count(seen), count(cameras)));
    built.video.spark.draw(series((k) => k.video[0] / Math.max(1, k.video[1])));
    say(built.rate.big, count(now.rate));
    built.rate.spark.draw(series((k) => k.rate), 0);
    say(built.latency.big, now.latency_ms === null ? "–" : count(now.latency_ms));
    built.latency.bad(now.latency_ms > LATE_MS);
    built.latency.spark.draw(series((k) => k.latency_ms), 0);
    for (const { n, button, cls } of built.severities) {
      const found = now.alerts[cls - BLUE];
      say(n, short(found));
      n.className = found ? "" : "zero";
      button.setAttribute("aria-label", `${t(CLASS_NAMES[cls])} ${found}`);
      button.setAttribute("title", t(CLASS_NAMES[cls]));
      button.setAttribute("aria-pressed", String(!!app.city?.classShown[cls]));
    }
    built.spark.draw(series((k) => k.alerts.reduce((a, b) => a + b, 0)), 0);
    say(built.unacked.big, count(now.unacked));
    built.unacked.bad(now.unacked > 0);
    const waiting = app.alertList?.oldestUnanswered();
    say(built.unacked.sub, waiting ? t("oldest", waiting) : "");
    built.unacked.spark.draw(series((k) => k.unacked), 0);
  }

  return {
    build, draw,
    begin(kpis) { past = kpis.slice(-KEPT); draw(); },
    take(kpi) { past.push(kpi); if (past.length > KEPT) past.shift(); draw(); },
    get now() { return past.at(-1); },
    all: () => past,
  };
}
