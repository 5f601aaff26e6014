"""Why a reading was judged as it was: the engine run again over a point's stored readings, up to one moment.

Owns that run for a single point. Stored flags are never changed by it, and limits are those of the config as it is
now: where they were changed since, the answer says what would be said today.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from anomaly.checks import all_checks
from anomaly.checks.rows import Rows
from anomaly.engine import Engine
from anomaly.localtime import WallClock
from anomaly.rules import row_rules
from ingest.config import Config
from storage import pointmap, query
from storage.batch import RawBatch
from storage.flags import CHECK_BITS, GOOD, bit
from storage.points import PointTable

WINDOW_H: Final = 26
"""What judgement of a moment leans on, but for what is learned over days: rain of 24 h, and the hour before."""


class NoReadings(Exception):  # noqa: N818 - says what is wrong
    """There is nothing to explain; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check or rule said of the reading.

    objects  class: 0 nothing, 1 or 1-4
    value    the number judged; the reading itself for a check; NaN where nothing is known
    limit    the limit it stands in or nears; NaN where there is none
    """

    name: str
    title: str
    objects: int
    value: float
    limit: float
    unit: str


@dataclass(frozen=True, slots=True)
class Explained:
    """The newest reading at or before the moment asked for, and what was said of it.

    time, received_at  µs since 1970 UTC
    flag, checks       as stored
    held_to            limits of the point by name, those that are numbers
    seen               readings the run began with
    """

    point_id: str
    time: int
    received_at: int
    value: float
    flag: int
    checks: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    held_to: dict[str, float]
    seen: int


def explain(config: Config, point_id: str, moment: datetime) -> Explained:
    """Judge the point's readings of the WINDOW_H before ``moment`` (with an offset) again.

    Raises NoReadings where the lake knows no such point or has none of its readings then.
    """
    root = Path(config.data.dir)
    points = _one(root, point_id)
    table = _history(root, point_id, moment)
    if table.is_empty():
        raise NoReadings(f"{point_id} has no readings in the {WINDOW_H} hours before {moment.isoformat()}")
    raw = _raw(table)
    zone, rules = config.city.time_zone, config.rules.model_dump()
    engine = Engine(points, config.kinds, config.checks, clock="events", time_zone=zone, rules=rules)
    before, newest = np.arange(len(raw) - 1), np.array([len(raw) - 1])
    engine.judge(raw.take(before), before)
    last = table.row(-1, named=True)
    stored = int(last["checks"])
    return Explained(
        point_id,
        int(raw.time[-1]),
        int(raw.received_at[-1]),
        float(raw.value[-1]),
        int(last["flag"]),
        tuple(name for name in CHECK_BITS if stored & bit(name)),
        tuple(_verdicts(engine, raw.take(newest), WallClock(zone))),
        _held_to(engine),
        len(raw),
    )


def _one(root: Path, point_id: str) -> PointTable:
    """The registry with this point alone."""
    known = pointmap.load(root)
    if known is None:
        raise NoReadings(f"no points in {root}: start the engine once")
    frame = pl.from_arrow(known)
    assert isinstance(frame, pl.DataFrame)
    own = frame.filter(pl.col("point_id") == point_id).sort("valid_to").tail(1)
    if own.is_empty():
        raise NoReadings(f'no point "{point_id}"')
    alone = own.with_columns(point=pl.lit(0, pl.Int32), upstream=pl.lit(None, pl.String))
    return pointmap.point_table(alone.to_arrow().cast(known.schema))


def _history(root: Path, point_id: str, moment: datetime) -> pl.DataFrame:
    con = query.connect(root)
    query.refresh(con, root)
    found: pa.Table = con.sql(
        f"""
        SELECT epoch_us(time) AS time, epoch_us(coalesce(received_at, time)) AS received_at, value, flag, checks
        FROM history($point, $moment::TIMESTAMPTZ - INTERVAL {WINDOW_H} HOUR, $moment::TIMESTAMPTZ + INTERVAL 1 SECOND)
        WHERE time <= $moment::TIMESTAMPTZ ORDER BY time
        """,
        params={"point": point_id, "moment": moment.isoformat()},
    ).to_arrow_table()
    frame = pl.from_arrow(found)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _raw(table: pl.DataFrame) -> RawBatch:
    checks = table["checks"].to_numpy()
    # What the device said is not kept in a column of the view; where it objected, its flag stands.
    device = np.where(checks & bit("device"), table["flag"].to_numpy(), 0).astype(np.uint8)
    return RawBatch(
        np.zeros(len(table), np.int32),
        table["time"].to_numpy().astype(np.int64),
        table["received_at"].to_numpy().astype(np.int64),
        table["value"].fill_null(np.nan).to_numpy().astype(np.float64),
        device,
    )


def _verdicts(engine: Engine, newest: RawBatch, wall: WallClock) -> list[Verdict]:
    """Every check and rule on one row, as it stands after all rows before it."""
    state, point, value = engine.state.arrays(), newest.point, float(newest.value[0])
    found: list[Verdict] = []
    if np.isnan(value):
        return found
    alone = Rows.alone(point, newest.time, newest.value)
    rows = Rows.grouped(point, newest.time, newest.value, state)
    rows.utc_offset_us = wall.offset_us(newest.time)
    doubted = False
    for check in all_checks():
        objects = int(check.judge(rows if check.stateful else alone, engine.limits, state)[0])
        doubted |= bool(objects) and check.flag != GOOD and not check.stateful
        found.append(Verdict(check.name, "", objects, value, float("nan"), engine.points.unit[0]))
    for rule in row_rules() if not doubted else ():
        said = rule.judge(rows, engine.limits, state)
        if said.classes[0] or not np.isnan(said.value[0]):
            numbers = int(said.classes[0]), float(said.value[0]), float(said.limit[0])
            found.append(Verdict(rule.name, f"{rule.title_zh} {rule.title_en}", *numbers, rule.unit))
    return found


def _held_to(engine: Engine) -> dict[str, float]:
    """The numbers this point is held to. Limits are arrays whose last axis is the point, which is the only one."""
    held: dict[str, float] = {}
    for name, array in sorted(engine.limits.items()):
        if array.dtype == np.bool_ or array.shape[-1:] != (1,):
            continue
        for at, number in enumerate(np.ravel(array[..., 0]).astype(np.float64).tolist()):
            if np.isfinite(number) and abs(number) < 1 << 59:
                held[name if array.ndim == 1 else f"{name}[{at}]"] = number
    return held


def as_json(found: Explained) -> dict[str, Any]:
    """For --json."""
    return {
        "point_id": found.point_id, "time": found.time, "received_at": found.received_at, "value": found.value,
        "flag": found.flag, "checks": found.checks, "seen": found.seen, "held_to": found.held_to,
        "verdicts": [
            {"name": v.name, "class": v.objects, "value": v.value, "limit": v.limit, "unit": v.unit}
            for v in found.verdicts
        ],
    }  # fmt: skip
