"""Devices that are out: a pole whose cameras, a station whose sensors fall silent together. Between point and gateway.

Owns which devices are judged and which are out. What counts as silence is anomaly.presence's, the comparison
anomaly.checks.absence's. A gateway that is out is the fault of its devices too, so gateways are judged first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from anomaly.checks import absence, bycode
from anomaly.checks.bycode import counted, looked_up
from anomaly.checks.rows import NO_TIME
from storage.batch import I32, I64, Bool
from storage.points import PointTable
from storage.texts import Texts

FIELDS: Final = ("back_at", "out_since")


@dataclass(slots=True)
class DevicesOut:
    """What one TICK found of devices; number 0 stands for no device and is never out.

    began, ended  bool[devices]: out since, until, this TICK
    excused       bool[points]: the device is the fault, or it is not decided yet whose fault it is
    out_points    int64[devices]: dead points of each
    last_word     int64[devices]: newest event time, µs
    """

    began: Bool
    ended: Bool
    excused: Bool
    out_points: I64
    last_word: I64


class Devices:
    """Devices with at least ``points_min`` points that can be dead; the others are judged point by point.

    of       int32[points]: the number of each point's device, 0 for none
    back_at  int64[devices]: when it was last back, µs; silence of its points is counted from there
    """

    def __init__(self, points: PointTable, expects: Bool, points_min: int) -> None:
        devices = Texts.of(points.device_id)
        some = np.flatnonzero(expects & (np.diff(devices.at) > 0))
        # One number for a device of a source; in the order of their first points.
        key = points.source[some].astype(np.int64) * len(points) + devices.codes()[some]
        _, first, which, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        large = np.flatnonzero(count >= points_min)
        large = large[np.argsort(first[large])]
        heads = some[first[large]].tolist()
        self.names = ["", *(devices[number] for number in heads)]
        twice = {name for name, count in Counter(self.names).items() if count > 1}
        for code, number in enumerate(heads, start=1):
            # An alert's identity hangs on the name.
            if self.names[code] in twice:
                self.names[code] = f"{points.sources[points.source[number]]}/{self.names[code]}"
        self.numbers = {name: code for code, name in enumerate(self.names)}
        code_of = np.zeros(len(count), np.int32)
        code_of[large] = np.arange(1, len(large) + 1)
        self.of: I32 = np.zeros(len(points), np.int32)
        self.of[some] = code_of[which]
        self._members = np.flatnonzero(self.of)
        self._of_members = self.of[self._members]
        self.back_at = np.full(len(self.names), NO_TIME, np.int64)
        self.out_since = np.full(len(self.names), NO_TIME, np.int64)

    def judge(
        self,
        silences: absence.Silences,
        heard: I64,
        steady: Bool,
        excused: Bool,
        now: int,
        share: float,
        least: int,
    ) -> DevicesOut:
        """Who is out at ``now``.

        silences  of the points, by gateway
        heard     int64[points]: newest event time
        steady    bool[points]: heard for long enough to count as back
        excused   bool[points]: its gateway is the fault, or may be
        """
        n, none = len(self.names), np.zeros(len(self.of), np.bool_)
        if n == 1:
            nobody = np.zeros(1, np.bool_)
            return DevicesOut(nobody, nobody, none, np.zeros(1, np.int64), np.full(1, NO_TIME, np.int64))
        # Of most points a device is nobody's concern: the rest of this is about the others.
        those, of = self._members, self._of_members
        expected, silent, heard = silences.expected[those], silences.silent_us[those], heard[those]
        quiet = bycode.least(of, silent, n, expected)
        own = absence.Silences(expected, silent, looked_up(quiet, of), silences.after_us[those], of, n)
        is_dead = absence.dead(own)
        held = np.zeros(n, np.bool_)
        held[of[is_dead & excused[those]]] = True
        was_out = self.out_since != NO_TIME
        last_word = bycode.newest(of, heard, n, expected)
        came = expected & steady[those] & (heard > looked_up(self.out_since, of))
        count = counted(of, expected, n)
        missing = count - counted(of, came, n)
        ended = was_out & ((missing < share * count) | (count == 0))
        began = absence.gateways_out(own, share, least) & ~was_out & ~held
        began[0] = ended[0] = False
        self.back_at[ended] = now
        self.out_since[ended] = NO_TIME
        self.out_since[began] = last_word[began]
        out = (was_out & ~ended) | began | ended
        excused = none
        excused[those] = looked_up(out, of) | absence.undecided(own)
        return DevicesOut(began, ended, excused, counted(of, is_dead, n), last_word)

    def snapshot(self) -> list[list[Any]]:
        """JSON-able, by name."""
        return [
            [name, *(int(getattr(self, field)[i]) for field in FIELDS)]
            for i, name in enumerate(self.names)
            if self.back_at[i] != NO_TIME or self.out_since[i] != NO_TIME
        ]

    def restore(self, saved: list[list[Any]]) -> None:
        """Take over what ``snapshot`` gave; devices that are gone are forgotten."""
        for name, *values in saved:
            if name in self.numbers:
                for field, value in zip(FIELDS, values, strict=True):
                    getattr(self, field)[self.numbers[name]] = value
