"""What several commands need: a config with faults shown as a person reads them, and the running engine.

Owns no behaviour of the engine.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click

from ingest.config import Config
from ingest.configfile import ConfigFaults, load

ENGINE_FILE = "engine.json"
"""In the data folder: pid and ports of the engine that holds its lock."""
SOCKET_FILE = "ops.sock"
"""In the data folder, where the operators' port speaks TLS: the same answers, for whoever may enter the folder."""
ANSWER_S_MAX = 5.0
"""For its health; the engine answers in milliseconds or its loop hangs."""


def load_or_fail(path: str) -> Config:
    """The config, or every fault at once on standard error and exit code 2."""
    if not Path(path).is_file():
        raise click.ClickException(
            f"no config at {path}; name one with --config, or make one with `yuzui init DIR`"
        )
    try:
        return load(Path(path))
    except ConfigFaults as faults:
        lines = "\n".join(f"  {fault}" for fault in faults.faults)
        raise click.ClickException(f"{path}: {len(faults.faults)} fault(s)\n{lines}") from None


def noted(folder: Path, what: str, who: str = "", subject: str = "", detail: str = "") -> None:
    """To the audit log, with the name of whoever typed the command."""
    import getpass

    from storage import audit

    try:
        typed = getpass.getuser()
    except (OSError, KeyError):
        typed = f"user {os.getuid()}"
    audit.note(folder, audit.Act(what, who or typed, f"command line, {typed}", subject, detail))


def data_dir(config_path: str) -> Path:
    """The data folder the config names."""
    return Path(load_or_fail(config_path).data.dir)


def engine_vitals(folder: Path) -> dict[str, Any] | None:
    """/healthz of the engine running on a data folder; None where none answers."""
    try:
        engine = json.loads((folder / ENGINE_FILE).read_text())
        vitals = _asked(engine, folder, "/healthz")
        # After a kill the file stays, and another folder's engine may have taken the port.
        return vitals if vitals.get("pid") == engine["pid"] else None
    except (OSError, ValueError, KeyError):
        return None


def engine_answer(folder: Path, path: str) -> Any | None:
    """JSON of a GET on the port of the engine that runs on a data folder; None where none answers."""
    if engine_vitals(folder) is None:
        return None
    try:
        engine = json.loads((folder / ENGINE_FILE).read_text())
        return _asked(engine, folder, path)
    except (OSError, ValueError, KeyError):
        return None


class _Here(http.client.HTTPConnection):
    """HTTP through the engine's socket in its data folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S_MAX)
        self._folder = folder

    def connect(self) -> None:
        """Through the folder's descriptor: the kernel takes no path longer than 107 bytes."""
        within = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(ANSWER_S_MAX)
            self.sock.connect(f"/proc/self/fd/{within}/{SOCKET_FILE}")
        finally:
            os.close(within)


def _asked(engine: dict[str, Any], folder: Path, path: str) -> Any:
    """JSON of a GET, ready (200) or not (503). Raises OSError, ValueError."""
    if not engine.get("ops_tls"):
        return _healthz(f"http://{engine['ops_host']}:{engine['ops_port']}{path}")
    here = _Here(folder)
    try:
        here.request("GET", path)
        return json.loads(here.getresponse().read())
    except http.client.HTTPException as fault:
        raise OSError(str(fault)) from fault
    finally:
        here.close()


def _healthz(url: str) -> dict[str, Any]:
    """What it answers, ready (200) or not (503). Raises OSError, ValueError."""
    try:
        answer = urllib.request.urlopen(url, timeout=ANSWER_S_MAX)
    except urllib.error.HTTPError as unready:
        answer = unready
    with answer:
        found: dict[str, Any] = json.load(answer)
        return found
