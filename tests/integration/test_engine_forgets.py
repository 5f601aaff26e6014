"""An engine that lost its memory, but not its lake."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from tests.engines import EngineProcess, site_config, until
from tests.talk import Talker


def test_without_snapshot_and_journal_a_redelivery_still_counts_once(tmp_path: Path) -> None:
    """Both folders gone: the lake alone says which reading of a point came last, sealed or still hot."""
    engine = EngineProcess(
        tmp_path, site_config(tmp_path, {"g": ["a", "b"]}, more="[sealed]\nseal_s = 1")
    ).start()
    try:
        now_ms = time.time_ns() // 1_000_000
        messages = {p: json.dumps({"ts": now_ms, "v": 1.5}).encode() for p in ("a", "b")}
        with Talker(engine.port) as talker:
            talker.say("t/g/a", messages["a"])
            until(lambda: engine.vitals()["seals"], "a seal")
            talker.say("t/g/b", messages["b"])
        engine.until_lake("SELECT count(*) FROM readings", [(2,)])
        engine.kill()
        shutil.rmtree(engine.data / "snapshot", ignore_errors=True)
        shutil.rmtree(engine.data / "journal")
        engine.start()
        with Talker(engine.port) as talker:
            for point, message in messages.items():
                talker.say(f"t/g/{point}", message)
            talker.say("t/g/a", json.dumps({"ts": now_ms + 1, "v": 2.5}).encode())
        counted = engine.counted(3)
        assert (counted["repeats"], counted["main"]) == (2, 1)
        engine.until_lake("SELECT count(*), sum(value) FROM readings", [(3, 5.5)])
    finally:
        engine.stop()


def test_a_kill_before_the_first_snapshot_forgets_no_open_alert(tmp_path: Path) -> None:
    """The journal still begins at its begin: read from there it gives the alert that is open, and its end."""
    engine = EngineProcess(tmp_path, site_config(tmp_path, {"g": ["a"]}, kinds={"a": "level"})).start()
    try:
        at = time.time_ns() // 1_000_000
        with Talker(engine.port) as talker:
            talker.say("t/g/a", json.dumps({"ts": at, "v": 50.0}).encode())
        engine.until_lake("SELECT state, severity FROM alerts WHERE rule = 'level'", [("firing", 4)])
        assert not list((engine.data / "snapshot").glob("*")), "killed before there is one"
        engine.kill()
        engine.start()
        with Talker(engine.port) as talker:
            talker.say("t/g/a", json.dumps({"ts": at + 5000, "v": 0.0}).encode())
        engine.until_lake(
            "SELECT state, severity, revisions FROM alerts WHERE rule = 'level'", [("resolved", 4, 2)]
        )
    finally:
        engine.stop()
