"""Gauges: from what a rain gauge says to the rain that fell, and when.

Owns increments, counters that are set back, and rain that is told of after a silence. Knows no sums and no limits.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from anomaly.checks.rows import I64, NO_TIME, Arrays, Bool, shifted
from anomaly.rules.parts import Part

SPAN_US: Final = 300_000_000
"""Rain is kept by five minutes, in whole thousandths of a millimetre."""
SPANS: Final = 24 * 12 + 1
PER_MM: Final = 1000
MINUTE_US: Final = 60_000_000
JITTER: Final = 500
"""A counter that falls by up to 0.5 mm swings; it was not set back."""
READING_MM_MAX: Final = 1000.0
"""No single reading brings more: the greatest rain of a day ever measured is 1,825 mm (WMO archive)."""
COUNTER_MM_MAX: Final = 1e9
"""Larger counters would not be whole numbers of thousandths in 64 bits."""


def added(part: Part, limits: Arrays, state: Arrays) -> tuple[I64, I64]:
    """The rain each row brings, and the counter after it, both int64[m] in thousandths of a millimetre.

    A counter that falls was set back: what it shows since is rain, unless it only swings. One that jumps faster than
    rain_jump was exchanged: it is the new base. An increment beyond READING_MM_MAX is no rain.
    """
    told = np.rint(np.clip(part.value, 0.0, COUNTER_MM_MAX) * PER_MM).astype(np.int64)
    increments = np.where(told <= READING_MM_MAX * PER_MM, told, 0)
    counts = limits["rain_counts"][part.points]
    if not counts.any():
        return increments, told
    place = state["rain_gauge_place"][part.points]
    before = shifted(told, part.first, state["rain_counter"][place])
    earlier = shifted(part.time, part.first, state["rain_time"][place])
    known = earlier != NO_TIME
    rise = np.where(known, told - before, 0)
    rise = np.where(rise < -JITTER, told, np.maximum(rise, 0))
    minutes = (part.time - np.where(known, earlier, part.time)) // MINUTE_US + 1
    rise[rise > limits["rain_jump"][0] * minutes] = 0
    return np.where(counts[part.group], rise, increments), told


def spans_of(time: I64) -> I64:
    """The span of each time. A reading counts for the time before it: 10:00:00 lies in the span that ends there."""
    return (time - 1) // SPAN_US


def dated(part: Part, more: I64, limits: Arrays, state: Arrays) -> tuple[Part, I64, I64, Bool | None]:
    """The part with its spans and its rain, and bool[m'] of its own rows among them; None where all are.

    A counter that was silent over several spans does not say when the rain fell: it is spread evenly over them, by rows
    put in before the row that told of it. So an outage makes no cloudburst.
    """
    span = spans_of(part.time)
    counts = limits["rain_counts"][part.points]
    if not counts.any():
        return part, span, more, None
    place = state["rain_gauge_place"][part.points]
    earlier = shifted(part.time, part.first, state["rain_time"][place])
    silent = np.where(earlier == NO_TIME, 1, span - spans_of(earlier))
    wide = counts[part.group] & (silent > 1) & (more > 0)
    if not wide.any():
        return part, span, more, None
    # What fell before all windows stands in the oldest row put in, which lies outside of them.
    copies = np.where(wide, np.minimum(silent, SPANS), 1)
    source = np.repeat(np.arange(len(copies)), copies)
    left = np.repeat(np.cumsum(copies), copies) - 1 - np.arange(len(source))
    share = np.where(wide, more // np.maximum(silent, 1), 0)
    oldest = left == copies[source] - 1
    rain = np.where(oldest, (more - share * (copies - 1))[source], share[source])
    first = (np.cumsum(copies) - copies)[part.first]
    rows = part.index[source], part.time[source], part.value[source]
    wider = Part(*rows, first, part.group[source], part.points, False)
    return wider, span[source] - left, rain, left == 0
