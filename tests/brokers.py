"""Real brokers for tests: mosquitto with the shipped configuration, and NATS with JetStream, which speaks MQTT."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import pytest

from tests.engines import ROOT, free_port, until

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/local/bin"


class Broker(ABC):
    """One broker on a free port of loopback, what it keeps in ``folder``. A context manager."""

    name: ClassVar[str]
    in_order: ClassVar[bool] = True
    """Delivers again what was not acknowledged before it delivers anything newer."""
    protocol: ClassVar[str] = ""
    """The MQTT version a subscriber must be told, where it has only one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def binary(cls) -> str | None:
        """Its program, None where it is not installed."""
        return shutil.which(cls.name) or shutil.which(cls.name, path=_PLACES)

    @abstractmethod
    def command(self) -> list[str]:
        """How it is started."""

    @property
    def url(self) -> str:
        """mqtt://127.0.0.1:PORT."""
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        until(self._accepts, f"{self.name} accepts connections")

    def _accepts(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(
                f"{self.name} ended: {(self.folder / f'{self.name}.log').read_text()[-1000:]}"
            )
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process: SIGSTOP is a broker that hangs."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(60)


class Mosquitto(Broker):
    """`mosquitto -c configs/mosquitto.conf -p PORT`; ``more``: lines appended to the shipped configuration."""

    name = "mosquitto"

    def __init__(self, folder: Path, more: str = "") -> None:
        super().__init__(folder)
        self._more = more

    def command(self) -> list[str]:
        """Writes its configuration first."""
        binary = self.binary()
        assert binary is not None
        config = self.folder / "mosquitto.conf"
        shipped = (ROOT / "configs" / "mosquitto.conf").read_text()
        config.write_text(f"{shipped}\npersistence_location {self.folder}/\nuser root\n{self._more}\n")
        return [binary, "-c", str(config), "-p", str(self.port)]


class Nats(Broker):
    """`nats-server` with JetStream and MQTT (3.1.1 only); its own protocol on another free port."""

    name = "nats-server"
    in_order = False
    protocol = "3.1.1"

    def command(self) -> list[str]:
        """Writes its configuration first."""
        binary = self.binary()
        assert binary is not None
        config = self.folder / "nats.conf"
        # Left alone it sends again what a dead subscriber had not acknowledged only after half a minute.
        config.write_text(
            f'server_name: yuzui\nlisten: "127.0.0.1:{free_port()}"\n'
            f'jetstream {{ store_dir: "{self.folder}/jetstream" }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.port}", max_ack_pending: 10000, ack_wait: "2s" }}\n'
        )
        return [binary, "-c", str(config)]


BINARY = Mosquitto.binary()

needs_mosquitto = pytest.mark.skipif(
    BINARY is None, reason="SKIPPED: no mosquitto on this machine; install mosquitto and mosquitto-clients"
)
needs_nats = pytest.mark.skipif(
    Nats.binary() is None, reason="SKIPPED: no nats-server on this machine; install nats-server"
)
