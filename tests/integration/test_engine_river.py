"""One reading through the whole running engine: acknowledged is durable, once, and what a query shows."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from storage.hot import hot_dir
from storage.journal_reader import JournalReader
from storage.records import RecordType, decode_readings
from storage.segment import list_segments
from tests.brokers import Mosquitto, needs_mosquitto
from tests.engines import EngineProcess, run_yuzui, site_config, until
from tests.talk import Closed, Talker

GATEWAYS = {
    "g0": [f"p{i}" for i in range(40)],
    "g1": ["flood-a", "flood-b", "quick", "untimed"],
}


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def reading(time_ms: int, value: float) -> bytes:
    """The common payload."""
    return b'{"ts":%d,"v":%s}' % (time_ms, json.dumps(value).encode())


def moment(time_ms: int) -> datetime:
    """As DuckDB gives a TIMESTAMPTZ, for comparison."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One engine for the module; tests may kill and restart it and use points of their own."""
    folder = tmp_path_factory.mktemp("river")
    config = site_config(
        folder, GATEWAYS, kinds={"flood-a": "level", "flood-b": "level"}, on_receipt=["untimed"]
    )
    running = EngineProcess(folder, config).start()
    yield running
    assert running.stop() == 0
    assert "conservation broken" not in running.log.read_text()


def rows_of(*points: str) -> str:
    """SQL of the readings of some points, in order."""
    names = ", ".join(f"'{p}'" for p in points)
    columns = "point_id, epoch_ms(time), value, flag"
    return f"SELECT {columns} FROM readings WHERE point_id IN ({names}) ORDER BY 1, 2"


def test_a_reading_by_each_qos_and_version_is_stored_with_its_time_and_value(engine: EngineProcess) -> None:
    """Six PUBLISHes of an independent client (paho), QoS 0, 1, 2 over 3.1.1 and 5: six rows, each as sent."""
    at = now_ms()
    sent = []
    for number, (version, qos) in enumerate((v, q) for v in (paho.MQTTv311, paho.MQTTv5) for q in (0, 1, 2)):
        client = paho.Client(CallbackAPIVersion.VERSION2, f"river-{number}", protocol=version)
        client.connect("127.0.0.1", engine.port)
        client.loop_start()
        client.publish(
            f"t/g0/p{number}", reading(at + number, 1.25 * number - 3.0), qos=qos
        ).wait_for_publish(60)
        # Behind QoS 0 nothing says that it was read, so another message does.
        client.publish(f"t/g0/p{number}", reading(at + 1000 + number, 0.1), qos=1).wait_for_publish(60)
        client.disconnect()
        client.loop_stop()
        sent += [
            (f"p{number}", at + number, 1.25 * number - 3.0, 1),
            (f"p{number}", at + 1000 + number, 0.1, 1),
        ]
    points = [f"p{n}" for n in range(6)]
    engine.until_lake(rows_of(*points), sent)
    names = ", ".join(f"'{p}'" for p in points)
    newest = [(p, moment(t), v) for p, t, v, _ in sent[1::2]]
    latest = f"SELECT point_id, time, value FROM latest WHERE point_id IN ({names}) ORDER BY 1"
    assert engine.lake(latest) == newest
    meta = engine.lake("SELECT DISTINCT name, kind, unit, source, received_at >= time - INTERVAL 1 MINUTE "
                       "FROM readings WHERE point_id = 'p3'")  # fmt: skip
    assert meta == [("点 p3", "plain", "cm", "site", True)]
    told = run_yuzui("sql", "-c", str(engine.config), "--format", "json", rows_of(*points))
    assert told.stderr == ""
    assert [tuple(json.loads(line).values()) for line in told.stdout.splitlines()] == sent


def test_a_puback_comes_only_after_the_journal_holds_the_record(engine: EngineProcess) -> None:
    """20 of 20: the moment the PUBACK is here the engine is frozen, and the record stands in its files."""
    folder = engine.data / "journal"
    start = now_ms()
    with Talker(engine.port) as gateway:
        for trial in range(20):
            gateway.say("t/g0/p10", reading(start + trial, float(trial)))
            engine.signal(signal.SIGSTOP)
            try:
                reader = JournalReader(folder, list_segments(folder)[0][0])
                times = {
                    at
                    for records in iter(reader.read, [])
                    for record in records
                    if record.type is RecordType.READINGS
                    for at in decode_readings(record.body).time.tolist()
                }
            finally:
                engine.signal(signal.SIGCONT)
            assert (start + trial) * 1000 in times, f"trial {trial}: acknowledged, but not in the journal"
    engine.until_lake(rows_of("p10"), [("p10", start + n, float(n), 1) for n in range(20)])


