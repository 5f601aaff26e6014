"""docs/deploy.md and docs/backup.md are executed: every `console` line, in the order of the pages, on one engine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from ingest.cli import COMMANDS
from storage.backup_manifest import backups
from tests.engines import ROOT, EngineProcess, run_yuzui, yuzui_here
from tests.talk import Talker

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("deploy", "backup")}
_CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
LINES = [
    line.removeprefix("$ ")
    for page in PAGES.values()
    for block in _CONSOLE.findall(page)
    for line in block.splitlines()
]


class Machine:
    """The reader's machine, in a folder: its /etc, /backup and /var are below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.etc = folder / "etc" / "yuzui"
        self.data = folder / "var" / "lib" / "yuzui" / "data"
        self.copies = folder / "backup" / "yuzui"
        self.data.parent.mkdir(parents=True)
        self.engine: EngineProcess | None = None

    def run(self, line: str) -> str:
        """What a line prints; it must end with 0."""
        for root in ("/etc/yuzui", "/backup/yuzui", "/var/lib/yuzui"):
            line = re.sub(rf"(?<![\w/]){root}", str(self._folder) + root, line)
        if "NEWEST" in line:
            line = line.replace("NEWEST", backups(self.copies)[-1].name)
        words = shlex.split(line)
        if words[0] != "yuzui":
            subprocess.run(words, check=True, timeout=120)
            return ""
        if words[1] == "run":
            self.start()
            return ""
        # A backup lowers its own priority: in a process of its own.
        done = (run_yuzui if words[1] == "backup" else yuzui_here)(*words[1:])
        well = (0, 1) if words[1] == "doctor" else (0,)
        assert done.returncode in well, f"{line}\n{done.stdout}{done.stderr}"
        if words[1] == "init":
            self._settle()
        return done.stdout

    def _settle(self) -> None:
        """As the page says: where the data goes. And free ports, since others may hold the usual ones here."""
        config = self.etc / "yuzui.toml"
        text = config.read_text("utf-8").replace('dir = "data"', f'dir = "{self.data}"')
        config.write_text(text.replace("port = 1883", "port = 0").replace("port = 9180", "port = 0"))

    def start(self) -> None:
        """The engine, as `run` or systemd starts it."""
        text = (self.etc / "yuzui.toml").read_text("utf-8")
        self.engine = EngineProcess(self.etc, text)
        self.engine.data = self.data
        self.engine.start()


def test_the_pages_are_executed_from_init_to_a_restored_engine(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    at = time.time_ns() // 1_000_000
    told: dict[str, str] = {}
    try:
        for line in LINES:
            if line.startswith("yuzui status"):
                machine.start()
                assert machine.engine is not None
                with Talker(machine.engine.port) as gateway:
                    gateway.say("site/gw-1/level-1", json.dumps({"ts": at, "v": 3.62}).encode())
                machine.engine.until_lake("SELECT count(*) FROM readings", [(1,)])
            if line.startswith("yuzui restore"):
                assert machine.engine is not None
                machine.engine.kill()
                shutil.rmtree(machine.data)
                shutil.rmtree(machine.etc)
            if line.startswith("cp "):
                machine.etc.mkdir(parents=True)
            told[line.split()[1]] = machine.run(line)
        assert machine.engine is not None
        machine.engine.until_lake(
            "SELECT point_id, epoch_ms(time), value FROM readings", [("level-1", at, 3.62)]
        )
    finally:
        if machine.engine is not None and machine.engine.running:
            machine.engine.stop()
    assert {"init", "check", "status", "doctor", "backup", "verify", "restore", "run", "outbox"} <= set(told)
    assert "config is right: 2 points" in told["check"]
    assert "all whole" in told["verify"]


def test_what_init_says_to_type_next_is_what_works(tmp_path: Path) -> None:
    done = yuzui_here("init", str(tmp_path / "site"), "--listener-port", "0", "--ops-port", "0")
    assert done.returncode == 0, done.stderr
    check, run, publish = (line.strip() for line in done.stdout.split("next:\n")[1].splitlines()[:3])
    assert yuzui_here(*shlex.split(check)[1:]).returncode == 0
    assert shlex.split(run)[1:] == ["run", "-c", str(tmp_path / "site" / "yuzui.toml")]
    engine = EngineProcess(tmp_path / "site", (tmp_path / "site" / "yuzui.toml").read_text("utf-8")).start()
    try:
        words = shlex.split(publish)
        topic, payload = words[words.index("-t") + 1], words[words.index("-m") + 1]
        now = str(time.time_ns() // 1_000_000)
        with Talker(engine.port) as gateway:
            gateway.say(topic, payload.replace("$(date +%s%3N)", now).encode())
        engine.until_lake("SELECT point_id, value, flag FROM readings", [("level-1", 3.62, 1)])
        # 3.62 m is above yellow: the limits written there are at work.
        engine.until_lake("SELECT severity, state FROM alerts", [(2, "firing")])
    finally:
        engine.stop()
    again = yuzui_here("init", str(tmp_path / "site"))
    assert again.returncode == 2
    assert "nothing is overwritten" in again.stderr


def test_every_command_the_pages_name_exists() -> None:
    named = {name for page in PAGES.values() for name in re.findall(r"`?yuzui ([a-z]+)\b", page)}
    # `podman exec yuzui yuzui status`
    assert named - set(COMMANDS) <= {"yuzui"}
    assert {"backup", "verify", "restore", "init"} <= named
