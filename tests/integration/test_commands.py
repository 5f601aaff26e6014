"""Every command as a person types it, against a running engine with a real webhook receiver behind it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ingest.cli import COMMANDS
from tests.engines import ROOT, EngineProcess, free_port, run_yuzui, site_config, until, yuzui_here
from tests.talk import Talker

_HELP = """
import sys
import click
from ingest.cli import COMMANDS, cli
for name in COMMANDS:
    print(">>>", name)
    cli.main([name, "--help"], standalone_mode=False)
    heavy = {"duckdb", "pyarrow", "polars", "deltalake", "aiohttp", "numpy"} & set(sys.modules)
    assert not heavy, f"{name} --help imports {heavy}"
"""


class Receiver(threading.Thread):
    """A webhook receiver: ``answers`` gives the status by path, ``bodies`` keeps what was answered 2xx."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.port = free_port()
        self.answers = {"/duty": 200, "/gone": 410}
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    async def _hear(self, request: web.Request) -> web.Response:
        status = self.answers[request.path]
        if status < 300:
            self.bodies.append((request.path, await request.json()))
        return web.Response(status=status)

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/{name}", self._hear)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self._ready.set()
        self._leave = asyncio.Event()
        await self._leave.wait()
        await runner.cleanup()

    def run(self) -> None:
        """Thread body."""
        self._loop.run_until_complete(self._serve())

    def __enter__(self) -> Receiver:
        self.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self.join(10)
        self._loop.close()

    def told(self, path: str, kind: str) -> list[dict[str, Any]]:
        """Bodies of one type that ``path`` took."""
        return [body for at, body in self.bodies if at == path and body["type"] == kind]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One receiver for the module."""
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[EngineProcess]:
    """One engine with two webhooks: one answers, the other says 410."""
    folder = tmp_path_factory.mktemp("commands")
    webhooks = "".join(
        f'[[webhook]]\nname = "{name}"\nurl = "http://127.0.0.1:{receiver.port}/{name}"\n'
        for name in ("duty", "gone")
    )
    points = {"g0": ["a", "b", "flood", "untimed", "old"]}
    config = site_config(folder, points, kinds={"flood": "level"}, on_receipt=["untimed"], more=webhooks)
    running = EngineProcess(folder, config).start()
    yield running
    running.stop()


def yuzui(engine: EngineProcess, *arguments: str, code: int = 0, **more: Any) -> str:
    """Standard output of a command on the engine's config; it must end with ``code`` and without a traceback."""
    done = yuzui_here(*arguments, "-c", str(engine.config), **more)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def say(engine: EngineProcess, topic: str, value: float, time_ms: int | None = None) -> int:
    """One acknowledged reading; its time."""
    at = time_ms or time.time_ns() // 1_000_000
    with Talker(engine.port) as gateway:
        gateway.say(topic, json.dumps({"ts": at, "v": value}).encode())
    return at