def test_what_was_acknowledged_survives_kill_9_and_stands_once(engine: EngineProcess) -> None:
    """20 single readings, each acknowledged, the engine killed at once behind three of them: 20 rows, 20 keys."""
    start = now_ms()
    for cycle, trials in enumerate((range(7), range(7, 14), range(14, 20))):
        with Talker(engine.port, v5=cycle % 2 == 1) as gateway:
            for n in trials:
                assert gateway.say("t/g0/p11", reading(start + n, n / 2)) == 0
            engine.kill()
        engine.start()
    engine.until_lake(rows_of("p11"), [("p11", start + n, n / 2, 1) for n in range(20)])


def test_sigterm_under_load_drains_acknowledges_and_exits_0(engine: EngineProcess) -> None:
    """A gateway has 200 in flight while SIGTERM comes: exit 0 within 10 s, all it was told is there, once."""
    start = now_ms()
    told: set[int] = set()

    def load() -> None:
        with Talker(engine.port, v5=True) as gateway:
            number = 0
            try:
                while True:
                    pids = {}
                    for _ in range(200):
                        number += 1
                        pids[gateway.publish("t/g0/p12", reading(start + number, float(number)))] = number
                    gateway.hear(pids)
                    told.update(pids.values())
            except (Closed, OSError):
                told.update(n for pid, n in pids.items() if pid in gateway.acks)
                goodbyes.append(gateway.goodbye.code if gateway.goodbye else None)

    goodbyes: list[int | None] = []
    loader = threading.Thread(target=load)
    loader.start()
    until(lambda: len(told) > 1000, "load")
    assert engine.stop(timeout_s=60) == 0
    loader.join(60)
    assert not loader.is_alive()
    assert goodbyes == [0x8B]
    assert "engine has stopped" in engine.log.read_text()
    assert not (engine.data / "engine.json").exists()
    # Whatever was hot when it stopped is there without an engine, and after a restart.
    kept = {ms - start for (ms,) in engine.lake("SELECT epoch_ms(time) FROM readings WHERE point_id = 'p12'")}
    assert told <= kept
    engine.start()
    counted = engine.lake("SELECT count(*), count(DISTINCT time) FROM readings WHERE point_id = 'p12'")
    assert counted == [(len(kept), len(kept))]


def test_every_reading_is_counted_once_and_the_conservation_gap_is_0(engine: EngineProcess) -> None:
    """New, repeated, revised, late, untimed and refused ones: each shows in its own count, none is missing.

    Of repeats only the newest of a point is known as one at once; an older one is late until it is resolved.
    """
    before = engine.vitals()
    at = now_ms()
    with Talker(engine.port) as gateway:
        main = [("t/g0/p20", reading(at + n, float(n))) for n in range(10)]
        gateway.say_all(main)
        gateway.say_all(main[-3:])
        gateway.say_all(main[-1:])
        late = [("t/g0/p20", reading(at - 60_000 - n, 7.0)) for n in range(4)]
        gateway.say_all([*late, ("t/g0/p20", reading(at + 9, -1.0))])
        gateway.say_all([("t/g1/untimed", b"4.5"), ("t/g1/untimed", b'{"v":5.5}')])
        batch = [{"id": "p20", "ts": at + 20, "v": 1.0}, {"id": "nobody", "ts": at, "v": 1.0}, 3]
        gateway.say_all([("t/g0", json.dumps(batch).encode()), ("t/g0/p20", b"{"), ("t/nowhere", b"1")])
    after = engine.counted(before["received"] + 26)
    names = ("received", "main", "late_pending", "repeats", "quarantined", "untimed", "retained_ignored")
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    assert grown == {
        "received": 10 + 4 + 5 + 2 + 3 + 2, "main": 10 + 2 + 1, "late_pending": 2 + 5, "repeats": 2,
        "quarantined": 4, "untimed": 2, "retained_ignored": 0,
    }  # fmt: skip
    # Proven at every TICK, of which one at least has come since.
    engine.until_lake("SELECT count(*) FROM readings WHERE point_id = 'p20'", [(15,)])
    assert engine.vitals()["conservation_gap"] == 0
    metrics = engine.page("/metrics")
    assert f"yuzui_received_total {float(after['received'])}" in metrics
    assert "yuzui_conservation_gap 0.0" in metrics


