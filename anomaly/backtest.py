"""Backtest: the same engine over recorded readings, as fast as the machine goes.

Owns the order in which a recording is fed, the TICKs in between and where each row's findings go. Knows nothing of
files. A recording is judged as if every reading had come when it was measured, so nothing in it is late; the result
depends on the rows alone, never on the machine or its clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from anomaly.alerts.event import AlertEvent
from anomaly.checks.rows import fill_forward
from anomaly.engine import Engine
from anomaly.settings import CheckSettings, KindSettings
from storage.batch import F32, F64, I32, I64, U8, U32, US_PER_S, RawBatch, ReadingBatch
from storage.flags import NOT_EVALUATED, bit
from storage.points import PointTable

ROWS_PER_BATCH: Final = 200_000
TICK_US: Final = 10 * US_PER_S
"""Between two TICKs: the shortest time after which a rule across points is asked again. Spans without readings have
none; what ended in such a span is said at the first TICK after it."""
UNKNOWN_KIND: Final = "unknown"


@dataclass(slots=True)
class Findings:
    """Per row of the recording, in its order; and the alert events in theirs."""

    flag: U8
    checks: U32
    score: F32
    events: list[AlertEvent]


def unknown_points(point_ids: Sequence[str]) -> PointTable:
    """Points of which nothing but the name is known: no limits, no place, no interval, one gateway."""
    n = len(point_ids)
    nothing, zeros = np.full(n, np.nan), np.zeros(n, np.int32)
    return PointTable(
        point_id=list(point_ids),
        name=list(point_ids),
        device_id=[""] * n,
        topic=[""] * n,
        unit=[""] * n,
        gateway=zeros,
        source=zeros,
        kind=zeros,
        district=zeros,
        gateways=[""],
        sources=[""],
        kinds=[UNKNOWN_KIND],
        districts=[""],
        lon=nothing,
        lat=nothing,
        interval_s=np.zeros(n),
        time_from=np.zeros(n, np.uint8),
        range_min=nothing,
        range_max=nothing,
        level=np.full((4, n), np.nan),
        level_gap=nothing,
        falling=np.zeros(n, np.bool_),
        upstream=np.full(n, -1, np.int32),
        retired=np.zeros(n, np.bool_),
    )


def backtest(
    points: PointTable,
    point: I32,
    time: I64,
    value: F64,
    *,
    kinds: Mapping[str, KindSettings],
    checks: CheckSettings,
    rules: Mapping[str, Any],
    time_zone: str,
    alerts: bool = True,
) -> Findings:
    """Judge n readings in order of time; rows of one instant stay in their order.

    point   int32[n], numbers of ``points``
    time    int64[n], µs since 1970 UTC
    value   float64[n], NaN is missing
    alerts  False leaves out the TICKs, and with them dead points, outages and rules across points: flags and scores
            are the same, and come sooner

    A row that says again what the point said at that very instant gets what the first one got.
    """
    engine = Engine(points, kinds, checks, clock="events", rules=rules, time_zone=time_zone)
    order = np.argsort(time, kind="stable")
    flag = np.full(len(order), NOT_EVALUATED, np.uint8)
    bits = np.full(len(order), bit("not_evaluated"), np.uint32)
    score = np.zeros(len(order), np.float32)
    judged = np.zeros(len(order), np.bool_)
    events: list[AlertEvent] = []

    def keep(batch: ReadingBatch) -> None:
        flag[batch.pos], bits[batch.pos], score[batch.pos] = batch.flag, batch.checks, batch.score
        judged[batch.pos] = True

    for row in _cuts(time[order], order, alerts):
        said = np.zeros(len(row), np.uint8)
        found = engine.judge(
            RawBatch(point[row], time[row], time[row], value[row], said), row.astype(np.int64)
        )
        keep(found.main)
        keep(found.late)
        events += found.events
        if alerts:
            events += engine.tick(int(time[row[-1]]))
            engine.take_forecasts()
    _repeat(point, time, judged, (flag, bits, score))
    return Findings(flag, bits, score, events)


def _cuts(time: I64, order: np.ndarray, alerts: bool) -> Iterator[np.ndarray]:
    """Rows of the recording for one batch after the other; ``time`` is that of ``order``."""
    if alerts and len(order):
        borders = np.flatnonzero(np.diff(time // TICK_US)) + 1
    else:
        borders = np.arange(ROWS_PER_BATCH, len(order), ROWS_PER_BATCH)
    for part in np.split(order, borders) if len(order) else []:
        for begin in range(0, len(part), ROWS_PER_BATCH):
            yield part[begin : begin + ROWS_PER_BATCH]


def _repeat(point: I32, time: I64, judged: np.ndarray, columns: tuple[np.ndarray, ...]) -> None:
    """Give rows the engine dropped as repeats what the row they repeat was given."""
    if judged.all():
        return
    twins = np.lexsort((np.arange(len(time)), time, point))
    # The first row of an instant is never a repeat, so nothing flows from one point or instant to another.
    like = twins[fill_forward(judged[twins])]
    for column in columns:
        column[twins] = column[like]
