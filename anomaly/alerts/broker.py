"""A broker's way: notifications published over MQTT, QoS 1, on a connection of their own.

Owns that connection, made when there is something to say and again when it is lost. A notification has arrived when
the broker acknowledged it. User and password never reach a log line or an error.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiomqtt
import orjson
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from anomaly.alerts.addresses import refusal
from anomaly.alerts.formats import CONTENT_TYPES, Render, fields_of
from anomaly.alerts.lane import Answer, Notice
from anomaly.settings import TOPIC_PLACES, MqttTargetSettings
from storage.certificates import ClientTls, renewed

KEEPALIVE_S: Final = 30
_NOT_IN_A_LEVEL: Final = re.compile(r"[/+#\x00]")


class BrokerCarrier:
    """One connection, shared by all that goes to this target."""

    def __init__(
        self, target: MqttTargetSettings, render: Render | None, tls: ClientTls | None = None
    ) -> None:
        self._target = target
        self._render = render
        self._password = _password(target)
        url = urlsplit(target.url)
        self._host, self._tls = url.hostname or "", tls
        self._port = url.port or (8883 if url.scheme == "mqtts" else 1883)
        self.refused: str | None = _literal_refusal(self._host)
        self._client: aiomqtt.Client | None = None
        self._connecting = asyncio.Lock()

    def renew(self) -> None:
        """See Carrier. The open connection lives on; the next one takes the new files."""
        if self._tls is not None:
            renewed(self._target.name, self._tls)

    async def send(self, notice: Notice, body: bytes, now_us: int) -> Answer:
        """Publish and wait for the PUBACK."""
        if self.refused is not None:
            return Answer("address_refused", hopeless=True)
        told = orjson.loads(body)
        content = body if self._render is None else self._render(told)
        topic = topic_of(self._target.topic, told)
        lasts = told["type"] in ("alert.firing", "alert.updated")
        client: aiomqtt.Client | None = None
        try:
            client = await self._connected()
            await self._publish(client, topic, content, notice, retain=self._target.retain and lasts)
            if self._target.retain and told["type"] == "alert.resolved":
                # An empty retained message: the broker forgets the alert.
                await self._publish(client, topic, b"", notice, retain=True)
        except (aiomqtt.MqttError, OSError, TimeoutError, ValueError) as failure:
            await self._drop(client)
            return Answer(_reason(failure))
        return Answer()

    async def _publish(
        self, client: aiomqtt.Client, topic: str, content: bytes, notice: Notice, *, retain: bool
    ) -> None:
        properties: Any = None
        if self._target.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)
            properties.ContentType = CONTENT_TYPES.get(self._target.format, "application/json")
            properties.UserProperty = [("webhook-id", notice.webhook_id)]
        await client.publish(
            topic, content, qos=1, retain=retain, properties=properties, timeout=self._target.timeout_s
        )

    async def _connected(self) -> aiomqtt.Client:
        async with self._connecting:
            if self._client is None:
                five = self._target.protocol == "5"
                client = aiomqtt.Client(
                    self._host,
                    self._port,
                    username=self._target.user,
                    password=self._password,
                    identifier=self._target.client_id,
                    protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
                    # We keep what is not acknowledged: the broker need not remember us.
                    clean_session=None if five else True,
                    tls_context=self._tls.current if self._tls is not None else None,
                    keepalive=KEEPALIVE_S,
                    timeout=self._target.timeout_s,
                )
                await client.__aenter__()
                self._client = client
            return self._client

    async def _drop(self, client: aiomqtt.Client | None) -> None:
        """Close a connection that failed, once; the next notification makes a new one."""
        if client is None or self._client is not client:
            return
        self._client = None
        # It is closed because it is broken: that closing it finds so too is no news.
        with suppress(aiomqtt.MqttError, OSError, TimeoutError):
            await client.__aexit__(None, None, None)

    async def close(self) -> None:
        """Say goodbye to the broker."""
        await self._drop(self._client)


def topic_of(template: str, body: dict[str, Any]) -> str:
    """The topic of a notification; what a name holds cannot add levels or wildcards."""
    fields = fields_of(body)
    if not body["type"].startswith("alert."):
        # Heartbeats and tests have ids of their own, but one topic.
        fields["id"] = body["type"]
    for place in TOPIC_PLACES:
        template = template.replace(f"{{{place}}}", _NOT_IN_A_LEVEL.sub("_", fields[place]) or "_")
    return template


def _literal_refusal(host: str) -> str | None:
    try:
        return refusal(host)
    except ValueError:
        return None


def _password(target: MqttTargetSettings) -> str | None:
    if target.password_file is None:
        return target.password
    return Path(target.password_file).read_text("utf-8").partition("\n")[0].strip()


def _reason(failure: BaseException) -> str:
    if isinstance(failure, aiomqtt.MqttCodeError):
        return f"mqtt_{getattr(failure.rc, 'value', failure.rc)}"
    for kind, word in (
        (TimeoutError, "timeout"),
        (ssl.SSLError, "tls"),
        (OSError, "refused"),
        (ValueError, "bad_topic"),
    ):
        if isinstance(failure, kind):
            return word
    return "connection_lost"