def test_a_repeat_after_a_restart_changes_nothing_in_the_view(engine: EngineProcess) -> None:
    """A gateway that lost its PUBACK to a kill sends again, twice: still one row a key."""
    at = now_ms()
    messages = [("t/g0/p21", reading(at + n, float(n))) for n in range(5)]
    with Talker(engine.port) as gateway:
        gateway.say_all(messages)
    engine.kill()
    engine.start()
    with Talker(engine.port) as gateway:
        gateway.say_all(messages)
        gateway.say_all(list(reversed(messages)))
    assert engine.counted(10)["main"] == 0
    assert engine.lake(rows_of("p21")) == [("p21", at + n, float(n), 1) for n in range(5)]


def test_of_a_revised_value_the_last_received_stands_also_across_a_restart(engine: EngineProcess) -> None:
    at = now_ms()
    with Talker(engine.port) as gateway:
        gateway.say("t/g0/p22", reading(at, 1.0))
        gateway.say("t/g0/p22", reading(at, 2.0))
        engine.until_lake(rows_of("p22"), [("p22", at, 2.0, 1)])
        gateway.say("t/g0/p22", reading(at + 1, 5.0))
    engine.kill()
    engine.start()
    with Talker(engine.port) as gateway:
        gateway.say("t/g0/p22", reading(at, 3.0))
        gateway.say("t/g0/p22", reading(at, 1.0))
    engine.until_lake(rows_of("p22"), [("p22", at, 1.0, 1), ("p22", at + 1, 5.0, 1)])
    assert engine.lake("SELECT value FROM latest WHERE point_id = 'p22'") == [(5.0,)]


ALERTS = "SELECT point_id, id, state, severity FROM alerts WHERE point_id LIKE 'flood-%' ORDER BY 1"


def test_an_alert_keeps_its_id_over_a_stop_and_a_kill(engine: EngineProcess) -> None:
    """Two floods; restarts of both sorts between rising, worsening and falling: one id each, to the end."""
    at = now_ms()
    with Talker(engine.port) as gateway:
        gateway.say_all([("t/g1/flood-a", reading(at, 5.0)), ("t/g1/flood-a", reading(at + 10, 17.0))])
        gateway.say_all([("t/g1/flood-b", reading(at, 5.0)), ("t/g1/flood-b", reading(at + 10, 12.0))])
    first = until(lambda: len(rows := engine.lake(ALERTS)) == 2 and rows, "two alerts in the lake")
    ids = {point: number for point, number, _, _ in first}
    assert [(p, s, level) for p, _, s, level in first] == [("flood-a", "firing", 2), ("flood-b", "firing", 1)]
    assert engine.stop() == 0
    engine.start()
    with Talker(engine.port) as gateway:
        gateway.say("t/g1/flood-a", reading(at + 20, 26.0))
    engine.until_lake(
        ALERTS, [("flood-a", ids["flood-a"], "firing", 3), ("flood-b", ids["flood-b"], "firing", 1)]
    )
    engine.kill()
    engine.start()
    with Talker(engine.port) as gateway:
        gateway.say_all([("t/g1/flood-a", reading(at + 30, 1.0)), ("t/g1/flood-b", reading(at + 30, 1.0))])
    engine.until_lake(
        ALERTS, [("flood-a", ids["flood-a"], "resolved", 3), ("flood-b", ids["flood-b"], "resolved", 1)]
    )
    assert engine.vitals()["alerts_open"] == 0


def test_a_second_engine_on_the_same_folder_is_refused_by_the_first_ones_pid(engine: EngineProcess) -> None:
    second = run_yuzui("run", "-c", str(engine.config))
    assert second.returncode == 2
    assert f"process {engine.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert engine.get("/readyz") == 200


def test_a_port_in_use_is_one_line_and_exit_2(engine: EngineProcess, tmp_path: Path) -> None:
    config = site_config(tmp_path, {"g": ["p"]}).replace("port = 0", f"port = {engine.port}", 1)
    other = EngineProcess(tmp_path, config)
    refused = run_yuzui("run", "-c", str(other.config))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert f"127.0.0.1:{engine.port}" in refused.stderr


