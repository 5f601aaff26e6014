"""On recorded street floods the rule "rise" is worth more than a fixed depth. Skipped without ../shared/data."""

from __future__ import annotations

import zlib

import pytest

from bench.detection_floods import EVENTS, Flood, by_rule, fixed, floods, scored

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not EVENTS.is_file(), reason=f"no recordings at {EVENTS}"),
]


@pytest.fixture(scope="module")
def untuned() -> list[Flood]:
    """The half of the sensors that no setting was chosen on."""
    return [flood for flood in floods() if zlib.crc32(flood.sensor.encode()) % 2]


@pytest.mark.parametrize(("depth", "horizon"), [(15.0, 10.0), (30.0, 15.0)])
def test_it_warns_more_rightly_than_half_the_depth_and_earlier_than_a_depth_as_right(
    untuned: list[Flood], depth: float, horizon: float
) -> None:
    """As it comes, and every flood that reached the depth was warned of. All positive has the base rate."""
    rise = scored(untuned, by_rule(untuned, depth, horizon, 1 / 3), depth)
    base = scored(untuned, fixed(0.0), depth)
    half = scored(untuned, fixed(0.5), depth)
    assert rise.right == rise.reached == base.reached > 100
    assert rise.precision > half.precision > base.precision
    as_right = min(
        (share / 100 for share in range(50, 100)),
        key=lambda share: abs(scored(untuned, fixed(share), depth).precision - rise.precision),
    )
    assert rise.lead_min > scored(untuned, fixed(as_right), depth).lead_min + 2.0
