"""The connections to brokers, as the engine sees them: which are down and why, and what of it is a gap.

Owns which gaps of lost links the journal is told of: nobody is called dead because of us. Holds no socket and no clock;
the connections themselves are ingest.mqtt.links'.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ingest.config import SubscriberSettings
from ingest.mqtt.links import LinkEvent, slices_of
from storage.records import Gap

log = logging.getLogger("yuzui.engine")

_BAD: Final = frozenset({"link_down", "connect_failed", "session_lost", "filter_refused"})


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A connection to a broker that is not up; ``since_us`` 0 where it never was."""

    since_us: int
    why: str


class BrokerLinks:
    """``down`` by the link's name; ``journal`` takes the gaps."""

    def __init__(self, subscribers: Sequence[SubscriberSettings], journal: Callable[[Gap], object]) -> None:
        self._journal = journal
        self.down = {
            f"{settings.name}/{number}": LinkDown(0, "not connected yet")
            for settings in subscribers
            for number in range(1, len(slices_of(settings)) + 1)
        }

    def heard(self, event: LinkEvent) -> None:
        """A lost link is a gap for every source until all links are up."""
        log.log(logging.WARNING if event.kind in _BAD else logging.INFO, "link %s: %s %s",
                event.link, event.kind, event.detail)  # fmt: skip
        if event.kind == "link_down":
            self.down[event.link] = LinkDown(event.begin_us, event.detail or "the broker is gone")
            self._journal(Gap("link", event.begin_us, 0, "", event.link))
        elif event.kind == "link_up":
            was = self.down.pop(event.link, None)
            if was and was.since_us and not any(one.since_us for one in self.down.values()):
                self._journal(Gap("link", was.since_us, event.end_us, "", event.link))
        elif event.kind == "session_lost":
            self._journal(Gap("session_lost", event.begin_us, event.end_us, "", event.link))
        elif event.link in self.down:
            self.down[event.link] = replace(self.down[event.link], why=event.detail or event.kind)
