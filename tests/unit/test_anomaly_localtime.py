"""The city's wall clock, for whole columns."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from anomaly.localtime import WallClock

S = 1_000_000


def test_a_batch_in_one_span_has_one_offset() -> None:
    time = np.array([1_767_225_600 * S, 1_767_229_200 * S])
    assert WallClock("Asia/Shanghai").offset_us(time) == 8 * 3600 * S
    assert WallClock("UTC").offset_us(time) == 0


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Europe/Berlin", "Asia/Shanghai", "Australia/Lord_Howe"]
)
def test_every_instant_has_the_offset_zoneinfo_gives_it(zone: str) -> None:
    rng = np.random.default_rng(1)
    print("seed 1")
    time = rng.integers(0, 4_000_000_000, 400) * S
    found = WallClock(zone).offset_us(time)
    expected = [
        datetime.fromtimestamp(t // S, UTC).astimezone(ZoneInfo(zone)).utcoffset() for t in time.tolist()
    ]
    assert np.broadcast_to(found, 400).tolist() == [
        round(e.total_seconds()) * S for e in expected if e is not None
    ]


def test_a_change_holds_from_its_very_second() -> None:
    """New York, 2026-03-08 07:00 UTC: 02:00 becomes 03:00."""
    change = int(datetime(2026, 3, 8, 7, tzinfo=UTC).timestamp()) * S
    found = WallClock("America/New_York").offset_us(np.array([change - 1, change]))
    assert np.asarray(found).tolist() == [-5 * 3600 * S, -4 * 3600 * S]


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises((KeyError, ValueError)):
        WallClock("Asia/Nowhere")
