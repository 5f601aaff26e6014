"""Warm: the wire's kernels compiled, or loaded as they were compiled before, so that no gateway waits for them.

Owns a registry of one point and one message of it. Nothing of it lasts. Without numba there is nothing to do.
"""

from __future__ import annotations

import socket
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from ingest.config import Config, SourceSettings
from ingest.decode.messages import Messages
from ingest.kernels.compiling import IS_COMPILED
from ingest.routes import Routes
from storage.points import LEVELS, PointTable

TOPIC = "warm/p"
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
    routes = Routes(_one_point(), Config(source=[SourceSettings(name="warm")]))
    messages = Messages(routes, 0)
    messages.set_window(NOW_US)
    payload = b'{"ts":%d,"v":1.5}' % (NOW_US // 1000)
    body = len(TOPIC).to_bytes(2, "big") + TOPIC.encode() + b"\0\1" + payload
    frame = bytes([0x32, len(body)]) + body
    arena: Arena[Any] = Arena(4096)
    for credential in (None, "warm"):
        arena.view[arena.used : arena.used + len(frame)] = frame
        peer = SimpleNamespace(client_id="warm", credential=credential, from_publisher=True)
        arena.segment(peer, len(frame), False)
    arena.scan(4096)
    messages.feed_arena(arena, lambda name: routes.table(name, lambda *_: True), NOW_US)
    batch, refusals = messages.take(NOW_US)
    assert (len(batch), refusals) == (2, [])


def _one_point() -> PointTable:
    one, nowhere = np.zeros(1, np.int32), np.full(1, np.nan)
    return PointTable(
        point_id=["p"],
        name=["p"],
        device_id=["p"],
        topic=[TOPIC],
        unit=[""],
        gateway=one,
        source=one,
        kind=one,
        district=one,
        gateways=[""],
        sources=["warm"],
        kinds=["river_level"],
        districts=[""],
        lon=nowhere,
        lat=nowhere,
        interval_s=np.ones(1),
        time_from=np.zeros(1, np.uint8),
        range_min=nowhere,
        range_max=nowhere,
        level=np.full((LEVELS, 1), np.nan),
        level_gap=np.ones(1),
        falling=np.zeros(1, np.bool_),
        upstream=np.full(1, -1, np.int32),
        retired=np.zeros(1, np.bool_),
    )
