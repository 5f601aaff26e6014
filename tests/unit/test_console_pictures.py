"""From the judge's arrays to two bytes a point, and to bytes on the wire."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anomaly.engine import Engine
from anomaly.live import Live, Picture
from anomaly.rulebook import EVENT, rulebook
from console import frames
from console.display import CODES_MAX, City, display
from console.shown import DOUBTFUL, FAULT, NO_VALUE, OFFLINE, SEVERITY, TAKEN, Painter, severity_counts
from storage.fast import IS_COMPILED
from storage.flags import FAIL, GOOD, MISSING, SUSPECT
from storage.points import PointTable
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table, positions, raw_batch

N = 40
CITY = City("city", "UTC", {}, ("video",))
KIND = {"flat_line_s": 20.0, "confirm_readings": 2}


def engine_of(table: PointTable) -> Engine:
    return Engine(table, {"waterlogging": kind_settings(**KIND)}, check_settings(dead_s_min=10))


def standing(engine: Engine) -> tuple[list[int], list[bool]]:
    """Severity and fault of each point, from the open episodes themselves."""
    severity, fault = [0] * len(engine.points), [False] * len(engine.points)
    for (rule, subject), episode in engine.episodes.open.items():
        if rule == "outage" or not episode.level:
            continue
        assert isinstance(subject, int)
        if rulebook()[rule].alert_class == EVENT:
            severity[subject] = max(severity[subject], rulebook()[rule].severity[episode.level])
        else:
            fault[subject] = True
    return severity, fault


def test_the_picture_at_each_tick_is_what_the_open_episodes_say_also_after_a_restore() -> None:
    seed = 7
    print("seed", seed)
    dice, table = random.Random(seed), point_table(N, gateways=4)
    engine, live = engine_of(table), Live(lambda: T0)
    live.seed(engine)
    seen_severities: set[int] = set()
    seen_faults = 0
    for second in range(120):
        at = T0 + second * S
        rows = [
            (point, at, float(dice.choice([0, 5, 18, 27, 33, 45])))
            for point in range(N)
            if point % 10 or second < 40
        ]
        judged = engine.judge(raw_batch(rows), positions((second * 2) << 24, len(rows)))
        live.rows(judged.main)
        live.events(judged.events)
        assert {event.pos >> 24 for event in judged.events} <= {second * 2}
        live.events(engine.tick(at + S // 2))
        if second == 60:
            arrays, meta = engine.snapshot()
            engine, live = engine_of(table), Live(lambda: T0)
            engine.restore(arrays, json.loads(json.dumps(meta)))
            live.seed(engine)
        live.tick(engine, second * 2 + 1)
        picture = live.picture
        assert picture is not None
        severity, fault = standing(engine)
        assert picture.severity.tolist() == severity, second
        assert picture.fault.tolist() == fault, second
        assert picture.silent.sum() == engine.points_dead or second == 60
        seen_severities |= set(severity)
        seen_faults += sum(fault)
    assert seen_severities == {0, 1, 2, 3, 4}
    assert seen_faults > 0
    assert picture.silent.any()
    engine.state["last_v"][:] = -1.0
    assert not (picture.value == -1.0).any(), "a picture is a copy"


def picture_of(engine: Engine, seq: int = 1, **columns: Any) -> Picture:
    n = len(engine.points)
    fresh = {
        "value": np.zeros(n), "time": np.full(n, T0), "flag": np.full(n, GOOD, np.uint8),
        "silent": np.zeros(n, np.bool_), "severity": np.zeros(n, np.uint8), "fault": np.zeros(n, np.bool_),
    }  # fmt: skip
    return Picture(seq, T0 + seq * S, engine, lag_us=0, **{**fresh, **columns})


def test_state_has_a_bit_for_each_thing_a_person_must_see() -> None:
    table = point_table(8)
    table.kinds, table.kind[7] = ["waterlogging", "video"], 1
    engine = engine_of(table)
    of = display(table, CITY)
    value = np.array([1.0, 1.0, np.nan, 1.0, 1.0, 1.0, 1.0, 0.0])
    picture = picture_of(
        engine,
        value=value,
        flag=np.array([GOOD, SUSPECT, 0, FAIL, MISSING, GOOD, GOOD, GOOD], np.uint8),
        silent=np.arange(8) == 5,
        severity=np.array([0, 0, 0, 4, 0, 0, 2, 0], np.uint8),
        fault=np.arange(8) == 6,
    )
    shown = Painter(of, picture).paint(picture, np.arange(8) == 3)
    state = np.zeros(8, int)
    state[of.number] = shown.state
    assert state.tolist() == [
        0, DOUBTFUL, NO_VALUE, 4 | DOUBTFUL | TAKEN, DOUBTFUL, OFFLINE, 2 | FAULT, OFFLINE,
    ]  # fmt: skip
    assert (shown.level[shown.state & NO_VALUE != 0] == 0).all()
    assert severity_counts(shown).tolist() == [[6, 0, 1, 0, 1]]


def test_level_grows_toward_the_alarming_end_and_stands_still_under_noise() -> None:
    table = point_table(3)
    table.falling[1] = True
    table.level[:, 1] = [40.0, 30.0, 20.0, 10.0]
    table.level[:, 2] = np.nan
    table.range_min[2], table.range_max[2] = np.nan, np.nan
    engine = engine_of(table)
    of = display(table, CITY)
    painter = Painter(of, picture_of(engine))
    levels = []
    for value in (-5.0, 0.0, 10.0, 20.0, 30.0, 40.0, 500.0):
        shown = painter.paint(picture_of(engine, value=np.full(3, value)))
        row = np.zeros(3, int)
        row[of.number] = shown.level
        levels.append(row)
    rising, falling, unknown = np.array(levels).T.tolist()
    assert rising == sorted(rising)
    assert (rising[0], rising[-1]) == (1, 255)
    assert falling == sorted(falling, reverse=True)
    assert (falling[2], falling[-1]) == (255, 1)
    assert set(unknown) == {128}
    painter.paint(picture_of(engine, value=np.full(3, 20.0)))
    before = painter.paint(picture_of(engine, value=np.full(3, 20.0))).level
    step = 40.0 / 254
    for noise in (0.9, -0.9, 0.4):
        assert (
            painter.paint(picture_of(engine, value=np.full(3, 20.0 + noise * step))).level == before
        ).all()
    assert (painter.paint(picture_of(engine, value=np.full(3, 20.0 + 3 * step))).level != before).any()


@pytest.mark.skipif(not IS_COMPILED, reason="numba is not installed: there are only columns")
def test_loops_and_columns_paint_the_same_bits() -> None:
    seed = 11
    print("seed", seed)
    dice, n = np.random.default_rng(seed), 3000
    table = point_table(n)
    table.lon, table.lat = 104 + dice.random(n), 30 + dice.random(n)
    table.kinds, table.kind = ["waterlogging", "video"], dice.integers(0, 2, n).astype(np.int32)
    table.falling[:] = dice.random(n) < 0.3
    table.retired[:] = dice.random(n) < 0.1
    table.level[:, dice.random(n) < 0.2] = np.nan
    engine = engine_of(table)
    of = display(table, CITY)
    loop, columns = (Painter(of, picture_of(engine)) for _ in range(2))
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 5e-324])
    before = np.zeros(len(of), np.uint8)
    moves = set()
    for seq in range(1, 30):
        value = np.where(dice.random(n) < 0.2, dice.choice(odd, n), dice.normal(20, 20, n))
        columns_of = {"value": value, "flag": dice.choice([0, 1, 2, 3, 4, 9], n).astype(np.uint8)}
        columns_of |= {"severity": dice.integers(0, 5, n).astype(np.uint8)}
        columns_of |= {name: dice.random(n) < 0.3 for name in ("silent", "fault")}
        picture = picture_of(engine, seq, **columns_of)
        taken = None if seq % 3 == 0 else dice.random(n) < 0.3
        fast, plain = loop.paint(picture, taken, loop=True), columns.paint(picture, taken, loop=False)
        np.testing.assert_array_equal(fast.level, plain.level)
        np.testing.assert_array_equal(fast.state, plain.state)
        stayed = (before != 0) & (fast.level != 0)
        moves |= set((fast.level.astype(int) - before)[stayed].tolist())
        before = fast.level
    assert {1, -1}.isdisjoint(moves)
    assert len(moves) > 300


@pytest.mark.parametrize(("share", "bytes_max"), [(1.0, 60_000), (0.01, 6_000)])
def test_frames_of_a_whole_city_are_small_and_add_up(share: float, bytes_max: int) -> None:
    n = 116_200
    table = point_table(n)
    dice = np.random.default_rng(3)
    table.lon, table.lat = 104 + dice.random(n), 30 + dice.random(n)
    engine, of = engine_of(table), display(table, CITY)
    value, severity = dice.random(n) * 30, np.zeros(n, np.uint8)
    painter = Painter(of, picture_of(engine, value=value))
    before = painter.paint(picture_of(engine, value=value))
    level, state = before.level, before.state
    for seq in range(2, 5):
        moved = dice.random(n) < share
        value = np.where(moved, value + dice.integers(-4, 5, n) * 40 / 254, value)
        severity = severity.copy()
        severity[dice.integers(0, n, round(n * share / 50))] = dice.integers(0, 5)
        shown = painter.paint(picture_of(engine, seq, value=value, severity=severity))
        delta, key = frames.delta(before, shown, seq, 0), frames.keyframe(shown, seq, frames.DRILL)
        assert len(delta) <= bytes_max
        assert len(key) <= 200_000
        by, changed = frames.planes_of(delta)
        level, state = level + by, state ^ changed
        np.testing.assert_array_equal(level, frames.planes_of(key)[0])
        np.testing.assert_array_equal(state, frames.planes_of(key)[1])
        np.testing.assert_array_equal((state & SEVERITY)[of.index], severity)
        head = frames.head_of(delta)
        assert (head.type, head.seq, head.pos, head.n, head.registry) == (
            frames.DELTA,
            seq,
            seq,
            n,
            of.version,
        )
        assert frames.head_of(key) == replace(head, type=frames.KEYFRAME, flags=frames.DRILL)
        before = shown


def test_points_without_a_place_come_last_retired_ones_not_and_too_many_kinds_share_an_entry() -> None:
    n = 400
    table = point_table(n)
    dice = np.random.default_rng(5)
    table.lon, table.lat = 104 + dice.random(n), 30 + dice.random(n)
    table.lon[7] = np.nan
    table.retired[9] = True
    table.kinds, table.kind = [f"kind-{i}" for i in range(n)], np.arange(n, dtype=np.int32)
    of = display(table, CITY)
    assert len(of) == n - 1
    assert of.number[-1] == 7
    assert of.find("P00009") is None
    assert of.find("P00007") == n - 2
    assert of.find("nobody") is None
    assert len(of.kinds) == CODES_MAX
    assert of.kind.max() == CODES_MAX - 1
    again = display(table, CITY)
    assert again.version == of.version
    table.name[0] = "another name"
    assert display(table, CITY).version == of.version, "names are asked for, not sent"
    table.retired[0] = True
    assert display(table, CITY).version != of.version
