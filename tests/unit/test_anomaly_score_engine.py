"""The score in the engine: bit, frozen learning, and alerts only where a kind asks for them."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.alerts.event import FIRING, RESOLVED
from anomaly.checks.unusual import HOLD_US
from anomaly.engine import Engine, Judged
from storage.batch import RawBatch
from storage.flags import GOOD, NOT_EVALUATED, SUSPECT, bit
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table

STEP_S = 300


def engine(**kind: object) -> Engine:
    table = point_table(1, interval_s=np.array([300.0]), level=np.full((4, 1), np.nan))
    return Engine(table, {"waterlogging": kind_settings(**kind)}, check_settings())


def judged(one: Engine, value: np.ndarray, begin: int = 0, device_flag: int = 0) -> Judged:
    n = len(value)
    time = T0 + (begin + np.arange(n, dtype=np.int64)) * STEP_S * S
    flags = np.full(n, device_flag, np.uint8)
    return one.judge(RawBatch(np.zeros(n, np.int32), time, time, value, flags), np.arange(n))


def course(n: int = 600, seed: int = 3) -> np.ndarray:
    return 50 + np.random.default_rng(seed).normal(0, 1, n)


def test_a_score_over_the_line_sets_its_bit_and_calls_nobody() -> None:
    value = course()
    value[500] += 40
    found = judged(engine(), value)
    assert found.main.score[500] >= 1
    assert found.main.checks[500] == bit("anomaly")
    assert found.main.flag[500] == GOOD, "unusual is no doubt about the reading"
    over = found.main.score >= 1
    assert ((found.main.checks & bit("anomaly")) != 0).tolist() == over.tolist()
    assert found.events == []


def test_a_kind_that_asks_gets_one_alert_for_what_lasts() -> None:
    value = course()
    value[500:503] += 40
    found = judged(engine(anomaly_alert=True), value)
    mine = [e for e in found.events if e.onset == T0 + 500 * STEP_S * S]
    assert [(e.rule, e.type, e.severity, e.alert_class) for e in mine] == [
        ("anomaly", FIRING, 1, "event"),
        ("anomaly", RESOLVED, 1, "event"),
    ]
    assert mine[1].at - mine[0].at >= HOLD_US


def test_readings_the_device_or_a_check_doubts_teach_nothing() -> None:
    one = engine()
    judged(one, course())
    before = one.state["score"].copy()
    judged(one, np.full(50, 190.0), begin=600, device_flag=3)
    assert (one.state["score"] == before).all(), "flagged by its device: not even looked at"
    spiky = engine(spike_max=20.0)
    value = course()
    value[300] += 30
    found = judged(spiky, value)
    assert found.main.flag[300] == SUSPECT
    without = engine()
    judged(without, np.delete(course(), 300))
    taught = spiky.state["score"][2, 0], without.state["score"][2, 0]
    assert taught[0] == pytest.approx(taught[1], abs=0.1)


def test_late_missing_and_failed_readings_have_no_score() -> None:
    one = engine()
    judged(one, course())
    late = judged(one, np.array([199.0]), begin=100)
    assert (late.late.score.tolist(), len(late.main)) == ([0.0], 0)
    assert judged(one, np.array([np.nan, 900.0]), begin=700).main.score.tolist() == [0.0, 0.0]


def test_a_score_that_raises_is_said_and_leaves_flags_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("anomaly.engine.score", broken)
    one = engine()
    found = judged(one, course(10))
    assert found.main.score.tolist() == [0.0] * 10
    assert found.main.flag.tolist() == [GOOD] * 10
    assert NOT_EVALUATED not in found.main.flag
    assert one.counts["check_errors.score"] == 1
