"""Warm: the wire's kernels compiled, or loaded as they were compiled before, so that no gateway waits for them.

Owns a registry of two points and a message of each. Nothing of it lasts. Without numba there is nothing to do.
"""

from __future__ import annotations

import socket
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.config import Config, SourceSettings
from ingest.decode.messages import Messages
from ingest.kernels.compiling import IS_COMPILED
from ingest.routes import Routes
from ingest.sourcestats import SourceStats
from storage.points import LEVELS, PointTable

if TYPE_CHECKING:
    from ingest.mqtt.arena import Arena

TOPIC, PACK_TOPIC = "warm/p", "warm/pack"
NOW_US = 1_700_000_000_000_000


@cache
def warm_wire() -> None:
    """Scan, look up and decode one message, with and without a credential; once for each process."""
    if not IS_COMPILED:
        return
    from ingest.mqtt.arena import Arena
    from ingest.mqtt.bulk import read_all, write_all

    here, there = socket.socketpair()
    with here, there:
        assert write_all([here.fileno()], [b"warm"]) == [4]
        assert read_all([there.fileno()], [4], np.zeros(4, np.uint8), 0, 4) == [4]
    sources = [SourceSettings(name="warm"), SourceSettings(name="pack", codec="senml", topics=[PACK_TOPIC])]
    routes = Routes(_two_points(), Config(source=sources))
    messages = Messages(routes, 0)
    messages.set_window(NOW_US)
    arena: Arena[Any] = Arena(4096)
    # What names and credentials mean is learned from the first messages; the second find it known.
    for _ in range(2):
        arena.clear()
        for credential in (None, "warm"):
            _say(arena, credential)
        arena.scan(4096)
        messages.feed_arena(arena, lambda name: routes.table(name, lambda *_: True), NOW_US)
        batch, refusals = messages.take(NOW_US)
        assert (len(batch), refusals) == (4, [])
        assert SourceStats(routes.points).took(batch).tolist() == [2, 2]


def _say(arena: Arena[Any], credential: str | None) -> None:
    """One reading and one pack of one into a segment of their own."""
    reading = b'{"ts":%d,"v":1.5}' % (NOW_US // 1000)
    pack = b'[{"bn":"","bt":%d,"n":"s","v":1.5}]' % (NOW_US // 1_000_000)
    sent = b""
    for topic, payload in ((TOPIC, reading), (PACK_TOPIC, pack)):
        body = len(topic).to_bytes(2, "big") + topic.encode() + b"\0\1" + payload
        sent += bytes([0x32, len(body)]) + body
    arena.view[arena.used : arena.used + len(sent)] = sent
    arena.segment(
        SimpleNamespace(client_id="warm", credential=credential, from_publisher=True), len(sent), False
    )


def _two_points() -> PointTable:
    two, nowhere = np.zeros(2, np.int32), np.full(2, np.nan)
    return PointTable(
        point_id=["p", "s"],
        name=["p", "s"],
        device_id=["p", "s"],
        topic=[TOPIC, ""],
        unit=["", ""],
        gateway=two,
        source=np.array([0, 1], np.int32),
        kind=two,
        district=two,
        gateways=[""],
        sources=["warm", "pack"],
        kinds=["river_level"],
        districts=[""],
        lon=nowhere,
        lat=nowhere,
        interval_s=np.ones(2),
        time_from=np.zeros(2, np.uint8),
        range_min=nowhere,
        range_max=nowhere,
        level=np.full((LEVELS, 2), np.nan),
        level_gap=np.ones(2),
        falling=np.zeros(2, np.bool_),
        upstream=np.full(2, -1, np.int32),
        retired=np.zeros(2, np.bool_),
    )
