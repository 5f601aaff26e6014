"""A webhook's way: one HTTP POST, signed as its receiver expects.

Owns the HTTP client of a target and the reading of answers. URLs and secrets never reach a log line or an error.
"""

from __future__ import annotations

import ssl
import time
from asyncio import timeout
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import orjson

from anomaly.alerts import signature
from anomaly.alerts.addresses import AddressRefusedError, CheckedResolver, literal_refusal
from anomaly.alerts.formats import CONTENT_TYPES, Render
from anomaly.alerts.lane import Answer, Notice
from anomaly.settings import WebhookSettings
from storage.certificates import ClientTls, renewed
from storage.units import US_PER_S

ANSWER_BYTES_MAX: Final = 16 * 1024
"""Read of an answer, so that the connection can be used again; of a longer answer it is closed."""
ANSWER_S_MAX: Final = 2.0
"""For that read. The status has already decided: a body that drips changes nothing."""
DNS_CACHE_S: Final = 10
PAUSING: Final = frozenset({429, 502, 503, 504})
"""Answers whose Retry-After holds for the whole target."""
GONE: Final = 410
USER_AGENT: Final = "yuzui"
ROBOT_FIELDS: Final = {"wecom": "errcode", "dingtalk": "errcode", "feishu": "code"}
"""Robots answer 200 to everything: this field of the body is 0 if the message was taken."""
TOO_MANY: Final = {45009: 60.0, 130101: 600.0, 11232: 60.0, 9499: 60.0}
"""A robot's code for too many messages, and how long it stays deaf then, in seconds (verify: no primary source)."""


class WebhookCarrier:
    """``refused`` says why the address is never called."""

    def __init__(self, webhook: WebhookSettings, render: Render | None, tls: ClientTls | None = None) -> None:
        self._webhook = webhook
        self._tls = tls
        self._render = render
        self._keys = () if webhook.format in ROBOT_FIELDS else signature.keys_of(webhook)
        self._robot_secret = signature.first_secret(webhook) if webhook.format in ROBOT_FIELDS else None
        self.refused: str | None = literal_refusal(webhook)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=webhook.concurrency_max, resolver=CheckedResolver(), ttl_dns_cache=DNS_CACHE_S
            ),
            timeout=aiohttp.ClientTimeout(total=webhook.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={
                "User-Agent": USER_AGENT,
                "Content-Type": CONTENT_TYPES.get(webhook.format, "application/json"),
            },
        )

    def renew(self) -> None:
        """See Carrier. Connections that are open are left; the next call makes its own."""
        if self._tls is not None:
            renewed(self._webhook.name, self._tls)

    async def send(self, notice: Notice, body: bytes, now_us: int) -> Answer:
        """One POST."""
        if self.refused is not None:
            return Answer("address_refused", hopeless=True)
        url, content = self._webhook.url, body
        try:
            if self._render is not None:
                content = self._render(orjson.loads(body))
            if self._robot_secret:
                url, content = self._robot_signed(url, content, now_us)
            headers = signature.headers(self._keys, notice.webhook_id, now_us // US_PER_S, content)
            async with self._session.post(
                url, data=content, headers=headers, allow_redirects=False,
                ssl=self._tls.current if self._tls is not None else True,
            ) as response:  # fmt: skip
                return _answer(response, await _read_some(response), ROBOT_FIELDS.get(self._webhook.format))
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            return Answer(_reason(failure))

    def _robot_signed(self, url: str, content: bytes, now_us: int) -> tuple[str, bytes]:
        assert self._robot_secret is not None
        if self._webhook.format == "dingtalk":
            return signature.dingtalk_url(url, self._robot_secret, now_us // 1000), content
        if self._webhook.format == "feishu":
            signed = signature.feishu_fields(self._robot_secret, now_us // US_PER_S)
            return url, orjson.dumps({**signed, **orjson.loads(content)})
        return url, content

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()


async def _read_some(response: aiohttp.ClientResponse) -> bytes:
    """A short answer to its end; a long or slow one is left, and its connection closed."""
    read = b""
    try:
        async with timeout(ANSWER_S_MAX):
            while len(read) < ANSWER_BYTES_MAX:
                chunk = await response.content.read(ANSWER_BYTES_MAX - len(read))
                if not chunk:
                    return read
                read += chunk
    except (TimeoutError, aiohttp.ClientError):
        response.close()
    return read


def _answer(response: aiohttp.ClientResponse, body: bytes, robot_field: str | None) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return Answer() if robot_field is None else _robot_answer(body, robot_field)
    if status == GONE:
        return Answer("status_410", gone=True)
    if 300 <= status < 400:
        return Answer("redirect")
    pause = _retry_after_s(response.headers.get("Retry-After")) if status in PAUSING else None
    return Answer(f"status_{status}", retry_after_s=pause)


def _robot_answer(body: bytes, field: str) -> Answer:
    try:
        said = orjson.loads(body)
        code = int(said.get(field, said.get("StatusCode", -1)))
    except (ValueError, TypeError, AttributeError):
        return Answer("bad_answer")
    return Answer() if code == 0 else Answer(f"robot_{code}", retry_after_s=TOO_MANY.get(code))


def _retry_after_s(text: str | None) -> float | None:
    """Seconds from a Retry-After of either form; None where it is missing or makes no sense."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _reason(failure: BaseException) -> str:
    """A word for a failed call, without its URL."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, AddressRefusedError):
            return "address_refused"
        cause = cause.__cause__
    for kind, word in (
        (TimeoutError, "timeout"),
        (aiohttp.ClientConnectorDNSError, "dns"),
        (aiohttp.ClientSSLError, "tls"),
        (ssl.SSLError, "tls"),
        (aiohttp.ClientConnectorError, "refused"),
        (aiohttp.ClientResponseError, "bad_answer"),
        (aiohttp.ClientConnectionError, "connection_lost"),
        (OSError, "connection_lost"),
    ):
        if isinstance(failure, kind):
            return word
    return "bad_request"
