"""Live state: what every point shows now, taken from the judge's arrays once a TICK as copies nobody changes any more.

Owns the picture that a map draws. Called on the judge's thread: rows and events as they are judged cost a scatter, a
TICK a few copies; whoever draws does the rest elsewhere. Knows nothing of maps, files or sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from anomaly.alerts.event import AlertEvent, alert_id
from anomaly.engine import Engine
from anomaly.episodes import Episode
from anomaly.rulebook import EVENT, rulebook
from storage.batch import F64, I64, U8, Bool, ReadingBatch

OUTAGE: Final = "outage"


@dataclass(frozen=True, slots=True)
class Picture:
    """Every point after journal record ``seq``, all arrays [points] by dense number, copied.

    seq       of a TICK: effects of all records up to it, and of no other, are in here
    now_us    the engine's clock at it, µs
    engine    whose points and limits these are; its live arrays are another moment's
    value     float64, of the newest reading; NaN where missing or never
    time      int64 µs, of the newest reading; the least int64 where never
    flag      uint8, of the newest main reading since the start, 0 before one came
    silent    bool, for too long, whoever is the fault
    severity  uint8, the worst severity in which an open alert about the city has the point, 0 for none
    fault     bool, an alert about the point as a sensor is open
    lag_us    the longest that a reading waited between reception and judgement since the TICK before; 0 without one
    """

    seq: int
    now_us: int
    engine: Engine
    value: F64
    time: I64
    flag: U8
    silent: Bool
    severity: U8
    fault: Bool
    lag_us: int


class Live:
    """The judge's side. ``picture`` may be read from any thread; ``on_picture`` is called on the judge's."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._standing: dict[int, dict[str, tuple[int, bool]]] = {}
        self._lag_us = 0
        self.picture: Picture | None = None
        self.on_picture: Callable[[], None] = lambda: None

    def seed(self, engine: Engine) -> None:
        """Begin with the open episodes of ``engine``: at the start, and where another takes over."""
        n = len(engine.points)
        before = getattr(self, "_flag", np.zeros(0, np.uint8))
        self._flag = np.zeros(n, np.uint8)
        self._flag[: len(before)] = before[:n]
        self._severity = np.zeros(n, np.uint8)
        self._fault = np.zeros(n, np.bool_)
        self._standing = {}
        self._number = engine.points.number_of()
        book = rulebook()
        for (rule, subject), episode in engine.episodes.open.items():
            number = self._of(rule, subject)
            if number is not None and episode.level:
                whom = engine.points.point_id[number] if isinstance(subject, int) else subject
                severity = book[rule].severity[episode.level]
                self._stands(number, _id_of(episode, whom), severity, book[rule].alert_class == EVENT)

    def rows(self, main: ReadingBatch) -> None:
        """Main readings, judged, in journal order."""
        if len(main):
            self._flag[main.point] = main.flag
            self._lag_us = max(self._lag_us, self._clock_us() - int(main.received_at.min()))

    def events(self, events: Iterable[AlertEvent]) -> None:
        """Steps of alerts, in their order."""
        for event in events:
            number = event.subject.number
            if number >= 0:
                self._stands(number, event.id, event.severity_now, event.alert_class == EVENT)

    def tick(self, engine: Engine, seq: int) -> None:
        """All up to the TICK ``seq`` is judged: take the picture."""
        state = engine.state
        self.picture = Picture(
            seq, engine.now_us, engine, state["last_v"].copy(), state["last_t"].copy(), self._flag.copy(),
            engine.silent.copy(), self._severity.copy(), self._fault.copy(), self._lag_us,
        )  # fmt: skip
        self._lag_us = 0
        self.on_picture()

    def _of(self, rule: str, subject: int | str) -> int | None:
        if rule == OUTAGE:
            return None
        return self._number.get(subject) if isinstance(subject, str) else subject

    def _stands(self, number: int, alert: str, severity: int, city: bool) -> None:
        mine = self._standing.setdefault(number, {})
        if severity:
            mine[alert] = (severity, city)
        else:
            mine.pop(alert, None)
        self._severity[number] = max((s for s, of_city in mine.values() if of_city), default=0)
        self._fault[number] = not all(of_city for _, of_city in mine.values())
        if not mine:
            del self._standing[number]


def _id_of(episode: Episode, whom: str) -> str:
    return alert_id(episode.rule, whom, episode.onset)
