"""systemd's side of the engine: what it is told, and what the unit and the container file let it do."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.engines import ROOT, EngineProcess, site_config
from tests.talk import Talker

UNIT = ROOT / "configs" / "yuzui.service"
EXPOSURE_MAX = 2.0
WATCHDOG_S = 1.5


class Manager:
    """Stands where systemd does: a datagram socket, and what was said to it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self, wanted: str, timeout_s: float = 60.0) -> list[str]:
        """Notes until one has ``wanted``."""
        heard: list[str] = []
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self._socket.settimeout(max(end - time.monotonic(), 0.01))
            heard.append(self._socket.recv(65_536).decode())
            if wanted in heard[-1]:
                return heard
        raise AssertionError(f"no {wanted} in {heard}")


def test_systemd_is_told_when_the_engine_is_ready_how_it_is_that_it_lives_and_that_it_stops(
    tmp_path: Path,
) -> None:
    address = f"@yuzui-test-{os.getpid()}"
    manager = Manager(address)
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
    engine = EngineProcess(tmp_path / "e", site_config(tmp_path / "e", {"g": ["a"]}), env=env).start(
        wait=False
    )
    try:
        started = manager.hear("READY=1")
        assert any("STATUS=starting" in note and "EXTEND_TIMEOUT_USEC=" in note for note in started[:-1])
        assert "readings/s" in started[-1], "the line of `yuzui status`"
        engine.ready()
        with Talker(engine.port) as gateway:
            gateway.say("t/g/a", json.dumps({"ts": time.time_ns() // 1_000_000, "v": 1.0}).encode())
        manager.hear("WATCHDOG=1")
        manager.hear("WATCHDOG=1")
        manager.hear("STATUS=ok")
    finally:
        assert engine.stop() == 0
    manager.hear("STOPPING=1")


def test_the_unit_is_hardened_to_two_or_less() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("SKIPPED: no systemd-analyze here, the unit's exposure was not measured")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout + done.stderr)
    assert found, done.stdout[-500:] + done.stderr
    print(f"exposure {found[1]}")
    assert float(found[1]) <= EXPOSURE_MAX


def test_the_unit_runs_commands_that_exist_and_waits_for_its_notes() -> None:
    text = UNIT.read_text("utf-8")
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert said["Type"] == "notify"
    assert float(said["WatchdogSec"]) >= 30, "a stalled disk or a long reload is no reason to kill"
    from ingest.cli import COMMANDS

    for line in re.findall(r"^Exec\w+=(.*)$", text, re.MULTILINE):
        words = shlex.split(line)
        assert words[0] == "/opt/yuzui/bin/yuzui"
        assert words[1] in COMMANDS


def test_the_container_file_copies_what_exists_pins_with_hashes_and_names_no_registry() -> None:
    lines = (ROOT / "Containerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    known = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "VOLUME", "HEALTHCHECK", "ENTRYPOINT",
             "CMD", "LABEL", "STOPSIGNAL"}  # fmt: skip
    assert {word for word, _ in steps} <= known
    stages = [rest.split() for word, rest in steps if word == "FROM"]
    assert len(stages) == 2, "built in one, run in another"
    for image, *_ in stages:
        assert re.fullmatch(r"[a-z0-9]+:[\w.-]+", image), f"{image} names a host"
    names = {words[2] for words in stages if len(words) == 3}
    for word, rest in steps:
        if word == "COPY":
            words = [part for part in rest.split() if not part.startswith("--chown")]
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in names
                continue
            for source in words[:-1]:
                assert list(ROOT.glob(source)), f"COPY {source}: there is no such file"
    last = steps[[i for i, (word, _) in enumerate(steps) if word == "FROM"][-1] :]
    users = [rest for word, rest in last if word == "USER"]
    assert users, "it does not run as root"
    assert users[-1].split(":")[0] not in ("root", "0")
    text = " ".join(rest for _, rest in steps)
    assert "--require-hashes" in text
    assert any(word == "HEALTHCHECK" for word, _ in last)
    assert json.loads(next(rest for word, rest in last if word == "ENTRYPOINT"))[0].endswith("yuzui")
    assert "://" not in text.replace("http://127.0.0.1", "")
