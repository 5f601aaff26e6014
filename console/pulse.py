"""Pulse: the few numbers at the top of the page, each second, with a short past for sparklines.

Owns the ``kpi`` message (console/FORMAT.md). Counts nothing itself; it is given what was counted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson

from console.board import Groups
from console.shown import FAULT, OFFLINE, Shown, severity_counts

KEPT: Final = 120
"""Of seconds, and of minutes."""
RATE_WINDOW_S: Final = 5.0
MINUTE_S: Final = 60


class Pulse:
    """The numbers of one engine. ``messages``: how many it received so far. Called by one thread at a time."""

    def __init__(self, messages: Callable[[], int]) -> None:
        self._messages = messages
        self._received: deque[tuple[float, int]] = deque(maxlen=64)
        self._minute = -1
        self.seconds: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.minutes: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._text: tuple[int, str] | None = None

    def beat(self, shown: Shown, seq: int, groups: Groups) -> dict[str, Any]:
        """The message of this second."""
        now = {"t": "kpi", **_counted(shown), "seq": seq, "rate": self._rate()}
        now |= {"unacked": groups.unacked, "groups": len(groups.by_id) + groups.more}
        self.seconds.append(now)
        minute = int(now["time"]) // MINUTE_S
        if minute != self._minute:
            self._minute = minute
            self.minutes.append(now)
        self._text = seq, orjson.dumps(now).decode()
        return now

    def topic(self, had: int | None) -> tuple[int, str] | None:
        """The feed's topic: only the newest second."""
        return None if self._text is None or self._text[0] == had else self._text

    def _rate(self) -> float:
        now = time.monotonic()
        self._received.append((now, self._messages()))
        at, count = next(one for one in self._received if now - one[0] <= RATE_WINDOW_S)
        return round((self._received[-1][1] - count) / (now - at), 1) if now > at else 0.0


def _counted(shown: Shown) -> dict[str, Any]:
    picture, video = shown.picture, shown.display.video
    alive = (shown.state & OFFLINE) == 0
    videos, videos_alive = int(np.count_nonzero(video)), int(np.count_nonzero(video & alive))
    sensors = len(video) - videos
    severity = severity_counts(shown).sum(axis=0).tolist()
    return {
        "time": picture.now_us / 1e6,
        "pos": picture.seq,
        "online": [int(np.count_nonzero(alive)) - videos_alive, sensors],
        "video": [videos_alive, videos],
        "latency_ms": round(picture.lag_us / 1000, 1),
        "alerts": severity[1:],
        "faults": int(np.count_nonzero(shown.state & FAULT)),
        "stored_s": round(max(0.0, time.time() - picture.now_us / 1e6), 2),
    }
