"""Main, late and repeat, against a reader that takes one reading after the other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from anomaly.order import LATE, MAIN, REPEAT, Grouped, split
from anomaly.state import State
from storage.batch import RawBatch, stable_order
from storage.fast import IS_COMPILED
from tests.anomaly_city import T0, S, raw_batch

POINTS = 6


def verdicts(raw: RawBatch, state: State, loop: bool = IS_COMPILED) -> list[int]:
    """In batch order."""
    rows = Grouped.of(raw)
    found = np.empty(len(raw), np.uint8)
    found[rows.order] = split(rows, state, loop)
    return found.tolist()


def scalar(raw: RawBatch, newest: dict[int, tuple[int, bytes, int]]) -> list[int]:
    """One reading after the other: the definition."""
    found = []
    for point, time, value, flag in zip(raw.point, raw.time, raw.value, raw.device_flag, strict=True):
        said = (int(time), value.tobytes(), int(flag))
        known = newest.get(int(point))
        if known is None or time > known[0]:
            found.append(MAIN)
        elif said == known:
            found.append(REPEAT)
        else:
            found.append(LATE)
            if time < known[0]:
                continue
        newest[int(point)] = said
    return found


def random_raw(seed: int, n: int, span: int) -> RawBatch:
    rng = np.random.default_rng(seed)
    time = T0 + np.sort(rng.integers(0, span, n)) - rng.integers(0, span // 3, n)
    value = rng.choice([1.0, 2.0, np.nan], n)
    raw = RawBatch(
        rng.integers(0, POINTS, n).astype(np.int32), time, T0 + np.arange(n), value, np.zeros(n, np.uint8)
    )
    raw.device_flag[rng.random(n) < 0.1] = 3
    return raw


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "span", [30, 3_000, 1 << 61], ids=["dense", "sparse", "times too far apart for one key"]
)
@pytest.mark.parametrize(
    "loop", [False, True] if IS_COMPILED else [False], ids=lambda loop: "loop" if loop else "columns"
)
def test_equals_the_definition_wherever_the_stream_is_cut(seed: int, span: int, loop: bool) -> None:
    raw = random_raw(seed, 400, span)
    expected = scalar(raw, {})
    assert set(expected) >= {MAIN, LATE}
    state, found = State(POINTS), []
    cuts = [0, *np.sort(np.random.default_rng(seed).integers(0, 400, 12)).tolist(), 400]
    for a, b in pairwise(cuts):
        if b > a:
            found += verdicts(raw.take(np.arange(a, b)), state, loop)
    assert found == expected


def test_a_revision_of_the_newest_reading_is_what_a_repeat_is_compared_with() -> None:
    state = State(1)
    rows = [(0, T0, 1.0), (0, T0, 1.0), (0, T0, 2.0), (0, T0, 1.0), (0, T0, 1.0), (0, T0 - S, 1.0)]
    assert verdicts(raw_batch(rows), state) == [MAIN, REPEAT, LATE, LATE, REPEAT, LATE]
    assert verdicts(raw_batch([(0, T0, 1.0), (0, T0 + 1, 1.0)]), state) == [REPEAT, MAIN]


def test_missing_again_is_a_repeat() -> None:
    assert verdicts(raw_batch([(0, T0, np.nan), (0, T0, np.nan)]), State(1)) == [MAIN, REPEAT]


def test_only_a_new_reading_counts_as_heard() -> None:
    """Who says the same again and again, or only sends old readings, is not alive because of it."""
    state = State(1)
    verdicts(raw_batch([(0, T0, 1.0)], received=[T0 + S]), state)
    verdicts(raw_batch([(0, T0, 1.0), (0, T0 - S, 1.0)], received=[T0 + 9 * S] * 2), state)
    assert state["last_received"][0] == T0 + S


@pytest.mark.parametrize("keys", [1, 400, 116_200, 3_000_000])
def test_the_order_is_stable_with_and_without_the_loop(keys: int) -> None:
    print(f"seed {keys}")
    key = np.random.default_rng(keys).integers(0, keys, 3_000).astype(np.int32)
    key.setflags(write=False)
    for loop in (True, False):
        assert stable_order(key, loop).tolist() == np.argsort(key, kind="stable").tolist()
    assert stable_order(np.empty(0, np.int32)).tolist() == []
