"""Groups of points are counted and compared in loops as numpy does it."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.checks import bycode
from anomaly.checks.rows import NO_TIME
from storage.fast import IS_COMPILED


@pytest.mark.parametrize("loops", [True, False], ids=["loops", "numpy"])
@pytest.mark.parametrize("seed", range(3))
def test_loops_say_what_numpy_says(seed: int, loops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"seed {seed}")
    monkeypatch.setattr(bycode, "IS_COMPILED", loops and IS_COMPILED)
    rng = np.random.default_rng(seed)
    n, groups = 500, 40
    code = rng.integers(0, groups - 5, n).astype(np.int32)  # the last five have no point
    mask = (rng.random(n) < 0.6) & (code != 7)
    column = np.where(rng.random(n) < 0.1, NO_TIME, rng.integers(-1000, 1 << 50, n))
    of_groups = rng.integers(0, 1 << 50, groups)
    assert bycode.looked_up(of_groups, code).tolist() == of_groups[code].tolist()
    assert bycode.looked_up(of_groups % 2 == 0, code).dtype == np.bool_
    assert bycode.counted(code, mask, groups).tolist() == np.bincount(code[mask], minlength=groups).tolist()
    for those, name in ((None, "all"), (mask, "some")):
        newest = bycode.newest(code, column, groups, those)
        inside = np.ones(n, np.bool_) if those is None else those
        expected = [max(column[inside & (code == g)].tolist(), default=NO_TIME) for g in range(groups)]
        assert newest.tolist() == expected, name
    least = bycode.least(code, column, groups, mask)
    most = np.iinfo(np.int64).max
    assert least.tolist() == [min(column[mask & (code == g)].tolist(), default=most) for g in range(groups)]
