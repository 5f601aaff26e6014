"""gmqtt as its documentation shows it: an ``on_message`` callback on the event loop. Run as a module by bench.peers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gmqtt import Client
from gmqtt.mqtt.constants import MQTTv311

from bench.baselines.keeping import Keeper, options
from ingest.simulate.speaker import forget_signals, say


async def _main(told: dict[str, Any]) -> None:
    keeper = Keeper(Path(told["folder"]))
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    forget_signals(lambda: loop.call_soon_threadsafe(stopped.set))
    client = Client("baseline")

    def on_message(_client: Any, topic: str, payload: bytes, _qos: int, _properties: Any) -> int:
        keeper.keep(topic, payload)
        keeper.write()
        return 0

    client.on_connect = lambda *_: client.subscribe("cd/#", qos=told["qos"])
    client.on_subscribe = lambda *_: say(ready=True)
    client.on_message = on_message
    await client.connect("127.0.0.1", told["port"], version=MQTTv311)
    await stopped.wait()
    await client.disconnect()
    keeper.finish()


if __name__ == "__main__":
    asyncio.run(_main(options()))
