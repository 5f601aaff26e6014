"""What one aiomqtt gateway must remember: steps that wait, messages that wait for their PUBACK.

Owns the queue of a gateway and the settling of its ledger rows. Knows nothing of connections, of pacing
or of how a message is written.
"""

from __future__ import annotations

import asyncio
from collections import deque

from paho.mqtt.reasoncodes import ReasonCode

from ingest.simulate.ledger import ACKED, QUEUED, REFUSED, SENT, Chunk


class Step:
    """What one gateway measured at one instant, as messages of rows begin … end of its chunk.

    measured_ms  when; left: (begin, end) of the messages that are still to be published
    """

    __slots__ = ("chunk", "left", "measured_ms", "stamped")

    def __init__(self, chunk: Chunk, measured_ms: int, batch: int) -> None:
        self.chunk = chunk
        self.measured_ms = measured_ms
        self.left = [(begin, min(begin + batch, len(chunk))) for begin in range(0, len(chunk), batch)]
        self.stamped: set[int] = set()
        """Begins of messages whose time is settled: a repeat is the same reading, so it keeps it."""

    def keep_unsettled(self, qos: int) -> None:
        """After a try: what is still to be published. QoS 1: without PUBACK; QoS 0: not handed over."""
        state, sent_us = self.chunk.state, self.chunk.sent_us
        self.left = [
            (begin, end)
            for begin, end in self.left
            if (state[begin] in (QUEUED, SENT) if qos else sent_us[begin] == 0)
        ]


class Gateway:
    """One gateway: what waits to be published, and the task that publishes it.

    rows       its points in the process's order
    unsettled  messages queued or not acknowledged
    latest_ms  newest timestamp used
    flying     by packet id the rows that wait for their PUBACK; landed: there are none left
    """

    def __init__(self, name: str, version: int, rows: slice, backlog_max: int) -> None:
        self.name = name
        self.version = version
        self.rows = rows
        self.backlog_max = backlog_max
        self.waiting: deque[Step] = deque()
        self.unsettled = 0
        self.latest_ms = 0
        self.wake = asyncio.Event()
        self.connected = False
        self.flying: dict[int, tuple[Chunk, int, int]] = {}
        self.landed = asyncio.Event()
        self.acked = 0

    def on_acknowledged(
        self, _client: object, _data: object, mid: int, reason: ReasonCode, _: object
    ) -> None:
        """The client's callback for a PUBACK: settle the ledger's rows of that message."""
        if (part := self.flying.pop(mid, None)) is None:
            return
        chunk, begin, end = part
        chunk.settle(begin, end, REFUSED if reason.is_failure else ACKED)
        self.acked += 0 if reason.is_failure else end - begin
        self.unsettled -= 1
        if not self.flying:
            self.landed.set()
