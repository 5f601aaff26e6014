"""What a message costs between socket and decoder: scan 1,000 PUBLISH frames, build their receipt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ingest.frames import scan
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Publish
from ingest.mqtt.receipts import Receipt, Received, build_receipt

MESSAGES = 1000


def stream(v5: bool, qos: int) -> bytes:
    """The city's message: a topic of its own, one reading, about 60 bytes in all."""
    return b"".join(
        encode(
            Publish(
                f"cd/gw{n % 1100:04d}/rain/{n:06d}",
                b'{"ts":1718000000%03d,"v":%d.5}' % (n, n % 50),
                qos,
                pid=n + 1,
            ),
            v5,
        )
        for n in range(MESSAGES)
    )


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1])
def test_scan_and_receipt_of_1000_messages(benchmark: Any, v5: bool, qos: int) -> None:
    raw = stream(v5, qos)
    conn: Any = SimpleNamespace(v5=v5, from_publisher=True)

    def turn() -> Receipt:
        frames = scan(raw, 0, v5)
        return build_receipt(
            Received(conn, 1, frames.topics, frames.payloads, frames.heads, frames.pids, 0, len(raw))
        )

    receipt = benchmark(turn)
    assert (receipt.messages, len(receipt.acks)) == ((MESSAGES, 4 * MESSAGES) if qos else (0, 0))
