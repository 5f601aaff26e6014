"""State that only some points need: places are given once, grow with the registry, and survive a snapshot."""

from __future__ import annotations

import numpy as np

from anomaly.checks.rows import Field
from anomaly.state import State

FIELDS = (Field("seen", "i8", 0), Field("ring", "i4", -1, (3,), of="gauge"))


def mask(*points: int, of: int) -> dict[str, np.ndarray]:
    found = np.zeros(of, np.bool_)
    found[list(points)] = True
    return {"gauge": found}


def test_only_points_of_the_mask_have_a_place() -> None:
    state = State(1_000, FIELDS)
    assert state["ring"].shape == (3, 0)
    state.place(mask(7, 400, of=1_000))
    assert state["ring"].shape == (3, 2)
    assert state["gauge_place"][[7, 8, 400]].tolist() == [0, -1, 1]


def test_a_place_once_given_stays_while_points_come_and_go() -> None:
    state = State(5, FIELDS)
    state.place(mask(1, 3, of=5))
    state["ring"][:, 0] = 11
    state.grow(8)
    state.place(mask(0, 3, 7, of=8))
    assert state["gauge_place"].tolist() == [2, 0, -1, 1, -1, -1, -1, 3]
    assert state["ring"][0].tolist() == [11, -1, -1, -1]
    state.place(mask(of=8))
    assert state["ring"].shape == (3, 4)


def test_a_snapshot_brings_its_places_to_a_state_that_has_others() -> None:
    saved = State(4, FIELDS)
    saved.place(mask(2, of=4))
    saved["ring"][:, 0] = 5
    fresh = State(6, FIELDS)
    fresh.place(mask(0, 2, of=6))
    fresh.restore({name: array.copy() for name, array in saved.arrays().items()})
    fresh.place(mask(0, 2, of=6))
    assert fresh["gauge_place"].tolist() == [1, -1, 0, -1, -1, -1]
    assert fresh["ring"][0].tolist() == [5, -1]


def test_a_snapshot_from_before_a_sparse_field_starts_it_unseen() -> None:
    state = State(3, FIELDS)
    state.place(mask(1, of=3))
    state.restore({"seen": np.arange(3)})
    state.place(mask(1, of=3))
    assert state["seen"].tolist() == [0, 1, 2]
    assert state["ring"][:, 0].tolist() == [-1, -1, -1]