def test_a_part_that_fails_ends_the_engine_and_what_was_acknowledged_is_there_once_it_is_mended(
    tmp_path: Path,
) -> None:
    """The folder of hot files is suddenly a file: PUBACK, then exit 1 and a line that says which part; mended and
    started again, the reading comes out of the journal."""
    engine = EngineProcess(tmp_path, site_config(tmp_path, {"g": ["p"]})).start()
    hot = hot_dir(engine.data, late=False)
    hot.rmdir()
    hot.touch()
    at = now_ms()
    with Talker(engine.port) as gateway:
        assert gateway.say("t/g/p", reading(at, 1.5)) == 0
    until(lambda: not engine.running, "the engine ends by itself")
    assert engine.stop() == 1
    assert engine.log.read_text().splitlines()[-1].startswith("Error: judge ended: ")
    hot.unlink()
    engine.start()
    engine.until_lake(rows_of("p"), [("p", at, 1.5, 1)])
    assert engine.stop() == 0


def test_the_operators_pages_say_how_it_is(engine: EngineProcess) -> None:
    with Talker(engine.port) as gateway:
        gateway.say("t/nowhere", b"1")
    assert engine.page("/livez") == "ok\n"
    assert engine.page("/readyz") == "ready\n"
    health = json.loads(engine.page("/healthz"))
    assert health["not_ready"] == []
    assert health["points"] == 44
    assert health["clock"] == "wall"
    metrics = engine.page("/metrics")
    for name in ("yuzui_received_total", "yuzui_journal_oldest_s", "yuzui_readings_per_s", "yuzui_rss_bytes"):
        assert f"\n{name} " in metrics
    assert 'yuzui_refused_total{reason="unknown_topic",source="unknown"}' in metrics
    ports = engine.ports()
    assert ports is not None
    with socket.create_connection(("127.0.0.1", ports["ops_port"])) as raw:
        assert raw.getpeername()[0] == "127.0.0.1"
    assert ports["ops_host"] == "127.0.0.1"


@pytest.mark.broker
@needs_mosquitto
def test_readings_come_through_a_real_broker_and_a_kept_one_without_time_is_no_reading(
    tmp_path: Path,
) -> None:
    """Two subscribers, 3.1.1 and 5, at one mosquitto. Without it the engine says which links are down; what
    the broker kept while the engine was away is stored; a retained message without a time is only counted."""
    broker = Mosquitto(tmp_path / "broker")
    more = "".join(
        f'[[subscriber]]\nname = "v{version[0]}"\nclient_id = "engine-{version[0]}"\nprotocol = "{version}"\n'
        f'url = "{broker.url}"\nfilters = ["t/g{version[0]}/#"]\nreconnect_s_max = 0.2\n'
        for version in ("3.1.1", "5")
    )
    gateways = {"g3": ["a3", "b3", "u3"], "g5": ["a5", "b5", "u5"]}
    config = site_config(tmp_path, gateways, on_receipt=["u3", "u5"], more=more)
    engine = EngineProcess(tmp_path, config).start(wait=False)
    try:
        engine.ready(503)
        assert [r.split(" is down")[0] for r in engine.vitals()["not_ready"]] == ["link v3/1", "link v5/1"]
        broker.start()
        engine.ready()
        client = paho.Client(CallbackAPIVersion.VERSION2, "gateway", protocol=paho.MQTTv5)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()

        def say(topic: str, payload: bytes, **more: Any) -> None:
            client.publish(topic, payload, **{"qos": 1, **more}).wait_for_publish(60)

        at = now_ms()
        for v in "35":
            for qos in (0, 1, 2):
                say(f"t/g{v}/a{v}", reading(at + qos, float(qos)), qos=qos)
            say(f"t/g{v}/u{v}", b"8.5")
            # What arrives while we are subscribed is news, retained or not.
            say(f"t/g{v}/u{v}", b"9.5", retain=True)
        engine.until_lake(
            rows_of("a3", "a5"), [(f"a{v}", at + n, float(n), 1) for v in "35" for n in range(3)]
        )
        untimed = "SELECT point_id, value FROM readings WHERE point_id LIKE 'u%' ORDER BY ALL"
        engine.until_lake(untimed, [("u3", 8.5), ("u3", 9.5), ("u5", 8.5), ("u5", 9.5)])
        assert engine.stop() == 0
        for v in "35":
            say(f"t/g{v}/b{v}", reading(at, 42.0))
        client.disconnect()
        client.loop_stop()
        engine.start()
        engine.until_lake(rows_of("b3", "b5"), [("b3", at, 42.0, 1), ("b5", at, 42.0, 1)])
        vitals = engine.counted(3)
        # 3.1.1 cannot ask for none: the broker sends its retained message again at SUBSCRIBE.
        assert (vitals["main"], vitals["retained_ignored"]) == (2, 1)
        assert len(engine.lake(untimed)) == 4
    finally:
        engine.stop()
        broker.stop()
