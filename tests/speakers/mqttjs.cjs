// MQTT.js publishes lines of standard input, "TOPIC PAYLOAD", at QoS 1, and ends once all are acknowledged.
// node mqttjs.cjs mqtt://HOST:PORT [4|5]
const mqtt = require("mqtt");
const [url, version] = process.argv.slice(2);
const client = mqtt.connect(url, { protocolVersion: Number(version || 5), reconnectPeriod: 0 });
const lines = require("fs").readFileSync(0, "utf8").split("\n").filter(Boolean);
client.on("error", (fault) => { console.error(String(fault)); process.exit(1); });
client.on("connect", async () => {
  for (const line of lines) {
    const space = line.indexOf(" ");
    await client.publishAsync(line.slice(0, space), line.slice(space + 1), { qos: 1 });
  }
  await client.endAsync();
});
