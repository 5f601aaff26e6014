"""Who has not been heard: dead points, and gateways that are out.

Owns the comparison of silences with expectations, at one instant over all points. Knows nothing of
clocks, gaps or alerts: what counts as silence arrives as arrays (anomaly.presence makes them).
"""

from __future__ import annotations

from dataclasses import dataclass

from anomaly.checks.bycode import counted
from anomaly.checks.rows import I32, I64, Bool


@dataclass(slots=True)
class Silences:
    """All n points at one instant.

    expected      bool   judged at all: heard before, an interval is known, not retired
    silent_us     int64  how long the point itself has not been heard, µs; gaps of ours do not count
    gateway_us    int64  how long its gateway has not been heard from any of its points, µs
    after_us      int64  silence after which the point is dead
    gateway       int32  its gateway's number, 0 … gateways-1
    """

    expected: Bool
    silent_us: I64
    gateway_us: I64
    after_us: I64
    gateway: I32
    gateways: int


def dead(silences: Silences) -> Bool:
    """bool[n]: expected, and silent for longer than it may be."""
    return silences.expected & (silences.silent_us > silences.after_us)


def gateways_out(silences: Silences, share: float, points_min: int) -> Bool:
    """bool[gateways]: where the gateway is the fault, not its points.

    Either ``share`` of its expected points are dead at once; or the gateway said nothing at all for so
    long that ``points_min`` of its points would be dead had each spoken at the gateway's last word. The
    second finds a mixed gateway's outage while its slow points are not yet due. A gateway with fewer than
    ``points_min`` expected points is never out.
    """
    of = silences.gateway
    n = silences.gateways
    expected = counted(of, silences.expected, n)
    dead_now = counted(of, dead(silences), n)
    overdue = counted(of, gateway_overdue(silences), n)
    return (expected >= points_min) & ((dead_now >= share * expected) | (overdue >= points_min))


def gateway_overdue(silences: Silences) -> Bool:
    """bool[n]: the point would be dead even if it had spoken when its gateway last spoke."""
    return silences.expected & (silences.gateway_us > silences.after_us)


def undecided(silences: Silences) -> Bool:
    """bool[n]: dead, but its gateway has neither outlived it nor been silent long enough to be judged.

    Points of one gateway fall silent within one interval, not at one instant: without this wait the
    first few would be called dead one by one before the outage is seen. It lasts at most ``after_us``:
    by then the gateway has spoken, or it is overdue itself.
    """
    outlived = silences.silent_us - silences.gateway_us > silences.after_us
    return dead(silences) & ~outlived & ~gateway_overdue(silences)
