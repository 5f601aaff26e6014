"""Recordings of real sensors as readings to replay: one function for each shape of recording.

Owns the recipes from a recording's columns to (registry rows, readings), both as tables. Knows nothing of
MQTT. Each recipe invents point ids and topics; nothing is corrected: values go out as they were sensed.

Readings have the columns point_id, time (µs, UTC), value, ordered by time and then point, each (point, time)
once. Registry rows have the columns of the registry file that they need.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

RIVER_MISSING = -9999.0
"""How these loggers write "no value": declare it as missing_values of the source."""
RIVER_INTERVAL_S = 900.0
FLOOD_LEVELS_CM = {"level_blue": 10.0, "level_yellow": 15.0, "level_orange": 25.0, "level_red": 30.0}
"""15 cm: common practice. 25 cm: roads are closed. 30 cm: painted at underpasses. 10 cm: early notice."""
FLOOD_GAP_CM = 2.0
SOURCE = "recording"
GATEWAY = "replay"


def from_rivers(recording: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """River water, a Parquet with site, property, unit, time, value (every 15 minutes).

    Points are ``logan-SITE-PROPERTY`` in lower case. -9999 stays as it is. Raises OSError, polars errors.
    """
    table = pl.read_parquet(recording, columns=["site", "property", "unit", "time", "value"]).with_columns(
        point_id=pl.format(
            "logan-{}-{}", pl.col("site").str.to_lowercase(), pl.col("property").str.to_lowercase()
        )
    )
    points = (
        table.group_by("point_id")
        .agg(pl.col("site", "property", "unit").first())
        .sort("point_id")
        .select(
            "point_id",
            name=pl.format("{} {}", "site", "property"),
            device_id=pl.format("logan-{}", pl.col("site").str.to_lowercase()),
            kind=pl.format("river_{}", "property"),
            unit="unit",
            expected_interval_s=pl.lit(RIVER_INTERVAL_S),
        )
    )
    return _registry(points, "river"), _readings(table)


def from_floods(recording: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Street floods, a Parquet of events with sensor_id, start, seconds[] and depth_cm[] (about a minute).

    Points are ``flood-SENSOR``; depth in cm with the limits FLOOD_LEVELS_CM. The recording's times have no
    zone and are taken as UTC. Between events these sensors say nothing, so their interval is 0 (never dead).
    Where two events of a sensor touch, the later event's reading stands. Raises OSError, polars errors.
    """
    events = pl.read_parquet(recording)
    table = (
        events.sort("start")
        .select("sensor_id", "start", "seconds", value="depth_cm")
        .explode("seconds", "value")
        .with_columns(
            point_id=pl.format("flood-{}", pl.col("sensor_id").str.to_lowercase()),
            time=(
                pl.col("start") + pl.duration(microseconds=(pl.col("seconds") * 1e6).round())
            ).dt.replace_time_zone("UTC"),
        )
    )
    points = (
        events.group_by("sensor_id")
        .agg(pl.col("longitude", "latitude").first())
        .with_columns(point_id=pl.format("flood-{}", pl.col("sensor_id").str.to_lowercase()))
        .sort("point_id")
        .select(
            "point_id",
            name="sensor_id",
            device_id="point_id",
            kind=pl.lit("street_flood"),
            unit=pl.lit("cm"),
            lon="longitude",
            lat="latitude",
            expected_interval_s=pl.lit(0.0),
            range_min=pl.lit(0.0),
            range_max=pl.lit(500.0),
            **{name: pl.lit(level) for name, level in FLOOD_LEVELS_CM.items()},
            level_gap=pl.lit(FLOOD_GAP_CM),
        )
    )
    return _registry(points, "flood"), _readings(table)


def load_readings(recording: Path) -> pl.DataFrame:
    """A Parquet or CSV with point_id, time and value as readings.

    A CSV's times are ISO 8601, with an offset or in UTC; a Parquet's without a zone are UTC. A missing value
    is null. Raises ValueError naming missing columns or a time that is none, OSError, polars errors.
    """
    table = (
        pl.read_parquet(recording)
        if recording.suffix == ".parquet"
        # An id that looks like a number is still a name: 007 is not 7.
        else pl.read_csv(recording, infer_schema_length=None, schema_overrides={"point_id": pl.String})
    )
    if missing := [name for name in ("point_id", "time", "value") if name not in table.columns]:
        raise ValueError(f"{recording}: no column {', '.join(missing)}")
    if table["time"].dtype == pl.String:
        table = table.with_columns(pl.col("time").str.to_datetime(time_unit="us", time_zone="UTC"))
    elif not isinstance(table["time"].dtype, pl.Datetime):
        raise ValueError(f"{recording}: time: expected ISO 8601 or timestamps, got {table['time'].dtype}")
    elif table["time"].dtype.time_zone is None:
        table = table.with_columns(pl.col("time").dt.replace_time_zone("UTC"))
    return _readings(table)


def _registry(points: pl.DataFrame, district: str) -> pl.DataFrame:
    return points.with_columns(
        gateway_id=pl.lit(GATEWAY),
        source=pl.lit(SOURCE),
        district=pl.lit(district),
        topic=pl.format(f"{SOURCE}/{{}}", "point_id"),
        time_from=pl.lit("device"),
    )


def _readings(table: pl.DataFrame) -> pl.DataFrame:
    return (
        table.select(
            pl.col("point_id").cast(pl.String),
            pl.col("time").dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC")),
            pl.col("value").cast(pl.Float64),
        )
        .unique(("point_id", "time"), keep="last", maintain_order=True)
        .sort("time", "point_id")
    )
