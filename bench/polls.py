"""Messages as one poll brings them, for benchmarks of decoding: bytes of MQTT to columns, as the engine does it.

Owns the arena and the connection they come on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ingest.decode.messages import Chunk, Messages
from ingest.kernels.compiling import IS_COMPILED
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Publish
from ingest.routes import Routes
from storage.batch import RawBatch

PEER = SimpleNamespace(client_id="bench", credential=None, from_publisher=True)


def turn_of(
    decoder: Messages, routes: Routes, messages: Sequence[tuple[str, bytes]], now_us: int
) -> Callable[[], RawBatch]:
    """One poll that brings these messages, on one connection."""
    table = routes.table(None, lambda _name, _topic: True)

    def taken() -> RawBatch:
        batch, refusals = decoder.take(now_us)
        assert not refusals
        return batch

    if not IS_COMPILED:
        topics = [topic.encode() for topic, _ in messages]
        chunk = Chunk(topics, [payload for _, payload in messages], b"\x32" * len(messages), "bench")

        def plainly() -> RawBatch:
            decoder.feed(table, chunk, now_us)
            return taken()

        return plainly

    from ingest.mqtt.arena import Arena

    stream = b"".join(encode(Publish(topic, payload, 1, pid=1), False) for topic, payload in messages)
    arena: Arena[Any] = Arena(len(stream))
    arena.view[: len(stream)] = stream

    def poll() -> RawBatch:
        arena.clear()
        arena.segment(PEER, len(stream), False)
        arena.scan(1 << 20)
        decoder.feed_arena(arena, lambda _credential: table, now_us)
        return taken()

    return poll