def test_every_command_helps_without_loading_what_it_does_not_need() -> None:
    """--help of all commands in one process: exit code 0, and no database, Arrow or HTTP library is imported."""
    done = subprocess.run(
        [sys.executable, "-c", _HELP], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    parts = done.stdout.split(">>> ")[1:]
    assert [part.split("\n", 1)[0] for part in parts] == list(COMMANDS)
    for part in parts:
        assert "Usage:" in part
        assert "--help" in part


def test_what_a_person_can_mend_is_said_in_one_line_with_exit_2(tmp_path: Path) -> None:
    for arguments in (
        ["nonsense"],
        ["status", "-c", str(tmp_path / "none.toml")],
        ["status", "--nonsense"],
        ["tap", "x"],
    ):
        done = run_yuzui(*arguments)
        assert done.returncode == 2, arguments
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr


def test_version_names_what_decides_files_and_speed() -> None:
    found = json.loads(yuzui_here("version", "--json").stdout)
    assert {"yuzui", "python", "duckdb", "pyarrow"} <= set(found)
    assert run_yuzui("version").stdout.splitlines()[0].split() == ["python", found["python"]]


def test_check_says_what_a_config_holds_and_needs_no_engine(engine: EngineProcess) -> None:
    assert "config is right: 5 points of 2 kinds" in yuzui(engine, "check")
    told = json.loads(yuzui(engine, "check", "--json"))
    assert (told["points"], told["faults"], told["webhooks"]) == (5, 0, ["duty", "gone"])


def test_check_says_all_faults_at_once_each_with_its_path(engine: EngineProcess, tmp_path: Path) -> None:
    """Config faults, then those of the registry with their lines: exit code 2 both times."""
    config = tmp_path / "yuzui.toml"
    good = engine.config.read_text()
    config.write_text(
        good.replace("port = 0", 'port = "abc"', 1).replace("Asia/Shanghai", "Asia/Nowhere")
        + "\n[nonsense]\n"
    )
    done = yuzui_here("check", "-c", str(config))
    assert done.returncode == 2
    for path in ("$.listener.port", "$.city.time_zone", "$.nonsense"):
        assert path in done.stderr, done.stderr
    config.write_text(good)
    rows = (engine.folder / "points.csv").read_text().splitlines()
    rows[2] = rows[2].replace(",site,", ",elsewhere,")
    rows += [rows[1], "c,,g0,site,plain,cm,t/+/c,0,device"]
    (tmp_path / "points.csv").write_text("\n".join(rows) + "\n")
    done = yuzui_here("check", "-c", str(config))
    assert done.returncode == 2
    for line in ("line 3", "line 7", "line 8"):
        assert line in done.stderr, done.stderr
    told = yuzui_here("check", "-c", str(config), "--json")
    assert told.returncode == 2
    assert json.loads(told.stdout)["faults"] >= 3


def test_status_is_one_line_and_an_exit_code(engine: EngineProcess, tmp_path: Path) -> None:
    """0 all is well · 1 running but not ready (a broker that is down) · 3 no engine. doctor sees the same broker."""
    line = yuzui(engine, "status")
    assert line.startswith("ok · ")
    assert line.count("\n") == 1
    assert json.loads(yuzui(engine, "status", "--json"))["points"] == 5
    more = (
        f'[[subscriber]]\nname = "away"\nurl = "mqtt://127.0.0.1:{free_port()}"\nfilters = ["t/#"]\n'
        "reconnect_s_max = 0.5\n"
    )
    other = EngineProcess(tmp_path, site_config(tmp_path, {"g": ["p"]}, more=more))
    assert "no engine" in yuzui(other, "status", code=3)
    assert json.loads(yuzui(other, "status", "--json", code=3)) == {}
    other.start(wait=False)
    try:
        other.ready(503)
        assert yuzui(other, "status", code=1).startswith("NOT READY: link away/1 is down")
        found = {
            f["subject"]: f for f in map(json.loads, yuzui(other, "doctor", "--json", code=1).splitlines())
        }
        assert not found["broker away"]["well"]
        assert "refused" in found["broker away"]["figure"]
        assert not found["engine"]["well"]
    finally:
        assert other.stop() == 0
    # A file left by a kill, whose port another engine has now, is no engine of this folder.
    ports = engine.ports()
    assert ports is not None
    (other.data / "engine.json").write_text(json.dumps(ports | {"pid": ports["pid"] + 1}))
    yuzui(other, "status", code=3)


def test_doctor_measures_and_names_sources_without_times(engine: EngineProcess) -> None:
    done = yuzui_here("doctor", "-c", str(engine.config), "--json")
    found = {f["subject"]: f for f in map(json.loads, done.stdout.splitlines())}
    assert {"disk fsync", "disk room", "disk days", "clock", "open files", "times", "engine"} == set(found)
    assert found["engine"]["figure"] == "ready"
    assert found["times"]["figure"].endswith(": site")
    # How this machine is, is not ours to say: a disk that others use is slow for a moment.
    machine = {"disk fsync", "disk room", "disk days", "clock", "open files"}
    assert {name for name, one in found.items() if not one["well"]} <= machine
    assert done.returncode == any(not one["well"] for one in found.values())
    done = yuzui_here("doctor", "-c", str(engine.config))
    assert done.returncode == any(not line.startswith("ok ") for line in done.stdout.splitlines())


def test_tap_shows_readings_and_refusals_from_the_start_or_as_they_arrive(engine: EngineProcess) -> None:
    at = say(engine, "t/g0/a", 1.5)
    with Talker(engine.port) as gateway:
        gateway.say("t/g0/a", b"{")
    [line] = yuzui(engine, "tap", "--from-start", "--count", "1", "--point", "a", "--json").splitlines()
    told = json.loads(line)
    assert (told["point_id"], told["value"], told["unit"]) == ("a", 1.5, "cm")
    assert told["time"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at / 1000)))
    [line] = yuzui(engine, "tap", "--from-start", "--count", "1", "--quarantine", "--json").splitlines()
    told = json.loads(line)
    assert (told["reason"], told["topic"], told["raw"]) == ("bad_json", "t/g0/a", "{")
    text = yuzui(engine, "tap", "--from-start", "--count", "1", "--quarantine")
    assert "bad_json" in text
    assert "RFC 8259" in text
    live = subprocess.Popen(
        [sys.executable, "-m", "ingest.cli", "tap", "-c", str(engine.config), "--point", "b", "--count", "2"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    # It shows what arrives from its start on; when that is, only it knows.
    until(
        lambda: live.poll() is not None or (say(engine, "t/g0/b", 7.25), False)[1],
        "tap ends after two readings",
    )
    assert live.stdout is not None
    lines = live.stdout.read().splitlines()
    assert live.returncode == 0
    assert [line.split()[1:] for line in lines] == [["b", "7.25", "cm"]] * 2


def test_sql_answers_as_table_csv_and_json_and_says_errors_in_one_line(engine: EngineProcess) -> None:
    at = say(engine, "t/g0/a", 2.5)
    query = f"SELECT point_id, value, epoch_ms(time) AS ms FROM readings WHERE epoch_ms(time) = {at}"
    engine.until_lake(query, [("a", 2.5, at)])
    assert yuzui(engine, "sql", query, "--format", "csv").splitlines() == [
        '"point_id","value","ms"',
        f'"a",2.5,{at}',
    ]
    assert json.loads(yuzui(engine, "sql", query, "--format", "json")) == {
        "point_id": "a",
        "value": 2.5,
        "ms": at,
    }
    table = yuzui(engine, "sql", query)
    assert "point_id" in table
    assert str(at) in table
    done = yuzui_here("sql", "-c", str(engine.config), "SELECT nonsense FROM readings")
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr
    piped = yuzui_here(
        "sql", "--data", str(engine.data), "--format", "csv",
        stdin="SELECT 1 AS one;\nCREATE TABLE t AS\nSELECT 41 AS x;\nSELECT broken;\nUPDATE t SET x = 42;\nFROM t;\n",
    )  # fmt: skip
    assert piped.returncode == 1, "all the others are answered, and a script sees that one failed"
    assert "error: " in piped.stderr
    assert piped.stdout.splitlines()[:2] == ['"one"', "1"]
    assert piped.stdout.splitlines()[-2:] == ['"x"', "42"]


def test_an_alert_is_listed_shown_and_delivered_and_a_dead_letter_is_sent_again_or_dropped(
    engine: EngineProcess, receiver: Receiver
) -> None:
    """flood rises to yellow: `duty` is called; `gone` says 410 and stays uncalled until `outbox retry`."""
    at = say(engine, "t/g0/flood", 5.0)
    say(engine, "t/g0/flood", 17.0, at + 10)
    until(lambda: receiver.told("/duty", "alert.firing"), "webhook called")
    [alert] = [json.loads(line) for line in yuzui(engine, "alert", "list", "--open", "--json").splitlines()]
    assert (alert["point_id"], alert["type"], alert["severity"], alert["value"]) == (
        "flood",
        "firing",
        2,
        17.0,
    )
    body = receiver.told("/duty", "alert.firing")[0]
    assert alert["id"] in json.dumps(body)
    assert alert["id"] in yuzui(engine, "alert", "list")
    until(lambda: "1 dead" in yuzui(engine, "outbox", "list"), "the other's letter is dead")
    shown = yuzui(engine, "alert", "show", alert["id"])
    assert "to duty: sent after 1 attempts" in shown
    assert "to gone: dead" in shown
    assert json.loads(yuzui(engine, "alert", "show", alert["id"], "--json"))["id"] == alert["id"]
    yuzui(engine, "alert", "show", "nobody", code=2)
    assert yuzui(engine, "alert", "test", "--target", "duty") == "duty: answered 2xx\n"
    assert len(receiver.told("/duty", "test")) == 1
    yuzui(engine, "alert", "test", "--target", "nobody", code=2)
    receiver.answers["/gone"] = 200
    assert yuzui(engine, "outbox", "retry", "--all") == "1 queued again\n"
    until(lambda: receiver.told("/gone", "alert.firing"), "the dead letter arrives")
    assert receiver.told("/gone", "alert.firing") == [body]
    until(lambda: "0 dead" in yuzui(engine, "outbox", "list"), "it is settled")
    receiver.answers["/gone"] = 410
    assert "gone: status_410" in yuzui(engine, "alert", "test", code=1)
    letters = [
        json.loads(x) for x in yuzui(engine, "outbox", "list", "--state", "dead", "--json").splitlines()
    ]
    assert [(x["target"], x["type"]) for x in letters] == [("gone", "test")]
    assert yuzui(engine, "outbox", "drop", letters[0]["webhook_id"]) == "1 dropped\n"
    assert "1 dropped" in yuzui(engine, "outbox", "list")
    yuzui(engine, "outbox", "retry", code=2)
    say(engine, "t/g0/flood", 1.0, at + 20)
    until(lambda: yuzui(engine, "alert", "list", "--open") == "no alerts\n", "the flood is over")


def test_unknown_points_are_proposed_added_and_retired(engine: EngineProcess) -> None:
    """What quarantine saw of a stranger becomes a row; added it is a point. A retired one is refused, its past kept."""
    say(engine, "t/g0/old", 3.5)
    with Talker(engine.port) as gateway:
        gateway.say("t/g0/stranger", b'{"ts":1,"v":2.5}')
    engine.until_lake("SELECT count(*) FROM quarantine WHERE topic = 't/g0/stranger'", [(1,)])
    proposal = yuzui(engine, "points", "propose")
    rows = list(
        csv.DictReader(io.StringIO("".join(x + "\n" for x in proposal.splitlines() if not x.startswith("#"))))
    )
    [row] = [r for r in rows if r["topic"] == "t/g0/stranger"]
    assert row["source"] == "site"
    out = engine.folder / "proposed.csv"
    assert "proposed in" in yuzui(engine, "points", "propose", "--out", str(out))
    assert out.read_text() == proposal
    wanted = ["--point-id", "stranger", "--source", "site", "--kind", "plain", "--topic", "t/g0/stranger"]
    assert "6 points" in yuzui(engine, "points", "add", *wanted)
    before = (engine.folder / "points.csv").read_bytes()
    yuzui(engine, "points", "add", *wanted, code=2)
    yuzui(engine, "points", "retire", "nobody", code=2)
    assert (engine.folder / "points.csv").read_bytes() == before
    assert "retired 1; 5 live points" in yuzui(engine, "points", "retire", "old")
    assert engine.stop() == 0
    engine.start()
    at = say(engine, "t/g0/stranger", 6.5)
    with Talker(engine.port, v5=True) as gateway:
        assert gateway.say("t/g0/old", json.dumps({"ts": at, "v": 7.5}).encode()) == 0x90
    engine.until_lake("SELECT point_id, epoch_ms(time) FROM readings WHERE value = 6.5", [("stranger", at)])
    engine.until_lake("SELECT topic FROM quarantine WHERE reason = 'retired_point'", [("t/g0/old",)])
    assert engine.lake("SELECT value FROM readings WHERE point_id = 'old'") == [(3.5,)]


def test_a_credential_that_was_added_logs_in_and_nobody_else_does(tmp_path: Path) -> None:
    """The file is missing: one line, exit 2. Added: the password opens, for its own topics; another does not."""
    listener = 'credentials_file = "credentials.toml"\nanonymous = false'
    engine = EngineProcess(tmp_path, site_config(tmp_path, {"g0": ["a"], "g1": ["b"]}, listener=listener))
    refused = run_yuzui("run", "-c", str(engine.config))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "credentials_file" in refused.stderr
    assert "credential add" in yuzui_here("check", "-c", str(engine.config)).stderr
    env = {"YUZUI_CREDENTIAL_PASSWORD": "s3cret"}
    assert "added gw" in yuzui(engine, "credential", "add", "gw", "--publish", "t/g0/#", env=env)
    yuzui(engine, "credential", "add", "gw", "--publish", "t/g0/#", env=env, code=2)
    yuzui(engine, "credential", "add", "other", "--publish", "t/#/x", env=env, code=2)
    text = (tmp_path / "credentials.toml").read_text()
    assert "s3cret" not in text
    assert text.count("[[credential]]") == 1
    assert (tmp_path / "credentials.toml").stat().st_mode & 0o777 == 0o600
    yuzui(engine, "check")
    engine.start()
    try:
        with Talker(engine.port, v5=True, user="gw", password="s3cret") as gateway:
            now = time.time_ns() // 1_000_000
            assert gateway.say("t/g0/a", b'{"ts":%d,"v":1.0}' % now) == 0
            assert gateway.say("t/g1/b", b'{"ts":%d,"v":1.0}' % now) == 0x87
        for user, password in (("gw", "wrong"), ("nobody", "s3cret"), (None, None)):
            with pytest.raises(ConnectionRefusedError):
                Talker(engine.port, v5=True, user=user, password=password)
        engine.until_lake("SELECT point_id, value FROM readings", [("a", 1.0)])
    finally:
        assert engine.stop() == 0
