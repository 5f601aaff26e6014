"""Events for tests: many steps of every type, made by a seed; and what macros must say of them, computed plainly.

Owns the oracle: it reads steps one by one and knows no SQL.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from ingest.lakelogs import events_table
from storage.logs import ParquetLog
from storage.records import STATES, Event
from storage.schema import EVENTS

S = 1_000_000
HOUR = 3600 * S
DAY = 24 * HOUR
T0 = 1_782_835_200_000_000
"""2026-07-01 00:00 in Shanghai."""
ZONE = ZoneInfo("Asia/Shanghai")
TYPES = ("appeal", "inspection", "violation", "banquet", "finding", "approval", "video_alarm", "visit")
OVER = ("closed", "refused", "cancelled")

Said = dict[str, str | float | None]


def _attributes(rng: random.Random, state: str) -> Said:
    """Some of what macros read; a step need not say everything, and some say it badly."""
    said: Said = {}
    if state == "rated":
        said |= {"solved": float(rng.random() < 0.9), "satisfied": float(rng.random() < 0.8)}
    if rng.random() < 0.8:
        said["violations"] = float(rng.choice((0, 0, 0, 1, 3)))
    if rng.random() < 0.5:
        said |= {"guests": float(rng.randrange(20, 400)), "visits": float(rng.randrange(1, 9))}
    if rng.random() < 0.7:
        said |= {
            "violation": rng.choice(("expired", "hygiene")),
            "project": rng.choice(("P-1", "P-2", "P 3")),
        }
        said |= {"channel": rng.choice(("online", "window", "app")), "service": f"s{rng.randrange(9)}"}
    if rng.random() < 0.1:
        said |= {"solved": None, "violations": "many", "text": "积水\n\"深\" 'x' "}
    return said


def steps_of(rng: random.Random, cases: int, begin: int = T0, days: int = 62) -> list[Event]:
    """The steps of ``cases`` events of all types, each event's in order of its life, received an hour later at most."""
    made: list[Event] = []
    for number in range(cases):
        type_ = rng.choice(TYPES)
        life = ["accepted", "assigned", "handled", rng.choice(OVER), "rated"][: rng.randrange(1, 6)]
        life = [state for state in life if rng.random() < 0.9 or state == "accepted"]
        time = begin + rng.randrange(0, days * 24) * HOUR + rng.randrange(HOUR)
        due = time + rng.randrange(1, 10) * DAY if rng.random() < 0.7 else None
        for state in life:
            whole = rng.random() < 0.7
            made.append(
                Event(
                    id=f"{type_}/{number}",
                    source=rng.choice(("hotline",)) if number % 7 else "other",
                    type=type_,
                    state=state,
                    at_us=time,
                    district=rng.choice(("金牛区", "武侯区")) if whole else "",
                    category=rng.choice(("waterlogging", "noise", "网络餐饮")) if whole else "",
                    lon=104.0 + rng.random() if whole else None,
                    lat=30.0 + rng.random() if whole else None,
                    point_id="p-00003" if rng.random() < 0.1 else "",
                    attributes=_attributes(rng, state),
                    name="地铁口 'A'" if whole else "",
                    due_us=due if whole else None,
                    received_at=time + rng.randrange(HOUR),
                )
            )
            time += rng.choice((0, rng.randrange(3 * DAY)))
    return made


def received(rng: random.Random, steps: Sequence[Event]) -> list[Event]:
    """The steps as a city sends them: shuffled, some again, some of those with other words."""
    sent = list(steps)
    rng.shuffle(sent)
    again = rng.sample(sent, len(sent) // 10)
    changed = [replace(e, category="corrected", received_at=e.received_at + HOUR) for e in again[::2]]
    return sent + again[1::2] + changed


def keep(root: Path, sent: Sequence[Event], files: int = 3) -> None:
    """Write ``sent`` as the engine does, over several files of which two overlap."""
    log = ParquetLog(root / "lake" / "events", EVENTS)
    cuts = np.linspace(0, len(sent), files + 1).astype(int).tolist()
    for first, last in itertools.pairwise(cuts):
        log.append(first + 1, last, _rows(sent, max(0, first - 5), last))


def _rows(sent: Sequence[Event], first: int, last: int) -> Any:
    return events_table([((number + 1) << 24, sent[number]) for number in range(first, last)])


def log_of(sent: Sequence[Event]) -> dict[tuple[str, str, str, int], tuple[int, Event]]:
    """Each step once, the last received: (source, id, state, time) to its number and itself."""
    return {(e.source, e.id, e.state, e.at_us): (number, e) for number, e in enumerate(sent)}


class Case:
    """One event put together from its steps, as docs/events.md says."""

    def __init__(self, steps: Iterable[tuple[int, Event]]) -> None:
        order = sorted(steps, key=lambda one: (one[1].at_us, STATES[one[1].state], one[0]))
        self.steps = [e for _, e in order]
        last = self.steps[-1]
        self.source, self.id, self.type, self.state = last.source, last.id, last.type, last.state
        self.opened = min(e.at_us for e in self.steps)
        self.time = max(e.at_us for e in self.steps)
        self.assigned = self._first("assigned")
        self.handled = self._first("handled")
        ends = [e for e in self.steps if e.state in OVER]
        self.over = max((e.at_us for e in ends), default=None)
        self.outcome = ends[-1].state if ends else None

    def _first(self, state: str) -> int | None:
        return min((e.at_us for e in self.steps if e.state == state), default=None)

    def last(self, name: str) -> Any:
        """What the last step says that says anything; None for nothing."""
        said = [v for v in (getattr(e, name) for e in self.steps) if v not in (None, "")]
        return said[-1] if said else None

    def number(self, name: str) -> float | None:
        """The last number among the attributes of that name."""
        said = [v for v in (e.attributes.get(name) for e in self.steps) if isinstance(v, float)]
        return said[-1] if said else None

    def text(self, name: str) -> str | None:
        """The last text among the attributes of that name."""
        said = [v for v in (e.attributes.get(name) for e in self.steps) if isinstance(v, str)]
        return said[-1] if said else None


def cases_of(sent: Sequence[Event], type_: str | None = None) -> list[Case]:
    """Every event of a type, or all."""
    of: dict[tuple[str, str], list[tuple[int, Event]]] = {}
    for number, event in log_of(sent).values():
        of.setdefault((event.source, event.id), []).append((number, event))
    return [case for case in map(Case, of.values()) if type_ is None or case.type == type_]


def city_date(us: int, form: str) -> str:
    """A time as the city writes it."""
    return datetime.fromtimestamp(us / 1e6, UTC).astimezone(ZONE).strftime(form)


def grouped(cases: Iterable[Case], key: Callable[[Case], Any]) -> dict[Any, list[Case]]:
    """Cases by key, in order of key."""
    found: dict[Any, list[Case]] = {}
    for case in cases:
        found.setdefault(key(case), []).append(case)
    return dict(sorted(found.items(), key=lambda one: one[0]))


def mean(values: Iterable[float | None]) -> float | None:
    """Of those known; None for none."""
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def middle(values: Iterable[float]) -> float | None:
    """Their median; None for none."""
    known = list(values)
    return median(known) if known else None


def quantile(values: Iterable[float], q: float) -> float | None:
    """With interpolation; None for none."""
    known = list(values)
    return float(np.quantile(known, q)) if known else None
