"""Claims about the whole simulator over real TCP: ledger, publishers and server agree on every reading."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ingest.simulate.child import Child, ChildDiedError
from ingest.simulate.receiver import ReceiverOptions
from ingest.simulate.replay import ReplayOptions, replay
from ingest.simulate.run import SimulateOptions, SimulateReport, simulate
from tests.engines import free_port
from tests.simulate_ack_server import AckServer, Publish
from tests.simulate_city import write_city


def options(tmp_path: Path, port: int, **fields: object) -> SimulateOptions:
    points_file, city = write_city(tmp_path / "city", 120, 10)
    return SimulateOptions(
        target=f"mqtt://127.0.0.1:{port}",
        points_file=points_file,
        city_dir=city,
        ledger_dir=tmp_path / "ledger",
        **{"seconds": 1.25, "hz": 8.0, "drain_s_max": 10.0, **fields},  # type: ignore[arg-type]
    )


def ledger(folder: Path) -> pl.DataFrame:
    rows = pl.concat([pl.read_parquet(file) for file in sorted(folder.glob("readings-*.parquet"))])
    return rows.join(pl.read_parquet(folder / "points.parquet"), on="number")


def readings(seen: list[Publish]) -> Counter[tuple[str, int, float]]:
    """(point, time µs, value) of what the server saw, arrays and single readings alike; repeats counted."""
    found: Counter[tuple[str, int, float]] = Counter()
    for publish in seen:
        body = json.loads(publish.payload)
        for one in body if isinstance(body, list) else [body]:
            found[one.get("id") or publish.topic.rpartition("/")[2], one["ts"] * 1000, one["v"]] += 1
    return found


def of_ledger(rows: pl.DataFrame) -> set[tuple[str, int, float]]:
    return set(rows.select("point_id", "time_us", "value").rows())


@pytest.mark.parametrize(
    ("fields", "versions"),
    [
        ({"aiomqtt_share": 0.2, "scenario": "storm"}, {4, 5}),
        ({"qos": 0, "aiomqtt_share": 0.2}, {4, 5}),
        ({"batch": 5, "aiomqtt_share": 0.2, "mqtt5_share": 1.0}, {5}),
        ({"inflight_max": 3, "aiomqtt_share": 0.0, "mqtt5_share": 0.0}, {4}),
    ],
)
def test_what_the_ledger_says_is_what_the_server_saw(
    tmp_path: Path, fields: dict[str, object], versions: set[int]
) -> None:
    told: list[dict[str, object]] = []
    with AckServer() as server:
        report = simulate(options(tmp_path, server.port, **fields), told.append)
        rows = ledger(tmp_path / "ledger")
        assert report.produced == report.sent == len(rows) == 120 * 10
        assert report.queued == report.not_sent == report.refused == 0
        assert of_ledger(rows) == set(readings(server.seen))
        assert set(readings(server.seen).values()) == {1}
        assert {version for _, version, _ in server.connects} == versions
        assert len(server.connects) == report.connects == 10
    if fields.get("qos", 1):
        assert (rows["state"] == 2).all()
    assert told
    by_point = rows.sort("time_us").group_by("point_id").agg(pl.col("time_us").diff().drop_nulls().min())
    assert (by_point["time_us"] > 0).all(), "a point's time only grows"


def test_after_a_crash_everything_unacknowledged_comes_again(tmp_path: Path) -> None:
    with AckServer() as server:
        done: list[SimulateReport] = []
        run = threading.Thread(
            target=lambda: done.append(
                simulate(options(tmp_path, server.port, seconds=2.0, aiomqtt_share=0.2))
            )
        )
        run.start()
        _until(lambda: server.count > 200)
        server.acknowledge = False
        before = server.count
        _until(lambda: server.count > before + 100)
        server.acknowledge = True  # first: who comes back at once must not be met with silence
        server.drop_connections()
        run.join(120)
        (report,) = done
        seen = readings(server.seen)
        rows = ledger(tmp_path / "ledger")
        assert report.acked == report.produced == len(rows) == 120 * 16
        assert of_ledger(rows) == set(seen)
        assert max(seen.values()) > 1, "sent twice, the second time marked"
        assert any(publish.dup for publish in server.seen)
        assert report.connects == 20
        assert (rows["state"] == 2).all()


def test_without_acknowledgement_nothing_counts_as_acknowledged(tmp_path: Path) -> None:
    with AckServer() as server:
        server.acknowledge = False
        report = simulate(options(tmp_path, server.port, drain_s_max=0.5))
    rows = ledger(tmp_path / "ledger")
    assert report.acked == 0
    assert report.sent + report.queued == len(rows) == 120 * 10
    assert set(rows["state"].unique()) <= {0, 1}


def test_a_gateway_that_cannot_send_keeps_a_bounded_backlog(tmp_path: Path) -> None:
    port = free_port()
    report = simulate(
        options(
            tmp_path,
            port,
            seconds=1.5,
            drain_s_max=0.1,
            backlog_s_max=1.0,
            aiomqtt_share=0.0,
            connect_s_max=0.2,
        )
    )
    assert report.sent == 0
    assert report.queued == 120 * 8
    assert report.not_sent == 120 * 4
    assert report.queued == len(ledger(tmp_path / "ledger"))


def test_in_an_outage_some_gateways_close_and_come_back(tmp_path: Path) -> None:
    with AckServer() as server:
        report = simulate(options(tmp_path, server.port, seconds=2.0, scenario="outage", aiomqtt_share=0.0))
    rows = ledger(tmp_path / "ledger")
    assert (
        report.produced == len(rows) == 120 * 16 - 12 * 5
    )  # one gateway of twelve points, 30 % of the steps
    assert (rows["state"] == 2).all()
    assert report.connects == 11


def test_a_speaker_whose_parent_is_gone_ends_by_itself(tmp_path: Path) -> None:
    receiver = Child("ingest.simulate.receiver", _line(ReceiverOptions(str(tmp_path / "calls.jsonl"))))
    with receiver:
        receiver.until_ready(60)
        assert receiver._process.stdin is not None
        receiver._process.stdin.close()
        assert receiver._process.wait(60) == 0
        receiver.hear()
        assert receiver.report is not None


def test_a_dead_speaker_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(ChildDiedError), Child("ingest.simulate.receiver", "{}") as child:
        child.until_ready(60)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_replay_keeps_times_values_and_order(tmp_path: Path, protocol: str, qos: int) -> None:
    file, points = _recording(tmp_path)
    with AckServer(receive_maximum=7) as server:
        report = replay(
            ReplayOptions(
                f"mqtt://127.0.0.1:{server.port}",
                file,
                points,
                tmp_path / "ledger",
                speed=0,
                qos=qos,  # type: ignore[arg-type]
                protocol=protocol,  # type: ignore[arg-type]
            )
        )
        _until(lambda: server.count == 900)
        assert report.sent == 900
        assert report.acked == (900 if qos else 0)
        sent = [(p.topic, json.loads(p.payload)) for p in server.seen]
    table = pl.read_parquet(file)
    assert sent == [(f"t/{p}", {"ts": int(t.timestamp() * 1000), "v": v}) for p, t, v in table.rows()], (
        "original times and values, in the recording's order"
    )
    assert len(ledger(tmp_path / "ledger")) == 900


def test_a_replay_goes_on_after_a_crash_without_losing_a_reading(tmp_path: Path) -> None:
    file, points = _recording(tmp_path)
    with AckServer() as server:
        done: list[int] = []
        options = ReplayOptions(
            f"mqtt://127.0.0.1:{server.port}",
            file,
            points,
            tmp_path / "ledger",
            speed=0,
            rate_max=900.0,
            inflight_max=40,
        )
        run = threading.Thread(target=lambda: done.append(replay(options).acked))
        run.start()
        _until(lambda: server.count > 300)
        server.drop_connections()
        run.join(60)
        assert done == [900]
        assert len(readings(server.seen)) == 900


def test_a_replay_takes_the_time_that_its_speed_says(tmp_path: Path) -> None:
    file, points = _recording(tmp_path)  # three points, one reading a second each: 300 s
    with AckServer() as server:
        target = f"mqtt://127.0.0.1:{server.port}"
        report = replay(ReplayOptions(target, file, points, tmp_path / "ledger", speed=300.0))
    assert report.acked == 900
    assert report.seconds >= 299 / 300


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """A real broker on a free port."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with subprocess.Popen([binary, "-c", str(config)], stderr=subprocess.DEVNULL) as broker:
        _until(lambda: _answers(port))
        yield port
        broker.terminate()


