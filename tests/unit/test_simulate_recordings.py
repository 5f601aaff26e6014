"""Claims about recordings: values as sensed, each key once, in order; and what a replay sends of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ingest.simulate.fleet import load_fleet
from ingest.simulate.recordings import RIVER_MISSING, from_floods, from_rivers, load_readings
from ingest.simulate.replay import load_course, payload

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
RIVERS = SHARED / "logan-river" / "readings.parquet"
FLOODS = SHARED / "floodnet" / "events.parquet"


@pytest.mark.shared
@pytest.mark.skipif(not RIVERS.exists(), reason="no recordings in ../shared/data")
def test_river_readings_are_all_there_as_sensed() -> None:
    points, readings = from_rivers(RIVERS)
    assert len(points) == 24
    assert points["point_id"].is_unique().all()
    assert len(readings) == len(pl.read_parquet(RIVERS)) == readings.select("point_id", "time").n_unique()
    assert readings.filter(pl.col("value") == RIVER_MISSING).height > 100
    assert set(readings["point_id"].unique()) == set(points["point_id"])
    assert readings["time"].is_sorted()


@pytest.mark.shared
@pytest.mark.skipif(not FLOODS.exists(), reason="no recordings in ../shared/data")
def test_street_floods_have_limits_and_each_depth_once() -> None:
    points, readings = from_floods(FLOODS)
    assert len(points) == 78
    assert points["level_yellow"].unique().to_list() == [15.0]
    assert readings.select("point_id", "time").n_unique() == len(readings)
    assert readings["time"].is_sorted()
    assert float(readings["value"].max()) == pytest.approx(103.81)  # type: ignore[arg-type]
    assert (points["expected_interval_s"] == 0).all()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_recording_of_our_own_shape_is_read_from_csv_and_parquet(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame(
        {
            "point_id": ["b", "a", "a"],
            "time": ["2025-07-01T10:00:01Z", "2025-07-01T10:00:00.5Z", "2025-07-01T10:00:00.5Z"],
            "value": [1.5, 2.0, 3.0],
        }
    )
    file = tmp_path / f"r.{suffix}"
    if suffix == "csv":
        table.write_csv(file)
    else:
        table.with_columns(
            pl.col("time").str.to_datetime(time_zone="UTC").dt.replace_time_zone(None)
        ).write_parquet(file)
    readings = load_readings(file)
    assert readings.rows() == [
        ("a", datetime(2025, 7, 1, 10, 0, 0, 500_000, UTC), 3.0),
        ("b", datetime(2025, 7, 1, 10, 0, 1, 0, UTC), 1.5),
    ]


def test_a_recording_without_its_columns_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("point_id,value\na,1\n")
    with pytest.raises(ValueError, match="time"):
        load_readings(tmp_path / "r.csv")


def test_a_point_without_a_topic_stops_the_replay(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("point_id,kind,topic\na,k,t/a\n")
    readings = pl.DataFrame(
        {"point_id": ["a", "x"], "time": [datetime(2025, 7, 1, tzinfo=UTC)] * 2, "value": [1.0, 2.0]}
    )
    with pytest.raises(ValueError, match="x"):
        load_course(readings, load_fleet(tmp_path / "points.csv"))


@pytest.mark.parametrize("value", [0.1 + 0.2, -9999.0, 1e-300, 12345678.9, 5.0])
def test_what_is_sent_is_the_recorded_double_and_time(value: float) -> None:
    whole = json.loads(payload(1_763_876_543_210_000, value))
    assert whole == {"ts": 1_763_876_543_210, "v": value}
    fine = json.loads(payload(1_763_876_543_210_007, value))
    assert fine["v"] == value
    moment = datetime.fromisoformat(fine["ts"])
    assert int(moment.timestamp()) == 1_763_876_543
    assert moment.microsecond == 210_007


def test_a_missing_value_is_sent_as_null() -> None:
    assert json.loads(payload(1_000, np.nan))["v"] is None
