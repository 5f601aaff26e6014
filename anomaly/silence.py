"""For how long every point and its gateway have been silent, at one instant over all points.

Owns that arithmetic, in columns and as one compiled loop: at each TICK it runs over all points of a city, and as
dozens of passes of numpy it was more than half of the TICK. What counts as silence, and where it is counted from, is
anomaly.presence's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from anomaly.checks.bycode import looked_up
from anomaly.checks.rows import I32, I64, NO_TIME, Bool
from anomaly.limits import NEVER_US
from storage.fast import IS_COMPILED, compiled, inlined, unsigned

OfPoints = tuple[I64, I64, Bool]
OfSources = tuple[I32, I64, I64, I64, Bool]
OfGateways = tuple[I32, I64, I64, I64]
OfDevices = tuple[I32, I64]
_NEVER: Final = int(NEVER_US)


def silent_for(
    now: int,
    points: OfPoints,
    sources: OfSources,
    gateways: OfGateways,
    devices: OfDevices,
    loop: bool = IS_COMPILED,
) -> tuple[Bool, I64, I64]:
    """Of n points: bool whether anything is expected; int64 µs it, and its gateway, have been silent.

    now       µs of the receive clock; NO_TIME where only the times of others show a silence
    points    last_t, last_received int64[n]; expects bool[n]: an interval is known
    sources   code int32[n]; of each: its watermark, from where on silence counts by event time and by the receive
              clock, int64 µs; bool whether it is down now
    gateways  code int32[n]; of each: newest event and receive time of its points, when it was last back, int64 µs
    devices   code int32[n]; of each: when it was last back
    loop      compiled or not; the answers are the same

    NO_TIME stands for never: nobody was silent since then, and silence is at most NEVER_US.
    """
    if not loop:
        return _in_columns(now, points, sources, gateways, devices)
    n = len(points[0])
    expected, silent, of_gateway = np.empty(n, np.bool_), np.empty(n, np.int64), np.empty(n, np.int64)
    _each(now, points, sources, gateways, devices, expected, silent, of_gateway)
    return expected, silent, of_gateway


def _in_columns(
    now: int, points: OfPoints, sources: OfSources, gateways: OfGateways, devices: OfDevices
) -> tuple[Bool, I64, I64]:
    last_t, last_received, expects = points
    source, marks, floors, clears, down = sources
    gateway, newest_t, newest_received, back = gateways
    mark = looked_up(marks, source)
    floor = np.maximum(looked_up(floors, source), looked_up(back, gateway))
    floor = np.maximum(floor, looked_up(devices[1], devices[0]))
    silent = _passed(mark, np.maximum(last_t, floor))
    of_gateway = _passed(mark, np.maximum(looked_up(newest_t, gateway), floor))
    if now != NO_TIME:
        clear = np.maximum(floor, looked_up(clears, source))
        silent = np.maximum(silent, _passed(now, np.maximum(last_received, clear)))
        heard = looked_up(newest_received, gateway)
        of_gateway = np.maximum(of_gateway, _passed(now, np.maximum(heard, clear)))
    return expects & (last_t != NO_TIME) & ~looked_up(down, source), silent, of_gateway


def _passed(now: I64 | int, since: I64) -> I64:
    """now - since, at most NEVER_US; 0 where either never was."""
    span = np.minimum(np.subtract(now, np.maximum(since, 0)), NEVER_US)
    return np.where((since == NO_TIME) | np.equal(now, NO_TIME), 0, np.maximum(span, 0))


@inlined
def _span(now: int, since: int) -> int:
    """``_passed`` of one point."""
    if since == NO_TIME or now == NO_TIME:
        return 0
    return max(min(now - max(since, 0), _NEVER), 0)


@compiled
def _each(
    now: int,
    points: tuple[Any, ...],
    sources: tuple[Any, ...],
    gateways: tuple[Any, ...],
    devices: tuple[Any, ...],
    expected: Bool,
    silent: I64,
    of_gateway: I64,
) -> None:
    last_t, last_received, expects = points
    source, marks, floors, clears, down = sources
    gateway, newest_t, newest_received, back = gateways
    device, device_back = devices
    for i in range(len(last_t)):
        s, g = unsigned(source[i]), unsigned(gateway[i])
        floor = max(max(floors[s], back[g]), device_back[unsigned(device[i])])
        own = _span(marks[s], max(last_t[i], floor))
        its = _span(marks[s], max(newest_t[g], floor))
        if now != NO_TIME:
            clear = max(floor, clears[s])
            own = max(own, _span(now, max(last_received[i], clear)))
            its = max(its, _span(now, max(newest_received[g], clear)))
        silent[i], of_gateway[i] = own, its
        expected[i] = expects[i] and last_t[i] != NO_TIME and not down[s]
