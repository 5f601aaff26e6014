"""A real mosquitto for tests, with the shipped configuration."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.engines import ROOT, free_port, until

BINARY = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

needs_mosquitto = pytest.mark.skipif(
    BINARY is None, reason="SKIPPED: no mosquitto on this machine; install mosquitto and mosquitto-clients"
)


class Mosquitto:
    """`mosquitto -c configs/mosquitto.conf -p PORT`, its persistence in ``folder``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """mqtt://127.0.0.1:PORT."""
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        assert BINARY is not None
        config = self.folder / "mosquitto.conf"
        shipped = (ROOT / "configs" / "mosquitto.conf").read_text()
        config.write_text(f"{shipped}\npersistence_location {self.folder}/\nuser root\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "-c", str(config), "-p", str(self.port)], stdout=log, stderr=log
            )
        until(self._accepts, "mosquitto accepts connections")

    def _accepts(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"mosquitto ended: {(self.folder / 'mosquitto.log').read_text()[-1000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)
