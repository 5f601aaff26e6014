// What a state looks like: colours by theme, and the classes in the order they are drawn.
// Owns looks only; knows nothing of where states come from.

// Drawn in this order, so the worst of several points on one pixel is the one that is seen.
export const OFFLINE = 0, NORMAL = 1, BLUE = 2, YELLOW = 3, ORANGE = 4, RED = 5;
export const CLASSES = 6;
export const CLASS_NAMES = ["offline", "normal", "blue", "yellow", "orange", "red"];

/** Class of each value of a point's state byte: an alarm counts before everything, then no picture or no value. */
export const CLASS_OF = Uint8Array.from({ length: 256 }, (_, s) => {
  const severity = Math.min(4, s & 7);
  return severity ? NORMAL + severity : s & 0x48 ? OFFLINE : NORMAL;
});
/** 1 for states drawn quieter: an alarm that is answered or silenced; a normal point whose value is in doubt or that is faulty. */
export const TONE_OF = Uint8Array.from({ length: 256 }, (_, s) => (s & 7 ? +!!(s & 0x20) : +!!(s & 0x90)));

// Dark: the worst pair keeps a ΔE00 of 11.8 for every common kind of colour blindness, on this ground. Shapes differ too,
// so no state rests on colour alone. Light: the same hues, darker, with a white rim.
export const THEMES = {
  dark: {
    ground: "#0d1219", land: "#141e29", landLit: "#1b2a3a", border: "#314557", edge: "#5b7a96", label: "#a3b6c8",
    states: ["#a7b0bb", "#3d6b66", "#58a6ff", "#fff04d", "#ff9d00", "#e8112d"],
    rim: "#0d1219", mark: "#ffffff", lit: "#ffffff",
  },
  light: {
    ground: "#dfe5ea", land: "#f7f9fa", landLit: "#e6eff8", border: "#c2ccd5", edge: "#93a3b1", label: "#5b6b79",
    states: ["#6f7a85", "#8fb5af", "#1f6feb", "#cf9b00", "#f07800", "#d0021b"],
    rim: "#ffffff", mark: "#101820", lit: "#ffd5d8",
  },
};

/** "#rrggbb" as the little-endian pixel of an ImageData seen as Uint32. */
export function pixel(hex) {
  const v = parseInt(hex.slice(1), 16);
  return (0xff000000 | ((v & 0xff) << 16) | (v & 0xff00) | (v >> 16)) >>> 0;
}

/** a shifted towards b by share (0 … 1). */
export function mix(a, b, share) {
  const part = (s) => {
    const x = (a >>> s) & 255, y = (b >>> s) & 255;
    return Math.round(x + (y - x) * share) << s;
  };
  return (0xff000000 | part(16) | part(8) | part(0)) >>> 0;
}
