// The map's picture: every point written as pixels into an ImageData, with a second buffer of who owns each pixel.
// draw(view, state) and pick(x, y) are its whole face, so that another renderer can stand in its place.
// It owns pixels; it never asks for anything, moves nothing, and keeps no point.
//
// view   {x, y, scale, ratio}  middle of the picture in km, pixels a km, the screen's pixels per CSS pixel
// state  {x, y, order, starts, calm, districts, labels, theme, lit, beat, marks}
//   x, y       Float32Array[n], km east and km south of the frame's corner
//   order      Uint32Array, the points that are shown, class by class in drawing order; starts: where each class begins
//   tone       Uint8Array[n], 1 where an alarm was answered or is silenced (drawn dimmer), or a normal point is in doubt (grey)
//   districts  [{rings: [{x, y}], label: {x, y}}] in km; labels: masks of their names; lit: the index of one, or -1
//   beat       0 or 1, changing once a second: who has not been answered blinks
//   marks      [index] points to ring (chosen, found)
import { CLASSES, NORMAL, OFFLINE, ORANGE, RED, THEMES, mix, pixel } from "./palette.js";
import { fill, line, outline, scratch, stamp } from "./raster.js";
import { FILL, LIT, sprite } from "./sprites.js";

const NEAR = 90, NEARER = 320; // pixels a km from which shapes grow
const CALM = 0.55; // how far an answered alarm fades into the ground
const DOUBT = 0.3; // and the grey of a normal point that is in doubt

