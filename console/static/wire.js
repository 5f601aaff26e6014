// Bytes of the feed and the registry to arrays: the reading half of console/FORMAT.md. Pure.

export const WIRE = 1;
const HEADER = 32;
const NOWHERE = 65535;

/** The registry's bytes: its JSON, and x, y (Uint16, y grows north), kind, district (Uint8), source (Uint16) in display order. */
export function registry(bytes) {
  const head = new DataView(bytes);
  if (head.getUint32(0, true) !== 0x31525a59) throw new Error("not a registry"); // "YZR1"
  const n = head.getUint32(8, true), size = head.getUint32(12, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 16, size)));
  let at = 16 + size;
  const plane = () => { const p = new Uint8Array(bytes, at, n); at += n; return p; };
  const unfold = (lo, hi) => {
    const out = new Uint16Array(n);
    for (let i = 0, v = 0; i < n; i++) {
      const d = lo[i] | (hi[i] << 8);
      out[i] = v = (v + ((d >>> 1) ^ -(d & 1))) & 65535;
    }
    return out;
  };
  const x = unfold(plane(), plane()), y = unfold(plane(), plane()), kind = plane(), district = plane(), low = plane(), high = plane();
  const source = Uint16Array.from(low, (v, i) => v | (high[i] << 8));
  return { ...about, version: head.getUint32(4, true), n, x, y, kind, district, source };
}

/** Whether a point of the registry has a place at all. */
export const placed = (x, y) => !(x === NOWHERE && y === NOWHERE);

/** A frame's header. */
export function header(bytes) {
  const v = new DataView(bytes);
  if (bytes.byteLength < HEADER || v.getUint8(1) !== WIRE) throw new Error("a frame of another version: reload the page");
  return {
    key: v.getUint8(0) === 1, replay: (v.getUint16(2, true) & 1) > 0, drill: (v.getUint16(2, true) & 2) > 0, seq: v.getUint32(4, true),
    time: Number(v.getBigInt64(8, true)) / 1000, pos: Number(v.getBigUint64(16, true)), registry: v.getUint32(24, true), n: v.getUint32(28, true),
  };
}

/** A frame's planes, inflated: level u8[n], then state u8[n]. */
export async function planes(bytes, n) {
  const body = new Blob([new Uint8Array(bytes, HEADER)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const flat = new Uint8Array(await new Response(body).arrayBuffer());
  if (flat.length !== 2 * n) throw new Error("a frame of the wrong length");
  return { level: flat.subarray(0, n), state: flat.subarray(n) };
}

/** Puts a frame's planes on the state of the frame before, in place. */
export function apply(city, key, { level, state }) {
  if (key) { city.level.set(level); city.state.set(state); return; }
  const l = city.level, s = city.state;
  for (let i = 0, n = l.length; i < n; i++) { l[i] += level[i]; s[i] ^= state[i]; }
}
