"""The shape of a rule. Owns what the engine calls and what it gets back; knows no rule.

A row rule sees main readings in order, flag 1 so far, and derives a class 0-4 for each: rain of the last hour, a
noise limit of the night, minutes until a level is reached. A tick rule looks across points once a TICK: rain over an
area, several signs in one district. Both are pure: arrays in, arrays out, their state in the engine's State.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import U8, Arrays, Field, Rows
from storage.fast import IS_COMPILED
from storage.points import PointTable

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Assessed:
    """What a row rule says of n rows.

    classes  uint8[n]: 0 nothing, 1 blue, 2 yellow, 3 orange, 4 red
    value    float64[n]: the number that was judged, for the message: mm in 1 h, AQI, minutes to the limit
    limit    float64[n]: the limit it stands in or nears; NaN where there is none
    """

    classes: U8
    value: F64
    limit: F64


@dataclass(frozen=True, slots=True)
class RowRule:
    """A rule over the readings of each point alone.

    name      of its episodes and alerts; unique
    settings  (points, settings by kind, the config's [rules] table) -> its limit arrays, by name, prefixed with its
              own; called at start and at every reload. One of them may be NAME_sign, float64[points]: -1 where low
              values are the worse ones (minutes to a level), so that the peak of an episode is the lowest
    judge     (rows, limits, state) -> Assessed. Changes only its own ``fields`` of ``state``, and those last.
              Where a stream is cut into batches must not matter.
    unit, title_zh, title_en   of ``value``, for messages: "mm", "1小时雨量", "rain in 1 h"
    loop      the same as ``judge`` as one compiled loop over the rows, where numba is there; None where it leaves these
              rows, and the state as it was, to ``judge``
    of        name of its bool[points] limit: of all other points it says nothing, and it need not be shown their rows;
              "" for a rule over all points
    alert_class  "event" the city, "fault" our view of it
    """

    name: str
    settings: Callable[[PointTable, Mapping[str, Any], Mapping[str, Any]], dict[str, npt.NDArray[Any]]]
    judge: Callable[[Rows, Arrays, Arrays], Assessed]
    fields: tuple[Field, ...] = ()
    unit: str = ""
    title_zh: str = ""
    title_en: str = ""
    loop: Callable[[Rows, Arrays, Arrays], Assessed | None] | None = None
    of: str = ""
    alert_class: str = "event"

    def fastest(self, rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
        """``loop`` where it can run compiled and takes the rows, else ``judge``."""
        found = self.loop(rows, limits, state) if self.loop is not None and IS_COMPILED else None
        return self.judge(rows, limits, state) if found is None else found


@dataclass(frozen=True, slots=True)
class Condition:
    """A subject of a tick rule that stands in a class at this TICK; subjects not named stand in 0.

    subject     stable text: a district, an area of the config, a point_id
    severity    1-4
    value, limit  the numbers that decided; NaN for none
    members     point numbers that take part, worst first, bounded
    words_zh, words_en   why, readable aloud, without the subject's name
    """

    subject: str
    severity: int
    value: float
    limit: float
    members: tuple[int, ...]
    words_zh: str
    words_en: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """A short forecast of one point. Times are µs since 1970 UTC; eta_s and limit NaN where not in sight."""

    point: int
    made_at: int
    at: int
    value: float
    method: str
    limit: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class HeardView:
    """Events a rule may count now, n of them. at int64[n] µs; lon, lat float64[n] degrees, NaN for no place."""

    type: Sequence[str] = ()
    category: Sequence[str] = ()
    district: Sequence[str] = ()
    at: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    lon: F64 = field(default_factory=lambda: np.empty(0))
    lat: F64 = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True)
class TickView:
    """What a tick rule may look at. ``state`` and ``limits`` are the engine's arrays by point, read only.

    levels  uint8[points] by rule name: the class each point stands in now, of every row rule and of "level"
    rules   the config's [rules] table
    heard   events beside readings that a rule may count
    """

    now_us: int
    points: PointTable
    limits: Arrays
    state: Arrays
    levels: Mapping[str, U8]
    rules: Mapping[str, Any]
    heard: HeardView = field(default_factory=HeardView)


@dataclass(frozen=True, slots=True)
class TickRule:
    """A rule across points, once a TICK (``every_s`` apart at most, by the engine's clock).

    judge     what stands now
    forecast  what is expected soon, stored beside; none by default
    unit      of the value of its conditions
    """

    name: str
    judge: Callable[[TickView], list[Condition]]
    forecast: Callable[[TickView], list[Forecast]] | None = None
    every_s: int = 10
    alert_class: str = "event"
    title_zh: str = ""
    title_en: str = ""
    unit: str = ""
