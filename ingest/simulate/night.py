"""Who fails in a scenario, chosen over a whole registry: the same in the simulator and in whoever judges it.

Owns that choice only. What failing looks like is ingest.simulate.values and the speakers.
"""

from __future__ import annotations

import numpy as np

from ingest.simulate.fleet import Fleet
from ingest.simulate.scenario import CITY_STUCK_KINDS, Scenario
from storage.batch import I32, Bool


def stuck_points(whole: Fleet, scenario: Scenario) -> I32 | None:
    """Numbers of the points that stick, ascending int32; None where the scenario draws them point by point."""
    if scenario.name != "storm-city":
        return None
    lively = np.array([name in CITY_STUCK_KINDS for name in whole.kinds], bool)[whole.kind]
    return scenario.stuck_of(whole.number[lively], len(whole))


def outage_gateways(whole: Fleet, scenario: Scenario) -> Bool:
    """bool by gateway code: who falls silent for a while."""
    sizes = np.bincount(whole.gateway, minlength=len(whole.gateways)).astype(np.int64)
    return scenario.silent_gateways(len(whole.gateways), sizes)