export function createRenderer(canvas) {
  const pen = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  let width = 0, height = 0, image, buf, ids, rows;
  let shapes = [], shapesOf = "";

  function resize() {
    if (canvas.width === width && canvas.height === height && image) return;
    width = canvas.width;
    height = canvas.height;
    image = pen.createImageData(Math.max(1, width), Math.max(1, height));
    buf = new Uint32Array(image.data.buffer);
    ids = new Uint32Array(buf.length);
    rows = scratch(height);
    shapesOf = "";
  }

  function prepare(size, ratio, theme) {
    const key = `${size} ${ratio} ${theme} ${width}`;
    if (key === shapesOf) return;
    shapesOf = key;
    const look = THEMES[theme], rim = pixel(look.rim), bright = pixel(look.lit);
    shapes = look.states.map((hex, cls) => {
      const shape = sprite(cls, size, ratio), full = pixel(hex);
      const calm = cls === NORMAL ? mix(pixel(look.states[OFFLINE]), pixel(look.ground), DOUBT) : mix(full, pixel(look.ground), CALM);
      const paint = (body, lit) => Uint32Array.from(shape.paint, (p) => (p === FILL ? body : p === LIT ? lit : rim));
      return {
        offset: Int32Array.from(shape.dx, (dx, i) => shape.dy[i] * width + dx), dx: shape.dx, dy: shape.dy, reach: shape.reach,
        full: paint(full, full), calm: paint(calm, calm), beat: cls === RED ? paint(full, bright) : cls === ORANGE ? paint(mix(full, bright, 0.4), full) : paint(full, full),
      };
    });
  }

  function drawLand(view, state, look) {
    buf.fill(pixel(look.ground));
    const land = pixel(look.land), lit = pixel(look.landLit), border = pixel(look.border), edge = pixel(look.edge);
    const left = width / 2 - view.x * view.scale, top = height / 2 - view.y * view.scale;
    const placed = state.districts.map((d) => d.rings.map((ring) => ({
      x: ring.x.map((v) => v * view.scale + left), y: ring.y.map((v) => v * view.scale + top),
    })));
    placed.forEach((rings, i) => fill(buf, width, height, rings, i === state.lit ? lit : land, rows));
    for (const rings of placed) for (const ring of rings) outline(buf, width, height, ring, border);
    if (state.lit >= 0 && placed[state.lit]) for (const ring of placed[state.lit]) outline(buf, width, height, ring, edge);
  }

  /** Names lie over the many that are normal and under every alarm; they never own a pixel. */
  function drawLabels(view, state, look) {
    const taken = [], scale = view.scale, left = width / 2 - view.x * scale, top = height / 2 - view.y * scale;
    state.labels.forEach((mask, i) => {
      if (!mask) return;
      const at = state.districts[i].label;
      const x = Math.round(at.x * scale + left - mask.w / 2), y = Math.round(at.y * scale + top - mask.h / 2);
      if (taken.some((t) => x < t.x + t.w && t.x < x + mask.w && y < t.y + t.h && t.y < y + mask.h)) return;
      taken.push({ x, y, w: mask.w, h: mask.h });
      stamp(buf, width, height, mask.halo, x, y, pixel(look.land));
      stamp(buf, width, height, mask, x, y, pixel(look.label));
    });
  }

  function drawClass(cls, view, state) {
    const { order, starts, x, y, tone } = state, shape = shapes[cls], reach = shape.reach;
    const scale = view.scale, left = width / 2 - view.x * scale, top = height / 2 - view.y * scale;
    const end = starts[cls + 1], dots = shape.offset.length, { offset, dx, dy } = shape;
    if (dots === 1) { // the many: one pixel each
      const full = shape.full[0], quiet = shape.calm[0];
      for (let k = starts[cls]; k < end; k++) {
        const i = order[k], px = x[i] * scale + left, py = y[i] * scale + top;
        if (px >= 0 && py >= 0 && px < width && py < height) { const o = (py | 0) * width + (px | 0); buf[o] = tone[i] ? quiet : full; ids[o] = i + 1; }
      }
      return;
    }
    const wide = width - reach, high = height - reach;
    for (let k = starts[cls]; k < end; k++) {
      const i = order[k], px = Math.floor(x[i] * scale + left), py = Math.floor(y[i] * scale + top);
      if (px < -reach || py < -reach || px >= width + reach || py >= height + reach) continue;
      const colours = tone[i] ? shape.calm : state.beat ? shape.beat : shape.full;
      const o = py * width + px, id = i + 1;
      if (px >= reach && py >= reach && px < wide && py < high) {
        for (let d = 0; d < dots; d++) { const at = o + offset[d]; buf[at] = colours[d]; ids[at] = id; }
      } else {
        for (let d = 0; d < dots; d++) {
          const ax = px + dx[d], ay = py + dy[d];
          if (ax >= 0 && ay >= 0 && ax < width && ay < height) { const at = ay * width + ax; buf[at] = colours[d]; ids[at] = id; }
        }
      }
    }
  }

  function drawMark(i, view, state, colour) {
    const px = Math.floor((state.x[i] - view.x) * view.scale + width / 2), py = Math.floor((state.y[i] - view.y) * view.scale + height / 2);
    const arm = 6 * view.ratio;
    for (let r = 14 * view.ratio; r > 14 * view.ratio - 2 * view.ratio; r--) for (const [sx, sy] of [[-1, -1], [1, -1], [-1, 1], [1, 1]]) { // the four corners of a frame
      line(buf, width, height, px + sx * r, py + sy * r, px + sx * (r - arm), py + sy * r, colour);
      line(buf, width, height, px + sx * r, py + sy * r, px + sx * r, py + sy * (r - arm), colour);
    }
  }

  return {
    draw(view, state) {
      resize();
      const look = THEMES[state.theme];
      prepare(view.scale >= NEARER * view.ratio ? 3 : view.scale >= NEAR * view.ratio ? 2 : 1, view.ratio, state.theme);
      drawLand(view, state, look);
      ids.fill(0);
      for (let cls = 0; cls < CLASSES; cls++) {
        drawClass(cls, view, state);
        if (cls === NORMAL) drawLabels(view, state, look);
      }
      for (const i of state.marks) drawMark(i, view, state, pixel(look.mark));
      pen.putImageData(image, 0, 0);
    },

    /** Index of the point whose pixel this is (canvas pixels), or -1. */
    pick(x, y) {
      x = Math.floor(x);
      y = Math.floor(y);
      return ids && x >= 0 && y >= 0 && x < width && y < height ? ids[y * width + x] - 1 : -1;
    },
  };
}
