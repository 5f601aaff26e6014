// Numbers, times and spans as people read them. Pure.
import { lang } from "./words.js";

const ZONE = "Asia/Shanghai"; // until the server says which zone the city keeps
let zone = ZONE;
const made = new Map();
export function useZone(name) { zone = name || ZONE; made.clear(); }

function clockOf(options) {
  const locale = lang() === "zh" ? "zh-CN" : "en-GB", key = locale + JSON.stringify(options);
  if (!made.has(key)) made.set(key, new Intl.DateTimeFormat(locale, { timeZone: zone, hourCycle: "h23", ...options }));
  return made.get(key);
}
const two = { hour: "2-digit", minute: "2-digit", second: "2-digit" };

/** Milliseconds as 21:04:09 of the city. */
export const clock = (ms) => clockOf(two).format(ms);
export const minute = (ms) => clockOf({ hour: "2-digit", minute: "2-digit" }).format(ms);
/** 2026-07-11 21:04:09 */
export function stamp(ms) {
  const p = Object.fromEntries(clockOf({ year: "numeric", month: "2-digit", day: "2-digit", ...two }).formatToParts(ms).map((x) => [x.type, x.value]));
  return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}`;
}
export const day = (ms) => clockOf({ month: "2-digit", day: "2-digit", weekday: "short" }).format(ms);

export const date = (ms) => clockOf({ month: "2-digit", day: "2-digit" }).format(ms);

/** Thousands in groups: 116,200. */
export const count = (n) => (Number.isFinite(n) ? Math.round(n).toLocaleString("en-US") : "–");
/** A count that must fit: 9,999 → 9,999; 12,345 → 12.3k. */
export const short = (n) => (n < 10000 ? count(n) : n < 1e6 ? `${(n / 1000).toFixed(n < 1e5 ? 1 : 0)}k` : `${(n / 1e6).toFixed(1)}M`);
/** A measured value with as many digits as it bears. */
export function value(v) {
  if (v === null || v === undefined || !Number.isFinite(v)) return "–";
  const size = Math.abs(v);
  return v.toLocaleString("en-US", { maximumFractionDigits: size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3 });
}
/** A share as 99.82; never 100 unless it is all of them. */
export function percent(part, whole) {
  if (!whole) return "–";
  const p = (100 * part) / whole;
  return part < whole && p > 99.99 ? "99.99" : p.toFixed(p === 100 ? 0 : 2);
}

/** Seconds as 8 秒, 3 分 20 秒, 2 小时 5 分, 3 天 4 小时. */
export function span(s) {
  s = Math.max(0, Math.round(s));
  const zh = lang() === "zh", u = zh ? [" 天", " 小时", " 分", " 秒"] : ["d", "h", "m", "s"];
  const parts = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60, s % 60];
  const first = parts.findIndex((p) => p > 0);
  if (first < 0) return `0${u[3]}`;
  return [first, first + 1].filter((i) => i < 4 && parts[i] > 0).map((i) => `${parts[i]}${u[i]}`).join(" ");
}
/** Seconds left or over as 4:05, for countdowns. */
export function countdown(s) {
  const a = Math.abs(Math.round(s)), hours = Math.floor(a / 3600);
  const mm = String(Math.floor(a / 60) % 60).padStart(hours ? 2 : 1, "0"), ss = String(a % 60).padStart(2, "0");
  return `${s < 0 ? "+" : ""}${hours ? `${hours}:` : ""}${mm}:${ss}`;
}
