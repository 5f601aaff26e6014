"""What is compiled before the sockets open is all that judging calls."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from anomaly.engine import Engine
from anomaly.warm import warm
from storage.batch import RawBatch
from storage.fast import IS_COMPILED
from tests.anomaly_city import T0, S, check_settings, kind_settings
from tests.rules_city import KINDS, city, rule_dump


def compiled() -> dict[str, int]:
    """Forms in which each loop of ours is compiled."""
    from numba.core.dispatcher import Dispatcher

    found = (one for one in gc.get_objects() if isinstance(one, Dispatcher))
    ours = (one for one in found if one.py_func.__module__.split(".")[0] in ("anomaly", "storage"))
    return {f"{one.py_func.__module__}.{one.py_func.__name__}": len(one.overloads) for one in ours}


@pytest.mark.skipif(not IS_COMPILED, reason="no numba on this machine: nothing is compiled")
def test_no_batch_of_a_city_compiles_anything_after_warming() -> None:
    table = city()
    for column in (table.range_min, table.range_max, table.level, table.lon, table.interval_s):
        column.setflags(write=False)  # as columns of Arrow are
    warm()
    before = compiled()
    kinds = {"waterlogging": kind_settings(rate_max_per_s=5.0, flat_line_s=600.0, spike_max=50.0)}
    judge = Engine(table, kinds, check_settings(), rules=rule_dump(), time_zone="Asia/Shanghai")
    rng = np.random.default_rng(1)
    print("seed 1")
    for second in range(40):
        n = 1 + second % (3 * len(KINDS))
        point = rng.integers(0, len(KINDS), n).astype(np.int32)
        moment = T0 + second * 600 * S + np.arange(n) * S
        raw = RawBatch(point, moment, moment, np.round(rng.random(n) * 60, 1), np.zeros(n, np.uint8))
        for column in (raw.point, raw.time, raw.received_at, raw.value, raw.device_flag):
            column.setflags(write=False)  # as views of the journal are
        judge.judge(raw, np.arange(n))
        judge.tick(int(moment[-1]))
    assert len(before) > 15
    assert {name: forms for name, forms in compiled().items() if forms > before[name]} == {}
