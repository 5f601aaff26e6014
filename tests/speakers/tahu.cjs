// An edge node of Eclipse Tahu: gives birth when it connects and when it is asked, and says by alias what it reads from
// standard input, one JSON object of metrics a line. It prints what happens to it. Killed, its will is its last word.
// node tahu.cjs mqtt://HOST:PORT GROUP NODE DEVICE
const sparkplug = require("sparkplug-client");
const [serverUrl, groupId, edgeNode, device] = process.argv.slice(2);
const aliases = { level: 1, rain: 2, wet: 3, count: 4 };
const types = { level: "Double", rain: "Float", wet: "Boolean", count: "Int32" };
const now = { level: 1.5, rain: 0.25, wet: true, count: -7 };
const client = sparkplug.newClient({
  serverUrl, groupId, edgeNode, username: "", password: "", clientId: edgeNode, publishDeath: false, keepalive: 30,
});

function birth(why) {
  const timestamp = Date.now();
  const metrics = Object.keys(now).map((name) => ({
    name, alias: aliases[name], type: types[name], value: now[name], timestamp,
  }));
  client.publishNodeBirth({ timestamp, metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: false }] });
  client.publishDeviceBirth(device, { timestamp, metrics });
  console.log(why, timestamp);
}

client.on("birth", () => birth("born"));
client.on("ncmd", (payload) => {
  if (payload.metrics.some((metric) => metric.name === "Node Control/Rebirth" && metric.value)) birth("reborn");
});
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const timestamp = Date.now();
  const said = JSON.parse(line);
  const metrics = Object.keys(said).map((name) => {
    now[name] = said[name];
    return { alias: aliases[name], type: types[name], value: said[name], timestamp };
  });
  client.publishDeviceData(device, { timestamp, metrics });
  console.log("said", timestamp);
});
