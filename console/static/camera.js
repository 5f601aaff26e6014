// Where the map looks: pan, zoom, fit, and the keys, wheel and pointers that move it.
// Owns the view; knows nothing of points. Only a person's hand or an explicit goTo moves it, never a tick of data.

const SCALE_MAX = 4000; // pixels a km: a quarter of a metre a pixel
const PAN_STEP = 80; // CSS pixels a key press
const ZOOM_STEP = 1.5;
const GLIDE_MS = 320;

export function createCamera(canvas, extent, changed) {
  // extent: {x0, y0, x1, y1} km that must be seen when the whole city is
  const view = { x: 0, y: 0, scale: 1, ratio: 1 };
  let home = 1, gliding = 0, placed = false;
  const calmly = matchMedia("(prefers-reduced-motion: reduce)");

  const homeScale = () => 0.94 * Math.min(canvas.width / (extent.x1 - extent.x0), canvas.height / (extent.y1 - extent.y0));
  function clamp() {
    view.scale = Math.min(SCALE_MAX * view.ratio, Math.max(home * 0.6, view.scale));
    view.x = Math.min(extent.x1, Math.max(extent.x0, view.x));
    view.y = Math.min(extent.y1, Math.max(extent.y0, view.y));
  }
  function set(x, y, scale) {
    view.x = x; view.y = y; view.scale = scale;
    placed = true;
    clamp();
    changed();
  }
  function zoomAt(factor, px, py) { // what is under (px, py) stays under it
    stop();
    const before = view.scale;
    const scale = Math.min(SCALE_MAX * view.ratio, Math.max(home * 0.6, before * factor));
    const dx = px - canvas.width / 2, dy = py - canvas.height / 2;
    set(view.x + dx / before - dx / scale, view.y + dy / before - dy / scale, scale);
  }
  function stop() { cancelAnimationFrame(gliding); gliding = 0; }
  function goTo(x, y, scale, glide = true) {
    stop();
    if (!glide || calmly.matches || document.hidden) return set(x, y, scale);
    const from = { ...view }, began = performance.now();
    const step = (now) => {
      const t = Math.min(1, (now - began) / GLIDE_MS), e = t * (2 - t);
      set(from.x + (x - from.x) * e, from.y + (y - from.y) * e, from.scale * (scale / from.scale) ** e);
      gliding = t < 1 ? requestAnimationFrame(step) : 0;
    };
    gliding = requestAnimationFrame(step);
  }
  const fit = (glide = true) => goTo((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2, homeScale(), glide);

  function resized() {
    const box = canvas.getBoundingClientRect(), ratio = Math.min(2, devicePixelRatio || 1);
    const w = Math.max(1, Math.round(box.width * ratio)), h = Math.max(1, Math.round(box.height * ratio));
    if (w !== canvas.width || h !== canvas.height || ratio !== view.ratio) {
      const scaled = ratio / view.ratio;
      canvas.width = w; canvas.height = h;
      view.ratio = ratio;
      view.scale *= scaled;
      const wasHome = !placed || Math.abs(view.scale / home - 1) < 1e-6;
      home = homeScale();
      if (wasHome) fit(false); else { clamp(); changed(); }
    }
  }

  // ------------------------------------------------------------- hands
  const at = (e) => {
    const box = canvas.getBoundingClientRect();
    return [(e.clientX - box.left) * view.ratio, (e.clientY - box.top) * view.ratio];
  };
  const down = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (e) => {
    if (e.button > 0) return;
    stop();
    canvas.setPointerCapture(e.pointerId);
    down.set(e.pointerId, at(e));
    moved = 0;
  });
  canvas.addEventListener("pointermove", (e) => {
    const before = down.get(e.pointerId);
    if (!before) return;
    const now = at(e);
    if (down.size === 2) { // two fingers
      const other = [...down.entries()].find(([id]) => id !== e.pointerId)[1];
      const was = Math.hypot(before[0] - other[0], before[1] - other[1]), is = Math.hypot(now[0] - other[0], now[1] - other[1]);
      zoomAt(is / Math.max(1, was), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else set(view.x - (now[0] - before[0]) / view.scale, view.y - (now[1] - before[1]) / view.scale, view.scale);
    moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    down.set(e.pointerId, now);
  });
  for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, (e) => down.delete(e.pointerId));
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    const lines = e.deltaMode === 1 ? 16 : 1;
    zoomAt(Math.exp(-Math.max(-240, Math.min(240, e.deltaY * lines)) * 0.0022), ...at(e));
  }, { passive: false });
  canvas.addEventListener("dblclick", (e) => zoomAt(ZOOM_STEP * ZOOM_STEP, ...at(e)));
  canvas.addEventListener("keydown", (e) => {
    const step = (PAN_STEP * view.ratio) / view.scale, mid = [canvas.width / 2, canvas.height / 2];
    const keys = {
      ArrowLeft: () => set(view.x - step, view.y, view.scale), ArrowRight: () => set(view.x + step, view.y, view.scale),
      ArrowUp: () => set(view.x, view.y - step, view.scale), ArrowDown: () => set(view.x, view.y + step, view.scale),
      "+": () => zoomAt(ZOOM_STEP, ...mid), "=": () => zoomAt(ZOOM_STEP, ...mid), "-": () => zoomAt(1 / ZOOM_STEP, ...mid), 0: () => fit(),
    };
    if (e.ctrlKey || e.metaKey || e.altKey || !keys[e.key]) return;
    e.preventDefault();
    stop();
    keys[e.key]();
  });
  new ResizeObserver(resized).observe(canvas); // the first view is taken by whoever holds the camera: resized()

  return {
    view, goTo, fit, set, resized,
    at, // [canvas pixel] of a pointer event
    zoom: (factor) => zoomAt(factor, canvas.width / 2, canvas.height / 2),
    get dragged() { return moved > 4 * view.ratio; },
    get busy() { return down.size > 0 || gliding !== 0; },
  };
}
