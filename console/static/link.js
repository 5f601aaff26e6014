// The address after the #: what the page shows, so that a link brings a colleague to the same picture. Pure but for location.

/** {v: [lon, lat, zoom], off: [kinds], hide: [classes], p: point id, d: district id, r: room, l: "zh" | "en", t: theme, bare, at: seconds} */
export function readLink(hash = location.hash) {
  const q = new URLSearchParams(hash.replace(/^#/, "")), link = {};
  const v = (q.get("v") ?? "").split(",").map(Number);
  if (v.length === 3 && v.every(Number.isFinite)) link.v = v;
  for (const key of ["off", "hide"]) if (q.get(key)) link[key] = q.get(key).split(",");
  for (const key of ["p", "d", "r"]) if (q.get(key)) link[key] = q.get(key);
  if (["zh", "en"].includes(q.get("l"))) link.l = q.get("l");
  if (["dark", "light"].includes(q.get("t"))) link.t = q.get("t");
  if (q.has("bare")) link.bare = true;
  if (q.get("token")) link.token = q.get("token");
  if (Number.isFinite(Number(q.get("at") || NaN))) link.at = Number(q.get("at"));
  return link;
}

export function writeLink(link) {
  const parts = [];
  const put = (key, text) => parts.push(`${key}=${encodeURIComponent(text).replaceAll("%2C", ",")}`);
  if (link.v) put("v", link.v.map((n, i) => n.toFixed(i === 2 ? 2 : 5)).join());
  for (const key of ["off", "hide"]) if (link[key]?.length) put(key, link[key].join());
  for (const key of ["p", "d", "r", "l", "t", "at"]) if (link[key]) put(key, link[key]);
  if (link.bare) parts.push("bare");
  const hash = `#${parts.join("&")}`;
  if (hash !== location.hash) history.replaceState(null, "", hash);
}
