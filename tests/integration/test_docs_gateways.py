"""docs/gateways.md is executed: its four commands as they stand, and every payload it shows."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.engines import ROOT, free_port, until
from tests.talk import Talker

PAGE = (ROOT / "docs" / "gateways.md").read_text("utf-8")
_CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
_PAYLOAD = re.compile(r"```json topic=(\S+)\n(.*?)\n```", re.DOTALL)
PAYLOADS = _PAYLOAD.findall(PAGE)
MOSQUITTO_PUB = shutil.which("mosquitto_pub")

_PAHO = """#!{python}
import argparse
import paho.mqtt.client as paho
parser = argparse.ArgumentParser()
for option, kind in (("-p", int), ("-q", int), ("-t", str), ("-m", str)):
    parser.add_argument(option, type=kind)
asked = parser.parse_args()
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.connect("127.0.0.1", asked.p)
client.loop_start()
client.publish(asked.t, asked.m, asked.q).wait_for_publish(60)
client.disconnect()
"""


class Shell:
    """The reader's terminal: the repository's root, the page's commands, ports and data of our own."""

    def __init__(self, folder: Path) -> None:
        self.port, ops, self.data = free_port(), free_port(), folder / "data"
        tools = folder / "bin"
        tools.mkdir()
        # scripts/yuzui sets up a fresh clone first; here that is done, so its command is run directly.
        self._tool(tools / "yuzui", f'#!/bin/sh\nexec "{sys.executable}" -m ingest.cli "$@"\n')
        if MOSQUITTO_PUB is None:
            self._tool(tools / "mosquitto_pub", _PAHO.format(python=sys.executable))
        self.env = {
            **os.environ, "YUZUI_DATA": str(self.data), "YUZUI_PORT": str(self.port),
            "YUZUI_OPS_PORT": str(ops), "PYTHONPATH": str(ROOT), "PATH": f"{tools}:{os.environ['PATH']}",
        }  # fmt: skip
        self.background: list[subprocess.Popen[str]] = []

    @staticmethod
    def _tool(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def fit(self, line: str) -> str:
        """The line as it stands, but for the place of `yuzui` and the port, which others may hold here."""
        assert "-p 1883" in line or "1883" not in line
        return line.replace("scripts/yuzui", "exec yuzui").replace("-p 1883", f"-p {self.port}")

    def run(self, line: str) -> str:
        """What a line prints; one that ends in & goes on until the end."""
        if line.endswith("&"):
            started = subprocess.Popen(
                ["sh", "-c", self.fit(line.rstrip(" &"))],
                cwd=ROOT,
                env=self.env,
                text=True,
                stderr=subprocess.DEVNULL,
            )
            self.background.append(started)
            until(self.answers, "the engine answers")
            return ""
        done = subprocess.run(
            ["sh", "-c", self.fit(line)],
            cwd=ROOT,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=400,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), line
        return done.stdout

    def answers(self) -> bool:
        """`yuzui status` says 0."""
        assert all(one.poll() is None for one in self.background), "the engine ended"
        line = "yuzui status -c configs/first.toml"
        return (
            subprocess.run(
                ["sh", "-c", line], cwd=ROOT, env=self.env, capture_output=True, check=False
            ).returncode
            == 0
        )

    def lake(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query by plain DuckDB."""
        with duckdb.connect() as con:
            con.execute((self.data / "lake.sql").read_text())
            rows: list[tuple[Any, ...]] = con.execute(query).fetchall()
            return rows


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One terminal for the page; what it left in the background is ended."""
    opened = Shell(tmp_path_factory.mktemp("gateways"))
    yield opened
    for one in opened.background:
        one.send_signal(signal.SIGTERM)
        assert one.wait(120) == 0


def test_four_commands_lead_from_a_clone_to_ones_own_reading(shell: Shell) -> None:
    """The console block, line by line; the last one shows the reading within seconds."""
    lines = [line.removeprefix("$ ") for line in _CONSOLE.findall(PAGE)[0].splitlines()]
    assert len(lines) == 4
    for line in lines[:3]:
        shell.run(line)
    until(lambda: shell.lake("SELECT value FROM readings") == [(3.62,)], "the reading stands in DuckDB")
    shown = shell.run(lines[3])
    assert "my-level" in shown
    assert "3.62" in shown


def test_every_payload_of_the_page_ends_in_readings(shell: Shell) -> None:
    """Each json block is published to the topic it names, at a time of its own; all of its readings are stored."""
    assert len(PAYLOADS) == PAGE.count("```json"), "a block without a topic is not tested"
    assert len(PAYLOADS) >= 7
    shell.run(_CONSOLE.findall(PAGE)[1].strip().removeprefix("$ "))
    shell.background[0].send_signal(signal.SIGTERM)
    assert shell.background.pop().wait(120) == 0
    shell.run("scripts/yuzui run -c configs/first.toml &")
    start = time.time_ns() // 1_000_000
    [(stored,)] = shell.lake("SELECT count(*) FROM readings")
    with Talker(shell.port, v5=True) as gateway:
        for number, (topic, payload) in enumerate(PAYLOADS):
            # Several readings of a block may be of one point: each has its own moment, a second later.
            moments = (start + 20_000 * number + 1000 * n for n in range(10))
            head, *rest = payload.split("NOW_MS")
            text = head + "".join(f"{next(moments)}{part}" for part in rest)
            iso = datetime.datetime.fromtimestamp(next(moments) / 1000).astimezone()
            text = text.replace("NOW_ISO", iso.isoformat(timespec="milliseconds"))
            assert gateway.say(topic, text.encode()) == 0, f"{topic} {text}"
            stored += max(1, payload.count('"ts"'))
    until(lambda: shell.lake("SELECT count(*) FROM readings") == [(stored,)], f"{stored} readings stand")
    assert shell.lake("SELECT * FROM quarantine") == []
    flags = "SELECT DISTINCT flag FROM readings WHERE value IS NULL OR device_flag = 3 ORDER BY 1"
    assert shell.lake(flags) == [(3,), (9,)]


def test_the_reasons_and_limits_of_the_page_are_those_of_the_code() -> None:
    """Its tables name every reason under its MQTT 5 code, and the defaults of the config."""
    from ingest.config import ListenerSettings, SourceSettings, WireSettings
    from ingest.decode.reasons import REASONS

    told = {}
    for code, reasons in re.findall(r"^\| `(0x\w\w)` [^|]*\|([^|]*)\|", PAGE, re.MULTILINE):
        told.update(dict.fromkeys(re.findall(r"`(\w+)`", reasons), int(code, 16)))
    assert told == {name: reason.code for name, reason in REASONS.items()}
    listener, source, wire = ListenerSettings(), SourceSettings(name="s"), WireSettings()
    for row in (
        f"| time to CONNECT | {listener.connect_s_max:g} s |",
        f"| packet | {wire.message_bytes_max >> 20} MiB |",
        f"| keepalive | {listener.keepalive_s_max} s at most |",
        f"| in flight (Receive Maximum) | {listener.receive_maximum:,} |",
        f"| failed logins a minute and address | {listener.failed_logins_per_minute_max} |",
        f"`readings_per_message_max` ({source.readings_per_message_max:,})",
        f"`message_bytes_max` ({source.message_bytes_max >> 20} MiB)",
        f"`age_s_max` (default {source.age_s_max / 86400:g} days)",
        f"`ahead_s_max` (default {source.ahead_s_max / 60:g} minutes)",
        f"(defaults `{source.time_field}`, `{source.value_field}`, `{source.id_field}`,\n`{source.flag_field}`)",
    ):
        assert row in PAGE, row
