"""Clients that others wrote speak to a real engine, through a broker or its listener; DuckDB shows what they said."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cbor2
import paho.mqtt.client as paho
import pytest
from influxdb_client import Point, WritePrecision
from paho.mqtt.enums import CallbackAPIVersion
from senml import SenmlPack, SenmlRecord, SenmlUnits

from tests.brokers import Mosquitto, needs_mosquitto
from tests.engines import EngineProcess, until
from tests.strangers import SPEAKERS, needs_node, node_env, run_node

pytestmark = [needs_mosquitto, pytest.mark.broker]

SOURCES = """
[[source]]
name = "senml"
codec = "senml"
topics = ["spk/senml"]
[[source]]
name = "cbor"
codec = "senml-cbor"
topics = ["spk/cbor"]
[[source]]
name = "influx"
codec = "influx"
topics = ["spk/influx"]
[source.influx]
device = "{tag:station}"
precision = "ms"
ignore = ["state"]
[[source]]
name = "json"
topics = ["spk/json/{device}"]
time = "ts"
value = "m.*"
[source.quantities.level]
[source.quantities.rain]
factor = 0.5
[[source]]
name = "csv"
codec = "csv"
topics = ["spk/csv"]
device = "station"
time = "at"
[[source]]
name = "plant"
codec = "sparkplug"
topics = ["spBv1.0/plant/#"]
[source.sparkplug]
device = "{device}"
rebirth_s_min = 1.0
"""
POINTS = {
    "senml": ["sen-level", "sen-rain", "sen-wet"],
    "cbor": ["cb-level", "cb-rain"],
    "influx": ["inf-level", "inf-rain", "inf-wet"],
    "json": ["js-level", "js-rain", "pub-level", "pub-rain"],
    "csv": ["lg1-level", "lg2-level"],
    "plant": ["p1-level", "p1-rain", "p1-wet", "p1-count"],
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def engine(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("strangers")
    rows = ["point_id,name,gateway_id,source,kind,unit,topic,expected_interval_s,time_from"]
    for source, points in POINTS.items():
        rows += [
            f"{p},{p},{'edge-1' if source == 'plant' else ''},{source},plain,cm,,0,device" for p in points
        ]
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    config = (
        '[city]\ntime_zone = "Asia/Shanghai"\n[data]\ndir = "data"\n[points]\nfile = "points.csv"\n'
        '[listener]\nenabled = true\nport = 0\n[ops]\nport = 0\n[log]\nformat = "text"\n[kinds.plain]\n'
        f'[[subscriber]]\nname = "b"\nurl = "{broker.url}"\nfilters = ["spk/#", "spBv1.0/#"]\n{SOURCES}'
    )
    running = EngineProcess(folder, config).start()
    yield running
    assert running.stop() == 0
    assert "conservation broken" not in running.log.read_text()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def publish(broker: Mosquitto, topic: str, payload: bytes) -> None:
    """As any program would: paho, QoS 1."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "stranger", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish(topic, payload, qos=1).wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def rows_of(like: str) -> str:
    return f"SELECT point_id, epoch_ms(time), value FROM readings WHERE point_id LIKE '{like}' ORDER BY 1, 2"


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_a_senml_library(engine: EngineProcess, broker: Mosquitto, form: str) -> None:
    at = now_ms() // 1000
    pack = SenmlPack("urn:dev:mac:" if form == "json" else "cb:")
    pack.base_time = at
    name = "sen:" if form == "json" else ""
    pack.add(SenmlRecord(f"{name}level", value=1.25, unit=SenmlUnits.SENML_UNIT_METER, time=at - 2))
    pack.add(SenmlRecord(f"{name}rain", value=3, time=at))
    if form == "json":
        pack.add(SenmlRecord(f"{name}wet", value=True, time=at))
        # Its names begin "urn:dev:mac:sen"; the registry knows the device as it is called in the city.
        engine_name = pack.to_json().replace("urn:dev:mac:", "")
        publish(broker, "spk/senml", engine_name.encode())
        expected = [("sen-level", at - 2, 1.25), ("sen-rain", at, 3.0), ("sen-wet", at, 1.0)]
    else:
        publish(broker, "spk/cbor", pack.to_cbor())
        expected = [("cb-level", at - 2, 1.25), ("cb-rain", at, 3.0)]
    rows = [(point, second * 1000, value) for point, second, value in expected]
    engine.until_lake(rows_of("sen-%" if form == "json" else "cb-%"), rows)


