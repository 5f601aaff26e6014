// Shapes of the states, as lists of pixels round a centre. Pure: no canvas, no state.
import { BLUE, NORMAL, OFFLINE, ORANGE, RED, YELLOW } from "./palette.js";

// What a pixel of a shape is painted with.
export const FILL = 0, RIM = 1, LIT = 2;

/** Shape of a class at a size (1 far … 3 near), times the screen's pixel ratio: {dx, dy, paint, reach}. */
export function sprite(cls, size, ratio) {
  const dots = [];
  const put = (dx, dy, paint) => dots.push([dx, dy, paint]);
  const k = Math.max(1, Math.round(ratio));
  SHAPES[cls](size, k, put);
  return {
    dx: Int16Array.from(dots, (d) => d[0]), dy: Int16Array.from(dots, (d) => d[1]),
    paint: Uint8Array.from(dots, (d) => d[2]),
    reach: Math.max(...dots.map((d) => Math.max(Math.abs(d[0]), Math.abs(d[1])))),
  };
}

const grid = (r, visit) => {
  for (let y = -r; y <= r; y++) for (let x = -r; x <= r; x++) visit(x, y);
};

const SHAPES = {
  // Normal: one dim dot; from near, two or three pixels wide.
  [NORMAL](size, k, put) {
    const wide = (size === 1 ? 1 : size) * k;
    for (let y = 0; y < wide; y++) for (let x = 0; x < wide; x++) put(x - (wide >> 1), y - (wide >> 1), FILL);
  },
  // Offline: a hollow square.
  [OFFLINE](size, k, put) {
    const r = size * k;
    grid(r, (x, y) => { if (Math.max(Math.abs(x), Math.abs(y)) > r - k) put(x, y, FILL); });
  },
  [BLUE](size, k, put) {
    const r = (size + 1) * k;
    grid(r, (x, y) => { if (size === 1 || Math.max(Math.abs(x), Math.abs(y)) < r) put(x, y, FILL); else put(x, y, RIM); });
  },
  // Yellow: a triangle on its base.
  [YELLOW](size, k, put) {
    const r = (size + 3) * k;
    grid(r, (x, y) => {
      const inside = (m) => y <= r - 1 - m && Math.abs(x) * 2 <= y + r - 1 - 2.2 * m;
      if (inside(k)) put(x, y, FILL); else if (inside(0)) put(x, y, RIM);
    });
  },
  [ORANGE](size, k, put) {
    const r = (size + 4) * k;
    grid(r, (x, y) => {
      const d = Math.abs(x) + Math.abs(y);
      if (d <= r - k) put(x, y, FILL); else if (d <= r) put(x, y, RIM);
    });
  },
  // Red: a dot in a ring, the gap between them and the rim outside dark.
  [RED](size, k, put) {
    const r = (size + 5) * k;
    grid(r, (x, y) => {
      const d = Math.hypot(x, y);
      if (d <= r * 0.5) put(x, y, FILL);
      else if (d <= r * 0.5 + k) put(x, y, RIM);
      else if (d <= r - k * 0.4) put(x, y, LIT);
      else if (d <= r + 0.5) put(x, y, RIM);
    });
  },
};
