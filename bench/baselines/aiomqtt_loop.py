"""aiomqtt as its documentation shows it: ``async for message in client.messages``. Run as a module by bench.peers."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiomqtt

from bench.baselines.keeping import Keeper, options
from ingest.simulate.speaker import forget_signals, say


async def _main(told: dict[str, Any]) -> None:
    keeper = Keeper(Path(told["folder"]))

    async def listen() -> None:
        async with aiomqtt.Client("127.0.0.1", told["port"]) as client:
            await client.subscribe("cd/#", qos=told["qos"])
            say(ready=True)
            async for message in client.messages:
                keeper.keep(message.topic.value, message.payload)
                keeper.write()

    task = asyncio.create_task(listen())
    loop = asyncio.get_running_loop()
    forget_signals(lambda: loop.call_soon_threadsafe(task.cancel))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    keeper.finish()


if __name__ == "__main__":
    asyncio.run(_main(options()))
