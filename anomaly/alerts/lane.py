"""Lane: the notifications of one target: what may go now, in which order, and what comes of an answer.

Owns order, superseding, retries and giving up. Holds no socket, clock or task: time is an argument, so
every rule here is a test of two lines.

One alert's notifications go one after the other, and only its newest undelivered revision goes at all.
What was never tried goes before retries, so a backlog of failures does not hold up tonight's flood.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from anomaly.alerts.outboxfile import DEAD, QUEUED, SENT, SUPERSEDED
from storage.units import US_PER_S

RETRY_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0)
"""Wait after the first, second … failure; then the last one again. Dense at first: a flood does not wait."""
JITTER: Final = 0.2
"""Each wait is drawn from ± this share, so that a target that comes back is not hit by all at once."""
MINUTE_US: Final = 60 * US_PER_S
RETRY_AFTER_S_MAX: Final = 86_400.0
"""A target may ask for a pause this long; more is taken as this."""
AFRESH_US: Final = 3_600 * US_PER_S
"""Whatever is taken in is tried for this long at least. What comes out of a restart looks old because the engine was
off or because a clock was set meanwhile, and either way the target may still be starting too."""


@dataclass(slots=True, eq=False)
class Notice:
    """One notification to one target. ``body`` None: read it before sending.

    Times are µs: since 1970 UTC as it is read, by the lane's clock once it is in one. ``ends_at`` is the lane's to set.
    """

    rowid: int
    webhook_id: str
    alert_id: str
    revision: int
    attempts: int
    created_at: int
    next_at: int
    body: bytes | None = None
    ends_at: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call.

    error          None for a 2xx, else a short reason without secrets
    gone           410: the target wants no more calls
    hopeless       no retry can help
    retry_after_s  the pause the target asked for
    """

    error: str | None = None
    gone: bool = False
    hopeless: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to be kept of a notification after an answer; ``next_at`` by the lane's clock."""

    rowid: int
    state: str
    attempts: int
    next_at: int
    error: str | None


