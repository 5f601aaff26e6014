"""Shown: what each point shows on the map, two bytes a point, made of the judge's picture.

Owns ``level`` and ``state`` (console/FORMAT.md) and the counts over them. Runs off the loop, over whole arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.live import Picture
from console.display import Display
from storage.batch import U8, Bool
from storage.flags import SUSPECT

SEVERITIES: Final = 5
SEVERITY: Final = 7
OFFLINE: Final = 1 << 3
DOUBTFUL: Final = 1 << 4
TAKEN: Final = 1 << 5
NO_VALUE: Final = 1 << 6
FAULT: Final = 1 << 7
LEVEL_STEPS: Final = 254.0
LEVEL_LOW: Final = 1.0
LEVEL_HIGH: Final = 255.0
LEVEL_STEP: Final = 2
"""A level moves by at least this: half a per cent of its scale, so that noise costs no bytes."""
BELOW_FIRST: Final = 3.0
"""Where nothing says how low a value can be, the scale begins this many times the distance from the first level to the
last below the first."""

_F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shown:
    """One moment, in display order. level, state: uint8[n]."""

    display: Display
    picture: Picture
    level: U8
    state: U8


class Painter:
    """Makes Shown after Shown of one display; keeps the level shown before, and buffers."""

    def __init__(self, display: Display, picture: Picture) -> None:
        points, limits = display.points, picture.engine.limits
        self._display = display
        sign = limits["sign"]
        level = limits["level"]
        with np.errstate(invalid="ignore"):
            first, last = np.fmin.reduce(level, axis=0), np.fmax.reduce(level, axis=0)
            rising = sign > 0
            floor = np.where(rising, points.range_min, -points.range_max)
            low = np.where(
                np.isnan(first), floor, np.fmax(floor, first - BELOW_FIRST * np.maximum(last - first, 1e-9))
            )
            high = np.where(np.isnan(last), np.where(rising, points.range_max, -points.range_min), last)
            width = high - low
        sound = np.isfinite(low) & np.isfinite(width) & (width > 0)
        # level = value * by + off, cut to 1 ... 255; without a scale it is the middle.
        by = LEVEL_STEPS / np.where(sound, width, 1.0)
        self._by = np.where(sound, sign * by, 0.0)
        self._off = np.where(sound, 1.5 - np.where(sound, low, 0.0) * by, 128.0)
        n = len(points)
        self._video = np.zeros(n, np.bool_)
        self._video[display.number] = display.video
        self._has_video = bool(display.video.any())
        self._shown = np.zeros(n, np.uint8)
        self._never = np.ones(n, np.bool_)
        self._room = np.empty(n)
        self._number = display.number.astype(np.intp)

    def paint(self, picture: Picture, taken: Bool | None = None) -> Shown:
        """``taken`` bool[points]: alerts of them are acknowledged or silenced."""
        never = np.isnan(picture.value)
        room, before = self._room, self._shown
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(picture.value, self._by, out=room)
            np.add(room, self._off, out=room)
            # Half a step is in the offset: cutting off is rounding.
            np.clip(room, LEVEL_LOW, LEVEL_HIGH, out=room)
            level = room.astype(np.uint8)
        level *= ~never
        # Modulo 256 one comparison finds both directions; to and from 0 always moves.
        moved = (level - before + np.uint8(1)) > LEVEL_STEP
        moved |= never != self._never
        np.copyto(before, level, where=moved)
        self._never = never
        # Of the QARTOD flags the doubtful ones are the greatest; 0 is none yet.
        state = picture.severity | (picture.flag >= SUSPECT).view(np.uint8) << np.uint8(4)
        offline = picture.silent
        if self._has_video:
            offline = offline | (self._video & (picture.value == 0.0))
        state |= offline.view(np.uint8) << np.uint8(3)
        state |= never.view(np.uint8) << np.uint8(6)
        state |= picture.fault.view(np.uint8) << np.uint8(7)
        if taken is not None:
            state |= taken.view(np.uint8) << np.uint8(5)
        return Shown(self._display, picture, before.take(self._number), state.take(self._number))


def severity_counts(shown: Shown) -> npt.NDArray[np.int64]:
    """Points by district and severity, int64[districts, 5]."""
    districts = len(shown.display.districts)
    code = shown.display.district.astype(np.int64) * SEVERITIES + np.minimum(shown.state & SEVERITY, 4)
    return np.bincount(code, minlength=districts * SEVERITIES).reshape(districts, SEVERITIES)


def district_counts(shown: Shown, where: Bool) -> npt.NDArray[np.int64]:
    """How many points of each district are in ``where`` (bool[n])."""
    return np.bincount(shown.display.district[where], minlength=len(shown.display.districts))


def counts(shown: Shown) -> dict[str, Any]:
    """``GET /api/counts``."""
    by = severity_counts(shown)
    offline = district_counts(shown, (shown.state & OFFLINE) != 0)
    all_of = district_counts(shown, np.ones(len(shown.state), np.bool_))
    return {
        "pos": shown.picture.seq,
        "time": shown.picture.now_us / 1e6,
        "severity": by.sum(axis=0).tolist(),
        "districts": [
            {"id": name, "severity": by[d].tolist(), "offline": int(offline[d]), "n": int(all_of[d])}
            for d, name in enumerate(shown.display.districts)
        ],
    }
