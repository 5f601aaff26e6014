"""A tiny case from end to end: a real engine, everything on, and every figure of it a figure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench import markdown, tables
from bench.case import load_cases
from bench.end_to_end import measure, summary
from bench.rig import mosquitto
from ingest import kernelcache
from tests.engines import run_yuzui


def machine_code() -> set[tuple[str, int]]:
    """Names and times of what numba keeps for engines; what bench/load compiles is the generator's."""
    kept = kernelcache.folder()
    found = (
        []
        if kept is None
        else [path for path in kept.rglob("*.nb?") if not path.parent.name.startswith("load_")]
    )
    return {(str(path), path.stat().st_mtime_ns) for path in found}


def test_a_tiny_case_loses_nothing_and_measures_everything(tmp_path: Path) -> None:
    """Through mosquitto where there is one: then every instrument is at work."""
    through = "mosquitto" if mosquitto() else "listener"
    (case_file := tmp_path / "tiny.toml").write_text(
        f'title = "tiny"\npoints = 500\nconnections = 5\nqos = 1\nrate = 1000\nseconds = 3\nthrough = "{through}"\n'
        "seal_s = 1\npulses = 50\nalerts_per_s = 10\npast_hour_s = 1\n"
        "[target]\nlost_max = 0\ncpu_us_max = 1e9\nreadings_per_s_min = 1e9\n"
    )
    (case,) = load_cases(case_file)
    assert run_yuzui("warm", "-q", timeout_s=300.0).returncode == 0
    warm = machine_code()
    result = measure(case, tmp_path / "case", tmp_path, print)
    print(summary(result))
    assert machine_code() == warm, "compiled while readings came: `yuzui warm` should have done it"
    assert (result.lost, result.surplus, result.wrong) == (0, 0, 0)
    assert result.stored >= result.sent > 1_500
    assert result.cpu_us > 0
    assert result.peak_mb > 50
    assert {"cli", "sealing", "delivering"} <= result.cpu_us_by_process.keys()
    for what in ("journal", "query", "webhook"):
        p50, p99 = (getattr(result, f"{what}_p{q}_s") for q in (50, 99))
        assert 0 < p50 <= p99, what
    assert 1 <= result.webhooks <= result.alerts_raised
    assert {name: t["met"] for name, t in result.targets.items()} == {
        "lost_max": True, "cpu_us_max": True, "readings_per_s_min": False,
    }  # fmt: skip
    assert (result.broker_cpu_us is None) == (through == "listener")
    assert result.compacted_rows > 1_500, result.faults
    assert not (tmp_path / "case").exists()


def test_results_become_tables_and_a_headline(tmp_path: Path) -> None:
    shutil.copytree(
        Path(markdown.README).parent, tmp_path / "bench", ignore=shutil.ignore_patterns("*.py", "load")
    )
    result = json.loads(
        json.dumps({
            "title": "t", "readings_per_s": 1_100_000, "cpu_us": 0.7, "compact_us": 0.1, "cpu_cores": 0.5,
            "peak_mb": 300.0, "journal_p50_s": 0.01, "journal_p99_s": 0.02, "query_p50_s": 1.0, "query_p99_s": 1.5,
            "webhook_p50_s": 0.1, "webhook_p99_s": 0.2, "lost": 0, "surplus": 0, "wrong": 0,
            "generator_cpu_us": 0.1, "generator_busy_share": 0.1,
            "broker_cpu_us": None, "sent": 10, "stored": 10, "quiet": False, "others_cores": 1.5, "start_s": 2.0,
            "checks": ["score"], "rules": ["rain"],
        })
    )  # fmt: skip
    on = {"cores": 2, "cpu": "x", "versions": {"Python": "3"}, "commit": "abc"}
    dated = {"at": "2026-11-27T00:00:00", "machine": on}
    results = {
        "listener-qos0": result | dated, "city": result | dated, "points-116200": result,
        "points-1000000": result | {"cpu_us": 1.4},
        "peer-aiomqtt": {"name": "aiomqtt", "rate": 5e3, "sent": 5, "received": 5, "cpu_us": 28.0, "cpu_s": 1.0},
    }  # fmt: skip
    readme = tmp_path / "bench" / "README.md"
    markdown.publish(results, readme)
    text = readme.read_text()
    assert "| QoS 0, one reading a message: readings/s | 1,100,000 | ≥ 1,000,000 | yes |" in text
    assert "over that of 116,200 | 2 | ≤ 1.5 | **no** |" in text
    assert "| aiomqtt | 5,000 | 5 of 5 | 28.0 | 40.0 |" in text
    assert "Other work used this machine during `listener-qos0`" in text
    found = tables.headline(results)
    assert (found["lost"], found["times_less_cpu_than_aiomqtt"], found["million_points_cost_ratio"]) == (
        0,
        40.0,
        2.0,
    )
    assert found["quiet"] is False
    assert json.loads(json.dumps(found)) == found
    tables.for_people(results)
    markdown.publish(results, readme)
    assert readme.read_text() == text, "a second time changes nothing"
    with pytest.raises(ValueError, match="no marks"):
        markdown.between("text", "cases", "")