class Lane:
    """``spread`` gives a number in 0 … 1 for the jitter; ``retry_s`` as RETRY_S; ``per_minute_max`` 0 is no limit.

    Its clock is whatever ``now`` says, in µs, and must not jump: waits and ages are of time that passed.
    """

    def __init__(
        self,
        in_air_max: int,
        give_up_us: int,
        spread: Callable[[], float],
        retry_s: tuple[float, ...] = RETRY_S,
        per_minute_max: int = 0,
    ) -> None:
        self._in_air_max = in_air_max
        self._give_up_us = give_up_us
        self._spread = spread
        self._retry_s = retry_s
        self._waiting: dict[str, Notice] = {}
        self._in_air: dict[str, Notice] = {}
        self._news: deque[Notice] = deque()
        self._steps: deque[Notice] = deque()
        self._retries: list[tuple[int, int, Notice]] = []
        self._paused_until = 0
        self._taken: deque[int] = deque(maxlen=per_minute_max)
        self.disabled = False

    def __len__(self) -> int:
        """Notifications not delivered, those in the air too."""
        return len(self._waiting) + len(self._in_air)

    @property
    def oldest(self) -> int | None:
        """When the oldest of them was queued, µs."""
        waiting = (*self._waiting.values(), *self._in_air.values())
        return min((notice.created_at for notice in waiting), default=None)

    def add(self, notice: Notice, now: int) -> list[Settlement]:
        """Take in a queued notification; one known already or outdated is ignored."""
        if self.disabled:
            return [Settlement(notice.rowid, DEAD, notice.attempts, notice.next_at, "target is gone (410)")]
        alert = notice.alert_id
        for known in (self._waiting.get(alert), self._in_air.get(alert)):
            if known is not None and known.revision >= notice.revision:
                return []
        lives_us = self._give_up_us
        notice.ends_at = max(notice.created_at + lives_us, now + min(lives_us, AFRESH_US))
        self._waiting[alert] = notice
        if alert not in self._in_air:
            self._schedule(notice)
        return []

    def keep(self, rowids: Collection[int]) -> None:
        """Forget waiting notifications that are not among ``rowids``: an operator dropped them."""
        for alert in [a for a, notice in self._waiting.items() if notice.rowid not in rowids]:
            del self._waiting[alert]

    def take(self, now: int) -> Notice | None:
        """The next notification to send, now in the air; None where nothing may go."""
        if self.disabled or now < self._free_at() or len(self._in_air) >= self._in_air_max:
            return None
        # A new alert before the next step of one that people know of, and both before retries.
        for queue in (self._news, self._steps):
            while queue:
                notice = queue.popleft()
                if self._lift(notice, now):
                    return notice
        while self._retries and self._retries[0][0] <= now:
            notice = heapq.heappop(self._retries)[2]
            if self._lift(notice, now):
                return notice
        return None

    def wakes_at(self, now: int) -> int | None:
        """When ``take`` may next give something without an answer coming in first, µs; None for never."""
        if self.disabled or len(self._in_air) >= self._in_air_max:
            return None
        if self._news or self._steps:
            return max(now, self._free_at())
        return max(self._retries[0][0], self._free_at()) if self._retries else None

    def _free_at(self) -> int:
        """When the target may be called again: after a pause it asked for, and not too often a minute."""
        full = bool(self._taken) and len(self._taken) == self._taken.maxlen
        return max(self._paused_until, self._taken[0] + MINUTE_US if full else 0)

    def land(self, notice: Notice, answer: Answer, now: int) -> list[Settlement]:
        """What is to be kept after ``answer``; the alert's newer revision, if any, may go now."""
        alert = notice.alert_id
        del self._in_air[alert]
        newer = self._waiting.get(alert)
        if newer is not None:
            self._schedule(newer)
        attempts = notice.attempts + 1
        if answer.retry_after_s is not None:
            pause = min(answer.retry_after_s, RETRY_AFTER_S_MAX)
            self._paused_until = max(self._paused_until, now + round(pause * US_PER_S))
        if answer.gone:
            self.disabled = True
            return [Settlement(notice.rowid, DEAD, attempts, now, answer.error), *self._abandon(now)]
        if answer.error is None:
            return [Settlement(notice.rowid, SENT, attempts, now, None)]
        if newer is not None:
            return [Settlement(notice.rowid, SUPERSEDED, attempts, now, answer.error)]
        if answer.hopeless or now >= notice.ends_at:
            return [Settlement(notice.rowid, DEAD, attempts, now, answer.error)]
        notice.attempts, notice.body = attempts, None
        notice.next_at = min(
            max(now + self._wait_us(attempts), self._paused_until), max(notice.ends_at, now + 1)
        )
        self._waiting[alert] = notice
        self._schedule(notice)
        return [Settlement(notice.rowid, QUEUED, attempts, notice.next_at, answer.error)]

    def _abandon(self, now: int) -> list[Settlement]:
        gone = [
            Settlement(n.rowid, DEAD, n.attempts, now, "target is gone (410)") for n in self._waiting.values()
        ]
        self._waiting.clear()
        self._news.clear()
        self._steps.clear()
        self._retries.clear()
        return gone

    def _wait_us(self, attempts: int) -> int:
        wait = self._retry_s[min(attempts, len(self._retry_s)) - 1]
        return round(wait * (1 + JITTER * (2 * self._spread() - 1)) * US_PER_S)

    def _schedule(self, notice: Notice) -> None:
        if notice.attempts == 0:
            (self._news if notice.revision == 1 else self._steps).append(notice)
        else:
            heapq.heappush(self._retries, (notice.next_at, notice.rowid, notice))

    def _lift(self, notice: Notice, now: int) -> bool:
        """Move a scheduled notification into the air, unless it was superseded or waits for another."""
        alert = notice.alert_id
        if self._waiting.get(alert) is not notice or alert in self._in_air:
            return False
        self._in_air[alert] = self._waiting.pop(alert)
        self._taken.append(now)
        return True
