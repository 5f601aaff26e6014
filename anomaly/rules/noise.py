"""Noise: equivalent levels by day and night against the limit of each point's functional zone.

Owns the averaging: readings are averaged by energy over fixed spans, each judged by the first reading after it. A
point that reports less often than that already sends averages, and each reading is judged itself. By night a single
reading above the limit plus the peak allowance stands in blue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks.rows import F64, I64, U8, Arrays, Bool, Index, Rows
from anomaly.rules.base import Assessed, RowRule
from anomaly.rules.blocks import DB_MAX, Settled, block_fields, goes_on, said_again, settled
from anomaly.rules.parts import (
    LEVELS,
    Part,
    latched,
    local,
    nothing,
    of_kinds,
    part_of,
    rule_settings,
    spread,
)
from anomaly.rules.tables import entries
from storage.fast import compiled, unsigned
from storage.points import PointTable

HOUR_US: Final = 3_600_000_000
GAP_DB: Final = 1.0
"""A step is left this much below it: what is judged changes only every few minutes, and should not flap."""
STALE_SPANS: Final = 2
"""An average that ended longer ago says nothing of now."""


def _settings(
    points: PointTable, kinds: Mapping[str, Any], rules: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """noise_point bool, noise_slow bool, noise_day and noise_night float64 dB(A), all [points]; noise_leq_us int64[1];
    noise_above float64[4] dB.
    """
    settings = rule_settings(rules)
    zones = {entry["name"]: entry for entry in entries("noise", "zone")}
    of_kind = [zones.get(settings.noise.zones.get(name, "")) for name in points.kinds] or [None]
    day = np.array([zone["day"] if zone else np.nan for zone in of_kind])[points.kind]
    night = np.array([zone["night"] if zone else np.nan for zone in of_kind])[points.kind]
    number = points.number_of() if settings.point else {}
    measures = of_kinds(points, settings.noise.zones)
    for point_id, own in settings.point.items():
        if own.noise_zone is not None and point_id in number:
            at = number[point_id]
            day[at], night[at] = zones[own.noise_zone]["day"], zones[own.noise_zone]["night"]
            measures[at] = not points.retired[at]
    return {
        "noise_point": measures,
        "noise_slow": points.interval_s >= settings.noise.leq_s,
        "noise_day": day,
        "noise_night": night,
        "noise_leq_us": np.array([settings.noise.leq_s * 1_000_000], np.int64),
        "noise_above": np.array(settings.noise.above_db),
    }


def by_night(local_time: I64) -> Bool:
    """Night by the city's clock, bool[m].

    >>> by_night(np.array([21, 22, 5, 6]) * HOUR_US).tolist()
    [False, True, True, False]
    """
    night = entries("noise", "night")[0]
    hour = local_time // HOUR_US % 24
    found: Bool = (hour >= night["from_h"]) | (hour < night["to_h"])
    return found


def noise(rows: Rows, limits: Arrays, state: Arrays) -> Assessed:
    """How far the newest complete average stands above the limit of its time; its level in dB(A); that limit."""
    part = part_of(rows, limits["noise_point"])
    if part is None:
        return nothing(len(rows))
    clock = local(rows, part)
    span_us = limits["noise_leq_us"][0]
    block = clock // span_us
    energy = np.rint(10.0 ** (np.clip(part.value, 0.0, DB_MAX) / 10.0)).astype(np.int64)
    place = state["noise_point_place"][part.points]
    slow = part.each(limits["noise_slow"])
    said = None if slow.any() else said_again(part, block, energy, state, "noise", place)
    if said is None:
        mean = settled(part, block, energy, state, "noise", place)
        level, limit = _levels(part, clock, mean, limits)
        enter = _above(level - limit, limits["noise_above"])
        stay = _above(level - limit + GAP_DB, limits["noise_above"])
        said = latched(enter, stay, state["noise_latch"][place], part), level, limit
        mean.keep(state, "noise", *said)
    peak_at = part.each(limits["noise_night"]) + entries("noise", "night")[0]["peak_above"]
    loud = part.value > peak_at
    if loud.any():
        classes, value, limit = said
        peak = loud & by_night(clock) & (classes == 0)
        said = (
            np.where(peak, np.uint8(1), classes),
            np.where(peak, part.value, value),
            np.where(peak, peak_at, limit),
        )
    return spread(len(rows), part, *said)


def _loop(rows: Rows, limits: Arrays, state: Arrays) -> Assessed | None:
    mask = limits["noise_point"]
    if _any_of(rows.point, mask, limits["noise_slow"]):
        return None
    said = goes_on(
        rows, mask, int(limits["noise_leq_us"][0]), state, "noise", state["noise_point_place"], energy=True
    )
    if said is not None and len(said.classes) and said.classes.flags.writeable:
        night = entries("noise", "night")[0]
        rules = night["from_h"], night["to_h"], float(night["peak_above"])
        columns = rows.point, rows.time, rows.value, mask, limits["noise_night"]
        _peaks(*columns, rows.utc_offset_us, *rules, said.classes, said.value, said.limit)
    return said


@compiled
def _any_of(point: Index, mask: Bool, slow: Bool) -> bool:
    found = False
    for i in range(len(point)):
        found = found or (mask[unsigned(point[i])] and slow[unsigned(point[i])])
    return found


@compiled
def _peaks(
    point: Index,
    time: I64,
    value: F64,
    mask: Bool,
    night: F64,
    offset_us: int,
    from_h: int,
    to_h: int,
    peak_above: float,
    classes: U8,
    said: F64,
    said_limit: F64,
) -> None:
    for i in range(len(point)):
        p = unsigned(point[i])
        if not mask[p] or classes[i] != 0:
            continue
        peak_at = night[p] + peak_above
        hour = (time[i] + offset_us) // HOUR_US % 24
        if value[i] > peak_at and (hour >= from_h or hour < to_h):
            classes[i], said[i], said_limit[i] = 1, value[i], peak_at


def _levels(part: Part, clock: I64, mean: Settled, limits: Arrays) -> tuple[F64, F64]:
    """The level in dB(A) that each row is judged by, and the limit of that time; NaN where nothing is known."""
    span_us = limits["noise_leq_us"][0]
    known = (mean.count > 0) & (mean.block >= clock // span_us - STALE_SPANS)
    # To a hundredth, so that no last bit of a logarithm decides.
    average = np.round(10.0 * np.log10(np.maximum(mean.sum, 1) / np.maximum(mean.count, 1)), 2)
    slow = part.each(limits["noise_slow"])
    level = np.where(slow, part.value, np.where(known, average, np.nan))
    at = np.where(slow, clock, mean.block * span_us)
    day, night = part.each(limits["noise_day"]), part.each(limits["noise_night"])
    return level, np.where(np.isnan(level), np.nan, np.where(by_night(at), night, day))


def _above(excess: F64, above: F64) -> U8:
    """Class 0-4 of an excess in dB, uint8[m]; NaN is 0. A limit is kept up to and with its own value."""
    found = np.zeros(len(excess), np.uint8)
    for k in range(LEVELS):
        found += excess > above[k]
    return found


RULES = (
    RowRule(
        "noise",
        _settings,
        noise,
        block_fields("noise", "noise_point"),
        unit="dB(A)",
        title_zh="噪声等效声级",
        title_en="equivalent noise level",
        loop=_loop,
        of="noise_point",
    ),
)
