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
from storage.batch import F64, I32, U8, Bool
from storage.fast import IS_COMPILED, compiled, unsigned
from storage.flags import SUSPECT

SEVERITIES: Final = 5
SEVERITY: Final = 7
OFFLINE: Final = 1 << 3
DOUBTFUL: Final = 1 << 4
TAKEN: Final = 1 << 5
NO_VALUE: Final = 1 << 6
FAULT: Final = 1 << 7
_OFFLINE, _DOUBTFUL, _TAKEN, _NO_VALUE, _FAULT = (
    np.uint8(one.bit_length() - 1) for one in (OFFLINE, DOUBTFUL, TAKEN, NO_VALUE, FAULT)
)
LEVEL_STEPS: Final = 254.0
LEVEL_LOW: Final = 1.0
LEVEL_HIGH: Final = 255.0
LEVEL_STEP: Final = np.int32(2)
"""A level moves by at least this: half a per cent of its scale, so that noise costs no bytes."""
BELOW_FIRST: Final = 3.0
"""Where nothing says how low a value can be, the scale begins this many times the distance from the first level to the
last below the first."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One moment, in display order. level, state: uint8[n]."""

    display: Display
    picture: Picture
    level: U8
    state: U8


class Painter:
    """Makes Shown after Shown of one display; keeps the level shown before."""

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
        # level = value * by + off, cut to 1 ... 255; without a scale it is the middle. Half a step is in the offset:
        # cutting off is rounding.
        by = LEVEL_STEPS / np.where(sound, width, 1.0)
        self._by = np.where(sound, sign * by, 0.0)
        self._off = np.where(sound, 1.5 - np.where(sound, low, 0.0) * by, 128.0)
        n = len(points)
        self._video = np.zeros(n, np.bool_)
        self._video[display.number] = display.video
        self._level = np.zeros(n, np.uint8)
        self._nobody = np.zeros(n, np.bool_)

    def paint(self, picture: Picture, taken: Bool | None = None, loop: bool = IS_COMPILED) -> Shown:
        """``taken`` bool[points]: alerts of them are acknowledged or silenced; ``loop``: else in columns."""
        number = self._display.number
        scale = picture.value, self._by, self._off, self._level
        said = (
            picture.value, picture.flag, picture.silent, picture.severity, picture.fault,
            self._nobody if taken is None else taken, self._video,
        )  # fmt: skip
        if not loop:
            _move(*scale)
            return Shown(self._display, picture, self._level.take(number), _states(*said).take(number))
        state, shown = np.empty(len(self._level), np.uint8), np.empty((2, len(number)), np.uint8)
        _level_loop(*scale)
        _state_loop(*said, state)
        _gather_loop(number, self._level, shown[0])
        _gather_loop(number, state, shown[1])
        return Shown(self._display, picture, shown[0], shown[1])


def warm() -> None:
    """Compile the loops, or load them as they were compiled before."""
    real, byte, yes = np.zeros(1), np.zeros(1, np.uint8), np.zeros(1, np.bool_)
    _level_loop(real, real, real, byte)
    _state_loop(real, byte, yes, byte, yes, yes, yes, byte.copy())
    _gather_loop(np.zeros(1, np.int32), byte, byte.copy())


# Without a branch on data, in 32 bits: else they would not become vector instructions, and take three times as long.


@compiled
def _level_loop(value: F64, by: F64, off: F64, level: U8) -> None:
    """All [points]; ``level`` as shown before becomes that of now."""
    for p in range(len(value)):
        place = value[p] * by[p] + off[p]
        place = place if place > LEVEL_LOW else LEVEL_LOW
        place = place if place < LEVEL_HIGH else LEVEL_HIGH
        now, before = np.int32(place), np.int32(level[p])
        there = now if before == 0 or abs(now - before) >= LEVEL_STEP else before
        level[p] = 0 if value[p] != value[p] else there


@compiled
def _state_loop(
    value: F64, flag: U8, silent: Bool, severity: U8, fault: Bool, taken: Bool, video: Bool, state: U8
) -> None:
    """All [points]; ``state`` is written."""
    for p in range(len(value)):
        offline = silent[p] | (video[p] & (value[p] == 0.0))
        doubtful, never = flag[p] >= SUSPECT, value[p] != value[p]
        state[p] = (
            severity[p]
            | np.uint8(offline) << _OFFLINE
            | np.uint8(doubtful) << _DOUBTFUL
            | np.uint8(taken[p]) << _TAKEN
            | np.uint8(never) << _NO_VALUE
            | np.uint8(fault[p]) << _FAULT
        )


@compiled
def _gather_loop(number: I32, plane: U8, shown: U8) -> None:
    for k in range(len(number)):
        shown[k] = plane[unsigned(number[k])]


def _move(value: F64, by: F64, off: F64, level: U8) -> None:
    """The same bits as _level_loop, without a compiler."""
    with np.errstate(over="ignore", invalid="ignore"):
        now = np.clip(value * by + off, LEVEL_LOW, LEVEL_HIGH).astype(np.uint8)
    # Modulo 256 one comparison finds both directions.
    there = np.where((level == 0) | (now - level + np.uint8(1) > LEVEL_STEP), now, level)
    np.multiply(there, ~np.isnan(value), out=level)


def _states(value: F64, flag: U8, silent: Bool, severity: U8, fault: Bool, taken: Bool, video: Bool) -> U8:
    """The same bits as _state_loop, without a compiler."""
    state = severity.copy()
    # Of the QARTOD flags the doubtful ones are the greatest; 0 is none yet.
    for shift, where in (
        (_DOUBTFUL, flag >= SUSPECT), (_OFFLINE, silent | (video & (value == 0.0))), (_NO_VALUE, np.isnan(value)),
        (_FAULT, fault), (_TAKEN, taken),
    ):  # fmt: skip
        state |= where.view(np.uint8) << shift
    return state


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
