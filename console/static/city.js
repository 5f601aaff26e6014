// The city in arrays: every point's place, kind and state by display index; what of it is shown; and its counts.
// Owns the points' state. Knows nothing of sockets, canvas or page.
import { CLASSES, CLASS_OF, RED, TONE_OF } from "./palette.js";
import { placed } from "./wire.js";

const KM_PER_DEGREE = 111.32; // of latitude; of longitude times the cosine of the frame's middle

export function createCity(reg) {
  const { n, frame } = reg, east = KM_PER_DEGREE * Math.cos(((frame.lat0 + frame.lat1) / 2) * (Math.PI / 180));
  const width = (frame.lon1 - frame.lon0) * east, height = (frame.lat1 - frame.lat0) * KM_PER_DEGREE;
  const x = new Float32Array(n), y = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    const here = placed(reg.x[i], reg.y[i]);
    x[i] = here ? (reg.x[i] / 65534) * width : NaN; // NaN is never inside a picture
    y[i] = here ? (1 - reg.y[i] / 65534) * height : NaN;
  }
  const kinds = reg.kinds.length, districts = reg.districts.length;
  const city = {
    n, version: reg.version, kinds: reg.kinds, districts: reg.districts, sources: reg.sources, name: reg.city ?? "", zone: reg.time_zone,
    x, y, kind: reg.kind, district: reg.district, width, height,
    level: new Uint8Array(n), state: new Uint8Array(n), tone: new Uint8Array(n), cls: new Uint8Array(n),
    order: new Uint32Array(n), starts: new Uint32Array(CLASSES + 1), shown: 0,
    byClass: new Uint32Array(CLASSES), byKind: new Uint32Array(kinds * CLASSES), byDistrict: new Uint32Array(districts * CLASSES),
    kindShown: new Uint8Array(kinds).fill(1), classShown: new Uint8Array(CLASSES).fill(1),
    time: 0, pos: 0, seq: -1, arrived: 0,

    toKm: (lon, lat) => ({ x: (lon - frame.lon0) * east, y: (frame.lat1 - lat) * KM_PER_DEGREE }),
    toDegrees: (kx, ky) => ({ lon: frame.lon0 + kx / east, lat: frame.lat1 - ky / KM_PER_DEGREE }),

    /** After the state changed: classes, tones and counts. */
    count() {
      const { state, cls, tone, byClass, byKind, byDistrict, kind, district } = city;
      byClass.fill(0); byKind.fill(0); byDistrict.fill(0);
      for (let i = 0; i < n; i++) {
        const s = state[i], c = CLASS_OF[s];
        cls[i] = c;
        tone[i] = TONE_OF[s];
        byClass[c]++;
        byKind[kind[i] * CLASSES + c]++;
        byDistrict[district[i] * CLASSES + c]++;
      }
    },

    /** After state or layers changed: what is drawn, class by class, display order within a class. */
    arrange() {
      const { cls, kind, kindShown, classShown, order, starts } = city;
      const at = new Uint32Array(CLASSES + 1);
      for (let i = 0; i < n; i++) if (kindShown[kind[i]] & classShown[cls[i]]) at[cls[i] + 1]++;
      for (let c = 0; c < CLASSES; c++) at[c + 1] += at[c];
      starts.set(at);
      for (let i = 0; i < n; i++) if (kindShown[kind[i]] & classShown[cls[i]]) order[at[cls[i]]++] = i;
      city.shown = starts[CLASSES];
    },

    /** Display indices of the worst points that are shown, worst first, at most so many. */
    worst(limit = 500) {
      const found = [];
      for (let c = RED; c > 1 && found.length < limit; c--) for (let k = city.starts[c]; k < city.starts[c + 1] && found.length < limit; k++) found.push(city.order[k]);
      return found;
    },

    /** Other points at the very same place. */
    sharing(i) {
      const found = [];
      for (let j = 0; j < n && found.length < 50; j++) if (j !== i && x[j] === x[i] && y[j] === y[i]) found.push(j);
      return found;
    },

    /** Corners in km of the points that ask is true for; null where there are none. */
    extent(ask = () => true) {
      const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
      for (let i = 0; i < n; i++) if (x[i] === x[i] && ask(i)) {
        if (x[i] < box.x0) box.x0 = x[i];
        if (x[i] > box.x1) box.x1 = x[i];
        if (y[i] < box.y0) box.y0 = y[i];
        if (y[i] > box.y1) box.y1 = y[i];
      }
      return box.x0 <= box.x1 ? box : null;
    },
  };
  city.count();
  city.arrange();
  return city;
}

/** District outlines (steps in CGCS2000 degrees) as rings in km, each with the place of its label; order as given. */
export function shapesOf(outlines, city) {
  return outlines.districts.map((d) => {
    const rings = d.rings.map((flat) => {
      const n = flat.length / 2, ring = { x: new Float32Array(n), y: new Float32Array(n) };
      for (let i = 0, lon = 0, lat = 0; i < n; i++) {
        lon += flat[2 * i];
        lat += flat[2 * i + 1];
        const at = city.toKm(lon * outlines.step, lat * outlines.step);
        ring.x[i] = at.x;
        ring.y[i] = at.y;
      }
      return ring;
    });
    return { name: d.name, rings, ...middle(rings) };
  });
}

/** The balance point of the largest ring, and its area in km². */
function middle(rings) {
  let best = { area: 0, label: { x: 0, y: 0 } };
  for (const { x, y } of rings) {
    let twice = 0, sx = 0, sy = 0;
    for (let i = 0, j = x.length - 1; i < x.length; j = i++) {
      const cross = x[j] * y[i] - x[i] * y[j];
      twice += cross;
      sx += (x[j] + x[i]) * cross;
      sy += (y[j] + y[i]) * cross;
    }
    if (Math.abs(twice) / 2 > best.area) best = { area: Math.abs(twice) / 2, label: { x: sx / (3 * twice), y: sy / (3 * twice) } };
  }
  return best;
}