@pytest.mark.broker
@pytest.mark.parametrize("batch", [0, 5])
def test_a_real_broker_understands_every_packet(tmp_path: Path, mosquitto: int, batch: int) -> None:
    report = simulate(options(tmp_path, mosquitto, batch=batch, aiomqtt_share=0.2))
    assert report.produced == report.acked == len(ledger(tmp_path / "ledger")) == 120 * 10
    assert report.connects == 10


def _recording(folder: Path) -> tuple[Path, Path]:
    times = pl.datetime_range(
        pl.datetime(2020, 1, 1, time_zone="UTC"),
        pl.datetime(2020, 1, 1, 0, 4, 59, time_zone="UTC"),
        "1s",
        eager=True,
    )
    table = pl.concat(
        [
            pl.DataFrame({"point_id": [name] * 300, "time": times, "value": [i / 7 for i in range(300)]})
            for name in "abc"
        ]
    ).sort("time", "point_id")
    table.write_parquet(folder / "recording.parquet")
    (folder / "points.csv").write_text("point_id,kind,topic\n" + "".join(f"{p},k,t/{p}\n" for p in "abcd"))
    return folder / "recording.parquet", folder / "points.csv"


def _line(receiver: ReceiverOptions) -> str:
    return json.dumps({"log_file": receiver.log_file})


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(done: object, seconds_max: float = 60.0) -> None:
    """Watch for a condition of another thread or process; fails when it does not come about."""
    assert callable(done)
    limit = time.monotonic() + seconds_max
    while not done():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)
