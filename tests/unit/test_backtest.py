"""`yuzui backtest`: files in, files out, the same result every time and the same as the engine's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from anomaly.backtest import backtest, unknown_points
from anomaly.settings import CheckSettings
from ingest.cli import cli
from storage.flags import FAIL, GOOD, MISSING, bit

START = "2026-01-01 00:00:00"


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["backtest", *map(str, args)])


def readings(n: int = 500, seed: int = 1, point_id: str = "a") -> pl.DataFrame:
    """A reading every five minutes, one of them far out."""
    rng = np.random.default_rng(seed)
    value = np.round(20 + rng.normal(0, 1, n), 2)
    value[n - 50] += 30
    time = pl.datetime_range(
        pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 1) + pl.duration(minutes=5 * (n - 1)), "5m", eager=True
    )
    return pl.DataFrame({"point_id": [point_id] * n, "time": time, "value": value})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_series_nobody_knows_is_judged_with_defaults(tmp_path: Path) -> None:
    given = readings().with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S"))
    given.write_csv(tmp_path / "in.csv")
    done = run("--readings", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    found = rows(tmp_path / "out.csv")
    assert list(found[0]) == ["point_id", "time", "value", "flag", "checks", "score"]
    assert found[0]["time"] == START, "as it was given"
    assert [row["value"] for row in found[:3]] == [str(v) for v in given["value"][:3]]
    assert {row["flag"] for row in found} == {str(GOOD)}
    scores = [float(row["score"]) for row in found]
    assert int(np.argmax(scores)) == 450
    assert scores[450] >= 1
    assert int(found[450]["checks"]) == bit("anomaly")
    assert "500 readings of 1 points" in done.output


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    readings().write_parquet(tmp_path / "in.parquet")
    for name in ("one.csv", "two.csv"):
        assert run("--readings", tmp_path / "in.parquet", "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def times_of(given: pl.DataFrame, form: str) -> pl.DataFrame:
    time = pl.col("time")
    return given.with_columns(
        {
            "naive text": time.dt.strftime("%Y-%m-%d %H:%M:%S"),
            "text with T and Z": time.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "text of another zone": (time + pl.duration(hours=8)).dt.strftime("%Y-%m-%dT%H:%M:%S+08:00"),
            "mixed texts": pl.when(pl.int_range(pl.len()) % 2 == 0)
            .then(time.dt.strftime("%Y-%m-%d %H:%M:%S"))
            .otherwise((time + pl.duration(hours=8)).dt.strftime("%Y-%m-%dT%H:%M:%S.0+08:00")),
            "seconds": time.dt.epoch("s"),
            "milliseconds": time.dt.epoch("ms"),
            "microseconds": time.dt.epoch("us"),
            "nanoseconds": time.dt.epoch("ns"),
            "seconds with a point": time.dt.epoch("ms") / 1000,
            "seconds as text": time.dt.epoch("s").cast(pl.String),
        }[form].alias("time")
    )


FORMS = (
    "naive text",
    "text with T and Z",
    "text of another zone",
    "mixed texts",
    "seconds",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "seconds with a point",
    "seconds as text",
)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_time_means_the_same_instant(tmp_path: Path, form: str, suffix: str) -> None:
    given = times_of(readings(), form)
    source, out = tmp_path / f"in.{suffix}", tmp_path / "out.parquet"
    given.write_csv(source) if suffix == "csv" else given.write_parquet(source)
    done = run("--readings", source, "--out", out)
    assert done.exit_code == 0, done.output
    expected = tmp_path / "expected.parquet"
    readings().write_parquet(tmp_path / "plain.parquet")
    run("--readings", tmp_path / "plain.parquet", "--out", expected)
    assert pl.read_parquet(out)["score"].equals(pl.read_parquet(expected)["score"])


def test_rows_come_out_in_the_order_they_went_in_and_points_do_not_touch(tmp_path: Path) -> None:
    """Two points, shuffled, with a missing value, a repeat and a revision of the same instant."""
    both = pl.concat([readings(seed=1), readings(seed=2, point_id="b")])
    extra = both[[10, 20]].with_columns(value=pl.Series([both["value"][10], 99.0]))
    missing = both.with_columns(value=pl.when(pl.int_range(pl.len()) == 30).then(None).otherwise("value"))
    given = pl.concat([missing, extra]).with_row_index("n")
    shuffled = given.sample(fraction=1, shuffle=True, seed=4).sort(pl.col("n") % 97)
    shuffled.drop("n").write_parquet(tmp_path / "in.parquet")
    assert run("--readings", tmp_path / "in.parquet", "--out", tmp_path / "out.parquet").exit_code == 0
    found = pl.read_parquet(tmp_path / "out.parquet").with_columns(n=shuffled["n"]).sort("n")
    assert found["value"].equals(given["value"])
    alone = tmp_path / "alone.parquet"
    readings(seed=2, point_id="b").write_parquet(tmp_path / "b.parquet")
    run("--readings", tmp_path / "b.parquet", "--out", alone)
    assert found.filter(point_id="b").head(500)["score"].equals(pl.read_parquet(alone)["score"])
    assert found["flag"][30] == MISSING
    assert found["checks"][1000] == found["checks"][10], "a repeat gets what the first one got"
    assert found["flag"].is_in([GOOD, MISSING]).all()


def test_registry_and_rules_give_limits_levels_and_alerts(tmp_path: Path) -> None:
    n = 60
    value = np.concatenate([np.full(20, 5.0), np.full(20, 32.0), np.full(20, 5.0)]) + np.arange(n) % 2
    value[5] = 900.0
    given = readings(n).with_columns(value=pl.Series(value))
    given.write_csv(tmp_path / "in.csv")
    (tmp_path / "points.csv").write_text("point_id,kind,name\na,waterlogging,人民路下穿隧道\n")
    (tmp_path / "rules.toml").write_text(
        '[city]\ntime_zone = "Asia/Shanghai"\n[kinds.waterlogging]\nunit = "cm"\nrange_max = 300.0\n'
        "level_orange = 25.0\nlevel_gap = 2.0\n"
    )
    options = ["--readings", tmp_path / "in.csv", "--points", tmp_path / "points.csv"]
    options += ["--rules", tmp_path / "rules.toml", "--out", tmp_path / "out.csv"]
    done = run(*options, "--alerts", tmp_path / "alerts.jsonl", "--json")
    assert done.exit_code == 0, done.output
    found = rows(tmp_path / "out.csv")
    assert [found[i]["flag"] for i in (4, 5)] == [str(GOOD), str(FAIL)]
    assert int(found[25]["checks"]) & bit("level")
    events = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    mine = [e for e in events if e["rule"] == "level"]
    assert [(e["type"], e["severity"], e["point_id"]) for e in mine] == [
        ("firing", 3, "a"),
        ("resolved", 3, "a"),
    ]
    assert mine[0]["at"].startswith("2026-01-01")
    assert "人民路下穿隧道" in mine[0]["summary_zh"]
    assert json.loads(done.output)["alert_events"] == len(events)
    for suffix in ("parquet", "csv"):
        assert run(*options, "--alerts", tmp_path / f"alerts.{suffix}").exit_code == 0
    assert (
        len(pl.read_parquet(tmp_path / "alerts.parquet")) == len(rows(tmp_path / "alerts.csv")) == len(events)
    )


def test_points_the_registry_does_not_know_are_judged_without_limits(tmp_path: Path) -> None:
    pl.concat([readings(), readings(point_id="007")]).write_csv(tmp_path / "in.csv")
    (tmp_path / "points.csv").write_text("point_id,range_max\na,10\n")
    done = run(
        "--readings", tmp_path / "in.csv", "--points", tmp_path / "points.csv", "--out", tmp_path / "o.csv"
    )
    assert done.exit_code == 0, done.output
    assert "1 points are not in points.csv" in done.output
    flags = {(row["point_id"], row["flag"]) for row in rows(tmp_path / "o.csv")}
    assert flags == {("a", str(FAIL)), ("007", str(GOOD))}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("time,value\n1,2\n", "no column point_id"),
        ("point_id,time,value\na,yesterday,2\n", "time"),
        ("point_id,time,value\na,,2\n", "1 rows have none"),
        ("point_id,time,value\na,2026-01-01,high\n", "value"),
    ],
)
def test_what_a_person_can_mend_is_said_in_a_line(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    done = run("--readings", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert done.exit_code != 0
    assert says in done.output
    assert not (tmp_path / "out.csv").exists()


def test_nothing_in_gives_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("point_id,time,value\n")
    done = run(
        "--readings", tmp_path / "in.csv", "--out", tmp_path / "out.csv", "--alerts", tmp_path / "a.jsonl"
    )
    assert done.exit_code == 0, done.output
    assert rows(tmp_path / "out.csv") == []


def test_the_score_sees_no_future() -> None:
    """What comes later changes nothing of what was said before."""
    rng = np.random.default_rng(8)
    n = 800
    time = 1_767_225_600_000_000 + np.arange(n, dtype=np.int64) * 300_000_000
    value = rng.normal(0, 1, n)
    value[600:] += 25

    def scores(upto: int) -> np.ndarray:
        point = np.zeros(upto, np.int32)
        found = backtest(
            unknown_points(["a"]), point, time[:upto], value[:upto],
            kinds={}, checks=CheckSettings(), rules={}, time_zone="UTC", alerts=False,
        )  # fmt: skip
        return found.score

    whole = scores(n)
    for upto in (100, 601, 700):
        assert whole[:upto].tobytes() == scores(upto).tobytes()
    assert whole[600] >= 1
