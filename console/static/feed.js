// The live feed: one WebSocket, its order, its silence, and coming back by itself.
// Owns the connection. Hands on whole messages in their order; knows nothing of the page.
import { header, planes } from "./wire.js";

export const STALE_MS = 4500; // longer without a frame, and the map says so before five seconds are over
const SILENT_MS = 12000; // longer without anything, and the connection is given up
const RETRY_MS = [300, 700, 1500, 3000, 5000];

/** tell: {hello, kpi, alerts, frame(head, planes), state(name), refused()}. registryOf(): version the page holds. */
export function createFeed(tell, registryOf) {
  let socket = null, tries = 0, timer = 0, wanted = false, queue = Promise.resolve(), seq = -1;
  let heard = 0; // performance.now() of the last message
  const feed = { lostAt: 0, frameAt: 0, connected: false };

  function open() {
    clearTimeout(timer);
    if (!wanted) return;
    const mine = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    mine.binaryType = "arraybuffer";
    socket = mine;
    seq = -1;
    heard = performance.now();
    const current = () => wanted && socket === mine;
    mine.onmessage = ({ data }) => {
      if (socket !== mine) return;
      heard = performance.now();
      queue = queue.then(() => (current() ? take(data, current) : null)).catch((error) => { console.error(error); mine.close(); });
    };
    mine.onclose = ({ code }) => {
      if (socket !== mine) return;
      socket = null;
      const was = feed.connected;
      feed.connected = false;
      if (was || !feed.lostAt) feed.lostAt = performance.now();
      tell.state();
      if (!wanted) return;
      if (code === 4401 || tries > 0) tell.refused(); // perhaps the session ended: the page asks who we are
      const wait = RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)];
      timer = setTimeout(open, wait * (0.8 + 0.4 * Math.random()));
    };
  }

  async function take(data, current) {
    if (typeof data === "string") {
      const said = JSON.parse(data);
      if (said.t === "hello") {
        feed.connected = true;
        feed.lostAt = 0;
        tries = 0;
        await tell.hello(said);
        tell.state();
      } else tell[said.t]?.(said);
      return;
    }
    const head = header(data);
    if (head.registry !== registryOf()) return; // a hello with the new one comes first
    if (!head.key && head.seq !== seq + 1) return; // a keyframe follows
    const flat = await planes(data, head.n);
    if (!current()) return; // stopped meanwhile, or another connection
    seq = head.seq;
    feed.frameAt = performance.now();
    tell.frame(head, flat);
  }

  setInterval(() => {
    if (socket && performance.now() - heard > SILENT_MS) {
      const dead = socket;
      dead.onclose({ code: 1006 });
      dead.close();
    }
  }, 1000);
  addEventListener("online", () => { if (wanted && !socket) { tries = 0; open(); } });

  feed.start = () => { if (!wanted) { wanted = true; tries = 0; open(); } };
  feed.stop = () => { wanted = false; clearTimeout(timer); socket?.close(); };
  return feed;
}
