"""The wheel in an empty environment far from the checkout: every command is used there, and the demo runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ingest.cli import COMMANDS
from tests.engines import ROOT, until
from tests.talk import Talker

_HELPS = """
import json, sys
import click
import ingest
from ingest.cli import COMMANDS, cli
for name in COMMANDS:
    cli.main([name, "--help"], standalone_mode=False)
print(json.dumps([ingest.__file__, list(COMMANDS), [p for p in sys.path if p]]))
"""
_RUN = """
import contextlib, io, json, sys
from ingest.cli import main
told = []
for words in json.load(sys.stdin):
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
    sys.argv = ["yuzui", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as leave:
            code = leave.code
    told.append([words, code, out.buffer.getvalue().decode(), err.getvalue()])
print(json.dumps(told))
"""
ANY = -1
"""Of `doctor`: what it finds is this machine's."""
_NO_NUMBA = 'raise ImportError("not in this environment: the wheel works without the extra")\n'


class Place:
    """An environment with the wheel and what it leans on, and nothing of the checkout; numba is not in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "elsewhere"
        self.home.mkdir()
        wheels = folder / "wheels"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        self._do(
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            str(wheels),
            str(ROOT),
            cwd=ROOT,
        )
        [self.wheel] = wheels.glob("yuzui-*.whl")
        self._do(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
        self.python = folder / "venv" / "bin" / "python"
        site = Path(self._do(str(self.python), "-c", "import site; print(site.getsitepackages()[0])").strip())
        self._do(
            *pip,
            "--python",
            str(self.python),
            "install",
            "--no-deps",
            "--no-index",
            "--no-compile",
            str(self.wheel),
        )
        # Paths only: what a .pth in them would add, such as an editable install, is not followed.
        present = [path for path in sys.path if path.endswith("site-packages")]
        (site / "lean-on.pth").write_text("\n".join(present) + "\n")
        (site / "numba.py").write_text(_NO_NUMBA)
        self.yuzui = self.python.with_name("yuzui")

    def env(self) -> dict[str, str]:
        """A stranger's: no path of ours in it."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        return {**kept, "PATH": "/usr/bin:/bin", "HOME": str(self.home)}

    def _do(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command, cwd=cwd or self.home, capture_output=True, text=True, check=False, timeout=400
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def script(self, code: str, stdin: str = "") -> Any:
        """Last line of a script's output, from JSON."""
        done = subprocess.run(
            [str(self.python), "-c", code], cwd=self.home, env=self.env(), input=stdin, capture_output=True,
            text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    def use(self, *commands: tuple[str, int]) -> set[str]:
        """Commands one after the other, each with the exit code it must have; their names."""
        told = self.script(_RUN, json.dumps([words.split() for words, _ in commands]))
        wrong = []
        for (words, code), (_, found, out, err) in zip(commands, told, strict=True):
            well = found == code or (code == ANY and found in (0, 1))
            if not well or "Traceback" in err or str(ROOT) in out + err:
                wrong.append(f"yuzui {words}: {found}\n{out[-500:]}\n{err[-1500:]}")
        assert not wrong, "\n".join(wrong)
        return {words.split()[0] for words, _ in commands}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One for the module."""
    return Place(tmp_path_factory.mktemp("wheel"))


def test_the_saved_queries_and_the_rooms_come_along(place: Place) -> None:
    names = zipfile.ZipFile(place.wheel).namelist()
    shipped = {path.name for path in (ROOT / "configs" / "queries").glob("*.sql")}
    assert {name.rpartition("/")[2] for name in names if name.startswith("console/queries/")} == shipped
    assert {"console/static/rooms.js", "console/static/duty.html"} <= set(names)


def test_it_is_installed_far_from_the_checkout_and_every_command_helps(place: Place) -> None:
    where, commands, path = place.script(_HELPS)
    assert Path(where).is_relative_to(place.folder)
    assert commands == list(COMMANDS)
    assert str(ROOT) not in path


def test_the_demo_runs_from_the_wheel_alone(place: Place) -> None:
    done = subprocess.run(
        [str(place.yuzui), "demo", "--points", "300", "--seconds", "3", "--no-map", "--json"],
        cwd=place.home, env=place.env(), capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["sent"] == result["stored"] == 900
    assert (result["lost"], result["duplicates"]) == (0, 0)


def test_every_command_does_its_work_beside_a_running_engine_made_by_init(place: Place) -> None:
    used = place.use(
        ("version --json", 0), ("warm", 0), ("init site --listener-port 0 --ops-port 0 --service", 0), ("init site", 2),
        ("check -c site/yuzui.toml", 0),
    )  # fmt: skip
    config, home = "-c site/yuzui.toml", place.home
    (home / "captured.json").write_text(
        '{"station": "PK-7", "when": "2026-07-01 08:15:00", "data": {"mm": 182}}'
    )
    (home / "recorded.csv").write_text("point_id,time,value\nlevel-1,2026-11-27T08:00:00Z,3.1\n")
    engine = subprocess.Popen(
        [str(place.yuzui), "run", "-c", "site/yuzui.toml"],
        cwd=home, env=place.env(), stdout=subprocess.DEVNULL, stderr=(home / "log").open("wb"),
    )  # fmt: skip
    try:
        ports = home / "site" / "data" / "engine.json"
        until(lambda: ports.exists() or engine.poll() is not None, "the engine runs")
        assert engine.poll() is None, (home / "log").read_text()[-2000:]
        port = json.loads(ports.read_text())["listener"][1]
        with Talker(port) as gateway:
            now = time.time_ns() // 1_000_000
            gateway.say("site/gw-1/level-1", json.dumps({"ts": now, "v": 3.62}).encode())
            gateway.say("site/gw-1/stranger", b"{}")
        until(lambda: place.use((f"status {config}", 0)), "it is well")
        target = f"mqtt://127.0.0.1:{port}"
        used |= {"run"} | place.use(
            (f"status {config} --sources", 0), (f"tap {config} --from-start --count 1", 0),
            (f"points add {config} --point-id rain-2 --source example --kind rain_gauge --unit mm --gateway-id gw-1 "
             "--topic site/gw-1/rain-2", 0),
            (f"reload {config}", 0), (f"source list {config}", 0),
            (f"source new park {config} --message captured.json", 0),
            (f"simulate {target} --points-file site/points.csv --seconds 1 --json --aiomqtt-share 0", 0),
            (f"replay recorded.csv {target} --points-file site/points.csv --json", 0),
            (f"quarantine list {config}", 0), (f"sql {config} SELECT(count(*))FROM(readings)", 0),
            (f"alert list {config} --json", 0), (f"silence list {config}", 0), (f"outbox list {config}", 0),
            (f"report shift {config}", 0), (f"audit {config} --verify", 0), ("rules list", 0), (f"doctor {config}", -1),
            (f"backup copies {config}", 0), ("verify copies", 0),
        )  # fmt: skip
    finally:
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(30) == 0
    used |= place.use(
        (f"status {config}", 3), ("restore copies --to restored", 0), ("scrub --data site/data --fast", 0),
        ("backtest --readings recorded.csv --points site/points.csv --out judged.csv", 0),
        ("city make small --scale 0.001", 0), ("check -c small/yuzui.toml", 0),
        ("points generate --points 50 --out city.csv", 0), (f"drill {config} --by somebody --wait-s 1", 2),
    )  # fmt: skip
    used |= {"demo", "credential", "console"}  # the demo has a test above; the others ask for a password
    assert used == set(COMMANDS)
