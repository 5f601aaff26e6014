"""Video: whether a camera's channel lives, by what its platform says of it. No picture is received.

Owns the meaning of a heartbeat's value: 0 and below, the platform says it is offline; up to the kind's fault line,
there is a picture but a bad one (frozen, black, too few frames); above, it is well. A state (0, 1, 2) and a frame rate
read alike. Since when a channel is alive is kept here; who is absent, and whose fault that is, is anomaly.presence's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import NO_TIME, Arrays, Field, Rows
from anomaly.rules.base import Assessed, RowRule
from anomaly.rules.parts import nothing, of_kinds, part_of, rule_settings, spread
from storage.points import PointTable

OFFLINE_MAX = 0.0


def _settings(
    points: PointTable, kinds: Mapping[str, Any], rules: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """video_point bool[points]; video_fault float64[points], NaN where it is none; video_back_us int64[1]."""
    settings = rule_settings(rules).video
    fault = np.array([settings.kinds.get(name, np.nan) for name in points.kinds] or [np.nan])
    return {
        "video_point": of_kinds(points, settings.kinds),
        "video_fault": fault[points.kind],
        "video_back_us": np.array([round(settings.back_s * 1e6)], np.int64),
    }


def video(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """Class 1 for a picture at fault; the value as sent; the kind's fault line."""
    part = part_of(rows, limits["video_point"])
    if part is None:
        return nothing(len(rows))
    place = state["video_point_place"][part.points]
    alive, start = part.value > OFFLINE_MAX, part.start
    # What stood before each row: the row before it, or the state's.
    before_t, before_alive = np.empty_like(part.time), np.empty_like(alive)
    before_t[1:], before_alive[1:] = part.time[:-1], alive[:-1]
    seen = state["video_seen"][place]
    before_t[start], before_alive[start] = seen, (seen != NO_TIME) & (state["video_alive"][place] == seen)
    went_on = before_alive & (part.time - np.maximum(before_t, 0) <= part.each(limits["silence_us"]))
    up = _last_where(alive & ~went_on, part.time, part.first, state["video_up"][place])
    newest = _last_where(alive, part.time, part.first, state["video_alive"][place])
    fault = part.each(limits["video_fault"])
    classes = (alive & (part.value <= fault)).astype(np.uint8)
    state["video_alive"][place] = newest
    state["video_up"][place] = np.where(alive[part.last], up, NO_TIME)
    state["video_seen"][place] = part.time[part.last]
    return spread(len(rows), part, classes, part.value, fault)


def _last_where(holds: np.ndarray, time: np.ndarray, first: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Of each group the newest time at which it holds, int64[groups]; ``otherwise`` where it never does."""
    newest = np.maximum.reduceat(np.where(holds, time, NO_TIME), first)
    return np.where(newest == NO_TIME, otherwise, newest)


RULES = (
    RowRule(
        "video",
        _settings,
        video,
        (
            Field("video_alive", "i8", NO_TIME, of="video_point"),
            Field("video_seen", "i8", NO_TIME, of="video_point"),
            Field("video_up", "i8", NO_TIME, of="video_point"),
        ),
        title_zh="视频画面异常",
        title_en="picture at fault",
        of="video_point",
        alert_class="fault",
    ),
)
