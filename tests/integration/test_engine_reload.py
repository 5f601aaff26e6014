"""A registry and rules that change while the engine runs: taken up at once, or refused whole."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from storage.lock import LOCK_NAME
from tests.engines import EngineProcess, site_config, until, yuzui_here
from tests.talk import Talker


def say(talker: Talker, point: str, value: float) -> None:
    """One reading of ``point`` now, acknowledged."""
    payload = json.dumps({"ts": time.time_ns() // 1_000_000, "v": value}).encode()
    talker.say(f"t/g/{point}", payload)


def firing(engine: EngineProcess) -> list[tuple[str, int]]:
    """(point, severity) of alerts that fire, as the lake says."""
    sql = "SELECT point_id, severity FROM alerts WHERE state = 'firing' AND rule = 'level' ORDER BY 1"
    return [(str(point), int(severity)) for point, severity in engine.lake(sql)]


def test_new_points_and_limits_are_taken_up_and_a_bad_file_is_refused(tmp_path: Path) -> None:
    """Episodes and counts go on; nothing is restarted; what is refused changes nothing."""
    points = ["a", "b"]
    config = site_config(tmp_path, {"g": points}, kinds={"a": "level"})
    engine = EngineProcess(tmp_path, config).start()
    try:
        talker = Talker(engine.port)
        say(talker, "a", 12.0)
        say(talker, "new", 50.0)
        until(lambda: firing(engine) == [("a", 1)], "the blue alert")
        pid = engine.pid

        # A point more, and blue from 30 instead of 10.
        site_config(tmp_path, {"g": [*points, "new"]}, kinds={"a": "level", "new": "level"})
        engine.config.write_text(
            config.replace("level_blue = 10.0", "level_blue = 11.0") + "\n[wire]\npoll_ms = 40\n"
        )
        done = yuzui_here("reload", "-c", str(engine.config))
        assert done.returncode == 0, done.stderr
        assert "3 points" in done.stdout
        assert "[wire] wait for a restart" in done.stdout
        say(talker, "new", 11.5)
        say(talker, "a", 12.0)
        until(lambda: firing(engine) == [("a", 1), ("new", 1)], "an alert of the new point")

        # A fault: all of it is refused, the old goes on.
        engine.config.write_text(config.replace("level_blue = 10.0", 'level_blue = "high"'))
        refused = yuzui_here("reload", "-c", str(engine.config))
        assert refused.returncode == 2
        assert "level_blue" in refused.stderr
        engine.signal(signal.SIGHUP)
        until(lambda: "level_blue" in str(engine.vitals()["reload"]["faults"]), "the engine's own refusal")
        say(talker, "new", 16.0)
        until(lambda: firing(engine) == [("a", 1), ("new", 2)], "the new point one step higher")

        vitals = engine.counted(5)
        assert vitals["quarantined"] == 1
        assert vitals["pid"] == pid
        assert vitals["conservation_gap"] == 0
    finally:
        engine.stop()


def test_what_was_reloaded_holds_after_a_kill(tmp_path: Path) -> None:
    """The CONTROL record stands in the journal; a restart reads the new files and replays behind it."""
    config = site_config(tmp_path, {"g": ["a"]}, kinds={"a": "level"})
    engine = EngineProcess(tmp_path, config).start()
    try:
        site_config(tmp_path, {"g": ["a", "b"]}, kinds={"a": "level", "b": "level"})
        assert yuzui_here("reload", "-c", str(engine.config)).returncode == 0
        say(Talker(engine.port), "b", 26.0)
        until(lambda: firing(engine) == [("b", 3)], "an alert of the new point")
        engine.kill()
        engine.start()
        engine.until_lake("SELECT point_id, value FROM readings", [("b", 26.0)])
        assert firing(engine) == [("b", 3)]
    finally:
        engine.stop()


def test_a_reload_asked_for_during_a_start_ends_nothing_and_comes_after_it(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, site_config(tmp_path, {"g": ["a"]})).start(wait=False)
    try:
        # From here on it is starting: everything that takes its time comes behind the lock.
        until((engine.data / LOCK_NAME).exists, "the data folder's lock")
        engine.signal(signal.SIGHUP)
        engine.ready()
        until(lambda: engine.vitals()["reload"], "the reload")
        assert engine.vitals()["reload"]["faults"] == []
    finally:
        engine.stop()
