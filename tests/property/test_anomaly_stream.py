"""The engine over random streams: where batches are cut and where it was restored from a snapshot changes
no flag, no bit, no main or late, no repeat and no alert."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest

from anomaly.alerts.event import RESOLVED, AlertEvent
from anomaly.engine import Engine
from storage.batch import RawBatch, ReadingBatch
from storage.points import PointTable
from storage.records import Gap
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table

POINTS = 14
SECONDS = 120


@dataclass
class Journal:
    """Readings and, between them, what else the journal tells: (row before which it stands, deed)."""

    raw: RawBatch
    deeds: list[tuple[int, Any]]


def table() -> PointTable:
    made = point_table(POINTS, gateways=3)
    made.falling[1] = True
    made.level[:, 1] = (30, 25, 20, 10)
    made.level[:2, 2] = np.nan
    made.interval_s[3] = 0
    made.interval_s[4:8] = 3
    return made


def engine(clock: Any) -> Engine:
    kind = kind_settings(
        rate_max_per_s=9.0, flat_line_s=4.0, confirm_readings=3, spike_max=11.0, anomaly_alert=True,
        neighbour_sigmas=1.2, drift_sigmas=0.0003,
    )  # fmt: skip
    settings = check_settings(
        fresh_s=15.0, dead_s_min=6.0, dead_intervals=2.0, lateness_s=2.0, neighbours_s=10.0
    )
    return Engine(table(), {"waterlogging": kind}, settings, clock=clock)


def journal(seed: int) -> Journal:
    """Two minutes in which points rise and fall, stick, fall silent, send backlogs, repeats and nonsense."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int, float, int]] = []
    deeds: list[tuple[int, Any]] = []
    value = np.full(POINTS, 12.0)
    silent = np.zeros(POINTS, np.int64)
    for t in range(SECONDS):
        now = T0 + t * S
        for p in rng.permutation(POINTS).tolist():
            if silent[p] > t:
                continue
            if rng.random() < 0.02:
                silent[p] = t + rng.integers(3, 25)
            if rng.random() < 0.02:
                silent[p % 3 :: 3] = t + 15
            value[p] = abs(value[p] + rng.choice([0, 0, 0, 1, -1, 6, -6, 12, -12]))
            said = rng.choice([value[p], np.nan, 900.0], p=[0.94, 0.03, 0.03])
            at = now - rng.choice([0, 1, 30], p=[0.9, 0.07, 0.03]) * S
            flag = int(rng.choice([0, 1, 3, 4, 9], p=[0.9, 0.04, 0.02, 0.02, 0.02]))
            rows.append((p, int(at), now, float(said), flag))
            while rng.random() < 0.15:
                rows.append((*rows[-1][:2], now, *rows[-1][3:]))
        if rng.random() < 0.03:
            deeds.append((len(rows), Gap("link", now - 2 * S, now, "flood")))
        deeds.append((len(rows), (now, bool(rng.random() < 0.95))))
    columns = list(zip(*rows, strict=True))
    raw = RawBatch(
        np.array(columns[0], np.int32),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.int64),
        np.array(columns[3], np.float64),
        np.array(columns[4], np.uint8),
    )
    return Journal(raw, deeds)


@dataclass
class Outcome:
    main: ReadingBatch
    late: ReadingBatch
    repeats: int
    events: list[AlertEvent]
    state: dict[str, np.ndarray]
    meta: dict[str, Any]


def played(script: Journal, clock: Any, cut: random.Random | None = None, restores: float = 0.0) -> Outcome:
    """Judge the journal: in as few batches as its deeds allow, or cut at random and restored now and then."""
    one = engine(clock)
    main, late, repeats, events = [], [], 0, []
    begin = 0
    for row, deed in [*script.deeds, (len(script.raw), None)]:
        while begin < row:
            end = row if cut is None else min(row, begin + cut.choice([1, 1, 2, 5, 17, 40]))
            judged = one.judge(script.raw.take(np.arange(begin, end)), np.arange(begin, end, dtype=np.int64))
            main.append(judged.main)
            late.append(judged.late)
            repeats += judged.repeats
            events += judged.events
            begin = end
            if cut is not None and cut.random() < restores:
                arrays, meta = one.snapshot()
                one = engine(clock)
                one.restore(arrays, orjson.loads(orjson.dumps(meta)))
        if isinstance(deed, Gap):
            events += one.gap(deed)
        elif deed is not None:
            events += one.tick(*deed)
    arrays, meta = one.snapshot()
    whole, apart = ReadingBatch.concat(main), ReadingBatch.concat(late)
    return Outcome(whole, apart, repeats, events, arrays, orjson.loads(orjson.dumps(meta)))


def assert_same(one: Outcome, other: Outcome) -> None:
    for batch in ("main", "late"):
        for column in ("pos", "point", "flag", "checks", "value", "score"):
            a, b = getattr(getattr(one, batch), column), getattr(getattr(other, batch), column)
            assert a.tobytes() == b.tobytes(), (batch, column)
    assert one.repeats == other.repeats
    for a, b in zip(one.events, other.events, strict=True):
        assert repr(a) == repr(b), "compared as text: NaN is not equal to itself"
    for name, array in one.state.items():
        assert array.tobytes() == other.state[name].tobytes(), name
    assert one.meta == other.meta


@pytest.mark.parametrize("clock", ["wall", "events"])
@pytest.mark.parametrize("seed", range(6))
def test_cuts_and_restores_change_nothing(seed: int, clock: str) -> None:
    script = journal(seed)
    whole = played(script, clock)
    print(f"seed {seed}: {len(script.raw)} rows, {len(whole.events)} events, {whole.repeats} repeats")
    assert {e.rule for e in whole.events} >= {"level", "stuck", "dead", "neighbours", "drift"}
    assert (whole.main.score > 0).any()
    assert whole.repeats
    assert len(whole.late)
    assert_same(whole, played(script, clock, random.Random(seed)))
    assert_same(whole, played(script, clock, random.Random(seed + 1), restores=0.05))


@pytest.mark.parametrize("seed", range(6, 10))
def test_every_alert_is_one_course_with_growing_revisions(seed: int) -> None:
    """Per id: revisions 1, 2, 3 …, one onset, nothing after its end, told from its firing on."""
    events = played(journal(seed), "wall").events
    courses: dict[str, list[AlertEvent]] = {}
    for event in events:
        courses.setdefault(event.id, []).append(event)
    for course in courses.values():
        assert [e.revision for e in course] == list(range(1, len(course) + 1))
        assert len({(e.rule, e.subject.point_id, e.onset) for e in course}) == 1
        assert RESOLVED not in {e.type for e in course[:-1]}
        told = [e for e in course if e.notify]
        assert not told or told[0].type == "alert.firing"
        assert [e.severity for e in course] == sorted(e.severity for e in course)
