"""Carriers: how a notification leaves the machine, one for each way.

Owns the shape of a carrier, the choice of one, and the plainest: files. Webhooks are anomaly.alerts.webhook's, brokers
anomaly.alerts.broker's. Order, retries and giving up are anomaly.alerts.lane's: a carrier tries once and answers.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final, Protocol

import orjson

from anomaly.alerts.broker import BrokerCarrier
from anomaly.alerts.formats import Render, renderer
from anomaly.alerts.lane import Answer, Notice
from anomaly.alerts.webhook import WebhookCarrier
from anomaly.settings import FileTargetSettings, MqttTargetSettings, TargetSettings, WebhookSettings
from storage.certificates import ClientFiles, ClientTls
from storage.fsync import replace_durably

SWEEP_S: Final = 3600.0
"""How often old files are looked for."""


class Carrier(Protocol):
    """One target's way. ``refused`` says why it is never called, None where it is."""

    refused: str | None

    def renew(self) -> None:
        """Read certificates again; those that cannot be used are refused, and what was in force goes on."""
        ...

    async def send(self, notice: Notice, body: bytes, now_us: int) -> Answer:
        """Try once; ``body`` is v1. Raises nothing of its own: what went wrong is the answer."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def carrier_of(target: TargetSettings, sender: str) -> Carrier:
    """The way to a target. Raises ValueError or OSError for a secret or a template that cannot be used."""
    render = rendering(target, sender)
    if isinstance(target, WebhookSettings):
        return WebhookCarrier(target, render, tls_of(target))
    if isinstance(target, MqttTargetSettings):
        return BrokerCarrier(target, render, tls_of(target))
    assert isinstance(target, FileTargetSettings), f"no way to a target of {type(target).__name__}"
    return FileCarrier(target, render)


def tls_of(target: TargetSettings) -> ClientTls | None:
    """The certificates of a target that is reached over TLS. Raises CertificateFault."""
    if not isinstance(target, WebhookSettings | MqttTargetSettings) or not target.url.startswith(
        ("https:", "mqtts:")
    ):
        return None
    return ClientTls(ClientFiles(target.tls_ca_file, target.tls_cert_file, target.tls_key_file))


def rendering(target: TargetSettings, sender: str) -> Render | None:
    """What makes a target's body out of ours, None where it takes ours. Raises ValueError or OSError."""
    text = Path(target.template_file).read_text("utf-8") if target.template_file else None
    return renderer(target.format, text, sender)


class FileCarrier:
    """A file for each notification, complete under its name or not there at all."""

    refused: str | None = None

    def __init__(self, target: FileTargetSettings, render: Render | None) -> None:
        self._folder = Path(target.dir)
        self._suffix = "xml" if target.format == "cap" else "json"
        self._keep_s = target.keep_s
        self._render = render
        self._swept_at = -SWEEP_S

    def renew(self) -> None:
        """A file has no certificate."""

    async def send(self, notice: Notice, body: bytes, now_us: int) -> Answer:
        """Write it on disk; a file of the same notification is replaced."""
        content = body if self._render is None else self._render(orjson.loads(body))
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._write, notice.webhook_id, content)
        except OSError as failure:
            return Answer(f"file_{failure.__class__.__name__}")
        return Answer()

    def _write(self, name: str, content: bytes) -> None:
        # The id is ours: hexadecimal, digits, a target's name. Nothing from a topic or payload enters a path.
        self._folder.mkdir(parents=True, exist_ok=True)
        tmp = self._folder / f".{name}.tmp"
        tmp.write_bytes(content)
        replace_durably(tmp, self._folder / f"{name}.{self._suffix}")
        if time.monotonic() - self._swept_at >= SWEEP_S:
            self._swept_at = time.monotonic()
            self._sweep(time.time() - self._keep_s)

    def _sweep(self, before_s: float) -> None:
        for entry in os.scandir(self._folder):
            if entry.name.endswith(f".{self._suffix}") and entry.stat().st_mtime < before_s:
                os.unlink(entry.path)

    async def close(self) -> None:
        """Nothing is held."""
