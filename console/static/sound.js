// A new orange or red sounds until it is answered, or until somebody mutes: and then the page shows that it is muted.
import { $ } from "./dom.js";
import { icon } from "./looks.js";
import { t } from "./words.js";

const RED = 4;
const EVERY_MS = { 3: 5000, 4: 2500 }; // orange, red
const TONES_HZ = { 3: [660, 660], 4: [880, 660, 880] };
const TONE_S = 0.16;
const KEY = "yuzui.muted";

export function createSound(app) {
  let audio = null, muted = localStorage.getItem(KEY) === "1", waiting = [], last = 0;

  function draw() {
    const button = $("sound"), blocked = !muted && audio?.state !== "running";
    const words = muted ? t("soundOff") : blocked ? t("soundBlocked") : t("soundOn");
    button.replaceChildren(icon(muted ? "mute" : "sound"));
    button.classList.toggle("warn", muted || blocked);
    button.classList.toggle("on", !muted && !blocked);
    button.title = words;
    button.setAttribute("aria-label", words);
    button.dataset.state = muted ? "muted" : blocked ? "blocked" : "on";
  }

  /** Browsers let a page sound only after a hand touched it. */
  async function wake() {
    audio ??= new AudioContext();
    await audio.resume().catch(() => {});
    draw();
  }

  function play(severity) {
    const at = audio.currentTime + 0.02;
    TONES_HZ[severity].forEach((hz, i) => {
      const tone = audio.createOscillator(), loud = audio.createGain(), from = at + i * (TONE_S + 0.05);
      tone.frequency.value = hz;
      loud.gain.setValueAtTime(0, from);
      loud.gain.linearRampToValueAtTime(0.25, from + 0.01);
      loud.gain.setValueAtTime(0.25, from + TONE_S - 0.03);
      loud.gain.linearRampToValueAtTime(0, from + TONE_S);
      tone.connect(loud).connect(audio.destination);
      tone.start(from);
      tone.stop(from + TONE_S);
    });
    sound.played++;
  }

  function beat() {
    if (!waiting.length || muted || audio?.state !== "running") return;
    const severity = Math.min(RED, Math.max(...waiting.map((g) => g.severity))), now = performance.now();
    if (now - last < EVERY_MS[severity]) return;
    last = now;
    play(severity);
  }

  function toggle() {
    if (!muted && audio?.state !== "running") { wake(); return; }
    muted = !muted;
    localStorage.setItem(KEY, muted ? "1" : "0");
    if (!muted) wake();
    draw();
    app.announce(t(muted ? "soundOff" : "soundOn"));
  }

  for (const type of ["pointerdown", "keydown"]) addEventListener(type, () => { if (audio?.state !== "running") wake(); }, { capture: true, passive: true });
  setInterval(beat, 500);
  const sound = { draw, toggle, played: 0, watch(groups) { waiting = groups; beat(); }, get waiting() { return waiting.length; } };
  return sound;
}