def test_cbor2(engine: EngineProcess, broker: Mosquitto) -> None:
    """Labels as RFC 8428 numbers them, written with cbor2 alone."""
    at = now_ms() / 1000 - 60
    raw = cbor2.dumps([{-2: "cb:", -3: at, 0: "level", 2: 7}, {0: "rain", 2: 0.5, 6: 1}])
    publish(broker, "spk/cbor", raw)
    ms = round(at * 1000)
    engine.until_lake(
        "SELECT point_id, epoch_ms(time), value FROM readings WHERE value IN (7, 0.5) AND source = 'cbor' ORDER BY 1",
        [("cb-level", ms, 7.0), ("cb-rain", ms + 1000, 0.5)],
    )


def test_the_influxdb_client(engine: EngineProcess, broker: Mosquitto) -> None:
    at = now_ms()
    point = Point("river").tag("station", "inf").field("level", 1.25).field("rain", 3).field("wet", True)
    line = point.field("state", 'a, b = "c"').time(at, WritePrecision.MS).to_line_protocol()
    publish(broker, "spk/influx", line.encode())
    engine.until_lake(
        rows_of("inf-%"), [("inf-level", at, 1.25), ("inf-rain", at, 3.0), ("inf-wet", at, 1.0)]
    )


def test_mosquitto_pub(engine: EngineProcess, broker: Mosquitto, tmp_path: Path) -> None:
    at = now_ms()
    table = tmp_path / "table.csv"
    table.write_text(f"station,at,level\nlg1,{at},1.5\nlg2,{at},\n")
    body = json.dumps({"ts": at, "m": {"level": 2.5, "rain": 12}})
    for port, arguments in (
        (broker.port, ["-t", "spk/csv", "-f", str(table)]),
        (engine.port, ["-t", "spk/json/pub", "-m", body]),
    ):
        subprocess.run(
            ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", *arguments],
            check=True, timeout=60,
        )  # fmt: skip
    engine.until_lake(rows_of("pub-%"), [("pub-level", at, 2.5), ("pub-rain", at, 6.0)])
    engine.until_lake(rows_of("lg%"), [("lg1-level", at, 1.5), ("lg2-level", at, None)])


@needs_node
@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("through", ["broker", "listener"])
def test_mqttjs(engine: EngineProcess, broker: Mosquitto, version: str, through: str) -> None:
    port = broker.port if through == "broker" else engine.port
    at = now_ms()
    lines = [f'spk/json/js {{"ts":{at + i},"m":{{"level":{i}.5,"rain":{i}}}}}' for i in range(20)]
    run_node("mqttjs.cjs", f"mqtt://127.0.0.1:{port}", version, stdin="\n".join(lines))
    engine.until_lake(
        f"SELECT count(*), sum(value) FROM readings WHERE point_id LIKE 'js-%' AND epoch_ms(time) >= {at}",
        [(40, sum(i + 0.5 for i in range(20)) + sum(i * 0.5 for i in range(20)))],
    )


class TahuNode:
    """An edge node of Eclipse Tahu as a process of its own."""

    def __init__(self, broker: Mosquitto) -> None:
        command = ["node", str(SPEAKERS / "tahu.cjs"), broker.url, "plant", "edge-1", "p1"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=node_env()
        )

    def heard(self, word: str) -> int:
        """The time of what the node did next, which must be ``word``."""
        assert self._process.stdout is not None
        said, _, at = self._process.stdout.readline().partition(" ")
        assert said == word
        return int(at)

    def say(self, **metrics: float | bool) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(metrics) + "\n")
        self._process.stdin.flush()
        return self.heard("said")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@needs_node
def test_an_edge_node_of_tahu_is_born_asked_and_missed(engine: EngineProcess, broker: Mosquitto) -> None:
    """Births and data by alias; an engine that forgot the aliases asks; a killed node is one outage at once."""
    node = TahuNode(broker)
    try:
        born = node.heard("born")
        said = node.say(level=2.5, count=-300)
        expected = [
            ("p1-count", born, -7.0), ("p1-count", said, -300.0), ("p1-level", born, 1.5), ("p1-level", said, 2.5),
            ("p1-rain", born, 0.25), ("p1-wet", born, 1.0),
        ]  # fmt: skip
        engine.until_lake(rows_of("p1-%"), expected)
        assert engine.stop() == 0
        engine.start()
        node.say(level=3.5)
        node.heard("reborn")
        again = node.say(level=4.5)
        engine.until_lake(
            f"SELECT count(*) FROM readings WHERE point_id = 'p1-level' AND epoch_ms(time) = {again}", [(1,)]
        )
        refused = "SELECT DISTINCT reason FROM quarantine WHERE source = 'plant'"
        engine.until_lake(refused, [("no_birth",)])
    finally:
        node.kill()
    until(lambda: engine.lake("SELECT 1 FROM alerts WHERE rule = 'outage'"), "the outage")
    told = engine.lake("SELECT rule, state, gateway_id, value, summary_en FROM alerts")
    assert [row[:4] for row in told] == [("outage", "firing", "edge-1", 4.0)]
    assert "p1-count" in told[0][4]
