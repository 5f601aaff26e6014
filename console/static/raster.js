// Polygons, lines and text masks written straight into a buffer of pixels. Pure: arrays in, arrays changed.

const CROSSINGS_MAX = 64; // of one ring set with one row of pixels; a district's border has about ten

/** Rows of scratch for fill(): crossings of each row of pixels. */
export function scratch(height) {
  return { count: new Uint8Array(height), at: new Float32Array(height * CROSSINGS_MAX), height };
}

/** Fills rings (screen coordinates, even-odd) with a pixel. rings: [{x, y}] Float32Array corners, closed by themselves. */
export function fill(buf, width, height, rings, colour, rows) {
  rows.count.fill(0);
  let top = height, bottom = -1;
  for (const { x, y } of rings) {
    const n = x.length;
    for (let i = 0, j = n - 1; i < n; j = i++) {
      let x0 = x[j], y0 = y[j], x1 = x[i], y1 = y[i];
      if (y0 > y1) { const tx = x0, ty = y0; x0 = x1; y0 = y1; x1 = tx; y1 = ty; }
      const from = Math.max(0, Math.ceil(y0 - 0.5)), to = Math.min(height - 1, Math.ceil(y1 - 0.5) - 1);
      if (from > to) continue;
      const slope = (x1 - x0) / (y1 - y0);
      if (from < top) top = from;
      if (to > bottom) bottom = to;
      for (let row = from, at = x0 + (from + 0.5 - y0) * slope; row <= to; row++, at += slope) {
        const c = rows.count[row];
        if (c < CROSSINGS_MAX) { rows.at[row * CROSSINGS_MAX + c] = at; rows.count[row] = c + 1; }
      }
    }
  }
  for (let row = top; row <= bottom; row++) {
    const c = rows.count[row], base = row * CROSSINGS_MAX;
    if (c < 2) continue;
    for (let i = 1; i < c; i++) { // insertion: a handful of numbers
      const v = rows.at[base + i];
      let j = i - 1;
      while (j >= 0 && rows.at[base + j] > v) { rows.at[base + j + 1] = rows.at[base + j]; j--; }
      rows.at[base + j + 1] = v;
    }
    for (let i = 0; i + 1 < c; i += 2) {
      const from = Math.max(0, Math.ceil(rows.at[base + i] - 0.5)), to = Math.min(width, Math.ceil(rows.at[base + i + 1] - 0.5));
      if (from < to) buf.fill(colour, row * width + from, row * width + to);
    }
  }
}

/** Share of b over a, channel by channel, without leaving integers. share 0 … 256. */
function blend(a, b, share) {
  const rb = a & 0xff00ff, g = a & 0xff00;
  return (0xff000000 | ((rb + ((((b & 0xff00ff) - rb) * share) >> 8)) & 0xff00ff) | ((g + ((((b & 0xff00) - g) * share) >> 8)) & 0xff00)) >>> 0;
}

/** A closed line through a ring's corners, one pixel wide, its edges softened (Xiaolin Wu's way). */
export function outline(buf, width, height, { x, y }, colour) {
  const n = x.length;
  for (let i = 0, j = n - 1; i < n; j = i++) line(buf, width, height, x[j], y[j], x[i], y[i], colour);
}

export function line(buf, width, height, x0, y0, x1, y1, colour) {
  if (Math.max(x0, x1) < 0 || Math.max(y0, y1) < 0 || Math.min(x0, x1) >= width || Math.min(y0, y1) >= height) return;
  const steep = Math.abs(y1 - y0) > Math.abs(x1 - x0);
  let a0 = steep ? y0 : x0, b0 = steep ? x0 : y0, a1 = steep ? y1 : x1, b1 = steep ? x1 : y1;
  if (a0 > a1) { let t = a0; a0 = a1; a1 = t; t = b0; b0 = b1; b1 = t; }
  const alongMax = (steep ? height : width) - 1, acrossMax = (steep ? width : height) - 1;
  const slope = a1 > a0 ? (b1 - b0) / (a1 - a0) : 0;
  const from = Math.max(0, Math.round(a0)), to = Math.min(alongMax, Math.round(a1));
  const stepA = steep ? width : 1, stepB = steep ? 1 : width;
  for (let a = from, b = b0 + (from - a0) * slope; a <= to; a++, b += slope) {
    const whole = Math.floor(b), part = ((b - whole) * 256) | 0;
    if (whole >= 0 && whole <= acrossMax) { const o = a * stepA + whole * stepB; buf[o] = blend(buf[o], colour, 256 - part); }
    if (whole >= -1 && whole < acrossMax) { const o = a * stepA + (whole + 1) * stepB; buf[o] = blend(buf[o], colour, part); }
  }
}

/** Blends a mask of alpha (Uint8, w × h) at a place, in one colour. */
export function stamp(buf, width, height, mask, left, top, colour) {
  for (let y = Math.max(0, -top); y < mask.h && top + y < height; y++) {
    for (let x = Math.max(0, -left); x < mask.w && left + x < width; x++) {
      const alpha = mask.alpha[y * mask.w + x];
      if (alpha) { const o = (top + y) * width + left + x; buf[o] = blend(buf[o], colour, alpha + (alpha >> 7)); }
    }
  }
}
