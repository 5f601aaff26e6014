"""Commands under wrong, missing and hostile input: a sentence and an exit code, no trace, and nobody's files lost."""

from __future__ import annotations

import errno
import fcntl
import http.server
import json
import os
import resource
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest

from anomaly.alerts.outbox import Outbox
from ingest.commands import drill, quarantine, tap
from ingest.commands.common import ENGINE_FILE, Number, engine_vitals, plain
from ingest.simulate.recordings import load_readings
from ingest.simulate.run import parse_target
from ingest.simulate.systems.check import check as checked
from storage import query
from tests.engines import run_yuzui, yuzui_here
from tests.golden_folder import releases, unpack

EVIL = "[/red]\x1b[2J\x07"
"""Markup that rich refuses, and what clears a terminal."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config beside a data folder in which an engine has lived; its path holds a space."""
    folder = tmp_path_factory.mktemp("a site")
    assert yuzui_here("init", str(folder)).returncode == 0
    root = unpack(releases()[-1], folder)
    query.write_lake_sql(root, "Asia/Shanghai", 7200)
    return folder / "yuzui.toml"


@pytest.mark.parametrize(
    "line",
    [
        "alert log --limit 0",
        "alert list --limit -1",
        "outbox list --limit 0",
        "tap --count -1",
        "silence end 99999999999999999999 --by a --why b",
        "quarantine show 99999999999999999999999999999999999999999",
        "quarantine replay --id -1",
        "quarantine replay --wait-s nan",
        "drill --by me --wait-s inf",
        "simulate mqtt://127.0.0.1 --points-file pyproject.toml --hz 0",
        "simulate mqtt://127.0.0.1 --points-file pyproject.toml --seconds nan",
        "simulate mqtt://127.0.0.1 --points-file pyproject.toml --seed -1",
        "replay pyproject.toml mqtt://127.0.0.1 --points-file pyproject.toml --speed -1",
        "demo --hz 0",
        "demo --seed -1",
        "city make x --scale nan",
        "city speak . --seconds 0",
        "points generate --seed -1",
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_its_option(line: str) -> None:
    done = yuzui_here(*line.split())
    assert done.returncode == 2
    assert "Invalid value" in done.stderr
    assert not done.stdout


def test_a_number_that_is_none_lies_in_no_range() -> None:
    assert Number(0).convert("1e3", None, None) == 1000.0
    for text in ("nan", "inf", "-1"):
        with pytest.raises(click.BadParameter):
            Number(0).convert(text, None, None)


@pytest.mark.parametrize(
    "line",
    [
        "points propose --out /proc/none/x.csv",
        "source new park --out /proc/none/x.toml",
        "points generate --points 1 --out /proc/none/x.csv",
    ],
)
def test_a_file_that_cannot_be_written_is_one_line_with_its_name(site: Path, line: str) -> None:
    done = yuzui_here(*line.split(), env={"YUZUI_CONFIG": str(site)})
    assert done.returncode == 1
    assert done.stderr.startswith("Error: /proc/none")
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_outbox_is_one_line(tmp_path: Path) -> None:
    assert yuzui_here("init", str(tmp_path)).returncode == 0
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "outbox.db").write_bytes(b"no database" * 1000)
    done = yuzui_here("alert", "list", "-c", str(tmp_path / "yuzui.toml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: file is not a database\n"


def test_run_says_that_its_data_folder_cannot_be(tmp_path: Path) -> None:
    config = tmp_path / "yuzui.toml"
    config.write_text('[data]\ndir = "/proc/none/data"\n')
    done = run_yuzui("run", "-c", str(config))
    assert done.returncode == 2, "for a person to mend: systemd need not try again"
    assert done.stderr.startswith("Error: $.data.dir: ")
    assert "Traceback" not in done.stderr


def test_a_script_sees_by_the_code_that_a_statement_failed(site: Path) -> None:
    env = {"YUZUI_CONFIG": str(site)}
    done = yuzui_here(
        "sql", "--format", "json", stdin="SELECT 1 AS a;\nSELECT nope;\nSELECT 2 AS b;\n", env=env
    )
    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"a": 1}, {"b": 2}]
    assert "nope" in done.stderr
    assert yuzui_here("sql", stdin="SELECT 1;\n", env=env).returncode == 0


def test_text_of_strangers_is_shown_and_not_obeyed(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = EVIL.replace("'", "''")
    done = yuzui_here("sql", f"SELECT '{cell}' AS \"[/b]\"", env={"YUZUI_CONFIG": str(site)})
    assert done.returncode == 0
    assert "[/red]\N{REPLACEMENT CHARACTER}[2J" in done.stdout
    assert "[/b]" in done.stdout
    quarantine._table([{"topic": EVIL}])
    assert "[/red]\N{REPLACEMENT CHARACTER}[2J" in capsys.readouterr().out
    said = {"received_at": "now", "reason": "unknown_topic", "topic": EVIL, "detail": EVIL, "raw": EVIL}
    assert plain(tap._text(said).replace("\n", "")) == tap._text(said).replace("\n", "")


def test_an_answer_of_sql_keeps_its_numbers_and_all_of_its_columns(site: Path) -> None:
    env = {"YUZUI_CONFIG": str(site)}
    sql = "SELECT sum(2) AS n, 1.50::DECIMAL(9, 2) AS n, INTERVAL 1 DAY AS i, 'ab'::BLOB AS b, 'inf'::DOUBLE AS x"
    said = yuzui_here("sql", sql, "--format", "json", env=env).stdout
    assert json.loads(said) == {"n": 2, "n_1": 1.5, "i": "P0M1DT0S", "b": "6162", "x": None}
    assert yuzui_here("sql", "SELECT 1 AS a, 2 AS a", "--format", "csv", env=env).stdout == '"a","a_1"\n1,2\n'
    table = yuzui_here("sql", "SELECT 11 AS a, 22 AS a", env=env).stdout
    assert "11" in table
    assert "22" in table
    done = yuzui_here("sql", "SELECT [1] AS l", "--format", "csv", env=env)
    assert done.returncode == 2
    assert "--format json" in done.stderr


def test_an_answer_as_large_as_a_lake_comes_in_pieces(site: Path) -> None:
    """Two million rows of a kilobyte fit no small machine beside an engine; 200 of them are shown at once."""
    env = {"YUZUI_CONFIG": str(site)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shown = yuzui_here(
        "sql", "SELECT i, repeat('x', 1000) AS x FROM range(2_000_000) AS t(i)", env=env
    ).stdout
    assert "the first 200 rows" in shown
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kB"
    assert "the first" not in yuzui_here("sql", "SELECT * FROM range(200)", env=env).stdout
    late = "SELECT CAST(if(i = 9999, 'x', '1') AS INTEGER) AS n FROM range(20000) AS t(i)"
    half = yuzui_here("sql", "--format", "json", late, env=env)
    assert half.returncode == 2
    assert "Conversion Error" in half.stderr


@pytest.mark.parametrize(
    "line",
    [
        "report shift --until 0001-01-01",
        "report shift --until 9999-12-31T23:59:59-06:00",
        "outbox drop nope",
        "outbox retry nope",
        "sql --format csv SELECT",
    ],
)
def test_what_cannot_be_done_ends_with_two(site: Path, line: str) -> None:
    done = yuzui_here(*line.split(), env={"YUZUI_CONFIG": str(site)})
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_times_are_the_citys_wherever_a_command_runs(site: Path) -> None:
    """The map, the report and SQL say the city's; another hour in the list of alerts at night is one too many."""
    line = yuzui_here("alert", "list", "--limit", "1", "-c", str(site), env={"TZ": "America/New_York"}).stdout
    row = json.loads(yuzui_here("alert", "list", "--limit", "1", "--json", "-c", str(site)).stdout)
    at = datetime.fromtimestamp(row["onset"] / 1e6, ZoneInfo("Asia/Shanghai"))
    assert at.strftime("%m-%d %H:%M:%S") in line


def test_a_drill_that_is_broken_off_ends(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(site.parent / "data" / "outbox.db", [])
    before = len(outbox.alerts(open_only=True))

    def broken_off(*_: object) -> bool:
        assert len(outbox.alerts(open_only=True)) == before + 1
        raise KeyboardInterrupt

    monkeypatch.setattr(drill, "engine_vitals", lambda _: {})
    monkeypatch.setattr(drill, "_delivered", broken_off)
    done = yuzui_here("drill", "--by", "me", "-c", str(site))
    assert done.returncode == 130
    assert len(outbox.alerts(open_only=True)) == before, "nothing stands for ever"


class _Health(http.server.BaseHTTPRequestHandler):
    """/healthz of an engine."""

    def do_GET(self) -> None:
        body = json.dumps({"pid": os.getpid(), "not_ready": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Stranger(_Health):
    """Something else that took the port."""

    def do_GET(self) -> None:
        self.wfile.write(b"SSH-2.0-no http\r\n")


class _List(_Health):
    """HTTP, but not ours."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[1]")


@pytest.fixture
def port_of(tmp_path: Path) -> Iterator[object]:
    servers = []

    def serve(handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        engine = {"pid": os.getpid(), "ops_host": "127.0.0.1", "ops_port": server.server_port}
        (tmp_path / ENGINE_FILE).write_text(json.dumps(engine))

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_engine_is_asked_past_a_proxy_and_strangers_are_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port_of: object
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert callable(port_of)
    port_of(_Health)
    assert engine_vitals(tmp_path) == {"pid": os.getpid(), "not_ready": []}
    for other in (_Stranger, _List):
        port_of(other)
        assert engine_vitals(tmp_path) is None


def test_how_the_engine_is_can_be_asked_while_somebody_types_into_its_config(tmp_path: Path) -> None:
    """At three in the morning, or by a container's health check: the engine goes on with what it has read."""
    config = tmp_path / "half.toml"
    config.write_text('[data]\ndir = "."\n[kinds.x]\nlevel_bleu = 1.0\n')
    done = yuzui_here("status", "-c", str(config))
    assert done.returncode == 3
    assert "no engine answers" in done.stdout
    assert "1 fault(s): `yuzui check`" in done.stderr
    config.write_text("[data\n")
    assert yuzui_here("status", "-c", str(config)).returncode == 2
    done = yuzui_here("status", "-c", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert "yuzui init" in done.stderr


def test_a_data_folder_of_another_user_is_not_one_without_an_engine(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def refused(self: Path, *how: str) -> str:
        if self.name == ENGINE_FILE:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read_text(self, *how)

    monkeypatch.setattr(Path, "read_text", refused)
    done = yuzui_here("status", "-c", str(site))
    assert done.returncode == 2
    assert "run it as the engine's user" in done.stderr


@pytest.fixture
def guarded(tmp_path: Path) -> Path:
    assert yuzui_here("init", str(tmp_path)).returncode == 0
    config = tmp_path / "yuzui.toml"
    text = config.read_text("utf-8").replace("[listener]", '[listener]\ncredentials_file = "who.toml"')
    config.write_text(f'{text}\n[console]\nenabled = true\nusers_file = "users.toml"\n', "utf-8")
    return config


def test_check_says_that_nobody_may_look_at_the_map_yet(
    guarded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Planning the saved queries takes seconds, and is not what is asked here.
    monkeypatch.setattr("console.querytrial.try_queries", lambda *_: (0, []))
    env = {"YUZUI_CONFIG": str(guarded)}
    (guarded.parent / "who.toml").touch()
    done = yuzui_here("check", env=env)
    assert done.returncode == 2
    assert "$.console.users_file" in done.stderr
    assert "yuzui console user add" in done.stderr
    assert yuzui_here("console", "user", "add", "wang", "--password", "long enough", env=env).returncode == 0
    assert yuzui_here("check", env=env).returncode == 0


def test_a_user_somebody_added_while_a_password_was_typed_keeps_theirs(
    guarded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"YUZUI_CONFIG": str(guarded)}
    users = guarded.parent / "users.toml"
    theirs = '[[user]]\nname = "wang"\nrole = "view"\npassword = "x"\n'
    monkeypatch.setattr("ingest.commands.console.refuse_password", lambda *_: users.write_text(theirs))
    done = yuzui_here("console", "user", "add", "wang", "--password", "long enough", env=env)
    assert (done.returncode, users.read_text()) == (2, theirs)
    assert "wang is there already" in done.stderr


def test_check_tells_a_machine_of_a_config_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[lisener]\n")
    done = yuzui_here("check", "-c", str(tmp_path / "c.toml"), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["fault_lines"] == ['$.lisener: unknown key (did you mean "listener"?)']


def test_check_warns_of_a_route_for_what_is_not_there(tmp_path: Path) -> None:
    assert yuzui_here("init", str(tmp_path)).returncode == 0
    config = tmp_path / "yuzui.toml"
    route = '\n[[route]]\nname = "r"\nkinds = ["river_level", "river_levle"]\ndistricts = ["nowhere"]\n'
    config.write_text(config.read_text("utf-8") + route, "utf-8")
    done = yuzui_here("check", "-c", str(config), "--json")
    assert done.returncode == 0, "a slip perhaps, and no fault"
    assert [line for line in json.loads(done.stdout)["warnings"] if "route" in line] == [
        '$.route[0].kinds: no point of the registry has "river_levle"',
        '$.route[0].districts: no point of the registry has "nowhere"',
    ]


def test_who_may_come_in_stays_readable_for_whom_it_was(guarded: Path) -> None:
    """The engine's group may read the file; a new name must not shut the engine out."""
    env = {"YUZUI_CONFIG": str(guarded)}
    for words, name in (
        (("credential", "add", "{}", "--publish", "a/#", "--password", "p"), "who.toml"),
        (("console", "user", "add", "{}", "--password", "long enough"), "users.toml"),
    ):
        file = guarded.parent / name
        for who in ("first", "second"):
            assert yuzui_here(*(word.format(who) for word in words), env=env).returncode == 0
            assert file.stat().st_mode & 0o777 == (0o600 if who == "first" else 0o640)
            file.chmod(0o640)
            if os.geteuid() == 0:
                assert who == "first" or file.stat().st_gid == 4321
                os.chown(file, 4321, 4321)
        before = file.read_bytes()
        assert yuzui_here(*(word.format("third") for word in words[:-1]), "p" * 1025, env=env).returncode == 2
        assert file.read_bytes() == before, "nobody could ever log in with it"
    done = yuzui_here("console", "user", "add", "x" * 101, "--password", "long enough", env=env)
    assert done.returncode == 2
    assert file.read_bytes() == before, "an engine would refuse the whole file"


def test_two_who_edit_a_file_at_once_both_stand_in_it(guarded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has read no other writes over: gateways are set up by scripts, several at once."""
    held = []

    def replaced(tmp: Path, final: Path) -> None:
        fd = os.open(guarded.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        held.append(final.name)
        os.replace(tmp, final)

    monkeypatch.setattr("ingest.commands.common.replace_durably", replaced)
    monkeypatch.setattr("ingest.points.replace_durably", replaced)
    for line in (
        "credential add g --publish a/# --password p",
        "console user add wang --password longenough1",
        "console user remove wang",
        "points add --point-id p --source example --kind rain_gauge --topic t/p",
        "points retire p",
    ):
        assert yuzui_here(*line.split(), env={"YUZUI_CONFIG": str(guarded)}).returncode == 0, line
    assert held == ["who.toml", "users.toml", "users.toml", "points.csv", "points.csv"]


def test_nobodys_folder_is_emptied_for_a_made_up_city(site: Path) -> None:

    def there() -> list[Path]:
        # Without SQLite's own files beside the outbox: they go with its last reader.
        return sorted(path for path in site.parent.rglob("*") if not path.name.startswith("outbox.db-"))

    before = there()
    for words in (("demo", "--folder"), ("city", "make", "--scale", "0.001")):
        done = yuzui_here(*words, str(site.parent))
        assert done.returncode == 2
        assert "another" in done.stderr
    assert there() == before


def test_what_is_to_be_typed_next_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    assert f"run -c '{folder}/yuzui.toml'" in yuzui_here("init", str(folder), "--service").stdout
    assert f'run -c "{folder}/yuzui.toml"\n' in (folder / "yuzui.service").read_text("utf-8")


def test_a_recording_keeps_its_names_and_says_what_is_no_time(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text("point_id,time,value\n007,2026-07-01T00:00:00,1\n")
    assert load_readings(file)["point_id"].to_list() == ["007"]
    file.write_text("point_id,time,value\n007,1790000000,1\n")
    with pytest.raises(ValueError, match="time: expected ISO 8601"):
        load_readings(file)


@pytest.mark.parametrize("target", ["mqtt://nowhere.invalid", "mqtt://127.0.0.1:99999"])
def test_a_target_that_cannot_be_is_a_sentence(target: str) -> None:
    with pytest.raises(ValueError):
        parse_target(target, drill=False)


def test_a_recording_sent_to_nobody_ends_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.simulate.replay.FIRST_S_MAX", 0.0)
    (tmp_path / "r.csv").write_text("point_id,time,value\na,2026-07-01T00:00:00,1\n")
    (tmp_path / "p.csv").write_text("point_id,kind,topic\na,k,t/a\n")
    done = yuzui_here(
        "replay", str(tmp_path / "r.csv"), "mqtt://127.0.0.1:9", "--points-file", str(tmp_path / "p.csv"),
        "--ledger", str(tmp_path / "ledger"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "nobody answers" in done.stderr


@pytest.mark.parametrize(("time", "unit"), [("nan", "auto"), ("1790000000000000000", "s")])
def test_a_backtest_says_what_is_no_time(tmp_path: Path, time: str, unit: str) -> None:
    readings = tmp_path / "r.csv"
    readings.write_text(f"point_id,time,value\na,{time},1\n")
    for out in ("out.csv", "r.csv"):
        done = yuzui_here(
            "backtest", "--readings", str(readings), "--out", str(tmp_path / out), "--time-unit", unit
        )
        assert done.returncode == 2
        assert ("time: " in done.stderr) == (out == "out.csv")
    assert readings.read_text().endswith(f"a,{time},1\n"), "what is read is never written over"


def test_a_registry_in_parquet_may_say_retired_as_text(tmp_path: Path) -> None:
    import polars as pl

    assert yuzui_here("init", str(tmp_path)).returncode == 0
    config = tmp_path / "yuzui.toml"
    config.write_text(config.read_text("utf-8").replace("points.csv", "points.parquet"), "utf-8")
    table = pl.read_csv(tmp_path / "points.csv")
    table.with_columns(retired=pl.Series(["true", None])).write_parquet(tmp_path / "points.parquet")
    if os.geteuid() == 0:
        os.chown(tmp_path / "points.parquet", 4321, 4321)
    done = yuzui_here("points", "retire", "rain-1", "-c", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert pl.read_parquet(tmp_path / "points.parquet")["retired"].to_list() == [True, True]
    assert os.geteuid() or (tmp_path / "points.parquet").stat().st_gid == 4321, "whoever could read it can"
    (tmp_path / "points.parquet").write_bytes(b"no Parquet")
    done = yuzui_here("points", "retire", "rain-1", "-c", str(config))
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_a_value_the_lake_lost_is_a_wrong_one(tmp_path: Path) -> None:
    import polars as pl

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lake.sql").write_text(
        "CREATE VIEW yuzui_now AS SELECT 1 AS snapshot; CREATE TABLE quarantine (source VARCHAR);"
        "CREATE TABLE readings AS SELECT 'a' AS point_id, make_timestamptz(0::BIGINT) AS time, NULL::DOUBLE AS value,"
        " 's' AS source; CREATE TABLE event_log (id VARCHAR, source VARCHAR, state VARCHAR, time TIMESTAMPTZ);"
    )
    (tmp_path / "ledger").mkdir()
    said = pl.DataFrame({"point_id": ["a"], "time": [0], "value": [1.5]})
    said = said.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    said.write_parquet(tmp_path / "ledger" / "readings.parquet")
    steps = {"source": pl.String, "id": pl.String, "state": pl.String, "time": pl.Int64}
    pl.DataFrame(schema=steps).write_parquet(tmp_path / "ledger" / "steps.parquet")
    found = checked(tmp_path, patience_s=0)
    assert (found.ledger, found.stored, found.lost, found.wrong) == (1, 1, 0, 1)
    assert not found.good
