"""What nodes of the field say beside readings: that they leave, and what they must be asked for.

Owns which points left since the journal was told, and how often a node may be asked. Knows no format and no socket: who
publishes an Ask is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from ingest.codecs.base import Ask
from ingest.decode.message import Outcome
from ingest.routes import Route
from storage.points import PointTable
from storage.records import LEFT, Control

ASKED_KEPT_MAX: Final = 10_000
"""Nodes whose last request is remembered; a peer that invents them must not fill memory."""
ASKS_WAITING_MAX: Final = 1_000
"""Requests of one turn; nobody answers so many at once."""

Publish = Callable[[str, bytes], bool]
"""Sends (topic, payload) to where a message came from; False where nobody listens there."""


class Nodes:
    """counts: nodes_asked, nodes_asks_held (too soon after the one before), nodes_asks_unheard (the peer takes no
    messages), nodes_points_left."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._asks: list[tuple[Ask, float]] = []
        self._asked_at: dict[str, float] = {}
        self._left: dict[int, None] = {}

    def said(self, route: Route, outcome: Outcome) -> None:
        """One message that says something of its nodes."""
        if route.keys is None:
            return
        binding = route.keys.binding
        if outcome.offline or outcome.gateways:
            self._left.update(dict.fromkeys(binding.points_of(outcome.offline, outcome.gateways)))
        if outcome.online and self._left:
            # Gone and back within one poll: nobody was missed.
            for point in binding.points_of(outcome.online, ()):
                self._left.pop(point, None)
        gap_s = route.source.settings.sparkplug.rebirth_s_min
        self._asks += [(ask, gap_s) for ask in outcome.asks[: ASKS_WAITING_MAX - len(self._asks)]]

    def ask(self, publish: Publish, now: float) -> None:
        """Send what must be asked of who was just heard; ``now`` s, monotonic."""
        for ask, gap_s in self._asks:
            if now - self._asked_at.get(ask.topic, -gap_s) < gap_s:
                self.counts["nodes_asks_held"] += 1
                continue
            if len(self._asked_at) >= ASKED_KEPT_MAX:
                self._asked_at.clear()
            self._asked_at[ask.topic] = now
            self.counts["nodes_asked" if publish(ask.topic, ask.payload) else "nodes_asks_unheard"] += 1
        self._asks.clear()

    def take_left(self, points: PointTable, now_us: int) -> Control | None:
        """The record of who left since the last call."""
        if not self._left:
            return None
        self.counts["nodes_points_left"] += len(self._left)
        left = sorted(points.point_id[point] for point in self._left)
        self._left.clear()
        return Control(LEFT, {"at": now_us, "points": left})
