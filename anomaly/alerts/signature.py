"""How a receiver knows that a notification is ours and whole: Standard Webhooks 1.0, and what robots want instead.

Owns the signatures. Knows nothing of HTTP clients or of where secrets are kept, and never puts one
into an error or a log line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus

from anomaly.settings import WebhookSettings

SECRET_PREFIX: Final = "whsec_"


def key_of(secret: str) -> bytes:
    """The signing key: base64 after ``whsec_``, else the text itself. ValueError never shows it."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a webhook secret that begins with whsec_ is not base64") from None


def first_secret(webhook: WebhookSettings) -> str | None:
    """The secret of a robot as it gave it; None where it has none. Raises OSError where its file cannot be read."""
    if webhook.secret_file is None:
        return webhook.secret
    lines = Path(webhook.secret_file).read_text("utf-8").splitlines()
    return next((line.strip() for line in lines if line.strip()), None)


def dingtalk_url(url: str, secret: str, timestamp_ms: int) -> str:
    """The URL of a 钉钉 robot with timestamp and sign: HMAC-SHA256 of "timestamp\\nsecret" under the secret."""
    digest = hmac.new(secret.encode(), f"{timestamp_ms}\n{secret}".encode(), hashlib.sha256).digest()
    sign = quote_plus(base64.b64encode(digest))
    return f"{url}{'&' if '?' in url else '?'}timestamp={timestamp_ms}&sign={sign}"


def feishu_fields(secret: str, timestamp_s: int) -> dict[str, str]:
    """timestamp and sign of a 飞书 robot's body: HMAC-SHA256 of nothing under "timestamp\\nsecret"."""
    digest = hmac.new(f"{timestamp_s}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": str(timestamp_s), "sign": base64.b64encode(digest).decode()}


def keys_of(webhook: WebhookSettings) -> tuple[bytes, ...]:
    """All keys of a target, the newest first; none where it has no secret.

    A secret file holds one secret a line. Raises OSError where it cannot be read.
    """
    if webhook.secret_file is not None:
        lines = Path(webhook.secret_file).read_text("utf-8").splitlines()
        return tuple(key_of(line.strip()) for line in lines if line.strip())
    return (key_of(webhook.secret),) if webhook.secret else ()


def headers(keys: Sequence[bytes], webhook_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """webhook-id, webhook-timestamp and, with keys, webhook-signature (one v1 signature a key)."""
    signed = f"{webhook_id}.{timestamp_s}.".encode() + body
    found = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp_s)}
    if keys:
        digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
        found["webhook-signature"] = " ".join(f"v1,{base64.b64encode(d).decode()}" for d in digests)
    return found
