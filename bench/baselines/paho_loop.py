"""paho-mqtt as its documentation shows it: an ``on_message`` callback and ``loop_forever``. Run by bench.peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from bench.baselines.keeping import Keeper, options
from ingest.simulate.speaker import forget_signals, say


def main() -> None:
    """Listen until SIGTERM."""
    told = options()
    keeper = Keeper(Path(told["folder"]))
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)

    def on_message(_client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        keeper.keep(message.topic, message.payload)
        keeper.write()

    client.on_connect = lambda *_: client.subscribe("cd/#", qos=told["qos"])
    client.on_subscribe = lambda *_: say(ready=True)
    client.on_message = on_message
    forget_signals(client.disconnect)
    client.connect("127.0.0.1", told["port"])
    client.loop_forever()
    keeper.finish()


if __name__ == "__main__":
    main()
