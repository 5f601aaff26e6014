"""Warm: judgement and a file's order compiled, or loaded as compiled before, so that no reading waits for it.

Owns a city of one point of each kind that has a loop of its own, and a minute of its readings. Does nothing that lasts:
its engine is thrown away. Without numba there is nothing to compile, and it takes a few milliseconds.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from anomaly.engine import Engine
from anomaly.settings import CheckSettings, KindSettings
from storage.batch import US_PER_S, RawBatch
from storage.fast import IS_COMPILED
from storage.points import LEVELS, PointTable

KINDS: Final = ("waterlogging", "rain_gauge", "noise", "pm25", "dust_pm10")
"""One for each loop: levels that rise, sums of rain, averages by energy, means."""
BEGIN_US: Final = 1_700_000_000 * US_PER_S


@cache
def warm() -> None:
    """Judge some seconds of a city that is not there and a TICK, order a file; once for each engine's life."""
    judge = Engine(_city(), {name: KindSettings() for name in KINDS}, CheckSettings())
    point = np.arange(len(KINDS), dtype=np.int32)
    for second in range(3):
        moment = np.full(len(point), BEGIN_US + second * US_PER_S, np.int64)
        value = np.full(len(point), 10.0 + second)
        value[0] += 10.0 * second  # stands in a level at last: what follows an episode is compiled too
        judged = judge.judge(RawBatch(point, moment, moment, value, np.zeros(len(point), np.uint8)), moment)
    judge.tick(BEGIN_US + 3 * US_PER_S)
    if IS_COMPILED:
        from storage.arrange import arranged

        arranged(judged.main, np.arange(len(judged.main)))


def _city() -> PointTable:
    n = len(KINDS)
    names = [str(i) for i in range(n)]
    one, nowhere = np.zeros(n, np.int32), np.full(n, np.nan)
    return PointTable(
        point_id=names,
        name=names,
        device_id=names,
        topic=names,
        unit=[""] * n,
        gateway=one,
        source=one,
        kind=np.arange(n, dtype=np.int32),
        district=one,
        gateways=[""],
        sources=["warm"],
        kinds=list(KINDS),
        districts=[""],
        lon=nowhere,
        lat=nowhere,
        interval_s=np.ones(n),
        time_from=np.zeros(n, np.uint8),
        range_min=nowhere,
        range_max=nowhere,
        level=np.repeat(np.array([[30.0], [40.0], [50.0], [60.0]]), n, axis=1)[:LEVELS],
        level_gap=np.ones(n),
        falling=np.zeros(n, np.bool_),
        upstream=np.full(n, -1, np.int32),
        retired=np.zeros(n, np.bool_),
    )
