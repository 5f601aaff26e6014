"""A kill, a full disk, a broker and a webhook that are down, a clock that jumps: what the engine says is what happened.

Each fault is made for real; then `yuzui status`, /readyz, metrics and runbook are held to it, and to each other.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.brokers import Mosquitto, needs_mosquitto
from tests.crash.clocks import OFFSETS, TRUE, library, sweep
from tests.engines import ROOT, EngineProcess, free_port, site_config, until, yuzui_here
from tests.faults_disk import Filler, SmallDisk
from tests.faults_trial import INSIDE, SMALL, Impossible
from tests.runbook import agrees, dashboard_expressions, named_in, quoted, rules, said, sections
from tests.talk import Talker

pytestmark = pytest.mark.crash
DISK_BYTES = 40 << 20


@needs_mosquitto
def test_a_broker_that_ends_a_webhook_that_is_down_and_a_kill(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    more = (
        f'[[subscriber]]\nname = "city"\nurl = "{broker.url}"\nfilters = ["t/#"]\nreconnect_s_max = 0.5\n'
        f'[[webhook]]\nname = "room"\nurl = "http://127.0.0.1:{free_port()}/"\n{SMALL}'
    )
    engine = EngineProcess(tmp_path, site_config(tmp_path, {"g1": ["l1"]}, kinds={"l1": "level"}, more=more))
    try:
        engine.start()
        well = said(engine)
        agrees(well)
        expressions = " ".join([*(rule["expr"] for rule in rules()), *dashboard_expressions()])
        assert named_in(expressions) - well.families == set(), "every metric named stands in a real /metrics"

        broker.stop()
        engine.ready(503)
        down = said(engine)
        agrees(down, "link_down")
        assert quoted(sections()["link_down"]) == "link"
        assert re.match(r"NOT READY: link city/1 is down: \w", down.line)
        assert down.metrics["yuzui_links_down"] == 1
        broker.start()
        engine.ready()
        agrees(said(engine))

        with Talker(engine.port) as talker:
            talker.say("t/g1/l1", b'{"ts":%d,"v":50.0}' % (time.time_ns() // 1_000_000))
        until(lambda: engine.vitals()["outbox_oldest_s"] > 10, "a notification waits")
        waiting = said(engine)
        agrees(waiting)  # readings come in and are judged: the engine is ready
        assert re.search(r"1 notifications waiting, the oldest for \d+ s", waiting.line), waiting.line
        assert waiting.metrics["yuzui_outbox_waiting"] == 1
        assert waiting.metrics["yuzui_webhooks_failed_total"] >= 1
        assert waiting.metrics["yuzui_webhooks_delivered_total"] == 0
        entry = sections()["A webhook is down 告警送不出去"]
        assert {"yuzui_outbox_waiting", "yuzui_outbox_oldest_s", "yuzui_webhooks_failed_total"} <= named_in(
            entry
        )
        assert "refused" in yuzui_here("outbox", "list", "-c", str(engine.config)).stdout

        assert said(engine).metrics["yuzui_after_kill"] == 0
        engine.kill()
        gone = yuzui_here("status", "-c", str(engine.config))
        assert gone.returncode == 3
        assert gone.stdout.startswith("no engine answers for this data folder")
        assert "no engine answers for this data folder" in sections()["It was killed 进程被强制结束"]
        engine.start()
        back = said(engine)
        agrees(back)
        assert "the engine before did not stop by itself" in back.line
        assert back.metrics["yuzui_after_kill"] == 1
        assert back.metrics["yuzui_uptime_s"] < 120
        assert engine.lake("SELECT value FROM readings") == [(50.0,)]
        assert engine.stop() == 0
        engine.start()
        assert "did not stop by itself" not in said(engine).line
    finally:
        if engine.running:
            engine.stop()
        broker.stop()


def test_a_disk_that_fills_and_a_clock_that_jumps(tmp_path: Path) -> None:
    control = tmp_path / "clock"
    control.write_text(TRUE)
    try:
        env = {
            "LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": str(control), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "DONT_FAKE_MONOTONIC": "1",
            "YUZUI_FAULT": '{"sleep": "select"}', "PYTHONPATH": f"{INSIDE}:{ROOT}",
        }  # fmt: skip
        disk = SmallDisk(tmp_path / "site" / "data", DISK_BYTES).__enter__()
    except Impossible as why:
        pytest.skip(f"NOT TESTED: {why}")
    engine = EngineProcess(
        tmp_path / "site", site_config(tmp_path / "site", {"g1": ["p1"]}, more=SMALL), env=env
    )
    try:
        engine.start()
        agrees(said(engine))
        control.write_text(OFFSETS["+1 h"])
        engine.ready(503)
        jumped = said(engine)
        agrees(jumped, "clock_suspect")
        assert quoted(sections()["clock_suspect"]) in jumped.line
        assert re.search(r"our clock jumped by \+3[56]\d\d s", jumped.line), jumped.line
        assert jumped.metrics["yuzui_clock_jumps_total"] >= 1
        control.write_text(TRUE)
        engine.ready()
        agrees(said(engine))

        filler = Filler(engine.data / "filler")
        filler.start()
        with Talker(engine.port) as talker:
            until(
                lambda: "acknowledgements are held" in " ".join(engine.vitals()["not_ready"]), "the hold", 60
            )
            talker.publish("t/g1/p1", b'{"ts":%d,"v":1.0}' % (time.time_ns() // 1_000_000))
            until(lambda: engine.vitals()["received"] >= 1, "the reading is taken in")
            full = said(engine)
            agrees(full, "disk_full")
            assert quoted(sections()["disk_full"]) in full.line
            assert full.metrics["yuzui_disk_free_bytes"] < 8 << 20
            assert full.metrics["yuzui_acknowledged_messages_total"] == 0
            filler.let_go()
            engine.ready()
            talker.hear([1])
        after = said(engine)
        agrees(after)
        assert after.metrics["yuzui_acknowledged_messages_total"] == 1
        engine.until_lake("SELECT value FROM readings", [(1.0,)])
    finally:
        if engine.running:
            engine.stop()
        disk.__exit__(None, None, None)
        sweep()
