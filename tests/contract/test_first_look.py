"""Judging a batch in few compiled loops says, and remembers, what judging it check by check in columns does."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from anomaly import episodes
from anomaly.checks import rows
from anomaly.engine import Engine, Judged
from anomaly.firstlook import CHECKS
from anomaly.rules import base
from storage.batch import RawBatch, ReadingBatch
from storage.fast import IS_COMPILED
from tests.anomaly_city import S, check_settings, kind_settings
from tests.rules_city import KINDS, city, rule_dump, stream

pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="needs numba")


def engine(compiled: bool) -> Engine:
    settings = kind_settings(
        rate_max_per_s=0.4, spike_max=20.0, flat_line_s=120.0, confirm_readings=2, anomaly_alert=True
    )
    table = city()
    table.range_max[:] = 2000.0
    table.level[:, KINDS.index("noise")] = (60.0, 70.0, 80.0, 85.0)
    kinds = {kind: settings for kind in KINDS if kind != "rain_gauge"}
    return Engine(
        table, kinds, check_settings(dead_s_min=20_000.0),
        rules=rule_dump(), time_zone="Asia/Shanghai", compiled=compiled,
    )  # fmt: skip


def raw(seed: int) -> RawBatch:
    """A stream that every rule speaks in, with readings late, said again, missing, or doubted by their devices."""
    rng = np.random.default_rng(seed)
    point, time, value = stream(seed)
    n = len(point)
    time -= rng.choice([0, 0, 0, 400], n) * rng.integers(0, S, n)
    value[rng.random(n) < 0.03] = np.nan
    value[rng.random(n) < 0.02] = 9999.0
    value[(point == KINDS.index("lamp")) & (np.arange(n) < n // 2)] = 0.5
    again = np.sort(np.concatenate([np.arange(n), rng.integers(0, n, n // 20)]))
    flag = rng.choice(np.array([0, 1, 2, 3, 4, 9], np.uint8), n, p=[0.8, 0.05, 0.05, 0.04, 0.04, 0.02])
    return RawBatch(point, time, time + rng.integers(0, S, n), value, flag).take(again)


def judged(one: Engine, given: RawBatch, cuts: np.ndarray) -> list[Judged]:
    """In pieces, with a TICK behind each tenth; goes on from a snapshot behind half of them."""
    found = []
    for k, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(given)], strict=True)):
        found.append(one.judge(given.take(np.arange(a, b)), np.arange(a, b, dtype=np.int64)))
        if k % 10 == 9:
            one.tick(int(given.received_at[:b].max()))
        if k == len(cuts) // 2:
            one.restore(*one.snapshot())
    return found


def columns_of(batch: ReadingBatch) -> list[bytes]:
    return [getattr(batch, field.name).tobytes() for field in fields(batch)]


@pytest.mark.parametrize("pieces", [400, 12], ids=["live", "backlog"])
@pytest.mark.parametrize("seed", range(3))
def test_at_once_and_one_by_one_are_the_same_to_the_last_bit(
    seed: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    given = raw(seed)
    cuts = np.unique(np.random.default_rng(seed).integers(1, len(given), pieces))
    at_once, by_columns = engine(True), engine(False)
    found = judged(at_once, given, cuts)
    for module in (episodes, rows, base):
        monkeypatch.setattr(module, "IS_COMPILED", False)
    expected = judged(by_columns, given, cuts)
    for k, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert repr(one.events) == repr(other.events), k
        assert one.repeats == other.repeats
        assert columns_of(one.main) == columns_of(other.main), k
        assert columns_of(one.late) == columns_of(other.late), k
    arrays, other_arrays = at_once.state.arrays(), by_columns.state.arrays()
    assert not [name for name in arrays if arrays[name].tobytes() != other_arrays[name].tobytes()]
    assert repr(at_once.snapshot()[1]) == repr(by_columns.snapshot()[1])
    events = {(event.rule, event.type) for one in found for event in one.events}
    assert {"level", "stuck", "anomaly", "rain", "noise", "rise", "air", "dust", "water"} <= {
        r for r, _ in events
    }
    assert sum(one.repeats for one in found)
    assert sum(len(one.late) for one in found)


def test_the_loop_holds_every_check_there_is() -> None:
    """A new check runs, by itself; this one fails until the loop knows it too, and is as fast again."""
    assert {check.name for check in CHECKS} == {check.name for check in engine(True)._checks}
