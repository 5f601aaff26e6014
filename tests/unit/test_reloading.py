"""A reload that somebody writes under, and one that falls over: the engine goes on with the old."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from anomaly.engine import Engine
from ingest import reloading
from ingest.config import Config
from ingest.configfile import load
from ingest.reloading import Prepared, Reloader, prepare
from storage.points import PointTable
from tests.alerts_receiving import until
from tests.engines import site_config


def make_engine(config: Config, points: PointTable) -> Engine:
    return Engine(points, config.kinds, config.checks, rules=config.rules.model_dump())


def test_all_tables_of_a_reload_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "yuzui.toml"
    first = site_config(tmp_path, {"g": ["a"]}, kinds={"a": "level"})
    second = first.replace("level_blue = 10.0", "level_blue = 11.0") + "\n[checks]\nfresh_s = 77.0\n"
    path.write_text(first)
    running = load(path)

    def saved_meanwhile(of: Path) -> Config:
        found = load(of)
        path.write_text(second)
        return found

    monkeypatch.setattr(reloading, "load", saved_meanwhile)
    ready = prepare(path, running, tmp_path / "data", make_engine)
    assert (ready.config.kinds, ready.config.checks) == (running.kinds, running.checks)
    again = prepare(path, running, tmp_path / "data", make_engine)
    assert again.config.checks.fresh_s == 77.0
    assert again.config.kinds != running.kinds


async def test_a_reload_that_falls_over_is_refused_and_the_next_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "yuzui.toml"
    path.write_text(site_config(tmp_path, {"g": ["a"]}))
    taken: list[Prepared] = []
    mistakes = [KeyError("ours")]

    def fallible(config: Config, points: PointTable) -> Engine:
        if mistakes:
            raise mistakes.pop()
        return make_engine(config, points)

    (tmp_path / "data").mkdir()
    reloader = Reloader(path, tmp_path / "data", load(path), fallible, taken.append, lambda _: None)
    task = asyncio.create_task(reloader.run())
    try:
        reports = []
        for _ in range(2):
            reloader.last = None
            reloader.ask()
            await until(lambda: reloader.last is not None or task.done())
            assert reloader.last is not None
            reports.append(reloader.last.faults)
        assert reports == [["KeyError: 'ours'"], []]
        assert len(taken) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_another_registry_is_taken_up_and_waits_for_no_restart(tmp_path: Path) -> None:
    path = tmp_path / "yuzui.toml"
    path.write_text(site_config(tmp_path, {"g": ["a"]}))
    running = load(path)
    (tmp_path / "points.csv").rename(tmp_path / "other.csv")
    path.write_text(path.read_text().replace("points.csv", "other.csv") + "\n[wire]\npoll_ms = 30\n")
    ready = prepare(path, running, tmp_path / "data", make_engine)
    assert ready.waits == ["wire"]
    assert ready.points.point_id[0] == "a"
