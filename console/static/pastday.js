// A stored day: its bytes to pictures, and what stood when. The reading half of "Replay" in console/FORMAT.md. Pure.

const HEAD = 16;
const MAGIC = 0x31445a59; // "YZD1"

/** {version, n, begin, step_s, steps, alerts, histogram, standing, …, table, bytes} */
export function readDay(bytes) {
  const head = new DataView(bytes);
  if (head.getUint32(0, true) !== MAGIC) throw new Error("not a day");
  const size = head.getUint32(12, true), about = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, HEAD, size)));
  const table = new Uint32Array(bytes, HEAD + size, about.steps + 1);
  return { ...about, version: head.getUint32(4, true), n: head.getUint32(8, true), table, body: HEAD + size + table.byteLength, bytes };
}

/** Puts the picture of step m into state (Uint8Array). from: the step it holds now, -1 for none. */
export function paint(day, m, state, from = -1) {
  const key = m - (m % day.keyframe_every);
  let at = from;
  if (from < key || from > m) {
    state.set(new Uint8Array(day.bytes, day.body + day.table[key], day.n));
    at = key;
  }
  while (++at <= m) {
    const changes = new Uint32Array(day.bytes, day.body + day.table[at], (day.table[at + 1] - day.table[at]) >> 2);
    for (let i = 0; i < changes.length; i++) state[changes[i] >>> 8] = changes[i] & 255;
  }
}

const lastBy = (list, ask) => { let i = list.length - 1; while (i >= 0 && !ask(list[i])) i--; return i; };
const made = new WeakMap();

/** The groups that stood at step m, as the feed tells groups. What did not change is the same object as before. */
export function groupsAt(day, m) {
  const s = day.begin + m * day.step_s, found = [];
  for (const g of day.alerts) {
    const c = lastBy(g.course, ([step]) => step <= m), [, severity, open] = g.course[c] ?? [0, 0, 0];
    if (!open) continue;
    const w = lastBy(g.says, ({ step }) => step <= m), a = lastBy(g.acks, ({ at }) => at <= s), key = `${c} ${w} ${a}`;
    let one = made.get(g);
    if (one?.key !== key) {
      const says = g.says[w] ?? {}, ack = g.acks[a] ?? null;
      one = {
        key, id: g.id, group: g.id, severity, worst: g.worst, class: g.class, rule: g.rule, kind: g.kind, district: g.district, onset: g.onset, first_at: g.onset,
        summary_zh: says.zh ?? "", summary_en: says.en ?? "", value: says.value, limit: says.limit, unit: says.unit, members: g.members, open, points: g.points,
        ack, acked: !!ack && ack.severity >= severity, answer: null, silenced: null, told: true, flapping: false, mode: "live",
      };
      made.set(g, one);
    }
    found.push(one);
  }
  return found;
}
