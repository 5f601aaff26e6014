// Questions to the server. Owns fetch, and what an error means; knows nothing of the page.

export class Refused extends Error {
  /** status 0: the server could not be reached. */
  constructor(status, text, retryAfter) {
    super(text);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, String(error.message));
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, said.error ?? answer.statusText, Number(answer.headers.get("Retry-After")) || 0);
}

export const read = async (path, signal) => (await ask(path, { signal })).json();
const act = (method, path, body) => ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}) });
const name = encodeURIComponent;
/** A point by its id, or by its display index in a registry version. */
const at = (point, version) => (typeof point === "number" ? [`@${point}`, `v=${version}`] : [name(point), ""]);

const when = (span) => (typeof span === "string" ? `span=${span}` : `since=${span.since}&until=${span.until}`);

export const api = {
  me: () => read("/api/me"),
  login: async (who) => (await act("POST", "/api/login", who)).json(),
  logout: () => act("POST", "/api/logout"),
  registry: async () => (await ask("/api/registry")).arrayBuffer(),
  outlines: () => read("/static/outlines/chengdu.json"),
  point: (p, v, signal) => { const [id, q] = at(p, v); return read(`/api/point/${id}?${q}`, signal); },
  // span: "1h" and so on until now, or {since, until}
  history: (p, v, span, signal, step) => { const [id, q] = at(p, v); return read(`/api/history/${id}?${when(span)}${step ? `&step=${step}` : ""}&${q}`, signal); },
  csv: (id, span) => `/api/history/${name(id)}?${when(span)}&format=csv`,
  replayDays: () => read("/api/replay"),
  replayDay: async (date) => (await ask(`/api/replay/${name(date)}`)).arrayBuffer(),
  search: (q, signal) => read(`/api/search?q=${name(q)}&limit=30`, signal),
  acknowledge: async (id, note) => (await act("POST", `/api/alerts/${name(id)}/ack`, { note })).json(),
  silence: async (what) => (await act("POST", "/api/silences", what)).json(),
  silences: async () => (await read("/api/silences")).silences,
  endSilence: (n, why) => act("DELETE", `/api/silences/${n}`, { why }),
};
