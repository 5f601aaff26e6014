"""Tick rules at work: when each is asked, what becomes of the conditions it names, and its forecasts.

Owns when a rule ran last and the calm a condition needs before it is over. Knows nothing of what a rule looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from anomaly import rules
from anomaly.alerts.event import AlertEvent
from anomaly.checks.level import highest
from anomaly.episodes import Episodes
from anomaly.heard import HeardEvents
from anomaly.limits import Limits
from anomaly.rulebook import Rule, rulebook
from anomaly.rules.base import Condition, Forecast, TickRule, TickView
from anomaly.state import State
from storage.batch import US_PER_S
from storage.points import PointTable

CALM_TURNS: Final = 3
"""A condition is over, or milder, when its rule said so this many times in a row: an area at the edge of its
condition must not fire and resolve every ten seconds. It begins, and becomes worse, at once."""
WORST: Final = 4


class Conditions:
    """The tick rules of one engine. ``failed`` hears of a rule that raised; its episodes then stay as they are."""

    def __init__(
        self,
        points: PointTable,
        limits: Limits,
        state: State,
        settings: Mapping[str, Any],
        episodes: Episodes,
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._points = points
        self._limits = limits
        self._state = state
        self._settings = settings
        self._episodes = episodes
        self._failed = failed
        self._rules = rules.tick_rules()
        self.heard = HeardEvents(settings)
        self.asked_at: dict[str, int] = {}
        self.forecasts: list[Forecast] = []

    def tick(self, now: int, recorded_at: int) -> list[AlertEvent]:
        """What the rules that are due at ``now`` (µs, the engine's clock) have to say."""
        due = [rule for rule in self._rules if self._due(rule, now)]
        if not due:
            return []
        view = self._view(now)
        events: list[AlertEvent] = []
        for rule in due:
            self.asked_at[rule.name] = now
            try:
                standing = _by_subject(rule.judge(view))
                expected = rule.forecast(view) if rule.forecast else []
            except Exception as failure:
                self._failed(rule.name, failure)
                continue
            self.forecasts += expected
            events += self._follow(rulebook()[rule.name], standing, now, recorded_at)
        return events

    def _due(self, rule: TickRule, now: int) -> bool:
        asked = self.asked_at.get(rule.name)
        # A clock that was set back must not silence a rule until it is where it was.
        return asked is None or now < asked or now - asked >= rule.every_s * US_PER_S

    def _view(self, now: int) -> TickView:
        state = {name: _locked(array) for name, array in self._state.arrays().items()}
        limits = {name: _locked(array) for name, array in self._limits.items()}
        levels = {rule.name: state[f"{rule.name}_class"] for rule in rules.row_rules()}
        levels["level"] = highest(state["level_mask"])
        return TickView(now, self._points, limits, state, levels, self._settings, self.heard.view(now))

    def _follow(
        self, rule: Rule, standing: Mapping[str, Condition], now: int, recorded_at: int
    ) -> list[AlertEvent]:
        """Episodes follow the conditions: up at once, down after a calm."""
        found: list[AlertEvent | None] = []
        open_now = self._episodes.open
        for subject, condition in standing.items():
            episode = open_now.get((rule.name, subject))
            if episode is not None and condition.severity < episode.level:
                episode.counts[0] += 1
                if episode.counts[0] < CALM_TURNS:
                    continue
            if episode is not None:
                episode.counts[0] = 0
            found.append(self._episodes.stand(rule, condition, now, recorded_at))
        gone = [subject for name, subject in open_now if name == rule.name and subject not in standing]
        for over in sorted(gone, key=str):
            episode = open_now[rule.name, over]
            episode.counts[0] += 1
            if episode.counts[0] >= CALM_TURNS:
                found.append(self._episodes.end(rule, over, now, recorded_at, np.nan))
        return [event for event in found if event is not None]


def _by_subject(conditions: list[Condition]) -> dict[str, Condition]:
    """The worst condition of each subject, in order of subject. Raises ValueError for a severity that is none."""
    worst: dict[str, Condition] = {}
    for condition in sorted(conditions, key=lambda one: (one.subject, one.severity)):
        if not 1 <= condition.severity <= WORST:
            raise ValueError(f"severity {condition.severity} of {condition.subject!r} is none of 1-{WORST}")
        worst[condition.subject] = condition
    return worst


def _locked(array: np.ndarray) -> np.ndarray:
    seen = array.view()
    seen.setflags(write=False)
    return seen
