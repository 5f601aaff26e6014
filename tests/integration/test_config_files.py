"""The configs that are shipped pass `yuzui check` as a person runs it, and the smallest one runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.engines import ROOT, yuzui_here


def test_the_smallest_config_is_right_once_it_has_a_point(tmp_path: Path) -> None:
    """configs/first.toml, its data folder and ports from the environment."""
    env = {"YUZUI_DATA": str(tmp_path / "data"), "YUZUI_PORT": "18830", "YUZUI_OPS_PORT": "18831"}
    config = ("-c", str(ROOT / "configs" / "first.toml"))
    missing = yuzui_here("check", *config, env=env)
    assert missing.returncode == 2
    assert "points.csv" in missing.stderr
    point = ("--point-id", "p", "--source", "mine", "--kind", "river_level", "--topic", "site/gw1/p")
    assert yuzui_here("points", "add", *config, *point, env=env).returncode == 0
    right = yuzui_here("check", *config, env=env)
    assert right.returncode == 0, right.stderr
    assert "1 points of 1 kinds" in right.stdout
    assert "127.0.0.1:18830" in right.stdout
    assert str(tmp_path / "data") in right.stdout


def test_the_demo_city_is_right_with_a_generated_registry(tmp_path: Path) -> None:
    """configs/chengdu/yuzui.toml and its drop-in kinds, with 3,000 generated points: no fault, every kind known."""
    points = tmp_path / "points.parquet"
    made = yuzui_here("points", "generate", "--points", "3000", "--out", str(points))
    assert made.returncode == 0, made.stderr
    env = {"YUZUI_POINTS": str(points), "YUZUI_DATA": str(tmp_path / "data")}
    told = yuzui_here("check", "-c", str(ROOT / "configs" / "chengdu" / "yuzui.toml"), "--json", env=env)
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    assert (found["points"], found["faults"], len(found["sources"])) == (3000, 0, 6)
    assert len(found["kinds"]) > 20


def test_the_sample_with_every_option_is_right(tmp_path: Path) -> None:
    """configs/sample.toml beside a registry of its source."""
    shutil.copy(ROOT / "configs" / "sample.toml", tmp_path / "sample.toml")
    (tmp_path / "points.csv").write_text(
        "point_id,source,kind,topic,gateway_id\np1,chengdu-flood,waterlogging,cd/gw1/p1,gw1\n"
    )
    told = yuzui_here("check", "-c", str(tmp_path / "sample.toml"), "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    assert (found["points"], found["faults"]) == (2, 0), "one of the registry, one of [source.devices]"
    assert (found["sources"], found["subscribers"], found["webhooks"]) == (
        ["chengdu-flood", "hotline-12345"], ["city-broker"], ["duty-room"],
    )  # fmt: skip
