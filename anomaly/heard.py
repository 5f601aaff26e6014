"""Events beside readings that a rule counts: kept from when they were heard until no rule can count them any more.

Owns that memory. Knows nothing of what a rule makes of it. Only steps in state "accepted" begin to count, by their own
time, and an event counts once; one that was refused or cancelled counts no more. What is kept depends on the journal's
order and on TICKs alone, so a replay ends in the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from anomaly.rules.base import HeardView
from anomaly.rules.parts import rule_settings
from storage.batch import US_PER_S
from storage.records import Event

HEARD_MAX: Final = 20_000
"""Events kept at once, the newest by their time: ten times the appeals of the worst hour a city has seen."""
OPENS: Final = "accepted"
VOID: Final = frozenset({"refused", "cancelled"})


@dataclass(slots=True)
class Heard:
    """One event that counts; ``void`` where it does no longer. at_us: µs since 1970 UTC; lon, lat None for no place."""

    type: str
    category: str
    district: str
    at_us: int
    lon: float | None
    lat: float | None
    void: bool = False


class HeardEvents:
    """The memory of one engine, for the config's ``rules``."""

    def __init__(self, rules: Mapping[str, Any]) -> None:
        # Of its own table alone: what else stands in [rules] is other rules' to judge.
        own = {name: table for name, table in rules.items() if name == "compound"}
        needs = [need for rule in rule_settings(own).compound for need in rule.needs if need.event]
        self._wanted = {(need.event, need.category) for need in needs}
        self._longest_us = round(max((need.within_s for need in needs), default=0.0) * US_PER_S)
        self._kept: dict[tuple[str, str], Heard] = {}

    def hear(self, events: Iterable[Event]) -> None:
        """Steps in journal order."""
        for event in events:
            if (event.type, event.category) not in self._wanted and (event.type, "") not in self._wanted:
                # An end need not say again what it is the end of.
                if event.state in VOID and (event.source, event.id) in self._kept:
                    self._kept[event.source, event.id].void = True
                continue
            known = self._kept.get((event.source, event.id))
            if event.state in VOID:
                if known is not None:
                    known.void = True
            elif event.state == OPENS:
                if known is not None:
                    known.at_us = min(known.at_us, event.at_us)
                else:
                    self._keep(event)

    def _keep(self, event: Event) -> None:
        self._kept[event.source, event.id] = Heard(
            event.type, event.category, event.district, event.at_us, event.lon, event.lat
        )
        if len(self._kept) > HEARD_MAX:
            newest = sorted(self._kept.items(), key=lambda one: (one[1].at_us, one[0]))[-HEARD_MAX // 2 :]
            self._kept = dict(newest)

    def view(self, now_us: int) -> HeardView:
        """What may count at ``now_us``; what is too old for every rule is forgotten."""
        old = [key for key, one in self._kept.items() if one.at_us <= now_us - self._longest_us]
        for key in old:
            del self._kept[key]
        live = [one for one in self._kept.values() if not one.void]
        if not live:
            return HeardView()
        place = [(np.nan, np.nan) if o.lon is None or o.lat is None else (o.lon, o.lat) for o in live]
        lon, lat = np.array(place, np.float64).T
        return HeardView(
            [o.type for o in live],
            [o.category for o in live],
            [o.district for o in live],
            np.array([o.at_us for o in live], np.int64),
            lon,
            lat,
        )

    def snapshot(self) -> list[list[Any]]:
        """JSON-able."""
        return [[*key, asdict(one)] for key, one in self._kept.items()]

    def restore(self, saved: Iterable[Sequence[Any]]) -> None:
        """Take over what ``snapshot`` gave."""
        self._kept = {(source, id_): Heard(**one) for source, id_, one in saved}
